"""What a process keeps in memory of all experiences, so that it need not look for them on disk.

In:  places and rows, as they were read; which version of the table that was.
Out: the same.
Does not know: where they come from, or when they are out of date.

To find a row by its id LanceDB looks into every fragment, of which each write leaves one. To take thirty rows whose
places are known takes it 6 ms of 10,000 and 14 of 100,000, as it decodes a page for each column of each row; from
memory it takes 1.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reme_mcp.schema import Experience, Status
from reme_mcp.store.tables import joined

if TYPE_CHECKING:
    import pyarrow as pa

    from reme_mcp.store.inverted_index import InvertedIndex

# Up to this many experiences their rows, words and vectors are kept, at about 5 kB each; above, LanceDB's own
# indexes take over. Places are always kept, at about 0.3 kB each: without them LanceDB would look through all ids at
# each recall.
ROWS_IN_MEMORY = 300_000
# How much of the rows is kept, at about 1 kB each: as Arrow holds them, which is a third of what Python takes.
KEPT_BYTES = 256 * 2**20
MAX_BATCHES = 64
# What is read at once becomes batches of about this size: each that has a row costs a fifth of a millisecond.
BATCH_BYTES = KEPT_BYTES // 8
# How many experiences are kept as they are handed out, at about 3 kB each.
KEPT_READ = 4_096


@dataclass(frozen=True, slots=True)
class Place:
    """Where an experience stands in its table, and what decides whether a search may hand it out.

    Attributes:
        row: `None` while nobody has read it: whoever writes is not told.
    """

    row: int | None
    workspace: str
    status: Status


class Shelf:
    """Rows as they were read; where there are too many, those that came first go."""

    def __init__(self) -> None:
        self._batches: dict[int, pa.RecordBatch] = {}
        self._stands: dict[str, tuple[int, int]] = {}
        # How many rows of a batch are what was put last.
        self._current: Counter[int] = Counter()
        self._next = 0
        self._bytes = 0

    def put(self, batch: pa.RecordBatch) -> None:
        """Keep the rows, each by what stands in its column `id`."""
        if len(self._batches) >= MAX_BATCHES:
            self._tidy()
        self._add(batch)
        while self._bytes > KEPT_BYTES:
            self._remove(next(iter(self._batches)))

    def rows(self, ids: Sequence[str]) -> list[pa.RecordBatch]:
        """Return the rows of those among `ids` that are kept, in any order."""
        wanted: dict[int, list[int]] = defaultdict(list)
        for id in ids:
            batch, index = self._stands.get(id, (-1, 0))
            if batch in self._batches:
                wanted[batch].append(index)
        return [self._batches[batch].take(indices) for batch, indices in wanted.items()]

    def drop(self, id: str) -> None:
        """Forget a row: it is another one now."""
        batch, _ = self._stands.pop(id, (-1, 0))
        if batch in self._batches:
            self._current[batch] -= 1

    def keep(self, ids: Container[str]) -> None:
        """Forget all rows but these."""
        for id in [id for id in self._stands if id not in ids]:
            self.drop(id)

    def clear(self) -> None:
        """Forget all rows."""
        self._batches.clear()
        self._stands.clear()
        self._current.clear()
        self._bytes = 0

    def _add(self, batch: pa.RecordBatch) -> None:
        self._batches[self._next] = batch
        self._current[self._next] = len(batch)
        self._bytes += batch.nbytes
        for index, id in enumerate(batch.column("id").to_pylist()):
            self.drop(id)
            self._stands[id] = self._next, index
        self._next += 1

    def _remove(self, number: int) -> None:
        self._bytes -= self._batches.pop(number).nbytes
        del self._current[number]

    def _tidy(self) -> None:
        """Make one batch of the small ones and of those that are mostly old, without the rows that are."""
        kept = []
        for number, batch in list(self._batches.items()):
            if batch.nbytes > BATCH_BYTES / 2 and self._current[number] > len(batch) / 2:
                continue
            ids = enumerate(batch.column("id").to_pylist())
            if current := [index for index, id in ids if self._stands.get(id) == (number, index)]:
                kept.append(batch.take(current))
            self._remove(number)
        if kept:
            self._add(joined(kept))


@dataclass(slots=True)
class Directory:
    """What is in memory of all experiences.

    Attributes:
        places: By id.
        ids: By the row of the place.
        provisional: The ids of those that are.
        workspaces: The names of all that there have been.
        shelf: Of the rows themselves, those that were read; with `words` all, as far as there is room.
        read: Some of them as they were last handed out, without their counters.
        words: Of all of them, once somebody has had them indexed; they stay when the others are forgotten.
        changes: How often any of this was put or forgotten: what was read before that may be old.
    """

    places: dict[str, Place] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    provisional: set[str] = field(default_factory=set)
    workspaces: set[str] = field(default_factory=set)
    shelf: Shelf = field(default_factory=Shelf)
    read: dict[str, Experience] = field(default_factory=dict)
    words: InvertedIndex | None = None
    changes: int = 0

    def put(self, id: str, place: Place) -> None:
        """Take in where an experience stands now; whatever was read of it is old."""
        self.changes += 1
        self.places[id] = place
        if place.row is not None:
            self.ids[place.row] = id
        self.workspaces.add(place.workspace)
        self.shelf.drop(id)
        self.read.pop(id, None)
        if place.status == "provisional":
            self.provisional.add(id)
        else:
            self.provisional.discard(id)

    def row(self, id: str) -> int | None:
        """Return the place of an experience, `None` where it is not there or nobody has read it."""
        return self.places[id].row if id in self.places else None

    def keep_read(self, experiences: Mapping[str, Experience]) -> None:
        """Keep experiences as they are now; where there would be too many, only these."""
        if len(self.read) + len(experiences) > KEPT_READ:
            self.read.clear()
        self.read |= experiences

    def clear(self) -> None:
        """Forget everything but the words."""
        self.changes += 1
        self.places.clear()
        self.ids.clear()
        self.provisional.clear()
        self.workspaces.clear()
        self.shelf.clear()
        self.read.clear()
