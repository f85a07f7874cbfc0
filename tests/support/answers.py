"""How a stand-in of the Hub answers a request over HTTP: who may ask, which fault it meets, which method of a class answers it."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dataset_hub import MAY_WRITE, PATIENCE_S, TOKEN, DatasetHub, Fault, Refusal

Routes = tuple[tuple[str, str, str], ...]  # method, pattern of the path, and the name of the method that answers


class Answers(BaseHTTPRequestHandler):
    """Answers one request after another of a connection."""

    protocol_version = "HTTP/1.1"
    hub: DatasetHub
    routes: Routes

    def any_method(self) -> None:
        """Read a request, meet its fault, and answer it."""
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self._read()
        fault = self.hub.met(f"{self.command} {unquote(url.path)}")
        try:
            if fault and not fault.after and self._failed(fault):
                return
            body, *more = self._answer(url.path)
            if fault and fault.after and self._failed(fault):
                return
            self.reply(body, **(more[0] if more else {}))
        except Refusal as refusal:
            self.reply(refusal.body, refusal.status, {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)})

    do_GET = do_HEAD = do_POST = do_PUT = any_method  # noqa: N815

    def _failed(self, fault: Fault) -> bool:
        """Carry out a fault; return whether it has taken the answer's place."""
        fault.reached.set()
        if fault.release is not None:
            fault.release.wait(PATIENCE_S)
        if fault.before:
            fault.before()
        if fault.dropped:
            self.close_connection = True
            self.connection.shutdown(SHUT_RDWR)
        elif fault.status:
            self.reply({"error": "a fault"}, fault.status, dict(fault.headers))
        return fault.dropped or bool(fault.status)

    def _answer(self, path: str) -> tuple[Any, ...]:
        """Return the body that a request is due, and what is unusual of the answer."""
        for method, pattern, name in self.routes:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                found = {key: unquote(value) for key, value in match.groupdict(default="").items()}
                self._admitted(found.get("repo", ""), writes=self.command in ("POST", "PUT") and name not in ("validate", "paths"))
                answer: tuple[Any, ...] = getattr(self, name)(**found)
                return answer
        raise Refusal(404, "NotFound", f"the stand-in has no route {self.command} {path}")

    def _admitted(self, repo_id: str, *, writes: bool) -> None:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if writes and not known and self.command == "POST":
            raise Refusal(401, "", "Invalid username or password.")
        if writes and repo_id and repo_id.split("/")[0] not in MAY_WRITE:
            raise Refusal(403, "", f"You don't have the rights to write to {repo_id}.")
        if repo_id in self.hub.repos and self.hub.repos[repo_id].private and not known:
            raise Refusal(404, "RepoNotFound", f"Repository {repo_id} not found")

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def reply(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Send an answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: the requests are on record."""
