"""The home as a folder: older and newer versions, backups, places where nothing can be written, clocks that jump."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from reme_mcp.config.settings import EmbedderSettings, RefineSettings, Settings
from reme_mcp.errors import InvalidInput, StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import Entry, Experience, ReceiptLine, Spent, Trajectory, now
from reme_mcp.store import backup
from reme_mcp.store.archive import pack
from reme_mcp.store.folder import POOL_NAME, read_marker, write_marker
from reme_mcp.store.ledger import TABLES
from reme_mcp.store.migrations import MIGRATIONS, SCHEMA_VERSION, ledger_of_its_own, new_column
from reme_mcp.store.store import Store
from reme_mcp.store.tables import connect, schemas, to_arrow, to_row
from tests.fakes import LEARNED, draft, experience, line, trajectory

if TYPE_CHECKING:
    from lancedb import AsyncConnection

pytestmark = pytest.mark.anyio

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
        assert await store.known_origins("default", ["m1", "m2"]) == set()
        async with store.writing() as writer:
            await writer.put_experiences([experience("e-c", origins=("m1",))], are_new=True)
            await writer.put_experiences([experience("e-a", origins=("m2", "m3"))])
        assert (await store.experiences("default", ["e-c"]))["e-c"].origins == ("m1",)
        assert await store.known_origins("default", ["m1", "m3", "m4", "e-b", "it's"]) == {"m1", "m3", "e-b"}
        assert await store.known_origins("other", ["m1", "e-b"]) == set()


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


# --- backups ---


@pytest.fixture(params=["plain", "ein Ordner/日本語 🦊 it's"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Another place for a home, whatever it is called; its parents are there."""
    place = tmp_path / str(request.param)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


async def test_a_backup_puts_everything_back_in_another_home(old_home: Path, other: Path) -> None:
    made = await backup.make(old_home, other.parent)
    assert made.file.parent == other.parent
    none = dict.fromkeys(["trajectories", "costs", "log", "trash", "counters"], 0)
    assert made.tables == none | {"experiences": 2, "receipts": 2}
    assert made.size == made.file.stat().st_size
    assert made.file.stat().st_mode & 0o077 == 0
    done = await backup.restore(other, str(made.file))
    assert (done.tables, done.replaced, done.undo) == (made.tables, {}, None)
    assert await ids(other) == {"e-a", "e-b"}
    async with opened(other) as store:
        assert {id for id, _ in await store.match_text("default", "site", statuses=["active"], limit=9)} == {
            "e-a",
            "e-b",
        }
        await fill(store, "e-c")
    assert await ids(old_home) == {"e-a", "e-b"}
    # The backup of a home that lies elsewhere is as good as the first.
    again = await backup.make(other)
    assert again.file.parent == other / "backups"
    assert again.tables["experiences"] == 3


async def test_a_home_in_use_is_replaced_only_by_force_and_kept(old_home: Path) -> None:
    made = await backup.make(old_home)
    async with opened(old_home) as store:
        await fill(store, "e-new")
    before = contents(old_home)
    with pytest.raises(InvalidInput, match=r"holds a pool with 3 lessons; --force"):
        await backup.restore(old_home, str(made.file))
    looked = await backup.restore(old_home, made.file.name, force=True, dry_run=True)
    assert looked.replaced is not None
    assert (looked.replaced["experiences"], looked.tables["experiences"], looked.undo) == (3, 2, None)
    assert contents(old_home) == before

    done = await backup.restore(old_home, made.file.stem, force=True)
    assert await ids(old_home) == {"e-a", "e-b"}
    assert done.undo is not None
    await backup.restore(old_home, done.undo.name, force=True)
    assert await ids(old_home) == {"e-a", "e-b", "e-new"}
    # Of the pools only the one in use is still there.
    assert len([entry for entry in names(old_home) if POOL_NAME.fullmatch(entry)]) == 1


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


async def test_who_has_the_replaced_tables_open_is_told_and_writes_nothing(old_home: Path) -> None:
    made = await backup.make(old_home)
    async with opened(old_home) as store:
        await backup.restore(old_home, made.file.name, force=True)
        with pytest.raises(StoreError, match=r"restored from a backup by another process; try again"):
            await fill(store, "e-lost")
    assert await ids(old_home) == {"e-a", "e-b"}


async def test_whoever_works_on_a_home_goes_on_with_what_was_restored(settings: Settings) -> None:
    async with Memory.open(settings) as working, Memory.open(settings) as restoring:
        first = await working.record("blog", outcome="success", experiences=[draft(0)], source="test")
        made = await restoring.pool.backup()
        await working.record("eggs", outcome="success", experiences=[draft(1)], source="test")
        await restoring.pool.restore_backup(str(made.file), force=True)
        for memory in (working, restoring):
            assert [one.id for one in await memory.pool.page()] == first.added
            recalled = await memory.recall("a static site has to go online", source="test")
            assert recalled.receipt
        await working.record("eggs", outcome="success", experiences=[draft(1)], source="test")
        assert len(await restoring.pool.page()) == 2


async def test_whoever_works_on_a_home_is_told_of_its_upgrade(old_home: Path, settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        assert len(await memory.pool.page()) == 2
        async with opened(old_home, (*MIGRATIONS, *TWO_COLUMNS)):
            pass
        with pytest.raises(
            StoreError, match=f"written with schema {SCHEMA_VERSION + 2}, this reme-mcp reads schema {SCHEMA_VERSION}"
        ):
            await memory.recall("anything", source="test")


async def test_a_backup_of_an_older_version_is_upgraded_once_it_is_opened(old_home: Path, other: Path) -> None:
    made = await backup.make(old_home)
    async with opened(old_home, TWO_COLUMNS):
        pass
    await backup.restore(other, str(made.file))
    async with opened(other, TWO_COLUMNS) as store:
        assert len(await store.page("default")) == 2
    assert await column(other, "experiences", "mood") == ["calm", "calm"]


async def test_a_backup_of_a_newer_version_is_refused_with_both(home: Path, other: Path, tmp_path: Path) -> None:
    async with opened(home, TWO_COLUMNS):
        pass
    made = tmp_path / "new.zip"
    pack(home / "pool", made, schema=SCHEMA_VERSION + 1, tables={})
    with pytest.raises(
        StoreError, match=f"written with schema {SCHEMA_VERSION + 1}, this reme-mcp reads schema {SCHEMA_VERSION}"
    ):
        await backup.restore(other, str(made))
    assert not exists(other)


def exists(path: Path) -> bool:
    return path.exists()


def zipped(file: Path, **members: str) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return file


NO_BACKUPS = {
    "text": {"": "not a zip"},
    "another zip": {"holiday.jpg": "x"},
    "a mark alone": {"home.json": "[]"},
    "a way out": {"home.json": '{"schema": 1, "tables": {}}', "pool/../../evil": "x"},
    "a stranger": {"home.json": '{"schema": 1, "tables": {}}', "evil": "x"},
}


@pytest.mark.parametrize("members", NO_BACKUPS.values(), ids=list(NO_BACKUPS))
async def test_what_is_no_backup_is_refused(home: Path, tmp_path: Path, members: dict[str, str]) -> None:
    file = lay(tmp_path, "x.zip", members[""]) if "" in members else zipped(tmp_path / "x.zip", **members)
    with pytest.raises(InvalidInput, match=r"x\.zip is no backup of reme-mcp"):
        await backup.restore(home, str(file))
    assert not exists(home)


async def test_a_backup_that_would_unpack_to_more_than_it_holds_is_refused(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("home.json", '{"schema": 1, "tables": {}}')
        archive.writestr("pool/x", bytes(10**7))
    with pytest.raises(InvalidInput, match=r"it would unpack to 10,000,027 bytes from 9,\d+, and a backup is never"):
        await backup.restore(home, str(file))
    assert not exists(home)


async def test_a_backup_that_is_not_there_is_named_with_those_that_are(old_home: Path) -> None:
    made = await backup.make(old_home)
    with pytest.raises(InvalidInput, match=rf"no backup 'yesterday'; .*{made.file.name}"):
        await backup.restore(old_home, "yesterday")


async def test_a_damaged_backup_changes_nothing(old_home: Path, other: Path) -> None:
    made = await backup.make(old_home)
    spoilt = bytearray(made.file.read_bytes())
    spoilt[len(spoilt) // 2] ^= 1
    made.file.write_bytes(spoilt)
    before = contents(old_home)
    with pytest.raises(InvalidInput, match="damaged"):
        await backup.restore(old_home, made.file.name, force=True)
    assert contents(old_home) == before
    assert await ids(old_home) == {"e-a", "e-b"}


async def test_a_backup_never_overwrites_a_file(old_home: Path, tmp_path: Path) -> None:
    file = lay(tmp_path, "thesis.zip", "years of work")
    with pytest.raises(StoreError, match="exists already"):
        await backup.make(old_home, file)
    assert file.read_text() == "years of work"
    assert names(tmp_path) == ["machine", "pool-home", "thesis.zip"]


@pytest.mark.parametrize("target", ["thesis.zip/below/b.zip", "x" * 300, "place/" + "x" * 300])
async def test_a_place_that_no_file_can_have_is_one_clear_error(old_home: Path, tmp_path: Path, target: str) -> None:
    lay(tmp_path, "thesis.zip", "years of work")
    with pytest.raises(StoreError, match="can't write"):
        await backup.make(old_home, tmp_path / target)
    with pytest.raises(InvalidInput, match="no backup"):
        await backup.restore(old_home, str(tmp_path / target))
    assert not [name for name in names(old_home) if name.startswith("snapshot")]


# Fails once the tables are switched.
FAILING_RESTORE = """
import sys, anyio
from pathlib import Path
from reme_mcp.store import backup, folder as home

write_marker = home.write_marker
def write_and_die(*arguments):
    write_marker(*arguments)
    raise KeyboardInterrupt

home.write_marker = write_and_die
try:
    anyio.run(lambda: backup.restore(Path(sys.argv[1]), sys.argv[2], force=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


async def test_a_restore_that_is_interrupted_keeps_the_tables_that_are_in_use(old_home: Path) -> None:
    made = await backup.make(old_home)
    async with opened(old_home) as store:
        await fill(store, "e-new")
    child = start(FAILING_RESTORE, old_home, made.file)
    assert child.communicate(timeout=DEADLINE_S)[0] == "interrupted\n"
    assert await ids(old_home) == {"e-a", "e-b"}


async def test_there_is_nothing_to_back_up_where_there_is_no_home(home: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        await backup.make(home)
    assert not exists(home)
    lay(home, "home.json", '{"schema": 1}')
    with pytest.raises(StoreError, match="nothing to back up"):
        await backup.make(home)
    lay(tmp_path / "photos", "cat.jpg", "x")
    made = tmp_path / "b.zip"
    pack(home, made, schema=1, tables={})
    with pytest.raises(StoreError, match="not a home"):
        await backup.restore(tmp_path / "photos", str(made))
    assert names(tmp_path / "photos") == ["cat.jpg"]


async def test_tables_that_cant_be_read_are_replaced_by_force_only(old_home: Path) -> None:
    made = await backup.make(old_home)
    for file in (old_home / "pool").rglob("*.manifest"):
        file.write_bytes(b"gone")
    with pytest.raises(InvalidInput, match=r"tables that can't be read; --force"):
        await backup.restore(old_home, made.file.name)
    done = await backup.restore(old_home, made.file.name, force=True)
    assert done.replaced is None
    assert done.undo is not None
    assert await ids(old_home) == {"e-a", "e-b"}


# Records without end, and says the number of each.
WRITER = """
import sys, anyio
from pathlib import Path
from reme_mcp.store import store as stores
from tests.fakes import experience, line

async def main():
    store = await stores.Store.open(Path(sys.argv[1]))
    for number in range(10_000):
        async with store.writing() as writer:
            await writer.put_experiences([experience(f"e-{number}")])
        await store.add_receipt([line(f"r-{number}", experience_id=f"e-{number}")])
        print(number, flush=True)
        await store.compaction.run()

anyio.run(main)
"""


async def test_a_backup_holds_all_that_was_acknowledged_while_others_write(home: Path, tmp_path: Path) -> None:
    child = start(WRITER, home)
    try:
        for number in range(4):
            acknowledged = [int(hear(child)) for _ in range(12)][-1]
            made = await backup.make(home, tmp_path / f"{number}.zip")
            assert made.tables["experiences"] > acknowledged
            # An experience is written before its receipt.
            assert made.tables["experiences"] - made.tables["receipts"] in (0, 1)
    finally:
        child.kill()
        child.communicate()
    other = tmp_path / "other"
    await backup.restore(other, str(made.file))
    async with opened(other, MIGRATIONS) as store:
        assert sum((await store.count("default")).values()) == made.tables["experiences"]


# Restores, and stops where the tables are switched.
HALF_RESTORE = """
import sys, anyio
from pathlib import Path
from reme_mcp.store import backup, folder as home

def stop_here(*_):
    print("half", flush=True)
    sys.stdin.readline()

home.write_marker = stop_here
anyio.run(lambda: backup.restore(Path(sys.argv[1]), sys.argv[2], force=True))
"""


async def test_a_restore_that_is_killed_leaves_the_home_as_it_was(old_home: Path) -> None:
    made = await backup.make(old_home)
    async with opened(old_home) as store:
        await fill(store, "e-new")
    child = start(HALF_RESTORE, old_home, made.file)
    assert hear(child) == "half\n"
    child.kill()
    child.communicate()
    assert await ids(old_home) == {"e-a", "e-b", "e-new"}
    # What it left goes with the next, but for a pool that no mark has superseded.
    (old_home / "snapshot-20260301T120000Z").mkdir()
    await backup.make(old_home)
    assert [name for name in names(old_home) if name.startswith("snapshot")] == []
    [found] = [name for name in names(old_home) if name.startswith("pool-2")]
    await backup.restore(old_home, found, force=True)
    assert await ids(old_home) == {"e-a", "e-b"}


# --- where nothing can be written ---

# Each runs where only it sees what is mounted: its own user and mount namespace.
MOUNTED = """
import subprocess, sys
import anyio
from pathlib import Path
from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.store.store import Store
from reme_mcp.store.migrations import MIGRATIONS, new_column
from tests.fakes import draft, experience

home, place = sys.argv[1:]
settings = Settings(home=home, embedder=EmbedderSettings(provider="none"))

def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

async def refused(says, work):
    try:
        await work
    except StoreError as exc:
        assert says in str(exc), exc
    else:
        raise AssertionError("it must not work")
"""

READ_ONLY = """
async def main():
    mount("--bind", home, home)
    mount("-o", "remount,ro,bind", home)
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        recalled = await memory.recall("deploy a static site", source="test")
        assert [one.id for one in recalled.experiences], recalled
        assert recalled.receipt == "", recalled
        assert "not counted" in recalled.note and "Read-only file system" in recalled.note, recalled.note
        assert "has no receipt" in recalled.guidance and "receipt=" not in recalled.guidance, recalled.guidance
        assert len(await memory.pool.page()) == 2
        assert (await memory.pool.experience("e-a"))[0].id == "e-a"
        assert (await memory.pool.stats()).experiences == {"active": 2}
        record = memory.record("deploy", outcome="success", receipt=recalled.receipt, source="test")
        await refused("Read-only file system", record)
        await refused("Read-only file system", memory.rate("e-a", helpful=True, source="test"))
        later = Store.open(Path(home), migrations=[*MIGRATIONS, new_column("experiences", "mood", "'calm'")])
        newest = 1 + len(MIGRATIONS)
        await refused(f"can't upgrade {home} from schema {newest} to {newest + 1}: can't lock", later)
        await refused("Read-only file system", memory.pool.backup(Path(place) / "b.zip"))
    print("done")
anyio.run(main)
"""

FULL = """
async def main():
    mount("-t", "tmpfs", "-o", "size=1536k", "tmpfs", place)
    own = settings.model_copy(update={"home": place + "/home"})
    async with Memory.open(own) as memory:
        await memory.record("deploy a static site", outcome="success", experiences=[draft()], source="test")
        full = Path(place, "full")
        with full.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        for _ in range(3):
            recalled = await memory.recall("a static site has to go online", source="test")
            assert len(recalled.experiences) == 1, recalled
            assert recalled.receipt == "" and "not counted" in recalled.note, recalled
            record = memory.record("boil eggs", outcome="success", experiences=[draft(1)], source="test")
            await refused("No space left", record)
            await refused("", memory.rate(recalled.experiences[0].id, helpful=True, source="test"))
        await refused("no room", memory.pool.backup())
        assert not list(Path(place).rglob("*.part")) and not list(Path(place).rglob("*.zip"))
        full.unlink()
        recalled = await memory.recall("a static site has to go online", source="test")
        assert recalled.receipt and not recalled.note, recalled
        recorded = await memory.record(
            "boil eggs", outcome="success", experiences=[draft(1)], receipt=recalled.receipt, source="test"
        )
        assert len(recorded.added) == len(recorded.settled) == 1, recorded
    async with Memory.open(own) as memory:
        await memory.warm_up(download=False)
        assert (await memory.pool.stats()).experiences == {"active": 2}
        assert (await memory.pool.stats()).receipts["settled"] == 1
        made = await memory.pool.backup()
    # No room for what is to be put back, either: all stays as it is.
    with Path(place, "full").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    async with Memory.open(own) as memory:
        await refused("no room", memory.pool.restore_backup(str(made.file), force=True))
        assert not list(Path(place, "home").glob("pool-2*"))
        assert (await memory.pool.stats()).experiences == {"active": 2}
    print("done")
anyio.run(main)
"""


def mounted(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", MOUNTED + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def may_mount() -> bool:
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.parametrize("script", [READ_ONLY, FULL], ids=["read-only", "full"])
async def test_a_place_that_cant_be_written_is_read_and_says_so(old_home: Path, tmp_path: Path, script: str) -> None:
    if not may_mount():
        pytest.skip("mounting in a namespace of its own is not permitted here")
    lay(tmp_path / "place", "note", "here something is mounted")
    async with opened(old_home, MIGRATIONS):
        pass
    done = mounted(script, old_home, tmp_path / "place")
    assert done.stdout == "done\n", done.stderr


# --- clocks that jump ---


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=1), timedelta(days=10_000)])
async def test_what_was_learned_under_a_clock_ahead_is_recalled_and_counted(
    settings: Settings, ahead: timedelta
) -> None:
    learned = now() + ahead
    async with opened(Path(settings.home)) as store, store.writing() as writer:
        await writer.put_experiences(
            [experience("e-a", created_at=learned, updated_at=learned, counted_since=learned, frequency=0)]
        )
    async with Memory.open(settings) as memory:
        recalled = await memory.recall("a static site has to go online", source="test")
        assert recalled.experiences[0].numbers.age_days == 0
        recorded = await memory.record("blog", outcome="success", receipt=recalled.receipt, source="test")
        assert [(one.frequency, one.utility) for one in recorded.settled] == [(1, 1)]
        rated = await memory.rate("e-a", helpful=False, source="test")
        assert (rated.receipt, rated.frequency, rated.utility) == (recalled.receipt, 1, 0)
        # A rating that stands for itself counts, too.
        rated = await memory.rate("e-a", helpful=True, source="somebody else")
        assert (rated.frequency, rated.utility) == (2, 1)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=1)])
async def test_what_was_counted_under_a_clock_ahead_does_not_count_again_once_restored(
    settings: Settings, ahead: timedelta
) -> None:
    before = now() + ahead
    old = line("r-old", experience_id="e-a", created_at=before, helped=False, settled_by="rating", settled_at=before)
    async with opened(Path(settings.home)) as store:
        async with store.writing() as writer:
            await writer.put_experiences([experience("e-a", status="archived", frequency=1)])
        await store.add_receipt([old])
    async with Memory.open(settings) as memory:
        assert (await memory.pool.experience("e-a"))[1].frequency == 1
        await memory.pool.restore("e-a")
        assert (await memory.pool.experience("e-a"))[1].frequency == 0
        recalled = await memory.recall("a static site has to go online", source="test")
        recorded = await memory.record("blog", outcome="success", receipt=recalled.receipt, source="test")
        assert [(one.frequency, one.utility) for one in recorded.settled] == [(1, 1)]


async def test_a_file_from_before_the_time_that_a_zip_knows_is_backed_up(old_home: Path, other: Path) -> None:
    for file in (old_home / "pool").rglob("*"):
        os.utime(file, (1, 1))
    made = await backup.make(old_home)
    await backup.restore(other, str(made.file))
    assert await ids(other) == {"e-a", "e-b"}
