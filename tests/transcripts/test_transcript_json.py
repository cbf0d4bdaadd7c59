"""Transcripts that can't be read, and their way into text and back."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reme_mcp.errors import InvalidInput
from reme_mcp.transcripts.messages import parse_messages, parse_steps
from reme_mcp.transcripts.transcript import MAX_SHOWN_CHARS, from_json, to_json, to_text
from tests.transcripts.transcript_cases import (
    ANTHROPIC,
    OPENAI,
    answering,
    arguments,
    blocks,
    call,
    calling,
    json_values,
    text,
    tool_result,
    tool_use,
    words,
)

# --- what can't be read ---


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "messages is empty; send at least one message, or leave it out"),
        ("hello", "messages is 'hello'; allowed: a list of message objects"),
        (None, "messages is None; allowed: a list of message objects"),
        ([7], "messages[0] is 7; allowed: an object"),
        (
            [{"role": "user"}, {"role": "robot"}],
            "messages[1].role is 'robot'; allowed: system, developer, user, assistant, tool, function",
        ),
        ([{}], "messages[0].role is None; allowed: system, developer, user, assistant, tool, function"),
        (
            [{"role": ["user"]}],
            "messages[0].role is ['user']; allowed: system, developer, user, assistant, tool, function",
        ),
        ([{"role": "user", "content": 7}], "messages[0].content is 7; allowed: text, null or a list of content blocks"),
        ([blocks("user", "hi")], "messages[0].content[0] is 'hi'; allowed: an object"),
        ([blocks("user", {"text": "hi"})], "messages[0].content[0].type is None; allowed: text"),
        ([blocks("user", {"type": " "})], "messages[0].content[0].type is ' '; allowed: text that is not blank"),
        ([blocks("user", {"type": "text"})], "messages[0].content[0].text is None; allowed: text"),
        ([{"role": "tool", "content": "dry"}], "messages[0].tool_call_id is None; allowed: text"),
        ([answering("a", {"dry": True})], "messages[0].content is {'dry': True}; allowed: text, null or a list of "),
        ([{"role": "function", "content": "dry"}], "messages[0].name is None; allowed: text"),
        ([{"role": "assistant", "refusal": 7}], "messages[0].refusal is 7; allowed: text"),
        ([{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls is {}; allowed: a list of tool calls"),
        ([calling("soil")], "messages[0].tool_calls[0] is 'soil'; allowed: an object"),
        ([calling({"function": {}})], "messages[0].tool_calls[0].id is None; allowed: text"),
        ([calling({"id": "a"})], "messages[0].tool_calls[0].function is None; allowed: an object"),
        ([calling({"id": "a", "type": "custom"})], "messages[0].tool_calls[0].custom is None; allowed: an object"),
        (
            [calling(call("a", "", "{}"))],
            "messages[0].tool_calls[0].function.name is ''; allowed: text that is not blank",
        ),
        (
            [calling(call("a", "soil", 7))],
            "messages[0].tool_calls[0].function.arguments is 7; allowed: an object, or its JSON text",
        ),
        (
            [calling(call("a", "soil", {"pot": b"1"}))],
            "messages[0].tool_calls[0].function.arguments is {'pot': b'1'}; allowed: an object that JSON can hold, or ",
        ),
        ([{"role": "assistant", "function_call": 7}], "messages[0].function_call is 7; allowed: an object"),
        ([{"role": "assistant", "function_call": {}}], "messages[0].function_call.name is None; allowed: text"),
        (
            [blocks("assistant", tool_use("a", "soil", None))],
            "messages[0].content[0].input is None; allowed: an object",
        ),
        ([blocks("assistant", {"type": "tool_use"})], "messages[0].content[0].id is None; allowed: text"),
        ([blocks("user", {"type": "tool_result"})], "messages[0].content[0].tool_use_id is None; allowed: text"),
        (
            [blocks("user", tool_result("a", [text("dry"), 7]))],
            "messages[0].content[0].content[1] is 7; allowed: an object",
        ),
        (
            [blocks("user", tool_result("a", "dry", is_error="no"))],
            "messages[0].content[0].is_error is 'no'; allowed: true, false or null",
        ),
    ],
)
def test_what_no_api_writes_is_refused_with_its_place_and_what_is_allowed(messages: object, expected: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_messages(messages)
    assert str(refused.value).startswith(expected)


@pytest.mark.parametrize("value", ["r" * 10_000, ["r" * 50] * 50, {"r" * 50: "s" * 50}])
def test_a_refused_value_is_shown_in_at_most_sixty_characters(value: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_messages([{"role": value}])
    shown = str(refused.value).removeprefix("messages[0].role is ").partition("; allowed")[0]
    assert 20 < len(shown) <= MAX_SHOWN_CHARS


def test_arguments_without_an_end_are_refused() -> None:
    endless: dict[str, object] = {}
    endless["again"] = endless
    with pytest.raises(InvalidInput, match="an object that JSON can hold"):
        parse_messages([calling(call("a", "soil", endless))])


# --- out again ---


def test_a_reader_sees_one_block_a_step() -> None:
    messages = [
        {"role": "user", "content": "Water pot 3.\n\nresult water: poured"},
        calling(call("a", "water", '{"pot": 3}')),
        answering("a", "Error: no such pot"),
        answering("x", ""),
    ]
    assert to_text(parse_messages(messages)) == (
        "user: Water pot 3.\n  \n  result water: poured\n\n"
        'call water: {"pot":3}\n\n'
        "result water (failed): Error: no such pot\n\n"
        "result:"
    )


def test_json_is_compact_and_keeps_letters_as_they_are() -> None:
    assert to_json(parse_steps("Grüße")) == (
        '{"steps":[{"role":"assistant","text":"Grüße","tool":"","failed":false}],"messages":0,"marks":[]}'
    )


@pytest.mark.parametrize("stored", ["", "[]", "7", "{}", '{"steps":[{}],"messages":1,"marks":[]}'])
def test_json_that_is_no_transcript_is_refused(stored: str) -> None:
    with pytest.raises(InvalidInput, match="allowed: the JSON text of a transcript"):
        from_json(stored)


ids = st.sampled_from(["a", "b", "c"])


names = st.sampled_from(["soil", "water"])


text_blocks = st.builds(text, words)


other_blocks = st.sampled_from([{"type": "image"}, {"type": "thinking"}, {"type": "hologram"}])


parts = st.none() | words | st.lists(text_blocks | other_blocks, max_size=3)


tool_blocks = st.builds(tool_use, ids, names, st.dictionaries(words, json_values, max_size=3)) | st.builds(
    tool_result, ids, parts, is_error=st.booleans()
)


conversations = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "developer", "user", "assistant"]), "content": parts})
    | st.builds(blocks, st.sampled_from(["user", "assistant"]), text_blocks | other_blocks, tool_blocks, text_blocks)
    | st.builds(calling, st.builds(call, ids, names, arguments))
    | st.builds(answering, ids, parts),
    min_size=1,
    max_size=6,
)


@given(conversations)
@example(OPENAI)
@example(ANTHROPIC)
def test_every_parsed_transcript_survives_json(messages: list[object]) -> None:
    transcript = parse_messages(messages)
    stored = to_json(transcript)
    assert from_json(stored) == transcript
    assert from_json(stored.encode().decode()) == transcript
    assert transcript.messages == len(messages)


keys = st.sampled_from(
    ["role", "content", "type", "text", "tool_calls", "tool_call_id", "function", "name", "arguments", "id", "input"]
)


values = st.sampled_from(["assistant", "tool", "text", "tool_use", "tool_result", "image", "a", "{}", None, 7, True])


nearly_messages = st.recursive(
    values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"role": values}, optional={"content": nearly_messages, "tool_calls": nearly_messages}))
def test_whatever_arrives_is_read_or_refused_with_its_place(message: dict[str, object]) -> None:
    try:
        said = f"messages[1] was read: {parse_messages([{'role': 'assistant'}, message])}"
    except InvalidInput as refused:
        said = str(refused)
    assert said.startswith("messages[1]")
