"""What is in memory of one of LanceDB's tables follows what any process writes into it.

In:  a table, the ledger whose feed tells of its commits, and what this process writes into it.
Out: a version of the table up to which all is known, and whoever keeps the rows told of what is new.
Does not know: what stands in the rows, or how they are kept.

The feed tells of most commits, in microseconds. Where it does not say enough, the table is read: at first, when rows
are gone, when there are too many, and when somebody has committed who told nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import anyio

from reme_mcp.aio import Batcher
from reme_mcp.store.feed import Note, unpacked
from reme_mcp.store.ledger import Ledger
from reme_mcp.store.tables import mapped

if TYPE_CHECKING:
    import lancedb
    import pyarrow as pa

# Takes in rows that stand nobody knows where; returns whether there was room.
TakeIn = Callable[[Sequence["pa.RecordBatch"]], bool]


class Following:
    """How far one keeper of a table's rows has come, and the way to the end."""

    def __init__(
        self, table: lancedb.AsyncTable, ledger: Ledger, *, take_in: TakeIn, read: Callable[[], Awaitable[None]]
    ) -> None:
        """Make one; nothing is known yet.

        Args:
            table: Which.
            ledger: Whose feed tells of it.
            take_in: Called with rows as they were written.
            read: Called to read what was written after `read_version`, or everything where that is 0.
        """
        self._table = table
        self._ledger = ledger
        self._take_in = take_in
        self._read = read
        self._has_to_read = True
        self._told_until = 0
        # Held while anything changes of what is kept.
        self.turn = anyio.Lock()
        self._refreshes: Batcher[None] = Batcher(lambda: self.turn, self._refresh)
        # Up to which all is known, and when it was read last.
        self.version = self.read_version = 0

    async def catch_up(self) -> None:
        """Come back when all is known that anybody had written before the call.

        Raises:
            StoreError: The table can't be read.
        """
        if self._has_to_read or not self._ledger.is_quiet(self._table.name, self._told_until):
            await self._refreshes.submit()
        # Others may have had their turn before this one went on.
        while self._has_to_read:
            await self._refreshes.submit()

    @property
    def has_unplaced(self) -> bool:
        """Whether rows were taken in since the table was read: where they stand in it, nobody has looked."""
        return self.read_version < self.version

    async def place_all(self) -> None:
        """Come back when it is known of all rows where they stand.

        Raises:
            StoreError: The table can't be read.
        """
        async with self.turn:
            if self.has_unplaced:
                self._has_to_read = True
        await self.catch_up()

    async def wrote(self, rows: pa.Table, *, before: int, after: int) -> None:
        """Take in what this process has just written, from one version of the table to another."""
        if self._ledger.has_feed:
            # Who holds the pool is told of all that was written before; and nobody else tells of this.
            await self.catch_up()
        async with self.turn:
            is_next = self.version == before and after == before + 1
            if is_next and not self._has_to_read and self._take_in(rows.to_batches()):
                self.version = after
            elif self.version < after:
                self._has_to_read = True

    def read_later(self, *, since: int) -> None:
        """Have what was written after a version read with the next call; who holds the turn may ask for that."""
        self.read_version = min(self.read_version, since)
        self._has_to_read = True

    async def _refresh(self, _: list[None]) -> None:
        with mapped(f"read {self._table.name}"):
            # Asked before the table is read, which then has at least what was told of.
            news = self._ledger.news(self._table.name, self._told_until)
            if self._has_to_read or not news.is_complete or not self._take_in_notes(news.notes):
                # For those who call meanwhile, and where this is cancelled.
                must_read, self._has_to_read = self._has_to_read, True
                version = await self._table.version()
                if must_read or version != self.version:
                    await self._read()
                    self.version = self.read_version = version
                self._has_to_read = False
            self._told_until = news.until

    def _take_in_notes(self, notes: Sequence[Note]) -> bool:
        """Take in what the feed has told of; return whether that was all."""
        for note in notes:
            if note.version > self.version:
                # Where one is missing in between, somebody has committed who told nobody.
                if note.version > self.version + 1 or not self._take_in(unpacked(note)):
                    return False
                self.version = note.version
        return True
