"""The pool on disk: what is written comes back, only to its workspace, and to every handle on the home."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reme_mcp.schema import Experience, ReceiptLine, Trajectory
from reme_mcp.store.store import Store
from tests.fakes import LEARNED, experience, line, trajectory
from tests.store.store_cases import EVERY_STATUS, found, opened, put, put_vectors, unit
from tests.store.store_cases import store as store

pytestmark = pytest.mark.anyio

FULL_EXPERIENCE = Experience(
    id="e-full",
    workspace="team.a",
    when_to_use="Wenn's brennt 🔥",
    content="Zeile eins\nZeile 'zwei'",
    keywords=("日本語", "", "a,b"),
    confidence=0.1 + 0.2,
    tools_used=("get_stock_info",),
    kind="comparative",
    task="task",
    generalized_task="general",
    frequency=2**40,
    utility=7,
    prior_frequency=6,
    prior_utility=5,
    source="cli",
    author="gpt",
    trajectory_ids=("t-1", "t-2"),
    created_at=LEARNED + timedelta(microseconds=1),
    updated_at=LEARNED + timedelta(days=1),
    counted_since=LEARNED + timedelta(days=2),
    status="quarantined",
    status_reason="looks like an instruction",
    pinned=True,
)


FULL_TRAJECTORY = Trajectory(
    id="t-full",
    workspace="team.a",
    task="Task",
    task_key="task",
    outcome="failure",
    reward=0.25,
    transcript='{"steps": []}',
    digest="d",
    drafts_digest="dd",
    receipt="r-1",
    source="cli",
    created_at=LEARNED + timedelta(microseconds=1),
    updated_at=LEARNED + timedelta(days=1),
    status="pending",
    drafts="[1]",
    rejected="[2]",
    answer="{3}",
)


FULL_LINE = ReceiptLine(
    receipt="r-full",
    experience_id="e-full",
    workspace="team.a",
    task="task",
    rank=3,
    source="cli",
    created_at=LEARNED + timedelta(microseconds=1),
    helped=False,
    settled_by="rating",
    settled_at=LEARNED + timedelta(days=1),
    reason="wrong folder",
)


# --- round trips ---


@pytest.mark.parametrize("one", [FULL_EXPERIENCE, experience(id="e-full", workspace="team.a", keywords=())])
async def test_an_experience_comes_back_as_it_was(home: Path, one: Experience) -> None:
    async with opened(home) as store:
        await put(store, one)
        assert await store.experiences("team.a", ["e-full"]) == {"e-full": one}
    async with opened(home) as store:
        assert await store.experiences("team.a", ["e-full"]) == {"e-full": one}


async def test_a_trajectory_comes_back_as_it_was(store: Store) -> None:
    await put(store, FULL_TRAJECTORY)
    assert await store.trajectory("team.a", "t-full") == FULL_TRAJECTORY


@pytest.mark.parametrize("one", [FULL_LINE, replace(FULL_LINE, helped=None, settled_by="", settled_at=None, reason="")])
async def test_a_receipt_line_comes_back_as_it_was(store: Store, one: ReceiptLine) -> None:
    await put(store, one)
    assert await store.receipts.lines("team.a", "r-full") == [one]


async def test_an_experience_with_a_known_id_replaces_the_older_one(store: Store) -> None:
    await put(store, experience("e-a"), experience("e-b"))
    await put(store, experience("e-a", content="Something else."))
    assert (await store.experiences("default", ["e-a", "e-b"])) == {
        "e-a": experience("e-a", content="Something else."),
        "e-b": experience("e-b"),
    }
    assert await store.count("default") == {"active": 2}


async def test_a_settled_line_replaces_the_open_one_and_only_it(store: Store) -> None:
    lines = [line(experience_id="e-a"), line(experience_id="e-b", rank=2), line("r-other", experience_id="e-a")]
    await put(store, *lines)
    settled = replace(lines[0], helped=True, settled_by="trajectory", settled_at=LEARNED)
    async with store.writing() as writer:
        await writer.settle([settled])
    assert await store.receipts.lines("default", lines[0].receipt) == [settled, lines[1]]
    assert await store.receipts.lines("default", "r-other") == [lines[2]]


async def test_a_receipt_comes_in_rank_order(store: Store) -> None:
    await put(store, *(line(experience_id=f"e-{rank}", rank=rank) for rank in (3, 1, 2)))
    assert [one.rank for one in await store.receipts.lines("default", line().receipt)] == [1, 2, 3]


async def test_unknown_ids_find_nothing(store: Store) -> None:
    await put(store, experience("e-a"), trajectory("t-a"), line("r-a"))
    assert await store.experiences("default", ["e-x"]) == {}
    assert await store.experiences("default", []) == {}
    assert await store.trajectory("default", "t-x") is None
    assert await store.receipts.lines("default", "r-x") == []
    assert await store.receipts.latest_line("default", "e-x", "test") is None


async def test_writing_nothing_is_no_error(store: Store) -> None:
    async with store.writing() as writer:
        await writer.put_experiences([])
        await writer.put_vectors("fake", [], unit(), unit())
        await writer.settle([])
    assert await store.count("default") == {}


# --- pages, attempts, counts ---


async def test_pages_are_newest_first_and_hold_each_experience_once(store: Store) -> None:
    pool = [experience(f"e-{hour:02d}", created_at=LEARNED + timedelta(hours=hour)) for hour in range(10)]
    await put(store, *pool)
    pages = [await store.page("default", offset=offset, limit=3) for offset in (0, 3, 6, 9, 12)]
    assert [one.id for page in pages for one in page] == [f"e-{hour:02d}" for hour in reversed(range(10))]
    assert [len(page) for page in pages] == [3, 3, 3, 1, 0]


async def test_pages_hold_each_experience_once_even_if_all_are_of_the_same_moment(store: Store) -> None:
    await put(store, *(experience(f"e-{number:02d}") for number in range(30)))
    await put(store, experience("e-03", pinned=True))
    ids = [one.id for offset in range(0, 30, 7) for one in await store.page("default", offset=offset, limit=7)]
    assert sorted(ids) == [f"e-{number:02d}" for number in range(30)]


async def test_a_page_holds_only_the_statuses_that_are_asked_for(store: Store) -> None:
    await put(store, *(experience(f"e-{status}", status=status) for status in EVERY_STATUS))
    assert {one.id for one in await store.page("default", statuses=["active", "archived"])} == {
        "e-active",
        "e-archived",
    }
    assert len(await store.page("default")) == 4
    assert await store.count("default") == dict.fromkeys(sorted(EVERY_STATUS), 1)
    assert set(await store.experiences("default", [f"e-{s}" for s in EVERY_STATUS], statuses=["active"])) == {
        "e-active"
    }


async def test_the_latest_attempts_at_a_task_come_newest_first(store: Store) -> None:
    await put(
        store,
        *(trajectory(f"t-{hour}", created_at=LEARNED + timedelta(hours=hour)) for hour in range(4)),
        trajectory("t-other", task="Boil eggs"),
    )
    attempts = await store.attempts("default", trajectory().task_key, limit=3)
    assert [one.id for one in attempts] == ["t-3", "t-2", "t-1"]


async def test_outcomes_of_a_task_come_oldest_first(store: Store) -> None:
    await put(
        store,
        *(
            trajectory(f"t-{hour}", outcome=outcome, created_at=LEARNED + timedelta(hours=hour))
            for hour, outcome in ((2, "success"), (1, "failure"))
        ),
        trajectory("t-other", task="Boil eggs"),
        trajectory("t-theirs", workspace="other"),
    )
    attempts = await store.outcomes("default", trajectory().task_key)
    assert [(one.id, one.outcome) for one in attempts] == [("t-1", "failure"), ("t-2", "success")]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [((), set()), (("t-1",), {"e-a"}), (("t-9", "t-2"), {"e-a", "e-b"}), (("t-9",), set()), (("it's",), {"e-odd"})],
)
async def test_provisional_experiences_are_found_by_any_of_their_trajectories(
    store: Store, ids: tuple[str, ...], expected: set[str]
) -> None:
    await put(
        store,
        experience("e-a", status="provisional", trajectory_ids=("t-1", "t-2")),
        experience("e-b", status="provisional", trajectory_ids=("t-2",)),
        experience("e-odd", status="provisional", trajectory_ids=("it's",)),
        experience("e-active", trajectory_ids=("t-1",)),
        experience("e-theirs", status="provisional", trajectory_ids=("t-1",), workspace="other"),
    )
    assert {one.id for one in await store.provisional("default", ids)} == expected


async def test_the_latest_line_is_the_newest_of_the_same_source(store: Store) -> None:
    await put(
        store,
        line("r-old", created_at=LEARNED),
        line("r-new", created_at=LEARNED + timedelta(hours=1)),
        line("r-theirs", created_at=LEARNED + timedelta(hours=2), source="other"),
    )
    latest = await store.receipts.latest_line("default", line().experience_id, "test")
    assert latest is not None
    assert latest.receipt == "r-new"


async def test_pending_trajectories_are_found_in_every_workspace(store: Store) -> None:
    await put(
        store,
        trajectory("t-done", status="distilled"),
        trajectory("t-a", status="pending"),
        trajectory("t-b", status="pending", workspace="other"),
    )
    assert {one.id for one in await store.pending()} == {"t-a", "t-b"}


async def test_trajectories_and_receipts_are_counted(store: Store) -> None:
    await put(
        store,
        trajectory("t-a", status="distilled"),
        trajectory("t-b", status="pending"),
        trajectory("t-c", outcome="failure", reward=0.0),
        line("r-a", experience_id="e-a", helped=True),
        line("r-a", experience_id="e-b", helped=False),
        line("r-b", experience_id="e-b"),
        line("r-c", experience_id="", rank=0),
    )
    assert await store.count_trajectories("default") == {"success": 2, "failure": 1, "undistilled": 2}
    assert await store.receipts.count("default") == {"recalls": 3, "recalled": 3, "settled": 2, "succeeded": 1}


async def test_a_tally_counts_open_and_settled_lines_apart(store: Store) -> None:
    later = LEARNED + timedelta(hours=1)
    await put(
        store,
        line("r-a", helped=True),
        line("r-b", helped=False),
        line("r-c", created_at=later),
        line("r-d", experience_id="e-other", helped=True),
    )
    never = experience("e-never")
    tallies = await store.receipts.tally([experience(), never])
    own = tallies[experience().id]
    assert (own.recalled, own.frequency, own.utility, own.last_recalled_at) == (3, 2, 1, later)
    assert (tallies["e-never"].recalled, tallies["e-never"].last_recalled_at) == (0, None)
    assert await store.receipts.tally([]) == {}


@pytest.mark.parametrize(("shift", "counted"), [(-1, 1), (0, 1), (1, 0)])
async def test_a_tally_counts_receipts_from_counted_since_on(store: Store, shift: int, counted: int) -> None:
    await put(store, line(helped=True))
    one = experience(counted_since=LEARNED + timedelta(microseconds=shift))
    assert (await store.receipts.tally([one]))[one.id].frequency == counted


@pytest.mark.parametrize("others", [0, 30])
async def test_voices_of_many_are_those_that_a_tally_tells_of_each(store: Store, others: int) -> None:
    """With 30 others they are looked up one by one."""
    restored = LEARNED + timedelta(minutes=2)
    asked = [experience("e-a"), experience("e-b", counted_since=restored), experience("e-c")]
    sources = ("claude-code", "alice/cursor", "alice/codex", "bob/codex")
    lines = [
        line(
            f"r-{number}",
            experience_id=asked[number % 2].id,
            source=sources[number % 4],
            created_at=LEARNED + timedelta(minutes=number),
            **({"helped": number % 3 == 0, "settled_by": "rating"} if number % 5 else {}),
        )
        for number in range(12)
    ]
    withheld = line("r-w", experience_id="e-a", arm="withheld", helped=False, settled_by="rating")
    not_asked = line("r-n", experience_id="e-other0", helped=True, settled_by="rating")
    gone = line("r-g", experience_id="e-gone", helped=True, settled_by="rating")
    fillers = [experience(f"e-other{number}") for number in range(others)]
    await put(store, *asked, *fillers, *lines, withheld, not_asked, gone)
    tallies = await store.receipts.tally(asked)
    lessons = await store.summaries("default")
    voices = await store.receipts.voices("default", lessons, lessons.rows_of(one.id for one in asked))
    told = {lessons.id[row]: tuple(raters) for row, raters in voices.items()}
    assert told == {one.id: tallies[one.id].voices for one in asked if tallies[one.id].voices}
    assert {len(raters) for raters in told.values()} == {2}
    assert tallies["e-b"].recalled == 5
    assert await store.receipts.voices("default", lessons, lessons.rows_of([])) == {}


# --- workspaces ---


async def test_a_workspace_sees_nothing_of_another(store: Store) -> None:
    await put(
        store,
        experience("e-a", workspace="a"),
        trajectory("t-a", workspace="a"),
        line("r-a", workspace="a", experience_id="e-a"),
    )
    await put_vectors(store, "fake", {"e-a": (1, 0)}, workspace="a")
    key = trajectory().task_key

    async def seen(workspace: str) -> list[Any]:
        return [
            await store.experiences(workspace, ["e-a"]),
            await store.page(workspace),
            await store.count(workspace),
            await store.match_text(workspace, "static site", statuses=EVERY_STATUS, limit=5),
            await store.match_vector("fake", workspace, unit(1, 0), limit=5),
            await store.trajectory(workspace, "t-a"),
            await store.trajectory_by_digest(workspace, "d1"),
            await store.attempts(workspace, key, limit=5),
            await store.receipts.lines(workspace, "r-a"),
            await store.receipts.latest_line(workspace, "e-a", "test"),
            (await store.count_trajectories(workspace))["success"],
            (await store.receipts.count(workspace))["recalls"],
        ]

    assert all(await seen("a"))
    for other in ("b", "A", "a ", "%", "_", "", "a' OR '1'='1"):
        assert not any(await seen(other)), other
    assert await store.workspaces() == ["a"]


async def test_deleting_takes_the_experience_with_its_vectors_but_not_its_receipts(store: Store) -> None:
    await put(store, experience("e-a"), experience("e-b"), line(experience_id="e-a"))
    await put_vectors(store, "one", {"e-a": (1, 0), "e-b": (0, 1)})
    await put_vectors(store, "two", {"e-a": (1, 0, 0), "e-b": (0, 1, 0)})
    async with store.writing() as writer:
        await writer.delete_experience("default", "e-a")
    assert [one.id for one in await store.page("default")] == ["e-b"]
    assert await found(store, "static site") == {"e-b"}
    assert [id for id, _ in await store.match_vector("one", "default", unit(1, 0), limit=5)] == ["e-b"]
    assert [id for id, _ in await store.match_vector("two", "default", unit(1, 0, 0), limit=5)] == ["e-b"]
    assert len(await store.receipts.lines("default", line().receipt)) == 1


async def test_deleting_in_another_workspace_deletes_nothing(store: Store) -> None:
    await put(store, experience("e-a"))
    async with store.writing() as writer:
        await writer.delete_experience("other", "e-a")
    assert len(await store.page("default")) == 1


async def test_deleting_in_another_workspace_deletes_no_vector(store: Store) -> None:
    await put(store, experience("e-a"))
    await put_vectors(store, "fake", {"e-a": (1, 0)})
    async with store.writing() as writer:
        await writer.delete_experience("other", "e-a")
    assert await store.match_vector("fake", "default", unit(1, 0), limit=5)
