"""What the tests of middleware share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from reme_mcp.config.settings import Settings
from tests.hosted import HANDSHAKE, JSON, Hosted, hosted

TASK = "Start the engine of the car"


MODERN = JSON | {"mcp-protocol-version": "2026-07-28"}


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Hosted]:
    """A server with a token, so that it asks for one."""
    async with hosted(settings) as server:
        await server.token("first")
        yield server


async def open_session(http: httpx.AsyncClient) -> dict[str, str]:
    opened = await http.post("/mcp", json=HANDSHAKE, headers=JSON)
    assert opened.status_code == 200, opened.text
    return JSON | {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}


async def still_serves(server: Hosted, token: str | None) -> None:
    """Fail unless a client that does nothing wrong is served."""
    async with server.client(token) as one:
        assert not (await one.call_tool("recall_experiences", {"task": TASK})).is_error


META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "by-hand", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def head(request: str, token: str | None, *more: str) -> bytes:
    lines = [f"{request} HTTP/1.1", "Host: localhost", *more]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return "\r\n".join([*lines, "", ""]).encode()


async def by_hand(server: Hosted, data: bytes) -> bytes:
    """Send bytes and return all that is answered until the server hangs up."""
    stream = await anyio.connect_tcp("127.0.0.1", server.port)
    async with stream:
        await stream.send(data)
        answer = b""
        with anyio.fail_after(20):
            try:
                while True:
                    answer += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return answer
