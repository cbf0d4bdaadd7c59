"""Homes of other versions."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reme_mcp.errors import StoreError
from reme_mcp.schema import Entry, Experience, ReceiptLine, Spent, Trajectory
from reme_mcp.store.folder import read_marker, write_marker
from reme_mcp.store.ledger import TABLES
from reme_mcp.store.migrations import MIGRATIONS, SCHEMA_VERSION, ledger_of_its_own
from reme_mcp.store.store import Store
from reme_mcp.store.tables import connect, schemas, to_arrow, to_row
from tests.fakes import LEARNED, experience, line, trajectory

if TYPE_CHECKING:
    from lancedb import AsyncConnection

from tests.store.folder_cases import DEADLINE_S, TWO_COLUMNS, column, contents, hear, ids, lay, opened, start
from tests.store.folder_cases import old_home as old_home

pytestmark = pytest.mark.anyio


def backups(home: Path) -> list[str]:
    return sorted(file.name for file in (home / "backups").glob("*"))


async def test_an_older_home_is_upgraded_with_a_backup_in_it(old_home: Path) -> None:
    async with opened(old_home, TWO_COLUMNS) as store:
        assert {one.id for one in await store.page("default")} == {"e-a", "e-b"}
    assert await column(old_home, "experiences", "mood") == ["calm", "calm"]
    assert json.loads((old_home / "home.json").read_text())["schema"] == 3
    [kept] = backups(old_home)
    assert kept.startswith("schema-1-")
    # The backup is of before.
    with zipfile.ZipFile(old_home / "backups" / kept) as archive:
        assert json.loads(archive.read("home.json")) == {
            "schema": 1,
            "tables": {
                "experiences": 2,
                "receipts": 2,
                "trajectories": 0,
                "costs": 0,
                "log": 0,
                "trash": 0,
                "counters": 0,
            },
        }


async def move_into_tables(home: Path, *left_out: str) -> None:
    """Let all of the ledger stand in LanceDB's tables, as it did before, trajectories without some of their columns."""
    store = await Store.open(home, migrations=())
    kinds: list[type[Any]] = [Trajectory, ReceiptLine, Spent, Entry, Experience]
    rows = {TABLES[kind]: [to_row(one) for one in await store._ledger.read(kind)] for kind in kinds}
    connection = await connect(home / "pool")
    for name, values in rows.items():
        table = await connection.create_table(name, schema=schemas()[name])
        if values:
            await table.add(to_arrow(values, schemas()[name]))
        if name == "trajectories" and left_out:
            await table.drop_columns(list(left_out))
    connection.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
    store.close()
    for file in (home / "pool").glob("ledger.db*"):
        file.unlink()
    forget_tables(home)


def forget_tables(home: Path) -> None:
    """Let the home not say which tables it has, as one of an earlier version."""
    write_marker(home, replace(read_marker(home, schema=SCHEMA_VERSION), tables=()))
    for file in (home / "pool").glob("*.head"):
        file.unlink()


async def test_a_home_of_before_there_was_a_ledger_gets_one_with_all_it_held(old_home: Path) -> None:
    told = Entry("l-1", "default", "cli", "pinned", "e-a", "why", LEARNED)
    cost = Spent("judge", "tiny", LEARNED, 1, 20, 3, False, 0.5, True)
    async with opened(old_home) as store, store.writing() as writer:
        await writer.add_trajectory(trajectory("t-old"))
        await writer.put_deleted(experience("e-gone", keywords=("a", "b")))
        await writer.add_log([told])
        await writer.add_spent([cost])
    await move_into_tables(old_home, "tries", "retry_at", "trouble")
    async with opened(old_home, MIGRATIONS) as store:
        assert await store.trajectory("default", "t-old") == trajectory("t-old")
        assert await store.receipts.lines("default", "r-e-a") == [line("r-e-a", experience_id="e-a")]
        assert await store.activity_log.deleted_experience("default", "e-gone") == experience(
            "e-gone", keywords=("a", "b")
        )
        assert await store.activity_log.every_entry() == [told]
        assert await store.spent() == [cost]
        assert not list((old_home / "pool").glob("trajectories.lance"))
        async with store.writing() as writer:
            await writer.put_trajectory(trajectory("t-new", tries=2, retry_at=LEARNED, trouble="no model"))
        assert await store.trajectory("default", "t-new") == trajectory(
            "t-new", tries=2, retry_at=LEARNED, trouble="no model"
        )
    assert json.loads((old_home / "home.json").read_text())["schema"] == 1 + len(MIGRATIONS)
    [kept] = backups(old_home)
    with zipfile.ZipFile(old_home / "backups" / kept) as archive:
        assert json.loads(archive.read("home.json"))["tables"]["trajectories"] == 1


async def test_a_move_into_the_ledger_that_was_cut_short_is_finished(old_home: Path) -> None:
    async with opened(old_home) as store, store.writing() as writer:
        await writer.add_trajectory(trajectory("t-old"))
    await move_into_tables(old_home)

    async def cut_short(connection: AsyncConnection) -> None:
        await connection.drop_table("trajectories")
        raise OSError("the power is gone")

    # The tables were in the ledger, and the first of them was dropped.
    move = ledger_of_its_own(["trajectories", "receipts", "costs", "log", "trash"])
    copied = old_home.with_name("copied")
    shutil.copytree(old_home, copied)
    async with opened(copied, [move]):
        pass
    shutil.copy(copied / "pool" / "ledger.db", old_home / "pool" / "ledger.db")
    with pytest.raises(StoreError, match="the power is gone"):
        await Store.open(old_home, migrations=[cut_short])
    async with opened(old_home, [move]) as store:
        assert await store.trajectory("default", "t-old") == trajectory("t-old")
        assert len(await store.receipts.lines("default", "r-e-b")) == 1


async def test_lessons_without_their_ledger_are_a_damaged_home(old_home: Path) -> None:
    forget_tables(old_home)
    (old_home / "pool" / "ledger.db").unlink()
    before = contents(old_home)
    with pytest.raises(StoreError, match=r"ledger\.db is gone.*restore-backup"):
        await Store.open(old_home, migrations=())
    assert contents(old_home) == before


async def test_a_home_without_the_column_of_imports_gets_it(old_home: Path) -> None:
    async with opened(old_home) as store:
        await store._tables["experiences"].drop_columns(["origins"])
    async with opened(old_home, MIGRATIONS) as store:
        assert (await store.experiences("default", ["e-a"]))["e-a"] == experience("e-a")
        assert await store.of_origins("default", ["m1", "m2"]) == {}
        async with store.writing() as writer:
            await writer.put_experiences([experience("e-c", origins=("m1",))], are_new=True)
            await writer.put_experiences([experience("e-a", origins=("m2", "m3"))])
        assert (await store.experiences("default", ["e-c"]))["e-c"].origins == ("m1",)
        known = await store.of_origins("default", ["m1", "m3", "m4", "e-b", "it's"])
        assert known.keys() == {"m1", "m3", "e-b"}
        assert await store.of_origins("other", ["m1", "e-b"]) == {}


async def test_a_home_of_today_is_not_upgraded_and_not_backed_up(old_home: Path) -> None:
    before = contents(old_home)
    async with opened(old_home):
        pass
    assert contents(old_home) == before


async def test_only_the_upgrades_that_are_due_are_done(old_home: Path) -> None:
    done: list[int] = []

    def noted(number: int) -> Callable[[AsyncConnection], Awaitable[None]]:
        async def migrate(_: AsyncConnection) -> None:
            done.append(number)

        return migrate

    for migrations in ([noted(1)], [noted(1)], [noted(1), noted(2), noted(3)]):
        async with opened(old_home, migrations):
            pass
    assert done == [1, 2, 3]
    assert [name[:9] for name in backups(old_home)] == ["schema-1-", "schema-2-"]


async def test_a_new_home_starts_with_the_newest_schema(home: Path) -> None:
    async with opened(home, TWO_COLUMNS):
        pass
    assert json.loads((home / "home.json").read_text())["schema"] == 3
    assert backups(home) == []


async def test_a_newer_home_is_refused_with_both_versions_and_untouched(old_home: Path) -> None:
    async with opened(old_home, (*MIGRATIONS, *TWO_COLUMNS)):
        pass
    before = contents(old_home)
    with pytest.raises(
        StoreError, match=f"written with schema {SCHEMA_VERSION + 2}, this reme-mcp reads schema {SCHEMA_VERSION}"
    ):
        await Store.open(old_home)
    assert contents(old_home) == before


async def test_an_upgrade_that_fails_is_done_at_the_next_start_with_one_backup(old_home: Path) -> None:
    async def fail(_: AsyncConnection) -> None:
        raise OSError("the disk is on fire")

    for _ in range(2):
        with pytest.raises(StoreError, match=r"can't upgrade .* from schema 1 to 3: .*the disk is on fire"):
            await Store.open(old_home, migrations=[TWO_COLUMNS[0], fail])
    assert await ids(old_home) == {"e-a", "e-b"}
    async with opened(old_home, TWO_COLUMNS) as store:
        assert len(await store.page("default")) == 2
    assert len(backups(old_home)) == 1
    assert json.loads((old_home / "home.json").read_text())["schema"] == 3


# Upgrades in the middle of which somebody kills it; says when.
HALF_UPGRADE = """
import sys, anyio
from pathlib import Path
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import now
from reme_mcp.store.store import Store
from reme_mcp.store.migrations import new_column

async def stop_here(connection):
    print("half", flush=True)
    sys.stdin.readline()

anyio.run(lambda: Store.open(Path(sys.argv[1]), migrations=[new_column("experiences", "mood", "'calm'"), stop_here]))
"""


@pytest.mark.slow
async def test_an_upgrade_that_is_killed_is_done_at_the_next_start_with_one_backup(old_home: Path) -> None:
    for _ in range(2):
        child = start(HALF_UPGRADE, old_home)
        assert hear(child) == "half\n"
        child.kill()
        child.communicate()
    assert json.loads((old_home / "home.json").read_text())["schema"] == 1
    async with opened(old_home, TWO_COLUMNS) as store:
        assert len(await store.page("default")) == 2
    assert await column(old_home, "experiences", "mood") == ["calm", "calm"]
    assert await column(old_home, "experiences", "cost") == [0, 0]
    assert len(backups(old_home)) == 1


UPGRADE = """
import sys, anyio
from pathlib import Path
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import now
from reme_mcp.store.store import Store
from reme_mcp.store.migrations import new_column

async def once(connection):
    with open(sys.argv[2], "a") as file:
        file.write("done\\n")

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    store = await Store.open(Path(sys.argv[1]), migrations=[new_column("experiences", "mood", "'calm'"), once])
    print(len(await store.page("default")), flush=True)
    store.close()

anyio.run(main)
"""


@pytest.mark.slow
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
        with pytest.raises(StoreError, match=r"upgraded or restored.*try again"):
            await old.add_receipt([line("r-late")])
        with pytest.raises(StoreError, match="upgraded or restored"):
            async with old.writing():
                pytest.fail("it must not write")


async def test_an_old_home_whose_tables_were_never_made_gets_them_whole(home: Path) -> None:
    lay(home, "home.json", '{"schema": 1}')
    async with opened(home, TWO_COLUMNS) as store:
        assert await store.page("default") == []
    assert json.loads((home / "home.json").read_text())["schema"] == 3


@pytest.mark.parametrize("pool", ["../elsewhere", "/tmp", "", 7, "pool-party"])
async def test_a_mark_that_leads_out_of_the_home_is_damaged(home: Path, pool: object) -> None:
    lay(home, "home.json", json.dumps({"schema": 1, "pool": pool}))
    with pytest.raises(StoreError, match="is damaged"):
        await Store.open(home)
