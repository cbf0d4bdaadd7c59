"""The ledger of a folder: one SQLite database beside LanceDB's tables. The only file that imports `sqlite3`.

In:  values and conditions of `ledger.py`, a file.
Out: the values; a copy of the file for a backup; how far it has come; the lock that keeps all other processes from
     writing.
Does not know: what its values mean.

A write is one transaction, synced before it returns (WAL, `synchronous=FULL`), in a thread: it may wait for the disk or
for another process. Each adds one to the file's `user_version`, by which an older copy of it is known. Reads are done
where they are asked for: by an index they take less than a thread would. Columns follow from the dataclasses, so that a
field that is new gets its column when the file is opened next.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from reme_mcp.aio import WorkerThread
from reme_mcp.errors import StoreError
from reme_mcp.schema import Counters, Entry, Experience, ReceiptLine, Trajectory
from reme_mcp.store.feed import KEPT_NOTES, Announce, News, Note, Tell
from reme_mcp.store.ledger import (
    KEYS,
    TABLES,
    WAIT_S,
    Blank,
    Change,
    Condition,
    Drop,
    Put,
)
from reme_mcp.store.sql import DECLARED, FROM_COLUMN, columns_for, same, where_clause
from reme_mcp.store.tables import Row

logger = logging.getLogger(__name__)

NAME = "ledger.db"
# Of the feed. Numbers are never given twice; an announcement names no table.
NOTES = "notes"
NOTES_COLUMNS = "number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, version INTEGER NOT NULL, content BLOB"
# An announcement that stands for so long is not waited for: the tables are looked at.
OVERDUE_S = 1.0
RETRY_S = 0.005
# SQLite's codes tell more in their higher bits.
PRIMARY = 0xFF
# What by: all that is read while somebody waits.
INDEXES: Mapping[type[Any], Sequence[str]] = {
    Trajectory: ("digest", "task_key", "status", "workspace, created_at", "workspace, updated_at"),
    ReceiptLine: ("experience_id",),
    Entry: ("workspace, created_at", "about"),
    Experience: ("workspace",),
    Counters: (),
}
# What SQLite says, in the words that everything else says it in.
WORDS = {
    "database or disk is full": "there is no room (No space left on device)",
    "attempt to write a readonly database": "Read-only file system",
}


class DamagedLedger(StoreError):
    """A file is no whole database."""


class SqliteLedger:
    """An open `ledger.db`. One connection reads; another one writes, one transaction at a time."""

    def __init__(self, file: Path, *, check: Callable[[], None], wrote: Callable[[int], None]) -> None:
        """Open the file; it is made, and gets what it lacks, where it can be written.

        Args:
            file: Where it is.
            check: Raises where the file is not the home's ledger any more; called in each transaction.
            wrote: Told after each of them how far the file has come.

        Raises:
            StoreError: It can't be opened.
        """
        self._file = file
        self._check = check
        self._wrote = wrote
        self._turn = anyio.Lock(fast_acquire=True)
        self._thread = WorkerThread()
        self._version = -1
        self._latest = 0
        self._told: dict[str, tuple[int, int]] = {}
        # The announcement that stands, and since when it was seen to.
        self._announced: tuple[int, float] | None = None
        with _mapped(file, "open"):
            self._writing, self.can_write = _open(file)
            try:
                if self.can_write:
                    _bring_up_to_date(self._writing)
                self._reading = _connect(file) if self.can_write else self._writing
            except BaseException:
                self._writing.close()
                raise

    @property
    def has_feed(self) -> bool:
        """Return whether it can be written: who can't write may not see what others do."""
        return self.can_write

    async def read(
        self,
        kind: type[Row],
        where: Sequence[Condition] = (),
        *,
        newest_by: str | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the values for which all conditions hold."""
        columns = columns_for(kind)
        names = columns.names
        clause, values = where_clause(where)
        order = f" ORDER BY {newest_by} DESC, {names[0]}" if newest_by else ""
        cut = f" LIMIT {limit} OFFSET {offset}" if limit is not None else ""
        query = f"SELECT {', '.join(names)} FROM {TABLES[kind]}{clause}{order}{cut}"
        with _mapped(self._file, "read"):
            rows = self._reading.execute(query, values).fetchall()
        return [kind(*[make(value) for make, value in zip(columns.back, row, strict=True)]) for row in rows]

    async def write(
        self, changes: Sequence[Change], *, wait_s: float = WAIT_S, within: timedelta | None = None
    ) -> None:
        """Make all changes or none; they are on the disk once it returns."""
        if changes:
            async with self.turn(wait_s=wait_s) as made:
                made += changes

    @asynccontextmanager
    async def turn(self, *, wait_s: float = WAIT_S, within: timedelta | None = None) -> AsyncIterator[list[Change]]:
        """Hold the right to write, among tasks and processes; what is read in the block is as it is then."""
        if not self.can_write:
            raise StoreError(f"can't write {self._file}: Read-only file system")
        changes: list[Change] = []
        async with self._turn:
            with anyio.CancelScope(shield=True):
                try:
                    await self._begin(wait_s)
                    # Somebody may have put other tables in their place while this one waited.
                    self._check()
                    yield changes
                    if changes:
                        await self._thread.run(partial(self._commit, changes))
                finally:
                    if self._writing.in_transaction:
                        self._writing.execute("ROLLBACK")

    async def counters(self, since: int) -> tuple[int, Sequence[Counters]]:
        """Return a number that rises with every write, and the counters that were written since it was `since`."""
        with _mapped(self._file, "read"):
            (version,) = self._reading.execute("PRAGMA data_version").fetchone()
            if version == self._version and since == self._latest:
                return since, ()
            columns = columns_for(Counters)
            query = f"SELECT rowid, {', '.join(columns.names)} FROM counters WHERE rowid > ? ORDER BY rowid"
            rows = self._reading.execute(query, [since]).fetchall()
        self._version = version
        self._latest = rows[-1][0] if rows else since
        return self._latest, [
            Counters(*[make(value) for make, value in zip(columns.back, row[1:], strict=True)]) for row in rows
        ]

    def is_quiet(self, table: str, since: int) -> bool:
        """Return whether nobody has told anything since what `news` told of a table, up to note number `since`."""
        if not self.can_write:
            return False
        with _mapped(self._file, "read"):
            (version,) = self._reading.execute("PRAGMA data_version").fetchone()
            if self._told.get(table) != (version, since):
                # Mostly it is a receipt that was written.
                (latest,) = self._reading.execute(f"SELECT max(number) FROM {NOTES}").fetchone()
                if latest != since or table not in self._told:
                    return False
                self._told[table] = version, since
                self._announced = None
        return not self._is_overdue()

    def news(self, table: str, since: int) -> News:
        """Return what was told of one of LanceDB's tables after the note of number `since`."""
        if not self.can_write:
            return News(since, (), is_complete=False)
        if self.is_quiet(table, since):
            return News(since, (), is_complete=True)
        with _mapped(self._file, "read"):
            (version,) = self._reading.execute("PRAGMA data_version").fetchone()
            # The one that was read last is among them, unless some between have gone.
            query = f"SELECT number, name, version, content FROM {NOTES} WHERE number >= ? ORDER BY number"
            rows = self._reading.execute(query, [since]).fetchall()
        announced = next((number for number, name, *_ in rows if not name), None)
        rows = [row for row in rows if row[1]]
        if self._announced is None or self._announced[0] != announced:
            self._announced = None if announced is None else (announced, time.monotonic())
        until = rows[-1][0] if rows else since
        self._told[table] = version, until
        notes = [Note(name, at, content) for number, name, at, content in rows if name == table and number > since]
        is_complete = bool(rows) and rows[0][0] == since and all(note.rows for note in notes)
        return News(until, notes, is_complete and not self._is_overdue())

    def _is_overdue(self) -> bool:
        """Return whether somebody has announced a commit long ago: who has died since tells nobody what was written."""
        return self._announced is not None and time.monotonic() - self._announced[1] > OVERDUE_S

    def is_unfinished(self) -> bool:
        """Return whether somebody has announced a commit and not told of it."""
        if not self.can_write:
            return False
        with _mapped(self._file, "read"):
            return self._reading.execute(f"SELECT 1 FROM {NOTES} WHERE name = ''").fetchone() is not None

    async def version(self) -> int:
        """Return how many transactions the file has seen."""
        with _mapped(self._file, "read"):
            (version,) = self._reading.execute("PRAGMA user_version").fetchone()
        return int(version)

    async def columns(
        self, kind: type[Any], names: Sequence[str], where: Sequence[Condition] = ()
    ) -> list[tuple[Any, ...]]:
        """Return some fields of the values for which all conditions hold, each as a column."""
        types = columns_for(kind).types
        clause, values = where_clause(where)
        # As one row: with each row, whatever else the process does would have a turn before the next is read.
        asked = ", ".join(f"json_group_array({name})" for name in names)
        with _mapped(self._file, "read"):
            row = self._reading.execute(f"SELECT {asked} FROM {TABLES[kind]}{clause}", values).fetchone()
        # Times stand in the file as they are asked for.
        back = [same if types[name] is datetime else FROM_COLUMN.get(types[name], same) for name in names]
        return [tuple(map(make, json.loads(column))) for make, column in zip(back, row, strict=True)]

    async def purge_deleted(self) -> None:
        """Leave nothing in the journal that was removed; `secure_delete` has overwritten it in the file itself."""
        with anyio.CancelScope(shield=True):
            async with self._turn:
                await self._thread.run(self._empty_journal)

    def close(self) -> None:
        """Close both connections; the last one of all processes leaves one file."""
        self._thread.close()
        self._reading.close()
        self._writing.close()

    async def _begin(self, wait_s: float) -> None:
        """Begin a transaction: mostly nobody is in the way, and it takes no thread to see that."""
        with _mapped(self._file, "write"):
            try:
                _begin_now(self._writing, wait_s=0.0)
            except sqlite3.OperationalError as exc:
                if not _is_busy(exc) or not wait_s:
                    raise
                await self._thread.run(partial(_begin_now, self._writing, wait_s=wait_s))

    def _commit(self, changes: Sequence[Change]) -> None:
        with _mapped(self._file, "write"):
            for change in changes:
                if isinstance(change, Put):
                    _put(self._writing, change)
                elif isinstance(change, Drop):
                    clause, values = where_clause(change.where)
                    self._writing.execute(f"DELETE FROM {TABLES[change.kind]}{clause}", values)
                elif isinstance(change, Blank):
                    _blank(self._writing, change)
                else:
                    _note(self._writing, change)
            (version,) = self._writing.execute("PRAGMA user_version").fetchone()
            self._writing.execute(f"PRAGMA user_version = {version + 1}")
            self._writing.execute("COMMIT")
        try:
            self._wrote(version + 1)
        except OSError as exc:
            # It is stored; only that an older copy of the file is one would not be seen.
            logger.warning("can't note how far %s has come: %s", self._file, exc.strerror)

    def _empty_journal(self) -> None:
        with _mapped(self._file, "write"):
            self._writing.execute(f"PRAGMA busy_timeout = {int(WAIT_S * 1000)}")
            (is_busy, *_) = self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise StoreError(f"somebody reads {self._file} and keeps what was erased in its journal; try again")


# --- the file ---


def copy(file: Path, target: Path) -> None:
    """Write the ledger as it is now into a new file, whoever writes meanwhile.

    Raises:
        StoreError: It can't be read, or the target not be written.
    """
    with _mapped(file, "copy"), closing(_open(file)[0]) as source, closing(sqlite3.connect(target)) as copied:
        source.backup(copied)


def version(file: Path) -> int:
    """Return how far the ledger has come; nothing is written, whatever the file holds.

    Raises:
        DamagedLedger: It is no whole database.
        StoreError: It can't be read.
    """
    with _mapped(file, "read"), closing(_open_to_read(file)) as connection:
        number: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return number


def count(file: Path) -> dict[str, int]:
    """Return how many rows each of its tables has, having looked at every page.

    Raises:
        StoreError: It can't be read, or is damaged.
    """
    with _mapped(file, "read"):
        if not file.stat().st_size:
            # SQLite would make a new one of it.
            raise DamagedLedger(f"{file} is empty")
    with _mapped(file, "read"), closing(_open(file)[0]) as connection:
        said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if said != "ok":
            # Above it stands which database.
            raise DamagedLedger(f"{file} is damaged: {said.splitlines()[-1]}")
        names = sorted({TABLES[kind] for kind in KEYS} & _tables(connection))
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}


def take_over(file: Path, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Fill the ledger with rows that stood elsewhere, in the place of what its tables of these names hold.

    Args:
        file: It is made where it is not there.
        tables: The rows by table; a column that a row does not have gets what a new one has.

    Raises:
        StoreError: It can't be written.
    """
    kinds = {TABLES[kind]: kind for kind in KEYS}
    with _mapped(file, "write"), closing(_connect(file)) as connection:
        _bring_up_to_date(connection)
        with _transaction(connection, wait_s=WAIT_S):
            for table, rows in tables.items():
                connection.execute(f"DELETE FROM {table}")
                columns = columns_for(kinds[table])
                for row in rows:
                    both = zip(columns.names, columns.to, strict=True)
                    given = [(name, make(row[name])) for name, make in both if name in row]
                    marks = ", ".join("?" * len(given))
                    names = ", ".join(name for name, _ in given)
                    connection.execute(
                        f"INSERT OR REPLACE INTO {table} ({names}) VALUES ({marks})", [value for _, value in given]
                    )


class LedgerLock:
    """Held, no process writes into a ledger; they wait, and look then whether it is the home's still."""

    def __init__(self, file: Callable[[], Path | None]) -> None:
        """Make one; `file` says where the ledger is when the lock is taken. Where there is none, none is held."""
        self._file = file
        self._held: sqlite3.Connection | None = None

    async def __aenter__(self) -> None:
        """Wait for the lock and hold it.

        Raises:
            StoreError: Somebody holds it for too long, or the file can't be written.
        """
        file = self._file()
        # Nobody writes into what is no database.
        with suppress(DamagedLedger):
            if file is None or not file.exists():
                return
            self._held = await anyio.to_thread.run_sync(_begin, file)

    async def __aexit__(self, *_: object) -> None:
        """Let go of it."""
        if self._held is not None:
            self._held.close()
            self._held = None


# --- inside ---


def _begin(file: Path) -> sqlite3.Connection:
    with _mapped(file, "lock"):
        connection = _connect(file)
        try:
            _begin_now(connection, wait_s=WAIT_S)
        except BaseException:
            connection.close()
            raise
        return connection


def _open(file: Path) -> tuple[sqlite3.Connection, bool]:
    """Return a connection, and whether it can write; in a folder that can only be read it can't."""
    try:
        return _connect(file), True
    except sqlite3.OperationalError as exc:
        if not file.is_file() or _is_busy(exc):
            raise
    return _open_to_read(file), False


def _open_to_read(file: Path) -> sqlite3.Connection:
    journal = file.with_name(f"{file.name}-wal")
    # Without the right to write there is no journal to be made; where none is left, nothing but the file counts.
    how = "mode=ro" if journal.exists() and journal.stat().st_size else "mode=ro&immutable=1"
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?{how}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(file: Path) -> sqlite3.Connection:
    is_new = not file.exists()
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=WAIT_S)
    try:
        if is_new:
            file.chmod(0o600)
        _keep_a_journal(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _keep_a_journal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL. SQLite doesn't wait where two do so at once: each may stand in the other's way."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as exc:
            if not _is_busy(exc) or time.monotonic() > deadline:
                raise
            time.sleep(RETRY_S)


def _is_busy(exc: sqlite3.OperationalError) -> bool:
    """Return whether somebody else holds the file; what is wrong otherwise stays wrong."""
    return exc.sqlite_errorcode & PRIMARY in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def _transaction(connection: sqlite3.Connection, *, wait_s: float) -> Iterator[sqlite3.Connection]:
    """Hold the right to write from the first statement on."""
    _begin_now(connection, wait_s=wait_s)
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _begin_now(connection: sqlite3.Connection, *, wait_s: float) -> None:
    connection.execute(f"PRAGMA busy_timeout = {int(wait_s * 1000)}")
    connection.execute("BEGIN IMMEDIATE")


@contextmanager
def _mapped(file: Path, what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as exc:
        if _is_busy(exc):
            raise StoreError(
                f"another process holds {file} for too long, and nothing was stored; "
                "try again, or end it if it is stuck"
            ) from exc
        said = WORDS.get(str(exc), str(exc))
        raise StoreError(f"can't {what} {file}: {said}") from exc
    except sqlite3.DatabaseError as exc:
        raise DamagedLedger(f"{file} is damaged ({exc}); `reme-mcp restore-backup` puts a backup in its place") from exc
    except OSError as exc:
        raise StoreError(f"can't {what} {file}: {exc.strerror}") from exc


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Make the tables, columns and indexes that are missing, and drop what was one; mostly nothing is written."""
    statements = list(_missing(connection))
    if statements:
        with _transaction(connection, wait_s=WAIT_S):
            # Another process may have made them meanwhile.
            for statement in _missing(connection):
                connection.execute(statement)


def _missing(connection: sqlite3.Connection) -> Iterator[str]:
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    wanted = {_index_name(kind, by) for kind in KEYS for by in INDEXES.get(kind, ())}
    # What a key or a column declares is SQLite's own, and has no text.
    indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    yield from [f"DROP INDEX {name}" for (name,) in indexes if name not in wanted]
    if NOTES not in there:
        yield f"CREATE TABLE {NOTES} ({NOTES_COLUMNS})"
    for kind, keys in KEYS.items():
        table, types = TABLES[kind], columns_for(kind).types
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
        if not columns:
            # Numbers of rows are never given twice: counters are read from the last one known on.
            counted = ["number INTEGER PRIMARY KEY AUTOINCREMENT"] if kind is Counters else []
            declared = [f"{name} {DECLARED[declared]}" for name, declared in types.items()]
            unique = [f"UNIQUE ({', '.join(keys)})"] if keys else []
            yield f"CREATE TABLE {table} ({', '.join([*counted, *declared, *unique])})"
        else:
            for name in types.keys() - columns:
                yield f"ALTER TABLE {table} ADD COLUMN {name} {DECLARED[types[name]]}"
        for by in INDEXES.get(kind, ()):
            if (name := _index_name(kind, by)) not in there:
                yield f"CREATE INDEX {name} ON {table} ({by})"


def _index_name(kind: type[Any], by: str) -> str:
    return f"{TABLES[kind]}_by_{by.replace(', ', '_and_')}"


def _put(connection: sqlite3.Connection, change: Put) -> None:
    columns = columns_for(change.kind)
    names = ", ".join(columns.names)
    marks = ", ".join("?" * len(columns.names))
    both = list(zip(columns.names, columns.to, strict=True))
    rows = [[make(getattr(value, name)) for name, make in both] for value in change.values]
    connection.executemany(f"INSERT OR REPLACE INTO {TABLES[change.kind]} ({names}) VALUES ({marks})", rows)


def _blank(connection: sqlite3.Connection, change: Blank) -> None:
    clause, values = where_clause(change.where)
    emptied = ", ".join(f"{name} = ''" for name in change.fields)
    connection.execute(f"UPDATE {TABLES[change.kind]} SET {emptied}{clause}", values)


def _note(connection: sqlite3.Connection, change: Announce | Tell) -> None:
    if isinstance(change, Announce):
        connection.execute(f"INSERT INTO {NOTES} (name, version, content) VALUES ('', 0, x'')")
        return
    connection.execute(f"DELETE FROM {NOTES} WHERE name = '' OR ?", [change.is_all])
    rows = [(note.table, note.version, note.rows) for note in change.notes]
    connection.executemany(f"INSERT INTO {NOTES} (name, version, content) VALUES (?, ?, ?)", rows)
    connection.execute(f"DELETE FROM {NOTES} WHERE number <= (SELECT max(number) FROM {NOTES}) - ?", [KEPT_NOTES])
