"""Where a home is: a folder of this machine, or a place on object storage that several machines share.

In:  the address in the settings.
Out: the mark of the home, its locks, and a connection to its tables.
Does not know: what is in the tables.

The two offer the same, so that the rest of the package need not know which one it has. In a folder a lock is a file
lock, and the operating system lets go of it for the dead; on object storage it is a lease. A folder's mark is read at
every call, that of a bucket at every write, and for reading every few seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio.to_thread

from reme_mcp.config.settings import StorageSettings, is_remote
from reme_mcp.errors import InvalidInput, StoreError
from reme_mcp.store import folder, sqlite_ledger, tables
from reme_mcp.store.durability import HEAD, Head, TableFiles
from reme_mcp.store.lease import Lease
from reme_mcp.store.lock import ProcessLock
from reme_mcp.store.object_store import Objects
from reme_mcp.store.sqlite_ledger import NAME, DamagedLedger, LedgerLock, SqliteLedger
from reme_mcp.store.tables import connect, mapped

if TYPE_CHECKING:
    import lancedb

Version = Callable[[], Awaitable[int]]


@dataclass(slots=True)
class Commit:
    """One write into a table: the version that it finds, and the one that it makes, which the writer enters."""

    before: int
    after: int = 0


LockName = Literal["pool", "pool-receipts", "pool-upkeep", "pool-queue"]
# How old what is known of a bucket's mark may be for a reader.
MARKER_AGE_S = 5.0


class Folder:
    """A home in a folder of this machine.

    Attributes:
        names_tables: Whether its mark says which tables it has.
    """

    names_tables = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[tuple[str, str], TableFiles] = {}
        self._ledger_file: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return its path."""
        return str(self.path)

    def lock(self, name: LockName) -> ProcessLock:
        """Return the lock of this name."""
        return ProcessLock(self.path / f"{name}.lock")

    def ledger_lock(self) -> LedgerLock:
        """Return the lock that keeps everybody from writing into the ledger."""

        def file() -> Path | None:
            try:
                return self.path / folder.read_marker(self.path, schema=sys.maxsize).pool / NAME
            except StoreError:
                # Without a mark that can be read there is no ledger that anybody writes into.
                return None

        return LedgerLock(file)

    async def ledger(self, mark: folder.HomeMarker, *, is_new: bool) -> SqliteLedger:
        """Open the ledger; it is made where `is_new`, and has to be there otherwise, as far as it had come.

        Raises:
            StoreError: It is not, or can't be read.
        """
        head = self.head(mark, NAME)
        file = self.path / mark.pool / NAME
        if not is_new:
            if not file.exists():
                raise self.damaged(f"{mark.pool}/{NAME} is gone, and the lessons beside it are there")
            try:
                self.check(mark, NAME, head, await anyio.to_thread.run_sync(sqlite_ledger.version, file))
            except DamagedLedger as exc:
                raise self.damaged(f"{mark.pool}/{NAME} can't be read ({exc.__cause__})") from exc
        else:
            with suppress(OSError):
                # What can't be made can't be opened, and that error says it.
                file.parent.mkdir(mode=0o700, exist_ok=True)
        return await anyio.to_thread.run_sync(self._open_ledger, file, mark)

    def _open_ledger(self, file: Path, mark: folder.HomeMarker) -> SqliteLedger:
        wrote = partial(Head(file.parent, NAME).note, mark.schema)
        ledger = SqliteLedger(file, check=partial(self._check_current, mark), wrote=wrote)
        self._ledger_file = _identity(file)
        return ledger

    async def prepare(self, *, schema: int) -> folder.HomeMarker:
        """Make the folder and its mark, or check that this version can read what is there."""
        return folder.prepare(self.path, schema=schema)

    async def read_marker(self, *, schema: int) -> folder.HomeMarker:
        """Return the mark of an existing home."""
        return folder.read_marker(self.path, schema=schema)

    async def is_current(self, mark: folder.HomeMarker) -> bool:
        """Return whether a mark is that of the home still, and what it names is there: the very ledger that is open.

        Raises:
            StoreError: There is no mark, or none that can be read.
        """
        found = folder.read_marker(self.path, schema=sys.maxsize)
        return found == mark and folder.missing_tables(self.path, found) is None and self._has_its_ledger(mark)

    async def check_current(self, mark: folder.HomeMarker) -> None:
        """Raise a `StoreError` that says why, unless `is_current`."""
        self._check_current(mark)

    def _check_current(self, mark: folder.HomeMarker) -> None:
        if folder.whole_marker(self.path, schema=sys.maxsize) != mark or not self._has_its_ledger(mark):
            raise _replaced(self)

    def _has_its_ledger(self, mark: folder.HomeMarker) -> bool:
        """Return whether the ledger that is open, if one is, stands in its place: another may after all was removed."""
        return self._ledger_file in (None, _identity(os.path.join(self.path, mark.pool, NAME)))

    async def write_marker(self, mark: folder.HomeMarker) -> None:
        """Replace the mark."""
        folder.write_marker(self.path, mark)

    async def connect(self, mark: folder.HomeMarker) -> lancedb.AsyncConnection:
        """Return a connection to the tables."""
        return await connect(str(self.path / mark.pool))

    @asynccontextmanager
    async def committing(self, mark: folder.HomeMarker, table: str, version: Version) -> AsyncIterator[Commit]:
        """Let one write into a table pass: afterwards it is on the disk, and where it fails, nothing is left of it.

        Args:
            mark: Which says where the table is.
            table: Its name.
            version: Returns the table's version as it is now.

        Raises:
            StoreError: The table has gone back, or the disk refuses.
        """
        files = self._files_of(mark, table)
        async with files.turn:
            head, commit, written = files.head.read(), Commit(await version()), files.written()
            self.check(mark, table, head, commit.before)
            try:
                yield commit
            except Exception:
                # A compaction writes without holding the pool; what it has written must stay.
                async with self.lock("pool-upkeep").unless_held() as alone:
                    if alone and await version() == commit.before:
                        for file in files.written() - written:
                            os.unlink(file)
                raise
            await self.settle(mark, table, commit.after)

    async def settle(self, mark: folder.HomeMarker, table: str, version: int) -> None:
        """Bring to the disk what was written into a table, and note that it has come to a version."""
        with mapped(f"bring {table} to the disk"):
            await anyio.to_thread.run_sync(self._files_of(mark, table).settle, mark.schema, version)

    async def register(self, mark: folder.HomeMarker, versions: Mapping[str, Version]) -> folder.HomeMarker:
        """Write a mark that names all tables that there are, and return it; who holds the pool may."""
        for table, version_of in versions.items():
            with mapped(f"look at {table}"):
                version = await version_of()
            await self.settle(mark, table, version)
        if (file := self.path / mark.pool / NAME).exists():
            version = await anyio.to_thread.run_sync(sqlite_ledger.version, file)
            with mapped(f"note how far {file} has come"):
                Head(file.parent, NAME).note(mark.schema, version)
        mark = replace(mark, tables=folder.tables_in(self.path / mark.pool))
        await self.write_marker(mark)
        return mark

    def head(self, mark: folder.HomeMarker, table: str) -> tuple[int, int] | None:
        """Return how far a table had come; whoever checks it looks here first, as others go on writing.

        Raises:
            StoreError: What says so can't be read.
        """
        try:
            return Head(self.path / mark.pool, table).read()
        except OSError as exc:
            raise StoreError(
                f"can't read {exc.filename} ({exc.strerror}), which says how far {table} has come; "
                "is the disk whole, and may this account read it?"
            ) from exc

    def check(self, mark: folder.HomeMarker, table: str, head: tuple[int, int] | None, version: int) -> None:
        """Raise a `StoreError` if a table has gone back behind its head, or the mark names it and it has none."""
        if table in mark.tables and head is None:
            raise self.damaged(f"{mark.pool}/{table}{HEAD}, which says how far {table} had come, is gone or empty")
        if head is not None and version < head[1]:
            raise self.damaged(f"{table} was at version {head[1]} and is at {version}")

    async def check_all(self, mark: folder.HomeMarker, versions: Mapping[str, Version]) -> None:
        """Check each table, and the ledger where there is one; who holds all locks may."""
        for table, version in versions.items():
            self.check(mark, table, self.head(mark, table), await version())
        if (file := self.path / mark.pool / NAME).exists():
            # Who writes into the ledger alone holds none of the locks.
            head = self.head(mark, NAME)
            self.check(mark, NAME, head, await anyio.to_thread.run_sync(sqlite_ledger.version, file))

    async def take_back_torn(self, mark: folder.HomeMarker, table: str) -> bool:
        """Take back a commit that nobody was told of, as a power cut leaves one; return whether there was one."""
        async with self.lock("pool-upkeep"), self.lock("pool"), self.lock("pool-receipts"):
            with mapped(f"take back what was left of {table}"):
                return self._files_of(mark, table).set_aside_torn()

    def damaged(self, what: str) -> StoreError:
        """Return the error that says what is wrong, and every way back."""
        return folder.damaged(self.path, what)

    def _files_of(self, mark: folder.HomeMarker, table: str) -> TableFiles:
        return self._files.setdefault((mark.pool, table), TableFiles(self.path / mark.pool, table))


class Bucket:
    """A home on object storage.

        home.json            the mark
        pool/                LanceDB's tables
        locks/<name>.json    the leases

    It keeps no backups: versioning or replication of the storage itself does that.
    """

    names_tables = False

    def __init__(self, address: str, storage: StorageSettings) -> None:
        self.address = address
        self._options = options(address, storage)
        self._objects = Objects(address, self._options)
        self._glanced: tuple[folder.HomeMarker, float] | None = None

    def __str__(self) -> str:
        """Return its address."""
        return self.address

    def lock(self, name: LockName) -> Lease:
        """Return the lease of this name."""
        return Lease(self._objects, name)

    async def prepare(self, *, schema: int) -> folder.HomeMarker:
        """Make the mark, or check that this version can read what is there.

        Raises:
            StoreError: The place can't be read or written, is not a home, or was written with a schema above `schema`.
        """
        if await self.is_free():
            # Tables without a mark may be as old as can be; an upgrade that is not needed changes nothing.
            new = folder.HomeMarker(1 if "pool" in await self._objects.names() else schema)
            await self._objects.create(folder.MARK, new.to_json().encode())
        return await self.read_marker(schema=schema)

    async def is_free(self) -> bool:
        """Return whether it may become a home: it is empty, or holds nothing but what was left of one.

        Raises:
            StoreError: It holds something else, or can't be read.
        """
        if await self._objects.read(folder.MARK) is not None:
            return False
        names = await self._objects.names()
        if strangers := sorted(name for name in names if name != "locks" and not folder.HOME_FILES.fullmatch(name)):
            raise StoreError(
                f"{self.address} is not empty and not a home of reme-mcp (it holds {strangers[0]!r}); "
                "choose another with --home"
            )
        return True

    async def read_marker(self, *, schema: int) -> folder.HomeMarker:
        """Return the mark as it is now.

        Raises:
            StoreError: There is none, it is damaged, or written with a schema above `schema`.
        """
        at = time.monotonic()
        found = await self._objects.read(folder.MARK)
        if found is None:
            raise StoreError(f"{self.address}/{folder.MARK} is gone; was the home removed?")
        try:
            mark = folder.HomeMarker.from_json(found[0], self.address, schema=schema)
        except folder.DamagedMark as exc:
            raise StoreError(f"{self.address}/{folder.MARK} is {exc}; take back an older version of it") from exc
        self._glanced = mark, at
        return mark

    async def is_current(self, mark: folder.HomeMarker) -> bool:
        """Return whether a mark is that of the home, as it was a few seconds ago at the earliest."""
        if self._glanced is None or time.monotonic() - self._glanced[1] > MARKER_AGE_S:
            return await self.read_marker(schema=sys.maxsize) == mark
        return self._glanced[0] == mark

    async def check_current(self, mark: folder.HomeMarker) -> None:
        """Raise a `StoreError` unless a mark is that of the home now."""
        if await self.read_marker(schema=sys.maxsize) != mark:
            raise _replaced(self)

    async def write_marker(self, mark: folder.HomeMarker) -> None:
        """Replace the mark; only who holds all locks may."""
        found = await self._objects.read(folder.MARK)
        if found is None or await self._objects.replace(folder.MARK, mark.to_json().encode(), found[1]) is None:
            raise StoreError(f"{self.address}/{folder.MARK} was changed by somebody else meanwhile; try again")

    async def connect(self, mark: folder.HomeMarker) -> lancedb.AsyncConnection:
        """Return a connection to the tables."""
        return await connect(f"{self.address}/{mark.pool}", self._options)

    @asynccontextmanager
    async def committing(self, mark: folder.HomeMarker, table: str, version: Version) -> AsyncIterator[Commit]:
        """Let one write pass: the storage keeps what it has taken."""
        yield Commit(await version())

    async def settle(self, mark: folder.HomeMarker, table: str, version: int) -> None:
        """Do nothing: the storage keeps what it has taken."""

    async def register(self, mark: folder.HomeMarker, versions: Mapping[str, Version]) -> folder.HomeMarker:
        """Write the mark, which names no tables: nobody copies half of a bucket by mistake."""
        if await self.read_marker(schema=sys.maxsize) != mark:
            await self.write_marker(mark)
        return mark

    def head(self, mark: folder.HomeMarker, table: str) -> tuple[int, int] | None:
        """Return that nothing is known: nobody copies half of a bucket by mistake."""
        return None

    def check(self, mark: folder.HomeMarker, table: str, head: tuple[int, int] | None, version: int) -> None:
        """Do nothing, likewise."""

    async def check_all(self, mark: folder.HomeMarker, versions: Mapping[str, Version]) -> None:
        """Do nothing, likewise."""

    async def take_back_torn(self, mark: folder.HomeMarker, table: str) -> bool:
        """Return that there is none: a commit is one conditional put."""
        return False

    def damaged(self, what: str) -> StoreError:
        """Return the error that says what is wrong."""
        return StoreError(f"{self.address} is damaged: {what}; take back an older version of what is missing")


Location = Folder | Bucket


def _replaced(location: Location) -> StoreError:
    return StoreError(f"{location} was made anew, upgraded or restored from a backup by another process; try again")


def _identity(file: str | Path) -> tuple[int, int] | None:
    """Return what tells a file from all others, whatever their names; no other has it while the file is open."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def location_of(address: str, storage: StorageSettings) -> Location:
    """Return the site that an address in the settings names."""
    return Bucket(address, storage) if is_remote(address) else Folder(Path(address))


async def count_rows(pool: Path) -> dict[str, int]:
    """Return how many rows each table in the folder `pool` and its ledger has, having read all of them to the end.

    Raises:
        StoreError: One of them can't be read.
    """
    counts = await tables.count_rows(pool)
    if (pool / NAME).exists():
        counts |= await anyio.to_thread.run_sync(sqlite_ledger.count, pool / NAME)
    return counts


def folder_of(address: str) -> Path:
    """Return the folder that an address in the settings names.

    Raises:
        InvalidInput: It is on object storage, where no backups are made.
    """
    if is_remote(address):
        raise InvalidInput(
            f"{address} is on object storage, and backups are for a home in a folder; "
            "turn on versioning there, or copy what is under that address with the tools of the storage"
        )
    return Path(address)


def options(address: str, storage: StorageSettings) -> Mapping[str, str]:
    """Return what the storage has to be told, in the words that LanceDB and obstore share; the rest is environment."""
    if not address.startswith("s3://"):
        return {}
    said = {
        "aws_endpoint": storage.endpoint,
        "aws_region": storage.region,
        "aws_access_key_id": storage.access_key_id,
        "aws_secret_access_key": storage.secret_access_key.get_secret_value(),
        "allow_http": "true" if storage.endpoint.startswith("http://") else "",
    }
    return {name: value for name, value in said.items() if value}
