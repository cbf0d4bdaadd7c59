"""The vectors of one embedder: their table, and as many of them in memory as fit there.

In:  an open table, and what this process writes into it.
Out: a matrix that has all that any process has added.
Does not know: which model made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import numpy.typing as npt

    from reme_mcp.store.matrix import Matrix

    Vectors = npt.NDArray[np.float32]


class Space:
    """The vector table of one embedder, and what of it is in memory: all rows up to a version of the table."""

    def __init__(self, table: lancedb.AsyncTable, *, max_rows: int) -> None:
        """Make one; with more than `max_rows` rows nothing is kept in memory."""
        self.table = table
        self._max_rows = max_rows
        self._matrix: Matrix | None = None
        self._version = 0
        # Before this process wrote vectors whose places it has not read.
        self._unplaced_after: int | None = None
        self._refreshing = anyio.Lock()

    async def matrix(self) -> Matrix | None:
        """Return the matrix with all that any process has added; `None` where it would be too large."""
        async with self._refreshing:
            version = await self.table.version()
            if version == self._version:
                return self._matrix
            rows = await self.table.count_rows()
            if rows > self._max_rows:
                self._matrix = None
            else:
                self._matrix = await self._read(self._matrix, 0 if self._matrix is None else self._version)
                if len(self._matrix) > rows:
                    # Rows that are gone don't show up as fresh.
                    self._matrix = await self._read(None, 0)
            self._version = version
            return self._matrix

    async def places(self, ids: Sequence[str]) -> list[int] | None:
        """Return where those of `ids` that have vectors stand in the table; `None` where that is not in memory."""
        matrix = await self.matrix()
        if matrix is None:
            return None
        found = matrix.places(ids)
        if -1 in found:
            async with self._refreshing:
                if self._unplaced_after is not None:
                    self._version, self._unplaced_after = min(self._version, self._unplaced_after), None
            found = (await self.matrix() or matrix).places(ids)
        return found

    async def take_in(self, ids: Sequence[str], workspaces: Sequence[str], vectors: Vectors, after: int) -> None:
        """Take in what this process has just written, the next version `after` one, without reading it.

        Args:
            ids: n of them.
            workspaces: Who owns each.
            vectors: In their order, (n, dim) float32, unit norm.
            after: The version that the table had before.
        """
        async with self._refreshing:
            is_next = self._version == after and await self.table.version() == after + 1
            if is_next and self._matrix is not None and len(self._matrix) + len(ids) <= self._max_rows:
                self._matrix.put(ids, workspaces, [-1] * len(ids), vectors)
                self._version = after + 1
                if self._unplaced_after is None:
                    self._unplaced_after = after

    async def _read(self, matrix: Matrix | None, since: int) -> Matrix:
        """Return a matrix with the vectors that were written after a version; a new one where there is none."""
        from reme_mcp.store.matrix import Matrix

        query = self.table.query().select(["id", "workspace", "vector"]).with_row_id()
        # Batch by batch: all of them at once would stand in memory twice more.
        fresh = await query.where(f"_row_last_updated_at_version > {since}").to_batches()
        dim = fresh.schema.field("vector").type.list_size
        matrix = matrix or Matrix(dim)
        async for batch in fresh:
            vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
            ids, workspaces, places = (batch.column(name).to_pylist() for name in ("id", "workspace", "_rowid"))
            matrix.put(ids, workspaces, places, vectors.reshape(-1, dim))
        return matrix
