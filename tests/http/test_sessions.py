"""Sessions of the handshake era: limited for each holder, and nobody's but the holder's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from reme_mcp.config.settings import Settings
from tests.hosted import HANDSHAKE, JSON, Hosted, changed, hosted, message

pytestmark = pytest.mark.anyio
LIMIT = 3
LIST_TOOLS = message("tools/list")


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Hosted]:
    async with hosted(changed(settings, "http", max_open_requests=LIMIT)) as server:
        yield server


async def begin(http: httpx.AsyncClient) -> httpx.Response:
    return await http.post("/mcp", json=HANDSHAKE, headers=JSON)


def within(opened: httpx.Response) -> dict[str, str]:
    return JSON | {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}


async def test_a_holder_has_so_many_sessions_and_takes_none_of_the_others(server: Hosted) -> None:
    greedy, other = await server.token("greedy"), await server.token("other")
    async with server.http(greedy) as http, server.http(other) as http_of_other:
        opened = [await begin(http) for _ in range(LIMIT)]
        assert [answer.status_code for answer in opened] == [200] * LIMIT
        refused = await begin(http)
        assert (refused.status_code, refused.json()["error"]) == (429, "sessions")
        assert f"{LIMIT} sessions are open; end some (DELETE)" in refused.json()["error_description"]
        assert (await begin(http_of_other)).status_code == 200
        # Those that are open go on, and who ends one may begin another.
        assert (await http.post("/mcp", content=LIST_TOOLS, headers=within(opened[0]))).status_code == 200
        assert (await http.delete("/mcp", headers=within(opened[1]))).status_code == 200
        assert (await begin(http)).status_code == 200
        assert (await begin(http)).status_code == 429


async def test_what_is_in_no_session_is_served_all_the_same(server: Hosted) -> None:
    token = await server.token("greedy")
    async with server.http(token) as http:
        for _ in range(LIMIT):
            await begin(http)
    async with server.client(token) as modern:
        assert (await modern.list_tools()).tools


async def test_a_session_of_somebody_else_is_not_there_and_not_in_the_log(
    server: Hosted, caplog: pytest.LogCaptureFixture
) -> None:
    mine, theirs = await server.token("mine"), await server.token("theirs")
    async with server.http(mine) as http, server.http(theirs) as stranger:
        session = within(await begin(http))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            for answer in (
                await stranger.post("/mcp", content=LIST_TOOLS, headers=session),
                await stranger.get("/mcp", headers=session),
                await stranger.delete("/mcp", headers=session),
            ):
                assert answer.status_code == 404
        assert session["mcp-session-id"] not in caplog.text
        assert (await http.post("/mcp", content=LIST_TOOLS, headers=session)).status_code == 200


async def test_a_stream_that_goes_on_where_another_broke_off_begins_with_what_comes(server: Hosted) -> None:
    async with server.http(await server.token("mine")) as http:
        session = within(await begin(http)) | {"accept": "text/event-stream", "last-event-id": "17"}
        async with http.stream("GET", "/mcp", headers=session) as stream:
            assert stream.status_code == 200
            assert stream.headers["content-type"].startswith("text/event-stream")
