"""A home of which something is missing is named as that, is never written into, and has a way back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from reme_mcp.cli.main import cli
from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.store import backup
from reme_mcp.store.durability import TableFiles
from reme_mcp.store.migrations import SCHEMA_VERSION
from reme_mcp.store.store import Store
from tests.fakes import draft, experience

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(home: Path) -> Settings:
    return Settings(home=str(home), embedder=EmbedderSettings(provider="none"))


@pytest.fixture
def lessons(home: Path, settings: Settings) -> list[str]:
    """Fill the home, and return what it holds; there is a backup of it."""

    async def fill() -> list[str]:
        async with Memory.open(settings) as memory:
            for number in range(2):
                await memory.record(f"task {number}", outcome="success", experiences=[draft(number)], source="test")
            recalled = await memory.recall("a static site has to go online", source="test")
            await memory.rate(recalled.experiences[0].id, helpful=True, receipt=recalled.receipt, source="test")
        await backup.make(home)
        return await ids(home)

    return anyio.run(fill)


async def ids(home: Path) -> list[str]:
    store = await Store.open(home)
    try:
        return sorted(one.id for one in await store.page("default"))
    finally:
        store.close()


def contents(home: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(home)): file.read_bytes()
        for file in home.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    }


def newest_manifest(table: Path) -> Path:
    return min((table / "_versions").glob("*.manifest"))


def files(home: Path, table: str) -> list[Path]:
    return list((home / "pool" / f"{table}.lance" / "data").iterdir())


def remove(*files: Path) -> None:
    for file in files:
        file.unlink()


def names(home: Path) -> set[str]:
    return {file.name for file in home.iterdir()}


def everything(home: Path) -> set[Path]:
    return {file for file in home.rglob("*") if file.is_file()}


async def go_back(home: Path) -> None:
    """Put the ledger back to what it was some records ago, as half a copy does."""
    file = home / "pool" / "ledger.db"
    early = file.read_bytes()
    async with Memory.open(Settings(home=str(home), embedder=EmbedderSettings(provider="none"))) as memory:
        await memory.record("task 3", outcome="success", experiences=[], source="test")
    file.write_bytes(early)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no mark": (lambda home: (home / "home.json").unlink(), r"home\.json is not there"),
    "an empty mark": (lambda home: (home / "home.json").write_bytes(b""), r"home\.json is empty"),
    "a large mark": (lambda home: (home / "home.json").write_bytes(b" " * 10**6), "larger than 65,536 bytes"),
    "the pool is gone": (lambda home: shutil.rmtree(home / "pool"), "the folder pool, .* is not there"),
    "a mark of another folder": (
        lambda home: (home / "home.json").write_text('{"schema": 5, "pool": "pool-20260301T120000Z"}'),
        "holds no tables, and pool does",
    ),
    "a table is gone": (
        lambda home: shutil.rmtree(home / "pool" / "experiences.lance"),
        r"pool lacks .*: experiences",
    ),
    "the newest manifest is gone": (
        lambda home: newest_manifest(home / "pool" / "experiences.lance").unlink(),
        r"experiences was at version \d+ and is at \d+",
    ),
    "all manifests are gone": (
        lambda home: shutil.rmtree(home / "pool" / "experiences.lance" / "_versions"),
        "can't open experiences",
    ),
    "data is gone": (lambda home: remove(*files(home, "experiences")), "can't read experiences"),
    "data is cut off": (
        lambda home: [file.write_bytes(b"") for file in files(home, "experiences")],
        "can't read experiences",
    ),
    "the index is gone": (
        lambda home: shutil.rmtree(home / "pool" / "experiences.lance" / "_indices"),
        "can't read experiences",
    ),
    "nothing says how far": (
        lambda home: (home / "pool" / "experiences.head").unlink(),
        r"experiences\.head, .* is gone",
    ),
    "the ledger is gone": (lambda home: (home / "pool" / "ledger.db").unlink(), r"pool lacks .*: ledger\.db"),
    "the ledger is empty": (lambda home: (home / "pool" / "ledger.db").write_bytes(b""), r"pool lacks .*: ledger\.db"),
    "the ledger is cut off": (
        lambda home: os.truncate(home / "pool" / "ledger.db", 10_000),
        r"ledger\.db can't be read \(database disk image is malformed\)",
    ),
    "the ledger is something else": (
        lambda home: (home / "pool" / "ledger.db").write_bytes(b"x" * 20_000),
        r"ledger\.db can't be read \(file is not a database\)",
    ),
    "the ledger is older": (lambda home: anyio.run(go_back, home), r"ledger\.db was at version \d+ and is at \d+"),
    "nothing says how far the ledger is": (
        lambda home: (home / "pool" / "ledger.db.head").unlink(),
        r"ledger\.db\.head, .* is gone",
    ),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=list(DAMAGES))
async def test_a_damaged_home_is_refused_in_words_and_left_as_it_is(
    home: Path, lessons: list[str], damage: Callable[[Path], object], says: str
) -> None:
    await anyio.to_thread.run_sync(damage, home)
    before = contents(home)
    for _ in range(2):
        with pytest.raises(StoreError, match=rf"is damaged: .*{says}.*restore-backup --force \d+T\d+Z\.zip"):
            await Store.open(home)
    with pytest.raises(StoreError, match=r"damaged|can't read"):
        await backup.make(home)
    assert contents(home) == before
    [kept] = (home / "backups").iterdir()
    looked = await backup.restore(home, kept.name, force=True, dry_run=True)
    assert (looked.tables["experiences"], contents(home)) == (2, before)
    await backup.restore(home, kept.name, force=True)
    assert await ids(home) == lessons


async def test_who_restores_a_damaged_home_is_not_told_to_restore_it(
    home: Path, lessons: list[str], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    [kept] = await anyio.to_thread.run_sync(lambda: list((home / "backups").iterdir()))
    await anyio.to_thread.run_sync(shutil.rmtree, home / "pool")
    async with Memory.open(settings) as memory:
        await memory.pool.restore_backup(kept.name, force=True)
        newest, *_ = await memory.pool.log()
    assert caplog.messages == ["the log of the damaged home can't be read; that of the backup goes on"]
    assert (newest.did, newest.reason) == ("backup restored", "the log before it could not be read")
    assert await ids(home) == lessons


@pytest.mark.parametrize("damage", [damage for damage, _ in DAMAGES.values()], ids=list(DAMAGES))
def test_doctor_finds_a_damaged_home(home: Path, lessons: list[str], damage: Callable[[Path], object]) -> None:
    damage(home)
    [broken] = [one for one in doctor(home) if one["state"] == "broken"]
    assert "is damaged" in broken["says"]
    assert broken["do"].startswith("reme-mcp restore-backup --force ")
    listed = CliRunner().invoke(cli, ["--home", str(home), "--set", "embedder.provider=none", "list"])
    assert listed.exit_code == 1
    assert "is damaged" in listed.stderr


@pytest.mark.parametrize("mark", [None, "", '{"schema": 5}'])
async def test_tables_that_no_mark_names_are_never_removed_and_can_be_taken(
    home: Path, lessons: list[str], settings: Settings, mark: str | None
) -> None:
    [kept] = (home / "backups").iterdir()
    await backup.restore(home, kept.name, force=True)
    [pool] = [name for name in names(home) if name.startswith("pool-2")]
    (home / "home.json").unlink() if mark is None else (home / "home.json").write_text(mark)
    before = contents(home)
    with pytest.raises(StoreError, match=rf"restore-backup --force {pool}"):
        await ids(home)
    with pytest.raises(StoreError, match=rf"restore-backup --force {pool}"):
        await backup.make(home)
    assert contents(home) == before
    looked = await backup.restore(home, pool, force=True, dry_run=True)
    assert (looked.tables["experiences"], contents(home)) == (2, before)
    await backup.restore(home, pool, force=True)
    assert await ids(home) == lessons
    # A backup in its place leaves it, too.
    (home / "home.json").unlink()
    await backup.restore(home, kept.name, force=True)
    assert pool in names(home)
    assert await ids(home) == lessons


@pytest.mark.parametrize("table", ["experiences", "ledger.db"])
async def test_what_says_how_far_a_table_has_come_and_cannot_be_read_is_no_damage(
    home: Path, lessons: list[str], table: str
) -> None:
    head = home / "pool" / f"{table}.head"
    said = head.read_bytes()
    head.unlink()
    # What no account may read, whoever runs the tests.
    head.mkdir()
    before = contents(home)
    told = rf"^can't read {head} \(Is a directory\), which says how far {table} has come; is the disk whole"
    with pytest.raises(StoreError, match=told):
        await Store.open(home)
    with pytest.raises(StoreError, match=told):
        await backup.make(home)
    with pytest.raises(StoreError, match=str(head)):
        await backup.restore(home, "pool", force=True)
    assert contents(home) == before
    found = await anyio.to_thread.run_sync(doctor, home)
    [broken] = [one for one in found if one["state"] == "broken"]
    assert str(head) in broken["says"]
    assert not broken["do"]
    head.rmdir()
    head.write_bytes(said)
    assert await ids(home) == lessons


def test_doctor_reads_the_ledger_to_the_end(home: Path, lessons: list[str]) -> None:
    file = home / "pool" / "ledger.db"
    whole = file.read_bytes()
    # A page that nobody reads to open it.
    file.write_bytes(whole[:-4096] + b"\xff" * 4096)
    [broken] = [one for one in doctor(home) if one["state"] == "broken"]
    assert f"{file} is damaged: " in broken["says"]
    assert broken["do"].startswith("reme-mcp restore-backup --force 2")
    file.write_bytes(whole)
    assert not [one for one in doctor(home) if one["state"] == "broken"]


def doctor(home: Path) -> list[dict[str, str]]:
    command = ["--home", str(home), "--set", "embedder.provider=none", "doctor", "--json"]
    found: list[dict[str, str]] = json.loads(CliRunner().invoke(cli, command).stdout)
    return found


async def test_a_new_home_says_on_the_disk_how_far_its_tables_have_come(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk = witness(monkeypatch)
    await ids(home)
    heads = {file.stat().st_ino for file in (home / "pool").glob("*.head")}
    assert len(heads) == 2
    assert on_disk > heads | {(home / "pool").stat().st_ino}


async def test_a_table_that_goes_back_while_it_is_open_is_not_written_into(home: Path, lessons: list[str]) -> None:
    store = await Store.open(home)
    try:
        newest_manifest(home / "pool" / "experiences.lance").unlink()
        before = contents(home)
        with pytest.raises(StoreError, match="is damaged: experiences was at version"):
            async with store.writing() as writer:
                await writer.put_experiences([experience("e-new")], are_new=True)
        assert contents(home) == before
    finally:
        store.close()


async def test_a_write_that_fails_leaves_no_file(home: Path, lessons: list[str]) -> None:
    store = await Store.open(home)
    try:
        for file in files(home, "experiences"):
            file.unlink()
        before = contents(home)
        with pytest.raises(StoreError, match="can't read experiences"):
            async with store.writing() as writer:
                await writer.put_experiences([experience("e-new")])
        assert contents(home) == before
    finally:
        store.close()


def witness(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Return the numbers of the files and folders that are synced from now on."""
    on_disk: set[int] = set()
    fsync = os.fsync

    def witnessed(opened: int) -> None:
        on_disk.add(os.fstat(opened).st_ino)
        fsync(opened)

    monkeypatch.setattr(os, "fsync", witnessed)
    return on_disk


async def test_what_is_told_of_lasts_together_with_the_compaction_it_stands_on(
    home: Path, lessons: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lancedb

    on_disk = witness(monkeypatch)
    written = everything(home)
    store = await Store.open(home)
    connection = await lancedb.connect_async(str(home / "pool"))
    try:
        async with store.writing() as writer:
            await writer.put_experiences([experience("e-before")], are_new=True)
        # Another process compacts, and dies before it brings any of it to the disk.
        await (await connection.open_table("experiences")).optimize()
        async with store.writing() as writer:
            await writer.put_experiences([experience("e-after")], are_new=True)
    finally:
        store.close()
        connection.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
    # The power is cut.
    for file in everything(home / "pool" / "experiences.lance") - written:
        if file.stat().st_ino not in on_disk:
            file.write_bytes(b"")
    assert await ids(home) == sorted([*lessons, "e-before", "e-after"])


async def test_a_commit_that_a_power_cut_has_torn_is_taken_back_if_nobody_was_told_of_it(
    home: Path, lessons: list[str]
) -> None:
    import lancedb

    connection = await lancedb.connect_async(str(home / "pool"))
    table = await connection.open_table("experiences")
    written = everything(home)
    await table.update({"content": "x"})
    connection.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
    for file in everything(home) - written:
        file.write_bytes(b"")
    assert await ids(home) == lessons
    assert len(list((home / "pool").glob("experiences-*.torn"))) == 1
    # Of what was told it is damage.
    TableFiles(home / "pool", "experiences").settle(SCHEMA_VERSION, 1_000)
    with pytest.raises(StoreError, match="is damaged: experiences was at version 1000"):
        await ids(home)
