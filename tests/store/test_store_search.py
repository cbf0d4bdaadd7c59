"""Search by words and by vectors, and text in filters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pyarrow as pa
import pytest

from reme_mcp.store.store import Store
from reme_mcp.store.tables import space_name
from tests.fakes import experience, line, trajectory
from tests.store.store_cases import EVERY_STATUS, found, opened, put, put_vectors, unit
from tests.store.store_cases import store as store

pytestmark = pytest.mark.anyio

DEADLINE_S = 10.0

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


@pytest.mark.parametrize("in_place", [0, 1_000])
async def test_who_searches_at_the_same_time_is_answered_as_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch, in_place: int
) -> None:
    monkeypatch.setattr("reme_mcp.store.space.SEARCHED_IN_PLACE", in_place)
    angles = np.random.default_rng(8).uniform(0, np.pi, 50)
    turns = {f"e-{i}": (float(np.cos(a)), float(np.sin(a))) for i, a in enumerate(angles)}
    await put_vectors(store, "fake", turns)
    await put_vectors(store, "fake", {"e-theirs": (1.0, 0.0)}, workspace="other")
    alone = {id: await store.match_vector("fake", "default", unit(*turn), limit=3) for id, turn in turns.items()}
    together: dict[str, list[tuple[str, float]]] = {}

    async def search(id: str) -> None:
        together[id] = await store.match_vector("fake", "default", unit(*turns[id]), limit=3)

    async with anyio.create_task_group() as tasks:
        for id in turns:
            tasks.start_soon(search, id)
    assert {id: [one for one, _ in hits] for id, hits in together.items()} == {
        id: [one for one, _ in hits] for id, hits in alone.items()
    }
    assert all(hits[0][0] == id for id, hits in together.items())


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

            async def interrupted(self: Store) -> None:
                # In the second read, after all was forgotten because rows are gone.
                if not self._directory.places:
                    scope.cancel()
                await read_places(self)

            monkeypatch.setattr(Store, "_read_places", interrupted)
            await store.experiences("default", ["e-b"])
        assert scope.cancelled_caught
        monkeypatch.undo()
        assert set(await store.experiences("default", ["e-a", "e-b", "e-c"])) == {"e-b", "e-c"}


@pytest.mark.parametrize("loaded", [False, True])
async def test_what_was_read_before_is_read_anew_once_anybody_has_changed_it(home: Path, loaded: bool) -> None:
    async with opened(home) as store, opened(home) as other:
        await put(store, experience("e-a"), experience("e-b"))
        if loaded:
            await store.load_all()
        for utility in range(3):
            for writer in (store, other):
                await put(writer, experience("e-a", utility=utility))
                read = await store.experiences("default", ["e-b", "e-a"])
                assert [(one.id, one.utility) for one in read.values()] == [("e-b", 0), ("e-a", utility)]


async def test_what_is_changed_while_it_is_read_is_not_taken_for_the_newest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home) as store, opened(home) as other:
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


async def test_what_is_deleted_while_it_is_read_does_not_come_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(home) as store, opened(home) as other:
        await put(other, experience("e-a"), experience("e-b"))
    async with opened(home) as store, opened(home) as other:
        taken, forgotten = anyio.Event(), anyio.Event()
        take, read_places = Store._take, Store._read_places

        async def held_up(self: Store, rows: Sequence[int]) -> list[pa.RecordBatch]:
            batches = await take(self, rows)
            taken.set()
            await forgotten.wait()
            return batches

        async def reading(self: Store) -> None:
            if not self._directory.places:
                # All is forgotten, as a row is gone; what was read before that goes on now.
                forgotten.set()
                await anyio.wait_all_tasks_blocked()
            await read_places(self)

        async with anyio.create_task_group() as tasks:
            await store.workspaces()
            monkeypatch.setattr(Store, "_take", held_up)
            tasks.start_soon(store.experiences, "default", ["e-a"])
            await taken.wait()
            async with other.writing() as writer:
                await writer.delete_experience("default", "e-a")
            monkeypatch.setattr(Store, "_read_places", reading)
            with anyio.fail_after(DEADLINE_S):
                await store.workspaces()
        assert await store.experiences("default", ["e-a"]) == {}
