"""A home that is removed, put back or made anew while a server has it open: it is told, and nothing is lost."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.memory.overview import Filters
from reme_mcp.store.store import Store
from tests.fakes import draft, experience, line

pytestmark = pytest.mark.anyio

TASK = "a static site has to go online"


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=str(home), embedder=EmbedderSettings(provider="none"))


async def learn(memory: Memory, number: int) -> str:
    """Record an attempt that teaches something, and return the lesson's id."""
    recorded = await memory.record(f"task {number}", outcome="success", experiences=[draft(number)], source="test")
    [id] = recorded.added
    return id


def calls(memory: Memory, id: str, receipt: str) -> list[Callable[[], Awaitable[object]]]:
    """Return what assistants and people ask for, each of it."""
    return [
        lambda: memory.recall(TASK, source="test"),
        lambda: memory.record("another", outcome="success", experiences=[], source="test"),
        lambda: learn(memory, 3),
        lambda: memory.rate(id, helpful=True, receipt=receipt, source="test"),
        lambda: memory.pool.stats(),
        lambda: memory.pool.page(),
        lambda: memory.pool.experience(id),
        lambda: memory.overview.lessons(Filters()),
        lambda: memory.overview.version(),
    ]


GONE = {
    ".": "there is no pool in .*was it moved or removed",
    "pool": r"is damaged: the folder pool, which home\.json names, is not there",
    "pool/experiences.lance": r"is damaged: pool lacks what home\.json names: experiences",
    "pool/ledger.db": r"is damaged: pool lacks what home\.json names: ledger\.db",
}


@pytest.mark.parametrize(("part", "says"), GONE.items(), ids=list(GONE))
async def test_a_server_says_that_its_pool_is_gone_and_goes_on_when_it_is_back(
    tmp_path: Path, home: Path, settings: Settings, part: str, says: str
) -> None:
    removed = home / part
    async with Memory.open(settings) as memory:
        id = await learn(memory, 0)
        receipt = (await memory.recall(TASK, source="test")).receipt
        shutil.move(removed, tmp_path / "away")
        for call in calls(memory, id, receipt):
            with pytest.raises(StoreError, match=says):
                await call()
        assert not removed.exists()
        shutil.move(tmp_path / "away", removed)
        for call in calls(memory, id, receipt):
            await call()
    async with Memory.open(settings) as memory:
        assert len(await memory.pool.page()) == 2
        stored, tally = await memory.pool.experience(id)
        assert (stored.utility, tally.recalled) == (1, 2)


async def begin_anew(home: Path, away: Path) -> None:
    shutil.move(home, away)
    async with Memory.open(Settings(home=str(home), embedder=EmbedderSettings(provider="none"))) as memory:
        await learn(memory, 1)


async def put_a_copy(home: Path, away: Path) -> None:
    shutil.move(home, away)
    shutil.copytree(away, home)


@pytest.mark.parametrize(("replace", "lessons"), [(begin_anew, 2), (put_a_copy, 2)])
async def test_a_server_goes_on_with_the_home_that_stands_there_now(
    tmp_path: Path, home: Path, settings: Settings, replace: Callable[[Path, Path], Awaitable[None]], lessons: int
) -> None:
    async with Memory.open(settings) as memory:
        await learn(memory, 0)
        assert len((await memory.overview.lessons(Filters())).experiences) == 1
        await replace(home, tmp_path / "away")
        # It has come as far as the one before.
        [there] = (await memory.overview.lessons(Filters())).experiences
        recorded = await memory.record("told", outcome="success", experiences=[draft(2)], source="test")
        rated = await memory.rate(there.id, helpful=True, source="test")
    async with Memory.open(settings) as memory:
        assert {one.id for one in await memory.pool.page()} == {there.id, *recorded.added}
        assert (await memory.pool.experience(there.id))[0].utility == rated.utility == 1
        assert await memory.pool.trajectory(recorded.trajectory_id)
    async with Memory.open(settings.model_copy(update={"home": str(tmp_path / "away")})) as memory:
        assert len(await memory.pool.page()) == 1


async def test_nothing_is_written_into_what_was_removed(tmp_path: Path, home: Path) -> None:
    store = await Store.open(home)
    try:
        shutil.move(home, tmp_path / "away")
        (await Store.open(home)).close()
        with pytest.raises(StoreError, match=r"made anew.* by another process; try again"):
            await store.add_receipt([line("r-lost")])
        with pytest.raises(StoreError, match=r"made anew.* by another process; try again"):
            async with store.settling() as ledger:
                await ledger.put_counters([experience("e-lost")])
        with pytest.raises(StoreError, match=r"made anew.* by another process; try again"):
            async with store.writing() as writer:
                await writer.put_experiences([experience("e-lost")])
    finally:
        store.close()
