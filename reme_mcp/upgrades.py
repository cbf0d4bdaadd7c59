"""The upgrades: what has to be done to tables of an older schema.

In:  a connection to them.
Out: tables of the schema that the dataclasses of `schema.py` describe.
Does not know: homes, locks, backups; `Store.open` has taken care of them.

An upgrade may be repeated: a process that is killed over it leaves some of it done, and the next one starts it anew.
A table that is new altogether needs none, but is made where it is missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lancedb

    Upgrade = Callable[[lancedb.AsyncConnection], Awaitable[None]]


def new_column(table: str, column: str, default: str) -> Upgrade:
    """Return the upgrade that gives each row of `table` a new column.

    Args:
        table: Its name.
        column: Of the new column.
        default: What the rows have there, in SQL and with its type: `''`, `cast(0 as bigint)`,
            `cast(null as timestamp(6) with time zone)`.
    """

    async def upgrade(connection: lancedb.AsyncConnection) -> None:
        if table not in ((await connection.list_tables()).tables or []):
            # Whoever made the home died over it; the table will be made with all its columns.
            return
        opened = await connection.open_table(table)
        if column not in (await opened.schema()).names:
            await opened.add_columns({column: default})

    return upgrade


# The first leads from schema 1 to 2, and so on: add a line at the end, never change one that was released.
UPGRADES: Sequence[Upgrade] = ()
SCHEMA_VERSION = 1 + len(UPGRADES)
