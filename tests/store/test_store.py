"""The pool on disk: what is written comes back, only to its workspace, and to every handle on the home."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import lancedb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from reme_mcp.errors import StoreError
from reme_mcp.schema import Experience, ReceiptLine, Status, Trajectory
from reme_mcp.store.compaction import EVERY_WRITES
from reme_mcp.store.migrations import SCHEMA_VERSION
from reme_mcp.store.store import Store
from reme_mcp.store.tables import space_name
from tests.fakes import LEARNED, experience, line, trajectory

pytestmark = pytest.mark.anyio

EVERY_STATUS: tuple[Status, ...] = ("active", "provisional", "quarantined", "archived")
# What would end a literal, match more than itself, or mean something to a query language.
NASTY = [
    "it's",
    "''",
    "x' OR '1'='1",
    "'; DROP TABLE experiences; --",
    'say "hi"',
    "100%",
    "a_b",
    "back\\slash\\",
    "`tick`",
    "$1 ? :name {x}",
    "línea\nzwei",
    "日本語 🦊",
    "\u202eright to left",
    "NULL",
    "true",
    "nul\0inside",
    "*",
    "+must -not ~near^2 (a AND b)",
]


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Store]:
    store = await Store.open(home)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
async def store(home: Path) -> AsyncIterator[Store]:
    async with opened(home) as store:
        yield store


async def put(store: Store, *values: Experience | Trajectory | ReceiptLine) -> None:
    async with store.writing() as writer:
        experiences = [one for one in values if isinstance(one, Experience)]
        await writer.put_counters(experiences)
        await writer.put_experiences(experiences)
        for value in values:
            if isinstance(value, Trajectory):
                await writer.put_trajectory(value)
    for value in values:
        if isinstance(value, ReceiptLine):
            await store.add_receipt([value])


async def put_vectors(
    store: Store, embedder: str, vectors: Mapping[str, Sequence[float]], workspace: str = "default"
) -> None:
    rows = np.asarray(list(vectors.values()), dtype=np.float32)
    async with store.writing() as writer:
        # The lessons' own vectors are the same backwards, to be told apart.
        await writer.put_vectors(
            embedder, [experience(id, workspace=workspace) for id in vectors], rows, rows[:, ::-1].copy()
        )


def unit(*numbers: float) -> npt.NDArray[np.float32]:
    return np.asarray(numbers, dtype=np.float32)


async def found(store: Store, query: str, *, workspace: str = "default") -> set[str]:
    return {id for id, _ in await store.match_text(workspace, query, statuses=EVERY_STATUS, limit=20)}


# --- round trips ---

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


# --- text in filters ---


@pytest.mark.parametrize("text", NASTY)
async def test_any_text_in_a_filter_means_itself(store: Store, text: str) -> None:
    other = "harmless"
    for value in (text, other):
        await put(
            store,
            experience(value, workspace=value),
            trajectory(value, workspace=value, task_key=value, digest=value),
            line(value, experience_id=value, workspace=value, source=value),
        )
    await put_vectors(store, text, {text: (1, 0)}, workspace=text)
    assert list(await store.experiences(text, [text, other])) == [text]
    assert [one.id for one in await store.page(text)] == [text]
    for one in (
        await store.trajectory(text, text),
        await store.trajectory_by_digest(text, text),
        *await store.attempts(text, text, limit=9),
    ):
        assert one is not None
        assert one.id == text
    assert [one.receipt for one in await store.receipts.lines(text, text)] == [text]
    assert (await store.receipts.latest_line(text, text, text)) is not None
    assert (await store.receipts.tally([experience(text)]))[text].recalled == 1
    assert dict(await store.match_vector(text, text, unit(1, 0), limit=9)) == pytest.approx({text: 1})
    assert await found(store, "static site", workspace=text) == {text}
    async with store.writing() as writer:
        await writer.delete_experience(text, text)
    assert await store.page(text) == []
    assert len(await store.page(other)) == 1


@pytest.mark.parametrize("query", [*NASTY, "", " ", "?!…", "the of and", "🦊", "x" * 8_000, "word " * 1_600])
async def test_any_text_is_a_query(store: Store, query: str) -> None:
    await put(store, experience("e-a"))
    assert await found(store, query) <= {"e-a"}
    assert await found(store, f"{query} static") == {"e-a"}


# --- full text ---


@pytest.mark.parametrize(
    ("content", "query"),
    [
        ("Deploying the pages failed twice.", "deploy page fails"),
        ("Compare the limits.", "comparing"),
        ("先运行构建命令再上传网站。", "构建命令"),
        ("アップロードする前にサイトをビルドする。", "ビルド"),
        ("東京駅で切符を買う", "切符"),
        ("Call get_stock_info first.", "stock"),
        ("Call startEngine first.", "engine"),
        ("Vor dem Hochladen prüfen", "PRÜFEN"),
        ("Проверить перед загрузкой", "загрузкой"),
    ],
)
async def test_words_are_found_in_their_own_language(store: Store, content: str, query: str) -> None:
    blank = {"task": "", "generalized_task": "", "when_to_use": "", "keywords": ()}
    await put(
        store, experience("e-a", content=content, **blank), experience("e-b", content="Eggs 鸡蛋 たまご", **blank)
    )
    assert await found(store, query) == {"e-a"}


@pytest.mark.parametrize("field", ["when_to_use", "content", "task", "generalized_task", "keywords", "tools_used"])
async def test_a_word_is_found_in_every_field(store: Store, field: str) -> None:
    changes: dict[str, Any] = {field: ("zebra",) if field in ("keywords", "tools_used") else "a zebra"}
    await put(store, experience("e-a", **changes), experience("e-b"))
    assert await found(store, "zebra") == {"e-a"}


async def test_the_better_match_is_first_and_the_limit_holds(store: Store) -> None:
    await put(
        store,
        experience("e-once", content="A zebra ran past the gate of the zoo."),
        experience("e-twice", content="A zebra met a zebra crossing."),
    )
    hits = await store.match_text("default", "zebra crossing", statuses=["active"], limit=2)
    assert [id for id, _ in hits] == ["e-twice", "e-once"]
    assert hits[0][1] > hits[1][1]
    assert len(await store.match_text("default", "zebra crossing", statuses=["active"], limit=1)) == 1


async def test_text_search_keeps_to_the_statuses_asked_for(store: Store) -> None:
    await put(store, *(experience(f"e-{status}", status=status) for status in EVERY_STATUS))
    hits = await store.match_text("default", "static site", statuses=["active", "archived"], limit=9)
    assert {id for id, _ in hits} == {"e-active", "e-archived"}
    hits = await store.match_text("default", "static site", statuses=["active"], also=["e-provisional"], limit=9)
    assert {id for id, _ in hits} == {"e-active", "e-provisional"}


async def test_a_changed_experience_is_found_by_its_new_words_only(store: Store) -> None:
    await put(store, experience("e-a", content="A zebra."))
    await put(store, experience("e-a", content="A giraffe."))
    assert await found(store, "giraffe") == {"e-a"}
    assert await found(store, "zebra") == set()


# --- vectors ---


async def test_vectors_come_in_the_exact_order_of_their_cosines(store: Store) -> None:
    vectors = {"e-far": (-1.0, 0.0), "e-near": (0.8, 0.6), "e-same": (1.0, 0.0), "e-side": (0.0, 1.0)}
    await put_vectors(store, "fake", vectors)
    hits = await store.match_vector("fake", "default", unit(1, 0), limit=9)
    assert [id for id, _ in hits] == ["e-same", "e-near", "e-side", "e-far"]
    assert [cosine for _, cosine in hits] == pytest.approx([1, 0.8, 0, -1])
    assert await store.match_vector("fake", "default", unit(1, 0), limit=2) == hits[:2]


async def test_the_vectors_of_the_lessons_come_by_id(store: Store) -> None:
    await put_vectors(store, "fake", {"e-a": (0.8, 0.6), "e-b": (1.0, 0.0)})
    lessons = await store.lesson_vectors("fake", ["e-a", "e-unknown"])
    assert {id: list(vector) for id, vector in lessons.items()} == {"e-a": pytest.approx([0.6, 0.8])}
    assert await store.lesson_vectors("fake", []) == {}
    assert await store.lesson_vectors("unknown", ["e-a"]) == {}


async def test_any_limit_gives_the_start_of_the_same_order(store: Store) -> None:
    angles = np.random.default_rng(7).uniform(0, np.pi, 50)
    await put_vectors(store, "fake", {f"e-{i}": (float(np.cos(a)), float(np.sin(a))) for i, a in enumerate(angles)})
    everything = await store.match_vector("fake", "default", unit(1, 0), limit=100)
    assert [id for id, _ in everything] == [f"e-{i}" for i in np.argsort(angles)]
    for limit in (1, 2, 49, 50, 51):
        assert await store.match_vector("fake", "default", unit(1, 0), limit=limit) == everything[:limit]


async def test_above_the_size_of_the_matrix_the_answer_is_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put_vectors(store, "fake", {"e-near": (0.8, 0.6), "e-same": (1.0, 0.0), "e-far": (-1.0, 0.0)})
    await put_vectors(store, "fake", {"e-theirs": (1.0, 0.0)}, workspace="other")
    in_memory = await store.match_vector("fake", "default", unit(1, 0), limit=2)
    for rows in (4, 3):
        monkeypatch.setattr("reme_mcp.store.cache.ROWS_IN_MEMORY", rows)
        hits = await store.match_vector("fake", "default", unit(1, 0), limit=2)
        assert [id for id, _ in hits] == [id for id, _ in in_memory] == ["e-same", "e-near"]
        assert [cosine for _, cosine in hits] == pytest.approx([cosine for _, cosine in in_memory], abs=1e-6)


async def test_two_embedders_of_different_size_live_side_by_side(store: Store) -> None:
    await put(store, experience("e-a"), experience("e-b"))
    await put_vectors(store, "small", {"e-a": (1, 0), "e-b": (0, 1)})
    await put_vectors(store, "large", {"e-a": (0, 0, 1)})
    assert (await store.match_vector("small", "default", unit(0, 1), limit=1))[0][0] == "e-b"
    assert dict(await store.match_vector("large", "default", unit(0, 0, 1), limit=5)) == pytest.approx({"e-a": 1})
    assert await store.match_vector("unknown", "default", unit(1), limit=5) == []
    assert await store.without_vector("small") == []
    assert await store.without_vector("large") == ["e-b"]
    assert await store.without_vector("unknown") == ["e-a", "e-b"]


async def test_a_vector_stored_again_replaces_the_older_one(store: Store) -> None:
    await put_vectors(store, "fake", {"e-a": (1, 0)})
    assert dict(await store.match_vector("fake", "default", unit(1, 0), limit=5)) == pytest.approx({"e-a": 1})
    await put_vectors(store, "fake", {"e-a": (0, 1)})
    assert dict(await store.match_vector("fake", "default", unit(1, 0), limit=5)) == pytest.approx({"e-a": 0})


async def test_vectors_in_memory_follow_every_change(home: Path) -> None:
    """Against what a handle that has nothing in memory yet reads."""
    random = np.random.default_rng(11)
    async with opened(home) as store, opened(home) as writer:
        for step in range(12):
            for _ in range(2):
                angle = float(random.uniform(0, np.pi))
                id, workspace = f"e-{random.integers(8)}", "default" if random.integers(2) else "other"
                await put_vectors(writer, "fake", {id: (np.cos(angle), np.sin(angle))}, workspace=workspace)
            if step % 4 == 3:
                await put_vectors(store, "fake", {f"e-own{step}": (1, 0)})
            async with opened(home) as fresh:
                for workspace in ("default", "other"):
                    expected = await fresh.match_vector("fake", workspace, unit(1, 0), limit=99)
                    assert dict(await store.match_vector("fake", workspace, unit(1, 0), limit=99)) == dict(expected)


async def test_a_deleted_vector_is_gone_from_memory(home: Path) -> None:
    async with opened(home) as store, opened(home) as other:
        await put_vectors(store, "fake", {"e-a": (1, 0), "e-b": (0, 1), "e-c": (1, 1)})
        assert len(await store.match_vector("fake", "default", unit(1, 0), limit=9)) == 3
        async with other.writing() as writer:
            await writer.delete_experience("default", "e-a")
        await put_vectors(other, "fake", {"e-d": (0, 1)})
        await store.match_vector("fake", "default", unit(1, 0), limit=9)
        hits = await store.match_vector("fake", "default", unit(1, 0), limit=9)
        assert {id for id, _ in hits} == {"e-b", "e-c", "e-d"}


async def test_what_was_too_large_for_memory_is_whole_once_it_fits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(home) as store:
        await put(store, experience("e-a"), experience("e-b"))
        await put_vectors(store, "fake", {"e-a": (1, 0), "e-b": (0, 1)})
        for rows in (1, 9, 1, 9):
            monkeypatch.setattr("reme_mcp.store.cache.ROWS_IN_MEMORY", rows)
            # Only what changed is looked at.
            await put(store, experience("e-b", utility=rows))
            await put_vectors(store, "fake", {"e-b": (0, 1)})
            assert set(await store.experiences("default", ["e-a", "e-b"])) == {"e-a", "e-b"}
            assert len(await store.match_vector("fake", "default", unit(1, 0), limit=9)) == 2


async def test_a_reader_that_is_interrupted_leaves_nothing_half_read(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home) as store, opened(home) as other:
        await put(store, experience("e-a"), experience("e-b"), experience("e-c"))
        assert len(await store.experiences("default", ["e-a", "e-b", "e-c"])) == 3
        async with other.writing() as writer:
            await writer.delete_experience("default", "e-a")
        read_places = Store._read_places
        with anyio.CancelScope() as scope:

            async def interrupted(self: Store, *, with_rows: bool) -> None:
                # In the second read, after all was forgotten because rows are gone.
                if not self._directory.places:
                    scope.cancel()
                await read_places(self, with_rows=with_rows)

            monkeypatch.setattr(Store, "_read_places", interrupted)
            await store.experiences("default", ["e-b"])
        assert scope.cancelled_caught
        monkeypatch.undo()
        assert set(await store.experiences("default", ["e-a", "e-b", "e-c"])) == {"e-b", "e-c"}


@pytest.mark.parametrize("ahead", [0, 2, 3])
async def test_what_was_read_before_is_read_anew_once_anybody_has_changed_it(
    home: Path, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reme_mcp.store.cache.ROWS_READ_AHEAD", ahead)
    async with opened(home) as store, opened(home) as other:
        await put(store, experience("e-a"), experience("e-b"))
        for utility in range(3):
            for writer in (store, other):
                await put(writer, experience("e-a", utility=utility))
                read = await store.experiences("default", ["e-b", "e-a"])
                assert [(one.id, one.utility) for one in read.values()] == [("e-b", 0), ("e-a", utility)]


async def test_what_is_changed_while_it_is_read_is_not_taken_for_the_newest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home) as store, opened(home) as other:
        monkeypatch.setattr("reme_mcp.store.cache.ROWS_READ_AHEAD", 0)
        await put(other, experience("e-a"))
        take = Store._take

        async def overtaken(self: Store, rows: Sequence[int]) -> list[pa.RecordBatch]:
            taken = await take(self, rows)
            monkeypatch.setattr(Store, "_take", take)
            await put(other, experience("e-a", utility=5))
            # Another call of this process sees the change before this one goes on.
            await store.experiences("default", ["e-a"])
            return taken

        monkeypatch.setattr(Store, "_take", overtaken)
        await store.experiences("default", ["e-a"])
        assert (await store.experiences("default", ["e-a"]))["e-a"].utility == 5


async def test_words_find_what_is_active_behind_any_number_that_is_not(store: Store) -> None:
    better = [experience(f"e-{number}", status="archived", content="lock lock lock") for number in range(9)]
    await put(store, *better, experience("e-last", content="lock the doors of the car before it is left"))
    hits = await store.match_text("default", "lock", statuses=["active"], limit=2)
    assert [id for id, _ in hits] == ["e-last"]
    assert len(await store.match_text("default", "lock", statuses=["active"], also=["e-3"], limit=2)) == 2


async def test_what_is_to_be_embedded_comes_from_every_workspace(store: Store) -> None:
    await put(store, experience("e-a", workspace="a"), experience("e-b", workspace="b"))
    assert await store.without_vector("fake") == ["e-a", "e-b"]
    assert {one.workspace for one in await store.experiences_to_embed(["e-a", "e-b"])} == {"a", "b"}


@pytest.mark.parametrize(
    ("one", "other"), [("A/b", "a/b"), ("a/b", "a_b"), ("模型", "模型二"), ("x" * 100, "x" * 101), ("", " ")]
)
def test_two_names_of_embedders_are_two_spaces(one: str, other: str) -> None:
    assert space_name(one) != space_name(other)
    assert space_name(one) == space_name(one)


# --- several handles ---


async def test_what_one_handle_writes_the_other_sees_at_once(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:
        for number in range(3):
            id = f"e-{number}"
            await put(one, experience(id), trajectory(f"t-{number}"), line(f"r-{number}", experience_id=id))
            await put_vectors(one, "fake", {id: (1.0, number)})
            assert id in await other.experiences("default", [id])
            assert id in await found(other, "static site")
            assert await other.trajectory("default", f"t-{number}") is not None
            assert await other.receipts.lines("default", f"r-{number}") != []
            assert len(await other.match_vector("fake", "default", unit(1, 0), limit=9)) == number + 1
        async with other.writing() as writer:
            await writer.delete_experience("default", "e-0")
        assert await one.experiences("default", ["e-0"]) == {}
        assert len(await one.match_vector("fake", "default", unit(1, 0), limit=9)) == 2


async def test_two_handles_write_at_the_same_time_and_nothing_is_lost(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:

        async def write(store: Store, name: str) -> None:
            for number in range(8):
                await put(store, experience(f"e-{name}{number}"), line(f"r-{name}{number}"))
                await put_vectors(store, "fake", {f"e-{name}{number}": (1, 0)})

        async with anyio.create_task_group() as tasks:
            for store, name in ((one, "a"), (one, "b"), (other, "c"), (other, "d")):
                tasks.start_soon(write, store, name)
        for store in (one, other):
            assert await store.count("default") == {"active": 32}
            assert (await store.receipts.count("default"))["recalls"] == 32
            assert len(await store.match_vector("fake", "default", unit(1, 0), limit=99)) == 32


async def test_read_change_write_by_two_handles_loses_no_change(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-a"))

        async def add_one(store: Store) -> None:
            async with store.settling() as writer:
                current = (await store.experiences("default", ["e-a"]))["e-a"]
                await writer.put_counters([replace(current, frequency=current.frequency + 1)])

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(add_one, one)
                tasks.start_soon(add_one, other)
        assert (await one.experiences("default", ["e-a"]))["e-a"].frequency == 16


async def test_handles_that_open_a_new_home_together_make_one_pool(home: Path) -> None:
    opened_stores: list[Store] = []

    async def open_one() -> None:
        opened_stores.append(await Store.open(home))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(open_one)
    for number, store in enumerate(opened_stores):
        await put(store, experience(f"e-{number}"))
    for store in opened_stores:
        assert await found(store, "static site") == {"e-0", "e-1", "e-2", "e-3"}
        store.close()


# --- the home ---


def lay(home: Path, name: str, content: str | bytes) -> None:
    """Put a file into the folder, which is made if it is not there."""
    home.mkdir(exist_ok=True)
    (home / name).write_bytes(content.encode() if isinstance(content, str) else content)


def names(home: Path) -> list[str]:
    return [entry.name for entry in home.iterdir()]


async def test_a_home_is_made_private_with_its_parents(tmp_path: Path) -> None:
    home = tmp_path / "not" / "there"
    async with opened(home):
        assert home.stat().st_mode & 0o077 == 0
        assert json.loads((home / "home.json").read_text())["schema"] == SCHEMA_VERSION


async def test_an_empty_folder_becomes_a_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("empty")
    async with opened(home) as store:
        assert await store.count("default") == {}


async def test_a_folder_that_is_no_home_is_refused_and_untouched(home: Path) -> None:
    lay(home, "thesis.tex", "years of work")
    with pytest.raises(StoreError, match="not empty and not a home"):
        await Store.open(home)
    assert names(home) == ["thesis.tex"]
    assert (home / "thesis.tex").read_text() == "years of work"


async def test_a_folder_with_a_file_about_pools_is_no_home(home: Path) -> None:
    lay(home, "pool-party.jpg", "not ours")
    with pytest.raises(StoreError):
        (await Store.open(home)).close()


@pytest.mark.parametrize("home_name", ["file", "file/below"])
async def test_a_home_that_is_a_file_or_below_one_is_refused(tmp_path: Path, home_name: str) -> None:
    lay(tmp_path, "file", "not ours")
    with pytest.raises(StoreError, match="--home"):
        await Store.open(tmp_path / home_name)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '"schema"', "7", '{"Schema": 1}'])
async def test_a_damaged_mark_is_named_with_a_way_back(home: Path, content: str) -> None:
    lay(home, "home.json", content)
    with pytest.raises(StoreError, match=r"is damaged: home\.json is .*restore-backup"):
        await Store.open(home)
    assert names(home) == ["home.json"]


async def test_a_mark_that_is_no_text_is_damaged(home: Path) -> None:
    lay(home, "home.json", b"\xff\xfe\x00")
    with pytest.raises(StoreError, match=r"is damaged: home\.json is no mark"):
        await Store.open(home)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (SCHEMA_VERSION + 1, f"schema {SCHEMA_VERSION + 1}, this reme-mcp reads schema {SCHEMA_VERSION}"),
        (0, "home.json is no mark"),
        ("1", "home.json is no mark"),
        (None, "home.json is no mark"),
    ],
)
async def test_another_schema_is_named(home: Path, schema: object, says: str) -> None:
    lay(home, "home.json", json.dumps({"schema": schema}))
    with pytest.raises(StoreError, match=says):
        await Store.open(home)
    assert names(home) == ["home.json"]


async def test_a_home_without_its_pool_is_a_new_one(home: Path) -> None:
    lay(home, "home.json", json.dumps({"schema": SCHEMA_VERSION}))
    async with opened(home) as store:
        await put(store, experience("e-a"))
        assert await store.count("default") == {"active": 1}


# --- upkeep ---


def files(home: Path) -> int:
    return sum(path.is_file() for path in (home / "pool").rglob("*"))


async def test_upkeep_reduces_the_files_and_keeps_everything_readable(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reme_mcp.store.compaction.KEEP_VERSIONS", timedelta(milliseconds=1))
    async with opened(home) as store, opened(home) as other:
        for number in range(EVERY_WRITES):
            await put(store, experience(f"e-{number}"), trajectory(f"t-{number}"), line(f"r-{number}"))
            await put_vectors(store, "fake", {f"e-{number}": (1, 0)})
        before = files(home)
        await store.compaction.run()
        assert files(home) < before / 2
        for handle in (store, other):
            assert await handle.count("default") == {"active": EVERY_WRITES}
            hits = await handle.match_text("default", "static site", statuses=["active"], limit=99)
            assert len(hits) == EVERY_WRITES
            assert len(await handle.match_vector("fake", "default", unit(1, 0), limit=99)) == EVERY_WRITES
            assert await handle.trajectory("default", "t-4") is not None
            assert len(await handle.receipts.lines("default", "r-4")) == 1
        await put(other, experience("e-after"))
        assert "e-after" in await store.experiences("default", ["e-after"])


@pytest.mark.parametrize(("writes", "tidied"), [(EVERY_WRITES - 1, False), (EVERY_WRITES, True)])
async def test_upkeep_waits_for_enough_writes(
    home: Path, monkeypatch: pytest.MonkeyPatch, writes: int, tidied: bool
) -> None:
    monkeypatch.setattr("reme_mcp.store.compaction.KEEP_VERSIONS", timedelta(milliseconds=1))
    async with opened(home) as store:
        for number in range(writes):
            await put(store, experience(f"e-{number}"))
        before = files(home)
        assert store.compaction.writes == writes
        await store.compaction.run()
        assert (files(home) < before) is tidied
        assert store.compaction.writes == (0 if tidied else writes)
        again = files(home)
        await store.compaction.run()
        assert files(home) == again


@asynccontextmanager
async def written_by_another(store: Store) -> AsyncIterator[None]:
    """Hold the store for writing in a task of its own."""
    held, done = anyio.Event(), anyio.Event()

    async def write() -> None:
        async with store.writing():
            held.set()
            await done.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await held.wait()
        yield
        done.set()


async def test_upkeep_is_in_nobodys_way(home: Path) -> None:
    async with opened(home) as store, opened(home) as other:
        for number in range(EVERY_WRITES):
            await put(store, experience(f"e-{number}"))
        async with written_by_another(other):
            await store.compaction.run()
        assert store.compaction.writes == 0


@asynccontextmanager
async def written_without_end(home: Path) -> AsyncIterator[None]:
    """Update one row again and again, without the home's locks, as a process would that holds none."""
    connection = await lancedb.connect_async(home / "pool")
    table = await connection.open_table("experiences")
    written, done = anyio.Event(), False

    async def write() -> None:
        number = 0
        while not done:
            number += 1
            await table.update({"status_reason": f"'{number}'"}, where="id = 'e-0'")
            written.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await written.wait()
        yield
        done = True


async def test_a_write_comes_before_upkeep_and_the_next_time_it_waits(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home) as store, opened(home) as other:
        with anyio.fail_after(120):
            # Seldom, a compaction is done between two writes; then it gets another chance.
            while store.compaction.writes == 0:
                for number in range(EVERY_WRITES):
                    await put(store, experience(f"e-{number}"))
                async with written_without_end(home):
                    await store.compaction.run()
        before = files(home)
        async with written_by_another(other):
            with anyio.move_on_after(0.2) as waited:
                await store.compaction.run()
        assert waited.cancelled_caught
        monkeypatch.setattr("reme_mcp.store.compaction.KEEP_VERSIONS", timedelta(milliseconds=1))
        await store.compaction.run()
        assert store.compaction.writes == 0
        assert files(home) < before / 2
        for handle in (store, other):
            assert len(await handle.experiences("default", [f"e-{n}" for n in range(EVERY_WRITES)])) == EVERY_WRITES
            assert await handle.count("default") == {"active": EVERY_WRITES}


async def test_many_vectors_are_indexed_and_found_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reme_mcp.store.cache.ROWS_IN_MEMORY", 0)
    async with opened(home) as store:
        for number in range(EVERY_WRITES):
            await put(store, experience(f"e-{number}"))
            await put_vectors(store, "fake", {f"e-{number}": [1, number]})
        before = await store.match_vector("fake", "default", unit(1, 3), statuses=["active"], limit=5)
        await store.compaction.run()
        after = await store.match_vector("fake", "default", unit(1, 3), statuses=["active"], limit=5)
        assert [id for id, _ in before] == [id for id, _ in after]
        assert before[0][0] == "e-3"
