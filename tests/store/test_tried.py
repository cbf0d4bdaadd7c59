"""Which tasks were tried, and which of them are alike."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from reme_mcp.schema import Outcome
from reme_mcp.store.store import Store
from reme_mcp.store.tried import TaskVector
from tests.fakes import LEARNED, line, trajectory
from tests.store.store_cases import put

pytestmark = pytest.mark.anyio


@pytest.fixture(name="store")
async def open_store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(tmp_path / "home")
    yield store
    store.close()


def vector(*values: float, space: str = "a model", unrelated: float = 0.5) -> TaskVector:
    unit = np.array(values, dtype=np.float32)
    return TaskVector(space, unrelated, unit / np.linalg.norm(unit))


async def end(
    store: Store,
    receipt: str,
    task: str,
    *,
    about: TaskVector | None = None,
    outcome: Outcome = "success",
    attempt: str = "",
    days: int = 1,
    notes: Sequence[str] = ("e-a",),
) -> None:
    at = LEARNED + timedelta(days=days)
    text = "" if about is None else about.to_text()
    lines = [
        line(receipt, experience_id=id, task=task, rank=place, task_vector="" if place else text)
        for place, id in enumerate(notes)
    ]
    ended = trajectory(
        attempt or f"t-{receipt}", task=task, receipt=receipt, outcome=outcome, created_at=at, updated_at=at
    )
    await put(store, *lines, ended)


async def alike(store: Store, task: str, about: TaskVector | None = None) -> dict[str, bool]:
    tried = await store.tries.of("default")
    return {one.receipt: one.succeeded for one in tried.alike(task, about)}


def test_a_vector_as_text_comes_back_as_it_was_but_for_rounding() -> None:
    made = vector(*np.random.default_rng(1).normal(size=384))
    back = TaskVector.from_text(made.to_text())

    assert (back.space, back.unrelated) == ("a model", 0.5)
    assert float(back.values @ made.values) > 0.999
    assert float(np.linalg.norm(back.values)) == pytest.approx(1)


async def test_tasks_are_alike_by_their_telling_words_where_there_are_no_vectors(store: Store) -> None:
    await end(store, "r-1", "rename the harbour invoices")
    await end(store, "r-2", "water the tomato seedlings", outcome="failure")

    assert await alike(store, "please rename harbour invoices for me") == {"r-1": True}
    assert await alike(store, "water my tomato plants") == {"r-2": False}
    assert await alike(store, "tune the piano") == {}


async def test_with_vectors_the_middle_between_unrelated_and_identical_decides(store: Store) -> None:
    # Unrelated texts are at .5 here, so that .75 is needed.
    await end(store, "r-1", "rename the harbour invoices", about=vector(1, 0))

    assert await alike(store, "other words", vector(0.76, 0.65)) == {"r-1": True}
    assert await alike(store, "rename the harbour invoices", vector(0.74, 0.673)) == {}


async def test_words_decide_where_the_vectors_are_of_two_embedders(store: Store) -> None:
    await end(store, "r-1", "rename the harbour invoices", about=vector(1, 0))
    await end(store, "r-2", "rename the harbour invoices")

    about = vector(0, 0, 1, space="another model")
    assert await alike(store, "rename harbour invoices", about) == {"r-1": True, "r-2": True}
    assert await alike(store, "rename harbour invoices", vector(1, 0)) == {"r-1": True, "r-2": True}
    assert await alike(store, "tune the piano", vector(1, 0)) == {"r-1": True}


async def test_what_ends_later_is_seen_and_a_second_attempt_is_not(store: Store) -> None:
    task = "rename the harbour invoices"
    await end(store, "r-1", task)
    assert await alike(store, task) == {"r-1": True}

    await end(store, "r-1", task, attempt="t-again", outcome="failure", days=2)
    await end(store, "r-2", task, outcome="failure", days=3)
    assert await alike(store, task) == {"r-1": True, "r-2": False}


async def test_the_notes_of_a_task_are_known_those_of_an_empty_receipt_are_none(store: Store) -> None:
    await end(store, "r-1", "rename the harbour invoices", notes=("e-a", "e-b"))
    await end(store, "r-2", "rename the harbour invoices", notes=("",))
    tried = await store.tries.of("default")

    assert {one.receipt: set(one.notes) for one in tried.alike("rename the harbour invoices", None)} == {
        "r-1": {"e-a", "e-b"},
        "r-2": set(),
    }
    assert [one.receipt for one in tried.with_note("e-b")] == ["r-1"]
    assert (await store.tries.of("elsewhere")).alike("rename the harbour invoices", None) == []


async def test_the_oldest_are_forgotten_where_there_are_too_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reme_mcp.store.tried.KNOWN_TASKS", 3)
    monkeypatch.setattr("reme_mcp.store.tried.ALIKE_TASKS", 2)
    task = "rename the harbour invoices"
    for number in range(5):
        await end(store, f"r-{number}", task, days=number)
        found = await alike(store, task)
        assert set(found) == {f"r-{one}" for one in range(max(0, number - 1), number + 1)}
    assert [one.receipt for one in (await store.tries.of("default")).with_note("e-a")] == ["r-4", "r-3", "r-2"]
