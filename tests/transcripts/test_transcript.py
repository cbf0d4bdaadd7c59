"""Chat messages of either API become one transcript, and what can't be read says where it stands."""

from __future__ import annotations

import json

import pytest

from reme_mcp.errors import InvalidInput
from reme_mcp.transcripts.messages import is_failure, parse_messages, parse_steps
from reme_mcp.transcripts.transcript import MAX_SHOWN_CHARS, Step, Transcript
from tests.transcripts.transcript_cases import (
    ANTHROPIC,
    OPENAI,
    answering,
    blocks,
    call,
    calling,
    text,
    tool_result,
    tool_use,
)

PIXEL = "data:image/png;base64,iVBORw0KGgo="


WATERED = (
    Step("user", "Water the ferns if they are dry."),
    Step("assistant", "I look at the soil first."),
    Step("call", '{"pot":1}', "soil"),
    Step("call", '{"pot":2}', "soil"),
    Step("result", '{"moisture": 0.1}', "soil"),
    Step("result", '{"error": "no sensor"}', "soil", failed=True),
    Step("call", '{"pot":1,"ml":200}', "water"),
    Step("result", "poured", "water"),
    Step("assistant", "Pot 1 is watered.\nPot 2 has no sensor."),
)


# --- both shapes ---


def test_both_shapes_of_one_conversation_give_the_same_steps() -> None:
    assert parse_messages(OPENAI) == Transcript(WATERED, messages=7, marks=())
    assert parse_messages(ANTHROPIC) == Transcript(WATERED, messages=6, marks=())


def test_one_list_may_mix_both_shapes() -> None:
    mixed = [calling(call("a", "soil", "{}")), blocks("user", tool_result("a", "dry"), text("Go on."))]
    assert parse_messages(mixed).steps == (
        Step("call", "{}", "soil"),
        Step("result", "dry", "soil"),
        Step("user", "Go on."),
    )


def test_tools_used_names_every_called_tool_once_in_order_of_first_use() -> None:
    assert parse_messages(OPENAI).tools_used == ("soil", "water")
    assert parse_messages([{"role": "user", "content": "Hello"}, answering("x", "dry")]).tools_used == ()


def test_a_developer_speaks_as_the_system() -> None:
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be kind."}]
    assert parse_messages(messages).steps == (Step("system", "Be brief."), Step("system", "Be kind."))


def test_text_before_and_after_a_call_keeps_its_place() -> None:
    message = blocks("assistant", text("First."), tool_use("a", "soil", {}), text("Then."))
    assert [step.text for step in parse_messages([message]).steps] == ["First.", "{}", "Then."]


def test_a_refusal_is_something_that_the_assistant_said() -> None:
    beside = {"role": "assistant", "content": None, "refusal": "I can't do that."}
    inside = blocks("assistant", {"type": "refusal", "refusal": "I can't do that."})
    assert parse_messages([beside]).steps == (Step("assistant", "I can't do that."),)
    assert parse_messages([inside]).steps == (Step("assistant", "I can't do that."),)


def test_an_old_function_call_finds_its_result_by_name() -> None:
    messages = [
        {"role": "assistant", "content": None, "function_call": {"name": "soil", "arguments": '{"pot": 1}'}},
        {"role": "function", "name": "soil", "content": "dry"},
    ]
    assert parse_messages(messages) == Transcript(
        (Step("call", '{"pot":1}', "soil"), Step("result", "dry", "soil")), messages=2, marks=()
    )


def test_a_custom_tool_call_keeps_its_free_text() -> None:
    custom = {"id": "a", "type": "custom", "custom": {"name": "patch", "input": "- old\n+ new"}}
    assert parse_messages([calling(custom)]).steps == (Step("call", "- old\n+ new", "patch"),)


def test_a_call_without_text_and_a_message_without_either_are_fine() -> None:
    empty = [{"role": "assistant", "content": None}, {"role": "assistant"}, blocks("user"), blocks("user", text("  "))]
    assert parse_messages(empty) == Transcript((), messages=4, marks=())
    assert parse_messages([{"role": "assistant", "content": "Done.", "tool_calls": None}]).messages == 1


def test_a_result_without_text_is_still_a_step() -> None:
    messages = [calling(call("a", "water", "{}")), answering("a", None)]
    assert parse_messages(messages).steps[1] == Step("result", "", "water")


# --- texts ---


def test_every_text_is_cleaned() -> None:
    messages = [
        {"role": "user", "content": " cafe\u0301\x00 \ud800 "},
        calling(call("a", "so\nil ", '{"pot": "\\ud800"}'), call("b", "soil", {"pot": "\ud800"})),
        answering("a", "\x1b[31mdry\r\n"),
    ]
    assert parse_messages(messages).steps == (
        Step("user", "café \ufffd"),
        Step("call", '{"pot":"\ufffd"}', "so il"),
        Step("call", '{"pot":"\ufffd"}', "soil"),
        Step("result", "[31mdry", "so il"),
    )
    assert parse_steps("cafe\u0301\x00").steps == (Step("assistant", "café"),)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{ "pot" : 1,\n "wo": "Küche" }', '{"pot":1,"wo":"Küche"}'),
        ({"pot": 1, "wo": "Küche"}, '{"pot":1,"wo":"Küche"}'),
        ('{"pot": 1', '{"pot": 1'),
        ("", ""),
        ("[" * 100_000, "[" * 100_000),
    ],
    ids=["JSON text", "object", "not JSON", "empty", "too deep"],
)
def test_arguments_become_compact_json_where_they_are_json(arguments: object, expected: str) -> None:
    assert parse_messages([calling(call("a", "soil", arguments))]).steps[0].text == expected


def test_plain_text_is_one_step_of_the_assistant() -> None:
    assert parse_steps("I looked.\nThen I watered.") == Transcript(
        (Step("assistant", "I looked.\nThen I watered."),), messages=0, marks=()
    )


def test_blank_plain_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="steps is empty; say what was done"):
        parse_steps(" \n\x00")


# --- what is left out, and what is odd ---


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ({"type": "image_url", "image_url": {"url": PIXEL}}, "image"),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}, "image"),
        ({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}, "audio"),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0="}}, "file"),
        ({"type": "document", "source": {"type": "base64", "data": "JVBERi0="}}, "document"),
        ({"type": "hologram\n", "beam": 7}, "hologram"),
        ({"type": "input_text", "text": "Hello"}, "input_text"),
        ({"type": "h" * 100}, "h" * MAX_SHOWN_CHARS),
    ],
    ids=[
        "OpenAI image",
        "Anthropic image",
        "audio",
        "file",
        "document",
        "unknown",
        "of another API",
        "unknown and long",
    ],
)
def test_a_block_that_is_no_text_leaves_its_name_and_a_mark(block: dict[str, object], name: str) -> None:
    said = parse_messages([{"role": "user", "content": "Hello"}, blocks("user", text("Look:"), block)])
    assert said.steps[1] == Step("user", f"Look:\n[{name} dropped]")
    assert said.marks == (f"{name} dropped (messages[1])",)
    returned = parse_messages(
        [blocks("assistant", tool_use("a", "see", {})), blocks("user", tool_result("a", [block]))]
    )
    assert returned.steps[1] == Step("result", f"[{name} dropped]", "see")
    assert returned.marks == (f"{name} dropped (messages[1])",)


def test_spoken_audio_of_the_assistant_is_dropped() -> None:
    spoken = parse_messages([{"role": "assistant", "content": None, "audio": {"id": "audio_1"}}])
    assert spoken == Transcript((Step("assistant", "[audio dropped]"),), 1, ("audio dropped (messages[0])",))


def test_data_urls_inside_texts_are_dropped_wherever_they_stand() -> None:
    messages = [
        {"role": "user", "content": f"See ![pot]({PIXEL}) and data:application/pdf;name=a.pdf;base64,JVBERi0=."},
        calling(call("a", "draw", {"on": PIXEL})),
        answering("a", json.dumps({"shot": PIXEL})),
    ]
    transcript = parse_messages(messages)
    assert [step.text for step in transcript.steps] == [
        "See ![pot]([image dropped]) and [file dropped].",
        '{"on":"[image dropped]"}',
        '{"shot": "[image dropped]"}',
    ]
    assert transcript.marks == (
        "image dropped (messages[0])",
        "file dropped (messages[0])",
        "image dropped (messages[1])",
        "image dropped (messages[2])",
    )
    assert parse_steps(f"I saw {PIXEL}").marks == ("image dropped (steps)",)


def test_words_about_data_urls_stay() -> None:
    assert parse_steps("Use data:image/png;base64, then the bytes.").marks == ()


def test_thinking_is_left_out_and_counted_once() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    one = parse_messages([blocks("assistant", thought, text("Yes."))])
    assert one == Transcript((Step("assistant", "Yes."),), messages=1, marks=("1 thinking block dropped",))
    three = parse_messages([blocks("assistant", thought, hidden), blocks("assistant", thought)])
    assert three == Transcript((), messages=2, marks=("3 thinking blocks dropped",))


def test_a_result_of_an_unknown_call_is_kept_with_a_mark() -> None:
    openai, old, anthropic = (
        parse_messages([answering("x", "dry")]),
        parse_messages([{"role": "function", "name": "soil", "content": "dry"}]),
        parse_messages([blocks("user", tool_result("x", "dry"))]),
    )
    assert openai.steps == old.steps == anthropic.steps == (Step("result", "dry"),)
    assert openai.marks == anthropic.marks == ("result of an unknown call 'x' (messages[0])",)
    assert old.marks == ("result of an unknown call 'function soil' (messages[0])",)


def test_a_call_without_a_result_is_marked_and_one_with_a_result_is_not() -> None:
    messages = [calling(call("a", "soil", "{}"), call("b", "water", "{}")), answering("a", "dry")]
    assert parse_messages(messages).marks == ("call 'b' of water got no result (messages[0])",)


def test_a_call_id_may_be_used_again_once_it_is_answered() -> None:
    soil, water = calling(call("a", "soil", "{}")), calling(call("a", "water", "{}"))
    answered = parse_messages([soil, answering("a", "dry"), water, answering("a", "poured")])
    assert [step.tool for step in answered.steps] == ["soil", "soil", "water", "water"]
    assert answered.marks == ()
    unanswered = parse_messages([soil, water, answering("a", "poured")])
    assert [step.tool for step in unanswered.steps] == ["soil", "water", "water"]
    assert unanswered.marks == ("call 'a' of soil got no result (messages[0])",)


# --- failures ---


@pytest.mark.parametrize(
    "result",
    [
        "Error: no such pot",
        "ERROR",
        "Traceback (most recent call last):",
        '{"error": "no sensor"}',
        '{"error": {"c": 1}}',
    ],
)
def test_a_result_that_says_it_is_an_error_failed(result: str) -> None:
    assert is_failure(result, is_error=False)
    assert parse_messages([answering("a", f" {result}")]).steps[0].failed


@pytest.mark.parametrize(
    "result",
    [
        "",
        "dry",
        "No error: dry",
        '{"error": null}',
        '{"error": ""}',
        '{"moisture": "error"}',
        '{"soil": {"error": "x"}}',
        '["error"]',
        '{"error": "cut o',
        '{"a":' * 100_000,
    ],
)
def test_any_other_result_did_not_fail(result: str) -> None:
    assert not is_failure(result, is_error=False)
    assert not parse_messages([answering("a", result)]).steps[0].failed


@pytest.mark.parametrize(("is_error", "failed"), [(True, True), (False, False), (None, False)])
def test_a_client_may_say_that_a_result_is_an_error(is_error: bool | None, failed: bool) -> None:
    message = blocks("user", tool_result("a", "no such pot", is_error=is_error))
    assert parse_messages([message]).steps[0].failed is failed
