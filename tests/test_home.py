"""The home as a folder: older and newer versions, backups, places where nothing can be written, clocks that jump."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reme_mcp import home as homes
from reme_mcp.errors import StoreError
from reme_mcp.store import Store
from reme_mcp.upgrades import new_column
from tests.fakes import experience, line

if TYPE_CHECKING:
    from lancedb import AsyncConnection

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
TWO_COLUMNS = (new_column("experiences", "mood", "'calm'"), new_column("receipts", "cost", "cast(0 as bigint)"))


@asynccontextmanager
async def opened(
    home: Path, upgrades: Sequence[Callable[[AsyncConnection], Awaitable[None]]] = ()
) -> AsyncIterator[Store]:
    store = await Store.open(home, upgrades=upgrades)
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

    connection = await lancedb.connect_async(str(home / homes.read_mark(home, schema=9).pool))
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


def backups(home: Path) -> list[str]:
    return sorted(file.name for file in (home / "backups").glob("*"))


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


# --- versions ---


async def test_an_older_home_is_upgraded_with_a_backup_in_it(old_home: Path) -> None:
    async with opened(old_home, TWO_COLUMNS) as store:
        assert {one.id for one in await store.page("default")} == {"e-a", "e-b"}
    assert await column(old_home, "experiences", "mood") == ["calm", "calm"]
    assert json.loads((old_home / "home.json").read_text()) == {"schema": 3}
    [kept] = backups(old_home)
    assert kept.startswith("schema-1-")
    # The backup is of before.
    with zipfile.ZipFile(old_home / "backups" / kept) as archive:
        assert json.loads(archive.read("home.json")) == {
            "schema": 1,
            "tables": {"experiences": 2, "receipts": 2, "trajectories": 0},
        }


async def test_a_home_of_today_is_not_upgraded_and_not_backed_up(old_home: Path) -> None:
    before = contents(old_home)
    async with opened(old_home):
        pass
    assert contents(old_home) == before


async def test_only_the_upgrades_that_are_due_are_done(old_home: Path) -> None:
    done: list[int] = []

    def noted(number: int) -> Callable[[AsyncConnection], Awaitable[None]]:
        async def upgrade(_: AsyncConnection) -> None:
            done.append(number)

        return upgrade

    for upgrades in ([noted(1)], [noted(1)], [noted(1), noted(2), noted(3)]):
        async with opened(old_home, upgrades):
            pass
    assert done == [1, 2, 3]
    assert [name[:9] for name in backups(old_home)] == ["schema-1-", "schema-2-"]


async def test_a_new_home_starts_with_the_newest_schema(home: Path) -> None:
    async with opened(home, TWO_COLUMNS):
        pass
    assert json.loads((home / "home.json").read_text()) == {"schema": 3}
    assert backups(home) == []


async def test_a_newer_home_is_refused_with_both_versions_and_untouched(old_home: Path) -> None:
    async with opened(old_home, TWO_COLUMNS):
        pass
    before = contents(old_home)
    with pytest.raises(StoreError, match="written with schema 3, this reme-mcp reads schema 1"):
        await Store.open(old_home)
    assert contents(old_home) == before


async def test_an_upgrade_that_fails_is_done_at_the_next_start_with_one_backup(old_home: Path) -> None:
    async def fail(_: AsyncConnection) -> None:
        raise OSError("the disk is on fire")

    for _ in range(2):
        with pytest.raises(StoreError, match=r"can't upgrade .* from schema 1 to 3: the disk is on fire"):
            await Store.open(old_home, upgrades=[TWO_COLUMNS[0], fail])
    assert await ids(old_home) == {"e-a", "e-b"}
    async with opened(old_home, TWO_COLUMNS) as store:
        assert len(await store.page("default")) == 2
    assert len(backups(old_home)) == 1
    assert json.loads((old_home / "home.json").read_text()) == {"schema": 3}


# Upgrades in the middle of which somebody kills it; says when.
HALF_UPGRADE = """
import sys, anyio
from pathlib import Path
from reme_mcp.store import Store
from reme_mcp.upgrades import new_column

async def stop_here(connection):
    print("half", flush=True)
    sys.stdin.readline()

anyio.run(lambda: Store.open(Path(sys.argv[1]), upgrades=[new_column("experiences", "mood", "'calm'"), stop_here]))
"""


async def test_an_upgrade_that_is_killed_is_done_at_the_next_start_with_one_backup(old_home: Path) -> None:
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", HALF_UPGRADE, str(old_home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "half\n"
            child.kill()
    assert json.loads((old_home / "home.json").read_text())["schema"] == 1
    async with opened(old_home, TWO_COLUMNS) as store:
        assert len(await store.page("default")) == 2
    assert await column(old_home, "experiences", "mood") == ["calm", "calm"]
    assert await column(old_home, "receipts", "cost") == [0, 0]
    assert len(backups(old_home)) == 1


UPGRADE = """
import sys, anyio
from pathlib import Path
from reme_mcp.store import Store
from reme_mcp.upgrades import new_column

async def once(connection):
    with open(sys.argv[2], "a") as file:
        file.write("done\\n")

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    store = await Store.open(Path(sys.argv[1]), upgrades=[new_column("experiences", "mood", "'calm'"), once])
    print(len(await store.page("default")), flush=True)
    store.close()

anyio.run(main)
"""


async def test_processes_that_start_at_once_upgrade_once(old_home: Path, tmp_path: Path) -> None:
    note = tmp_path / "note"
    children = [start(UPGRADE, old_home, note) for _ in range(3)]
    try:
        for child in children:
            assert hear(child) == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        assert [child.communicate(timeout=DEADLINE_S)[0] for child in children] == ["2\n"] * 3
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert note.read_text() == "done\n"
    assert len(backups(old_home)) == 1


async def test_a_process_of_the_version_before_writes_nothing_into_upgraded_tables(old_home: Path) -> None:
    async with opened(old_home) as old, opened(old_home, TWO_COLUMNS):
        with pytest.raises(StoreError, match=r"upgraded or restored.*start this one again"):
            await old.add_receipt([line("r-late")])
        with pytest.raises(StoreError, match="upgraded or restored"):
            async with old.writing():
                pytest.fail("it must not write")


async def test_tables_whose_mark_is_gone_are_upgraded_from_the_first_schema(old_home: Path) -> None:
    (old_home / "home.json").unlink()
    async with opened(old_home, TWO_COLUMNS) as store:
        assert len(await store.page("default")) == 2
    assert await column(old_home, "experiences", "mood") == ["calm", "calm"]


@pytest.mark.parametrize("pool", ["../elsewhere", "/tmp", "", 7, "pool-party"])
async def test_a_mark_that_leads_out_of_the_home_is_damaged(home: Path, pool: object) -> None:
    lay(home, "home.json", json.dumps({"schema": 1, "pool": pool}))
    with pytest.raises(StoreError, match="is damaged"):
        await Store.open(home)
