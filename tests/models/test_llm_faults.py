"""A model server that is away, refuses or talks nonsense."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from reme_mcp.errors import AnswerError, EndpointError
from reme_mcp.models import llm as llm_module
from reme_mcp.schema import Spent
from tests.http_server import Reply, Server, reply
from tests.models.llm_server import (
    GOOD,
    KEY,
    SYSTEM,
    USER,
    VERDICT,
    Chat,
    Verdict,
    asked_once,
    at,
    failure,
    opened,
    refused,
    said,
)
from tests.models.llm_server import chat as chat
from tests.models.llm_server import each_request_is_sent_once as each_request_is_sent_once
from tests.models.llm_server import server as server
from tests.weights import language_model as language_model
from tests.weights import llama_server as llama_server

pytestmark = pytest.mark.anyio

# Reply, what the error says, whether it stays so, and whether it is about this question only.
REFUSALS = {
    "a wrong key": (refused(401, "Incorrect API key"), "401 Incorrect API key", True, False),
    "no money": (refused(402, "Insufficient credits"), "402 Insufficient credits", True, False),
    "not allowed": (refused(403, "Not for you"), "403 Not for you", True, False),
    "no such model": (refused(404, "The model 'm' does not exist"), "404 The model 'm' does not exist", True, False),
    "no quota": (
        reply({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}, 429),
        "429 You exceeded your quota",
        True,
        False,
    ),
    "too many": (refused(429, "Slow down"), "429 Slow down", False, False),
    "out of order": (refused(500, "CUDA out of memory"), "500 CUDA out of memory", False, False),
    "a gateway's page": (
        Reply(b"<html>\n<h1>502</h1></html>", 502, "text/html"),
        "502 <html> <h1>502</h1></html>",
        False,
        False,
    ),
    "loading": (refused(503, "Loading model"), "503 Loading model", False, False),
    "empty": (Reply(b"", 503), "503 Service Unavailable", False, False),
    "too long": (refused(400, "the request exceeds the context size"), "400 the request exceeds", False, True),
    "too large": (refused(413, "Payload too large"), "413 Payload too large", False, True),
    "as FastAPI says it": (
        reply({"detail": [{"loc": ["body", "n"], "msg": "is odd", "input": KEY}]}, 422),
        r"422 \['body', 'n'\]: is odd",
        False,
        True,
    ),
    "as Ollama once said it": (reply({"error": "model 'm' not found"}, 404), "404 model 'm' not found", True, False),
    "a list": (reply(["no"], 500), r'500 \["no"\]', False, False),
}


@pytest.mark.parametrize("wrong", REFUSALS)
async def test_a_refusal_says_whether_it_heals(chat: Chat, server: Server, wrong: str) -> None:
    answer, says, is_permanent, is_about_this = REFUSALS[wrong]
    chat.script = [answer]
    error = await failure(at(server.base_url))
    assert error.status == answer.status
    assert error.is_permanent == is_permanent
    assert isinstance(error, AnswerError) == is_about_this
    assert error.retry_after_s is None
    with pytest.raises(EndpointError, match=f"m at {server.base_url} did not answer: {says}"):
        raise error


# What answers 200 and is no chat completion.
NONSENSE = {
    "a web page": Reply(b"<html>Welcome</html>", kind="text/html"),
    "an error": reply({"error": "Unexpected endpoint or method."}),
    "an error with a code": reply({"error": {"message": "upstream is down", "code": 502}}),
    "a list": reply([]),
    "null": reply(None),
    "nothing": Reply(b""),
    "no choices": reply({"choices": []}),
    "no message": reply({"choices": [{"finish_reason": "stop"}]}),
    "content of another kind": reply({"choices": [{"message": {"content": {"a": 1}}}]}),
    "broken JSON": Reply(b'{"choices": ['),
    "a stream": Reply(
        b'data: {"choices": [{"delta": {"content": "x"}}]}\n\ndata: [DONE]\n\n', kind="text/event-stream"
    ),
    "bytes": Reply(b"\xff\xfe\x00"),
    "the key": reply({"error": f"who is {KEY}?"}),
    "no gzip": Reply(b"not gzip", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("wrong", NONSENSE)
async def test_a_200_of_something_else_is_an_error(chat: Chat, server: Server, wrong: str) -> None:
    chat.script = [NONSENSE[wrong]]
    error = await failure(at(server.base_url))
    assert not isinstance(error, AnswerError)


async def test_a_body_that_is_cut_off_is_an_error(chat: Chat, server: Server) -> None:
    chat.script = [Reply(b'{"choices": [{"mess', promised=500)]
    error = await failure(at(server.base_url))
    assert not error.is_permanent
    assert "no connection" in str(error)


async def test_a_redirect_in_a_circle_is_an_error(chat: Chat, server: Server) -> None:
    chat.script = [refused(307, "over there", Location="/v1/chat/completions")] * 30
    await failure(at(server.base_url))


@pytest.mark.parametrize("line", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc\r\n\r\n", b""])
async def test_a_server_that_does_not_speak_http_is_an_error(line: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection = listening.accept()[0]
            with connection:
                connection.recv(100_000)
                connection.sendall(line)

        thread = threading.Thread(target=greet)
        thread.start()
        error = await failure(at(f"http://127.0.0.1:{listening.getsockname()[1]}/v1"))
        thread.join()
    assert not error.is_permanent


async def test_a_refused_connection_is_an_error_and_costs_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    spent: list[Spent] = []
    error = await failure(at(f"http://127.0.0.1:{port}/v1"), spent)
    assert "no connection" in str(error)
    assert not error.is_permanent
    assert error.retry_after_s is None
    assert [(cost.attempts, cost.tokens_in, cost.tokens_out, cost.ok) for cost in spent] == [(1, 0, 0, False)]


@pytest.mark.parametrize("base_url", ["http://[::1/v1", "http://host:99999999/v1", "http://.../v1"])
async def test_an_address_that_is_none_is_an_error(base_url: str) -> None:
    await failure(at(base_url))


async def test_a_server_that_never_answers_is_given_up_and_what_it_read_is_counted() -> None:
    spent: list[Spent] = []
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        started = time.monotonic()
        error = await failure(at(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", timeout_s=0.3), spent)
    assert time.monotonic() - started < 10
    assert "within 0.3 s" in str(error)
    assert not error.is_permanent
    (cost,) = spent
    assert cost.tokens_in > 10
    assert cost.estimated


async def test_a_server_that_keeps_a_connection_alive_forever_is_given_up(chat: Chat, server: Server) -> None:
    over = threading.Event()

    def drip() -> Iterator[bytes]:
        while not over.wait(0.02):
            yield b"\n"

    chat.script = [Reply(drip())]
    try:
        error = await failure(at(server.base_url, timeout_s=0.5))
    finally:
        over.set()
    assert "within 0.5 s" in str(error)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("30", 30, 30),
        ("0.5", 0.5, 0.5),
        ("0", 0, 0),
        ("-3", 0, 0),
        (format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True), 80_000, 86_400),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
    ids=["seconds", "half a second", "none", "negative", "a time to come", "a time that is past"],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_handed_on(
    chat: Chat, server: Server, status: int, header: str, low: float, high: float
) -> None:
    chat.script = [refused(status, "busy", Retry_After=header)]
    error = await failure(at(server.base_url))
    assert error.retry_after_s is not None
    assert low <= error.retry_after_s <= high


@pytest.mark.parametrize("header", ["soon", "nan", "inf", "", "Wed, 99 Xxx"])
async def test_a_retry_after_that_is_none_is_left_out(chat: Chat, server: Server, header: str) -> None:
    chat.script = [refused(429, "busy", Retry_After=header)]
    assert (await failure(at(server.base_url))).retry_after_s is None


@pytest.mark.parametrize("passing", [429, 500, 503])
async def test_what_passes_is_tried_again(
    chat: Chat, server: Server, passing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 1)
    chat.script = [refused(passing, "busy", Retry_After="0"), said(json.dumps(GOOD))]
    spent: list[Spent] = []
    assert await asked_once(at(server.base_url), spent) == VERDICT
    assert [(cost.attempts, cost.tokens_in, cost.ok) for cost in spent] == [(2, 7, True)]


async def test_a_body_that_is_cut_off_is_asked_for_again_by_itself(
    chat: Chat, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 1)
    chat.script = [Reply(b'{"choices": [{"mess', promised=500), said(json.dumps(GOOD))]
    assert await asked_once(at(server.base_url)) == VERDICT


async def test_retries_end(chat: Chat, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 2)
    chat.script = [refused(503, "busy", Retry_After="0")] * 5
    await failure(at(server.base_url))
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_does_not_pass_is_not_tried_again(
    chat: Chat, server: Server, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 2)
    chat.script = [refused(status, "no")] * 3
    await failure(at(server.base_url))
    assert len(server.asked) == 1


async def test_whoever_is_told_to_wait_for_long_is_not_made_to_wait_inside(
    chat: Chat, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 2)
    chat.script = [refused(429, "come back later", Retry_After="120"), said(json.dumps(GOOD))]
    error = await failure(at(server.base_url))
    assert error.retry_after_s == 120
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 500])
async def test_a_key_that_a_server_repeats_is_not_shown(chat: Chat, server: Server, status: int) -> None:
    chat.script = [lambda asked: refused(status, f"received {asked.key}")]
    error = await failure(at(server.base_url))
    assert f"{status} received Bearer …" in str(error)


async def test_a_key_that_a_model_repeats_is_not_shown(chat: Chat, server: Server) -> None:
    chat.script = [said(None, refusal=f"I know {KEY}")]
    assert "I know …" in str(await failure(at(server.base_url)))


async def test_nothing_that_is_kept_shows_the_key(chat: Chat, server: Server) -> None:
    chat.script = [said(json.dumps(GOOD))]
    settings = at(server.base_url)
    spent: list[Spent] = []
    async with opened(settings, spent) as llm:
        await llm.answer("judge", SYSTEM, USER, Verdict)
        for shown in (repr(llm), str(llm), repr(vars(llm)), repr(spent), repr(settings)):
            assert KEY not in shown
