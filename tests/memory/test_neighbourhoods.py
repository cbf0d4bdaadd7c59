"""A lesson that helps one kind of tasks and harms another, through `Memory` and the command line, on a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.results import RecallResult
from reme_mcp.schema import Outcome
from tests.fakes import FakeEmbedder, Run
from tests.memory.memory_cases import warm, with_refine

pytestmark = pytest.mark.anyio

# Both are about what the lesson is about; they have no other telling word in common.
HELPED = "Export the invoice ledger as a spreadsheet for the captain at the harbour office"
HARMED = "Print the invoice ledger on paper labels for the driver at the mountain depot"
LESSON = {
    "when_to_use": "When the invoice ledger has to leave the shop program",
    "content": "Switch the invoice ledger to the wide layout before anything else.",
}


async def learn(memory: Memory) -> str:
    done = await memory.record("set up the shop", outcome="success", experiences=[LESSON], source="test")
    [id] = done.added
    return id


async def attempt(memory: Memory, task: str, number: int, outcome: Outcome) -> RecallResult:
    recalled = await memory.recall(f"{task} {number}", source="test")
    await memory.record(f"{task} {number}", outcome=outcome, receipt=recalled.receipt, source="test")
    return recalled


async def until_withheld(memory: Memory, id: str) -> int:
    """Let tasks of one kind succeed, and of the other those without the lesson; return when it is withheld from them.

    Raises:
        AssertionError: It is not after 20 of each kind.
    """
    for number in range(20):
        assert [one.id for one in (await attempt(memory, HELPED, number, "success")).experiences] == [id]
        if not (await memory.recall(f"{HARMED} {number}", source="test", with_receipt=False)).experiences:
            return number
        await attempt(memory, HARMED, number, "failure")
    raise AssertionError("it is still handed out after 20 failures")


async def differ(memory: Memory) -> None:
    """Let tasks of one kind succeed and those of the other fail, too few of these for φ."""
    for number in range(7):
        await attempt(memory, HELPED, number, "success")
    for number in range(6):
        await attempt(memory, HARMED, number, "failure")


@asynccontextmanager
async def by_words_or_vectors(settings: Settings, *, has_model: bool) -> AsyncIterator[Memory]:
    """Open a memory to which, with a model, the two kinds of tasks are far apart and both near the lesson."""
    settings = with_refine(settings, removal="lift")
    if not has_model:
        async with Memory.open(settings) as memory:
            yield memory
        return
    # Of the texts that tell what its cosines mean, one is unlike the others.
    meanings = {
        "harbour": (1.0, 0.0, 0.6),
        "mountain": (0.0, 1.0, 0.6),
        "shop program": (0.5, 0.5, 0.7),
        "password": (1.0, 0.0, 0.0),
    }
    changed = {
        "embedder": EmbedderSettings(model="a fake"),
        "recall": settings.recall.model_copy(update={"floor": False}),
    }
    async with warm(settings.model_copy(update=changed), FakeEmbedder(meanings)) as memory:
        yield memory


@pytest.mark.parametrize("has_model", [False, True], ids=["words", "vectors"])
async def test_a_lesson_is_withheld_where_it_harms_and_handed_out_where_it_helps(
    settings: Settings, has_model: bool
) -> None:
    async with by_words_or_vectors(settings, has_model=has_model) as memory:
        id = await learn(memory)
        assert await until_withheld(memory, id) >= 5
        one, _ = await memory.pool.experience(id)
        assert one.status == "active"

        [told] = [one for one in (await memory.explain(HARMED)).experiences if one.id == id]
        assert told.rule == "harmful_here"
        assert told.why.startswith("tasks like this one go worse with it: -")
        [told] = [one for one in (await memory.explain(HELPED)).experiences if one.id == id]
        assert told.rule == "handed_out"

        kinds = {one.task.rsplit(" ", 1)[0]: one for one in await memory.pool.among_tasks(one)}
        assert {task: kind.is_withheld for task, kind in kinds.items()} == {HELPED: False, HARMED: True}

        # A person has the last word.
        await memory.pool.pin(id, pinned=True, source="test")
        assert [one.id for one in (await memory.recall(HARMED, source="test")).experiences] == [id]


async def test_it_comes_back_when_tasks_fail_without_it_as_well(settings: Settings) -> None:
    async with Memory.open(with_refine(settings, removal="lift")) as memory:
        id = await learn(memory)
        first = await until_withheld(memory, id)
        for number in range(100, 130):
            if (await attempt(memory, HARMED, number, "failure")).experiences:
                return
        raise AssertionError(f"it was withheld after {first} failures, and 30 without it have not brought it back")


async def test_nothing_is_withheld_where_removal_goes_by_the_share(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        id = await learn(memory)
        await differ(memory)
        assert [one.id for one in (await memory.recall(HARMED, source="test")).experiences] == [id]
        one, _ = await memory.pool.experience(id)
        told = await memory.pool.among_tasks(one)
        assert [kind.lift[0] for kind in told] == ["-", "+"]
        assert not any(kind.is_withheld for kind in told)


def test_what_it_does_among_each_kind_of_tasks_is_shown(run: Run, home: Path) -> None:
    async def fill() -> str:
        async with Memory.open(Settings(home=str(home))) as memory:
            id = await learn(memory)
            await differ(memory)
            return id

    id = anyio.run(partial(fill))
    assert [one["is_withheld"] for one in json.loads(run("show", id, "--json").stdout)["among_tasks"]] == [False, False]
    shown = run("show", id).stdout
    assert "among tasks" in shown
    assert "like “Export the invoice ledger" in shown


async def test_a_task_that_another_process_has_erased_is_told_no_more(settings: Settings) -> None:
    async with Memory.open(settings) as memory, Memory.open(settings) as other:
        id = await learn(memory)
        recalls = [await memory.recall(f"{HELPED} {number}", source="test") for number in range(6)]
        recorded = [
            await memory.record(f"{HELPED} {number}", outcome="success", receipt=one.receipt, source="test")
            for number, one in enumerate(recalls)
        ]
        experience, _ = await memory.pool.experience(id)
        assert [HELPED in one.task for one in await memory.pool.among_tasks(experience)] == [True]
        for one in recorded:
            await other.pool.erase(one.trajectory_id)
        assert await memory.pool.among_tasks(experience) == []
