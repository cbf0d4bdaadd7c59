"""Several handles on one home, the home itself, and its upkeep."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import lancedb
import pytest

from reme_mcp.errors import StoreError
from reme_mcp.store.compaction import EVERY_WRITES
from reme_mcp.store.migrations import SCHEMA_VERSION
from reme_mcp.store.store import Store
from tests.fakes import experience, line, trajectory
from tests.store.store_cases import found, opened, put, put_vectors, unit
from tests.store.store_cases import store as store

pytestmark = pytest.mark.anyio


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
    for number, handle in enumerate(opened_stores):
        await put(handle, experience(f"e-{number}"))
    for handle in opened_stores:
        assert await found(handle, "static site") == {"e-0", "e-1", "e-2", "e-3"}
        handle.close()


def lay(home: Path, name: str, content: str | bytes) -> None:
    """Put a file into the folder, which is made if it is not there."""
    home.mkdir(exist_ok=True)
    (home / name).write_bytes(content.encode() if isinstance(content, str) else content)


def names(home: Path) -> list[str]:
    return [entry.name for entry in home.iterdir()]


# --- the home ---


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


def files(home: Path) -> int:
    return sum(path.is_file() for path in (home / "pool").rglob("*"))


def has_index(home: Path, table: str) -> bool:
    return any(home.rglob(f"{table}/_indices/*"))


# --- upkeep ---


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


async def test_versions_that_were_too_young_to_go_are_dropped_later(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home) as store, opened(home) as other:
        for number in range(EVERY_WRITES):
            await put(store, experience(f"e-{number}"))
        await store.compaction.run()
        left = files(home)
        assert left > EVERY_WRITES
        assert store.compaction.has_old_versions

        # Another process has to look, too.
        await other.compaction.count_leftovers()
        assert other.compaction.has_old_versions

        monkeypatch.setattr("reme_mcp.store.compaction.KEEP_VERSIONS", timedelta(milliseconds=1))
        await store.compaction.drop_old_versions()
        assert files(home) < left / 2
        assert not store.compaction.has_old_versions
        for handle in (store, other):
            assert await handle.count("default") == {"active": EVERY_WRITES}
            assert len(await handle.match_text("default", "static site", statuses=["active"], limit=99)) == EVERY_WRITES


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
    ids: list[str] = []
    async with opened(home) as store, opened(home) as other:
        with anyio.fail_after(120):
            # Seldom, a compaction is done between two writes; then more is written, and another is due.
            while store.compaction.writes < EVERY_WRITES:
                for _ in range(EVERY_WRITES):
                    ids.append(f"e-{len(ids)}")
                    await put(store, experience(ids[-1]))
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
            assert len(await handle.experiences("default", ids)) == len(ids)
            assert await handle.count("default") == {"active": len(ids)}


@pytest.mark.parametrize(("room", "indexed"), [(EVERY_WRITES * 1.25, False), (EVERY_WRITES * 1.25 - 1, True)])
async def test_vectors_are_indexed_before_they_are_too_many_for_memory(
    home: Path, monkeypatch: pytest.MonkeyPatch, room: float, indexed: bool
) -> None:
    monkeypatch.setattr("reme_mcp.store.cache.ROWS_IN_MEMORY", room)
    async with opened(home) as store:
        for number in range(EVERY_WRITES):
            await put_vectors(store, "fake", {f"e-{number}": [1, number]})
        await store.compaction.run()
    assert has_index(home, "vectors_*") is indexed


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
