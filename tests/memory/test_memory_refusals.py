"""What the service refuses, and says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from reme_mcp.config.settings import RedactionSettings, Settings
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.memory.memory_cases import TASK, counts, learn
from tests.memory.memory_cases import memory as memory

pytestmark = pytest.mark.anyio


# --- what is refused ---


@pytest.mark.parametrize(
    ("outcome", "reward", "words"),
    [
        (None, None, "neither outcome nor reward"),
        ("success", 0.99, "contradicts"),
        ("failure", 1.0, "contradicts"),
        (None, -0.01, "from 0 to 1"),
        (None, 1.01, "from 0 to 1"),
        (None, float("nan"), "from 0 to 1"),
        (None, float("inf"), "from 0 to 1"),
    ],
)
async def test_outcome_and_reward_must_make_sense_together(
    memory: Memory, outcome: Any, reward: float | None, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        await memory.record(TASK, outcome=outcome, reward=reward, source="test")
    assert (await memory.pool.stats()).trajectories == {"success": 0, "failure": 0, "undistilled": 0}


@pytest.mark.parametrize(
    ("outcome", "reward", "as_what"),
    [
        ("success", None, "success"),
        ("failure", None, "failure"),
        (None, 1.0, "success"),
        (None, 0.99, "failure"),
        (None, 0.0, "failure"),
        ("success", 1.0, "success"),
        ("failure", 0.0, "failure"),
    ],
)
async def test_a_reward_of_one_is_a_success_and_less_is_not(
    memory: Memory, outcome: Any, reward: float | None, as_what: str
) -> None:
    await memory.record(TASK, outcome=outcome, reward=reward, source="test")
    assert (await memory.pool.stats()).trajectories[as_what] == 1


async def test_ids_that_name_nothing_are_not_found_and_nothing_is_stored(memory: Memory) -> None:
    lesson_id = await learn(memory)
    before = await counts(memory)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: memory.record(trajectory_id="t-unknown", experiences=[draft(1)], source="test"),
        lambda: memory.rate("e-unknown", helpful=True, source="test"),
        lambda: memory.rate(lesson_id, helpful=True, receipt="r-unknown", source="test"),
        lambda: memory.pool.experience("e-unknown"),
        lambda: memory.pool.restore("e-unknown"),
        lambda: memory.pool.archive("e-unknown", "why"),
        lambda: memory.pool.pin("e-unknown", pinned=True),
        lambda: memory.pool.delete("e-unknown"),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="unknown"):
            await call()
    assert await counts(memory) == before


async def test_ids_of_another_workspace_are_not_found_and_nothing_is_changed(memory: Memory) -> None:
    lesson_id = await learn(memory)
    receipt = (await memory.recall(TASK, source="test")).receipt
    first = await memory.record(TASK, outcome="success", source="test")
    before = await counts(memory)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: memory.record(
            trajectory_id=first.trajectory_id, experiences=[draft(1)], workspace="other", source="test"
        ),
        lambda: memory.rate(lesson_id, helpful=True, workspace="other", source="test"),
        lambda: memory.rate(lesson_id, helpful=True, receipt=receipt, workspace="other", source="test"),
        lambda: memory.pool.experience(lesson_id, workspace="other"),
        lambda: memory.pool.archive(lesson_id, "why", workspace="other"),
        lambda: memory.pool.pin(lesson_id, pinned=True, workspace="other"),
        lambda: memory.pool.delete(lesson_id, workspace="other"),
    ]
    for call in calls:
        with pytest.raises(NotFound, match="'other'"):
            await call()
    assert await counts(memory) == before
    assert (await memory.recall(TASK, workspace="other", source="test")).experiences == []
    assert await memory.pool.page(workspace="other") == []
    assert await memory.pool.prune(workspace="other") == []
    assert await memory.pool.workspaces() == ["default"]


@pytest.mark.parametrize("workspace", ["default", "other"])
async def test_a_receipt_that_names_nothing_here_settles_nothing_and_costs_no_attempt(
    memory: Memory, workspace: str
) -> None:
    await learn(memory)
    of_default = (await memory.recall(TASK, source="test")).receipt
    receipt = "r-unknown" if workspace == "default" else of_default
    answer = await memory.record(TASK, outcome="success", receipt=receipt, workspace=workspace, source="test")
    assert answer.settled == []
    assert [note.startswith(f"no receipt {receipt!r} in workspace {workspace!r}") for note in answer.notes] == [True]
    assert [line.helped for line in await memory.pool.receipt(of_default)] == [None]


@pytest.mark.parametrize("workspace", ["", "../up", "a b", "-a", ".a", "x" * 65, "ä", "a\n"])
async def test_a_workspace_that_cannot_be_one_is_refused(memory: Memory, workspace: str) -> None:
    with pytest.raises(InvalidInput, match="workspace is"):
        await memory.recall(TASK, workspace=workspace, source="test")


@pytest.mark.parametrize("workspace", ["a", "9", "Team.A_b-c", "x" * 64])
async def test_a_workspace_is_made_by_its_first_record(memory: Memory, workspace: str) -> None:
    await memory.record(TASK, outcome="success", experiences=[draft()], workspace=workspace, source="test")
    assert len((await memory.recall(TASK, workspace=workspace, source="test")).experiences) == 1
    assert await memory.pool.workspaces() == [workspace]


async def test_steps_and_messages_together_are_refused(memory: Memory) -> None:
    with pytest.raises(InvalidInput, match="both steps and messages"):
        await memory.record(TASK, outcome="success", steps="x", messages=[], source="test")


@pytest.mark.parametrize(("length", "taken"), [(7_999, True), (8_000, True), (8_001, False)])
@pytest.mark.parametrize("argument", ["task", "context", "reason"])
async def test_texts_have_a_length(memory: Memory, argument: str, length: int, taken: bool) -> None:
    lesson_id = await learn(memory)
    text = "x" * length

    async def call() -> object:
        if argument == "reason":
            return await memory.rate(lesson_id, helpful=True, reason=text, source="test")
        if argument == "context":
            return await memory.recall(TASK, context=text, source="test")
        return await memory.record(text, outcome="success", source="test")

    if taken:
        await call()
    else:
        with pytest.raises(InvalidInput, match=f"{argument} has 8,001 characters"):
            await call()


@pytest.mark.parametrize("task", ["", " \n", "\0\0"])
async def test_a_task_must_say_something(memory: Memory, task: str) -> None:
    for call in (
        lambda: memory.recall(task, source="test"),
        lambda: memory.record(task, outcome="success", source="test"),
    ):
        with pytest.raises(InvalidInput, match="says nothing"):
            await call()


@pytest.mark.parametrize(("extra", "taken"), [(-200, True), (1, False)])
async def test_a_transcript_has_a_length(
    settings: Settings, extra: int, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reme_mcp.memory.record.MAX_TRANSCRIPT_CHARS", 1_000)
    async with Memory.open(settings) as memory:
        steps = "x" * (1_000 + extra)
        if taken:
            await memory.record(TASK, outcome="success", steps=steps, source="test")
        else:
            with pytest.raises(InvalidInput, match="at most 1,000 are kept"):
                await memory.record(TASK, outcome="success", steps=steps, source="test")


BAD_TEXTS = {"huge": "x" * 10_000_000, "nul": "a\0b", "surrogate": "a\ud800b\0"}


ARGUMENTS = [
    ("recall", "task"),
    ("recall", "context"),
    ("recall", "tools"),
    ("recall", "workspace"),
    ("recall", "source"),
    ("record", "task"),
    ("record", "steps"),
    ("record", "messages"),
    ("record", "experiences"),
    ("record", "receipt"),
    ("record", "trajectory_id"),
    ("record", "workspace"),
    ("record", "source"),
    ("rate", "experience_id"),
    ("rate", "receipt"),
    ("rate", "reason"),
    ("rate", "source"),
    ("archive", "experience_id"),
    ("archive", "reason"),
]


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
@pytest.mark.parametrize(("call", "argument"), ARGUMENTS)
async def test_any_text_in_any_argument_is_taken_or_refused_in_words(
    memory: Memory, call: str, argument: str, text: str
) -> None:
    lesson_id = await learn(memory)
    value: Any = text
    if argument == "tools":
        value = [text]
    elif argument == "messages":
        value = [{"role": "user", "content": text}]
    elif argument == "experiences":
        value = [draft(1, content=f"{text} and more", keywords=[text]), {text: text}, text]
    calls: dict[str, tuple[Callable[..., Awaitable[object]], dict[str, Any]]] = {
        "recall": (memory.recall, {"task": TASK, "source": "test"}),
        "record": (memory.record, {"task": TASK, "outcome": "success", "source": "test"}),
        "rate": (memory.rate, {"experience_id": lesson_id, "helpful": True, "source": "test"}),
        "archive": (memory.pool.archive, {"experience_id": lesson_id, "reason": "why"}),
    }
    function, arguments = calls[call]
    if argument == "trajectory_id":
        arguments = arguments | {"experiences": [draft(1)]}
    try:
        await function(**arguments | {argument: value})
    except InvalidInput as exc:
        refused = str(exc)
    else:
        refused = ""
    assert len(refused) < 2_000
    if (await memory.pool.experience(lesson_id))[0].status == "archived":
        await memory.pool.restore(lesson_id)
    assert lesson_id in [one.id for one in (await memory.recall(TASK, source="check")).experiences]


# It takes years to search a long text of these letters for it.
ENDLESS = RedactionSettings(also="(?:e|ey|eyJ|J|y|Ja|a|yJ)*!")


# --- lengths are checked before anything is read ---


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"steps": "eyJa" * 500_000}, r"steps come to 2,000,000 characters; at most 1,000,000 are kept"),
        (
            {"messages": [{"role": "user", "content": "eyJa" * 500_000}]},
            r"messages come to 2,000,000 characters; at most 1,000,000 are kept",
        ),
        ({"experiences": [{"content": "eyJa" * 500}] * 60}, r"experiences come to 120,420 characters; at most 100,000"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_what_is_too_long_is_refused_before_it_is_searched(
    settings: Settings, arguments: dict[str, Any], says: str
) -> None:
    async with Memory.open(settings.model_copy(update={"redaction": ENDLESS})) as memory:
        with pytest.raises(InvalidInput, match=says):
            await memory.record("deploy", outcome="success", source="test", **arguments)


async def test_a_lesson_that_is_far_too_long_is_refused_alone_and_not_searched(settings: Settings) -> None:
    lessons = [draft(0), draft(1, content="eyJa" * 50_000)]
    async with Memory.open(settings.model_copy(update={"redaction": ENDLESS})) as memory:
        answer = await memory.record("Open a shop", outcome="success", experiences=lessons, source="test")
    assert len(answer.added) == 1
    assert [one.reason.startswith("content") for one in answer.rejected] == [True]
