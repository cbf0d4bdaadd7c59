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
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from reme_mcp.errors import InvalidInput, StoreError

MARK = "home.json"
BACKUPS = "backups"
POOL_NAME = re.compile(r"pool(-\d{8}T\d{6}Z(-\d+)?)?")
# What another process may be making at this very moment, besides what is left of it.
HOME_FILES = re.compile(
    rf"(home|last-error)\.json(\.\d+\.part)?|{POOL_NAME.pattern}|(pool(-receipts|-upkeep|-queue)?|backups)\.lock|backups"
    r"|snapshot-[\dTZ-]+|tokens\.(json(\.\d+\.part)?|lock)"
)


@dataclass(frozen=True, slots=True)
class Mark:
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
    def from_json(cls, content: bytes, home: str, *, schema: int) -> Mark:
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


# --- the mark ---


def prepare(home: Path, *, schema: int) -> Mark:
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
            write_mark(home, Mark(1 if (home / "pool").exists() else schema))
    except OSError as exc:
        raise _unusable(home, exc) from exc
    return read_mark(home, schema=schema)


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


def read_mark(home: Path, *, schema: int) -> Mark:
    """Return the mark of an existing home.

    Raises:
        StoreError: There is none, it is damaged, or written with a schema above `schema`.
    """
    file = home / MARK
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise _unusable(home, exc) from exc
    return Mark.from_json(content, str(home), schema=schema)


def write_mark(home: Path, mark: Mark) -> None:
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


@contextmanager
def snapshot(home: Path, mark: Mark) -> Iterator[Path]:
    """Give a folder with the tables as they are now, for as long as the block lasts, at the cost of their names.

    Hard links are enough here: LanceDB never writes into a file that has its name, it replaces or deletes it.

    Raises:
        StoreError: There are no tables, or the folder can't be made.
    """
    pool = home / mark.pool
    if not pool.is_dir():
        raise StoreError(f"{home} holds no tables yet; there is nothing to back up")
    folder = new_name(home, "snapshot-")
    try:
        try:
            shutil.copytree(pool, home / folder, copy_function=os.link)
        except OSError as exc:
            raise StoreError(f"can't take a snapshot of {pool}: {_reason(exc)}") from exc
        yield home / folder
    finally:
        shutil.rmtree(home / folder, ignore_errors=True)


def pack(pool: Path, target: Path, *, schema: int, tables: Mapping[str, int]) -> int:
    """Write the files of `pool` into the backup `target`, read them all back, and return its size in bytes.

    Raises:
        StoreError: `target` can't be written; nothing is left of it.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if target.exists():
            raise StoreError(f"{target} exists already; name another file, or remove it")
        # A clock before 1980 is no reason to fail.
        with zipfile.ZipFile(part, "w", strict_timestamps=False) as archive:
            os.chmod(part, 0o600)
            archive.writestr(zipfile.ZipInfo(MARK), json.dumps({"schema": schema, "tables": dict(tables)}))
            for file in sorted(pool.rglob("*")):
                if file.is_file():
                    archive.write(file, f"pool/{file.relative_to(pool).as_posix()}")
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        with zipfile.ZipFile(part) as archive:
            if damaged := archive.testzip():
                raise StoreError(f"can't write {target}: {damaged} reads back differently; is the disk all right?")
        size = part.stat().st_size
        part.replace(target)
    except OSError as exc:
        raise StoreError(f"can't write {target}: {_reason(exc)}") from exc
    finally:
        with suppress(OSError):
            part.unlink()
    return size


def find_backup(home: Path, what: str) -> Path:
    """Return the backup `what`: a path, or the name of one in the home's own folder of backups.

    Raises:
        InvalidInput: There is none.
    """
    for file in (Path(what), home / BACKUPS / what, home / BACKUPS / f"{what}.zip"):
        if os.path.isfile(file):
            return file
    own = ", ".join(own_backups(home))
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
        try:
            said = json.loads(archive.read(MARK))
            contents = Contents(said["schema"], dict(said["tables"]), sum(one.file_size for one in archive.infolist()))
        except (KeyError, ValueError, TypeError) as exc:
            raise InvalidInput(f"{file} is no backup of reme-mcp: it holds no {MARK} that says so") from exc
        strangers = [one for one in archive.namelist() if one != MARK and not _is_inside_pool(one)]
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
    except BaseException as exc:
        shutil.rmtree(into, ignore_errors=True)
        if isinstance(exc, OSError):
            raise StoreError(f"can't write {into}: {_reason(exc)}") from exc
        raise


def clear_leftovers(home: Path, mark: Mark) -> None:
    """Remove what killed backups and restores left in the home, and pools that were replaced."""
    for entry in home.iterdir():
        if entry.name.startswith("snapshot-") or (POOL_NAME.fullmatch(entry.name) and entry.name != mark.pool):
            shutil.rmtree(entry, ignore_errors=True)
    for part in (home / BACKUPS).glob(".*.part"):
        part.unlink(missing_ok=True)


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
        raise StoreError(f"can't read {file}: {_reason(exc)}") from exc
    except zipfile.BadZipFile as exc:
        raise InvalidInput(f"{file} is no backup of reme-mcp, or damaged: {exc}") from exc
    try:
        with archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as exc:
        raise InvalidInput(f"{file} is no backup of reme-mcp, or damaged: {exc}") from exc


def _unusable(home: Path, exc: OSError) -> StoreError:
    there = next((one for one in (home, *home.parents) if os.path.lexists(one)), home)
    if there.is_file():
        reason = "it is a file" if there == home else f"{there} is a file"
    elif there != home:
        reason = f"no folder can be made in {there} ({_reason(exc)})"
    else:
        reason = _reason(exc)
    return StoreError(f"can't use {home} as home: {reason}; choose another with --home")


def _reason(exc: OSError) -> str:
    # What copies a folder collects errors, each with the text of its own.
    if exc.errno == errno.ENOSPC or os.strerror(errno.ENOSPC) in str(exc):
        return "there is no room left on the disk"
    return exc.strerror or str(exc)
