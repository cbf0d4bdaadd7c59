"""Rows in memory: what was put last is what comes back, within a limit."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from reme_mcp.store import cache
from reme_mcp.store.cache import Directory, Place, Shelf


def batch(ids: Sequence[str], note: str = "") -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"id": list(ids), "note": [note] * len(ids)})


def notes(shelf: Shelf, *ids: str) -> dict[str, str]:
    return {row["id"]: row["note"] for rows in shelf.rows(ids) for row in rows.to_pylist()}


def test_a_row_that_is_put_again_is_the_new_one() -> None:
    shelf = Shelf()
    shelf.put(batch("abc", "old"))
    shelf.put(batch("b", "new"))
    assert notes(shelf, "a", "b", "c", "d") == {"a": "old", "b": "new", "c": "old"}
    shelf.drop("b")
    shelf.drop("never there")
    assert notes(shelf, "a", "b") == {"a": "old"}
    shelf.clear()
    assert notes(shelf, "a", "b", "c") == {}


def test_many_small_batches_become_one_without_what_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BATCHES", 4)
    shelf = Shelf()
    for turn in range(30):
        shelf.put(batch(["same", f"own {turn}"], str(turn)))
        assert len(shelf._batches) <= 4
    shelf.drop("own 3")
    expected = {f"own {turn}": str(turn) for turn in range(30) if turn != 3}
    assert notes(shelf, "same", *(f"own {turn}" for turn in range(30))) == expected | {"same": "29"}
    assert sum(len(one) for one in shelf._batches.values()) < 40


def test_a_large_batch_stays_as_it_is_until_most_of_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    large = batch("abcd", "n" * 1000)
    monkeypatch.setattr(cache, "BATCH_BYTES", large.nbytes)
    monkeypatch.setattr(cache, "MAX_BATCHES", 3)
    shelf = Shelf()
    shelf.put(large)
    for turn in range(9):
        shelf.put(batch(f"a{turn}", str(turn)))
    assert shelf._batches[0] is large
    for turn in range(9):
        shelf.put(batch("bc", str(turn)))
    assert 0 not in shelf._batches
    assert notes(shelf, *"abcd08") == {"a": "8", "b": "8", "c": "8", "d": "n" * 1000, "0": "0", "8": "8"}


def test_only_some_are_kept() -> None:
    shelf = Shelf()
    shelf.put(batch("abc"))
    shelf.keep({"b", "never there"})
    assert notes(shelf, "a", "b", "c") == {"b": ""}


def test_nothing_is_left_to_tidy_once_all_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BATCHES", 1)
    shelf = Shelf()
    shelf.put(batch("a"))
    shelf.drop("a")
    shelf.put(batch("b", "new"))
    assert notes(shelf, "a", "b") == {"b": "new"}


@pytest.mark.parametrize(("room", "kept"), [(1, "bc"), (0, "c")])
def test_the_oldest_go_where_there_is_no_room(room: int, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = batch("a", "n" * 1000)
    monkeypatch.setattr(cache, "KEPT_BYTES", one.nbytes * (1 + room))
    shelf = Shelf()
    for id in "abc":
        shelf.put(batch(id, "n" * 1000))
    assert set(notes(shelf, "a", "b", "c")) == set(kept)


def test_a_place_that_is_put_again_takes_its_row_off_the_shelf() -> None:
    known = Directory()
    known.put("a", Place(7, "default", "provisional"))
    known.shelf.put(batch("a"))
    assert (known.ids[7], known.provisional) == ("a", {"a"})
    known.put("a", Place(7, "default", "active"))
    assert (notes(known.shelf, "a"), known.provisional) == ({}, set())
    known.clear()
    assert (known.places, known.ids, known.workspaces) == ({}, {}, set())
