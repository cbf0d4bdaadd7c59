"""The vectors of one embedder: their table, and as many of them in memory as fit there.

In:  an open table, and what this process writes into it.
Out: a matrix that has all that any process has added.
Does not know: which model made them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from reme_mcp.store.feed import Note, unpacked
from reme_mcp.store.ledger import Ledger
from reme_mcp.store.tables import is_in

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from reme_mcp.store.matrix import Matrix

    Vectors = npt.NDArray[np.float32]


# Of so many that were taken in without a look into the table, the lesson vectors are kept, at 1.5 kB each.
KEPT_LESSONS = 1_024


class Space:
    """The vector table of one embedder, and what of it is in memory: all rows up to a version of the table."""

    def __init__(self, table: lancedb.AsyncTable, ledger: Ledger, *, max_rows: int) -> None:
        """Make one; with more than `max_rows` rows nothing is kept in memory."""
        self.table = table
        self._ledger = ledger
        self._max_rows = max_rows
        self._matrix: Matrix | None = None
        # What was taken in after the version that was read last stands nobody knows where.
        self._version = self._read_version = 0
        self._has_to_read = True
        self._told_until = 0
        self._lessons: dict[str, Vectors] = {}
        self._refreshing = anyio.Lock()

    async def matrix(self) -> Matrix | None:
        """Return the matrix with all that any process has added; `None` where it would be too large."""
        async with self._refreshing:
            # Asked before the table is read, which then has at least what was told of.
            news = self._ledger.news(self.table.name, self._told_until)
            if not (news.is_complete and self._take_in_notes(news.notes)):
                version = await self.table.version()
                if version != self._version or self._has_to_read:
                    await self._read_table(version)
            self._told_until = news.until
            return self._matrix

    async def lessons(self, ids: Sequence[str]) -> dict[str, Vectors]:
        """Return the lesson vectors, (dim,) float32, unit norm, of those among `ids` that have one, by id."""
        matrix = await self.matrix()
        known = {id: self._lessons[id] for id in ids if id in self._lessons}
        missing = [id for id in ids if id not in known]
        places = [] if matrix is None else matrix.places(missing)
        if -1 in places:
            async with self._refreshing:
                self._has_to_read = True
            matrix = await self.matrix()
            places = [] if matrix is None else matrix.places(missing)
        if matrix is None:
            found = await self.table.query().where(is_in("id", missing)).select(["id", "lesson"]).to_arrow()
        elif places:
            found = await self.table.take_row_ids(places).select(["id", "lesson"]).to_arrow()
        else:
            return known
        return known | dict(zip(found.column("id").to_pylist(), _vectors(found.column("lesson")), strict=True))

    async def take_in(self, rows: pa.Table, *, before: int, after: int) -> None:
        """Take in what this process has just written, from one version to another, without reading it."""
        if self._ledger.has_feed:
            # Who holds the pool is told of all that was written before; and nobody else tells of this.
            await self.matrix()
        async with self._refreshing:
            is_next = self._version == before and after == before + 1
            if not (is_next and not self._has_to_read and self._take_in_rows(rows.to_batches(), after)):
                self._has_to_read = True

    def _take_in_notes(self, notes: Sequence[Note]) -> bool:
        """Take in what the feed has told of; return whether that was all, or the table has to be read."""
        if self._has_to_read:
            return False
        fresh = [note for note in notes if note.version > self._version]
        # Where there is one in between, somebody has committed who told nobody.
        return all(
            note.version == self._version + 1 and self._take_in_rows(unpacked(note), note.version) for note in fresh
        )

    def _take_in_rows(self, batches: Sequence[pa.RecordBatch], version: int) -> bool:
        """Take in rows with which the table has come to a version; return whether there was room for them."""
        if self._matrix is None or len(self._matrix) + sum(map(len, batches)) > self._max_rows:
            return False
        for batch in batches:
            ids, workspaces = (batch.column(name).to_pylist() for name in ("id", "workspace"))
            self._matrix.put(ids, workspaces, [-1] * len(ids), _vectors(batch.column("vector")))
            if len(self._lessons) > KEPT_LESSONS:
                self._lessons.clear()
            self._lessons |= dict(zip(ids, _vectors(batch.column("lesson")), strict=True))
        self._version = version
        return True

    async def _read_table(self, version: int) -> None:
        """Read what is new in the table, which has come to a version."""
        rows = await self.table.count_rows()
        self._lessons.clear()
        if rows > self._max_rows:
            self._matrix = None
        else:
            self._matrix = await self._read(self._matrix, 0 if self._matrix is None else self._read_version)
            if len(self._matrix) > rows:
                # Rows that are gone don't show up as fresh.
                self._matrix = await self._read(None, 0)
        self._version = self._read_version = version
        self._has_to_read = False

    async def _read(self, matrix: Matrix | None, since: int) -> Matrix:
        """Return a matrix with the vectors that were written after a version; a new one where there is none."""
        from reme_mcp.store.matrix import Matrix

        query = self.table.query().select(["id", "workspace", "vector"]).with_row_id()
        # Batch by batch: all of them at once would stand in memory twice more.
        fresh = await query.where(f"_row_last_updated_at_version > {since}").to_batches()
        dim = fresh.schema.field("vector").type.list_size
        matrix = matrix or Matrix(dim)
        async for batch in fresh:
            ids, workspaces, places = (batch.column(name).to_pylist() for name in ("id", "workspace", "_rowid"))
            matrix.put(ids, workspaces, places, _vectors(batch.column("vector")))
        return matrix


def _vectors(column: pa.Array | pa.ChunkedArray) -> Vectors:
    """Return a column of n vectors as (n, dim) float32."""
    import pyarrow as pa

    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    vectors: Vectors = whole.flatten().to_numpy(zero_copy_only=False)
    return vectors.reshape(-1, column.type.list_size)
