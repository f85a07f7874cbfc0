"""The routes of a :class:`dataset_hub.DatasetHub` on loopback, for the real client and for `load_dataset`."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from answers import Answers
from dataset_hub import TIME, DatasetHub, Refusal, now
from loopback import listening

ID, REV = r"(?P<repo>[\w.-]+/[\w.-]+)", r"(?P<rev>[^/]+)"
LARGE = (".parquet", ".safetensors", ".png")


class Handler(Answers):
    """Answers what the real client and `load_dataset` ask: each method returns a body, and what is unusual of the answer."""

    def create(self) -> tuple[Any, ...]:
        """Make a repository; the client reads its address even where it is there already."""
        asked = json.loads(self.body)
        repo_id = f"{asked.get('organization') or 'tester'}/{asked['name']}"
        self._admitted(repo_id, writes=True)
        url = {"url": f"{self.hub.endpoint}/datasets/{repo_id}", "name": repo_id}
        try:
            self.hub.create(repo_id, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        except Refusal as refusal:
            refusal.body |= url
            raise
        return (url,)

    def validate(self) -> tuple[Any, ...]:
        """Say that every card's header is right."""
        return ({"errors": [], "warnings": []},)

    def preupload(self, repo: str, rev: str) -> tuple[Any, ...]:
        """Say how each file is to travel, and what is there under its name."""
        tree, found = self.hub.repo(repo).at(rev).tree, []
        for file in json.loads(self.body)["files"]:
            entry = tree.get(file["path"])
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            oid = entry and (entry.sha256 if entry.large else entry.oid)
            found.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return ({"files": found},)

    def batch(self, repo: str) -> tuple[Any, ...]:
        """Say where each large file is to be put, which is nowhere if its content is there."""
        self.hub.repo(repo)
        objects = [{"oid": one["oid"], "size": one["size"]} for one in json.loads(self.body)["objects"]]
        for one in objects:
            if not (self.hub.root / one["oid"]).exists():
                one["actions"] = {"upload": {"href": f"{self.hub.endpoint}/lfs/{one['oid']}", "header": {}}}
        return ({"transfer": "basic", "objects": objects},)

    def put(self, oid: str) -> tuple[Any, ...]:
        """Keep the content of a large file; refuse one that has not come whole."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "", "sha256 mismatch")
        self.hub.entry(self.body, large=True)
        return ({},)

    def xet(self, repo: str, rev: str = "", kind: str = "") -> tuple[Any, ...]:
        """Say where the client's xet is to store chunks: in a folder."""
        place, until = f"local://{self.hub.xet}", str(int(time.time()) + 3600)
        headers = {"X-Xet-Cas-Url": place, "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": until}
        return {"casUrl": place, "exp": int(until), "accessToken": "t"}, {"headers": headers}

    def commit(self, repo: str, rev: str) -> tuple[Any, ...]:
        """Make a commit, on a branch or as a pull request."""
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        with self.hub.lock:
            made, number = self.hub.commit(repo, rev, lines, request="create_pr" in self.query)
        url = f"{self.hub.endpoint}/datasets/{repo}"
        pulled = {"pullRequestUrl": f"{url}/discussions/{number}"} if number else {}
        return ({"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}", **pulled},)

    def tag(self, repo: str, rev: str) -> tuple[Any, ...]:
        """Make a tag."""
        self.hub.tag(repo, rev, json.loads(self.body)["tag"])
        return ({},)

    def branch(self, repo: str, rev: str) -> tuple[Any, ...]:
        """Make a branch."""
        found = self.hub.repo(repo)
        if rev in found.branches:
            raise Refusal(409, "RefExists", f"Reference already exists: {rev}")
        found.branches[rev] = found.at((json.loads(self.body or b"{}") or {}).get("startingPoint", "main")).oid
        return ({},)

    def refs(self, repo: str) -> tuple[Any, ...]:
        """List branches and tags."""
        found = self.hub.repo(repo)
        kinds = {"branches": ("heads", found.branches), "tags": ("tags", found.tags)}
        listed = {
            kind: [{"name": name, "ref": f"refs/{at}/{name}", "targetCommit": oid} for name, oid in refs.items()]
            for kind, (at, refs) in kinds.items()
        }
        return ({**listed, "converts": [], "pullRequests": []},)

    def discussions(self, repo: str) -> tuple[Any, ...]:
        """List the open pull requests."""
        common = {"author": {"name": "tester"}, "status": "open", "isPullRequest": True, "createdAt": now()}
        found = [
            {"num": number, "title": title, "repo": {"name": repo, "type": "dataset"}, **common}
            for number, (title, _) in self.hub.repo(repo).requests.items()
        ]
        return ({"count": len(found), "start": 0, "discussions": found},)

    def info(self, repo: str, rev: str) -> tuple[Any, ...]:
        """Describe a repository at a revision."""
        found = self.hub.repo(repo)
        commit = found.at(rev or "main")
        siblings = [{"rfilename": path} for path in sorted(commit.tree)]
        return ({"id": repo, "sha": commit.oid, "lastModified": now(), "private": found.private, "tags": [], "siblings": siblings},)

    def tree(self, repo: str, rev: str, folder: str) -> tuple[Any, ...]:
        """List the files below a folder, or those in it with the folders there."""
        commit, start = self.hub.repo(repo).at(rev), f"{folder}/" if folder else ""
        below = {path: entry for path, entry in sorted(commit.tree.items()) if path.startswith(start)}
        if folder and not below:
            raise Refusal(404, "EntryNotFound", f"{folder} does not exist on {commit.oid}")
        deep = self.query.get("recursive", ["false"])[0].lower() in ("1", "true")
        files = [entry.described(path) for path, entry in below.items() if deep or "/" not in path[len(start) :]]
        inner = sorted({start + path[len(start) :].split("/")[0] for path in below if "/" in path[len(start) :]})
        return ([*({"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in inner), *files],)

    def paths(self, repo: str, rev: str) -> tuple[Any, ...]:
        """Describe the files that are asked for."""
        tree = self.hub.repo(repo).at(rev).tree
        in_json = "json" in self.headers.get("Content-Type", "")
        wanted = json.loads(self.body)["paths"] if in_json else parse_qs(self.body.decode()).get("paths", [])
        return ([tree[path].described(path) for path in wanted if path in tree],)

    def resolve(self, repo: str, rev: str, path: str) -> tuple[Any, ...]:
        """Send a file, or a range of it."""
        commit = self.hub.repo(repo).at(rev)
        if path not in commit.tree:
            raise Refusal(404, "EntryNotFound", f"{path} does not exist at {rev}")
        entry = commit.tree[path]
        tag = f'"{entry.sha256 if entry.large else entry.oid}"'
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes", "ETag": tag, "X-Linked-Size": str(entry.size)}
        content = (self.hub.root / entry.sha256).read_bytes()
        if not (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            return content, {"headers": headers}
        first, last = int(asked[1]), min(int(asked[2] or entry.size - 1), entry.size - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{entry.size}"
        return content[first : last + 1], {"headers": headers, "status": 206}

    def create_bucket(self, repo: str) -> tuple[Any, ...]:
        """Make a bucket, unless it is there."""
        if repo in self.hub.buckets:
            raise Refusal(409, "", "it exists", url=f"{self.hub.endpoint}/buckets/{repo}")
        self.hub.buckets[repo] = {}
        return ({"url": f"{self.hub.endpoint}/buckets/{repo}"},)

    def bucket_tree(self, repo: str, folder: str) -> tuple[Any, ...]:
        """List the files of a bucket below a folder."""
        return ([file for path, file in sorted(self.hub.buckets[repo].items()) if path.startswith(folder)],)

    def bucket_batch(self, repo: str) -> tuple[Any, ...]:
        """Enter files that have been uploaded, and take others out."""
        held = self.hub.buckets[repo]
        for line in map(json.loads, self.body.splitlines()):
            if line["type"] == "addFile":
                size = (self.hub.working / line["path"]).stat().st_size
                at = datetime.fromtimestamp(line["mtime"] / 1000, UTC).strftime(TIME)
                held[line["path"]] = {"type": "file", "path": line["path"], "size": size, "xetHash": line["xetHash"], "mtime": at}
            else:
                del held[line["path"]]
        return ({"success": True, "failed": []},)

    def is_valid(self) -> tuple[Any, ...]:
        """Say, as the Hub's viewer, what it can show of a dataset."""
        self.hub.repo(self.query["dataset"][0])
        return (self.hub.valid,)


ROUTES = (
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/datasets/{ID}/preupload/{REV}", "preupload"),
    ("POST", rf"/datasets/{ID}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "put"),
    ("GET", rf"/api/datasets/{ID}/xet-(?P<kind>write|read)-token/{REV}", "xet"),
    ("POST", rf"/api/datasets/{ID}/commit/{REV}", "commit"),
    ("POST", rf"/api/datasets/{ID}/tag/{REV}", "tag"),
    ("POST", rf"/api/datasets/{ID}/branch/{REV}", "branch"),
    ("GET", rf"/api/datasets/{ID}/refs", "refs"),
    ("GET", rf"/api/datasets/{ID}/discussions", "discussions"),
    ("GET", rf"/api/datasets/{ID}(/revision/{REV})?", "info"),
    ("GET", rf"/api/datasets/{ID}/tree/{REV}(/(?P<folder>.*))?", "tree"),
    ("POST", rf"/api/datasets/{ID}/paths-info/{REV}", "paths"),
    ("GET|HEAD", rf"/datasets/{ID}/resolve/{REV}/(?P<path>.+)", "resolve"),
    ("POST", rf"/api/buckets/{ID}", "create_bucket"),
    ("GET", rf"/api/buckets/{ID}/tree(/(?P<folder>.*))?", "bucket_tree"),
    ("GET", rf"/api/buckets/{ID}/xet-(?P<kind>write|read)-token", "xet"),
    ("POST", rf"/api/buckets/{ID}/batch", "bucket_batch"),
    ("GET", r"/is-valid", "is_valid"),
)


@contextmanager
def serving(root: Path) -> Iterator[DatasetHub]:
    """Serve an empty hub, whose files lie in *root*, on a free port of this machine while inside."""
    root.mkdir(parents=True, exist_ok=True)
    hub = DatasetHub(root)
    with listening(type("Bound", (Handler,), {"hub": hub, "routes": ROUTES})) as hub.endpoint:
        yield hub
