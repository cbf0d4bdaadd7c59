"""The vectors of one embedder: their table, and as many of them in memory as fit there.

In:  an open table, and what this process writes into it.
Out: a matrix that has all that any process has added.
Does not know: which model made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio.to_thread

from reme_mcp.store.following import Following
from reme_mcp.store.ledger import Ledger
from reme_mcp.store.tables import give_back_freed, is_in

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from reme_mcp.store.matrix import Matrix

    Vectors = npt.NDArray[np.float32]


# LanceDB holds about ten batches of vectors while it reads, .8 MB each.
READ_AT_ONCE = 512
# Of so many that were taken in without a look into the table, the lesson vectors are kept, at 1.5 kB each.
KEPT_LESSONS = 1_024
# So many rows take a millisecond and a half; to hand them to a thread would cost as much where many calls wait.
SEARCHED_IN_PLACE = 30_000


class Space:
    """The vector table of one embedder, and what of it is in memory."""

    def __init__(self, table: lancedb.AsyncTable, ledger: Ledger, *, max_rows: int) -> None:
        """Make one; with more than `max_rows` rows nothing is kept in memory."""
        self.table = table
        self._max_rows = max_rows
        self._matrix: Matrix | None = None
        self._lessons: dict[str, Vectors] = {}
        self._following = Following(table, ledger, take_in=self._take_in_rows, read=self._read_new)

    async def nearest(self, workspace: str, vector: Vectors, limit: int) -> list[tuple[str, float]] | None:
        """Return up to `limit` ids of a workspace with their cosine to a vector, best first.

        `None` where the matrix would be too large to be kept.
        """
        await self._following.catch_up()
        matrix = self._matrix
        if matrix is None:
            return None
        search = partial(matrix.view(workspace).nearest, vector, limit)
        # In a thread, other calls go on.
        return search() if len(matrix) <= SEARCHED_IN_PLACE else await anyio.to_thread.run_sync(search)

    async def lessons(self, ids: Sequence[str]) -> dict[str, Vectors]:
        """Return the lesson vectors, (dim,) float32, unit norm, of those among `ids` that have one, by id."""
        await self._following.catch_up()
        known = {id: self._lessons[id] for id in ids if id in self._lessons}
        missing = [id for id in ids if id not in known]
        if self._matrix is not None and -1 in self._matrix.places(missing):
            await self._following.place_all()
        if self._matrix is None:
            found = await self.table.query().where(is_in("id", missing)).select(["id", "lesson"]).to_arrow()
        elif places := [place for place in self._matrix.places(missing) if place >= 0]:
            found = await self.table.take_row_ids(places).select(["id", "lesson"]).to_arrow()
        else:
            return known
        return known | dict(zip(found.column("id").to_pylist(), _vectors(found.column("lesson")), strict=True))

    async def wrote(self, rows: pa.Table, *, before: int, after: int) -> None:
        """Take in what this process has just written, from one version to another, without reading it."""
        await self._following.wrote(rows, before=before, after=after)

    def _take_in_rows(self, batches: Sequence[pa.RecordBatch]) -> bool:
        """Take in rows that stand nobody knows where; return whether there was room for them."""
        if self._matrix is None or len(self._matrix) + sum(map(len, batches)) > self._max_rows:
            return False
        for batch in batches:
            ids, workspaces = (batch.column(name).to_pylist() for name in ("id", "workspace"))
            self._matrix.put(ids, workspaces, [-1] * len(ids), _vectors(batch.column("vector")))
            if len(self._lessons) > KEPT_LESSONS:
                self._lessons.clear()
            self._lessons |= dict(zip(ids, _vectors(batch.column("lesson")), strict=True))
        return True

    async def _read_new(self) -> None:
        """Read what is new in the table."""
        rows = await self.table.count_rows()
        self._lessons.clear()
        if rows > self._max_rows:
            self._matrix = None
        else:
            self._matrix = await self._read(self._matrix, 0 if self._matrix is None else self._following.read_version)
            if len(self._matrix) > rows:
                # Rows that are gone don't show up as fresh.
                self._matrix = await self._read(None, 0)

    async def _read(self, matrix: Matrix | None, since: int) -> Matrix:
        """Return a matrix with the vectors that were written after a version; a new one where there is none."""
        from reme_mcp.store.matrix import Matrix

        query = self.table.query().select(["id", "workspace", "vector"]).with_row_id()
        if since:
            query = query.where(f"_row_last_updated_at_version > {since}")
        # Batch by batch: all of them at once would stand in memory twice more.
        fresh = await query.to_batches(max_batch_length=READ_AT_ONCE)
        dim = fresh.schema.field("vector").type.list_size
        matrix = matrix or Matrix(dim)
        async for batch in fresh:
            ids, workspaces, places = (batch.column(name).to_pylist() for name in ("id", "workspace", "_rowid"))
            matrix.put(ids, workspaces, places, _vectors(batch.column("vector")))
        if not since:
            await give_back_freed()
        return matrix


def _vectors(column: pa.Array | pa.ChunkedArray) -> Vectors:
    """Return a column of n vectors as (n, dim) float32."""
    import pyarrow as pa

    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    vectors: Vectors = whole.flatten().to_numpy(zero_copy_only=False)
    return vectors.reshape(-1, column.type.list_size)
