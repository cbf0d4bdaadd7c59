"""The gate of a server for several clients, and its enemies: each gets a refusal, and the others go on."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from reme_mcp.auth.tokens import tokens_of
from reme_mcp.config.settings import Settings
from reme_mcp.http import middleware, process
from reme_mcp.http.logs import JSONFormatter
from reme_mcp.http.middleware import may_start
from reme_mcp.safety.redaction import redactor
from tests.hosted import HANDSHAKE, JSON, Hosted, changed, hosted, message

pytestmark = pytest.mark.anyio
TASK = "Start the engine of the car"
MODERN = JSON | {"mcp-protocol-version": "2026-07-28"}
RECALL = message("tools/call", {"name": "recall_experiences", "arguments": {"task": TASK}})


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


# --- who ---

PLACES = (("POST", "/mcp"), ("GET", "/mcp"), ("DELETE", "/mcp"), ("GET", "/sse"), ("POST", "/messages/?session_id=0"),
          ("GET", "/metrics"), ("GET", "/"), ("GET", "/nowhere"))  # fmt: skip


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


META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "by-hand", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


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


# --- how fast ---


async def test_a_token_has_so_many_requests_a_minute_and_is_told_when_to_come_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(changed(settings, "http", requests_per_minute=3)) as server:
        at = [1000.0]
        monkeypatch.setattr(server.host.gate, "_clock", lambda: at[0])
        token, other = await server.token("good"), await server.token("other")
        async with server.http(token) as http, server.http(other) as elsewhere:
            assert [(await http.get("/nowhere")).status_code for _ in range(3)] == [404, 404, 404]
            refused = await http.get("/nowhere")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
            assert (await elsewhere.get("/nowhere")).status_code == 404
            for seconds, status in ((19.9, 429), (0.2, 404), (0.0, 429)):
                at[0] += seconds
                assert (await http.get("/nowhere")).status_code == status
            # Those that were refused have not cost anything; a minute brings back all of them and no more.
            at[0] += 600
            assert [(await http.get("/nowhere")).status_code for _ in range(4)] == [404, 404, 404, 429]


async def test_what_is_kept_of_tokens_that_come_no_more_is_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "MAX_BUCKETS", 3)
    async with hosted(changed(settings, "http", requests_per_minute=2)) as server:
        door = server.host.gate
        at = [0.0]
        monkeypatch.setattr(door, "_clock", lambda: at[0])
        for name in ("a", "a", "b", "c"):
            assert door._wait_s(name) == 0
        at[0] = 29
        assert door._wait_s("d") == 0
        assert set(door._buckets) == {"a", "b", "c", "d"}
        at[0] = 31
        # What b and c had left is full again; a has had one back of two.
        assert door._wait_s("e") == 0
        assert set(door._buckets) == {"a", "d", "e"}


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


async def get(server: Hosted, path: str, token: str | None = None) -> httpx.Response:
    async with server.http(token) as http:
        return await http.get(path)


# --- rubbish ---

CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":'
RUBBISH = {
    "nothing": b"",
    "words": b"secret-word",
    "half": CALL + b'{"secret-word',
    "list": b"[]",
    "batch": b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    "number": b"1",
    "null": b"null",
    "no method": b'{"jsonrpc":"2.0","id":1}',
    "unknown": b'{"jsonrpc":"2.0","id":1,"method":"no/such"}',
    "id": b'{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}',
    "params": CALL + b'"secret-word"}',
    "arguments": CALL + b'{"name":"recall_experiences","arguments":["secret-word"]}}',
    "no utf-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "long number": b'{"jsonrpc":"2.0","id":' + b"9" * 10_000 + b"}",
    "surrogate": CALL + rb'{"name":"\ud800"}}',
    "nul": b"\0" * 100,
}


@pytest.mark.parametrize("kind", RUBBISH)
async def test_rubbish_is_refused_and_not_written_down(
    server: Hosted, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = await server.token("good")
    async with server.http(token) as http:
        headers = await open_session(http)
        for answer in (
            await http.post("/mcp", content=RUBBISH[kind], headers=headers),
            await http.post("/mcp", content=RUBBISH[kind], headers=MODERN),
            await http.post("/mcp", content=RUBBISH[kind], headers=JSON),
        ):
            assert answer.status_code < 500
            assert "Traceback" not in answer.text
            # A message whose id is none is a notification to the handshake era, and goes unanswered.
            assert answer.status_code >= 202 or '"error"' in answer.text or '"isError":true' in answer.text
        async with http.stream("GET", "/sse") as stream:
            lines = stream.aiter_lines()
            with anyio.fail_after(10):
                while not (line := await anext(lines)).startswith("data: "):
                    pass
            posted = await http.post(line.removeprefix("data: "), content=RUBBISH[kind], headers=JSON)
            assert posted.status_code in (202, 400)
    await still_serves(server, token)
    formatter = JSONFormatter(with_texts=False, redact=redactor())
    assert "secret-word" not in "\n".join(
        formatter.format(record) for record in caplog.records if record.levelno >= logging.INFO
    )


async def test_other_rubbish_on_the_wire_does_not_stop_it(server: Hosted) -> None:
    token = await server.token("good")
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 100_000,
        b"G" * 200_000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ):
        assert (await by_hand(server, data))[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 421")
    await still_serves(server, token)


ELSEWHERE = (
    "/mcp/../../etc/passwd", "/messages/../metrics", "/messages/%2e%2e/metrics", "/sse/..%2f..%2fetc/passwd",
    "/.well-known/../metrics", "/healthz/../metrics", "//metrics", "/healthz%00", "/readyz/",
)  # fmt: skip


@pytest.mark.parametrize("path", ELSEWHERE)
async def test_a_path_that_leads_elsewhere_leads_nowhere(server: Hosted, path: str) -> None:
    token = await server.token("good")
    for said in (token, None):
        answer = await by_hand(server, head(f"GET {path}", said, "Connection: close"))
        assert answer[9:12] in (b"401", b"404", b"405", b"307")
        assert b"reme_calls" not in answer
        assert b"root:" not in answer


# --- what it says of itself ---


async def test_it_says_that_it_lives_and_whether_it_is_ready(server: Hosted) -> None:
    assert (await get(server, "/healthz")).json() == {"alive": True}
    ready = await get(server, "/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "store": "open", "embedder": "none"})
    server.host.gate.close()
    closing = await get(server, "/readyz")
    assert (closing.status_code, closing.json()["ready"]) == (503, False)
    assert (await get(server, "/healthz")).status_code == 200
    refused = await get(server, "/metrics")
    assert (refused.status_code, "retry-after" in refused.headers) == (503, True)


async def test_a_home_that_cannot_be_used_is_not_ready_and_not_named(settings: Settings, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("no folder")
    async with hosted(settings.model_copy(update={"home": str(tmp_path / "file")})) as server:
        answer = await get(server, "/readyz")
        assert (answer.status_code, answer.json()["store"]) == (503, "not usable")
        assert str(tmp_path) not in answer.text
        assert (await get(server, "/healthz")).status_code == 200


async def test_its_numbers_count_what_happened_and_take_no_name_from_a_client(settings: Settings) -> None:
    async with hosted(settings) as server:
        token = await server.token("boss", role="admin")
        async with server.client(token) as one:
            await one.call_tool("recall_experiences", {"task": TASK})
            await one.call_tool("rate_experience", {"experience_id": "e-x", "helpful": True})
        async with server.http(token) as http:
            for name in ("made-up-1", "made-up-2"):
                await http.get(f"/{name}")
                await http.request(name, "/mcp")
                headers = MODERN | {"mcp-method": "tools/call", "mcp-name": name}
                await http.post("/mcp", headers=headers, content=message("tools/call", {"name": name, "_meta": META}))
            await http.get("/mcp", headers={"origin": "https://evil.example"})
            page = (await http.get("/metrics")).text
        assert 'reme_calls_total{method="tools/call",name="recall_experiences",outcome="ok"} 1.0' in page
        assert 'reme_calls_total{method="tools/call",name="rate_experience",outcome="refused"} 1.0' in page
        assert 'reme_calls_total{method="tools/call",name="other",outcome="error"} 2.0' in page
        assert 'reme_http_refused_total{reason="origin"} 1.0' in page
        assert "reme_pool_open 1.0" in page
        assert "process_resident_memory_bytes" in page
        assert "made-up" not in page


async def test_its_log_says_who_did_what_and_not_what_was_said(
    server: Hosted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    token = await server.token("alice")
    async with server.http(token) as http:
        headers = await open_session(http) | {"x-request-id": "abc-1"}
        text = message("tools/call", {"name": "recall_experiences", "arguments": {"task": "my secret-word"}})
        answer = await http.post("/mcp", content=text, headers=headers)
        assert answer.headers["x-request-id"] == "abc-1"
        bad = await http.post("/mcp", content=text, headers=headers | {"x-request-id": "a b\tc" + "x" * 99})
        assert bad.headers["x-request-id"] != "a b\tc" + "x" * 99
    formatter = JSONFormatter(with_texts=False, redact=redactor())
    lines = [json.loads(formatter.format(record)) for record in caplog.records if record.name == "reme_mcp.requests"]
    assert lines[-2] | {"time": "", "ms": 0, "request_id": ""} == {
        "time": "", "level": "info", "logger": "reme_mcp.requests", "message": "request", "request_id": "",
        "method": "POST", "path": "/mcp", "status": 200, "ms": 0, "client": "127.0.0.1", "holder": "alice",
    }  # fmt: skip
    everything = "\n".join(formatter.format(record) for record in caplog.records)
    assert "secret-word" not in everything
    assert token not in everything


def test_an_exception_is_logged_by_its_kind_and_place_unless_the_level_is_debug() -> None:
    try:
        raise ValueError("secret-word")
    except ValueError as exc:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "it failed", None, (ValueError, exc, exc.__traceback__))
    line = json.loads(JSONFormatter(with_texts=False, redact=redactor()).format(record))
    assert (line["exception"], line["message"]) == ("ValueError", "it failed")
    assert "test_middleware.py" in line["at"][0]
    assert "secret-word" not in json.dumps(line)
    assert "secret-word" in JSONFormatter(with_texts=True, redact=redactor()).format(record)


def test_a_server_goes_by_the_names_that_it_was_given() -> None:
    assert middleware._names("0.0.0.0", "https://memory.example.com:8443/x", "box:1", "[fe80::1]") == {
        "127.0.0.1", "localhost", "::1", "memory.example.com", "box", "fe80::1",
    }  # fmt: skip
    assert middleware._names("10.0.0.7", "") == {"10.0.0.7"}
