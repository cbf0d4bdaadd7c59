"""A model behind a server: a real one, and one that misbehaves in every way that we know of."""

from __future__ import annotations

import json
import socket
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from reme_mcp.config.settings import LLMSettings
from reme_mcp.errors import AnswerError, EndpointError
from reme_mcp.models import llm as llm_module
from reme_mcp.models.llm import LLM, EndpointLLM, prompt_tokens
from reme_mcp.models.structured import schema_of
from reme_mcp.models.usage import Allowance
from reme_mcp.schema import Spent, now
from tests.http_server import Asked, Reply, Server, reply, serving
from tests.weights import language_model as language_model
from tests.weights import llama_server as llama_server

pytestmark = pytest.mark.anyio
KEY = "sk-test-0123456789"
SYSTEM = "You judge notes."
USER = "Is this one true? The door must be shut first."


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=60)]
    grade: Literal["low", "middle", "high"]
    words: Annotated[list[Annotated[str, Field(max_length=20)]], Field(max_length=3)]


GOOD = {"reason": "It says what to do.", "grade": "high", "words": ["door"]}
VERDICT = Verdict(reason="It says what to do.", grade="high", words=["door"])


def said(text: str | None, *, finish: str = "stop", refusal: str | None = None, usage: object = (7, 5)) -> Reply:
    """Return a chat completion that says this."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body: dict[str, object] = {"object": "chat.completion", "choices": [{"message": message, "finish_reason": finish}]}
    if isinstance(usage, tuple):
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return reply(body)


def refused(status: int, message: str, **headers: str) -> Reply:
    return reply({"error": {"message": message, "type": "error", "param": None, "code": None}}, status, **headers)


class Chat:
    """Answers from a script, in order, and fails the test on a request that the script does not know."""

    def __init__(self) -> None:
        self.script: list[Reply | Callable[[Asked], Reply]] = []

    def __call__(self, asked: Asked) -> Reply:
        assert asked.path == "/v1/chat/completions"
        if not self.script:
            return refused(400, "the script has ended")
        step = self.script.pop(0)
        return step if isinstance(step, Reply) else step(asked)


@pytest.fixture
def chat() -> Chat:
    return Chat()


@pytest.fixture
def server(chat: Chat) -> Iterator[Server]:
    with serving(chat) as server:
        yield server


@pytest.fixture(autouse=True)
def each_request_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 0)


def at(base_url: str, **changes: Any) -> LLMSettings:
    given: dict[str, Any] = {"model": "m", "api_key": SecretStr(KEY), "timeout_s": 30.0, **changes}
    return LLMSettings(base_url=base_url, **given)


@asynccontextmanager
async def opened(
    settings: LLMSettings, spent: list[Spent] | None = None, allowance: Allowance | None = None
) -> AsyncIterator[EndpointLLM]:
    llm = EndpointLLM(
        settings, allowance or Allowance(settings.tokens_per_day), ([] if spent is None else spent).append
    )
    try:
        yield llm
    finally:
        with anyio.CancelScope(shield=True):
            await llm.close()


async def asked_once(settings: LLMSettings, spent: list[Spent] | None = None) -> Verdict:
    async with opened(settings, spent) as llm:
        return await llm.answer("judge", SYSTEM, USER, Verdict)


async def failure(settings: LLMSettings, spent: list[Spent] | None = None) -> EndpointError:
    """Return the error of a question, having looked at what it shows."""
    with pytest.raises(EndpointError) as caught:
        await asked_once(settings, spent)
    assert settings.base_url in str(caught.value)
    assert "m at http" in str(caught.value)
    # As a log would show it, with what led to it.
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value


# --- the real server ---


async def test_a_real_model_fills_in_a_shape(llama_base_url: str) -> None:
    spent: list[Spent] = []
    settings = at(llama_base_url, max_tokens=120, temperature=0.0)
    async with opened(settings, spent) as llm:
        seam: LLM = llm
        verdict = await seam.answer("judge", SYSTEM, USER, Verdict)
    assert verdict.grade in ("low", "middle", "high")
    assert Verdict.model_validate_json(verdict.model_dump_json(), strict=True) == verdict
    (cost,) = spent
    assert cost.ok
    assert cost.tokens_in > 20
    assert cost.tokens_out > 5
    assert not cost.estimated


async def test_a_real_server_that_refuses_a_schema_is_asked_in_another_form(
    llama_base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_ATTEMPTS", 1)

    class Odd(BaseModel):
        # llama.cpp makes a grammar of the schema, and of this one it can't.
        word: Annotated[str, Field(json_schema_extra={"type": "odd"})]

    spent: list[Spent] = []
    async with opened(at(llama_base_url, max_tokens=64, temperature=0.0), spent) as llm:
        try:
            await llm.answer("judge", SYSTEM, USER, Odd)
        except AnswerError as exc:  # without a grammar, a model as small as this one may well write something else
            assert "no answer that can be used in 1 attempts" in str(exc)  # noqa: PT017
    # The schema with its bounds and without them; then an object, and that was answered.
    assert spent[0].attempts == 3
    assert spent[0].tokens_out > 0


# --- what is asked ---


async def test_a_question_goes_out_as_settings_prompt_and_shape_say(chat: Chat, server: Server) -> None:
    chat.script = [said(json.dumps(GOOD))]
    assert await asked_once(at(server.base_url, max_tokens=321, temperature=0.5)) == VERDICT
    (asked,) = server.asked
    assert asked.key == f"Bearer {KEY}"
    assert asked.body == {
        "model": "m",
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}],
        "max_tokens": 321,
        "temperature": 0.5,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Verdict", "strict": True, "schema": schema_of(Verdict)},
        },
    }


def test_a_schema_is_strict_and_bounded() -> None:
    assert schema_of(Verdict) == {
        "type": "object",
        "properties": {
            "reason": {"type": "string", "maxLength": 60},
            "grade": {"type": "string", "enum": ["low", "middle", "high"]},
            "words": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 20}},
        },
        "required": ["reason", "grade", "words"],
        "additionalProperties": False,
    }


def test_a_schema_without_bounds_keeps_its_form_and_a_property_may_be_called_like_a_keyword() -> None:
    class Inner(BaseModel):
        title: Annotated[str, Field(description="of the note", max_length=9)] = "x"
        pattern: int | None

    class Outer(BaseModel):
        format: list[Inner]
        one: Annotated[Inner, Field(description="the best")]

    inner = {"$ref": "#/$defs/Inner"}
    assert schema_of(Outer, bounds=False) == {
        "$defs": {
            "Inner": {
                "type": "object",
                "properties": {
                    "title": {"type": "string", "description": "of the note"},
                    "pattern": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
                },
                "required": ["title", "pattern"],
                "additionalProperties": False,
            }
        },
        "type": "object",
        "properties": {"format": {"type": "array", "items": inner}, "one": inner},
        "required": ["format", "one"],
        "additionalProperties": False,
    }


def test_a_prompt_leaves_room_for_form_answer_and_a_second_attempt() -> None:
    def room(max_tokens: int, context_tokens: int) -> int:
        settings = LLMSettings(max_tokens=max_tokens, context_tokens=context_tokens)
        return prompt_tokens(settings, Verdict)

    assert 6_000 < room(1_000, 8_000) < 6_500
    assert room(1_000, 9_000) == room(1_000, 8_000) + 1_000
    assert room(2_000, 8_000) == room(1_000, 8_000) - 1_000
    assert room(999, 1_000) == 0


async def test_the_key_may_come_from_a_file(chat: Chat, server: Server, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n", encoding="utf-8")
    chat.script = [said(json.dumps(GOOD))]
    await asked_once(at(server.base_url, api_key=SecretStr(""), api_key_file=str(file)))
    assert server.asked[0].key == f"Bearer {KEY}"


@pytest.mark.parametrize("content", [None, b"", b"two keys", b"\xff\xfe"])
async def test_a_bad_key_file_is_an_error_that_shows_nothing_of_it(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(EndpointError, match=r"\[llm\] api_key_file .* (can't be read|must hold one key)") as caught:
        await asked_once(at("http://127.0.0.1:9/v1", api_key=SecretStr(""), api_key_file=str(file)))
    assert caught.value.is_permanent
    assert "two keys" not in str(caught.value)


# --- what is answered ---

TAKEN = {
    "plain": json.dumps(GOOD),
    "with space around": f"\n\n {json.dumps(GOOD, indent=2)} \n",
    "in a fence": f"```json\n{json.dumps(GOOD)}\n```",
    "in a fence without a name, between prose": f"Here you are:\n```\n{json.dumps(GOOD)}\n```\nAnything else?",
    "after a thought": f"<think>It could be\n{{low}}, or not.</think>\n\n{json.dumps(GOOD)}",
    "after a thought that the server opened": f"so it is high.\n</think>\n```json\n{json.dumps(GOOD)}\n```",
    "after two thoughts": f"<think>a</think>\n<think>b</think>{json.dumps(GOOD)}",
    "after a draft of it": f"<thinking>{json.dumps(GOOD | {'grade': 'low'})}?</thinking>\n{json.dumps(GOOD)}",
    "after a thought in brackets": f"[THINK]{{low}} or {json.dumps(GOOD | {'grade': 'low'})}[/THINK]{json.dumps(GOOD)}",
    "in a channel": (
        f"<|channel|>analysis<|message|>Perhaps {json.dumps(GOOD | {'grade': 'low'})}<|end|>"
        f"<|start|>assistant<|channel|>final<|message|>{json.dumps(GOOD)}<|return|>"
    ),
    "in a tag of its own": f"<answer>{json.dumps(GOOD)}</answer>",
    "in a fence on one line": f"```json {json.dumps(GOOD)} ```",
    "in two fences": f"````\n```json\n{json.dumps(GOOD)}\n```\n````",
    "in the first of two fences": f"```json\n{json.dumps(GOOD)}\n```\nFor example:\n```sh\nls\n```",
    "between prose with braces": f"The set {{a, b}} is fine: {json.dumps(GOOD)} I hope {{that}} helps.",
    "in another object": json.dumps({"verdict": GOOD}),
    "in a list": json.dumps([GOOD]),
    "behind a byte order mark": f"\ufeff{json.dumps(GOOD)}",
    "with a line break in a text": json.dumps(GOOD).replace("It says", "It\nsays"),
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN.keys())
async def test_json_is_found_in_an_answer(chat: Chat, server: Server, text: str) -> None:
    chat.script = [said(text)]
    verdict = await asked_once(at(server.base_url))
    assert verdict.model_copy(update={"reason": verdict.reason.replace("\n", " ")}) == VERDICT


def with_message(usage: object = None, **message: object) -> Reply:
    """Return a chat completion with this message and this account of its cost."""
    choice = {"message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return reply({"choices": [choice], "usage": usage})


THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": f"low? {json.dumps(GOOD | {'grade': 'low'})}"}]}
CALL = {"id": "c", "type": "function", "function": {"name": "Verdict", "arguments": json.dumps(GOOD)}}
PLACES = {
    "parts": {"content": [THINKING, {"type": "text", "text": json.dumps(GOOD)}]},
    "parts of one text": {
        "content": [{"type": "text", "text": part} for part in (json.dumps(GOOD)[:9], json.dumps(GOOD)[9:])]
    },
    "reasoning_content": {"content": None, "reasoning_content": f"So: {json.dumps(GOOD)}"},
    "reasoning": {"content": "", "reasoning": json.dumps(GOOD)},
    "reasoning beside an introduction": {"content": "Here it is:", "reasoning_content": json.dumps(GOOD)},
    "a call": {"content": None, "tool_calls": [CALL]},
    "a refusal that is none": {"content": json.dumps(GOOD), "refusal": False},
    "not in a draft": {"content": json.dumps(GOOD), "reasoning_content": json.dumps(GOOD | {"grade": "low"})},
}


@pytest.mark.parametrize("message", PLACES.values(), ids=PLACES.keys())
async def test_an_answer_is_found_where_a_server_puts_it(
    chat: Chat, server: Server, message: dict[str, object]
) -> None:
    chat.script = [with_message(**message)]
    assert await asked_once(at(server.base_url)) == VERDICT


@pytest.mark.parametrize(
    "usage",
    [{"prompt_tokens": "many"}, {"prompt_tokens": -1, "completion_tokens": 2}, [], "?", 7, {"prompt_tokens": {}}],
)
async def test_a_count_of_tokens_that_is_none_does_not_cost_the_answer(
    chat: Chat, server: Server, usage: object
) -> None:
    chat.script = [with_message(usage, content=json.dumps(GOOD))]
    spent: list[Spent] = []
    assert await asked_once(at(server.base_url), spent) == VERDICT
    assert [(cost.ok, cost.estimated) for cost in spent] == [(True, True)]


@pytest.mark.parametrize("usage", [{"prompt_tokens": 7.0, "completion_tokens": "5", "total_tokens": None}])
async def test_a_count_of_tokens_may_be_written_oddly(chat: Chat, server: Server, usage: object) -> None:
    chat.script = [with_message(usage, content=json.dumps(GOOD))]
    spent: list[Spent] = []
    await asked_once(at(server.base_url), spent)
    assert [(cost.tokens_in, cost.tokens_out, cost.estimated) for cost in spent] == [(7, 5, False)]


async def test_a_body_may_begin_with_a_byte_order_mark(chat: Chat, server: Server) -> None:
    body = said(json.dumps(GOOD)).content
    assert isinstance(body, bytes)
    chat.script = [Reply(b"\xef\xbb\xbf" + body)]
    assert await asked_once(at(server.base_url)) == VERDICT


async def test_an_answer_may_hold_any_script_and_tags_in_its_words(chat: Chat, server: Server) -> None:
    chat.script = [said(json.dumps(GOOD | {"reason": "先关门 </think> ``` é🚪"}, ensure_ascii=False))]
    assert (await asked_once(at(server.base_url))).reason == "先关门 </think> ``` é🚪"


# What is no answer: reply, and what the second request has to say about it.
UNUSABLE = {
    "invalid JSON": (said('{"reason": "x", '), "Invalid JSON"),
    "another shape": (said('{"verdict": "yes"}'), "reason: Field required"),
    "an extra key": (said(json.dumps(GOOD | {"score": 1})), "score: Extra inputs are not permitted"),
    "an empty list": (said("[]"), "object"),
    "a number for a word": (said(json.dumps(GOOD | {"reason": 3})), "reason: Input should be a valid string"),
    "a grade that is none": (said(json.dumps(GOOD | {"grade": "0.8"})), "grade: Input should be 'low', 'middle'"),
    "too long": (said(json.dumps(GOOD | {"reason": "x" * 61})), "reason: String should have at most 60"),
    "too many": (said(json.dumps(GOOD | {"words": ["x"] * 4})), "words: List should have at most 3"),
    "nothing": (said(""), "was empty"),
    "no content": (said(None), "was empty"),
    "a thought only": (said("<think>hm</think>"), "was empty"),
    "another language": (said("这条笔记是真的，因为门必须先关上。"), "Invalid JSON"),
    "a refusal in prose": (said("I'm sorry, but I can't help with that."), "Invalid JSON"),
    "its own prompt": (said(f"{SYSTEM}\n{USER}"), "repeats the prompt"),
    "half its prompt": (said(USER), "repeats the prompt"),
    "cut off": (said(json.dumps(GOOD)[:30], finish="length"), "was cut off after 2000 tokens"),
    "cut off in its thoughts": (said(None, finish="length"), "was cut off after 2000 tokens"),
}


@pytest.mark.parametrize("wrong", UNUSABLE)
async def test_an_answer_that_does_not_fit_is_asked_for_again_with_what_was_wrong(
    chat: Chat, server: Server, wrong: str
) -> None:
    first, problem = UNUSABLE[wrong]
    chat.script = [first, said(json.dumps(GOOD))]
    spent: list[Spent] = []
    assert await asked_once(at(server.base_url), spent) == VERDICT
    again = server.asked[1].body["messages"]
    assert again[:2] == server.asked[0].body["messages"]
    assert problem in again[-1]["content"]
    assert json.dumps(schema_of(Verdict)) in again[-1]["content"]
    assert [message["role"] for message in again[2:]] in (["user"], ["assistant", "user"])
    assert [(cost.attempts, cost.tokens_in, cost.tokens_out, cost.ok) for cost in spent] == [(2, 14, 10, True)]


@pytest.mark.parametrize(("wrong", "attempts"), [*((wrong, 2) for wrong in UNUSABLE), ("nothing", 1), ("too long", 3)])
async def test_answers_that_never_fit_are_an_error_after_so_many_attempts(
    chat: Chat, server: Server, wrong: str, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_ATTEMPTS", attempts)
    answer, problem = UNUSABLE[wrong]
    chat.script = [answer] * 5
    spent: list[Spent] = []
    error = await failure(at(server.base_url), spent)
    assert isinstance(error, AnswerError)
    assert f"no answer that can be used in {attempts} attempts" in str(error)
    assert problem in str(error)
    assert len(server.asked) == attempts
    assert [(cost.attempts, cost.ok) for cost in spent] == [(attempts, False)]


async def test_an_example_of_the_prompt_is_no_answer(
    chat: Chat, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module, "MAX_ATTEMPTS", 1)
    example = f"Answer like this:\n```json\n{json.dumps(GOOD)}\n```"
    chat.script = [said(example)]
    async with opened(at(server.base_url)) as llm:
        with pytest.raises(AnswerError, match="repeats the prompt"):
            await llm.answer("judge", f"{SYSTEM} {example}", USER, Verdict)


async def test_only_the_last_bad_answer_is_sent_back_and_not_all_of_it(chat: Chat, server: Server) -> None:
    chat.script = [said("word " * 5_000), said("[]"), said(json.dumps(GOOD))]
    await asked_once(at(server.base_url))
    assert len(server.asked[1].body["messages"][2]["content"]) < 1_300
    assert [message["content"] for message in server.asked[2].body["messages"][2:3]] == ["[]"]
    assert len(server.asked[2].body["messages"]) == 4


@pytest.mark.parametrize(
    "answer",
    [said(None, refusal="I won't do that."), said("", finish="content_filter")],
    ids=["refusal", "content filter"],
)
async def test_a_refusal_is_not_argued_with(chat: Chat, server: Server, answer: Reply) -> None:
    chat.script = [answer, said(json.dumps(GOOD))]
    error = await failure(at(server.base_url))
    assert isinstance(error, AnswerError)
    assert "refused: " in str(error)
    assert len(server.asked) == 1


# --- in which form ---

SCHEMA_REFUSED = refused(400, "Invalid schema for response_format 'Verdict': 'maxLength' is not permitted.")
FORM_REFUSED = refused(422, "json_schema is not supported by this model")
OBJECT_REFUSED = refused(400, "'response_format.type' must be 'text'")


def form_of(asked: Asked) -> str:
    form = asked.body.get("response_format", {"type": "text"})
    bounded = "maxLength" in json.dumps(form)
    return f"{form['type']} with bounds" if bounded else str(form["type"])


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


# --- a server that is away, refuses or talks nonsense ---

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
        (format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True), 3_000, 3_600),
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
