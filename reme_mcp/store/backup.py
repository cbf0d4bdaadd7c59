"""The backup: a copy of the whole pool in one file, made while others work, and put back with a way to undo it.

In:  a home, a file.
Out: a backup with the number of rows of each table; the home with the tables of one.
Does not know: what is in the tables.

Making one holds the pool for the milliseconds that a snapshot takes. Putting one back unpacks it beside the tables that
are in use, reads it to the end, and then rewrites the mark: the home has the old tables or the new ones, never half of
each. Processes that have the old tables open see it by the mark, write nothing more into them, and open the new ones.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from reme_mcp.errors import InvalidInput, StoreError
from reme_mcp.store import archive, durability, folder, sqlite_ledger
from reme_mcp.store.location import Folder, count_rows
from reme_mcp.store.lock import ProcessLock
from reme_mcp.store.migrations import SCHEMA_VERSION, exclusive
from reme_mcp.store.open_tables import OpenTables
from reme_mcp.store.sqlite_ledger import NAME
from reme_mcp.store.tables import connect, mapped, versions_in
from reme_mcp.text.plural import many


@dataclass(frozen=True, slots=True)
class Backup:
    """One that was made.

    Attributes:
        file: Where it is.
        schema: What its tables are written with.
        tables: How many rows each of them has.
        size: In bytes.
    """

    file: Path
    schema: int
    tables: Mapping[str, int]
    size: int


@dataclass(frozen=True, slots=True)
class Restored:
    """One that was put back, or would be.

    Attributes:
        file: The backup.
        schema: What its tables are written with; older ones are upgraded when the home is opened next.
        tables: How many rows each of them has.
        replaced: How many rows each table that was replaced had; `None` where they can't be read.
        undo: The backup of what was replaced; `None` where there was nothing.
    """

    file: Path
    schema: int
    tables: Mapping[str, int]
    replaced: Mapping[str, int] | None
    undo: Path | None


async def make(home: Path, target: Path | None = None) -> Backup:
    """Write a backup of `home` and read it back.

    Args:
        home: Which must be one; it is not upgraded.
        target: A new file, or a folder for one, which is made where it is missing: a name without an ending is one's.
            The home's own `backups` where `None`.

    Raises:
        StoreError: The home can't be read, or the file not be written; nothing is left of it.
    """
    await _check(Folder(home), folder.whole_marker(home, schema=SCHEMA_VERSION))
    file = _new_file(home, target)
    async with ProcessLock(home / "backups.lock"):
        with ExitStack() as stack:
            async with exclusive(Folder(home)):
                mark = folder.whole_marker(home, schema=SCHEMA_VERSION)
                folder.clear_leftovers(home)
                snapshot = stack.enter_context(archive.snapshot(home, mark))
            tables = await count_rows(snapshot)
            pack = partial(archive.pack, snapshot, file, schema=mark.schema, tables=tables)
            size = await anyio.to_thread.run_sync(pack)
    return Backup(file, mark.schema, tables, size)


async def restore(home: Path, what: str, *, force: bool = False, dry_run: bool = False) -> Restored:
    """Put a backup in the place of the home's tables, which are kept as a backup of their own.

    Args:
        home: It is made where it is not there yet; its mark may be damaged or gone.
        what: A file, the name of one of the home's own backups, or of a folder in the home that holds tables.
        force: Whether tables that hold something may be replaced.
        dry_run: Only look.

    Raises:
        InvalidInput: There is no such backup, it is damaged, or the home holds something and `force` is off.
        StoreError: It is of a newer version, or there is no room for it; the home is as it was.
    """
    # Raises where this account may not look into it.
    folder.is_free(home)
    source = archive.find_backup(home, what)
    is_pool = source.is_dir()
    if is_pool:
        with mapped(f"read {source}"):
            schema = durability.schema_of(source)
        contents = archive.Contents(schema, await count_rows(source), 0)
    else:
        contents = archive.inspect(source, schema=SCHEMA_VERSION)
    # To look at it is no harm to what is there.
    held = await _held(home, source, force=force or dry_run)
    if dry_run:
        return Restored(source, contents.schema, contents.tables, held, None)
    folder.make(home)
    async with ProcessLock(home / "backups.lock"):
        folder.clear_leftovers(home)
        staged = source if is_pool else home / folder.new_name(home, folder.LEFTOVER)
        try:
            if not is_pool:
                await anyio.to_thread.run_sync(archive.unpack, source, staged)
            tables = await count_rows(staged)
            if contents.tables and tables != contents.tables:
                raise InvalidInput(f"{source} is damaged: it should hold {contents.tables}, and holds {tables}")
            async with exclusive(Folder(home)):
                # Somebody may have written meanwhile.
                held = await _held(home, source, force=force)
                mark = folder.known_marker(home)
                undo = None
                if mark is not None and mark.pool != source.name and (held is None or any(held.values())):
                    undo = home / folder.BACKUPS / folder.new_name(home / folder.BACKUPS, "replaced-", ".zip")
                    pack = partial(archive.pack, home / mark.pool, undo, schema=mark.schema, tables=held or {})
                    await anyio.to_thread.run_sync(pack)
                with mapped(f"take over {staged}"):
                    await _register(staged, contents.schema)
                folder.take_pool(home, staged, schema=contents.schema, instead_of=mark)
        finally:
            # Only what the mark, as it is now, says was replaced.
            folder.clear_leftovers(home)
    return Restored(source, contents.schema, tables, held, undo)


async def _check(location: Folder, mark: folder.HomeMarker) -> None:
    """Refuse tables that are not whole or have gone back: a copy of them would pass for the newest backup."""
    if folder.has_tables(location.path / mark.pool):
        tables = OpenTables(location, mark, await location.connect(mark))
        try:
            for name in await tables.names():
                await tables.open(name)
        finally:
            tables.close()
        await location.check_all(mark, {})


async def _register(pool: Path, schema: int) -> None:
    """Note how far each table in a folder has come: from now on that is what it was."""
    connection = await connect(pool)
    for table, version in (await versions_in(connection)).items():
        files = durability.TableFiles(pool, table)
        files.head.forget()
        await anyio.to_thread.run_sync(files.settle, schema, await version())
    connection.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
    if (pool / NAME).exists():
        head = durability.Head(pool, NAME)
        head.forget()
        head.note(schema, await anyio.to_thread.run_sync(sqlite_ledger.version, pool / NAME))


def _new_file(home: Path, target: Path | None) -> Path:
    if target is None:
        return home / folder.BACKUPS / folder.new_name(home / folder.BACKUPS, "", ".zip")
    # Who writes `backups/` or `/mnt/usb` means a folder, there or not; a file has an ending.
    is_folder = os.path.isdir(target) or not (target.suffix or os.path.lexists(target))
    return target / folder.new_name(target, "reme-mcp-", ".zip") if is_folder else target


async def _held(home: Path, source: Path, *, force: bool) -> Mapping[str, int] | None:
    """Return how many rows each table that would be replaced has, if it may be; `None` where they can't be read."""
    if folder.is_free(home):
        return {}
    mark = folder.known_marker(home)
    held: Mapping[str, int] | None = {}
    try:
        # Without a mark nothing is replaced: whatever holds tables stays beside the new ones.
        if mark is not None and mark.pool != source.name and (home / mark.pool).is_dir():
            held = await count_rows(home / mark.pool)
    except StoreError:
        held = None
    if not force and (mark is None or held is None or any(held.values()) or folder.missing_tables(home, mark)):
        lessons = held.get("experiences", 0) if held else 0
        what = f"a pool with {many(lessons, 'lesson')}" if held else "tables that can't be read"
        raise InvalidInput(f"{home} holds {what}; --force replaces that, and keeps a backup of it")
    return held
