"""What the tests of transcript share."""

from __future__ import annotations

import json

from hypothesis import strategies as st


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


words = st.text(st.characters(), max_size=30)  # surrogates and control characters too


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


arguments = words | st.dictionaries(words, json_values, max_size=3) | json_values.map(json.dumps)
