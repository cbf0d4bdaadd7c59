"""The upkeep of the tables: small files merged, indexes brought up to date, old versions dropped.

In:  the open tables of a store, and how often each was written.
Out: tables that stay small and fast; nothing in them changes.
Does not know: what stands in them, when is a quiet moment for it (`memory.py` does).

A compaction rewrites the whole table, so that the larger one is, the rarer it is due. One process at a time does it,
and calls go on meanwhile: where one of them writes, it comes first and the table stays as it was; the next time,
writers wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import anyio

from reme_mcp.store.open_tables import OpenTables
from reme_mcp.store.tables import index_vectors, mapped, rewrite_table

if TYPE_CHECKING:
    import lancedb

EVERY_WRITES = 20
BYTES_PER_WRITE = 5 * 2**20
# Readers in other processes hold a version for milliseconds; a minute is safe for any of them.
KEEP_VERSIONS = timedelta(minutes=1)
# Vectors are indexed before they are too many for memory: until it is there, a search reads all of them.
INDEXED_FROM = 0.8
NO_CLEANUP = timedelta(days=36_500)
# The same where old versions must not stay.
READERS_S = 1.0
# What LanceDB says where a write by another came between: at once, and after it has tried for half a minute.
_PREEMPTED = ("commit conflict", "Too many concurrent writers")


class Compaction:
    """Which tables of one store are due, and their compaction."""

    def __init__(
        self,
        tables: OpenTables,
        *,
        turn: AbstractAsyncContextManager[None],
        writing: AbstractAsyncContextManager[None],
        receipts: AbstractAsyncContextManager[None],
        rows_without_index: int,
    ) -> None:
        """Make one.

        Args:
            tables: The open ones.
            turn: Who holds it does the upkeep.
            writing: Who holds it writes, to any table but `receipts`.
            receipts: Who holds it writes to that one.
            rows_without_index: How many vectors are searched without an index.
        """
        self._tables = tables
        self._turn = turn
        self._writing = writing
        self._receipts = receipts
        self._rows_without_index = rows_without_index
        self._writes: Counter[str] = Counter()
        self._preempted: set[str] = set()
        self._with_old_versions: set[str] = set()

    def wrote(self, table: str) -> None:
        """Count a write."""
        self._writes[table] += 1

    @property
    def writes(self) -> int:
        """How many writes by this process the table that had most of them has had since it was compacted."""
        return max(self._writes.values(), default=0)

    @property
    def has_old_versions(self) -> bool:
        """Whether a compaction left versions, as some reader might still have held them."""
        return bool(self._with_old_versions)

    async def count_leftovers(self) -> None:
        """Count what earlier processes left to compact: short ones never write often enough to do it themselves."""
        with anyio.CancelScope(shield=True), mapped("look at the tables"):
            for name, table in self._tables.items():
                # Annotated as an object, it is a dictionary.
                stats: Any = await table.stats()
                self._writes[name] += stats["fragment_stats"]["num_small_fragments"]
                # To count the versions that they have left would take as long as to drop them.
                self._with_old_versions.add(name)

    async def run(self) -> None:
        """Compact the tables that were written often enough."""
        if self.writes < EVERY_WRITES:
            return
        async with self._turn:
            await self._tables.check_current()
            for name, table in self._tables.items():
                if self._writes[name] < await _writes_until_due(table) and not await self._lacks_index(table):
                    continue
                if name not in self._preempted:
                    await self._compact(name, table, alone=False)
                else:
                    async with self._receipts if name == "receipts" else self._writing:
                        await self._compact(name, table, alone=True)

    async def drop_old_versions(self) -> None:
        """Compact once more the tables whose versions were too young to go, `KEEP_VERSIONS` ago; then they go."""
        async with self._turn:
            await self._tables.check_current()
            for name in sorted(self._with_old_versions):
                await self._compact(name, self._tables[name], alone=False)
                if name not in self._preempted:
                    self._with_old_versions.discard(name)

    async def index_experiences(self) -> None:
        """Put what was just added into the full-text index: what is not in it yet is read through by every search."""
        async with self._turn, self._writing:
            await self._tables.check_current()
            await self._compact("experiences", self._tables["experiences"], alone=True)

    async def purge_deleted(self, *, rewritten: Callable[[], Awaitable[None]]) -> None:
        """Remove what was deleted from the disk, too: every table is written anew, and all old versions go.

        Whoever reads an old version at this moment, in another process, may have to ask again. `rewritten` is called
        when each table has its new rows.
        """
        async with self._turn, self._writing, self._receipts:
            await self._tables.check_current()
            with anyio.CancelScope(shield=True):
                for name, table in self._tables.items():
                    with mapped(f"write {name} anew"):
                        await rewrite_table(table)
                    await self._tables.settle(name)
                await rewritten()
                await anyio.sleep(READERS_S)
                for name, table in self._tables.items():
                    with mapped(f"compact {name}"):
                        await table.optimize(cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True)
                    await self._tables.settle(name)
                    self._writes[name] = 0

    async def _lacks_index(self, table: lancedb.AsyncTable) -> bool:
        """Return whether a table has so many vectors that they want an index, and none."""
        if "vector" not in (await table.schema()).names:
            return False
        return await table.count_rows() > INDEXED_FROM * self._rows_without_index and not await table.list_indices()

    async def _compact(self, name: str, table: lancedb.AsyncTable, *, alone: bool) -> None:
        """Compact one table; `alone`, also remove what a compaction that was preempted left behind."""
        writes = self._writes[name]
        with anyio.CancelScope(shield=True), mapped(f"compact {name}"):
            try:
                # The old files go only once the new ones are on the disk.
                await table.optimize(cleanup_older_than=NO_CLEANUP)
                await self._tables.settle(name)
                await table.optimize(cleanup_older_than=KEEP_VERSIONS, delete_unverified=alone)
                if await self._lacks_index(table):
                    await index_vectors(table)
                await self._tables.settle(name)
            except RuntimeError as exc:
                if alone or not any(words in str(exc) for words in _PREEMPTED):
                    raise
                self._preempted.add(name)
                return
        self._preempted.discard(name)
        self._with_old_versions.add(name)
        self._writes[name] -= writes


async def _writes_until_due(table: lancedb.AsyncTable) -> int:
    with mapped("look at the tables"):
        stats: Any = await table.stats()
    return max(EVERY_WRITES, int(stats["total_bytes"]) // BYTES_PER_WRITE)
