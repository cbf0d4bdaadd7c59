"""How many notes of a recall one holder can fill with what nobody else has tried, and where they stand."""

from __future__ import annotations

import pytest

from reme_mcp.config.settings import RecallSettings, Settings
from reme_mcp.errors import NotFound
from reme_mcp.memory.memory import Memory
from reme_mcp.recall import exposure
from reme_mcp.recall.ranking import Ranked
from reme_mcp.results import ExplainResult, RecallResult
from tests.fakes import draft, experience

TASK = "publish a static site"
MALLORY, VICTIM, COLLEAGUE = "mallory/mcp", "victim/mcp", "colleague/mcp"


def ranked(id: str, source: str, *, track_record: float = 0.0, **changes: object) -> Ranked:
    return Ranked(experience(id, source=source, **changes), 1, None, 1, None, 1, 1, 0, (), track_record)


def ids(items: list[Ranked]) -> list[str]:
    return [item.experience.id for item in items]


# --- the rules ---


@pytest.mark.parametrize(
    ("source", "credited", "changes", "is_unproven"),
    [
        (MALLORY, False, {}, True),
        # Own successes say nothing.
        (MALLORY, False, {"frequency": 9, "utility": 9}, True),
        (MALLORY, True, {}, False),
        (MALLORY, True, {"track_record": -0.1}, True),
        (MALLORY, False, {"pinned": True}, False),
        (MALLORY, False, {"status_reason": "approved by a person (link: x)"}, False),
        ("victim/another client", False, {}, False),
        ("claude-code", False, {}, False),
        ("file:notes.jsonl", False, {}, False),
        ("cli", False, {}, False),
    ],
)
def test_what_another_holder_brought_has_to_prove_itself(
    source: str, credited: bool, changes: dict[str, object], is_unproven: bool
) -> None:
    item = ranked("e-1", source, **changes)  # type: ignore[arg-type]  # one case has a number of the ranking
    found = exposure.unproven([item], VICTIM, {"e-1"} if credited else set())
    assert found == ({"e-1"} if is_unproven else set())


def test_what_is_unproven_stands_behind_all_that_is_proven_and_keeps_its_place_otherwise() -> None:
    items = [
        ranked("e-1", MALLORY),
        ranked("e-2", VICTIM),
        ranked("e-3", VICTIM, frequency=1, utility=1),
        ranked("e-4", MALLORY),
        ranked("e-5", VICTIM),
    ]
    assert ids(exposure.in_order(items, {"e-1", "e-4"})) == ["e-2", "e-3", "e-1", "e-4", "e-5"]
    assert ids(exposure.in_order(items[:2], {"e-1"})) == ["e-1", "e-2"]
    assert exposure.in_order([], set()) == []


@pytest.mark.parametrize(("limit", "places"), [(1, 1), (3, 1), (4, 1), (5, 2), (10, 4), (20, 8)])
def test_the_share_of_one_holder_goes_with_the_limit(limit: int, places: int) -> None:
    items = [ranked(f"e-{number}", MALLORY) for number in range(20)]
    others = [ranked("e-mine", VICTIM), ranked("e-theirs", COLLEAGUE)]
    kept, over = exposure.within_share([*items, *others], {*ids(items), "e-theirs"}, limit=limit)
    assert ids(kept) == [*ids(items[:places]), "e-mine", "e-theirs"]
    assert over == items[places:]


# --- in a recall ---


async def learn(memory: Memory, number: int, source: str) -> str:
    lesson = draft(number, when_to_use=f"Publish a static site, way {number} of many")
    [id] = (
        await memory.record(f"publish a site {number}", outcome="success", experiences=[lesson], source=source)
    ).added
    return id


async def succeed(memory: Memory, source: str, *used: str) -> None:
    found = await memory.recall(TASK, source=source, limit=20)
    await memory.record(
        f"{TASK} {source} {used}", outcome="success", experiences=[], receipt=found.receipt, used=used, source=source
    )


def handed_out(found: ExplainResult) -> int:
    return sum(one.rule == "handed_out" for one in found.experiences)


def shown(found: RecallResult) -> list[str]:
    return [one.id for one in found.experiences]


@pytest.mark.anyio
async def test_a_holder_does_not_fill_the_recall_of_another(settings: Settings) -> None:
    async with Memory.open(settings.model_copy(update={"recall": RecallSettings(limit=5)})) as memory:
        planted = [await learn(memory, number, MALLORY) for number in range(6)]
        found = await memory.recall(TASK, source=VICTIM)
        assert len(found.experiences) == 2
        assert found.guidance.count("by mallory/mcp") == 2
        explained = await memory.explain(TASK, source=VICTIM)
        assert [one.rule for one in explained.experiences] == ["handed_out"] * 2 + ["exposure"] * 4
        assert "2 of 5 places" in explained.experiences[2].why
        # Who brought them gets them all.
        assert len(shown(await memory.recall(TASK, source=MALLORY))) == 5
        assert handed_out(await memory.explain(TASK, source="cli", reader="mallory")) == 5
        assert handed_out(await memory.explain(TASK, source=MALLORY)) == 5
        assert handed_out(await memory.explain(TASK, source=MALLORY, reader="")) == 2
        with pytest.raises(NotFound, match=r"no holder 'mallry' has brought a lesson here \(those who have: mallory\)"):
            await memory.explain(TASK, reader="mallry")
        # To have succeeded with them oneself proves nothing.
        await succeed(memory, MALLORY, *planted)
        assert len(shown(await memory.recall(TASK, source=VICTIM))) == 2


@pytest.mark.anyio
async def test_what_others_succeeded_with_has_no_limit_and_comes_first(settings: Settings) -> None:
    async with Memory.open(settings.model_copy(update={"recall": RecallSettings(limit=5)})) as memory:
        brought = [await learn(memory, number, MALLORY) for number in range(5)]
        last = shown(await memory.recall(TASK, source=MALLORY))[-1]
        await memory.rate(last, helpful=True, source=COLLEAGUE)
        found = shown(await memory.recall(TASK, source=VICTIM))
        assert found[0] == last
        assert len(found) == 3
        for id in brought:
            await memory.rate(id, helpful=True, source=COLLEAGUE)
        assert sorted(shown(await memory.recall(TASK, source=VICTIM))) == sorted(brought)
        # The last word counts.
        for id in brought:
            await memory.rate(id, helpful=False, source=COLLEAGUE)
        assert len(shown(await memory.recall(TASK, source=VICTIM))) == 2


@pytest.mark.anyio
async def test_where_nobody_has_a_token_there_is_no_other_holder(settings: Settings) -> None:
    async with Memory.open(settings.model_copy(update={"recall": RecallSettings(limit=5)})) as memory:
        for number in range(5):
            await learn(memory, number, f"client-{number % 2}")
        assert len(shown(await memory.recall(TASK, source="client-0"))) == 5
