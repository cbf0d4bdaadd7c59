"""What the tests of store share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from reme_mcp.schema import Experience, ReceiptLine, Status, Trajectory
from reme_mcp.store.store import Store
from tests.fakes import experience

EVERY_STATUS: tuple[Status, ...] = ("active", "provisional", "quarantined", "archived")


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
