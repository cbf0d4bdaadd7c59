"""What concerns the ledger alone: it waits for nobody who writes lessons, and two who write it lose nothing."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.errors import StoreError
from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.memory.memory_cases import held_pool

pytestmark = pytest.mark.anyio

TASK = "put my blog online"
DEADLINE_S = 20.0


async def test_ratings_receipts_and_attempts_without_lessons_do_not_wait_for_the_pool(
    memory: Memory, home: Path
) -> None:
    [lesson] = (await memory.record(TASK, outcome="success", experiences=[draft()], source="test")).added
    async with held_pool(home):
        with anyio.fail_after(DEADLINE_S):
            receipt = (await memory.recall(TASK, source="test")).receipt
            assert (await memory.rate(lesson, helpful=True, receipt=receipt, source="test")).utility == 1
            receipt = (await memory.recall(TASK, source="test")).receipt
            settled = await memory.record(TASK, outcome="failure", receipt=receipt, source="test")
            assert [(one.id, one.frequency, one.utility) for one in settled.settled] == [(lesson, 2, 1)]
            assert settled.status == "awaiting_experiences"
            nothing = await memory.record(TASK, outcome="success", experiences=[], source="test")
            assert nothing.status == "nothing_to_learn"


async def test_lessons_wait_until_nobody_holds_the_pool(memory: Memory, home: Path) -> None:
    await memory.check()
    async with held_pool(home):
        with anyio.move_on_after(0.2) as waited:
            await memory.record(TASK, outcome="success", experiences=[draft()], source="test")
        assert waited.cancelled_caught
    assert await memory.pool.page() == []
    assert (await memory.record(TASK, outcome="success", experiences=[draft()], source="test")).added


async def test_a_rating_that_archives_a_lesson_does_so_once_the_pool_is_free(settings: Settings, home: Path) -> None:
    refine = settings.refine.model_copy(update={"min_frequency": 2})
    async with Memory.open(settings.model_copy(update={"refine": refine})) as memory:
        [lesson] = (await memory.record(TASK, outcome="success", experiences=[draft()], source="test")).added
        await memory.recall(TASK, source="test")
        assert (await memory.rate(lesson, helpful=False, source="test")).status == "active"
        receipt = (await memory.recall(TASK, source="test")).receipt
        async with held_pool(home):
            with anyio.move_on_after(0.2) as waited:
                await memory.rate(lesson, helpful=False, receipt=receipt, source="test")
            assert waited.cancelled_caught
            # Nothing of it is there, not even the rating.
            assert (await memory.pool.experience(lesson))[0].frequency == 1
        rated = await memory.rate(lesson, helpful=False, receipt=receipt, source="test")
        assert (rated.frequency, rated.status) == (2, "archived")
        assert (await memory.pool.experience(lesson))[0].status == "archived"
        assert [one.did for one in await memory.pool.log(about=lesson)].count("rated") == 2


async def test_two_processes_that_settle_at_once_lose_no_outcome(settings: Settings) -> None:
    async with Memory.open(settings) as one, Memory.open(settings) as other:
        [lesson] = (await one.record(TASK, outcome="success", experiences=[draft()], source="test")).added

        async def use(memory: Memory, name: str) -> None:
            for number in range(4):
                receipt = (await memory.recall(TASK, source=name)).receipt
                if number % 2:
                    await memory.rate(lesson, helpful=True, receipt=receipt, source=name)
                else:
                    await memory.record(f"{name} {number}", outcome="success", receipt=receipt, source=name)

        async with anyio.create_task_group() as tasks:
            for name, memory in (("a", one), ("b", one), ("c", other), ("d", other)):
                tasks.start_soon(use, memory, name)
        for memory in (one, other):
            experience, tally = await memory.pool.experience(lesson)
            assert (experience.frequency, experience.utility, tally.frequency) == (16, 16, 16)


async def test_what_a_crash_left_between_ledger_and_pool_is_done_at_the_next_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object, **__: object) -> None:
        raise StoreError("the disk is full")

    refine = settings.refine.model_copy(update={"min_frequency": 1})
    strict = settings.model_copy(update={"refine": refine})
    async with Memory.open(strict) as memory:
        [lesson] = (await memory.record(TASK, outcome="success", experiences=[draft()], source="test")).added
        receipt = (await memory.recall(TASK, source="test")).receipt
        with monkeypatch.context() as patched:
            patched.setattr("reme_mcp.store.store.Writer.put_experiences", full)
            with pytest.raises(StoreError, match="the disk is full"):
                await memory.record(TASK, outcome="failure", receipt=receipt, experiences=[draft(1)], source="test")
        assert (await memory.pool.experience(lesson))[0].status == "active"
    async with Memory.open(strict) as memory:
        await memory.warm_up(download=False)
        archived, _ = await memory.pool.experience(lesson)
        assert (archived.status, archived.frequency, archived.utility) == ("archived", 1, 0)
        assert (await memory.pool.counts()) == {"active": 1, "archived": 1}
        assert [one.did for one in await memory.pool.log(about=lesson)].count("pruned") == 1
