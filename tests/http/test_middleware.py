"""The gate of a server for several clients, and its enemies: each gets a refusal, and the others go on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import anyio
import anyio.to_thread
import httpx
import pytest

from reme_mcp.auth.tokens import tokens_of
from reme_mcp.config.settings import Settings
from reme_mcp.http.addresses import may_start
from tests.hosted import HANDSHAKE, JSON, Hosted, changed, hosted, message
from tests.http.middleware_cases import META, MODERN, TASK, by_hand, head, open_session, still_serves
from tests.http.middleware_cases import server as server

pytestmark = pytest.mark.anyio

RECALL = message("tools/call", {"name": "recall_experiences", "arguments": {"task": TASK}})


PLACES = (("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/sse"), ("POST", "/messages/?session_id=0"),
          ("GET", "/metrics"), ("GET", "/"), ("GET", "/nowhere"))  # fmt: skip


# --- who ---


@pytest.mark.parametrize("kind", ["none", "wrong", "empty", "not a bearer", "expired", "revoked", "almost"])
async def test_without_a_token_that_holds_nothing_is_served(server: Hosted, kind: str) -> None:
    tokens = tokens_of(server.settings)
    good = await server.token("good")
    expired, _ = await tokens.create("old", ["default"], "write", expires_in=timedelta(microseconds=1))
    revoked = await server.token("gone")
    await tokens.revoke("gone")
    said = {
        "none": None, "wrong": "Bearer reme_" + "A" * 43, "empty": "Bearer", "not a bearer": f"Basic {good}",
        "expired": f"Bearer {expired}", "revoked": f"Bearer {revoked}", "almost": f"Bearer {good[:-1]}",
    }[kind]  # fmt: skip
    async with server.http() as http:
        for method, path in PLACES:
            headers = JSON | ({} if said is None else {"authorization": said})
            answer = await http.request(method, path, headers=headers, content=RECALL if method == "POST" else None)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            assert "default" not in answer.text
    await still_serves(server, good)


async def test_a_token_in_the_address_is_none(server: Hosted) -> None:
    good = await server.token("good")
    async with server.http() as http:
        for name in ("token", "access_token"):
            assert (await http.post(f"/mcp?{name}={good}", content=RECALL, headers=JSON)).status_code == 401


async def test_on_this_machine_alone_nobody_is_asked_until_there_is_a_token(settings: Settings) -> None:
    async with hosted(settings) as server:
        await still_serves(server, None)
        token = await server.token("first")
        async with server.http() as http:
            assert (await http.post("/mcp", content=RECALL, headers=JSON)).status_code == 401
        await still_serves(server, token)
        # Not even when the file is gone: that is no way in.
        tokens_of(settings).path.unlink()
        async with server.http() as http:
            assert (await http.post("/mcp", content=RECALL, headers=JSON)).status_code == 401


@pytest.mark.parametrize(
    ("host", "more", "open_to_others"),
    [("127.0.0.1", {}, False), ("localhost", {}, False), ("::1", {}, False), ("127.9.9.9", {}, False),
     ("0.0.0.0", {}, True), ("::", {}, True), ("10.0.0.7", {}, True), ("example.com", {}, True),
     ("127.0.0.1", {"public_url": "https://memory.example.com"}, True)],
)  # fmt: skip
def test_what_others_can_reach_does_not_start_while_nobody_has_a_token(
    settings: Settings, host: str, more: dict[str, str], open_to_others: bool
) -> None:
    http = changed(settings, "http", host=host, **more).http
    assert may_start(http, has_tokens=False, has_issuer=False) is not open_to_others
    assert may_start(http, has_tokens=True, has_issuer=False)
    assert may_start(http, has_tokens=False, has_issuer=True)
    words = {"without_auth": "anyone who can reach it may read and write"}
    assert may_start(http.model_copy(update=words), has_tokens=False, has_issuer=False)


@pytest.mark.parametrize("by", ["http", "legacy", "sse"])
async def test_a_revoked_token_loses_the_streams_that_are_open(server: Hosted, by: str) -> None:
    token, other = await server.token("leaving"), await server.token("staying")
    paths = {"http": "/mcp", "legacy": "/mcp", "sse": "/sse"}
    async with AsyncExitStack() as stack:
        streams = []
        for one in (token, other):
            http = await stack.enter_async_context(server.http(one))
            if by == "http":
                params = {"notifications": {"resourceSubscriptions": ["reme://experiences"]}, "_meta": META}
                headers = MODERN | {"mcp-method": "subscriptions/listen"}
                request = http.stream("POST", "/mcp", content=message("subscriptions/listen", params), headers=headers)
            else:
                headers = await open_session(http) if by == "legacy" else {}
                request = http.stream("GET", paths[by], headers=headers | {"accept": "text/event-stream"})
            stream = await stack.enter_async_context(request)
            assert stream.status_code == 200
            streams.append(stream.aiter_raw())
        await tokens_of(server.settings).revoke("leaving")
        started = time.monotonic()
        with anyio.fail_after(10):
            await ends(streams[0])
        assert time.monotonic() - started < 5
        with anyio.move_on_after(1.5) as waiting:
            await ends(streams[1])
        assert waiting.cancelled_caught
    await still_serves(server, other)


async def ends(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        pass


# --- where from ---


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8365", "127.0.0.1.evil.example", "localhost.evil.example",
             "127.0.0.1@evil.example", "evil.example/127.0.0.1", "", "10.0.0.7", "[::1", "127.0.0.2"],
)  # fmt: skip
async def test_a_request_to_another_name_is_refused(server: Hosted, host: str) -> None:
    token = await server.token("good")
    async with server.http(token, Host=host) as http:
        for method, path in PLACES:
            answer = await http.request(method, path, headers=JSON, content=RECALL if method == "POST" else None)
            assert answer.status_code == 421, (method, path)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:1", "LOCALHOST", "[::1]:8365", "memory.example.com", "box:80"]
)
async def test_a_request_to_one_of_its_names_comes_in(settings: Settings, host: str) -> None:
    named = changed(settings, "http", public_url="https://memory.example.com", allowed_hosts="box  10.0.0.7")
    async with hosted(named) as server:
        token = await server.token("good")
        async with server.http(token, Host=host) as http:
            assert (await http.post("/mcp", json=HANDSHAKE, headers=JSON)).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "x", "http://["],
)
async def test_a_page_from_elsewhere_is_refused(server: Hosted, origin: str) -> None:
    token = await server.token("good")
    async with server.http(token, Origin=origin) as http:
        for method, path in PLACES:
            answer = await http.request(method, path, headers=JSON, content=RECALL if method == "POST" else None)
            assert answer.status_code == 403, (method, path)


@pytest.mark.parametrize("origin", ["http://localhost:6274", "http://127.0.0.1", "https://tools.example.com"])
async def test_a_page_of_this_machine_or_one_that_is_named_comes_in(settings: Settings, origin: str) -> None:
    named = changed(settings, "http", allowed_origins="https://tools.example.com/")
    async with hosted(named) as server, server.http(None, Origin=origin) as http:
        assert (await http.post("/mcp", json=HANDSHAKE, headers=JSON)).status_code == 200


# --- how much ---


async def test_a_request_may_be_as_large_as_the_limit_and_no_larger(settings: Settings) -> None:
    limit = 20_000
    async with hosted(changed(settings, "http", max_body_bytes=limit)) as server, server.http() as http:
        headers = await open_session(http)

        def padded(size: int) -> bytes:
            return RECALL.encode() + b" " * (size - len(RECALL))

        async def dripping(body: bytes) -> AsyncIterator[bytes]:
            for start in range(0, len(body), 4096):
                yield body[start : start + 4096]

        for size, status in ((limit - 1, 200), (limit, 200), (limit + 1, 413), (limit * 50, 413)):
            for body in (padded(size), dripping(padded(size))):
                try:
                    answer = await http.post("/mcp", content=body, headers=headers)
                except (httpx.WriteError, httpx.ReadError):
                    # It hung up before all was sent.
                    assert size > limit
                    continue
                assert answer.status_code == status, size
        sse = await http.post("/messages/?session_id=0", content=padded(limit + 1), headers=JSON)
        assert sse.status_code == 413
        await still_serves(server, None)


async def test_a_body_that_only_claims_to_be_huge_is_not_waited_for(server: Hosted) -> None:
    token = await server.token("good")
    answer = await by_hand(server, head("POST /mcp", token, "Content-Length: 99999999999"))
    assert answer.startswith(b"HTTP/1.1 413")
    await still_serves(server, token)
