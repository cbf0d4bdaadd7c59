"""The home: the folder that holds the pool, its mark, its locks and its backups.

In:  a path.
Out: the mark of a home, a folder of files packed into one backup and back.
Does not know: tables, and who holds which lock; callers hold them.

    home.json            the mark: the schema it is written with, and which folder is the pool
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
import json
import os
import re
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from reme_mcp.errors import StoreError

MARK = "home.json"
BACKUPS = "backups"
POOL_NAME = re.compile(r"pool(-\d{8}T\d{6}Z(-\d+)?)?")
# What another process may be making at this very moment, besides what is left of it.
HOME_FILES = re.compile(
    rf"(home|last-error)\.json(\.\d+\.part)?|last-error-hook\.txt|{POOL_NAME.pattern}|(pool(-receipts|-upkeep|-queue)?|backups)\.lock|backups"
    r"|snapshot-[\dTZ-]+|tokens\.(json(\.\d+\.part)?|lock)"
)


@dataclass(frozen=True, slots=True)
class HomeMarker:
    """What `home.json` says.

    Attributes:
        schema: What the tables are written with; 1 or more.
        pool: The folder of the tables, in the home.
        backup: The name of the backup that the upgrade under way has made; mostly empty.
    """

    schema: int
    pool: str = "pool"
    backup: str = ""

    def to_json(self) -> str:
        """Return the text of `home.json`; what has its default is left out."""
        named = {"pool": self.pool if self.pool != "pool" else "", "backup": self.backup}
        return json.dumps({"schema": self.schema, **{name: value for name, value in named.items() if value}})

    @classmethod
    def from_json(cls, content: bytes, home: str, *, schema: int) -> HomeMarker:
        """Return what the `home.json` of `home` says.

        Raises:
            StoreError: It is damaged, or written with a schema above `schema`.
        """
        try:
            said = json.loads(content)
            mark = cls(**{"schema": said["schema"]} | {name: said[name] for name in ("pool", "backup") if name in said})
            if not POOL_NAME.fullmatch(mark.pool) or PurePosixPath(mark.backup).name != mark.backup:
                raise ValueError(mark)
        except (ValueError, KeyError, TypeError) as exc:
            raise StoreError(
                f"{home}/{MARK} is damaged: {content[:60].decode(errors='replace')!r}; "
                f'it should be {{"schema": {schema}}}'
            ) from exc
        if type(mark.schema) is not int or not 1 <= mark.schema <= schema:
            raise StoreError(
                f"{home} was written with schema {mark.schema}, this reme-mcp reads schema {schema}; "
                "use the version that wrote it, or another --home"
            )
        return mark


# --- the mark ---


def prepare(home: Path, *, schema: int) -> HomeMarker:
    """Make the folder (private, 0700) and its mark, or check that this version can read what is there.

    An existing home is only read.

    Raises:
        StoreError: The folder can't be made or read, is not a home, or was written with a schema above `schema`.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_free(home):
            _close(home)
            # Tables without a mark may be as old as can be; an upgrade that is not needed changes nothing.
            write_marker(home, HomeMarker(1 if (home / "pool").exists() else schema))
    except OSError as exc:
        raise _unusable(home, exc) from exc
    return read_marker(home, schema=schema)


def _close(home: Path) -> None:
    """Make a folder that was there private before anything stands in it; its group stays where it may write."""
    mode = home.stat().st_mode
    home.chmod(mode & ~(stat.S_IRWXO if mode & stat.S_IWGRP else stat.S_IRWXO | stat.S_IRWXG))


def is_free(home: Path) -> bool:
    """Return whether `home` may become one: it is not there, or holds nothing but what was left of one.

    Raises:
        StoreError: It is a folder of something else, or can't be read.
    """
    try:
        if (home / MARK).exists():
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
    file = home / MARK
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise _unusable(home, exc) from exc
    return HomeMarker.from_json(content, str(home), schema=schema)


def write_marker(home: Path, mark: HomeMarker) -> None:
    """Replace the mark so that a reader sees all of it or nothing.

    Raises:
        StoreError: It can't be written; it is as it was.
    """
    part = home / f"{MARK}.{os.getpid()}.part"
    try:
        part.write_text(mark.to_json(), encoding="utf-8")
        part.replace(home / MARK)
    except OSError as exc:
        with suppress(OSError):
            part.unlink()
        raise _unusable(home, exc) from exc


# --- backups ---


def new_name(folder: Path, stem: str, ending: str = "") -> str:
    """Return a name that nothing in `folder` has: `stem`, the time in UTC, and a number where that is taken."""
    name = f"{stem}{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    number = 1
    # A name that no file can have is told by whoever writes there.
    while os.path.exists(folder / f"{name}{f'-{number}' if number > 1 else ''}{ending}"):
        number += 1
    return f"{name}{f'-{number}' if number > 1 else ''}{ending}"


def clear_leftovers(home: Path, mark: HomeMarker) -> None:
    """Remove what killed backups and restores left in the home, and pools that were replaced."""
    for entry in home.iterdir():
        if entry.name.startswith("snapshot-") or (POOL_NAME.fullmatch(entry.name) and entry.name != mark.pool):
            shutil.rmtree(entry, ignore_errors=True)
    for part in (home / BACKUPS).glob(".*.part"):
        part.unlink(missing_ok=True)


def _unusable(home: Path, exc: OSError) -> StoreError:
    there = next((one for one in (home, *home.parents) if os.path.lexists(one)), home)
    if there.is_file():
        reason = "it is a file" if there == home else f"{there} is a file"
    elif there != home:
        reason = f"no folder can be made in {there} ({reason_of(exc)})"
    else:
        reason = reason_of(exc)
    return StoreError(f"can't use {home} as home: {reason}; choose another with --home")


def reason_of(exc: OSError) -> str:
    """Return in words why the system refused."""
    # What copies a folder collects errors, each with the text of its own.
    if exc.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(exc):
        return "there is no room left on the disk"
    return exc.strerror or str(exc)
