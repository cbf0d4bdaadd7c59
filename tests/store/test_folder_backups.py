"""Backups and the way back."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput, StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.store import backup
from reme_mcp.store.archive import pack
from reme_mcp.store.folder import POOL_NAME, HomeMarker
from reme_mcp.store.location import Folder
from reme_mcp.store.migrations import MIGRATIONS, SCHEMA_VERSION
from reme_mcp.store.store import Store
from tests.fakes import draft

if TYPE_CHECKING:
    import lancedb

from tests.store.folder_cases import DEADLINE_S, TWO_COLUMNS, column, contents, fill, hear, ids, lay, opened, start
from tests.store.folder_cases import old_home as old_home
from tests.store.folder_cases import other as other
from tests.store.folder_cases import settings as settings

pytestmark = pytest.mark.anyio


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


class RestoredMeanwhile(Folder):
    """A home into which somebody puts a backup when its mark was read and its tables are not open yet."""

    def __init__(self, path: Path, made: Path) -> None:
        super().__init__(path)
        self._backups = [made]

    async def connect(self, mark: HomeMarker) -> lancedb.AsyncConnection:
        if self._backups:
            await backup.restore(self.path, str(self._backups.pop()), force=True)
        return await super().connect(mark)


@pytest.mark.parametrize("held", [[], ["e-replaced"]], ids=["new", "in use"])
async def test_who_opens_a_home_while_it_is_restored_opens_what_was_restored(
    old_home: Path, tmp_path: Path, held: list[str]
) -> None:
    made, other = await backup.make(old_home), tmp_path / "other"
    if held:
        async with opened(other) as store:
            await fill(store, *held)
    store = await Store.open(RestoredMeanwhile(other, made.file), migrations=())
    assert {one.id for one in await store.page("default")} == {"e-a", "e-b"}
    store.close()
    async with opened(other) as store:
        await fill(store, "e-c")
    assert await ids(other) == {"e-a", "e-b", "e-c"}


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
    with pytest.raises(StoreError, match="there is no pool in"):
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
