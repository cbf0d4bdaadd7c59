"""All vectors of one space in memory, searched from the first row to the last.

In:  ids, workspaces, places in the table and unit vectors, in any number of portions.
Out: `(id, cosine)` pairs, best first; the places of some ids.
Does not know: where they come from.

LanceDB's flat search decodes the whole vector column at each query; from the second query on this is faster by an order
of magnitude, up to some hundred thousand rows. `vecdot` reads each row once, in one thread: a product of matrices takes
three times as long at 100,000 rows, and at 10,000 its threads go on spinning for some ten milliseconds after each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", np.float32, np.int32, np.int64)

# Of a row whose id has another vector now.
GONE = -1


class Matrix:
    """A growing (n, dim) float32 matrix with a label for each row. Rows are only ever added."""

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
        self._reserve(len(self._ids) + len(ids))
        for id, workspace, place, vector in zip(ids, workspaces, places, vectors, strict=True):
            if id in self._rows:
                self._owners[self._rows[id]] = GONE
            row = self._rows[id] = len(self._ids)
            self._vectors[row] = vector
            self._owners[row] = self._workspaces.setdefault(workspace, len(self._workspaces))
            self._places[row] = place
            # Last: a search in another thread looks at all that have one.
            self._ids.append(id)

    def places(self, ids: Sequence[str]) -> list[int]:
        """Return the places of those among `ids` that are here."""
        return [int(self._places[self._rows[id]]) for id in ids if id in self._rows]

    def nearest(self, workspace: str, query: npt.NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
        """Return up to `limit` ids of a workspace with their cosine to a query, best first.

        More may be added meanwhile, in another thread.

        Args:
            workspace: Whose.
            query: (dim,) float32, unit norm.
            limit: How many.
        """
        owner = self._workspaces.get(workspace)
        if owner is None:
            return []
        rows = len(self._ids)
        cosines = np.vecdot(self._vectors[:rows], query)
        cosines[self._owners[:rows] != owner] = -np.inf
        top = np.argpartition(-cosines, limit)[:limit] if limit < rows else np.arange(rows)
        top = top[np.argsort(-cosines[top], kind="stable")]
        return [(self._ids[row], float(cosines[row])) for row in top if cosines[row] != -np.inf]

    def _reserve(self, rows: int) -> None:
        """Make room for `rows` rows, by doubling: single additions then cost no copy."""
        if rows > len(self._vectors):
            rows = max(rows, 2 * len(self._vectors))
            self._vectors = _grown(self._vectors, rows)
            self._owners = _grown(self._owners, rows)
            self._places = _grown(self._places, rows)


def _grown(held: npt.NDArray[Number], rows: int) -> npt.NDArray[Number]:
    """Return a copy with room for so many rows; what nobody has written to yet takes no memory."""
    grown: npt.NDArray[Number] = np.empty((rows, *held.shape[1:]), held.dtype)
    grown[: len(held)] = held
    return grown
