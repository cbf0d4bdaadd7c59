"""The hold-out through `Memory` and the command line: a note is due, and not shown."""

from __future__ import annotations

import json

import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput
from reme_mcp.memory.memory import Memory
from reme_mcp.results import RecallResult
from reme_mcp.schema import Outcome
from tests.fakes import Run, draft
from tests.memory.memory_cases import TASK, with_refine

pytestmark = pytest.mark.anyio


async def learn(memory: Memory, *numbers: int) -> list[str]:
    drafts = [draft(number) for number in numbers]
    return (await memory.record(TASK, outcome="success", experiences=drafts, source="test")).added


async def with_a_note_withheld(memory: Memory) -> RecallResult:
    """Return the first recall, of 100 at most, from which the only note was withheld."""
    for _ in range(100):
        result = await memory.recall(TASK, source="test")
        if not result.experiences:
            return result
    raise AssertionError("in 100 recalls none was withheld")


async def test_a_withheld_note_is_on_the_receipt_and_nowhere_in_the_answer(settings: Settings) -> None:
    async with Memory.open(with_refine(settings, holdout=0.5)) as memory:
        [id] = await learn(memory, 0)
        result = await with_a_note_withheld(memory)
        assert id not in result.guidance
        (line,) = await memory.pool.receipt(result.receipt)
        assert (line.experience_id, line.arm, line.chance) == (id, "withheld", 0.5)

        # Nobody saw it: nothing of it is settled, and nobody can say that it was used.
        with pytest.raises(InvalidInput, match=f"{id} is not on receipt"):
            await memory.rate(id, helpful=True, receipt=result.receipt, source="test")
        with pytest.raises(InvalidInput, match="handed out nothing"):
            await memory.record(TASK, outcome="success", receipt=result.receipt, used=[id], source="test")
        done = await memory.record(TASK, outcome="success", receipt=result.receipt, source="test")
        assert done.settled == []
        one, tally = await memory.pool.experience(id)
        assert (one.frequency, tally.frequency) == (0, 0)


async def test_the_others_of_a_recall_are_shown_and_settled(settings: Settings) -> None:
    async with Memory.open(with_refine(settings, holdout=0.5)) as memory:
        ids = await learn(memory, 0)
        ids += (
            await memory.record(
                TASK,
                outcome="success",
                experiences=[draft(0, content="Ask the owner of the domain before the name is moved elsewhere.")],
                source="test",
            )
        ).added
        for _ in range(100):
            result = await memory.recall(TASK, source="test")
            if len(result.experiences) == 1:
                break
        [shown] = result.experiences
        assert {line.experience_id: line.arm for line in await memory.pool.receipt(result.receipt)} == {
            id: "" if id == shown.id else "withheld" for id in ids
        }
        done = await memory.record(TASK, outcome="failure", receipt=result.receipt, source="test")
        assert [one.id for one in done.settled] == [shown.id]


@pytest.mark.parametrize("with_receipt", [True, False])
async def test_nothing_is_withheld_without_a_hold_out_or_a_receipt(settings: Settings, with_receipt: bool) -> None:
    share = 0.0 if with_receipt else 0.5
    async with Memory.open(with_refine(settings, holdout=share)) as memory:
        await learn(memory, 0)
        for _ in range(12):
            result = await memory.recall(TASK, source="test", with_receipt=with_receipt)
            assert len(result.experiences) == 1
        if with_receipt:
            (line,) = await memory.pool.receipt(result.receipt)
            assert (line.arm, line.chance) == ("", 0.0)


async def test_a_lesson_without_which_tasks_fail_is_found_to_cause_success(settings: Settings) -> None:
    async with Memory.open(with_refine(settings, holdout=0.5)) as memory:
        [id] = await learn(memory, 0)
        one, _ = await memory.pool.experience(id)
        assert (await memory.pool.lifts([one]))[id].in_words == "no outcome is known"
        arms = {"shown": 0, "withheld": 0}
        while min(arms.values()) < 8:
            result = await memory.recall(TASK, source="test")
            arms["shown" if result.experiences else "withheld"] += 1
            outcome: Outcome = "success" if result.experiences else "failure"
            await memory.record(f"{TASK} {arms}", outcome=outcome, receipt=result.receipt, source="test")

        one, _ = await memory.pool.experience(id)
        told = (await memory.pool.lifts([one]))[id]
        assert (told.is_caused, told.known, told.without) == (True, arms["shown"], arms["withheld"])
        assert told.lift.interval()[0] > 0
        assert (await memory.pool.stats()).lift == {"raises": 1, "lowers": 0, "not_sure": 0}


def test_lessons_are_listed_by_their_lift_and_it_is_told_of_each(run: Run) -> None:
    def learned(number: int, outcome: str) -> str:
        task = {"task": f"task {number}", "outcome": "success", "experiences": [draft(number)]}
        [id] = json.loads(run("record", "-", "--json", given=json.dumps(task)).stdout)["added"]
        for attempt in range(3):
            recalled = json.loads(run("recall", draft(number)["when_to_use"], "--receipt", "--json").stdout)
            told = {"task": f"{number} {attempt}", "outcome": outcome, "receipt": recalled["receipt"]}
            run("record", "-", "--json", given=json.dumps(told))
        found: str = id
        return found

    bad, good = learned(0, "failure"), learned(1, "success")
    listed = json.loads(run("list", "--sort", "lift", "--json").stdout)
    assert [one["id"] for one in listed] == [good, bad]
    assert [one["lift"][0] for one in listed] == ["+", "-"]
    assert "not shown to be caused" in run("list", "--sort", "lift", "--limit", "1").stdout
    assert "lift" not in json.loads(run("list", "--json").stdout)[0]
    assert json.loads(run("show", good, "--json").stdout)["lift"] == listed[0]["lift"]
    assert sum(json.loads(run("stats", "--json").stdout)["lift"].values()) == 2
    assert "--sort out" in run("list", "--deleted", "--sort", "lift").stderr


async def tried(memory: Memory, number: int, outcome: Outcome, times: int) -> str:
    """Record a lesson, and attempts that had it and ended like this."""
    task = draft(number)["when_to_use"]
    assert isinstance(task, str)
    done = await memory.record(task, outcome="success", experiences=[draft(number)], source="test")
    for attempt in range(times):
        result = await memory.recall(task, source="test")
        assert len(result.experiences) == 1
        await memory.record(f"{task} {attempt}", outcome=outcome, receipt=result.receipt, source="test")
    return done.added[0]


@pytest.mark.parametrize(("removal", "is_archived"), [("share", True), ("lift", False)])
async def test_a_lesson_for_hard_tasks_is_removed_by_its_share_and_not_by_its_lift(
    settings: Settings, removal: str, is_archived: bool
) -> None:
    async with Memory.open(with_refine(settings, removal=removal)) as memory:
        for attempt in range(9):
            await memory.record(f"another task {attempt}", outcome="failure", source="test")
        id = await tried(memory, 0, "failure", 4)
        # One of five succeeds with it, and one of ten without.
        result = await memory.recall(str(draft()["when_to_use"]), source="test")
        await memory.record("yet another task", outcome="success", receipt=result.receipt, source="test")
        one, _ = await memory.pool.experience(id)
        assert (one.status == "archived") is is_archived


async def test_a_lesson_with_which_tasks_go_worse_is_removed_by_its_lift_with_the_figures(settings: Settings) -> None:
    async with Memory.open(with_refine(settings, removal="lift")) as memory:
        for attempt in range(20):
            await memory.record(f"another task {attempt}", outcome="success", source="test")
        bad, good = await tried(memory, 0, "failure", 5), await tried(memory, 1, "success", 5)
        one, _ = await memory.pool.experience(bad)
        assert one.status == "archived"
        assert one.status_reason.startswith("tasks go worse with it: -")
        assert "not shown to be caused" in one.status_reason
        assert (await memory.pool.experience(good))[0].status == "active"
        # What is restored starts anew, and so does what is known of its lift.
        back = await memory.pool.restore(bad)
        assert (await memory.pool.lifts([back]))[bad].known == 0
        assert await memory.pool.prune() == []
