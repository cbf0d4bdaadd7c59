"""Backups as files: a pool packed into one zip file, looked into, and unpacked.

In:  a folder with tables, a backup file.
Out: a backup file, its contents, a folder with tables.
Does not know: LanceDB, who holds which lock; callers hold them.

A backup is one zip file, because one file is there or not (it gets its name when it is whole), is easily sent
elsewhere, and carries a checksum of each of its parts. Nothing is compressed: vectors don't get smaller.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from reme_mcp import atomic
from reme_mcp.errors import InvalidInput, StoreError
from reme_mcp.store import durability, sqlite_ledger
from reme_mcp.store.folder import (
    BACKUPS,
    LEFTOVER,
    MARK,
    MAX_MARK_BYTES,
    POOL_NAME,
    HomeMarker,
    has_tables,
    new_name,
    pools,
    reason_of,
)
from reme_mcp.store.sqlite_ledger import NAME, DamagedLedger


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup says of itself.

    Attributes:
        schema: What its tables are written with.
        tables: How many rows each of them has; empty where nobody counted.
        size: Of all files in bytes.
    """

    schema: int
    tables: Mapping[str, int]
    size: int


@contextmanager
def snapshot(home: Path, mark: HomeMarker) -> Iterator[Path]:
    """Give a folder with the tables as they are now, for as long as the block lasts, at the cost of their names.

    Hard links are enough for LanceDB, which never writes into a file that has its name, but replaces or deletes it. The
    ledger is written in place, and copied.

    Raises:
        StoreError: There are no tables, or the folder can't be made.
    """
    pool = home / mark.pool
    if not pool.is_dir():
        raise StoreError(f"{home} holds no tables yet; there is nothing to back up")
    folder = new_name(home, LEFTOVER)
    try:
        try:
            # How far the tables have come is written in place, and is of this home only.
            ignore = shutil.ignore_patterns(f"*{durability.HEAD}", f"{NAME}*")
            shutil.copytree(pool, home / folder, copy_function=os.link, ignore=ignore)
            if (pool / NAME).exists():
                sqlite_ledger.copy(pool / NAME, home / folder / NAME)
        except OSError as exc:
            raise StoreError(f"can't take a snapshot of {pool}: {reason_of(exc)}") from exc
        yield home / folder
    finally:
        shutil.rmtree(home / folder, ignore_errors=True)


def pack(pool: Path, target: Path, *, schema: int, tables: Mapping[str, int]) -> int:
    """Write the files of `pool` into the backup `target`, read them all back, and return its size in bytes.

    Raises:
        StoreError: `target` can't be written; nothing is left of it.
    """
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.exists():
            raise StoreError(f"{target} exists already; name another file, or remove it")
        with atomic.replacing(target) as part:
            _fill(part, target, pool, schema, tables)
            with zipfile.ZipFile(part) as archive:
                if damaged := archive.testzip():
                    raise StoreError(f"can't write {target}: {damaged} reads back differently; is the disk all right?")
            return part.stat().st_size
    except OSError as exc:
        raise StoreError(f"can't write {target}: {reason_of(exc)}") from exc


def _fill(part: Path, target: Path, pool: Path, schema: int, tables: Mapping[str, int]) -> None:
    atomic.create(part, b"")
    # A clock before 1980 is no reason to fail.
    with zipfile.ZipFile(part, "w", strict_timestamps=False) as archive:
        archive.writestr(zipfile.ZipInfo(MARK), json.dumps({"schema": schema, "tables": dict(tables)}))
        for file in sorted(pool.rglob("*")):
            if file.is_file() and file.suffix != durability.HEAD and not file.name.startswith(NAME):
                archive.write(file, f"pool/{file.relative_to(pool).as_posix()}")
        if (pool / NAME).exists():
            # Part of it may be in its journal.
            with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
                copied = Path(folder, NAME)
                try:
                    sqlite_ledger.copy(pool / NAME, copied)
                except DamagedLedger:
                    # What can't be read is kept as it is: somebody may mend it.
                    copied = pool / NAME
                archive.write(copied, f"pool/{NAME}")


def find_backup(home: Path, what: str) -> Path:
    """Return the backup `what`: a path, the name of one in the home's own folder of backups, or of a pool in the home.

    Raises:
        InvalidInput: There is none.
    """
    for file in (Path(what), home / BACKUPS / what, home / BACKUPS / f"{what}.zip"):
        if os.path.isfile(file):
            return file
    if POOL_NAME.fullmatch(what) and has_tables(home / what):
        return home / what
    own = ", ".join([*own_backups(home), *(pools(home) if home.is_dir() else [])])
    raise InvalidInput(f"no backup {what!r}; {home / BACKUPS} holds {own or 'none'}")


def own_backups(home: Path) -> list[str]:
    """Return the names of the backups in the home's own folder of them."""
    return sorted(file.name for file in (home / BACKUPS).glob("*.zip"))


def inspect(file: Path, *, schema: int) -> Contents:
    """Return what a backup says of itself.

    Raises:
        InvalidInput: It is no backup, or damaged.
        StoreError: It was written with a schema above `schema`, or can't be read.
    """
    with _reading(file) as archive:
        members = archive.infolist()
        size = sum(one.file_size for one in members)
        # What is not compressed takes at least its own size, however it is packed.
        if size > (held := file.stat().st_size):
            raise InvalidInput(
                f"{file} is no backup of reme-mcp: it would unpack to {size:,} bytes from {held:,}, "
                "and a backup is never compressed"
            )
        try:
            with archive.open(MARK) as mark:
                said = json.loads(mark.read(MAX_MARK_BYTES))
            contents = Contents(said["schema"], dict(said["tables"]), size)
        except (KeyError, ValueError, TypeError, RecursionError) as exc:
            raise InvalidInput(f"{file} is no backup of reme-mcp: it holds no {MARK} that says so") from exc
        strangers = [one.filename for one in members if one.filename != MARK and not _is_inside_pool(one.filename)]
    if strangers:
        raise InvalidInput(f"{file} is no backup of reme-mcp: it holds {strangers[0]!r}")
    if type(contents.schema) is not int or not 1 <= contents.schema <= schema:
        raise StoreError(
            f"{file} was written with schema {contents.schema}, this reme-mcp reads schema {schema}; "
            "use the version that wrote it"
        )
    return contents


def unpack(file: Path, into: Path) -> None:
    """Write the tables of a backup, which `inspect` has seen, into the new folder `into`.

    Raises:
        InvalidInput: It is damaged; nothing is left of it.
        StoreError: It can't be read, or `into` not be written; likewise.
    """
    try:
        into.mkdir(mode=0o700)
        with _reading(file) as archive:
            for member in archive.infolist():
                if member.filename == MARK or member.is_dir():
                    continue
                target = into.joinpath(*PurePosixPath(member.filename).parts[1:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("wb") as written:
                    shutil.copyfileobj(source, written, 1 << 20)
        atomic.sync_tree(into)
    except BaseException as exc:
        shutil.rmtree(into, ignore_errors=True)
        if isinstance(exc, OSError):
            raise StoreError(f"can't write {into}: {reason_of(exc)}") from exc
        raise


# --- inside ---


def _is_inside_pool(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parts[:1] == ("pool",) and ".." not in path.parts and "\\" not in name and ":" not in name


@contextmanager
def _reading(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip file, and turn what is wrong with it into one clear error."""
    try:
        archive = zipfile.ZipFile(file)
    except OSError as exc:
        raise StoreError(f"can't read {file}: {reason_of(exc)}") from exc
    except zipfile.BadZipFile as exc:
        raise InvalidInput(f"{file} is no backup of reme-mcp, or damaged: {exc}") from exc
    try:
        with archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as exc:
        raise InvalidInput(f"{file} is no backup of reme-mcp, or damaged: {exc}") from exc
