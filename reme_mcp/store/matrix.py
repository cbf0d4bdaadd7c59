"""All vectors of one space in memory, searched from the first row to the last.

In:  ids, workspaces, places in the table and unit vectors, in any number of portions.
Out: `(id, cosine)` pairs, best first; the places of some ids.
Does not know: where they come from.

LanceDB's flat search decodes the whole vector column at each query; from the second query on this is faster by an order
of magnitude, up to some hundred thousand rows. `vecdot` reads each row once, in one thread: a product of matrices takes
three times as long at 100,000 rows, and the threads that it may have go on spinning for milliseconds after each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", np.float32, np.int32, np.int64)

# Of a row whose id has another vector now.
GONE = -1


class View(NamedTuple):
    """The rows as they stood at one moment: whatever is put later, in another thread, is not seen.

    Attributes:
        ids: Of the rows, and of those that have come since.
        vectors: n of them, (n, dim) float32.
        wanted: Which are those of the workspace that is searched.
    """

    ids: Sequence[str]
    vectors: npt.NDArray[np.float32]
    wanted: npt.NDArray[np.bool_]

    def nearest(self, query: npt.NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
        """Return up to `limit` ids with their cosine to a query, (dim,) float32, unit norm, best first."""
        cosines = np.where(self.wanted, np.vecdot(self.vectors, query), -np.inf)
        top = np.argpartition(-cosines, limit)[:limit] if limit < len(cosines) else np.arange(len(cosines))
        top = top[np.argsort(-cosines[top], kind="stable")]
        return [(self.ids[row], float(cosines[row])) for row in top if cosines[row] != -np.inf]


class Matrix:
    """A growing (n, dim) float32 matrix with a label for each row. No row is changed; what is gone goes in time."""

    def __init__(self, dim: int) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []
        self._workspaces: dict[str, int] = {}
        self._vectors = np.empty((0, dim), dtype=np.float32)
        self._owners = np.empty(0, dtype=np.int32)
        self._places = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Return how many ids have a vector."""
        return len(self._rows)

    def put(
        self, ids: Sequence[str], workspaces: Sequence[str], places: Sequence[int], vectors: npt.NDArray[np.float32]
    ) -> None:
        """Add the vectors, (n, dim) float32, unit norm; an id that is there already gets the new one.

        Args:
            ids: n of them.
            workspaces: Who owns each.
            places: Where each stands in its table, -1 where nobody has read it.
            vectors: In their order.
        """
        self._reserve(len(ids))
        for id, workspace, place, vector in zip(ids, workspaces, places, vectors, strict=True):
            if id in self._rows:
                self._owners[self._rows[id]] = GONE
            row = self._rows[id] = len(self._ids)
            self._ids.append(id)
            self._vectors[row] = vector
            self._owners[row] = self._workspaces.setdefault(workspace, len(self._workspaces))
            self._places[row] = place

    def places(self, ids: Sequence[str]) -> list[int]:
        """Return the places of those among `ids` that are here."""
        return [int(self._places[self._rows[id]]) for id in ids if id in self._rows]

    def view(self, workspace: str) -> View:
        """Return what a search of a workspace looks at."""
        rows = len(self._ids)
        return View(self._ids, self._vectors[:rows], self._owners[:rows] == self._workspaces.get(workspace, GONE - 1))

    def _reserve(self, more: int) -> None:
        """Make room for `more` rows, by doubling, so that single additions cost no copy; those that are gone go."""
        if len(self._ids) + more <= len(self._vectors):
            return
        kept = np.flatnonzero(self._owners[: len(self._ids)] != GONE)
        room = len(kept) + max(more, len(kept))
        self._vectors = _moved(self._vectors, kept, room)
        self._owners = _moved(self._owners, kept, room)
        self._places = _moved(self._places, kept, room)
        # A view holds the old list.
        self._ids = [self._ids[row] for row in kept]
        self._rows = {id: row for row, id in enumerate(self._ids)}


def _moved(held: npt.NDArray[Number], kept: npt.NDArray[np.intp], room: int) -> npt.NDArray[Number]:
    """Return a copy of the kept rows in so much room; what nobody has written to yet takes no memory."""
    moved: npt.NDArray[Number] = np.empty((room, *held.shape[1:]), held.dtype)
    # Clipping spares numpy a buffer of the same size.
    np.take(held, kept, axis=0, out=moved[: len(kept)], mode="clip")
    return moved
