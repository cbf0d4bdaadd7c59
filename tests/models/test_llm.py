"""A model behind a server: a real one, and one that misbehaves in every way that we know of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, SecretStr

from reme_mcp.config.settings import LLMSettings
from reme_mcp.errors import AnswerError, EndpointError
from reme_mcp.models import llm as llm_module
from reme_mcp.models.llm import LLM, prompt_tokens
from reme_mcp.models.structured import schema_of
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
    said,
)
from tests.models.llm_server import chat as chat
from tests.models.llm_server import each_request_is_sent_once as each_request_is_sent_once
from tests.models.llm_server import server as server
from tests.weights import language_model as language_model
from tests.weights import llama_server as llama_server

pytestmark = pytest.mark.anyio


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


# --- what is answered ---


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
