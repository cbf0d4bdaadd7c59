"""Clients that ask too often, or are too slow."""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
import anyio.to_thread
import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.http import middleware, process
from tests.hosted import Hosted, changed, hosted
from tests.http.middleware_cases import TASK, by_hand, head, still_serves
from tests.http.middleware_cases import server as server

pytestmark = pytest.mark.anyio


# --- how fast ---


async def test_a_token_has_so_many_requests_a_minute_and_is_told_when_to_come_back(settings: Settings) -> None:
    async with hosted(changed(settings, "http", requests_per_minute=3)) as server:
        token, other = await server.token("good"), await server.token("other")
        async with server.http(token) as http, server.http(other) as elsewhere:
            assert [(await http.get("/nowhere")).status_code for _ in range(3)] == [404, 404, 404]
            refused = await http.get("/nowhere")
            assert refused.status_code == 429
            assert 0 < int(refused.headers["retry-after"]) <= 20
            assert (await elsewhere.get("/nowhere")).status_code == 404


async def test_a_token_has_so_many_requests_open_and_no_more(settings: Settings) -> None:
    async with hosted(changed(settings, "http", max_open_requests=2)) as server:
        token, other = await server.token("good"), await server.token("other")
        async with server.http(token) as http, server.http(other) as elsewhere:
            async with http.stream("GET", "/sse") as first, http.stream("GET", "/sse") as second:
                assert (first.status_code, second.status_code) == (200, 200)
                third = await http.get("/sse")
                assert (third.status_code, "retry-after" in third.headers) == (429, True)
                async with elsewhere.stream("GET", "/sse") as theirs:
                    assert theirs.status_code == 200
            await until_open(server, 0)
            async with http.stream("GET", "/sse") as again:
                assert again.status_code == 200


async def until_open(server: Hosted, count: int) -> None:
    with anyio.fail_after(20):
        while len(server.host.gate._open) != count:  # noqa: ASYNC110  the sockets have to be told first
            await anyio.sleep(0.01)


# --- how slow ---


async def test_a_body_that_drips_is_given_up(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_DEADLINE_S", 0.5)
    async with hosted(settings) as server:
        await server.token("first")
        token = await server.token("good")
        async with anyio.create_task_group() as tasks:
            answers: list[bytes] = []

            async def drip() -> None:
                answers.append(await by_hand(server, head("POST /mcp", token, "Content-Length: 500") + b"{"))

            for _ in range(50):
                tasks.start_soon(drip)
            await still_serves(server, token)
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 408"] * 50


async def test_headers_that_drip_are_given_up(server: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "HEADERS_DEADLINE_S", 0.5)
    token = await server.token("good")
    async with anyio.create_task_group() as tasks:
        for begun in (b"", b"GET /sse HT", b"GET /sse HTTP/1.1\r\nHost: localhost\r\nX-A: "):

            async def drip(begun: bytes) -> None:
                started = time.monotonic()
                stream = await anyio.connect_tcp("127.0.0.1", server.port)
                async with stream:
                    with anyio.fail_after(20), suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                        await stream.send(begun or b"\r\n")
                        while True:
                            await stream.send(b"x" if begun else b"\r\n")
                            with anyio.move_on_after(0.1):
                                await stream.receive()
                assert time.monotonic() - started < 10

            tasks.start_soon(drip, begun)
        await still_serves(server, token)


async def test_who_does_not_read_is_hung_up_on(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "READING_DEADLINE_S", 0.5)
    async with hosted(settings) as server:
        stream = await anyio.connect_tcp("127.0.0.1", server.port)
        async with stream:
            with anyio.fail_after(20), suppress(anyio.BrokenResourceError):
                while True:
                    await stream.send(head("GET /metrics", None) * 1_000)
        await still_serves(server, None)


async def test_a_call_that_takes_too_long_is_given_up(settings: Settings) -> None:
    async with hosted(changed(settings, "http", call_timeout_s=0.000001)) as server, server.client() as one:
        with pytest.raises(Exception, match="was given up") as caught:
            await one.call_tool("recall_experiences", {"task": TASK})
        assert "may be sent again" in str(caught.value)
