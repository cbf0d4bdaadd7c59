"""What the tests of folder share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reme_mcp.config.settings import EmbedderSettings, RefineSettings, Settings
from reme_mcp.store.folder import read_marker
from reme_mcp.store.migrations import new_column
from reme_mcp.store.store import Store
from tests.fakes import experience, line

if TYPE_CHECKING:
    from lancedb import AsyncConnection

DEADLINE_S = 60


TWO_COLUMNS = (new_column("experiences", "mood", "'calm'"), new_column("experiences", "cost", "cast(0 as bigint)"))


@asynccontextmanager
async def opened(
    home: Path, migrations: Sequence[Callable[[AsyncConnection], Awaitable[None]]] = ()
) -> AsyncIterator[Store]:
    store = await Store.open(home, migrations=migrations)
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
async def old_home(home: Path) -> Path:
    """A home of schema 1, written by the code of today."""
    async with opened(home) as store:
        await fill(store, "e-a", "e-b")
    return home


@pytest.fixture
def settings(home: Path) -> Settings:
    """An outcome or two archives nothing here."""
    return Settings(
        home=str(home), embedder=EmbedderSettings(provider="none"), refine=RefineSettings(min_frequency=1000)
    )


async def fill(store: Store, *ids: str) -> None:
    async with store.writing() as writer:
        await writer.put_experiences([experience(id) for id in ids])
    for id in ids:
        await store.add_receipt([line(f"r-{id}", experience_id=id)])


async def ids(home: Path) -> set[str]:
    async with opened(home) as store:
        return {one.id for one in await store.page("default")}


async def column(home: Path, table: str, name: str) -> list[object]:
    """Return what stands in one column, read as nobody but a later version would."""
    import lancedb

    connection = await lancedb.connect_async(str(home / read_marker(home, schema=9).pool))
    rows = await (await connection.open_table(table)).query().to_list()
    connection.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
    return [row[name] for row in rows]


def contents(home: Path) -> dict[str, bytes]:
    """Return every file of the folder, but for the locks."""
    return {
        str(file.relative_to(home)): file.read_bytes()
        for file in home.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    }


def lay(folder: Path, name: str, content: str) -> Path:
    """Put a file into the folder, which is made if it is not there."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def start(script: str, *arguments: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


@pytest.fixture(params=["plain", "ein Ordner/日本語 🦊 it's"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Another place for a home, whatever it is called; its parents are there."""
    place = tmp_path / str(request.param)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
