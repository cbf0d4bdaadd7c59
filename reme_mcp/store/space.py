"""The vectors of one embedder: their table, and as many of them in memory as fit there.

In:  an open table.
Out: a matrix that has all that any process has added.
Does not know: which model made them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    import lancedb

    from reme_mcp.store.matrix import Matrix


class Space:
    """The vector table of one embedder, and what of it is in memory: all rows up to a version of the table."""

    def __init__(self, table: lancedb.AsyncTable, *, max_rows: int) -> None:
        """Make one; with more than `max_rows` rows nothing is kept in memory."""
        self.table = table
        self._max_rows = max_rows
        self._matrix: Matrix | None = None
        self._version = 0
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
