"""The dataset side of the Hugging Face Hub, in memory: repositories, commits, branches, tags, pull requests, who may write, and faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock
from typing import Any

TOKEN = "hf_" + "standin" * 5  # whose owner is `tester`, a member of the organisation `lab`
MAY_WRITE = ("tester", "lab")
OTHERS = "foreign"  # an owner whose repositories the token may read and not write
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
PATIENCE_S = 60  # a held request that nobody releases is let go, so that no test hangs for ever


class Refusal(Exception):  # noqa: N818  # it is an answer of the Hub, and no error of the tests
    """An answer that is not 200; *code* is what the client knows the error by."""

    def __init__(self, status: int, code: str, message: str, **body: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.body = status, code, {"error": message, **body}


@dataclass(frozen=True)
class Entry:
    """A file of a commit: SHA-256 and size of its content, and the hash by which git knows it."""

    sha256: str
    size: int
    oid: str
    large: bool

    def described(self, path: str) -> dict[str, Any]:
        """Return what a listing says of the file."""
        large = {"lfs": {"oid": self.sha256, "size": self.size, "pointerSize": 130}} if self.large else {}
        return {"type": "file", "path": path, "size": self.size, "oid": self.oid, **large}


@dataclass
class Commit:
    """A commit: its files by path."""

    oid: str
    title: str
    tree: dict[str, Entry]


@dataclass
class Repo:
    """A dataset repository."""

    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: dict[int, tuple[str, str]] = field(default_factory=dict)  # title and commit of each pull request

    def at(self, revision: str) -> Commit:
        """Return the commit that a branch, a tag, a pull request or a hash names."""
        name = re.sub(r"^refs/(heads|tags)/", "", revision)
        pulled = {f"refs/pr/{number}": oid for number, (_, oid) in self.requests.items()}
        oid = self.branches.get(name) or self.tags.get(name) or pulled.get(name) or name
        if oid not in self.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]

    def add(self, title: str, tree: dict[str, Entry]) -> Commit:
        """Make a commit, which no branch names yet."""
        listing = json.dumps([title, len(self.commits), sorted((path, entry.oid) for path, entry in tree.items())])
        oid = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = Commit(oid, title, tree)
        return self.commits[oid]


@dataclass
class Fault:
    """What befalls the next *times* requests that match *route* (a regex over "METHOD path"), after the first *skip* of them.

    Once *release* is set (which no request awaits where it is None), *before* is called, then the answer is *status*, or the connection is
    *dropped*; with *after*, the request has its effect nevertheless.
    """

    route: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    dropped: bool = False
    after: bool = False
    times: int = 1
    skip: int = 0
    before: Callable[[], object] | None = None
    release: Event | None = None
    reached: Event = field(default_factory=Event)

    def hits(self, request: str) -> bool:
        """Return whether the request meets the fault, and count it."""
        if not re.search(self.route, request) or self.times == 0:
            return False
        self.skip -= 1
        if self.skip >= 0:
            return False
        self.times -= 1
        return True


@dataclass
class DatasetHub:
    """All repositories by id, the contents of files below *root* by SHA-256, every request, and the faults to come."""

    root: Path
    endpoint: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    buckets: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)  # path → what a listing says of the file
    working: Path = field(default_factory=Path)  # the folder that a bucket is filled from: the client does not tell sizes
    requests: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    valid: dict[str, Any] = field(default_factory=lambda: {"preview": True, "viewer": True, "search": True, "filter": True})
    xet: Path | None = None  # where the client's xet stores chunks; without it the client uploads whole files
    lock: Lock = field(default_factory=Lock)

    def repo(self, repo_id: str) -> Repo:
        """Return a repository; refuse where there is none."""
        if repo_id not in self.repos:
            raise Refusal(404, "RepoNotFound", f"Repository {repo_id} not found")
        return self.repos[repo_id]

    def create(self, repo_id: str, private: bool = False) -> Repo:
        """Make a repository with its first commit."""
        if repo_id in self.repos:
            raise Refusal(409, "RepoExists", "You already created this dataset repo")
        repo = self.repos[repo_id] = Repo(private)
        repo.branches["main"] = repo.add("initial commit", {".gitattributes": self.entry(b"*.parquet filter=lfs\n", large=False)}).oid
        return repo

    def entry(self, content: bytes, *, large: bool) -> Entry:
        """Keep a file's content, and return its entry."""
        sha256 = hashlib.sha256(content).hexdigest()
        (self.root / sha256).write_bytes(content)
        oid = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        return Entry(sha256, len(content), oid, large)

    def commit(self, repo_id: str, branch: str, lines: Sequence[dict[str, Any]], *, request: bool = False) -> tuple[Commit, int]:
        """Make a commit of the *lines* of a request, on a branch or as a pull request; return it with the request's number, 0 for none."""
        repo = self.repo(repo_id)
        if not request and branch not in repo.branches:
            raise Refusal(404, "RevisionNotFound", f"No such branch: {branch}")
        head, title = repo.at(branch), ""
        tree = dict(head.tree)
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "header":
                title = value["summary"]
                if not request and value.get("parentCommit") not in (None, head.oid):
                    raise Refusal(412, "PreconditionFailed", "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                tree[value["path"]] = self.entry(base64.b64decode(value["content"]), large=False)
            elif key == "lfsFile":
                tree[value["path"]] = self._large(value["oid"], value["size"])
            elif tree.pop(value["path"], None) is None:  # a deleted file
                raise Refusal(404, "EntryNotFound", "A file with this name doesn't exist")
        made = repo.add(title, tree)
        if not request:
            repo.branches[branch] = made.oid
            return made, 0
        repo.requests[len(repo.requests) + 1] = (title, made.oid)
        return made, len(repo.requests)

    def _large(self, sha256: str, size: int) -> Entry:
        if not (self.root / sha256).exists() and self.xet is None:
            raise Refusal(400, "LfsMissing", f"LFS pointer to a missing object: {sha256}")
        return Entry(sha256, size, hashlib.sha1(sha256.encode(), usedforsecurity=False).hexdigest(), large=True)

    def tag(self, repo_id: str, revision: str, name: str) -> None:
        """Tag a commit; refuse a tag that is there."""
        repo = self.repo(repo_id)
        if name in repo.tags:
            raise Refusal(409, "RefExists", f"Tag reference exists already: {name}")
        repo.tags[name] = repo.at(revision).oid

    def files(self, repo_id: str, revision: str = "main") -> dict[str, str]:
        """Return the SHA-256 of every file at a revision, as a test compares them."""
        return {path: entry.sha256 for path, entry in sorted(self.repo(repo_id).at(revision).tree.items())}

    def text(self, repo_id: str, revision: str, path: str) -> str:
        """Return the content of a text file at a revision."""
        return (self.root / self.repo(repo_id).at(revision).tree[path].sha256).read_text()

    def write(self, repo_id: str, path: str, text: str) -> None:
        """Commit a file as somebody else would, on the website."""
        content = base64.b64encode(text.encode()).decode()
        file = {"key": "file", "value": {"path": path, "content": content}}
        self.commit(repo_id, "main", [{"key": "header", "value": {"summary": "by hand"}}, file])

    def met(self, request: str) -> Fault | None:
        """Return the fault that a request meets, if any, and put the request on record."""
        with self.lock:
            self.requests.append(request)
            return next((fault for fault in self.faults if fault.hits(request)), None)

    def sent(self) -> list[str]:
        """Return the SHA-256 of each whole file that was sent since the last call of :meth:`forget`."""
        return [request.rpartition("/")[2] for request in self.requests if request.startswith("PUT /lfs/")]

    def forget(self) -> None:
        """Forget the requests and the faults so far."""
        self.requests.clear()
        self.faults.clear()


def now() -> str:
    """Return the time as the client reads it."""
    return datetime.now(UTC).strftime(TIME)
