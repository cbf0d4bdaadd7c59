"""All vectors of one space in memory, searched by one matrix product.

In:  ids, workspaces, places in the table and unit vectors, in any number of portions.
Out: `(id, cosine)` pairs, best first; the places of some ids.
Does not know: where they come from.

LanceDB's flat search decodes the whole vector column at each query; from the second query on this is faster by an order
of magnitude, up to some hundred thousand rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", np.float32, np.int32, np.int64)


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
            places: Where each stands in its table, -1 where nobody has read it.
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

    def cosines(self, queries: Sequence[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Return the cosine of each of k queries, (dim,) float32, unit norm, to each of n vectors, (k, n) float32."""
        found: npt.NDArray[np.float32] = np.stack(queries) @ self._vectors[: len(self._ids)].T
        return found

    def nearest(self, workspace: str, cosines: npt.NDArray[np.float32], limit: int) -> list[tuple[str, float]]:
        """Return up to `limit` ids of `workspace` with their cosine, best first.

        Args:
            workspace: Whose.
            cosines: Of one query, a row of what `cosines` returns; those of other workspaces are overwritten.
            limit: How many.
        """
        owner = self._workspaces.get(workspace)
        if owner is None:
            return []
        cosines[self._owners[: len(self._ids)] != owner] = -np.inf
        top = np.argpartition(-cosines, limit)[:limit] if limit < len(cosines) else np.arange(len(cosines))
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
