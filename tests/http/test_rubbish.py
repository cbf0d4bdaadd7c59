"""Requests that are none, and what the server says of itself."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from reme_mcp.config.settings import HTTPSettings, Settings
from reme_mcp.http.addresses import Addresses
from reme_mcp.http.logs import JSONFormatter
from reme_mcp.safety.redaction import redactor
from tests.hosted import JSON, Hosted, hosted, message
from tests.http.middleware_cases import META, MODERN, TASK, by_hand, head, open_session, still_serves
from tests.http.middleware_cases import server as server

pytestmark = pytest.mark.anyio


async def get(server: Hosted, path: str, token: str | None = None) -> httpx.Response:
    async with server.http(token) as http:
        return await http.get(path)


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


# --- rubbish ---


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
        "pid": os.getpid(),
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
    assert Path(__file__).name in line["at"][0]
    assert "secret-word" not in json.dumps(line)
    assert "secret-word" in JSONFormatter(with_texts=True, redact=redactor()).format(record)


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [("127.0.0.1:8365", True), ("LOCALHOST", True), ("[::1]:1", True), ("memory.example.com", True), ("box:2", True),
     ("[fe80::1]", True), ("10.0.0.7", True), ("10.0.0.8", False), ("example.com", False), ("", False),
     ("box@evil.example", False), ("box/..", False)],
)  # fmt: skip
def test_a_server_goes_by_the_names_that_it_was_given(host: str, is_ours: bool) -> None:
    settings = HTTPSettings(
        host="0.0.0.0", public_url="https://memory.example.com:8443/x", allowed_hosts="box:1 [fe80::1]"
    )
    assert Addresses(settings).is_host(host, {"server": ("10.0.0.7", 8365)}) is is_ours


def test_a_server_at_one_address_has_no_other_name() -> None:
    addresses = Addresses(HTTPSettings(host="10.0.0.7"))
    assert [addresses.is_host(host, {}) for host in ("10.0.0.7", "localhost", "10.0.0.8")] == [True, False, False]
