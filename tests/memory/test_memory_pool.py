"""Duplicates, removal, the pool, and what is there after a crash."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import numpy as np
import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.distill.drafts import NamedDraft, to_json
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import ExperienceDraft, Trajectory
from tests.fakes import FakeEmbedder, counted, draft, experience, line, trajectory
from tests.memory.memory_cases import TASK, attempt, counters, counts, learn, put, stored_trajectory, warm, with_refine
from tests.memory.memory_cases import memory as memory
from tests.memory.memory_cases import with_model as with_model

pytestmark = pytest.mark.anyio


async def attempts(memory: Memory, outcomes: str) -> list[str]:
    """Make one attempt per letter, `s`uccess or `f`ailure; return whom φ removed."""
    pruned: list[str] = []
    for letter in outcomes:
        pruned += (await attempt(memory, "success" if letter == "s" else "failure")).pruned
    return pruned


# --- duplicates ---


async def test_a_duplicate_keeps_id_and_counters_and_adds_provenance(memory: Memory) -> None:
    lesson_id = await learn(memory)
    await memory.rate(lesson_id, helpful=True, source="test")
    before, _ = await memory.pool.experience(lesson_id)
    copy = draft(when_to_use="When a static site must go online", confidence=1.0)
    answer = await memory.record("put the docs online", outcome="success", experiences=[copy], source="other")
    assert (answer.status, answer.added) == ("distilled", [])
    assert [(one.id, one.status) for one in answer.merged] == [(lesson_id, "active")]
    after, _ = await memory.pool.experience(lesson_id)
    assert after.trajectory_ids == (*before.trajectory_ids, answer.trajectory_id)
    assert after == replace(before, trajectory_ids=after.trajectory_ids, updated_at=after.updated_at)
    assert (await memory.pool.stats()).experiences == {"active": 1}


async def test_another_lesson_about_the_same_situation_is_no_duplicate(memory: Memory) -> None:
    await learn(memory)
    other = draft(content="Point the domain at the host a day ahead, since names take hours to spread.")
    answer = await memory.record(TASK, outcome="success", experiences=[other], source="test")
    assert (len(answer.added), answer.merged) == (1, [])


async def test_duplicates_within_a_batch_become_one(memory: Memory) -> None:
    near = draft(when_to_use="When a static site must go online")
    answer = await memory.record(TASK, outcome="success", experiences=[draft(), near, draft(1)], source="test")
    assert len(answer.added) == 2
    assert [answer.added[0] in one.reason and "of the same call" in one.reason for one in answer.rejected] == [True]
    assert (await memory.pool.stats()).experiences == {"active": 2}


async def test_two_drafts_may_have_the_same_twin(memory: Memory) -> None:
    lesson_id = await learn(memory)
    copies = [draft(when_to_use=f"When a static site {how} go online") for how in ("must", "should")]
    answer = await memory.record(TASK, outcome="success", experiences=copies, source="test")
    assert {one.id for one in answer.merged} == {lesson_id}
    one, _ = await memory.pool.experience(lesson_id)
    assert one.trajectory_ids.count(answer.trajectory_id) == 1


async def test_a_copy_in_another_workspace_is_no_duplicate(memory: Memory) -> None:
    await learn(memory)
    answer = await memory.record(TASK, outcome="success", experiences=[draft()], workspace="other", source="test")
    assert len(answer.added) == 1


async def test_a_copy_of_what_was_archived_is_rejected_and_says_so(memory: Memory) -> None:
    lesson_id = await learn(memory)
    await memory.pool.archive(lesson_id, "it misled twice")
    answer = await memory.record("again", outcome="success", experiences=[draft(), draft(1)], source="test")
    [rejected] = answer.rejected
    for words in (lesson_id, "archived", "it misled twice"):
        assert words in rejected.reason
    assert len(answer.added) == 1
    assert (await memory.pool.stats()).experiences == {"active": 1, "archived": 1}


async def test_what_is_only_near_by_meaning_is_kept(with_model: Settings) -> None:
    embedder = FakeEmbedder({"static site": (1,), "boiling eggs": (0.99, float(np.sqrt(1 - 0.99**2)))})
    async with warm(with_model, embedder) as memory:
        await memory.record("one", outcome="success", experiences=[draft(0)], source="test")
        second = await memory.record("two", outcome="success", experiences=[draft(1)], source="test")
        assert (len(second.added), second.merged) == (1, [])


# --- φ ---


@pytest.mark.parametrize(
    ("outcomes", "removed"),
    [("ffff", False), ("fffff", True), ("ssfff", True), ("sssff", False), ("sssfff", True), ("ssssff", False)],
)
async def test_what_helps_too_rarely_is_archived(memory: Memory, outcomes: str, removed: bool) -> None:
    lesson_id = await learn(memory)
    assert await attempts(memory, outcomes) == ([lesson_id] if removed else [])
    one, _ = await memory.pool.experience(lesson_id)
    assert one.status == ("archived" if removed else "active")
    assert one.status_reason == (f"succeeded with it {outcomes.count('s')} of {len(outcomes)}" if removed else "")
    recalled = await memory.recall(TASK, source="test")
    assert [found.id for found in recalled.experiences] == ([] if removed else [lesson_id])


async def test_a_rating_can_remove_too_and_says_so(settings: Settings) -> None:
    async with Memory.open(with_refine(settings, min_frequency=1)) as memory:
        lesson_id = await learn(memory)
        rated = await memory.rate(lesson_id, helpful=False, source="test")
        assert (rated.status, rated.status_reason) == (
            "archived",
            "succeeded with it 0 of 1",
        )


async def test_a_pin_protects_until_it_is_taken_out(memory: Memory) -> None:
    lesson_id = await learn(memory)
    assert (await memory.pool.pin(lesson_id, pinned=True)).pinned
    assert await attempts(memory, "ffffff") == []
    assert await memory.pool.prune() == []
    assert not (await memory.pool.pin(lesson_id, pinned=False)).pinned
    assert [one.id for one in await memory.pool.prune()] == [lesson_id]


async def test_what_is_restored_is_recalled_and_counts_anew(memory: Memory) -> None:
    lesson_id = await learn(memory)
    await attempts(memory, "fffff")
    back = await memory.pool.restore(lesson_id)
    assert (back.status, back.status_reason, back.frequency, back.utility) == ("active", "", 0, 0)
    assert await attempts(memory, "f") == []
    assert await counters(memory, lesson_id) == (0, 1)
    assert await attempts(memory, "ffff") == [lesson_id]


async def test_only_what_is_archived_can_be_restored(memory: Memory) -> None:
    lesson_id = await learn(memory)
    with pytest.raises(InvalidInput, match="not archived"):
        await memory.pool.restore(lesson_id)


async def test_what_a_person_archived_can_be_restored(memory: Memory) -> None:
    lesson_id = await learn(memory)
    gone = await memory.pool.archive(lesson_id, "outdated")
    assert (gone.status, gone.status_reason) == ("archived", "outdated")
    assert (await memory.recall(TASK, source="test")).experiences == []
    await memory.pool.restore(lesson_id)
    assert len((await memory.recall(TASK, source="test")).experiences) == 1


async def test_a_rating_after_a_restore_counts(memory: Memory) -> None:
    lesson_id = await learn(memory)
    await attempts(memory, "fffff")
    await memory.pool.restore(lesson_id)
    rated = await memory.rate(lesson_id, helpful=True, source="test")
    assert (rated.utility, rated.frequency) == (1, 1)


async def test_a_dry_run_shows_whom_pruning_removes_and_changes_nothing(settings: Settings, memory: Memory) -> None:
    await put(
        settings.home,
        counted("e-below", 4, 0),
        counted("e-at", 6, 3),
        counted("e-bad", 5, 0),
        counted("e-good", 5, 3),
        counted("e-pinned", 5, 0, pinned=True),
        counted("e-early", 5, 0, status="provisional"),
        counted("e-gone", 5, 0, status="archived"),
        counted("e-odd", 5, 0, status="quarantined"),
        counted("e-theirs", 5, 0, workspace="other"),
    )
    before = await memory.pool.page()
    shown = await memory.pool.prune(dry_run=True)
    assert {one.id for one in shown} == {"e-at", "e-bad", "e-early"}
    assert sorted(await memory.pool.page(), key=lambda one: one.id) == sorted(before, key=lambda one: one.id)
    removed = await memory.pool.prune()
    assert {one.id for one in removed} == {"e-at", "e-bad", "e-early"}
    assert (await memory.pool.experience("e-at"))[0].status_reason == "succeeded with it 3 of 6"
    assert (await memory.pool.stats()).experiences == {"active": 3, "archived": 4, "quarantined": 1}
    assert await memory.pool.prune() == []
    assert (await memory.pool.experience("e-theirs", workspace="other"))[0].status == "active"


async def test_pruning_goes_through_a_pool_of_any_size(settings: Settings, memory: Memory) -> None:
    await put(
        settings.home,
        *(
            counted(f"e-{number}", 5, created_at=experience().created_at + timedelta(seconds=number))
            for number in range(2_100)
        ),
    )
    assert len(await memory.pool.prune()) == 2_100
    assert (await memory.pool.stats()).experiences == {"archived": 2_100}


async def test_pruning_goes_through_an_imported_pool_of_any_size(settings: Settings, memory: Memory) -> None:
    for start in (0, 700, 1_400):
        await put(settings.home, *(counted(f"e-{number}", 5) for number in range(start, start + 700)))
    assert len({one.id for one in await memory.pool.prune(dry_run=True)}) == 2_100


# --- the pool ---


async def test_deleting_keeps_the_books(memory: Memory) -> None:
    lesson_id = await learn(memory)
    receipt = (await memory.recall(TASK, source="test")).receipt
    assert (await memory.pool.delete(lesson_id)).id == lesson_id
    with pytest.raises(NotFound):
        await memory.pool.experience(lesson_id)
    assert (await memory.recall(TASK, source="test")).experiences == []
    done = await memory.record(TASK, outcome="success", experiences=[draft()], receipt=receipt, source="test")
    assert done.settled == []
    assert len(done.added) == 1


@pytest.mark.parametrize(("offset", "limit"), [(-1, 1), (0, 0), (0, 1_001)])
async def test_a_page_out_of_range_is_refused(memory: Memory, offset: int, limit: int) -> None:
    with pytest.raises(InvalidInput, match=f"offset {offset}, limit {limit}"):
        await memory.pool.page(offset=offset, limit=limit)


@pytest.mark.parametrize(("offset", "limit", "shown"), [(0, 1, 1), (0, 1_000, 3), (2, 5, 1), (3, 5, 0)])
async def test_a_page_shows_what_is_there_from_its_offset(memory: Memory, offset: int, limit: int, shown: int) -> None:
    ids = [await learn(memory, number) for number in range(3)]
    page = await memory.pool.page(offset=offset, limit=limit)
    assert [one.id for one in page] == ids[::-1][offset : offset + limit]
    assert len(page) == shown


async def test_the_source_says_who_wrote_it(memory: Memory) -> None:
    answer = await memory.record(TASK, outcome="success", experiences=[draft()], source="cursor")
    one, _ = await memory.pool.experience(answer.added[0])
    assert (one.source, one.author) == ("cursor", "assistant")


def abandoned(home_draft: NamedDraft, **changes: Any) -> Trajectory:
    """Return a trajectory as it is when the process dies right after storing it."""
    stored: dict[str, Any] = {
        "status": "pending", "answer": "", "drafts": to_json([home_draft]), "drafts_digest": "dd", "receipt": "r-a",
    }  # fmt: skip
    return trajectory("t-a", **stored | changes)


NAMED = NamedDraft("e-new", ExperienceDraft.model_validate(draft(1)))


# --- after a crash ---


@pytest.mark.parametrize("workspace", ["default", "other"])
async def test_what_a_dead_process_left_is_finished_exactly_once(settings: Settings, workspace: str) -> None:
    await put(
        settings.home,
        experience("e-old", workspace=workspace),
        line("r-a", experience_id="e-old", workspace=workspace),
        abandoned(NAMED, workspace=workspace),
    )
    async with Memory.open(settings) as memory:
        for _ in range(2):
            await memory.warm_up(download=False)
            stats = await memory.pool.stats(workspace=workspace)
            assert stats.experiences == {"active": 2}
            assert stats.trajectories == {"success": 1, "failure": 0, "undistilled": 0}
            assert stats.receipts == {"recalls": 1, "recalled": 1, "settled": 1, "succeeded": 1}
            old, _ = await memory.pool.experience("e-old", workspace=workspace)
            assert (old.utility, old.frequency) == (1, 1)
            new, _ = await memory.pool.experience("e-new", workspace=workspace)
            assert (new.content, new.trajectory_ids) == (draft(1)["content"], ("t-a",))


async def test_two_processes_that_find_the_same_leftover_finish_it_once(settings: Settings) -> None:
    await put(settings.home, experience("e-old"), line("r-a", experience_id="e-old"), abandoned(NAMED))
    async with Memory.open(settings) as one, Memory.open(settings) as other:
        async with anyio.create_task_group() as tasks:
            for memory in (one, other):
                tasks.start_soon(lambda memory: memory.warm_up(download=False), memory)
        assert (await one.pool.stats()).experiences == {"active": 2}
        assert await counters(one, "e-old") == (1, 1)


async def test_a_crash_after_learning_learns_nothing_twice(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        lesson_id = await learn(memory)
        receipt = (await memory.recall(TASK, source="test")).receipt
        arguments: dict[str, Any] = {
            "task": TASK, "outcome": "success", "experiences": [draft(1)], "receipt": receipt, "source": "test",
        }  # fmt: skip
        answer = await memory.record(**arguments)
        before = await counts(memory)
        stored = await stored_trajectory(memory, answer.trajectory_id)
    # As if the last write had not happened: everything is learned and settled, but not answered.
    named = NamedDraft(answer.added[0], ExperienceDraft.model_validate(draft(1)))
    await put(settings.home, replace(stored, status="pending", answer="", drafts=to_json([named])))
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        assert await counts(memory) == before
        assert await counters(memory, lesson_id) == (1, 1)
        again = await memory.record(**arguments)
        assert (again.trajectory_id, again.added, again.status) == (answer.trajectory_id, answer.added, answer.status)
        assert await counts(memory) == before


async def test_a_client_that_repeats_the_call_after_a_crash_gets_its_answer(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        answer = await memory.record(TASK, outcome="success", experiences=[draft()], source="test")
        stored = await stored_trajectory(memory, answer.trajectory_id)
        await memory.pool.delete(answer.added[0])
    named = NamedDraft(answer.added[0], ExperienceDraft.model_validate(draft()))
    await put(settings.home, replace(stored, status="pending", answer="", drafts=to_json([named])))
    async with Memory.open(settings) as memory:
        assert await memory.record(TASK, outcome="success", experiences=[draft()], source="test") == answer
        assert (await memory.pool.stats()).experiences == {"active": 1}
        await memory.warm_up(download=False)
        assert (await memory.pool.stats()).experiences == {"active": 1}


async def test_a_rating_repeated_after_a_crash_brings_the_counters_up_to_date(settings: Settings) -> None:
    rated = line("r-a", experience_id="e-old", helped=False, settled_by="rating", settled_at=experience().created_at)
    await put(settings.home, experience("e-old"), rated)
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        await memory.rate("e-old", helpful=False, receipt="r-a", source="test")
        assert await counters(memory, "e-old") == (0, 1)
