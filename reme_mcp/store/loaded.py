"""What a store knows of its experiences without reading them, brought up to date when somebody has written.

In:  the table of experiences, and what this process writes into it.
Out: places, rows and words in memory, as any process has left them.
Does not know: what is searched; vectors.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from reme_mcp.aio import Batcher, let_others_go_first
from reme_mcp.schema import Experience
from reme_mcp.store import cache
from reme_mcp.store.cache import Directory, Place
from reme_mcp.store.feed import Note, unpacked
from reme_mcp.store.ledger import Ledger
from reme_mcp.store.open_tables import OpenTables
from reme_mcp.store.tables import columns_of, joined, mapped
from reme_mcp.text.fields import search_text
from reme_mcp.text.words import TextWords, text_words

if TYPE_CHECKING:
    import pyarrow as pa

# Up to so many that somebody has just written are taken by their places, which costs less than a scan for few.
READ_BY_PLACE = 500
# So many texts are indexed before somebody else has a turn: about ten milliseconds.
INDEXED_AT_ONCE = 50
# Where words are not in memory, those of so many texts are remembered, at about 10 kB each: those of one topic come up
# again and again.
REMEMBERED_TEXTS = 512
WORD_COLUMNS = ("id", "workspace", "status", "search_text")

_text_words = functools.lru_cache(maxsize=REMEMBERED_TEXTS)(text_words)


class LoadedExperiences:
    """The experiences in memory of one store, which is one of these."""

    _tables: OpenTables
    _ledger: Ledger
    _directory: Directory
    _refreshing: anyio.Lock
    _new_places: Batcher[None]

    async def index_words(self) -> None:
        """Have full-text search answer from memory from now on, where there is room; three seconds for 10,000."""
        if await self._places() is None or self._directory.words is not None:
            return
        from reme_mcp.store.inverted_index import InvertedIndex

        words = InvertedIndex()
        with mapped("read experiences"):
            table = self._tables["experiences"]
            version = await table.version()
            async for batch in await table.query().select(list(WORD_COLUMNS)).to_batches():
                for start in range(0, batch.num_rows, INDEXED_AT_ONCE):
                    await let_others_go_first()
                    some = batch.slice(start, INDEXED_AT_ONCE)
                    words.put(*(some.column(name).to_pylist() for name in WORD_COLUMNS))
        async with self._refreshing:
            if not self._directory.is_too_large:
                words.keep(self._directory.places)
                self._directory.words = words
                # What was written since is read once more, with its words.
                self._directory.read_version = min(self._directory.read_version, version)
                self._directory.has_to_read = True

    def words_of(self, experience: Experience) -> TextWords:
        """Return the words by which an experience is compared that was just read; mostly they are in memory."""
        words = self._directory.words
        return (words.words_of(experience.id) if words is not None else None) or _text_words(search_text(experience))

    async def _places(self) -> dict[str, Place] | None:
        """Return where every experience stands, as any process has left it; `None` where there are too many."""
        await self._new_places.submit()
        return None if self._directory.is_too_large else self._directory.places

    async def _refresh_places(self, _: list[None]) -> None:
        """Bring the directory up to date, from the ledger's feed where it says enough, and from the table otherwise."""
        directory = self._directory
        with mapped("read experiences"):
            # Asked before the table is read, which then has at least what was told of.
            news = self._ledger.news("experiences", directory.told_until)
            if not (news.is_complete and self._take_in_notes(news.notes)):
                version = await self._tables["experiences"].version()
                if version != directory.version or directory.has_to_read:
                    await self._read_table(version)
            directory.told_until = news.until

    def _take_in_notes(self, notes: Sequence[Note]) -> bool:
        """Take in what the feed has told of; return whether that was all, or the table has to be read."""
        directory = self._directory
        if directory.has_to_read or (notes and directory.is_too_large):
            return False
        for note in notes:
            if note.version > directory.version + 1:
                # Somebody has committed in between who told nobody.
                return False
            if note.version > directory.version:
                batches = unpacked(note)
                if len(directory.places) + sum(map(len, batches)) > cache.ROWS_IN_MEMORY:
                    return False
                self._take_in_rows(batches, note.version)
        return True

    async def _read_table(self, version: int) -> None:
        """Read what is new in the table, which has come to a version."""
        directory = self._directory
        rows = await self._tables["experiences"].count_rows()
        was_too_large, directory.is_too_large = directory.is_too_large, rows > cache.ROWS_IN_MEMORY
        if was_too_large or directory.is_too_large:
            directory.clear()
        if directory.is_too_large:
            directory.words = None
        else:
            await self._read_places(with_rows=rows <= cache.ROWS_READ_AHEAD)
            if len(directory.places) > rows:
                # Rows that are gone don't show up as fresh.
                directory.clear()
                await self._read_places(with_rows=rows <= cache.ROWS_READ_AHEAD)
                if directory.words is not None:
                    directory.words.keep(directory.places)
        directory.version = directory.read_version = version
        directory.has_to_read = False

    async def _read_places(self, *, with_rows: bool) -> None:
        """Take in the experiences that were written since the table was read."""
        words, shelf = self._directory.words, self._directory.shelf
        read: list[pa.RecordBatch] = []
        columns = columns_of(Experience) if with_rows else ["id", "workspace", "status"]
        async for batch in self._fresh(columns if words is None else [*columns, "search_text"]):
            ids, workspaces, statuses, rows = (
                batch.column(name).to_pylist() for name in ("id", "workspace", "status", "_rowid")
            )
            for id, workspace, status, row in zip(ids, workspaces, statuses, rows, strict=True):
                self._directory.put(id, Place(row, sys.intern(workspace), status))
            if words is not None:
                texts = batch.column("search_text").to_pylist()
                for start in range(0, len(ids), INDEXED_AT_ONCE):
                    part = slice(start, start + INDEXED_AT_ONCE)
                    words.put(ids[part], workspaces[part], statuses[part], texts[part])
                    await anyio.lowlevel.checkpoint()
            if with_rows:
                read.append(batch.select(columns))
                if sum(part.nbytes for part in read) > cache.BATCH_BYTES:
                    shelf.put(joined(read))
                    read.clear()
        if read:
            shelf.put(joined(read))

    async def _fresh(self, columns: Sequence[str]) -> AsyncIterator[pa.RecordBatch]:
        """Return the rows of experiences that were written since the table was read."""
        import pyarrow as pa

        table, version = self._tables["experiences"], self._directory.read_version
        is_fresh = f"_row_last_updated_at_version > {version}"
        if version:
            # To look for them in a narrow column, and take the others then, costs half as much.
            found = await table.query().select(["id"]).with_row_id().where(is_fresh).limit(READ_BY_PLACE).to_arrow()
            if len(found) < READ_BY_PLACE:
                rows = dict(zip(*(found.column(name).to_pylist() for name in ("id", "_rowid")), strict=True))
                taken = table.take_row_ids(list(rows.values())).select(list(columns))
                for batch in (await taken.to_arrow()).to_batches() if rows else []:
                    places = [rows[id] for id in batch.column("id").to_pylist()]
                    yield batch.append_column("_rowid", pa.array(places))
                return
        async for batch in await table.query().select(list(columns)).with_row_id().where(is_fresh).to_batches():
            yield batch

    async def _place_all(self) -> None:
        """Read where everything stands that was taken in without a look into the table: somebody needs its place."""
        if self._has_unplaced():
            self._directory.has_to_read = True
        await self._places()

    def _has_unplaced(self) -> bool:
        return self._directory.read_version < self._directory.version

    async def _take_in(self, rows: pa.Table, *, before: int, after: int) -> None:
        """Take in what this process has just written, from one version of the table to another, without reading it.

        Whatever else was written is read at the next refresh.
        """
        if self._ledger.has_feed:
            # Who holds the pool is told of all that was written before; and nobody else tells of this.
            await self._places()
        async with self._refreshing:
            directory = self._directory
            is_next = directory.version == before and after == before + 1
            has_room = not directory.is_too_large and len(directory.places) + len(rows) <= cache.ROWS_IN_MEMORY
            if is_next and has_room and not directory.has_to_read:
                self._take_in_rows(rows.to_batches(), after)
            else:
                directory.has_to_read = True

    def _take_in_rows(self, batches: Sequence[pa.RecordBatch], version: int) -> None:
        """Take in rows with which the table has come to a version, and which stand nobody knows where."""
        directory, columns = self._directory, columns_of(Experience)
        for batch in batches:
            ids, workspaces, statuses, texts = (batch.column(name).to_pylist() for name in WORD_COLUMNS)
            for id, workspace, status in zip(ids, workspaces, statuses, strict=True):
                directory.put(id, Place(None, sys.intern(workspace), status))
            if directory.words is not None:
                directory.words.put(ids, workspaces, statuses, texts)
            directory.shelf.put(batch.select(columns))
        directory.version = version
