"""What a process keeps in memory of all experiences, so that it need not look for them on disk.

In:  places and rows, as they were read; which version of the table that was.
Out: the same.
Does not know: where they come from, or when they are out of date.

To find a row by its id LanceDB looks into every fragment, of which each write leaves one. To take thirty rows whose
places are known takes it 6 ms, as it decodes a page for each column of each row; from memory it takes 2.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reme_mcp.schema import Status
from reme_mcp.store.tables import joined

if TYPE_CHECKING:
    import pyarrow as pa

# How much of the rows is kept, at about 1.5 kB each: as Arrow holds them, which is a third of what Python takes.
KEPT_BYTES = 32 * 2**20
MAX_BATCHES = 64


@dataclass(frozen=True, slots=True)
class Place:
    """Where an experience stands in its table, and what decides whether a search may hand it out."""

    row: int
    workspace: str
    status: Status


class Shelf:
    """Rows as they were read; where there are too many, those that came first go."""

    def __init__(self) -> None:
        self._batches: dict[int, pa.RecordBatch] = {}
        self._stands: dict[str, tuple[int, int]] = {}
        self._next = 0
        self._bytes = 0

    def put(self, batch: pa.RecordBatch) -> None:
        """Keep the rows, each by what stands in its column `id`."""
        if len(self._batches) >= MAX_BATCHES:
            self._tidy()
        self._add(batch)
        while self._bytes > KEPT_BYTES:
            self._bytes -= self._batches.pop(next(iter(self._batches))).nbytes

    def rows(self, ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Return the rows of those among `ids` that are kept, by id."""
        wanted: dict[int, list[int]] = defaultdict(list)
        for id in ids:
            batch, index = self._stands.get(id, (-1, 0))
            if batch in self._batches:
                wanted[batch].append(index)
        rows = (row for batch, indices in wanted.items() for row in self._batches[batch].take(indices).to_pylist())
        return {row["id"]: row for row in rows}

    def drop(self, id: str) -> None:
        """Forget a row: it is another one now."""
        self._stands.pop(id, None)

    def clear(self) -> None:
        """Forget all rows."""
        self._batches.clear()
        self._stands.clear()
        self._bytes = 0

    def _add(self, batch: pa.RecordBatch) -> None:
        self._batches[self._next] = batch
        self._bytes += batch.nbytes
        for index, id in enumerate(batch.column("id").to_pylist()):
            self._stands[id] = self._next, index
        self._next += 1

    def _tidy(self) -> None:
        """Make one batch of all, without the rows that are other ones now."""
        kept: dict[int, list[int]] = defaultdict(list)
        for batch, index in self._stands.values():
            kept[batch].append(index)
        parts = [batch.take(kept[number]) for number, batch in self._batches.items() if kept[number]]
        self.clear()
        if parts:
            self._add(joined(parts))


@dataclass(slots=True)
class Directory:
    """What is in memory of all experiences, up to `version` of the table.

    Attributes:
        places: By id.
        ids: By the row of the place.
        provisional: The ids of those that are.
        workspaces: The names of all that there have been.
        shelf: Of the rows themselves, those that were read.
        is_too_large: Whether there are too many to keep their places; then nothing is kept.
    """

    places: dict[str, Place] = field(default_factory=dict)
    ids: dict[int, str] = field(default_factory=dict)
    provisional: set[str] = field(default_factory=set)
    workspaces: set[str] = field(default_factory=set)
    shelf: Shelf = field(default_factory=Shelf)
    is_too_large: bool = False
    version: int = 0

    def put(self, id: str, place: Place) -> None:
        """Take in where an experience stands now; whatever was read of it is old."""
        self.places[id] = place
        self.ids[place.row] = id
        self.workspaces.add(place.workspace)
        self.shelf.drop(id)
        if place.status == "provisional":
            self.provisional.add(id)
        else:
            self.provisional.discard(id)

    def clear(self) -> None:
        """Forget everything, the version too: whoever is interrupted after this starts anew."""
        self.places.clear()
        self.ids.clear()
        self.provisional.clear()
        self.workspaces.clear()
        self.shelf.clear()
        self.version = 0


class Matrix:
    """A growing (n, dim) float32 matrix with a label for each row."""

    def __init__(self, dim: int) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []
        self._workspaces: dict[str, int] = {}
        self._vectors = np.empty((0, dim), dtype=np.float32)
        self._owners = np.empty(0, dtype=np.int32)
        self._places = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Return how many vectors it holds."""
        return len(self._ids)

    def put(
        self, ids: Sequence[str], workspaces: Sequence[str], places: Sequence[int], vectors: npt.NDArray[np.float32]
    ) -> None:
        """Add the vectors, (n, dim) float32, unit norm; an id that is there already gets the new one.

        Args:
            ids: n of them.
            workspaces: Who owns each.
            places: Where each stands in its table.
            vectors: In their order.
        """
        self._reserve(len(self._ids) + len(ids))
        for id, workspace, place, vector in zip(ids, workspaces, places, vectors, strict=True):
            row = self._rows.get(id)
            if row is None:
                row = self._rows[id] = len(self._ids)
                self._ids.append(id)
            self._vectors[row] = vector
            self._owners[row] = self._workspaces.setdefault(workspace, len(self._workspaces))
            self._places[row] = place

    def places(self, ids: Sequence[str]) -> list[int]:
        """Return the places of those among `ids` that are here."""
        return [int(self._places[self._rows[id]]) for id in ids if id in self._rows]

    def nearest(self, workspace: str, vector: npt.NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
        """Return up to `limit` ids of `workspace` with their cosine to `vector`, best first."""
        owner = self._workspaces.get(workspace)
        if owner is None:
            return []
        cosines = self._vectors[: len(self._ids)] @ vector
        cosines[self._owners[: len(self._ids)] != owner] = -np.inf
        top = np.argpartition(-cosines, limit)[:limit] if limit < len(cosines) else np.arange(len(cosines))
        top = top[np.argsort(-cosines[top], kind="stable")]
        return [(self._ids[row], float(cosines[row])) for row in top if cosines[row] != -np.inf]

    def _reserve(self, rows: int) -> None:
        """Make room for `rows` rows, by doubling: single additions then cost no copy."""
        if rows > len(self._vectors):
            more = max(rows, 2 * len(self._vectors)) - len(self._vectors)
            self._vectors = np.concatenate([self._vectors, np.empty((more, self._vectors.shape[1]), dtype=np.float32)])
            self._owners = np.concatenate([self._owners, np.empty(more, dtype=np.int32)])
            self._places = np.concatenate([self._places, np.empty(more, dtype=np.int64)])
