"""The ledger on object storage: LanceDB's tables, one for each kind of value.

In:  values and conditions of `ledger.py`, the open tables.
Out: the values.
Does not know: what its values mean; who compacts the tables.

Receipts have a lease of their own, so that a recall never waits for somebody who records or compacts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

from reme_mcp.schema import Counters, ReceiptLine
from reme_mcp.store.feed import Announce, News, Tell
from reme_mcp.store.ledger import (
    KEYS,
    TABLES,
    WAIT_S,
    Blank,
    Change,
    Condition,
    Contains,
    Drop,
    Either,
    Filled,
    Is,
    Put,
    Since,
)
from reme_mcp.store.tables import (
    Row,
    all_of,
    at_or_after,
    column_type,
    columns_of,
    contains,
    is_filled,
    is_in,
    mapped,
    read_rows,
    to_arrow,
    to_row,
    values_in,
)

if TYPE_CHECKING:
    import lancedb
    from lancedb.expr import Expr


class TableLedger:
    """The tables of one store, as its ledger."""

    def __init__(
        self,
        tables: Mapping[str, lancedb.AsyncTable],
        *,
        receipts: Callable[[float], AbstractAsyncContextManager[None]],
        wrote: Callable[[str], None],
    ) -> None:
        """Make one.

        Args:
            tables: The open ones, by name.
            receipts: Gives the lock under which receipts are written, waited for at most so many seconds.
            wrote: Told of each table that was written.
        """
        self._tables = tables
        self._receipts = receipts
        self._wrote = wrote

    @property
    def has_feed(self) -> bool:
        """Return that there is none: each note would cost as much as it saves."""
        return False

    def is_quiet(self, table: str, since: int) -> bool:
        """Return false: only the tables know."""
        return False

    def news(self, table: str, since: int) -> News:
        """Return that only the table knows."""
        return News(since, (), is_complete=False)

    def is_unfinished(self) -> bool:
        """Return that nothing is: nobody announces anything."""
        return False

    async def read(
        self,
        kind: type[Row],
        where: Sequence[Condition] = (),
        *,
        newest_by: str | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the values for which all conditions hold."""
        if any(isinstance(condition, Is) and not condition.values for condition in where):
            return []
        condition = _where(where)
        table = self._tables[TABLES[kind]]
        return await read_rows(table, kind, condition, newest_by=newest_by, offset=offset, limit=limit)

    async def write(
        self, changes: Sequence[Change], *, wait_s: float = WAIT_S, within: timedelta | None = None
    ) -> None:
        """Make the changes, one after the other."""
        for change in changes:
            assert not isinstance(change, Announce | Tell), "there is no feed"
            with anyio.CancelScope(shield=True):
                if change.kind is ReceiptLine:
                    async with self._receipts(wait_s):
                        await self._make(change, within)
                else:
                    await self._make(change, within)

    @asynccontextmanager
    async def turn(self, *, wait_s: float = WAIT_S, within: timedelta | None = None) -> AsyncIterator[list[Change]]:
        """Gather changes, and make them when the block ends; whoever comes here holds the pool."""
        changes: list[Change] = []
        yield changes
        await self.write(changes, wait_s=wait_s, within=within)

    async def counters(self, since: int) -> tuple[int, Sequence[Counters]]:
        """Return the version of the table of counters, and those that were written after version `since`."""
        table = self._tables[TABLES[Counters]]
        with mapped("read counters"):
            version = await table.version()
            if version == since:
                return since, ()
            query = table.query().select(columns_of(Counters)).where(f"_row_last_updated_at_version > {since}")
            return version, values_in(Counters, await query.to_arrow())

    async def version(self) -> int:
        """Return 0: the tables have versions of their own."""
        return 0

    async def columns(
        self, kind: type[Any], names: Sequence[str], where: Sequence[Condition] = ()
    ) -> list[tuple[Any, ...]]:
        """Return some fields of the values for which all conditions hold, each as a column."""
        if any(isinstance(condition, Is) and not condition.values for condition in where):
            return [()] * len(names)
        table = self._tables[TABLES[kind]]
        with mapped(f"read {table.name}"):
            query = table.query().select(list(names))
            rows = await (query if (condition := _where(where)) is None else query.where(condition)).to_arrow()
        columns = (rows.column(name) for name in names)
        types = (column_type(kind, name) for name in names)
        return [
            tuple((column.cast("int64") if of is datetime else column).to_pylist())
            for of, column in zip(types, columns, strict=True)
        ]

    async def purge_deleted(self) -> None:
        """Do nothing: the tables are rewritten with all others."""

    def close(self) -> None:
        """Do nothing: the tables are closed with all others."""

    async def _make(self, change: Put | Drop | Blank, within: timedelta | None) -> None:
        name = TABLES[change.kind]
        table = self._tables[name]
        with mapped(f"write {name}"):
            if isinstance(change, Drop):
                await table.delete(_required(change.where))
            elif isinstance(change, Blank):
                await table.update(dict.fromkeys(change.fields, ""), where=_required(change.where).to_sql())
            elif not change.values:
                return
            else:
                await _put(table, change, within)
        self._wrote(name)


async def _put(table: lancedb.AsyncTable, change: Put, within: timedelta | None) -> None:
    rows = to_arrow([to_row(value) for value in change.values], await table.schema())
    if change.are_new or not KEYS[change.kind]:
        await table.add(rows)
        return
    # Not through an index: one on the key would hide rows of other processes and double them.
    merge = table.merge_insert(list(KEYS[change.kind])).use_index(False)
    await merge.when_matched_update_all().when_not_matched_insert_all().execute(rows, timeout=within)


def _required(where: Sequence[Condition]) -> Expr:
    condition = _where(where)
    assert condition is not None, "all values of a table are never changed at once"
    return condition


def _where(where: Sequence[Condition]) -> Expr | None:
    parts = [_expression(condition) for condition in where]
    return all_of(*parts) if parts else None


def _expression(condition: Condition) -> Expr:
    match condition:
        case Is(field, values):
            return is_in(field, values)
        case Contains(field, part):
            return contains(field, part)
        case Filled(field):
            return is_filled(field)
        case Since(field, moment):
            return at_or_after(field, moment)
        case Either(one, other):
            return _expression(one) | _expression(other)
