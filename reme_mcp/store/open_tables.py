"""The open tables of one home: seen to be whole when they are opened, on the disk when they were written.

In:  a home, its mark, a connection.
Out: LanceDB's tables by name, to read; one of them at a time, to write into.
Does not know: what stands in them.

Tables of embedders come while others work: each process finds those of the others when it asks for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from reme_mcp.errors import StoreError
from reme_mcp.store.folder import HomeMarker
from reme_mcp.store.location import Commit, Location
from reme_mcp.store.tables import create_table, mapped, prove, versions_in

if TYPE_CHECKING:
    import lancedb
    import pyarrow as pa

OF_AN_EMBEDDER = "vectors_"


class OpenTables(Mapping[str, "lancedb.AsyncTable"]):
    """The tables of one home that this process has opened."""

    def __init__(self, location: Location, mark: HomeMarker, connection: lancedb.AsyncConnection) -> None:
        self._location = location
        self._mark = mark
        self._connection = connection
        self._tables: dict[str, lancedb.AsyncTable] = {}
        self._schemas: dict[str, pa.Schema] = {}

    def __getitem__(self, name: str) -> lancedb.AsyncTable:
        """Return a table that is open."""
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        """Return the names of those that are open now, whichever are opened meanwhile."""
        return iter(list(self._tables))

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._tables)

    async def names(self) -> set[str]:
        """Return the names of all tables that there are, open or not."""
        with mapped("look at the tables"):
            return set((await self._connection.list_tables()).tables or [])

    async def open(self, name: str) -> None:
        """Open a table, having seen that it is all there.

        Raises:
            StoreError: It is not.
        """
        while name not in self._tables:
            head = self._location.head(self._mark, name)
            try:
                with mapped(f"open {name}"):
                    table = await self._connection.open_table(name)
                version = await prove(table)
            except StoreError as exc:
                await self.check_current()
                if not await self._location.take_back_torn(self._mark, name):
                    raise self._location.damaged(str(exc)) from exc
            else:
                self._location.check(self._mark, name, head, version)
                self._tables[name] = table

    async def open_vectors(self) -> list[str]:
        """Open the tables of all embedders, and return their names."""
        names = [name for name in await self.names() if name.startswith(OF_AN_EMBEDDER)]
        for name in names:
            await self.open(name)
        return names

    async def make(self, schemas: Mapping[str, pa.Schema]) -> None:
        """Make those of the tables that are not there yet; who holds the pool may."""
        present = await self.names()
        for name, schema in schemas.items():
            if name not in present:
                with mapped(f"make {name}"):
                    await create_table(self._connection, name, schema)
        await self.register()
        for name in schemas:
            await self.open(name)

    async def register(self) -> None:
        """Have the home know which tables it has, and how far each has come; who holds the pool may."""
        self._mark = await self._location.register(self._mark, await versions_in(self._connection))

    async def version(self, name: str) -> int:
        """Return the version of a table that is open."""
        with mapped(f"look at {name}"):
            return await self[name].version()

    async def schema(self, name: str) -> pa.Schema:
        """Return the columns of a table that is open; an upgrade changes them in other tables."""
        if name not in self._schemas:
            with mapped(f"look at {name}"):
                self._schemas[name] = await self[name].schema()
        return self._schemas[name]

    @property
    def are_registered(self) -> bool:
        """Return whether the home knows which tables it has; one of an earlier version does not."""
        return bool(self._mark.tables) or not self._location.names_tables

    @asynccontextmanager
    async def committing(self, name: str) -> AsyncIterator[tuple[lancedb.AsyncTable, Commit]]:
        """Hand out a table to write into, once; when the block ends, what was written is on the disk."""
        table = self._tables[name]
        with mapped(f"write {name}"):
            async with self._location.committing(self._mark, name, table.version) as commit:
                yield table, commit

    async def settle(self, name: str) -> None:
        """Bring to the disk what a compaction has made of a table."""
        await self._location.settle(self._mark, name, await self.version(name))

    async def is_current(self) -> bool:
        """Return whether the home still has these tables: another process may have upgraded or replaced them.

        Raises:
            StoreError: The home is gone.
        """
        return await self._location.is_current(self._mark)

    async def check_current(self) -> None:
        """Refuse to write into tables that are not the home's any more."""
        await self._location.check_current(self._mark)

    def close(self) -> None:
        """Close the tables and the connection."""
        for table in self._tables.values():
            table.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
        self._connection.close()  # type: ignore[no-untyped-call]  # likewise
