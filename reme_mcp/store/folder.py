"""The home: the folder that holds the pool, its mark, its locks and its backups.

In:  a path.
Out: the mark of a home, a folder of files packed into one backup and back.
Does not know: tables, and who holds which lock; callers hold them.

    home.json            the mark: the schema it is written with, which folder is the pool, which tables it has
    pool/                LanceDB's tables; pool-<time>/ once a backup was restored
    pool.lock, pool-receipts.lock, backups.lock
    last-error.json      what a server logged last
    tokens.json, .lock   the tokens of a server; no backup holds them
    backups/<name>.zip   backups, unless they were sent elsewhere
    snapshot-<…>/        a backup that is being made; what a killed one left goes with the next

A backup is one zip file, because one file is there or not (it gets its name when it is whole), is easily sent
elsewhere, and carries a checksum of each of its parts. Nothing is compressed: vectors don't get smaller.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from reme_mcp import atomic
from reme_mcp.errors import StoreError

MARK = "home.json"
# Far more than the names of the tables of a thousand embedders.
MAX_MARK_BYTES = 65_536
BACKUPS = "backups"
# What a folder in the making is called, or one that is about to go.
LEFTOVER = "snapshot-"
POOL_NAME = re.compile(r"pool(-\d{8}T\d{6}Z(-\d+)?)?")
# What another process may be making at this very moment, besides what is left of it.
HOME_FILES = re.compile(
    rf"(home|last-error|tokens)\.json|\.?(home|last-error|tokens)\.json\.\d+\.part|last-error-hook\.txt|{POOL_NAME.pattern}"
    r"|(pool(-receipts|-upkeep|-queue)?|backups|tokens)\.lock|backups|snapshot-[\dTZ-]+"
)


@dataclass(frozen=True, slots=True)
class HomeMarker:
    """What `home.json` says.

    Two are equal where they name the same tables; what else they say may differ.

    Attributes:
        schema: What the tables are written with; 1 or more.
        pool: The folder of the tables, in the home.
        backup: The name of the backup that the upgrade under way has made; mostly empty.
        tables: What is in that folder; empty while nothing is known to be.
        superseded: The folders that were the pool before, and are not needed any more.
    """

    schema: int
    pool: str = "pool"
    backup: str = ""
    tables: tuple[str, ...] = field(default=(), compare=False)
    superseded: tuple[str, ...] = field(default=(), compare=False)

    def to_json(self) -> str:
        """Return the text of `home.json`; what has its default is left out."""
        said = {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) != DEFAULTS.get(name)}
        return json.dumps(said)

    @classmethod
    @functools.lru_cache(maxsize=16)
    def from_json(cls, content: bytes, home: str, *, schema: int) -> HomeMarker:
        """Return what the `home.json` of `home` says.

        Raises:
            DamagedMark: It can't be understood.
            StoreError: It is written with a schema above `schema`.
        """
        try:
            if len(content) > MAX_MARK_BYTES:
                raise ValueError(content)
            said = json.loads(content)
            mark = cls(
                **{"schema": said["schema"]}
                | {name: said[name] for name in ("pool", "backup") if name in said}
                | {name: tuple(map(str, said[name])) for name in ("tables", "superseded") if name in said}
            )
            names = (mark.backup, *mark.tables)
            if any(PurePosixPath(name).name != name for name in names) or type(mark.schema) is not int:
                raise ValueError(mark)
            if not all(POOL_NAME.fullmatch(pool) for pool in (mark.pool, *mark.superseded)) or mark.schema < 1:
                raise ValueError(mark)
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise DamagedMark(
                f"larger than {MAX_MARK_BYTES:,} bytes"
                if len(content) > MAX_MARK_BYTES
                else f"no mark: {content[:60].decode(errors='replace')!r}"
                if content.strip()
                else "empty"
            ) from exc
        if mark.schema > schema:
            raise StoreError(
                f"{home} was written with schema {mark.schema}, this reme-mcp reads schema {schema}; "
                "use the version that wrote it, or another --home"
            )
        return mark


DEFAULTS = {"pool": "pool", "backup": "", "tables": (), "superseded": ()}


class DamagedHome(StoreError):
    """Something is missing in a home, or older than it was; a backup puts that right."""


class DamagedMark(Exception):
    """A mark can't be understood; the message says what it is instead."""


# --- the mark ---


def prepare(home: Path, *, schema: int) -> HomeMarker:
    """Make the folder (private, 0700) and its mark, or check that all is there that the mark names.

    An existing home is only read.

    Raises:
        StoreError: The folder can't be made or read, is not a home, is damaged, or was written with a schema above
            `schema`.
    """
    try:
        if is_free(home):
            make(home)
            write_marker(home, HomeMarker(schema))
    except OSError as exc:
        raise _unusable(home, exc) from exc
    return whole_marker(home, schema=schema)


def whole_marker(home: Path, *, schema: int) -> HomeMarker:
    """Return the mark of an existing home that has all that the mark names.

    Raises:
        StoreError: As `read_marker`, or something is missing.
    """
    mark = read_marker(home, schema=schema)
    while (missing := missing_tables(home, mark)) is not None:
        # Whoever restores a backup meanwhile rewrites the mark first.
        seen, mark = mark, read_marker(home, schema=schema)
        if seen == mark and seen.tables == mark.tables:
            raise damaged(home, missing)
    return mark


def missing_tables(home: Path, mark: HomeMarker) -> str | None:
    """Return what the mark names and the home does not have, in words; `None` where it has all.

    Raises:
        StoreError: It can't be seen.
    """
    pool = home / mark.pool
    try:
        if missing := [name for name in mark.tables if not _is_there(pool, name)]:
            if not pool.is_dir():
                return f"the folder {mark.pool}, which {MARK} names, is not there"
            return f"{mark.pool} lacks what {MARK} names: {', '.join(missing)}"
        if mark.tables or has_tables(pool):
            return None
        others = [name for name in pools(home) if name not in mark.superseded]
    except OSError as exc:
        raise _unusable(home, exc) from exc
    return f"{mark.pool}, which {MARK} names, holds no tables, and {' and '.join(others)} does" if others else None


def pools(home: Path) -> list[str]:
    """Return the names of all folders in the home that hold tables."""
    return sorted(one.name for one in home.iterdir() if POOL_NAME.fullmatch(one.name) and has_tables(one))


def has_tables(pool: Path) -> bool:
    """Return whether a folder holds a table, whole or not."""
    return bool(tables_in(pool))


def tables_in(pool: Path) -> tuple[str, ...]:
    """Return what a folder holds, as a mark names it: LanceDB's tables, and databases with their ending."""
    return tuple(sorted([one.stem for one in pool.glob("*.lance")] + [one.name for one in pool.glob("*.db")]))


def _is_there(pool: Path, table: str) -> bool:
    """Return whether something stands where a table of the pool should; no database is empty."""
    is_database = table.endswith(".db")
    try:
        # At every call: a path of `pathlib` takes longer than the look.
        found = os.stat(os.path.join(pool, table if is_database else f"{table}.lance"))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0 if is_database else stat.S_ISDIR(found.st_mode)


def damaged(home: Path, what: str) -> DamagedHome:
    """Return the error that says what is wrong with a home, and every way back from there."""
    ways = [
        f"the tables in {name} are taken as they are by `reme-mcp restore-backup --force {name}`"
        for name in pools(home)
    ]
    if newest := max((home / BACKUPS).glob("*.zip"), key=lambda file: file.stat().st_mtime, default=None):
        ways.append(f"the newest backup comes back by `reme-mcp restore-backup --force {newest.name}`")
    if not ways:
        ways.append(
            "`reme-mcp restore-backup --force FILE` puts a backup in its place; without one, choose another --home"
        )
    told = "; ".join(ways)
    return DamagedHome(f"{home} is damaged: {what}. Nothing was changed; {told} (--dry-run shows what would be done)")


def make(home: Path) -> None:
    """Make the folder of a home, private from the first moment on, where there is none.

    Raises:
        StoreError: It can't be made.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_free(home):
            _close(home)
    except OSError as exc:
        raise _unusable(home, exc) from exc


def _close(home: Path) -> None:
    """Make a folder that was there private before anything stands in it.

    One that somebody else owns stays as it is: a volume that was mounted for this account's group is one.
    """
    found = home.stat()
    if sys.platform == "win32" or found.st_uid == os.geteuid():
        home.chmod(found.st_mode & ~(stat.S_IRWXO | stat.S_IRWXG))


def is_free(home: Path) -> bool:
    """Return whether `home` may become one: it is not there, or holds nothing but what was left of one, and no tables.

    Raises:
        StoreError: It is a folder of something else, or can't be read.
    """
    try:
        if (home / MARK).exists() or (home.is_dir() and pools(home)):
            return False
        if home.exists() and any(not HOME_FILES.fullmatch(entry.name) for entry in home.iterdir()):
            raise StoreError(f"{home} is not empty and not a home of reme-mcp; choose another with --home")
    except OSError as exc:
        raise _unusable(home, exc) from exc
    return True


def read_marker(home: Path, *, schema: int) -> HomeMarker:
    """Return the mark of an existing home.

    Raises:
        StoreError: There is none, it is damaged, or written with a schema above `schema`.
    """
    try:
        with (home / MARK).open("rb") as file:
            content = file.read(MAX_MARK_BYTES + 1)
        return HomeMarker.from_json(content, str(home), schema=schema)
    except DamagedMark as exc:
        raise damaged(home, f"{MARK} is {exc}") from exc
    except OSError as exc:
        if isinstance(exc, FileNotFoundError):
            if home.is_dir() and pools(home):
                raise damaged(home, f"{MARK} is not there") from exc
            raise StoreError(
                f"there is no pool in {home}: was it moved or removed? Put it back and all goes on as before; "
                "or begin with a new one, which any command makes, such as `reme-mcp stats`"
            ) from exc
        raise _unusable(home, exc) from exc


def known_marker(home: Path) -> HomeMarker | None:
    """Return the mark of a home; `None` where there is none that can be understood."""
    try:
        with (home / MARK).open("rb") as file:
            return HomeMarker.from_json(file.read(MAX_MARK_BYTES + 1), str(home), schema=sys.maxsize)
    except (FileNotFoundError, DamagedMark):
        return None
    except OSError as exc:
        raise _unusable(home, exc) from exc


def take_pool(home: Path, pool: Path, *, schema: int, instead_of: HomeMarker | None) -> HomeMarker:
    """Make a folder in the home its pool, by one rewriting of the mark, and return that.

    Args:
        home: The home.
        pool: The folder, whole and on the disk; where it is a leftover by name, it gets that of a pool.
        schema: What its tables are written with.
        instead_of: The mark until now; `None` where there is none.
    """
    try:
        if not POOL_NAME.fullmatch(pool.name):
            pool = pool.rename(home / new_name(home, "pool-"))
    except OSError as exc:
        raise _unusable(home, exc) from exc
    replaced = set() if instead_of is None else {instead_of.pool, *instead_of.superseded}
    mark = HomeMarker(schema, pool.name, tables=tables_in(pool), superseded=tuple(sorted(replaced - {pool.name})))
    write_marker(home, mark)
    return mark


def write_marker(home: Path, mark: HomeMarker) -> None:
    """Replace the mark so that a reader, and whoever looks after a power cut, sees all of it or what was there before.

    Raises:
        StoreError: It can't be written; it is as it was.
    """
    try:
        atomic.write(home / MARK, mark.to_json().encode())
    except OSError as exc:
        raise _unusable(home, exc) from exc


def new_name(folder: Path, stem: str, ending: str = "") -> str:
    """Return a name that nothing in `folder` has: `stem`, the time in UTC, and a number where that is taken."""
    name = f"{stem}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    number = 1
    # A name that no file can have is told by whoever writes there.
    while os.path.exists(folder / f"{name}{f'-{number}' if number > 1 else ''}{ending}"):
        number += 1
    return f"{name}{f'-{number}' if number > 1 else ''}{ending}"


def clear_leftovers(home: Path) -> None:
    """Remove what killed backups and restores left in the home, and pools that its mark says were replaced.

    Where the mark can't be read, nothing that may be a pool goes.
    """
    mark = known_marker(home)
    replaced = set() if mark is None else set(mark.superseded) - {mark.pool}
    for entry in home.iterdir():
        if entry.name in replaced:
            # Half of a pool must never look like one.
            entry = entry.rename(home / new_name(home, LEFTOVER))
        if entry.name.startswith(LEFTOVER):
            shutil.rmtree(entry, ignore_errors=True)
    for part in (home / BACKUPS).glob(".*.part"):
        part.unlink(missing_ok=True)


def _unusable(home: Path, exc: OSError) -> StoreError:
    there = next((one for one in (home, *home.parents) if os.path.lexists(one)), home)
    if there.is_file():
        reason = "it is a file" if there == home else f"{there} is a file"
    elif there != home:
        reason = f"no folder can be made in {there} ({reason_of(exc)})"
    elif isinstance(exc, PermissionError):
        # Whose files are nobody else's: accounts that shared them could write in each other's names.
        reason = (
            f"this account may not use {exc.filename or home} ({exc.strerror}); a home is one account's, "
            "which lets others in by `reme-mcp serve --http`"
        )
    else:
        reason = reason_of(exc)
    return StoreError(f"can't use {home} as home: {reason}; choose another with --home")


def reason_of(exc: OSError) -> str:
    """Return in words why the system refused."""
    # What copies a folder collects errors, each with the text of its own.
    if exc.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(exc):
        return "there is no room left on the disk"
    return exc.strerror or str(exc)
