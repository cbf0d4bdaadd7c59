"""What the tests of memory share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.models.embedder import Embedder
from reme_mcp.results import RecordResult
from reme_mcp.schema import Experience, ReceiptLine, Trajectory
from reme_mcp.store.store import Store, Writer
from tests.fakes import FakeLoader, draft
from tests.store.store_cases import put as put_into

TASK = "put my blog online"


DEADLINE_S = 10.0


@pytest.fixture
async def memory(settings: Settings) -> AsyncIterator[Memory]:
    async with Memory.open(settings) as memory:
        yield memory


@pytest.fixture
def with_model(settings: Settings) -> Settings:
    """The same settings, but with an embedder; tests say which one by their loader."""
    return settings.model_copy(update={"embedder": EmbedderSettings(model="a fake")})


def with_refine(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"refine": settings.refine.model_copy(update=changes)})


@asynccontextmanager
async def warm(settings: Settings, *outcomes: Embedder | str) -> AsyncIterator[Memory]:
    """Open a memory and load the first of `outcomes`; each further `warm_up` loads the next one."""
    async with Memory.open(settings, load=FakeLoader(*outcomes)) as memory:
        await memory.warm_up(download=False)
        yield memory


async def put(home: str, *values: Experience | Trajectory | ReceiptLine) -> None:
    """Write values past the memory, as another process would."""
    store = await Store.open(Path(home))
    await put_into(store, *values)
    store.close()


async def stored_trajectory(memory: Memory, trajectory_id: str) -> Trajectory:
    store = await Store.open(Path(memory.settings.home))
    found = await store.trajectory(memory.settings.workspace, trajectory_id)
    store.close()
    assert found is not None
    return found


async def counts(memory: Memory) -> tuple[dict[Any, int], dict[str, int], dict[str, int]]:
    """Return how many rows of what kind the tables hold."""
    stats = await memory.pool.stats()
    return stats.experiences, stats.trajectories, stats.receipts


async def learn(memory: Memory, number: int = 0, /, *, task: str = TASK, **changes: object) -> str:
    """Record a success with one lesson, and return the lesson's id."""
    recorded = await memory.record(
        f"{task} {number}", outcome="success", experiences=[draft(number, **changes)], source="test"
    )
    [id] = recorded.added
    return id


async def attempt(memory: Memory, outcome: Any, *, task: str = TASK) -> RecordResult:
    """Recall, try, and record how it ended."""
    recalled = await memory.recall(task, source="test")
    return await memory.record(task, outcome=outcome, experiences=[], receipt=recalled.receipt, source="test")


async def counters(memory: Memory, experience_id: str) -> tuple[int, int]:
    one, _ = await memory.pool.experience(experience_id)
    return one.utility, one.frequency


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110  # the pool tells nobody
            await anyio.sleep(0.005)


@asynccontextmanager
async def held_pool(home: Path) -> AsyncIterator[Writer]:
    """Hold the pool as another process does that writes lessons."""
    store = await Store.open(home)
    try:
        async with store.writing() as writer:
            yield writer
    finally:
        store.close()
