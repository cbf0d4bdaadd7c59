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
from reme_mcp.store import archive, folder
from reme_mcp.store.location import Folder, count_rows
from reme_mcp.store.lock import ProcessLock
from reme_mcp.store.migrations import SCHEMA_VERSION, exclusive


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
        replaced: How many rows each table of the home had; `None` where they can't be read.
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
    folder.read_marker(home, schema=SCHEMA_VERSION)
    file = _new_file(home, target)
    async with ProcessLock(home / "backups.lock"):
        with ExitStack() as stack:
            async with exclusive(Folder(home)):
                mark = folder.read_marker(home, schema=SCHEMA_VERSION)
                folder.clear_leftovers(home, mark)
                snapshot = stack.enter_context(archive.snapshot(home, mark))
            tables = await count_rows(snapshot)
            pack = partial(archive.pack, snapshot, file, schema=mark.schema, tables=tables)
            size = await anyio.to_thread.run_sync(pack)
    return Backup(file, mark.schema, tables, size)


async def restore(home: Path, what: str, *, force: bool = False, dry_run: bool = False) -> Restored:
    """Put a backup in the place of the home's tables, which are kept as a backup of their own.

    Args:
        home: It is made where it is not there yet.
        what: A file, or the name of one of the home's own backups.
        force: Whether tables that hold something may be replaced.
        dry_run: Only look.

    Raises:
        InvalidInput: There is no such backup, it is damaged, or the home holds something and `force` is off.
        StoreError: It is of a newer version, or there is no room for it; the home is as it was.
    """
    file = archive.find_backup(home, what)
    contents = archive.inspect(file, schema=SCHEMA_VERSION)
    # To look at it is no harm to what is there.
    held = await _held(home, force=force or dry_run)
    if dry_run:
        return Restored(file, contents.schema, contents.tables, held, None)
    folder.prepare(home, schema=SCHEMA_VERSION)
    async with ProcessLock(home / "backups.lock"):
        folder.clear_leftovers(home, folder.read_marker(home, schema=SCHEMA_VERSION))
        into = home / folder.new_name(home, "pool-")
        undo = None
        try:
            await anyio.to_thread.run_sync(archive.unpack, file, into)
            tables = await count_rows(into)
            if contents.tables and tables != contents.tables:
                raise InvalidInput(f"{file} is damaged: it should hold {contents.tables}, and holds {tables}")
            async with exclusive(Folder(home)):
                # Somebody may have written meanwhile.
                held = await _held(home, force=force)
                mark = folder.read_marker(home, schema=SCHEMA_VERSION)
                if held is None or any(held.values()):
                    undo = home / folder.BACKUPS / folder.new_name(home / folder.BACKUPS, "replaced-", ".zip")
                    pack = partial(archive.pack, home / mark.pool, undo, schema=mark.schema, tables=held or {})
                    await anyio.to_thread.run_sync(pack)
                folder.write_marker(home, folder.HomeMarker(contents.schema, into.name))
        finally:
            # By the mark: whatever happened, it names the tables that are in use.
            folder.clear_leftovers(home, folder.read_marker(home, schema=SCHEMA_VERSION))
    return Restored(file, contents.schema, tables, held, undo)


def _new_file(home: Path, target: Path | None) -> Path:
    if target is None:
        return home / folder.BACKUPS / folder.new_name(home / folder.BACKUPS, "", ".zip")
    # Who writes `backups/` or `/mnt/usb` means a folder, there or not; a file has an ending.
    is_folder = os.path.isdir(target) or not (target.suffix or os.path.lexists(target))
    return target / folder.new_name(target, "reme-mcp-", ".zip") if is_folder else target


async def _held(home: Path, *, force: bool) -> Mapping[str, int] | None:
    """Return how many rows each table of the home has, `None` where they can't be read, if they may be replaced."""
    if folder.is_free(home):
        return {}
    pool = home / folder.read_marker(home, schema=SCHEMA_VERSION).pool
    held: Mapping[str, int] | None
    try:
        held = await count_rows(pool) if pool.is_dir() else {}
    except StoreError:
        held = None
    if not force and (held is None or any(held.values())):
        lessons = held.get("experiences", 0) if held is not None else 0
        what = f"a pool with {lessons:,} lesson{'' if lessons == 1 else 's'}"
        holds = "tables that can't be read" if held is None else what
        raise InvalidInput(f"{home} holds {holds}; --force replaces that, and keeps a backup of it")
    return held
