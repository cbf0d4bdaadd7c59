"""A real HTTP server on loopback that answers as a test wants it to, also wrongly."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request: where to, with which `Authorization`, and its body."""

    path: str
    key: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What is sent back.

    Attributes:
        content: The body, or its parts as they come.
        status: Of HTTP.
        kind: The `Content-Type`.
        headers: More of them.
        promised: The `Content-Length`, if it is not the true one.
    """

    content: bytes | Iterable[bytes]
    status: int = 200
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int | None = None


def reply(body: object, status: int = 200, **headers: str) -> Reply:
    """Return a reply in JSON; an underscore in a header's name stands for its hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(json.dumps(body).encode(), status, headers=named)


class Server(ThreadingHTTPServer):
    """Hands every request to `answer`, in a thread of its own, and keeps it in `asked`."""

    def __init__(self, answer: Callable[[Asked], Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.asked: list[Asked] = []

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing about a client that has gone away; the tests are about those as well."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed knows more than it needs


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        asked = Asked(self.path, self.headers["Authorization"], body)
        self.server.asked.append(asked)
        reply = self.server.answer(asked)
        parts = [reply.content] if isinstance(reply.content, bytes) else reply.content
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        if isinstance(reply.content, bytes):
            length = len(reply.content) if reply.promised is None else reply.promised
            self.send_header("Content-Length", str(length))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for part in parts:
            self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(answer: Callable[[Asked], Reply]) -> Iterator[Server]:
    """Serve while the block runs."""
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
