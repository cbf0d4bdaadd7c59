"""What a store knows of its experiences without reading them, brought up to date when somebody has written.

In:  the table of experiences, and what this process writes into it.
Out: places, rows and words in memory, as any process has left them.
Does not know: what is searched; vectors.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from reme_mcp.aio import let_others_go_first
from reme_mcp.schema import Experience
from reme_mcp.store import cache
from reme_mcp.store.cache import Directory, Place, Shelf
from reme_mcp.store.following import Following
from reme_mcp.store.open_tables import OpenTables
from reme_mcp.store.tables import columns_of, give_back_freed, joined, mapped
from reme_mcp.text.fields import search_text
from reme_mcp.text.words import TextWords, text_words

if TYPE_CHECKING:
    import pyarrow as pa

    from reme_mcp.store.inverted_index import InvertedIndex

# Up to so many that somebody has just written are taken by their places, which costs less than a scan for few.
READ_BY_PLACE = 500
# LanceDB's own batches are a thousand rows each: to hand them over takes longer than to read them.
READ_AT_ONCE = 4_096
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
    _directory: Directory
    _following: Following

    async def load_all(self) -> None:
        """Have rows and full-text search come from memory from now on, where there is room; 3 s for 10,000."""
        if len(await self._places()) > cache.ROWS_IN_MEMORY or self._directory.words is not None:
            return
        from reme_mcp.store.inverted_index import InvertedIndex

        words, shelf = InvertedIndex(), Shelf()
        columns = columns_of(Experience)
        with mapped("read experiences"):
            table = self._tables["experiences"]
            version = await table.version()
            query = table.query().select([*columns, "search_text"])

            async def indexed() -> AsyncIterator[pa.RecordBatch]:
                """Index what is read, and return it without the texts for that: they need not wait for a portion."""
                async for batch in await query.to_batches(max_batch_length=READ_AT_ONCE):
                    await _index(words, batch, pause=let_others_go_first)
                    yield batch.select(columns)

            async for batch in _portions(indexed()):
                shelf.put(batch)
        async with self._following.turn:
            words.keep(self._directory.places)
            shelf.keep(self._directory.places)
            self._directory.words, self._directory.shelf = words, shelf
            # With its words.
            self._following.read_later(since=version)
        await give_back_freed()

    def words_of(self, experience: Experience) -> TextWords:
        """Return the words by which an experience is compared that was just read; mostly they are in memory."""
        words = self._directory.words
        return (words.words_of(experience.id) if words is not None else None) or _text_words(search_text(experience))

    async def _places(self) -> dict[str, Place]:
        """Return where every experience stands, as any process has left it."""
        await self._following.catch_up()
        return self._directory.places

    async def _read_new(self) -> None:
        """Read what is new in the table."""
        directory = self._directory
        rows = await self._tables["experiences"].count_rows()
        self._make_room(rows)
        await self._read_places()
        if len(directory.places) > rows:
            # Rows that are gone don't show up as fresh.
            self._forget()
            await self._read_places()
            if directory.words is not None:
                directory.words.keep(directory.places)

    def _make_room(self, rows: int) -> None:
        """Keep no words where there will be too many rows."""
        if rows > cache.ROWS_IN_MEMORY:
            self._directory.words = None

    def _forget(self) -> None:
        """Forget everything, and how far it was read, so that whoever is interrupted after this starts anew."""
        self._directory.clear()
        self._following.read_version = 0

    async def _read_places(self) -> None:
        """Take in the experiences that were written since the table was read, whole ones where all are kept."""
        words, shelf = self._directory.words, self._directory.shelf
        columns = columns_of(Experience)
        wanted = ["id", "workspace", "status"] if words is None else [*columns, "search_text"]
        async for batch in _portions(self._fresh(wanted)):
            ids, workspaces, statuses, rows = (
                batch.column(name).to_pylist() for name in ("id", "workspace", "status", "_rowid")
            )
            for id, workspace, status, row in zip(ids, workspaces, statuses, rows, strict=True):
                self._directory.put(id, Place(row, sys.intern(workspace), status))
            if words is not None:
                await _index(words, batch, pause=anyio.lowlevel.checkpoint)
                shelf.put(batch.select(columns))

    async def _fresh(self, columns: Sequence[str]) -> AsyncIterator[pa.RecordBatch]:
        """Return the rows of experiences that were written since the table was read."""
        import pyarrow as pa

        table, version = self._tables["experiences"], self._following.read_version
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
        query = table.query().select(list(columns)).with_row_id()
        if version:
            query = query.where(is_fresh)
        async for batch in await query.to_batches(max_batch_length=READ_AT_ONCE):
            yield batch

    def _take_in_rows(self, batches: Sequence[pa.RecordBatch]) -> bool:
        """Take in rows that stand nobody knows where; return that there was room for them."""
        directory, columns = self._directory, columns_of(Experience)
        self._make_room(len(directory.places) + sum(map(len, batches)))
        for batch in batches:
            ids, workspaces, statuses, texts = (batch.column(name).to_pylist() for name in WORD_COLUMNS)
            for id, workspace, status in zip(ids, workspaces, statuses, strict=True):
                directory.put(id, Place(None, sys.intern(workspace), status))
            if directory.words is not None:
                directory.words.put(ids, workspaces, statuses, texts)
            directory.shelf.put(batch.select(columns))
        return True


async def _index(words: InvertedIndex, batch: pa.RecordBatch, *, pause: Callable[[], Awaitable[None]]) -> None:
    """Take the words of experiences into the index, with a pause after each few of them."""
    for start in range(0, batch.num_rows, INDEXED_AT_ONCE):
        some = batch.slice(start, INDEXED_AT_ONCE)
        words.put(*(some.column(name).to_pylist() for name in WORD_COLUMNS))
        await pause()


async def _portions(batches: AsyncIterable[pa.RecordBatch]) -> AsyncIterator[pa.RecordBatch]:
    """Join batches to the size in which rows are kept."""
    read: list[pa.RecordBatch] = []
    async for batch in batches:
        read.append(batch)
        if sum(part.nbytes for part in read) > cache.BATCH_BYTES:
            yield joined(read)
            read.clear()
    if read:
        yield joined(read)
