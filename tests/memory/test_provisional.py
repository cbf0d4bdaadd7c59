"""Lessons from failures that have to prove themselves first, through `Memory` with `add_from = "success"`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.distill.drafts import NamedDraft, to_json
from reme_mcp.memory.memory import Memory
from reme_mcp.refine.rules import UNPROVEN
from reme_mcp.results import RecordResult
from reme_mcp.schema import ExperienceDraft, Outcome
from tests.fakes import LEARNED, FakeEmbedder, draft, experience, trajectory
from tests.memory.memory_cases import TASK, put, stored_trajectory, warm, with_model, with_refine

pytestmark = pytest.mark.anyio

__all__ = ["with_model"]

# Folded, it is the same task; the words that it shares with the lesson are all a search has.
SAME_TASK = "  Put my\tBLOG online "
OTHER_TASK = "put my static shop online"


@pytest.fixture
def selective(settings: Settings) -> Settings:
    """Settings that add from successes only."""
    return with_refine(settings, add_from="success")


@pytest.fixture
async def memory(selective: Settings) -> AsyncIterator[Memory]:
    async with Memory.open(selective) as memory:
        yield memory


async def record(memory: Memory, outcome: Outcome, *numbers: int, task: str = TASK, **changes: Any) -> RecordResult:
    """Record one attempt with the drafts that have these numbers; no two attempts are the same call."""
    steps = f"Attempt {sum((await memory.pool.stats()).trajectories.values())}"
    drafts = [draft(number) for number in numbers]
    return await memory.record(task, outcome=outcome, steps=steps, experiences=drafts, source="test", **changes)


async def lesson_of_a_failure(memory: Memory, number: int = 0, /, *, task: str = TASK) -> str:
    [id] = (await record(memory, "failure", number, task=task)).added
    return id


async def status(memory: Memory, experience_id: str) -> tuple[str, str]:
    one, _ = await memory.pool.experience(experience_id)
    return one.status, one.status_reason


async def recalled(memory: Memory, task: str) -> list[str]:
    return [one.id for one in (await memory.recall(task, source="test")).experiences]


@pytest.mark.parametrize(
    ("add_from", "outcome", "expected"),
    [
        ("all", "success", ("active", "")),
        ("all", "failure", ("active", "")),
        ("success", "success", ("active", "")),
        ("success", "failure", ("provisional", UNPROVEN)),
    ],
)
async def test_a_lesson_from_a_failure_is_provisional_where_only_successes_add(
    settings: Settings, add_from: str, outcome: Outcome, expected: tuple[str, str]
) -> None:
    async with Memory.open(with_refine(settings, add_from=add_from)) as memory:
        answer = await record(memory, outcome, 0)
        assert await status(memory, answer.added[0]) == expected
        # A failure answers with its lessons at once, for the retry.
        assert answer.lessons == ([draft(0)["content"]] if outcome == "failure" else [])
        assert await recalled(memory, OTHER_TASK) == ([] if expected[0] == "provisional" else answer.added)


async def test_a_comparison_that_comes_with_a_failure_is_provisional_too(memory: Memory) -> None:
    await record(memory, "success")
    drafts = [draft(0, kind="comparative"), draft(1, kind="success")]
    answer = await memory.record(TASK, outcome="failure", experiences=drafts, source="test")
    assert [await status(memory, id) for id in answer.added] == [("provisional", UNPROVEN)] * 2


async def test_a_lesson_sent_in_a_second_call_is_provisional_too(memory: Memory) -> None:
    first = await memory.record(TASK, outcome="failure", source="test")
    answer = await memory.record(trajectory_id=first.trajectory_id, experiences=[draft()], source="test")
    assert await status(memory, answer.added[0]) == ("provisional", UNPROVEN)
    assert await recalled(memory, TASK) == answer.added


@pytest.mark.parametrize("task", [TASK, SAME_TASK])
async def test_a_provisional_lesson_is_recalled_for_its_own_task(memory: Memory, task: str) -> None:
    lesson = await lesson_of_a_failure(memory)
    found = await memory.recall(task, source="test")
    assert [one.id for one in found.experiences] == [lesson]
    assert "provisional" in found.guidance


@pytest.mark.parametrize("task", [OTHER_TASK, f"{TASK} again", "a static site has to go online"])
async def test_a_provisional_lesson_is_not_recalled_for_another_task(memory: Memory, task: str) -> None:
    await lesson_of_a_failure(memory)
    assert await recalled(memory, task) == []


async def test_a_provisional_lesson_stays_in_its_workspace(memory: Memory) -> None:
    await lesson_of_a_failure(memory)
    await memory.record(TASK, outcome="failure", workspace="other", source="test")
    assert (await memory.recall(TASK, workspace="other", source="test")).experiences == []
    await memory.record(TASK, outcome="success", workspace="other", source="test")
    assert (await memory.pool.stats()).experiences == {"provisional": 1}


async def test_with_a_model_it_is_recalled_by_meaning_for_its_own_task_only(with_model: Settings) -> None:
    embedder = FakeEmbedder({"online": (1,), "static site": (1,)})
    async with warm(with_refine(with_model, add_from="success"), embedder) as memory:
        lesson = await lesson_of_a_failure(memory)
        assert await recalled(memory, TASK) == [lesson]
        assert await recalled(memory, OTHER_TASK) == []


async def test_those_of_other_tasks_take_no_place_from_active_lessons(selective: Settings) -> None:
    # As many as two searches look at, all closer to the task than the one that may be recalled.
    crowd = [
        experience(f"e-{number}", task=f"{TASK} {number}", content=TASK, status="provisional") for number in range(120)
    ]
    await put(selective.home, *crowd, experience("e-active"))
    async with Memory.open(selective) as memory:
        assert await recalled(memory, TASK) == ["e-active"]


async def test_a_success_at_its_task_activates_it_for_every_task(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    answer = await record(memory, "success", task=SAME_TASK)
    assert (answer.added, answer.pruned) == ([], [])
    assert await status(memory, lesson) == ("active", "")
    assert await recalled(memory, OTHER_TASK) == [lesson]


@pytest.mark.parametrize("outcome", ["success", "failure"])
async def test_attempts_at_another_task_change_nothing(memory: Memory, outcome: Outcome) -> None:
    lesson = await lesson_of_a_failure(memory)
    for _ in range(4):
        await record(memory, outcome, task=OTHER_TASK)
    assert await status(memory, lesson) == ("provisional", UNPROVEN)


@pytest.mark.parametrize(("most", "failures", "dropped"), [(3, 2, False), (3, 3, True), (1, 1, True), (4, 3, False)])
async def test_after_so_many_failed_retries_it_is_dropped(
    settings: Settings, most: int, failures: int, dropped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reme_mcp.refine.rules.MAX_FAILED_RETRIES", most)
    async with Memory.open(with_refine(settings, add_from="success")) as memory:
        lesson = await lesson_of_a_failure(memory)
        pruned = [id for _ in range(failures) for id in (await record(memory, "failure")).pruned]
        assert pruned == ([lesson] if dropped else [])
        expected = ("archived", f"{most} later attempts at its task failed, too")
        assert await status(memory, lesson) == (expected if dropped else ("provisional", UNPROVEN))
        assert await recalled(memory, TASK) == ([] if dropped else [lesson])


async def test_a_reward_below_one_is_a_failed_retry(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    for reward in (0.5, 0.9, 0.99):
        await memory.record(TASK, reward=reward, source="test")
    assert (await status(memory, lesson))[0] == "archived"


async def test_a_failed_retry_sent_twice_counts_once(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    for _ in range(5):
        await memory.record(TASK, outcome="failure", steps="The same call.", source="test")
    assert (await status(memory, lesson))[0] == "provisional"


async def test_a_success_after_it_was_dropped_comes_too_late(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    for outcome in ("failure", "failure", "failure", "success"):
        await record(memory, outcome)
    assert (await status(memory, lesson))[0] == "archived"


async def test_what_was_dropped_and_restored_is_active_and_dropped_no_more(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    for _ in range(3):
        await record(memory, "failure")
    await memory.pool.restore(lesson)
    await record(memory, "failure")
    assert await status(memory, lesson) == ("active", "")
    assert await recalled(memory, OTHER_TASK) == [lesson]


async def test_a_pinned_one_is_not_dropped(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    await memory.pool.pin(lesson, pinned=True)
    for _ in range(4):
        await record(memory, "failure")
    assert (await status(memory, lesson))[0] == "provisional"
    await record(memory, "success")
    assert (await status(memory, lesson))[0] == "active"


async def test_what_waits_from_earlier_settings_is_activated_by_a_success_all_the_same(
    settings: Settings, selective: Settings
) -> None:
    async with Memory.open(selective) as memory:
        lesson = await lesson_of_a_failure(memory)
    async with Memory.open(settings) as memory:
        assert await recalled(memory, OTHER_TASK) == []
        await record(memory, "success")
        assert await recalled(memory, OTHER_TASK) == [lesson]


# --- twins ---


async def test_a_failed_retry_that_teaches_the_same_counts_as_one_and_is_merged(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    for _ in range(2):
        answer = await record(memory, "failure", 0)
        assert [(one.id, one.status) for one in answer.merged] == [(lesson, "provisional")]
        assert answer.lessons == [draft(0)["content"]]
    answer = await record(memory, "failure", 0)
    assert (answer.pruned, answer.merged, len(answer.rejected)) == ([lesson], [], 1)


@pytest.mark.parametrize("task", [TASK, OTHER_TASK])
async def test_a_success_that_teaches_the_same_activates_it(memory: Memory, task: str) -> None:
    lesson = await lesson_of_a_failure(memory)
    answer = await record(memory, "success", 0, task=task)
    assert [(one.id, one.status) for one in answer.merged] == [(lesson, "active")]
    assert await status(memory, lesson) == ("active", "")


async def test_a_failure_at_another_task_that_teaches_the_same_has_it_recalled_there_too(memory: Memory) -> None:
    lesson = await lesson_of_a_failure(memory)
    answer = await record(memory, "failure", 0, task=OTHER_TASK)
    assert [(one.id, one.status) for one in answer.merged] == [(lesson, "provisional")]
    assert await recalled(memory, OTHER_TASK) == [lesson]
    for _ in range(2):
        assert (await record(memory, "failure", task=OTHER_TASK)).pruned == []
    assert (await record(memory, "failure", task=OTHER_TASK)).pruned == [lesson]


async def test_an_active_lesson_stays_active_when_a_failure_teaches_it_again(memory: Memory) -> None:
    [lesson] = (await record(memory, "success", 0)).added
    answer = await record(memory, "failure", 0)
    assert [(one.id, one.status) for one in answer.merged] == [(lesson, "active")]


# --- after a crash ---


@pytest.mark.parametrize(
    ("retries", "expected"), [("f", "provisional"), ("ff", "provisional"), ("fff", "archived"), ("s", "active")]
)
async def test_a_retry_worked_off_twice_counts_once(selective: Settings, retries: str, expected: str) -> None:
    async with Memory.open(selective) as memory:
        lesson = await lesson_of_a_failure(memory)
        for letter in retries:
            answer = await record(memory, "success" if letter == "s" else "failure")
        stored = await stored_trajectory(memory, answer.trajectory_id)
        before, _ = await memory.pool.experience(lesson)
    await put(selective.home, replace(stored, status="pending", answer=""))
    async with Memory.open(selective) as memory:
        await memory.warm_up(download=False)
        assert (await memory.pool.experience(lesson))[0] == before
        assert before.status == expected


async def test_a_retry_that_nobody_worked_off_before_the_crash_is_counted_afterwards(selective: Settings) -> None:
    later = [
        trajectory(f"t-{number}", task=TASK, outcome="failure", created_at=LEARNED + timedelta(minutes=number))
        for number in (1, 2, 3)
    ]
    await put(
        selective.home,
        experience("e-a", status="provisional", status_reason=UNPROVEN),
        trajectory(outcome="failure"),
        *later[:2],
        replace(later[2], status="pending", answer=""),
    )
    async with Memory.open(selective) as memory:
        assert (await status(memory, "e-a"))[0] == "provisional"
        await memory.warm_up(download=False)
        assert (await status(memory, "e-a"))[0] == "archived"


@pytest.mark.parametrize(("retries", "expected"), [("", "provisional"), ("s", "active"), ("fff", "archived")])
async def test_what_a_lesson_has_become_is_not_undone_when_its_own_attempt_is_worked_off_late(
    selective: Settings, retries: str, expected: str
) -> None:
    async with Memory.open(selective) as memory:
        answer = await record(memory, "failure", 0)
        [lesson] = answer.added
        stored = await stored_trajectory(memory, answer.trajectory_id)
        for letter in retries:
            await record(memory, "success" if letter == "s" else "failure")
        before, _ = await memory.pool.experience(lesson)
    # As if the process had died between storing the lesson and answering, and others had gone on.
    named = NamedDraft(lesson, ExperienceDraft.model_validate(draft(0)))
    await put(selective.home, replace(stored, status="pending", answer="", drafts=to_json([named])))
    async with Memory.open(selective) as memory:
        await memory.warm_up(download=False)
        assert (await memory.pool.experience(lesson))[0] == before
        assert before.status == expected
