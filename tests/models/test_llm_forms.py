"""In which form a model is asked, what it costs, several questions at once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from reme_mcp.errors import AnswerError, EndpointError
from reme_mcp.models import llm as llm_module
from reme_mcp.models.structured import schema_of
from reme_mcp.models.usage import Allowance
from reme_mcp.schema import Spent, now
from tests.http_server import Asked, Reply, Server, reply, serving
from tests.models.llm_server import (
    GOOD,
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

SCHEMA_REFUSED = refused(400, "Invalid schema for response_format 'Verdict': 'maxLength' is not permitted.")


FORM_REFUSED = refused(422, "json_schema is not supported by this model")


OBJECT_REFUSED = refused(400, "'response_format.type' must be 'text'")


def form_of(asked: Asked) -> str:
    form = asked.body.get("response_format", {"type": "text"})
    bounded = "maxLength" in json.dumps(form)
    return f"{form['type']} with bounds" if bounded else str(form["type"])


# --- in which form ---


@pytest.mark.parametrize(
    ("refusals", "forms"),
    [
        ([SCHEMA_REFUSED], ["json_schema with bounds", "json_schema"]),
        ([SCHEMA_REFUSED, FORM_REFUSED], ["json_schema with bounds", "json_schema", "json_object"]),
        (
            [SCHEMA_REFUSED, FORM_REFUSED, OBJECT_REFUSED],
            ["json_schema with bounds", "json_schema", "json_object", "text"],
        ),
    ],
)
async def test_a_refused_form_gives_way_to_the_next_and_that_is_remembered(
    chat: Chat, server: Server, refusals: list[Reply], forms: list[str]
) -> None:
    chat.script = [*refusals, said(json.dumps(GOOD)), said(json.dumps(GOOD))]
    async with opened(at(server.base_url)) as llm:
        for _ in range(2):
            assert await llm.answer("judge", SYSTEM, USER, Verdict) == VERDICT
    assert [form_of(asked) for asked in server.asked] == [*forms, forms[-1]]
    # What the server can't hold the model to, the model is told.
    words = [asked.body["messages"][0]["content"] for asked in server.asked]
    assert words[0] == SYSTEM
    assert all(json.dumps(schema_of(Verdict)) in one for one in words[1:])


# What servers say that take a part of the request not, and whether they do for the request at hand.
SERVERS: dict[str, Callable[[Asked], Reply | None]] = {
    "Gemini": lambda asked: (
        refused(400, "Invalid JSON payload received. Unknown name \"additionalProperties\" at 'response_schema'")
        if "additionalProperties" in json.dumps(asked.body.get("response_format", ""))
        else None
    ),
    "Bedrock": lambda asked: (
        refused(400, "For 'array' type, property 'maxItems' is not supported")
        if "maxItems" in str(asked.body.get("response_format"))
        else None
    ),
    "Groq": lambda asked: (
        reply({"error": {"message": "Failed to generate JSON.", "code": "json_validate_failed"}}, 400)
        if "response_format" in asked.body
        else None
    ),
    "DeepSeek": lambda asked: (
        refused(400, "This response_format type is unavailable now")
        if form_of(asked).startswith("json_schema")
        else None
    ),
    "one whose objects want the word": lambda asked: (
        refused(400, "'messages' must contain the word 'json' in some form, to use 'response_format' of this type")
        if form_of(asked) == "json_object" and "json" not in json.dumps(asked.body["messages"]).lower()
        else refused(422, "json_schema: unprocessable")
        if form_of(asked).startswith("json_schema")
        else None
    ),
    "one that says nothing": lambda asked: refused(422, "bad request") if "response_format" in asked.body else None,
    "Gemma": lambda asked: (
        refused(400, "System role not supported") if asked.body["messages"][0]["role"] == "system" else None
    ),
    "one that calls it otherwise": lambda asked: (
        refused(400, "Developer instruction is not enabled for models/m")
        if asked.body["messages"][0]["role"] == "system"
        else None
    ),
    "Mistral": lambda asked: (
        refused(400, "Conversation roles must alternate user/assistant/user/assistant/...")
        if [one["role"] for one in asked.body["messages"]]
        != ["user", "assistant", "user"][: len(asked.body["messages"])]
        else None
    ),
    "one that takes neither and says nothing": lambda asked: (
        refused(400, "invalid request")
        if "response_format" in asked.body or asked.body["messages"][0]["role"] == "system"
        else None
    ),
}


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_is_asked_until_it_takes_the_request_and_that_is_remembered(name: str) -> None:
    takes = SERVERS[name]
    answers = iter([said(""), *[said(json.dumps(GOOD))] * 2])
    with serving(lambda asked: takes(asked) or next(answers)) as server:
        async with opened(at(server.base_url)) as llm:
            # The first answer is empty, so that there is a second turn.
            assert await llm.answer("judge", SYSTEM, USER, Verdict) == VERDICT
            before = len(server.asked)
            assert await llm.answer("judge", SYSTEM, USER, Verdict) == VERDICT
        assert len(server.asked) == before + 1
        assert SYSTEM in str(server.asked[-1].body)


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refusal_that_no_form_cures_is_told_in_its_first_words(chat: Chat, server: Server, status: int) -> None:
    chat.script = [refused(status, "the request exceeds the context size"), *[refused(status, "no")] * 9]
    assert f"{status} the request exceeds the context size" in str(await failure(at(server.base_url)))
    # Each form once, and once without a role for instructions.
    assert len(server.asked) == 5


async def test_a_form_that_is_refused_to_the_last_is_an_error_and_not_remembered(chat: Chat, server: Server) -> None:
    chat.script = [FORM_REFUSED, FORM_REFUSED, FORM_REFUSED, FORM_REFUSED, said(json.dumps(GOOD))]
    async with opened(at(server.base_url)) as llm:
        with pytest.raises(AnswerError, match="422 json_schema is not supported"):
            await llm.answer("judge", SYSTEM, USER, Verdict)
        await llm.answer("judge", SYSTEM, USER, Verdict)
    assert [form_of(asked) for asked in server.asked][3:] == ["text", "json_schema with bounds"]


@pytest.mark.parametrize(
    ("refusal", "before", "after"),
    [
        (
            "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
            ("max_tokens", 2000),
            ("max_completion_tokens", 2000),
        ),
        ("Unsupported value: 'temperature' does not support 0.2 with this model.", ("temperature", 0.2), None),
    ],
)
async def test_an_option_that_a_model_does_not_take_is_replaced_or_left_out(
    chat: Chat, server: Server, refusal: str, before: tuple[str, object], after: tuple[str, object] | None
) -> None:
    chat.script = [refused(400, refusal), said(json.dumps(GOOD))]
    await asked_once(at(server.base_url))
    first, second = (asked.body for asked in server.asked)
    assert before in first.items()
    assert before[0] not in second
    assert after is None or after in second.items()
    assert form_of(server.asked[1]) == "json_schema with bounds"


@pytest.mark.parametrize("status", [401, 403, 409, 429, 500, 503])
async def test_other_refusals_do_not_change_the_form(chat: Chat, server: Server, status: int) -> None:
    chat.script = [refused(status, "response_format json_schema temperature"), said(json.dumps(GOOD))]
    async with opened(at(server.base_url)) as llm:
        with pytest.raises(EndpointError):
            await llm.answer("judge", SYSTEM, USER, Verdict)
        await llm.answer("judge", SYSTEM, USER, Verdict)
    assert form_of(server.asked[1]) == "json_schema with bounds"
    assert "temperature" in server.asked[1].body


# --- what it costs ---


async def test_a_question_is_entered_with_its_purpose(chat: Chat, server: Server) -> None:
    chat.script = [said(json.dumps(GOOD), usage=(100, 20))]
    spent: list[Spent] = []
    before = now()
    await asked_once(at(server.base_url), spent)
    (cost,) = spent
    assert (cost.purpose, cost.model, cost.attempts, cost.ok) == ("judge", "m", 1, True)
    assert (cost.tokens_in, cost.tokens_out, cost.estimated) == (100, 20, False)
    assert before <= cost.at <= now()
    assert 0 < cost.seconds < 30


@pytest.mark.parametrize("usage", [None, "null", "empty"])
async def test_what_a_server_does_not_say_is_estimated_and_marked(
    chat: Chat, server: Server, usage: str | None
) -> None:
    answer = json.loads(bytes(said(json.dumps(GOOD), usage=None).content))  # type: ignore[arg-type]  # it is bytes
    if usage is not None:
        answer["usage"] = None if usage == "null" else {}
    chat.script = [reply(answer)]
    spent: list[Spent] = []
    await asked_once(at(server.base_url), spent)
    (cost,) = spent
    assert cost.estimated
    assert 10 < cost.tokens_in < 30
    assert 10 < cost.tokens_out < 40


async def test_a_used_up_day_refuses_before_it_asks_and_the_next_one_does_not(chat: Chat, server: Server) -> None:
    chat.script = [said(json.dumps(GOOD), usage=(60, 40))] * 3
    spent: list[Spent] = []
    clock = [datetime.now(UTC)]
    async with opened(at(server.base_url), spent, Allowance(101, lambda: clock[0])) as llm:
        for _ in range(2):  # 0 and 100 are below 101
            await llm.answer("judge", SYSTEM, USER, Verdict)
        with pytest.raises(
            EndpointError, match=r"200 of .* tokens_per_day = 101; it starts anew at .* 00:00 UTC"
        ) as caught:
            await llm.answer("judge", SYSTEM, USER, Verdict)
        assert len(server.asked) == 2
        assert len(spent) == 2
        assert caught.value.retry_after_s is not None
        assert not caught.value.is_permanent
        clock[0] += timedelta(seconds=caught.value.retry_after_s)
        await llm.answer("judge", SYSTEM, USER, Verdict)


async def test_a_budget_that_is_used_up_ends_the_attempts(chat: Chat, server: Server) -> None:
    chat.script = [said("no", usage=(60, 40))] * 3
    spent: list[Spent] = []
    async with opened(at(server.base_url), spent, Allowance(200)) as llm:
        with pytest.raises(EndpointError, match="budget is used up"):
            await llm.answer("judge", SYSTEM, USER, Verdict)
    assert [(cost.attempts, cost.tokens_in, cost.ok) for cost in spent] == [(2, 120, False)]


@pytest.mark.parametrize(("earlier", "left"), [(99, True), (100, False), (101, False)])
def test_what_was_spent_before_counts(earlier: int, left: bool) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    allowance = Allowance(100, lambda: noon)
    allowance.count(1_000, noon - timedelta(hours=12, seconds=1))
    allowance.count(earlier, noon - timedelta(hours=12))
    if left:
        allowance.check()
    else:
        with pytest.raises(EndpointError, match="starts anew at 2026-03-02 00:00 UTC") as caught:
            allowance.check()
        assert caught.value.retry_after_s == 12 * 3_600


def test_without_a_limit_nothing_is_refused() -> None:
    allowance = Allowance(0)
    allowance.count(10**12, now())
    allowance.check()


# --- several at once, and giving up ---


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_only_so_many_questions_are_asked_at_once(chat: Chat, server: Server, concurrency: int) -> None:
    over = threading.Event()

    def held(asked: Asked) -> Reply:
        over.wait(20)
        return said(json.dumps(GOOD))

    async def more_than(asked: int) -> None:
        while len(server.asked) <= asked:
            await anyio.lowlevel.checkpoint()

    chat.script = [held] * 6
    async with opened(at(server.base_url, concurrency=concurrency)) as llm, anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(llm.answer, "judge", SYSTEM, USER, Verdict)
        with anyio.fail_after(20):
            await more_than(concurrency - 1)
        with anyio.move_on_after(0.5) as scope:  # the time that one more would have to show up
            await more_than(concurrency)
        over.set()
    assert scope.cancelled_caught
    assert len(server.asked) == 6


async def test_a_deadline_ends_a_question_at_once_and_it_is_entered(chat: Chat, server: Server) -> None:
    over = threading.Event()

    def held(asked: Asked) -> Reply:
        over.wait(20)
        return said(json.dumps(GOOD))

    chat.script = [held, said(json.dumps(GOOD))]
    spent: list[Spent] = []
    async with opened(at(server.base_url, concurrency=1), spent) as llm:
        started = time.monotonic()
        with anyio.move_on_after(1) as scope:
            await llm.answer("rerank", SYSTEM, USER, Verdict)
        assert scope.cancelled_caught
        assert time.monotonic() - started < 5
        over.set()
        # Its place is free again.
        assert await llm.answer("judge", SYSTEM, USER, Verdict) == VERDICT
    assert [(cost.purpose, cost.attempts, cost.estimated, cost.ok) for cost in spent] == [
        ("rerank", 1, True, False),
        ("judge", 1, False, True),
    ]


async def test_a_deadline_ends_the_wait_for_a_turn_and_costs_nothing(chat: Chat, server: Server) -> None:
    over = threading.Event()

    def held(asked: Asked) -> Reply:
        over.wait(20)
        return said(json.dumps(GOOD))

    chat.script = [held]
    spent: list[Spent] = []
    async with opened(at(server.base_url, concurrency=1), spent) as llm, anyio.create_task_group() as tasks:
        tasks.start_soon(llm.answer, "distill", SYSTEM, USER, Verdict)
        with anyio.fail_after(20):
            while not server.asked:
                await anyio.lowlevel.checkpoint()
        with anyio.move_on_after(0.1) as scope:
            await llm.answer("rerank", SYSTEM, USER, Verdict)
        assert scope.cancelled_caught
        assert spent == []
        over.set()
    assert [cost.purpose for cost in spent] == ["distill"]


async def test_a_deadline_ends_the_wait_between_two_tries(
    chat: Chat, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 3)
    chat.script = [refused(503, "busy", Retry_After="19")]
    async with opened(at(server.base_url)) as llm:
        started = time.monotonic()
        with anyio.move_on_after(1) as scope:
            await llm.answer("rerank", SYSTEM, USER, Verdict)
    assert scope.cancelled_caught
    assert time.monotonic() - started < 10
