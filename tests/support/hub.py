"""The reading side of the Hugging Face Hub on loopback, for the real client: files below a folder, at one commit with one tag."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import close_session, constants
from loopback import listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

COMMIT = "5f" * 20
TAG = "v1.0.0"


@dataclass
class Hub:
    """A hub of the repositories *root*/<owner>/<name>, each with one commit COMMIT, tagged TAG.

    *requests* holds (method, path) of every request.
    """

    root: Path
    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    @property
    def downloads(self) -> list[str]:
        """The files whose content was asked for, as <owner>/<name>/<file>."""
        found = (
            path.removeprefix("/datasets").replace(TAG, COMMIT).partition(f"/resolve/{COMMIT}/")
            for method, path in self.requests
            if method == "GET"
        )
        return sorted(f"{repo.strip('/')}/{file}" for repo, resolve, file in found if resolve)

    @property
    def touched(self) -> set[str]:
        """The files that were asked about in any way, as <owner>/<name>/<file>."""
        found = (path.partition("/resolve/") for _, path in self.requests)
        return {f"{repo.strip('/')}/{rest.partition('/')[2]}" for repo, resolve, rest in found if resolve}

    def forget(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body for a path without its query; models and datasets have the same names."""
        path = path.replace("/datasets/", "/models/" if path.startswith("/api/") else "/", 1).replace(
            f"/resolve/{TAG}/", f"/resolve/{COMMIT}/"
        )
        api = path.startswith("/api/models/")
        owner, name, *rest = path.removeprefix("/api/models/").strip("/").split("/")[:5] if path.count("/") > 1 else ("", "")
        repo = self.root / owner / name
        if not owner or not repo.is_dir():
            return _refused("RepoNotFound", f"Repository {owner}/{name} not found")
        kind, commit = rest[:2] if len(rest) > 1 else ("revision", COMMIT)
        if commit != COMMIT:
            return _refused("RevisionNotFound", f"Invalid rev id: {commit}")
        if api and kind in ("revision", "tree"):
            files = sorted(file for file in repo.rglob("*") if file.is_file())
            entries = [{"type": "file", "path": file.relative_to(repo).as_posix(), **_content(file)} for file in files]
            siblings = [{"rfilename": entry["path"]} for entry in entries]
            body: Any = entries if kind == "tree" else {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": siblings}
            return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()
        inside = path.partition(f"/resolve/{COMMIT}/")[2]
        file = repo / inside
        if not inside or not file.is_file():
            return _refused("EntryNotFound", f"{inside} does not exist")
        return 200, {"ETag": f'"{_content(file)["oid"]}"', "X-Repo-Commit": COMMIT}, file.read_bytes()


def _content(file: Path) -> dict[str, Any]:
    """Return what a listing says of a file's content: its size and its git hash."""
    content = file.read_bytes()
    return {"size": len(content), "oid": hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()}


def _refused(code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    return 404, {"X-Error-Code": code, "X-Error-Message": message}, json.dumps({"error": message}).encode()


def ask(endpoint: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client of this process ask *endpoint*, with a new cache below *home*.

    The client read its environment when it was imported, so its constants are changed here.
    """
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()  # the next one sees these


@contextmanager
def serving(root: Path) -> Iterator[Hub]:
    """Serve the repositories below *root* on a free port of this machine while inside."""
    hub = Hub(root)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            with hub.lock:
                hub.requests.append((self.command, path))
            status, headers, body = hub.answer(path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing: the requests are on record."""

    with listening(Handler) as hub.endpoint:
        yield hub
