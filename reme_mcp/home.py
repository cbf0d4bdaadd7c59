"""The home folder as a whole: its version mark, what may lie in it, its backups.

In:  a path.
Out: a folder that a store may open, and the version that it was written with; one file that holds all of it.
Does not know: tables.

A backup is an uncompressed tar archive: one file to carry, which any system unpacks, and as fast as the disk. Whoever
makes one holds the store's locks meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reme_mcp.errors import StoreError
from reme_mcp.schema import now

SCHEMA_VERSION = 2
MARK = "home.json"
POOL = "pool"
# What another process may be making at this very moment, besides what is left of it.
HOME_FILES = re.compile(r"home\.json(\.\d+\.part)?|pool|pool(-receipts|-upkeep|-queue)?\.lock")


def prepare(home: Path) -> int:
    """Make the folder (private, 0700) and its mark, or check them; return the version that it was written with.

    Raises:
        StoreError: It can't be made or read, holds something else, or was written by a newer version.
    """
    mark = home / MARK
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not mark.exists():
            if any(not HOME_FILES.fullmatch(entry.name) for entry in home.iterdir()):
                raise StoreError(f"{home} is not empty and not a home of reme-mcp; choose another with --home")
            set_version(home)
    except OSError as exc:
        raise StoreError(f"can't use {home} as home: {exc.strerror}; choose another with --home") from exc
    return version(home)


def version(home: Path) -> int:
    """Return the version that a home was written with.

    Raises:
        StoreError: The mark can't be read, or is of a newer version.
    """
    mark = home / MARK
    try:
        content = mark.read_bytes()
    except OSError as exc:
        raise StoreError(f"can't use {home} as home: {exc.strerror}; choose another with --home") from exc
    try:
        found = json.loads(content)["schema"]
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreError(
            f'{mark} is damaged: {content[:60].decode(errors="replace")!r}; it should be {{"schema": {SCHEMA_VERSION}}}'
        ) from exc
    if not isinstance(found, int) or not 1 <= found <= SCHEMA_VERSION:
        raise StoreError(
            f"{home} was written with schema {found}, this reme-mcp reads schema {SCHEMA_VERSION}; "
            "use the version that wrote it, or another --home"
        )
    return found


def set_version(home: Path) -> None:
    """Mark a home as written with the version of this program; a reader sees the old mark or the new one."""
    mark = home / MARK
    part = mark.with_name(f"{MARK}.{os.getpid()}.part")
    part.write_text(json.dumps({"schema": SCHEMA_VERSION}), encoding="utf-8")
    part.replace(mark)


def beside(home: Path, what: str, suffix: str = "") -> Path:
    """Return a free path beside a home, named after it, `what` it is and the time."""
    stem = f"{home.name}-{what}-{now():%Y%m%d-%H%M%S}"
    for number in range(1, 1000):
        path = home.with_name(f"{stem}{'' if number == 1 else f'-{number}'}{suffix}")
        if not path.exists():
            return path
    raise StoreError(f"there are a thousand files like {home.with_name(stem)}{suffix} already; remove some")


def pack(home: Path, archive: Path) -> None:
    """Write all of a home that nobody writes meanwhile into one new file, readable by its owner alone.

    Raises:
        StoreError: The file is there already or can't be written; nothing is left of it.
    """
    part = archive.with_name(f"{archive.name}.{os.getpid()}.part")
    with _failing(f"write the backup {archive}", part):
        if archive.exists():
            raise StoreError(f"{archive} is there already; name another file")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as tar:
                for name in (MARK, POOL):
                    tar.add(home / name, arcname=name)
            file.flush()
            os.fsync(file.fileno())
        part.replace(archive)


def unpack(archive: Path, folder: Path) -> int:
    """Write a backup into a new folder, private, and return the version that it was written with.

    Raises:
        StoreError: It is no backup, of a newer version, or can't be unpacked; nothing is left of it.
    """
    with _failing(f"unpack {archive}", folder):
        folder.mkdir(mode=0o700, parents=True)
        with tarfile.open(archive, mode="r:") as tar:
            members = tar.getmembers()
            strange = [one.name for one in members if one.name.split("/")[0] not in (MARK, POOL)]
            if strange or MARK not in [one.name for one in members]:
                raise StoreError(f"{archive} is no backup of reme-mcp; one holds {MARK} and {POOL}, and nothing else")
            tar.extractall(folder, filter="data")
        return version(folder)


def replace(home: Path, folder: Path) -> Path | None:
    """Put a folder in the place of a home; return where what was there lies now, or `None` where nothing was.

    Raises:
        StoreError: A folder can't be renamed.
    """
    with _failing(f"put {folder} in the place of {home}", None):
        kept = beside(home, "replaced") if home.exists() else None
        if kept is not None:
            home.rename(kept)
        folder.rename(home)
        return kept


def is_used(home: Path) -> bool:
    """Return whether anything lies in a home."""
    return home.exists() and any(home.iterdir())


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _failing(what: str, leftover: Path | None) -> Iterator[None]:
    try:
        yield
    except BaseException as exc:
        if leftover is not None:
            remove(leftover)
        if isinstance(exc, tarfile.TarError):
            raise StoreError(f"can't {what}: it is no tar archive, or damaged ({exc})") from exc
        if isinstance(exc, OSError):
            raise StoreError(f"can't {what}: {exc.strerror or exc}") from exc
        raise
