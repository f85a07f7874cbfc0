"""A server on loopback that speaks OpenAI's API and answers, or misbehaves, as a script says."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODEL = "scripted-1b"
PATIENCE_S = 60  # a reply that nobody releases is let go, so that no test hangs for ever
Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """The reply to a request: a JSON *body* (or bytes as they are), sent once *hold* is set.

    *fault*: `reset` breaks the connection instead of answering, `short` promises more bytes than it sends and hangs up.
    """

    body: Any
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    fault: Literal["none", "reset", "short"] = "none"
    hold: Event | None = None

    @property
    def content(self) -> bytes:
        """The bytes of the body."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Script = Callable[[Body, int], Reply]
RESET = Reply(None, fault="reset")


def usage(prompt: int = 7, output: int = 3, cached: int | None = 2) -> Body:
    """Return a server's counts of tokens read and written; with *cached* None, as a server that does not report cached tokens."""
    counted: Body = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}
    return counted if cached is None else counted | {"prompt_tokens_details": {"cached_tokens": cached}}


def chat(text: str | None, *, finish: str = "stop", refusal: str | None = None, logprobs: Any = None, **more: Any) -> Reply:
    """Return a chat completion; *more* replaces fields of the whole, such as `usage` or `choices`."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None if logprobs is None else {"content": logprobs}}
    return Reply({"id": "1", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice], "usage": usage()} | more)


def token(text: str, logprob: float, *others: tuple[str, float]) -> Body:
    """Return a token of a chat completion with its log-probability; it and *others* are the likeliest tokens in its place."""
    top = [{"token": name, "logprob": value, "bytes": None} for name, value in ((text, logprob), *others)]
    return {"token": text, "logprob": logprob, "bytes": None, "top_logprobs": top}


def scored(tokens: Sequence[str], *, extra: str = " and", special: int = 0) -> Reply:
    """Return a completion that echoes its prompt of *tokens*, and then the one token *extra* that it generated.

    Log-probabilities are −0.5 for the second token, −1 for the third and so on; *special* tokens at the front are no
    text of the prompt, but count in the offsets, as vLLM counts them.
    """
    listed = [*tokens, extra]
    offsets = [sum(len(other) for other in listed[:place]) for place in range(len(listed))]
    values = [None, *(-0.5 * place for place in range(1, len(listed)))]
    top = [None, *({name: value, "?": value - 1} for name, value in zip(listed[1:], values[1:], strict=True))]
    found = {"tokens": listed, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}
    choice = {"index": 0, "text": "".join(listed[special:]), "finish_reason": "length", "logprobs": found}
    told = usage(len(tokens), 1, None)
    return Reply({"id": "1", "object": "text_completion", "created": 0, "model": MODEL, "choices": [choice], "usage": told})


def error(status: int, message: str, *headers: tuple[str, str]) -> Reply:
    """Return an error in the format of OpenAI and vLLM."""
    return Reply({"error": {"message": message, "type": "error", "param": None, "code": status}}, status, headers)


def content_of(body: Body) -> str:
    """Return the hash of a request's body; equal questions have equal hashes."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]


@dataclass
class Server:
    """The questions received (bodies and headers, in order of arrival), how often each was asked, and which were answered in full."""

    script: Script
    models: Reply
    url: str = ""
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    answered: list[str] = field(default_factory=list)
    connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    lock: Lock = field(default_factory=Lock)

    def take(self, body: Body, headers: dict[str, str]) -> Reply:
        """Record a question and return the script's reply."""
        with self.lock:
            self.bodies.append(body)
            self.headers.append(headers)
            attempt = self.asked[content_of(body)]
            self.asked[content_of(body)] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.script(body, attempt)
            if reply.hold is not None:
                reply.hold.wait(PATIENCE_S)
        finally:
            with self.lock:
                self.in_flight -= 1
        return reply

    def forget(self) -> None:
        """Forget the questions so far."""
        with self.lock:
            self.bodies.clear()
            self.headers.clear()
            self.asked.clear()
            self.answered.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    llm: Server

    def setup(self) -> None:
        super().setup()
        with self.llm.lock:
            self.llm.connections += 1

    def do_GET(self) -> None:
        self._send(self.llm.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        reply = self.llm.take(body, {name.lower(): value for name, value in self.headers.items()})
        if reply.fault == "reset":
            # Closed with data unread for ever: the other side gets a reset, not an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
            self.close_connection = True
            return
        self._send(reply)
        if reply.status == 200 and reply.fault == "none":
            with self.llm.lock:
                self.llm.answered.append(content_of(body))

    def _send(self, reply: Reply) -> None:
        content = reply.content
        short = reply.fault == "short"
        self.send_response(reply.status)
        length = len(content) + (100 if short else 0)
        for name, value in {"Content-Type": "application/json", **dict(reply.headers), "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        self.close_connection = self.close_connection or short

    def log_message(self, *_: object) -> None:
        """Say nothing: the requests are on record."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_: object) -> None:
        """Print nothing when a client disconnects: tests end clients on purpose."""


def listed(*names: str) -> Reply:
    """Return a list of models."""
    return Reply({"object": "list", "data": [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in names]})


@contextmanager
def serving(script: Script, models: Reply | None = None) -> Iterator[Server]:
    """Serve on a free port while inside; *script* is called with each body and the number of times that it came before."""
    server = Server(script, models or listed(MODEL))
    listener = _Listener(("127.0.0.1", 0), type("Handler", (_Handler,), {"llm": server}))
    server.url = f"http://127.0.0.1:{listener.server_port}/v1"
    thread = Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.socket.close()  # threads that still hold a reply are daemons: nobody waits for them
        thread.join()
