"""The server for several clients at once: Streamable HTTP at /mcp and SSE at /sse, in one process.

In:  HTTP requests.
Out: what `server.py` answers, to every client from one open memory.
Does not know: tools, resources, the pool.

Both protocol eras are served at /mcp: the handshake up to 2025-11-25 in sessions, 2026-07-28 a request at a time.

Source: the MCP specification, revisions 2025-11-25 and 2026-07-28, basic/transports; SSE is that of 2024-11-05.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Literal

import uvicorn
from mcp.server import NotificationOptions, Server
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Receive, Scope, Send

from reme_mcp.access import Access
from reme_mcp.config import Settings
from reme_mcp.embed import load_embedder
from reme_mcp.server import State, make_server, open_state
from reme_mcp.vectors import LoadEmbedder

logger = logging.getLogger(__name__)

Transport = Literal["http", "sse"]


class Host:
    """One open memory, served over HTTP."""

    def __init__(
        self,
        settings: Settings,
        transports: Iterable[Transport] = ("http", "sse"),
        *,
        load: LoadEmbedder = load_embedder,
    ) -> None:
        self.settings = settings
        self._load = load
        self._state: State | None = None
        self._server: Server[State] = make_server(self._shared_state)
        self._options = self._server.create_initialization_options(NotificationOptions(resources_changed=True))
        limits = settings.http
        self._sessions = StreamableHTTPSessionManager(
            self._server, stateless=not limits.sessions, max_request_body_size=limits.max_body_bytes
        )
        self._sse = SseServerTransport("/messages/", max_request_body_size=limits.max_body_bytes)
        routes: list[BaseRoute] = []
        if "http" in transports:
            routes.append(Route("/mcp", endpoint=StreamableHTTPASGIApp(self._sessions)))
        if "sse" in transports:
            routes += [
                Route("/sse", endpoint=_Endpoint(self._serve_sse), methods=["GET"]),
                Mount("/messages/", app=self._sse.handle_post_message),
            ]
        self.app = Starlette(routes=routes, lifespan=self._run)

    @asynccontextmanager
    async def _run(self, _: Starlette) -> AsyncIterator[None]:
        everything = Access.of_this_machine(self.settings.workspace)
        async with open_state(self.settings, lambda _: everything, load=self._load) as state:
            self._state = state
            state.warm_up()
            async with self._sessions.run():
                yield

    @asynccontextmanager
    async def _shared_state(self) -> AsyncIterator[State]:
        """Yield the state that all connections share; it is opened and closed with the application."""
        assert self._state is not None
        yield self._state

    async def _serve_sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._sse.connect_sse(scope, receive, send) as (read_stream, write_stream):
            await self._server.run(read_stream, write_stream, self._options)


class _Endpoint:
    """An ASGI application as the endpoint of a route, which would take a function for something else."""

    def __init__(self, app: StreamableHTTPASGIApp | object) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)  # type: ignore[operator]


async def serve_http(settings: Settings, transports: Iterable[Transport]) -> None:
    """Serve every client that comes, until the process is told to end."""
    host = Host(settings, transports)
    config = uvicorn.Config(
        host.app, host=settings.http.host, port=settings.http.port, http="h11", ws="none", lifespan="on",
        log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=10,
    )  # fmt: skip
    server = uvicorn.Server(config)
    sockets = [_listen(settings.http.host, settings.http.port)]
    await server.serve(sockets=sockets)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=2048)
    return listener
