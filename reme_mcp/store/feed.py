"""What the processes on one home tell each other of their writes into LanceDB's tables.

In:  rows as Arrow holds them.
Out: the same, as they stand in the ledger for whoever asks there.
Does not know: who asks, or what the rows mean.

To find out from a table what others have written takes a process ten milliseconds a commit, in eight processes seven
times. So whoever commits writes a note of it into the ledger, in the transaction that acknowledges what it has done,
and before the commit an announcement: where one stays, its writer has died, and nobody knows what it has left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

# What is larger is looked for in the table, which costs little a row then.
MAX_NOTE_BYTES = 64 * 1024
# So many notes are kept, announcements counted; who has missed more looks into the table.
KEPT_NOTES = 300


@dataclass(frozen=True, slots=True)
class Note:
    """What one commit has written into one table.

    Attributes:
        table: Its name.
        version: Of the table, after the commit.
        rows: What was written; empty where it has to be looked for in the table: rows may be gone, or there are many.
    """

    table: str
    version: int
    rows: bytes = b""


@dataclass(frozen=True, slots=True)
class Announce:
    """Somebody is about to commit."""


@dataclass(frozen=True, slots=True)
class Tell:
    """Somebody has committed; the announcement goes. `is_all`: so do all earlier notes, with what stands in them."""

    notes: Sequence[Note]
    is_all: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """What there is to know of a table since the last time.

    Attributes:
        until: What to ask from the next time.
        notes: Of the commits, the earliest first.
        is_complete: Whether these are all, and rows stand in each; if not, only the table knows.
    """

    until: int
    notes: Sequence[Note]
    is_complete: bool


def packed(rows: pa.Table) -> bytes:
    """Return rows as a note keeps them; nothing where they are too many."""
    import pyarrow as pa

    if rows.nbytes > MAX_NOTE_BYTES:
        return b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as stream:
        stream.write_table(rows)
    return bytes(sink.getvalue())


def unpacked(note: Note) -> list[pa.RecordBatch]:
    """Return the rows of a note."""
    import pyarrow as pa

    with pa.ipc.open_stream(note.rows) as stream:
        return list(stream)
