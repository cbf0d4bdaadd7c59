"""Files that are written whole or not at all, and are on the disk before anybody is told that they are there.

In:  paths and bytes.
Out: files that a power cut leaves as they were or as they are; nothing in between.
Does not know: what stands in them.

`fsync` of a file brings its bytes to the disk, `fsync` of its folder brings its name there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write(path: Path, content: bytes, *, lasting: bool = True) -> None:
    """Replace a file so that a reader, and whoever looks after a power cut, sees all of it or what was there before.

    Only its owner may read it. One that is not `lasting` waits for no disk, and a power cut may take it.

    Raises:
        OSError: It can't be written; it is as it was.
    """
    with replacing(path, lasting=lasting) as part:
        create(part, content)


@contextmanager
def replacing(path: Path, *, lasting: bool = True) -> Iterator[Path]:
    """Give a path beside a file; what is written there takes the file's place at the end, or is gone after an error.

    Raises:
        OSError: It can't be written; the file is as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        if lasting:
            sync(part)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    if lasting:
        sync(path.parent)


def create(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a new file that is never readable by more people than `mode` says, not even for a moment.

    Raises:
        OSError: It can't be written.
    """
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk; one that is gone needs it no more."""
    try:
        # Windows syncs only what may be written.
        opened = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    except FileNotFoundError:
        return
    except PermissionError:
        if os.name != "nt":
            raise
        # Windows opens no folder, and needs no such call for its names.
        return
    try:
        os.fsync(opened)
    except OSError as exc:
        # Some file systems know no such call for a folder.
        if exc.errno != errno.EINVAL:
            raise
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """Bring all that is in a folder to the disk."""
    for root, _, files in os.walk(folder):
        for name in files:
            sync(Path(root, name))
        sync(Path(root))
