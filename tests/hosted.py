"""A server for several clients on loopback, in this process: real sockets, real HTTP, a real pool."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from reme_mcp.auth.access import Role
from reme_mcp.auth.tokens import tokens_of
from reme_mcp.config.settings import Settings
from reme_mcp.http.app import Host, Transport
from reme_mcp.http.process import make_process

DEADLINE_S = 30
JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
HANDSHAKE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "by-hand", "version": "1"},
    },
}


@dataclass(frozen=True)
class Hosted:
    """A server that runs."""

    host: Host
    port: int
    settings: Settings

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def token(self, name: str, *workspaces: str, role: Role = "write") -> str:
        text, _ = await tokens_of(self.settings).create(name, workspaces or ("default",), role)
        return text

    def http(self, token: str | None = None, **headers: str) -> httpx.AsyncClient:
        """A plain HTTP client, which says what it is told to."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.AsyncClient(base_url=self.url, headers=named | bearer(token), timeout=DEADLINE_S)

    @asynccontextmanager
    async def client(self, token: str | None = None, *, by: str = "http", **options: Any) -> AsyncIterator[Client]:
        """The SDK's client: `by` is http, legacy (the handshake era over http) or sse."""
        if by == "sse":
            transport: Any = sse_client(f"{self.url}/sse", headers=bearer(token))
            async with Client(transport, mode="legacy", **options) as one:
                yield one
            return
        async with create_mcp_http_client(headers=bearer(token)) as http:
            transport = streamable_http_client(f"{self.url}/mcp", http_client=http)
            async with Client(transport, mode="legacy" if by == "legacy" else "auto", **options) as one:
                yield one


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def changed(settings: Settings, section: str, **values: object) -> Settings:
    """Return the settings with other values in one section."""
    part = getattr(settings, section).model_copy(update=values)
    return settings.model_copy(update={section: part})


@asynccontextmanager
async def hosted(settings: Settings, *transports: Transport) -> AsyncIterator[Hosted]:
    """Serve while the block runs."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    host = Host(settings, transports or ("http", "sse"))
    process = make_process(host)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.serve, [listener])
        with anyio.fail_after(DEADLINE_S):
            while not process.started:  # noqa: ASYNC110  uvicorn has no event for it
                await anyio.sleep(0.01)
            yield_to = Hosted(host, listener.getsockname()[1], settings)
        try:
            yield yield_to
        finally:
            process.should_exit = True


def message(method: str, params: Mapping[str, object] | None = None, *, id: int = 1) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": dict(params or {})})
