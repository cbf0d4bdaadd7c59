"""Whatever a client sends is answered, in words that help, and leaves nothing half done."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent, TextResourceContents

from reme_mcp.config.settings import Settings
from reme_mcp.server.app import build_server
from reme_mcp.server.tools import TOOLS

pytestmark = pytest.mark.anyio
LESSON = {"when_to_use": "Before starting an engine", "content": "Lock all doors and press the brake first."}
HUGE = "x" * 10_000_000
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

# tool, arguments, what the answer has to name
REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "recall without a task": ("recall_experiences", {}, "task: missing"),
    "recall of nothing": ("recall_experiences", {"task": ""}, "task"),
    "recall of white space": ("recall_experiences", {"task": " \n\t"}, "task"),
    "recall of a number": ("recall_experiences", {"task": 7}, "task = 7"),
    "recall of 10 MB": ("recall_experiences", {"task": HUGE}, "10,000,000 characters"),
    "recall with 10 MB around it": ("recall_experiences", {"task": "t", "context": HUGE}, "context"),
    "recall of none": ("recall_experiences", {"task": "t", "limit": 0}, "limit = 0"),
    "recall of too many": ("recall_experiences", {"task": "t", "limit": 21}, "limit = 21"),
    "recall with tools that are none": ("recall_experiences", {"task": "t", "tools": "hammer"}, "tools"),
    "recall with a slip": ("recall_experiences", {"task": "t", "tool": []}, "no such argument; there are task"),
    "recall from outside": ("recall_experiences", {"task": "t", "workspace": "../other"}, "workspace"),
    "record without a task": ("record_trajectory", {"outcome": "success"}, "task"),
    "record without an outcome": ("record_trajectory", {"task": "t"}, "outcome success or failure"),
    "record of another outcome": ("record_trajectory", {"task": "t", "outcome": "maybe"}, "outcome = 'maybe'"),
    "record of too high a reward": ("record_trajectory", {"task": "t", "reward": 1.5}, "reward = 1.5"),
    "record of two outcomes": ("record_trajectory", {"task": "t", "outcome": "success", "reward": 0.2}, "contradicts"),
    "record of a failure that is a success": (
        "record_trajectory", {"task": "t", "outcome": "failure", "reward": 1}, "contradicts"),
    "record of 10 MB": ("record_trajectory", {"task": "t", "outcome": "success", "steps": HUGE}, "1,000,000"),
    "record of steps and messages": (
        "record_trajectory",
        {"task": "t", "outcome": "success", "steps": "s", "messages": [{"role": "user", "content": "s"}]},
        "both steps and"),
    "record of an unknown role": (
        "record_trajectory", {"task": "t", "outcome": "success", "messages": [{"role": "robot", "content": "x"}]},
        "messages[0].role is 'robot'"),
    "record of a message that is text": (
        "record_trajectory", {"task": "t", "outcome": "success", "messages": ["hello"]}, "messages[0]"),
    "record for a trajectory of nobody": (
        "record_trajectory", {"trajectory_id": "t-nothing", "experiences": []}, "no trajectory 't-nothing'"),
    "record for a trajectory only": ("record_trajectory", {"trajectory_id": "t-x"}, "without experiences"),
    "record of experiences that are none": (
        "record_trajectory", {"task": "t", "outcome": "success", "experiences": "lesson"}, "experiences"),
    "rate of nothing": ("rate_experience", {"helpful": True}, "experience_id: missing"),
    "rate of nobody": ("rate_experience", {"experience_id": "e-nothing", "helpful": True}, "no experience 'e-nothing'"),
    "rate without a verdict": ("rate_experience", {"experience_id": "e-x"}, "helpful: missing"),
    "rate with half a verdict": (
        "rate_experience", {"experience_id": "e-x", "helpful": "rather"}, "helpful = 'rather'"),
    "rate with 10 MB of reasons": (
        "rate_experience", {"experience_id": "e-x", "helpful": True, "reason": HUGE}, "10,000,000"),
}  # fmt: skip
NASTY = {
    "quote": "it's \"quoted\" and `ticked`", "sql": "' OR 1=1 --", "drop": '"; DROP TABLE experiences; --',
    "percent": "100% _ \\ \\\\", "backslash": "\\", "nul": "a\x00b", "surrogate": "a\ud800b", "bidi": "a\u202eb",
    "emoji": "🚗" * 50,
}  # fmt: skip


@pytest.fixture
async def client(settings: Settings) -> Any:
    async with Client(build_server(settings)) as one:
        yield one


def text(answer: Any) -> str:
    assert isinstance(answer.content[0], TextContent)
    return answer.content[0].text


async def counts(client: Client) -> Any:
    content = (await client.read_resource("reme://stats")).contents[0]
    assert isinstance(content, TextResourceContents)
    return json.loads(content.text)


@pytest.mark.parametrize("case", REFUSED)
async def test_it_is_refused_in_words_and_stores_nothing(client: Client, case: str) -> None:
    tool, arguments, named = REFUSED[case]
    before = await counts(client)
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    assert named in text(answer)
    assert len(text(answer)) < 1_000
    assert await counts(client) == before


# --- every argument of every tool ---

GOOD: dict[str, dict[str, Any]] = {
    "recall_experiences": {"task": "Start the car"},
    "record_trajectory": {"task": "Start the car", "outcome": "failure"},
    "rate_experience": {"experience_id": "e-nothing", "helpful": True},
}
# By the argument's JSON type. Numbers as text are numbers, as some clients send all arguments as text.
OF_ANOTHER_TYPE: dict[str, list[Any]] = {
    "string": [7, 1.5, True, {}, ["x"]],
    "integer": ["two", 1.5, ["x"], {}, 10**30],
    "number": ["much", ["x"], {}, -0.1, 1e300],
    "boolean": ["rather", "", 2, [], {}],
    "array": ["words", "[", "{}", 7, True, {}, {"0": "x"}],
}
ODD_TEXTS = ["", " \n\t", "\0", "\ud800", "' OR 1=1 --", '"; DROP TABLE experiences; --', "%", "\\", HUGE]
ARGUMENTS = [
    (tool.name, name, kind["type"])
    for tool in TOOLS
    for name, kind in tool.listing().input_schema["properties"].items()
]


def naming(name: str, answer: Any) -> bool:
    """Return whether an error names the argument: by its name, or as the thing whose id it is."""
    return name in text(answer) or f": no {name.split('_')[0]} " in text(answer)


@pytest.mark.parametrize(("tool", "name", "kind"), ARGUMENTS, ids=lambda part: str(part))
async def test_a_value_of_another_type_is_refused_by_its_name(client: Client, tool: str, name: str, kind: str) -> None:
    before = await counts(client)
    for value in OF_ANOTHER_TYPE[kind]:
        answer = await client.call_tool(tool, GOOD[tool] | {name: value})
        assert answer.is_error, (value, text(answer))
        assert text(answer).startswith(f"{tool}: {name} = ")
        assert len(text(answer)) < 1_000
    assert await counts(client) == before


@pytest.mark.parametrize(
    ("tool", "name"), [argument[:2] for argument in ARGUMENTS if argument[2] == "string"], ids=lambda part: str(part)
)
async def test_an_odd_text_is_taken_or_refused_by_its_name(client: Client, tool: str, name: str) -> None:
    learned = await client.call_tool("record_trajectory", {**GOOD["record_trajectory"], "experiences": [LESSON]})
    good = GOOD | {
        "rate_experience": {"experience_id": (learned.structured_content or {})["added"][0], "helpful": True}
    }
    for odd in ODD_TEXTS:
        before = await counts(client)
        experiences: dict[str, object] = {"experiences": []} if name == "trajectory_id" else {}
        answer = await client.call_tool(tool, good[tool] | experiences | {name: odd})
        if answer.is_error:
            assert naming(name, answer), (odd[:20], text(answer))
            assert len(text(answer)) < 1_000
            assert await counts(client) == before
        else:
            # Optional ones that say nothing are left out, and a receipt that is not known is told.
            assert name in ("task", "context", "reason", "steps", "receipt") or not odd.strip()
            assert name != "receipt" or not odd.strip() or tool == "record_trajectory"
    assert (await counts(client))["experiences"] == {"active": 1}


@pytest.mark.parametrize("tool", GOOD)
async def test_a_slip_in_the_name_of_an_argument_is_refused_with_those_that_exist(client: Client, tool: str) -> None:
    name = next(iter(GOOD[tool]))
    for slip in (
        name.title(),
        f"{name}s",
        name[1:],
        f" {name}",
        name[:-2] + name[-1] + name[-2],
        f"{name[0]}_{name[1:]}",
    ):
        await assert_refused(client, tool, slip)


async def assert_refused(client: Client, tool: str, slip: str) -> None:
    answer = await client.call_tool(tool, GOOD[tool] | {slip: "x"})
    assert answer.is_error
    assert f"{slip}: no such argument; there are " in text(answer)
    assert all(name in text(answer) for name in GOOD[tool])


@pytest.mark.parametrize(
    ("tool", "name"),
    [("recall_experiences", "tools"), ("record_trajectory", "messages"), ("record_trajectory", "experiences")],
)
async def test_a_list_as_json_text_that_is_too_deep_is_refused_by_its_name(
    client: Client, tool: str, name: str
) -> None:
    answer = await client.call_tool(tool, GOOD[tool] | {name: "[" * 100_000})
    assert answer.is_error
    assert naming(name, answer)


@pytest.mark.parametrize("tool", GOOD)
async def test_arguments_that_a_client_adds_are_passed_over_and_named(client: Client, tool: str) -> None:
    learned = await client.call_tool("record_trajectory", GOOD["record_trajectory"] | {"experiences": [LESSON]})
    id = {"experience_id": (learned.structured_content or {})["added"][0]} if tool == "rate_experience" else {}
    added = {"toolCallId": "call_1", "sessionId": 7, "chatInput": "hi", "tool": {"name": tool}, "user": "x", "": None}
    answer = await client.call_tool(tool, GOOD[tool] | id | added)
    assert not answer.is_error, text(answer)
    note = text(answer).splitlines()[-1]
    assert note.startswith(
        "Passed over, because there is no such argument: toolCallId, sessionId, chatInput, tool, user"
    )


# Each is what some client was reported to send for what a model left out.
LEFT_OUT: list[Any] = [
    None,
    "",
    "  ",
    "null",
    "None",
    "NULL",
    "undefined",
    "nil",
    "<nil>",
    [],
    "[]",
    ["null"],
    [None, ""],
    '["null"]',
]


@pytest.mark.parametrize("value", LEFT_OUT, ids=repr)
async def test_an_optional_argument_that_says_nothing_is_left_out(client: Client, value: Any) -> None:
    recall = dict.fromkeys(("context", "tools", "limit", "workspace"), value)
    recalled = await client.call_tool("recall_experiences", GOOD["recall_experiences"] | recall)
    assert not recalled.is_error, text(recalled)
    names = ("reward", "steps", "messages", "receipt", "misled", "trajectory_id", "workspace")
    learning: dict[str, Any] = {"experiences": [LESSON], "used": value}
    recorded = await client.call_tool(
        "record_trajectory", GOOD["record_trajectory"] | dict.fromkeys(names, value) | learning
    )
    assert not recorded.is_error, text(recorded)
    id = (recorded.structured_content or {})["added"][0]
    rate = dict.fromkeys(("receipt", "reason", "workspace"), value)
    rated = await client.call_tool("rate_experience", {"experience_id": id, "helpful": True} | rate)
    assert not rated.is_error, text(rated)
    assert (await counts(client))["experiences"] == {"active": 1}


async def test_no_experiences_says_that_there_is_nothing_to_learn_and_left_out_ones_do_not(client: Client) -> None:
    statuses = {}
    values: dict[str, Any] = {"one": [], "two": "[]", "three": None, "four": "", "five": "null", "six": ["null"]}
    for task, value in values.items():
        arguments = {"task": task, "outcome": "success", "experiences": value}
        answer = await client.call_tool("record_trajectory", arguments)
        statuses[task] = (answer.structured_content or {})["status"]
    assert statuses == {"one": "nothing_to_learn", "two": "nothing_to_learn"} | dict.fromkeys(
        ("three", "four", "five", "six"), "awaiting_experiences"
    )


async def test_a_receipt_that_is_not_known_does_not_cost_the_attempt(client: Client) -> None:
    first = {"task": "t", "outcome": "failure", "receipt": "r-nothing", "used": ["e-x"], "experiences": [LESSON]}
    for _ in range(2):
        answer = await client.call_tool("record_trajectory", first)
        result = answer.structured_content or {}
        assert (len(result["added"]), result["settled"]) == (1, [])
        assert [note.startswith("no receipt 'r-nothing'") for note in result["notes"]] == [True]
        assert "no receipt 'r-nothing'" in text(answer)
    brief = await client.call_tool("record_trajectory", {"task": "u", "outcome": "failure"})
    second = {"trajectory_id": (brief.structured_content or {})["trajectory_id"], "experiences": [], "receipt": "r-no"}
    answer = await client.call_tool("record_trajectory", second)
    assert not answer.is_error
    assert "no receipt 'r-no'" in text(answer)
    assert sum((await counts(client))["trajectories"].values()) == 2


@pytest.mark.parametrize("arguments", [{HUGE: 1}, {"experiences": [LESSON | {HUGE: 1}]}], ids=["argument", "field"])
async def test_a_huge_name_is_not_repeated_in_full(client: Client, arguments: dict[str, Any]) -> None:
    answer = await client.call_tool("record_trajectory", GOOD["record_trajectory"] | arguments)
    assert "no such argument" in text(answer) or "there is no field" in text(answer)
    assert len(text(answer)) < 5_000


@pytest.mark.parametrize(
    "unused", [{"steps": "Pressed the brake."}, {"messages": [{"role": "robot"}]}], ids=["steps", "messages"]
)
async def test_what_a_second_call_can_not_use_is_refused(client: Client, unused: dict[str, Any]) -> None:
    first = await client.call_tool("record_trajectory", GOOD["record_trajectory"])
    trajectory_id = (first.structured_content or {})["trajectory_id"]
    answer = await client.call_tool(
        "record_trajectory", {"trajectory_id": trajectory_id, "experiences": [LESSON]} | unused
    )
    assert answer.is_error


# what was sent, what the reason has to name
MISSHAPEN: dict[str, tuple[Any, str]] = {
    "null": (None, "experience"),
    "number": (7, "experience"),
    "text": ("lock the doors", "experience"),
    "list": ([LESSON], "experience"),
    "nothing in it": ({}, "when_to_use: field required"),
    "no content": ({"when_to_use": LESSON["when_to_use"]}, "content: field required"),
    "blank content": (LESSON | {"content": " \0\n"}, "content"),
    "short content": (LESSON | {"content": "ok"}, "content"),
    "content of 10 MB": (LESSON | {"content": HUGE}, "content"),
    "content that repeats": (LESSON | {"content": LESSON["when_to_use"]}, "content repeats when_to_use"),
    "content of a number": (LESSON | {"content": 7}, "content"),
    "scenario too long": (LESSON | {"when_to_use": "x" * 501}, "when_to_use"),
}


@pytest.mark.parametrize("case", MISSHAPEN)
async def test_a_misshapen_experience_is_left_out_with_a_reason_and_its_neighbour_is_stored(
    client: Client, case: str
) -> None:
    misshapen, named = MISSHAPEN[case]
    answer = await client.call_tool(
        "record_trajectory", GOOD["record_trajectory"] | {"experiences": [misshapen, LESSON]}
    )
    assert not answer.is_error, text(answer)
    result = answer.structured_content or {}
    assert [one["reason"].startswith(named) for one in result["rejected"]] == [True], result["rejected"]
    assert len(result["added"]) == 1
    assert len(text(answer)) < 2_000
    assert (await counts(client))["experiences"] == {"active": 1}


# what was sent, what of it is stored, what is told
MENDED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "keywords as text": ({"keywords": "car, key;door"}, {"keywords": ["car", "key", "door"]}, "keywords came as one"),
    "keywords as JSON": ({"keywords": '["car", "key"]'}, {"keywords": ["car", "key"]}, "keywords came as one"),
    "a keyword of nothing": ({"keywords": ["\0", "car"]}, {"keywords": ["car"]}, "keywords: "),
    "a keyword of 10 MB": ({"keywords": [HUGE, "car"]}, {"keywords": ["car"]}, "keywords: "),
    "too many keywords": ({"keywords": ["k"] * 13}, {"keywords": ["k"] * 12}, "keywords: "),
    "keywords of an object": ({"keywords": {"a": 1}}, {"keywords": []}, "keywords: "),
    "tools of numbers": ({"tools_used": [1]}, {"tools_used": []}, "tools_used: "),
    "too sure": ({"confidence": 1.01}, {"confidence": 0.5}, "confidence: "),
    "sure in words": ({"confidence": "high"}, {"confidence": 0.5}, "confidence: "),
    "another kind": ({"kind": "tip"}, {"kind": "failure"}, "kind: "),
    "another case": ({"kind": "Comparative"}, {"kind": "comparative"}, ""),
    "a kind that says nothing": ({"kind": ""}, {"kind": "failure"}, ""),
    "null in all": ({"keywords": None, "confidence": "null", "kind": None, "generalized_task": None}, {}, ""),
    "a task that is too long": ({"generalized_task": "x" * 501}, {"generalized_task": ""}, "generalized_task: "),
    "an id of its own": ({"id": "e-mine"}, {}, "there is no field 'id'"),
    "a source of its own": ({"source": "somebody else"}, {"source": "mcp"}, "there is no field 'source'"),
    "a status of its own": ({"status": "archived"}, {"status": "active"}, "there is no field 'status'"),
}


@pytest.mark.parametrize("case", MENDED)
async def test_a_lesson_is_kept_though_another_field_is_not_as_it_should_be(client: Client, case: str) -> None:
    sent, stored, told = MENDED[case]
    answer = await client.call_tool("record_trajectory", GOOD["record_trajectory"] | {"experiences": [LESSON | sent]})
    result = answer.structured_content or {}
    assert (len(result["added"]), result["rejected"]) == (1, [])
    assert [told in note for note in result["notes"]] == ([True] if told else [])
    assert told in text(answer)
    content = (await client.read_resource(f"reme://experiences/{result['added'][0]}")).contents[0]
    assert isinstance(content, TextResourceContents)
    assert json.loads(content.text).items() >= (LESSON | stored).items()


@pytest.mark.parametrize("nasty", NASTY.values(), ids=NASTY)
async def test_any_text_goes_through_all_three_tools(client: Client, nasty: str) -> None:
    # What turns the order of letters round is stored as well, but for a person to see first.
    status = "quarantined" if nasty == NASTY["bidi"] else "active"
    recalled = await client.call_tool("recall_experiences", {"task": nasty, "context": nasty, "tools": [nasty]})
    assert not recalled.is_error, text(recalled)
    receipt = (recalled.structured_content or {})["receipt"]
    lesson = {
        "when_to_use": f"When this comes up: {nasty}", "content": f"Do that about it: {nasty}", "keywords": [nasty],
        "tools_used": [nasty], "generalized_task": nasty,
    }  # fmt: skip
    recorded = await client.call_tool(
        "record_trajectory",
        {"task": nasty, "outcome": "failure", "steps": nasty, "receipt": receipt, "experiences": [lesson]},
    )
    assert not recorded.is_error, text(recorded)
    result = recorded.structured_content or {}
    ids = [one["id"] for one in result["quarantined"]] if status == "quarantined" else result["added"]
    assert len(ids) == 1
    rated = await client.call_tool("rate_experience", {"experience_id": ids[0], "helpful": False, "reason": nasty})
    assert not rated.is_error, text(rated)
    for argument in ("receipt", "experience_id"):
        unknown = {"experience_id": ids[0], "helpful": True} | {argument: nasty}
        assert (await client.call_tool("rate_experience", unknown)).is_error
    assert (await counts(client))["experiences"] == {status: 1}


async def test_orphan_results_and_calls_without_an_answer_are_accepted_and_marked(client: Client) -> None:
    messages = [
        {"role": "tool", "tool_call_id": "nobody", "content": "42"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]
    answer = await client.call_tool("record_trajectory", {"task": "t", "outcome": "failure", "messages": messages})
    assert not answer.is_error, text(answer)


async def test_a_receipt_settles_once_however_often_it_is_sent(client: Client) -> None:
    learned = await client.call_tool(
        "record_trajectory", {"task": "start", "outcome": "failure", "experiences": [LESSON]}
    )
    id = (learned.structured_content or {})["added"][0]
    recalled = await client.call_tool("recall_experiences", {"task": "Before starting an engine"})
    receipt = (recalled.structured_content or {})["receipt"]
    settled = []
    for steps in ("one", "two"):
        answer = await client.call_tool(
            "record_trajectory", {"task": "start", "outcome": "success", "steps": steps, "receipt": receipt}
        )
        settled.append([one["id"] for one in (answer.structured_content or {})["settled"]])
    assert settled == [[id], []]


async def test_ids_of_another_workspace_are_unknown(client: Client) -> None:
    there = {"workspace": "other"}
    learned = await client.call_tool(
        "record_trajectory", {"task": "start", "outcome": "failure", "experiences": [LESSON]} | there
    )
    recalled = await client.call_tool("recall_experiences", {"task": "Before starting an engine"} | there)
    id, receipt = (learned.structured_content or {})["added"][0], (recalled.structured_content or {})["receipt"]
    trajectory_id = (learned.structured_content or {})["trajectory_id"]
    for tool, arguments in (
        ("rate_experience", {"experience_id": id, "helpful": True}),
        ("record_trajectory", {"trajectory_id": trajectory_id, "experiences": []}),
    ):
        answer = await client.call_tool(tool, arguments)
        assert answer.is_error
        assert "in workspace 'default'" in text(answer)
        assert not (await client.call_tool(tool, arguments | there)).is_error
    attempt = {"task": "start", "outcome": "success", "receipt": receipt}
    answer = await client.call_tool("record_trajectory", attempt)
    assert "in workspace 'default'" in text(answer)
    assert (answer.structured_content or {})["settled"] == []
    answer = await client.call_tool("record_trajectory", attempt | there)
    assert (answer.structured_content or {})["notes"] == []


@pytest.mark.parametrize(("tool", "name"), [("recall_experiences", "context"), ("rate_experience", "reason")])
async def test_null_is_as_good_as_nothing(client: Client, tool: str, name: str) -> None:
    learned = await client.call_tool("record_trajectory", {**GOOD["record_trajectory"], "experiences": [LESSON]})
    good = GOOD | {
        "rate_experience": {"experience_id": (learned.structured_content or {})["added"][0], "helpful": True}
    }
    answer = await client.call_tool(tool, good[tool] | {name: None})
    assert not answer.is_error, text(answer)
