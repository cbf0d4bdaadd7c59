"""The feed: what one process puts into the tables, the others take from the ledger, and miss nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import lancedb
import pytest

from reme_mcp.errors import StoreError
from reme_mcp.schema import Experience
from reme_mcp.store import feed, sqlite_ledger
from reme_mcp.store.store import Store, Writer
from tests.fakes import experience
from tests.store.store_cases import found, opened, put, put_vectors, unit

pytestmark = pytest.mark.anyio

# Puts a lesson into the tables, and dies before it has told of it.
DIES = """
import os, sys, anyio
from pathlib import Path
from reme_mcp.store.store import Store, Writer
from tests.fakes import experience

async def main():
    store = await Store.open(Path(sys.argv[1]))
    async with store.writing() as writer:
        await writer.put_experiences([experience("e-dead")], are_new=True)
        os._exit(9)

anyio.run(main)
"""


async def seen(store: Store, *ids: str) -> set[str]:
    """Return which of some lessons a store knows, having seen that its search says the same."""
    known = set(await store.experiences("default", ids))
    assert await found(store, "static site") == known
    near = await store.match_vector("fake", "default", unit(1, 0), limit=99)
    assert {id for id, _ in near} <= known
    return known


async def put_and_fail(store: Store, one: Experience) -> None:
    async with store.writing() as writer:
        await writer.put_experiences([one])
        raise ZeroDivisionError


def files_with(home: Path, text: bytes) -> list[Path]:
    return [file for file in home.rglob("ledger.db*") if text in file.read_bytes()]


async def test_what_another_has_written_is_taken_from_the_ledger_alone(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-0"))
        await put_vectors(one, "fake", {"e-0": (1, 0)})
        await other.load_all()
        assert await seen(other, "e-0", "e-1") == {"e-0"}
        await put(one, experience("e-1"))
        await put_vectors(one, "fake", {"e-1": (0.6, 0.8)})
        # Whoever looked for it there would find nothing.
        for table in (home / "pool").glob("*.lance"):
            table.rename(table.with_suffix(".away"))
        assert await seen(other, "e-0", "e-1") == {"e-0", "e-1"}
        [(id, cosine)] = await other.match_vector("fake", "default", unit(0.6, 0.8), limit=1)
        assert id == "e-1"
        assert cosine == pytest.approx(1.0)
        lessons = await other.lesson_vectors("fake", ["e-1"])
        assert [float(value) for value in lessons["e-1"]] == pytest.approx([0.8, 0.6])


async def test_what_has_gone_or_is_large_is_looked_for_in_the_table(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "MAX_NOTE_BYTES", 0)
    async with opened(home) as one, opened(home) as other:
        for number in range(3):
            await put(one, experience(f"e-{number}"))
            assert f"e-{number}" in await seen(other, *(f"e-{place}" for place in range(3)))
        async with one.writing() as writer:
            await writer.delete_experience("default", "e-1")
        assert await seen(other, "e-0", "e-1", "e-2") == {"e-0", "e-2"}


async def test_who_has_missed_notes_that_are_kept_no_longer_misses_no_lesson(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "KEPT_NOTES", 2)
    ids = [f"e-{number}" for number in range(6)]
    async with opened(home) as one, opened(home) as other:
        await put(one, experience(ids[0]))
        assert await seen(other, *ids) == {ids[0]}
        for id in ids[1:]:
            await put(one, experience(id))
        assert await seen(other, *ids) == set(ids)


async def test_what_was_written_before_a_turn_failed_is_seen_by_everybody(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-0"))
        assert await seen(other, "e-0", "e-1") == {"e-0"}
        with pytest.raises(ZeroDivisionError):
            await put_and_fail(one, experience("e-1"))
        assert await seen(one, "e-0", "e-1") == {"e-0", "e-1"}
        assert await seen(other, "e-0", "e-1") == {"e-0", "e-1"}


async def test_what_a_process_wrote_that_died_over_telling_of_it_is_found_by_the_next_one_to_write(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-0"))
        assert await seen(other, "e-0", "e-dead") == {"e-0"}
        died = await anyio.run_process([sys.executable, "-c", DIES, str(home)], check=False)
        assert died.returncode == 9
        async with one.writing():
            assert await seen(one, "e-0", "e-dead") == {"e-0", "e-dead"}
        assert await seen(other, "e-0", "e-dead") == {"e-0", "e-dead"}


async def test_what_a_process_wrote_that_died_is_found_by_readers_once_nobody_has_told_of_it_for_long(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-0"))
        assert await seen(other, "e-0", "e-dead") == {"e-0"}
        died = await anyio.run_process([sys.executable, "-c", DIES, str(home)], check=False)
        assert died.returncode == 9
        monkeypatch.setattr(sqlite_ledger, "OVERDUE_S", 0)
        assert await seen(other, "e-0", "e-dead") == {"e-0", "e-dead"}


async def test_a_commit_that_nobody_told_of_is_found_with_the_next_that_somebody_did(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-0"))
        assert (await other.experiences("default", ["e-0"]))["e-0"].status == "active"
        connection = await lancedb.connect_async(home / "pool")
        table = await connection.open_table("experiences")
        await table.update({"status": "archived"}, where="id = 'e-0'")
        await put(one, experience("e-1"))
        for store in (one, other):
            known = await store.experiences("default", ["e-0", "e-1"])
            assert {id: one.status for id, one in known.items()} == {"e-0": "archived", "e-1": "active"}


async def test_what_can_not_be_told_of_is_looked_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: Writer) -> None:
        raise StoreError("the disk is full")

    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-0"))
        assert await seen(other, "e-0", "e-1") == {"e-0"}
        monkeypatch.setattr(Writer, "finish", fail)
        with pytest.raises(StoreError, match="full"):
            await put(one, experience("e-1"))
        assert await seen(other, "e-0", "e-1") == {"e-0", "e-1"}


async def test_what_is_erased_stays_in_no_note(home: Path) -> None:
    async with opened(home) as one, opened(home) as other:
        await put(one, experience("e-0"), experience("e-1", content="the word that nobody may find"))
        assert await seen(other, "e-0", "e-1") == {"e-0", "e-1"}
        async with one.writing() as writer:
            await writer.delete_experience("default", "e-1")
        await one.purge_deleted()
        assert files_with(home, b"nobody may find") == []
        await put(one, experience("e-2"))
        assert await seen(other, "e-0", "e-1", "e-2") == {"e-0", "e-2"}
