"""Records that wait for the pool at the same time get in together: one commit for the lessons of all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

from reme_mcp.config.settings import Settings
from reme_mcp.distill.intake import Batch, neighbours
from reme_mcp.distill.pipeline import SEARCHED_AT_ONCE
from reme_mcp.errors import ReMeError, StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.models.service import Embedded
from reme_mcp.results import RecordResult
from reme_mcp.schema import Experience
from reme_mcp.store.store import Store, Writer
from tests.fakes import draft, experience
from tests.memory.memory_cases import TASK, held_pool, stored_trajectory, with_refine
from tests.memory.memory_cases import memory as memory

pytestmark = pytest.mark.anyio

Call = dict[str, object]
OUTCOMES = ("failure", "success")


def call(number: int, **changes: object) -> Call:
    return {"task": f"task {number}", "outcome": "success", "experiences": [draft(number)], **changes}


async def together(memory: Memory, home: Path, calls: Sequence[Call]) -> list[RecordResult | Exception]:
    """Record what somebody else keeps waiting until all of it waits, and return the answers in order."""
    answers: dict[int, RecordResult | Exception] = {}

    async def record(place: int) -> None:
        try:
            answers[place] = await memory.record(**calls[place], source="test")  # type: ignore[arg-type]  # as given
        except Exception as exc:  # noqa: BLE001  it is looked at
            answers[place] = exc

    async with anyio.create_task_group() as tasks, held_pool(home):
        for place in range(len(calls)):
            tasks.start_soon(record, place)
        await anyio.wait_all_tasks_blocked()
    return [answers[place] for place in range(len(calls))]


async def version(home: Path) -> int:
    store = await Store.open(home)
    try:
        return (await store.versions())["experiences"]
    finally:
        store.close()


@pytest.mark.parametrize(("turn_s", "commits"), [(60.0, 1), (-1.0, 5)])
async def test_what_waits_together_is_one_commit_in_as_much_as_a_turn_has_time_for(
    memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch, turn_s: float, commits: int
) -> None:
    monkeypatch.setattr("reme_mcp.distill.pipeline.TURN_S", turn_s)
    before = await version(home)
    answers = await together(memory, home, [call(number) for number in range(5)])
    added = [id for answer in answers if isinstance(answer, RecordResult) for id in answer.added]
    assert len(added) == 5
    assert {one.id for one in await memory.pool.page(limit=20)} == set(added)
    assert await version(home) == before + commits
    assert (await memory.pool.stats()).trajectories["undistilled"] == 0


async def test_of_the_same_lesson_in_several_records_one_is_added(memory: Memory, home: Path) -> None:
    same = [call(0, task=f"another task {number}") for number in range(3)]
    first, *others = await together(memory, home, [*same, call(1)])
    assert isinstance(first, RecordResult)
    [lesson] = first.added
    for other in others[:2]:
        assert isinstance(other, RecordResult)
        assert [one.id for one in other.merged] == [lesson]
    assert len((await memory.pool.experience(lesson))[0].trajectory_ids) == 3
    assert await memory.pool.counts() == {"active": 2}


async def test_a_correction_takes_the_place_of_what_it_corrects(memory: Memory, home: Path) -> None:
    said = "Wait 20 seconds after the upload, then purge the cache of the site."
    lessons = [draft(0, content=said), draft(0, content=said.replace("20", "60"))]
    older, newer = await together(
        memory, home, [call(number, experiences=[lesson]) for number, lesson in enumerate(lessons)]
    )
    assert isinstance(older, RecordResult)
    assert isinstance(newer, RecordResult)
    [gone], [kept] = older.added, newer.added
    assert [(one.id, one.by) for one in newer.superseded] == [(gone, kept)]
    archived = (await memory.pool.experience(gone))[0]
    assert (archived.status, archived.superseded_by) == ("archived", kept)


async def test_what_is_about_to_be_stored_is_a_neighbour_with_its_cosine(home: Path) -> None:
    async def no_synonyms(_: Collection[frozenset[str]]) -> frozenset[frozenset[str]]:
        return frozenset()

    def batch(id: str, space: str, *vector: float) -> Batch:
        row = np.array([vector], np.float32)
        return Batch((experience(id),), Embedded(space, row, row), (True,), no_synonyms)

    staged = {id: batch(id, space, 0.6, 0.8) for id, space in (("e-staged", "a fake"), ("e-of-another", "another"))}
    also = {id: (one.candidates[0], one) for id, one in staged.items()}
    also["e-elsewhere"] = (replace(experience("e-elsewhere"), workspace="elsewhere"), staged["e-staged"])
    store = await Store.open(home)
    try:
        [found] = await neighbours(batch("e-new", "a fake", 1.0, 0.0), store, also=also)
    finally:
        store.close()
    assert {one.id for one in found.others} == {"e-staged", "e-of-another"}
    assert found.cosines == {"e-staged": pytest.approx(0.6)}


async def test_one_that_is_refused_keeps_no_other_out(memory: Memory, home: Path) -> None:
    await memory.record("task 9", outcome="success", experiences=[draft(4)], source="test")
    receipt = (await memory.recall("task 9", source="test")).receipt
    calls = [call(0), call(1, receipt=receipt, misled=["e-never-handed-out"]), call(2)]
    first, refused, last = await together(memory, home, calls)
    assert isinstance(first, RecordResult)
    assert isinstance(last, RecordResult)
    assert "e-never-handed-out" in str(refused)
    assert isinstance(refused, ReMeError)
    assert await memory.pool.counts() == {"active": 3}


async def test_what_is_answered_before_somebody_else_is_refused_stays_answered(memory: Memory, home: Path) -> None:
    await memory.record("task 9", outcome="success", experiences=[draft(4)], source="test")
    receipt = (await memory.recall("task 9", source="test")).receipt
    # The first one merges, and is committed before the next one is looked at.
    merging = call(4, task="another task")
    merged, refused = await together(memory, home, [merging, call(1, receipt=receipt, misled=["e-never-handed-out"])])
    assert isinstance(merged, RecordResult)
    assert isinstance(refused, ReMeError)
    stored = await stored_trajectory(memory, merged.trajectory_id)
    assert RecordResult.model_validate_json(stored.answer) == merged


@pytest.mark.parametrize("turn_s", [60.0, -1.0])
async def test_of_one_task_the_later_attempt_knows_of_the_earlier_one(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch, turn_s: float
) -> None:
    monkeypatch.setattr("reme_mcp.distill.pipeline.TURN_S", turn_s)
    async with Memory.open(with_refine(settings, add_from="success")) as memory:
        failed, succeeded = await together(
            memory, home, [call(number, task=TASK, outcome=outcome) for number, outcome in enumerate(OUTCOMES)]
        )
        assert isinstance(failed, RecordResult)
        assert isinstance(succeeded, RecordResult)
        # The success proves what the failure has taught.
        ids = [*failed.added, *succeeded.added]
        assert [(await memory.pool.experience(id))[0].status for id in ids] == ["active", "active"]


@pytest.mark.parametrize("turn_s", [60.0, -1.0])
async def test_two_answers_to_one_attempt_are_both_in_the_log(
    memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch, turn_s: float
) -> None:
    monkeypatch.setattr("reme_mcp.distill.pipeline.TURN_S", turn_s)
    attempt = await memory.record(TASK, outcome="success", source="test")
    calls: list[Call] = [{"trajectory_id": attempt.trajectory_id, "experiences": [draft(number)]} for number in (0, 1)]
    answers = await together(memory, home, calls)
    added = {id for answer in answers if isinstance(answer, RecordResult) for id in answer.added}
    assert len(added) == 2
    assert {one.about for one in await memory.pool.log() if one.did == "added"} == added


@pytest.mark.parametrize("failure", [StoreError("the disk is full"), TypeError("a fault of ours")])
async def test_where_a_commit_fails_those_in_it_are_told_and_the_same_calls_store_each_once(
    memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise failure

    calls = [call(number) for number in range(3)]
    with monkeypatch.context() as patched:
        patched.setattr("reme_mcp.store.store.Writer.put_experiences", failing)
        assert await together(memory, home, calls) == [failure] * 3
    assert await memory.pool.counts() == {}
    answers = await together(memory, home, calls)
    assert [len(answer.added) for answer in answers if isinstance(answer, RecordResult)] == [1, 1, 1]
    assert await memory.pool.counts() == {"active": 3}
    assert (await memory.pool.stats()).trajectories == {"success": 3, "failure": 0, "undistilled": 0}


async def test_one_whose_neighbours_can_not_be_read_keeps_no_other_out(
    memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    match, times = Store.match_text, iter(range(9))

    async def failing_once(self: Store, *args: Any, **named: Any) -> list[tuple[str, float]]:
        if next(times) == 1:
            raise StoreError("can't search the text")
        return await match(self, *args, **named)

    monkeypatch.setattr(Store, "match_text", failing_once)
    first, second, third = await together(memory, home, [call(number) for number in range(3)])
    assert isinstance(first, RecordResult)
    assert str(second) == "can't search the text"
    assert isinstance(third, RecordResult)


async def test_who_comes_while_others_are_let_in_gets_in_with_the_next_commit(
    memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, match, calls = await version(home), Store.match_text, [call(number) for number in range(4)]
    late: list[RecordResult] = []

    async def record_late(call: Call) -> None:
        late.append(await memory.record(**call, source="test"))  # type: ignore[arg-type]  # as given

    async with anyio.create_task_group() as tasks:

        async def match_when_another_waits(self: Store, *args: Any, **named: Any) -> list[tuple[str, float]]:
            if len(calls) > 3:
                tasks.start_soon(record_late, calls.pop())
                await anyio.wait_all_tasks_blocked()
            return await match(self, *args, **named)

        monkeypatch.setattr(Store, "match_text", match_when_another_waits)
        answers = await together(memory, home, calls[:3])
    added = [id for answer in (*answers, *late) if isinstance(answer, RecordResult) for id in answer.added]
    assert len(added) == 4
    assert await version(home) == before + 2


@pytest.mark.parametrize("same", [True, False], ids=["merged", "added"])
async def test_records_that_wait_together_share_searches_and_repeat_few(
    memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    # Where the machine is slow, it is one turn all the same.
    monkeypatch.setattr("reme_mcp.distill.pipeline.TURN_S", float("inf"))
    first = await memory.record(**call(0), source="test")  # type: ignore[arg-type]  # as given
    match, searching, most, searches = Store.match_text, 0, 0, 0

    async def counted(self: Store, *args: Any, **named: Any) -> list[tuple[str, float]]:
        nonlocal searching, most, searches
        searches += 1
        searching += 1
        most = max(most, searching)
        await checkpoint()
        try:
            return await match(self, *args, **named)
        finally:
            searching -= 1

    monkeypatch.setattr(Store, "match_text", counted)
    calls = [call(number, **({"experiences": [draft(0)]} if same else {})) for number in range(1, 10)]
    answers = await together(memory, home, calls)
    results = [answer for answer in answers if isinstance(answer, RecordResult)]
    assert [len(one.added) for one in results] == [0 if same else 1] * 9
    assert [[merged.id for merged in one.merged] for one in results] == [first.added if same else []] * 9
    # After each that was merged, the next one is searched for anew; those that were found before are few.
    assert searches <= 9 + (SEARCHED_AT_ONCE if same else 0)
    assert most == SEARCHED_AT_ONCE


async def test_who_is_left_over_or_done_before_a_failure_is_not_told_of_it(
    memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reme_mcp.distill.pipeline.TURN_S", -1.0)
    put, times = Writer.put_experiences, iter(range(9))

    async def failing_once(self: Writer, experiences: Sequence[Experience], *, are_new: bool = False) -> None:
        if next(times) == 1:
            raise StoreError("the disk is full")
        await put(self, experiences, are_new=are_new)

    monkeypatch.setattr(Writer, "put_experiences", failing_once)
    first, second, third = await together(memory, home, [call(number) for number in range(3)])
    assert isinstance(first, RecordResult)
    assert str(second) == "the disk is full"
    assert isinstance(third, RecordResult)


async def test_who_came_first_gets_in_first(memory: Memory, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reme_mcp.distill.pipeline.TURN_S", -1.0)
    answers = await together(memory, home, [call(number) for number in range(5)])
    ids = [id for answer in answers if isinstance(answer, RecordResult) for id in answer.added]
    assert len(ids) == 5
    stored = [(await memory.pool.experience(id))[0].created_at for id in ids]
    assert stored == sorted(stored)
