"""The ledger: the same for a database in a folder and for tables on object storage."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from reme_mcp.errors import StoreError
from reme_mcp.schema import Attempt, Counters, Entry, Experience, ReceiptLine, Spent, Trajectory
from reme_mcp.store import sqlite_ledger
from reme_mcp.store.ledger import TABLES, Blank, Condition, Contains, Drop, Either, Filled, Is, Ledger, Put, Since
from reme_mcp.store.sql import where_clause
from reme_mcp.store.sqlite_ledger import SqliteLedger
from reme_mcp.store.table_ledger import TableLedger
from reme_mcp.store.tables import connect, create_table, schemas
from tests.fakes import LEARNED, experience, line, trajectory

pytestmark = pytest.mark.anyio

COUNTERS = Counters("e-1", 3, 2, 1, 0, "", LEARNED)


@asynccontextmanager
async def in_a_database(folder: Path) -> AsyncIterator[Ledger]:
    ledger = SqliteLedger(folder / "ledger.db", check=lambda: None, wrote=lambda version: None)
    yield ledger
    ledger.close()


@asynccontextmanager
async def in_tables(folder: Path) -> AsyncIterator[Ledger]:
    @asynccontextmanager
    async def lock(_: float) -> AsyncIterator[None]:
        yield

    connection = await connect(folder)
    tables = {name: await create_table(connection, name, schemas()[name]) for name in set(TABLES.values())}
    yield TableLedger(tables, receipts=lock, wrote=lambda _: None)
    for table in tables.values():
        table.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
    connection.close()  # type: ignore[no-untyped-call]  # likewise


@pytest.fixture(params=[in_a_database, in_tables], ids=["database", "tables"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    make: Callable[[Path], Any] = request.param
    async with make(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize(
    "value",
    [
        trajectory("t-1", tries=2, retry_at=LEARNED, trouble="no model"),
        trajectory("t-1", reward=0.25, outcome="failure", task="it's “日本語” 🦊\n\ttab"),
        line("r-1", helped=True, settled_by="rating", settled_at=LEARNED, reason="it's good"),
        line("r-1", helped=False),
        line("r-1", helped=None),
        experience("e-1", keywords=("a", "it's", "日本"), pinned=True, confidence=0.125),
        Entry("l-1", "default", "cli", "pinned", "e-1", "why", LEARNED + timedelta(microseconds=1)),
        Spent("judge", "tiny", LEARNED, 1, 20, 3, False, 0.5, True),
        COUNTERS,
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_value_comes_back_as_it_was(ledger: Ledger, value: Any) -> None:
    await ledger.write([Put(type(value), [value])])
    assert await ledger.read(type(value)) == [value]


async def test_a_part_of_a_value_can_be_read(ledger: Ledger) -> None:
    one = trajectory("t-1")
    await ledger.write([Put(Trajectory, [one], are_new=True)])
    assert await ledger.read(Attempt) == [Attempt(one.id, one.outcome, one.created_at)]


async def test_the_same_key_is_replaced_and_costs_are_added(ledger: Ledger) -> None:
    spent = Spent("judge", "tiny", LEARNED, 1, 20, 3, False, 0.5, True)
    for helped in (None, True):
        await ledger.write([Put(ReceiptLine, [line("r-1", experience_id="e-1", helped=helped)]), Put(Spent, [spent])])
    await ledger.write([Put(ReceiptLine, [line("r-1", experience_id="e-2")])])
    lines = await ledger.read(ReceiptLine)
    assert {(one.experience_id, one.helped) for one in lines} == {("e-1", True), ("e-2", None)}
    assert await ledger.read(Spent) == [spent, spent]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ([Is("id", ["t-2"])], ["t-2"]),
        ([Is("id", ["t-3", "t-1", "t-9"])], ["t-3", "t-1"]),
        ([Is("id", [])], []),
        ([Is("id", ["t-1"]), Is("status", ["queued"])], []),
        ([Since("created_at", LEARNED + timedelta(hours=2))], ["t-3", "t-2"]),
        ([Contains("task", "it's 50%_")], ["t-2"]),
        ([Either(Is("id", ["t-1"]), Contains("task", "50%"))], ["t-2", "t-1"]),
        ([], ["t-3", "t-2", "t-1"]),
    ],
)
async def test_what_is_asked_for_comes_newest_first(ledger: Ledger, where: Any, found: list[str]) -> None:
    tasks = {1: "one", 2: "say: it's 50%_sure", 3: "it's 50 %"}
    values = [
        trajectory(f"t-{hour}", task=task, created_at=LEARNED + timedelta(hours=hour)) for hour, task in tasks.items()
    ]
    await ledger.write([Put(Trajectory, values, are_new=True)])
    read = await ledger.read(Trajectory, where, newest_by="created_at")
    assert [one.id for one in read] == found
    pages = [await ledger.read(Trajectory, where, newest_by="created_at", offset=at, limit=1) for at in range(3)]
    assert [one.id for page in pages for one in page] == found


async def test_some_fields_come_as_columns(ledger: Ledger) -> None:
    lines = [
        line("r-1", created_at=LEARNED - timedelta(seconds=1)),
        line("r-2", created_at=LEARNED, helped=True),
        line("r-3", created_at=LEARNED + timedelta(microseconds=1), helped=False, settled_by="rating"),
        line("r-4", experience_id=""),
    ]
    await ledger.write([Put(ReceiptLine, lines, are_new=True)])
    fields = ("receipt", "created_at", "helped", "settled_by")
    found = await ledger.columns(ReceiptLine, fields, [Filled("experience_id"), Since("created_at", LEARNED)])
    at = int(LEARNED.timestamp()) * 10**6
    assert sorted(zip(*found, strict=True)) == [
        ("r-2", at, True, lines[1].settled_by),
        ("r-3", at + 1, False, "rating"),
    ]
    assert await ledger.columns(ReceiptLine, fields, [Is("receipt", [])]) == [()] * 4


async def test_what_is_dropped_or_emptied_is_that_and_nothing_else(ledger: Ledger) -> None:
    lines = [line(f"r-{number}", experience_id=f"e-{number}", reason="said") for number in (1, 2)]
    deleted = [experience("e-1"), experience("e-2")]
    await ledger.write([Put(ReceiptLine, lines), Put(Experience, deleted)])
    await ledger.write(
        [
            Blank(ReceiptLine, ["task", "reason"], [Is("experience_id", ["e-1"])]),
            Drop(Experience, [Is("workspace", ["default"]), Is("id", ["e-2"])]),
        ]
    )
    found = sorted(await ledger.read(ReceiptLine), key=lambda one: one.receipt)
    assert found == [replace(lines[0], task="", reason=""), lines[1]]
    assert await ledger.read(Experience) == deleted[:1]


async def test_counters_are_read_once_and_again_only_where_they_were_written(ledger: Ledger) -> None:
    until, fresh = await ledger.counters(0)
    assert list(fresh) == []
    other = replace(COUNTERS, id="e-2")
    await ledger.write([Put(Counters, [COUNTERS, other])])
    until, fresh = await ledger.counters(until)
    assert {one.id: one for one in fresh} == {"e-1": COUNTERS, "e-2": other}
    until, fresh = await ledger.counters(until)
    assert list(fresh) == []
    more = replace(COUNTERS, frequency=4)
    await ledger.write([Put(Counters, [more])])
    _, fresh = await ledger.counters(until)
    assert list(fresh) == [more]


# --- a database ---


async def test_what_one_process_writes_the_next_call_of_another_sees(tmp_path: Path) -> None:
    async with in_a_database(tmp_path) as one, in_a_database(tmp_path) as other:
        until, _ = await other.counters(0)
        await one.write([Put(Counters, [COUNTERS]), Put(Trajectory, [trajectory("t-1")])])
        assert (await other.counters(until))[1] == [COUNTERS]
        assert [found.id for found in await other.read(Trajectory)] == ["t-1"]


async def test_a_write_that_fails_leaves_nothing_of_it(tmp_path: Path) -> None:
    async with in_a_database(tmp_path) as ledger:
        with pytest.raises(StoreError, match=r"ledger\.db: no such column"):
            await ledger.write([Put(Trajectory, [trajectory("t-1")]), Drop(Trajectory, [Is("nowhere", ["t-1"])])])
        assert await ledger.read(Trajectory) == []
        await ledger.write([Put(Trajectory, [trajectory("t-1")])])
        assert len(await ledger.read(Trajectory)) == 1


class Held(list[Counters]):
    """Values that are written once they are let go."""

    def __init__(self, *values: Counters) -> None:
        super().__init__(values)
        self.is_reached, self.goes_on = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Counters]:
        self.is_reached.set()
        self.goes_on.wait()
        return super().__iter__()


async def cancelled_by_asyncio(task: asyncio.Task[None]) -> None:
    """Let a task come as far as it can, cancel it as Ctrl-C does, and let it do what it does then."""
    for step in range(40):
        if step == 20:
            task.cancel()
        await checkpoint()


async def test_a_write_that_asyncio_cancels_is_whole(tmp_path: Path) -> None:
    held = Held(replace(COUNTERS, id="e-2"))
    async with in_a_database(tmp_path) as ledger:
        task = asyncio.create_task(ledger.write([Put(Counters, [COUNTERS]), Put(Counters, held)]))
        with anyio.fail_after(20):
            while not held.is_reached.is_set():
                await checkpoint()
        await cancelled_by_asyncio(task)
        held.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert {one.id for one in await ledger.read(Counters)} == {"e-1", "e-2"}
        await ledger.write([Put(Counters, [COUNTERS])])


async def test_a_writer_that_asyncio_cancels_while_it_waits_keeps_nobody_out(tmp_path: Path) -> None:
    async with in_a_database(tmp_path) as ledger:
        async with sqlite_ledger.LedgerLock(lambda: tmp_path / "ledger.db"):
            task = asyncio.create_task(ledger.write([Put(Trajectory, [trajectory("t-1")])]))
            # Somebody is in its way: it waits in a thread.
            await cancelled_by_asyncio(task)
        with pytest.raises(asyncio.CancelledError):
            await task
        async with sqlite_ledger.LedgerLock(lambda: tmp_path / "ledger.db"):
            assert await ledger.read(Trajectory) == []
        await ledger.write([Put(Trajectory, [trajectory("t-2")])])
        assert [one.id for one in await ledger.read(Trajectory)] == ["t-2"]


async def test_a_writer_that_is_kept_waiting_gives_up_and_a_reader_is_not_kept(tmp_path: Path) -> None:
    async with in_a_database(tmp_path) as ledger:
        async with sqlite_ledger.LedgerLock(lambda: tmp_path / "ledger.db"):
            with pytest.raises(StoreError, match="another process holds"):
                await ledger.write([Put(Trajectory, [trajectory("t-1")])], wait_s=0.05)
            with anyio.fail_after(20):
                assert await ledger.read(Trajectory) == []
        await ledger.write([Put(Trajectory, [trajectory("t-1")])], wait_s=0.05)


async def test_an_opening_waits_for_another_one_that_makes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ledger.db"
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        other.close()

    monkeypatch.setattr("time.sleep", sleep)
    ledger = SqliteLedger(file, check=lambda: None, wrote=lambda _: None)
    assert (ledger.can_write, len(waits)) == (True, 1)
    ledger.close()


async def test_a_field_that_is_new_gets_its_column(tmp_path: Path) -> None:
    async with in_a_database(tmp_path) as ledger:
        await ledger.write([Put(Trajectory, [trajectory("t-1", tries=2)])])
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("ALTER TABLE trajectories DROP COLUMN tries")
    connection.commit()
    connection.close()
    async with in_a_database(tmp_path) as ledger:
        assert await ledger.read(Trajectory) == [trajectory("t-1", tries=0)]


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"ledger\.db is damaged.*restore-backup"):
        SqliteLedger(tmp_path / "ledger.db", check=lambda: None, wrote=lambda version: None)


def files_with(folder: Path, text: str) -> list[str]:
    return [file.name for file in folder.glob("ledger.db*") if text.encode() in file.read_bytes()]


async def test_what_is_removed_is_in_none_of_its_files(tmp_path: Path) -> None:
    secret = "the word that nobody may find"
    async with in_a_database(tmp_path) as ledger:
        await ledger.write([Put(Trajectory, [trajectory("t-1", task=secret * 50)])])
        assert files_with(tmp_path, secret)
        await ledger.write([Drop(Trajectory, [Is("id", ["t-1"])])])
        await ledger.purge_deleted()
        assert files_with(tmp_path, secret) == []


@pytest.mark.parametrize(
    ("kind", "by", "wanted", "index"),
    [
        (Trajectory, Is("digest", ["d"]), " ORDER BY created_at DESC, id", "trajectories_by_digest (digest=?)"),
        (Trajectory, Is("task_key", ["k"]), " ORDER BY created_at DESC, id", "trajectories_by_task_key (task_key=?)"),
        (Trajectory, Is("id", ["t-1", "t-2"]), " ORDER BY created_at DESC, id", "trajectories_1 (id=?)"),
        (Trajectory, Is("status", ["queued", "x"]), " ORDER BY created_at DESC, id LIMIT 20", "_by_status (status=?)"),
        (Trajectory, Since("created_at", LEARNED), "", "_by_workspace_and_created_at (workspace=? AND created_at>?)"),
        (ReceiptLine, Is("receipt", ["r-1"]), "", "receipts_1 (receipt=?)"),
        (ReceiptLine, Is("experience_id", ["e-1"]), "", "receipts_by_experience_id (experience_id=?)"),
    ],
)
async def test_few_rows_of_a_workspace_are_found_without_reading_all_of_it(
    tmp_path: Path, kind: type[Any], by: Condition, wanted: str, index: str
) -> None:
    async with in_a_database(tmp_path):
        clause, values = where_clause([Is("workspace", ["default"]), by])
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
            query = f"EXPLAIN QUERY PLAN SELECT * FROM {TABLES[kind]}{clause}{wanted}"
            plan = [row[3] for row in connection.execute(query, values)]

    assert plan[0].startswith("SEARCH")
    assert plan[0].endswith(index)


async def test_an_index_that_is_not_wanted_any_more_is_dropped(tmp_path: Path) -> None:
    def indexes() -> set[str]:
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}

    async with in_a_database(tmp_path):
        wanted = indexes()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("CREATE INDEX receipts_by_workspace_and_receipt ON receipts (workspace, receipt)")
    async with in_a_database(tmp_path):
        assert indexes() == wanted
