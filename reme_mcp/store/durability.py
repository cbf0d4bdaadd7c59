"""How far each table has come, and which of its files are on the disk.

In:  the folder of a table, after a commit.
Out: files that last; a version beside the table that says what a table must have at least.
Does not know: what stands in the tables.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import anyio

from reme_mcp.atomic import sync

HEAD = ".head"
MAX_HEAD_BYTES = 64
# The system writes back what is so old by itself.
WRITTEN_BACK_S = 120.0
# A file of a transaction is read by whoever commits at the same time, not by who opens the table.
INDICES = "_indices"
OF_A_COMMIT = ("data", "_deletions", INDICES, "_versions")
WRITTEN_BEFORE_COMMIT = ("data", "_deletions", "_transactions")
NEWEST_FIRST = 2**64 - 1


class Head:
    """How far a table, or the ledger, has come: its schema, and the version of the last commit that was told of.

    It stands beside the table, in `<table>.head`. Only its first is synced to the disk: after a power cut it may be
    behind the table, never ahead of it.
    """

    def __init__(self, pool: Path, table: str) -> None:
        self._file = pool / f"{table}{HEAD}"

    def read(self) -> tuple[int, int] | None:
        """Return the schema and the version; `None` where nothing says so.

        Raises:
            OSError: Something may, and can't be read.
        """
        try:
            with self._file.open("rb") as file:
                schema, version = file.read(MAX_HEAD_BYTES).split()
            return int(schema), int(version)
        except (FileNotFoundError, ValueError):
            return None

    def note(self, schema: int, version: int) -> None:
        """Write them down, where what stands there is older.

        Raises:
            OSError: The disk refuses, or what stands there can't be read.
        """
        head = self.read()
        if head is None or head < (schema, version):
            opened = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                # Always of one length, so that it needs no room and can't be torn.
                os.write(opened, f"{schema:06} {version:020}\n".encode())
                if head is None:
                    # The home's mark, which is synced, will name the table: then this must be there, too.
                    os.fsync(opened)
            finally:
                os.close(opened)
            if head is None:
                sync(self._file.parent)

    def forget(self) -> None:
        """Take the table as it is, however far it had come."""
        self._file.unlink(missing_ok=True)


class TableFiles:
    """The files of one of LanceDB's tables.

    LanceDB gives each file its name once it is whole, never changes it afterwards, and never calls `fsync`.
    """

    def __init__(self, pool: Path, table: str) -> None:
        self.head = Head(pool, table)
        self._folder = pool / f"{table}.lance"
        self._synced: set[str] | None = None
        # Held over a write: what a failed one has left can be told from what another has written.
        self.turn = anyio.Lock()

    def settle(self, schema: int, version: int) -> None:
        """Bring to the disk what is new since the last time, whoever wrote it, and note the version.

        A write that is acknowledged may stand on a compaction that is not: the files of both have to last.

        Args:
            schema: What the table is written with.
            version: The one that it has come to.

        Raises:
            OSError: The disk refuses.
        """
        found = self._names(OF_A_COMMIT)
        new = self._recent(found) if self._synced is None else found - self._synced
        for path in (*new, *self._folders_of(new)):
            sync(Path(path))
        self._synced = found
        self.head.note(schema, version)

    @staticmethod
    def _recent(paths: Collection[str]) -> set[str]:
        """Return the files whose writer may have died before it synced them."""
        oldest = time.time() - WRITTEN_BACK_S
        recent = set()
        for path in paths:
            # A compaction may have removed it since.
            with suppress(FileNotFoundError):
                if os.stat(path).st_mtime > oldest:
                    recent.add(path)
        return recent

    def _folders_of(self, paths: Collection[str]) -> set[str]:
        """Return the folders that the files stand in, up to the table's own."""
        of_the_table = str(self._folder)
        found = {of_the_table} if paths else set()
        for path in paths:
            folder = os.path.dirname(path)
            while folder not in found:
                found.add(folder)
                folder = os.path.dirname(folder)
        return found

    def _names(self, parts: Collection[str]) -> set[str]:
        """Return the files of these parts of the table."""
        found: set[str] = set()
        for part in parts:
            folder = os.path.join(self._folder, part)
            if part == INDICES:
                # Those of an index stand in a folder of its own.
                found |= {os.path.join(inner, name) for inner, _, names in os.walk(folder) for name in names}
                continue
            with suppress(FileNotFoundError):
                # Writes wait for this; to tell files from folders would take four times as long.
                found |= {f"{folder}{os.sep}{name}" for name in os.listdir(folder)}
        return found

    def written(self) -> set[str]:
        """Return the files that a write makes before it is committed."""
        return self._names(WRITTEN_BEFORE_COMMIT)

    def newest(self) -> tuple[int, Path] | None:
        """Return the newest version that has a manifest, and that."""
        # LanceDB counts them down from 2^64 - 1, so that the newest comes first.
        names = [file for file in (self._folder / "_versions").glob("*.manifest") if file.stem.isdecimal()]
        return max(((NEWEST_FIRST - int(file.stem), file) for file in names), default=None)

    def set_aside_torn(self) -> bool:
        """Take back the newest commit if nobody was told of it; return whether there was one.

        A power cut leaves one whose files are empty. Its manifest is kept beside the table.
        """
        head, newest = self.head.read(), self.newest()
        if head is None or newest is None or newest[0] <= head[1]:
            return False
        newest[1].replace(self._folder.with_name(f"{self._folder.stem}-{newest[0]}.torn"))
        (self._folder / "_versions" / "latest_version_hint.json").unlink(missing_ok=True)
        return True


def schema_of(pool: Path) -> int:
    """Return the schema that the tables in a folder were written with; the first where nothing says so.

    Raises:
        OSError: What says so can't be read.
    """
    heads = [Head(pool, file.stem).read() for file in pool.glob(f"*{HEAD}")]
    return max((head[0] for head in heads if head is not None), default=1)
