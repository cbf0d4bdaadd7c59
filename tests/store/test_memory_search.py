"""Searches that answer from memory: the same as the tables say, whoever has written them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reme_mcp.schema import Experience
from reme_mcp.store import cache
from reme_mcp.store.store import Store
from tests.fakes import SITUATIONS, experience

pytestmark = pytest.mark.anyio

SPOKEN = [
    experience(f"e-{number}", when_to_use=when, content=content, task="", generalized_task="", keywords=())
    for number, (when, content) in enumerate(SITUATIONS)
]


@asynccontextmanager
async def opened(home: Path, *, indexed: bool = True) -> AsyncIterator[Store]:
    store = await Store.open(home)
    try:
        if indexed:
            await store.load_all()
        yield store
    finally:
        store.close()


async def put(store: Store, *experiences: Experience, are_new: bool = False) -> None:
    async with store.writing() as writer:
        await writer.put_experiences(experiences, are_new=are_new)
        rows = np.asarray([(1.0, 0.0)] * len(experiences), dtype=np.float32)
        await writer.put_vectors("fake", experiences, rows, rows, are_new=are_new)


async def found(store: Store, query: str) -> list[str]:
    return [id for id, _ in await store.match_text("default", query, statuses=["active"], limit=20)]


async def test_memory_finds_what_the_index_on_disk_finds(home: Path) -> None:
    async with opened(home, indexed=False) as store:
        await put(store, *SPOKEN)
        queries = [*(f"{when} {content}" for when, content in SITUATIONS), "frames", "caches of sites", "no such thing"]
        on_disk = [await found(store, query) for query in queries]
        await store.load_all()
        in_memory = [await found(store, query) for query in queries]
    # Words that carry grammar are not searched; the index on disk does so in what it has not taken in yet.
    assert all(set(ours) <= set(theirs) for ours, theirs in zip(in_memory, on_disk, strict=True))
    assert [ids[:1] for ids in in_memory] == [ids[:1] for ids in on_disk]


@pytest.mark.parametrize("by", ["itself", "another"])
async def test_what_is_written_changed_and_deleted_is_found_as_it_is_now(home: Path, by: str) -> None:
    async with opened(home) as store, opened(home) as other:
        writing = store if by == "itself" else other
        await put(writing, *SPOKEN[:3], are_new=True)
        assert await found(store, "altitude") == ["e-1"]
        await put(writing, replace(SPOKEN[1], content="Salt the water of the pasta."))
        assert (await found(store, "pasta"), await found(store, "metres")) == (["e-1"], [])
        await put(writing, replace(SPOKEN[0], status="archived"))
        assert await found(store, "purge the cache") == []
        async with writing.writing() as writer:
            await writer.delete_experience("default", "e-1")
        assert await found(store, "pasta") == []
        assert set(await store.experiences("default", ["e-0", "e-1", "e-2"])) == {"e-0", "e-2"}
        await put(writing, SPOKEN[1], are_new=True)
        assert await found(store, "altitude") == ["e-1"]
        assert (await store.experiences("default", ["e-1"]))["e-1"] == SPOKEN[1]


@pytest.mark.parametrize("indexed", [True, False])
async def test_what_a_process_has_just_written_is_there_without_being_read(
    home: Path, indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing stays in memory but places: each row has to be looked for on disk.
    monkeypatch.setattr(cache, "KEPT_BYTES", 0)
    monkeypatch.setattr(cache, "KEPT_READ", 0)
    async with opened(home, indexed=indexed) as store:
        await put(store, SPOKEN[0], are_new=True)
        assert await found(store, "altitude frames") == []
        await put(store, SPOKEN[1], are_new=True)
        await put(store, SPOKEN[2], are_new=True)
        assert set(await found(store, "altitude frames")) == {"e-1", "e-2"}
        assert set(await store.experiences("default", ["e-0", "e-1", "e-2"])) == {"e-0", "e-1", "e-2"}
        near = await store.match_vector("fake", "default", np.asarray([1.0, 0.0], dtype=np.float32), limit=5)
        assert {id for id, _ in near} == {"e-0", "e-1", "e-2"}
        assert set(await store.lesson_vectors("fake", ["e-1", "e-2"])) == {"e-1", "e-2"}


async def test_words_that_only_a_dictionary_finds_are_searched_on_disk(home: Path) -> None:
    async with opened(home) as store:
        await put(store, experience("e-thai", when_to_use="การต้มไข่บนภูเขาสูง", content="เพิ่มเวลาสองนาที"))
        assert await found(store, "ต้มไข่") == ["e-thai"]


async def test_beyond_the_room_in_memory_the_tables_answer(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "ROWS_IN_MEMORY", 3)
    async with opened(home) as store:
        for one in SPOKEN[:5]:
            await put(store, one, are_new=True)
            assert (await found(store, one.content))[0] == one.id
        # No other workspace is searched, and none of another status.
        await put(store, replace(SPOKEN[5], workspace="other"), are_new=True)
        assert await found(store, SPOKEN[5].content) == []
        await put(store, replace(SPOKEN[2], status="archived"))
        assert "e-2" not in await found(store, SPOKEN[2].content)
        async with store.writing() as writer:
            await writer.delete_experience("default", "e-4")
            await writer.delete_experience("default", "e-3")
        assert "e-4" not in await found(store, SPOKEN[4].content)
        assert (await found(store, SPOKEN[1].content))[0] == "e-1"
