"""Chat messages of either API become one transcript, and what can't be read says where it stands."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reme_mcp.errors import InvalidInput
from reme_mcp.transcripts.messages import is_failure, parse_messages, parse_steps
from reme_mcp.transcripts.transcript import MAX_SHOWN_CHARS, Step, Transcript, from_json, to_json, to_text

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def call(call_id: str, name: str, arguments: object) -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def answering(call_id: str, content: object) -> dict[str, object]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def blocks(role: str, *content: object) -> dict[str, object]:
    return {"role": role, "content": list(content)}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words}


def tool_use(call_id: str, name: str, arguments: object) -> dict[str, object]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def tool_result(call_id: str, content: object, **more: object) -> dict[str, object]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **more}


OPENAI = [
    {"role": "user", "content": "Water the ferns if they are dry."},
    {
        "role": "assistant",
        "content": "I look at the soil first.",
        "tool_calls": [call("a", "soil", '{"pot": 1}'), call("b", "soil", '{"pot": 2}')],
    },
    answering("a", '{"moisture": 0.1}'),
    answering("b", [text('{"error": "no sensor"}')]),
    calling(call("c", "water", '{ "pot": 1, "ml": 200 }')),
    answering("c", "poured"),
    {"role": "assistant", "content": [text("Pot 1 is watered."), text("Pot 2 has no sensor.")]},
]
ANTHROPIC = [
    {"role": "user", "content": "Water the ferns if they are dry."},
    blocks(
        "assistant",
        text("I look at the soil first."),
        tool_use("a", "soil", {"pot": 1}),
        tool_use("b", "soil", {"pot": 2}),
    ),
    blocks("user", tool_result("a", '{"moisture": 0.1}'), tool_result("b", [text('{"error": "no sensor"}')])),
    blocks("assistant", tool_use("c", "water", {"pot": 1, "ml": 200})),
    blocks("user", tool_result("c", "poured")),
    blocks("assistant", text("Pot 1 is watered."), text("Pot 2 has no sensor.")),
]
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


words = st.text(st.characters(), max_size=30)  # surrogates and control characters too
ids = st.sampled_from(["a", "b", "c"])
names = st.sampled_from(["soil", "water"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
text_blocks = st.builds(text, words)
other_blocks = st.sampled_from([{"type": "image"}, {"type": "thinking"}, {"type": "hologram"}])
parts = st.none() | words | st.lists(text_blocks | other_blocks, max_size=3)
arguments = words | st.dictionaries(words, json_values, max_size=3) | json_values.map(json.dumps)
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
