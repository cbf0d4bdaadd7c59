"""The upgrades: what has to be done to tables of an older schema.

In:  a home of an older schema.
Out: tables of the schema that the dataclasses of `schema.py` describe, and a backup of what they were.
Does not know: what the tables hold.

An upgrade may be repeated: a process that is killed over it leaves some of it done, and the next one starts it anew.
A table that is new altogether needs none, but is made where it is missing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from reme_mcp.store import archive, folder, sqlite_ledger
from reme_mcp.store.location import Folder, Location, count_rows
from reme_mcp.store.tables import mapped, schemas, versions_in

if TYPE_CHECKING:
    import lancedb


if TYPE_CHECKING:
    Migration = Callable[[lancedb.AsyncConnection], Awaitable[None]]


def new_column(table: str, column: str, default: str) -> Migration:
    """Return the upgrade that gives each row of `table` a new column.

    Args:
        table: Its name.
        column: Of the new column.
        default: What the rows have there, in SQL and with its type: `''`, `cast(0 as bigint)`; `null` for none.
    """

    async def step(connection: lancedb.AsyncConnection) -> None:
        if table not in ((await connection.list_tables()).tables or []):
            # Whoever made the home died over it; the table will be made with all its columns.
            return
        opened = await connection.open_table(table)
        if column in (await opened.schema()).names:
            return
        if default == "null":
            # SQL has no words for every type of ours.
            await opened.add_columns(schemas()[table].field(column))
        else:
            await opened.add_columns({column: default})

    return step


def ledger_of_its_own(tables: Sequence[str]) -> Migration:
    """Return the upgrade that moves tables into the ledger of a folder; on object storage they stay as they are."""

    async def step(connection: lancedb.AsyncConnection) -> None:
        if "://" in connection.uri:
            return
        there = set((await connection.list_tables()).tables or [])
        rows = {}
        for name in [name for name in tables if name in there]:
            table = await connection.open_table(name)
            rows[name] = await table.query().to_list()
            table.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
        file = Path(connection.uri) / sqlite_ledger.NAME
        await anyio.to_thread.run_sync(sqlite_ledger.take_over, file, rows)
        # Only now: whoever dies here finds what is left in the tables, and the rest in the ledger.
        for name in rows:
            await connection.drop_table(name)

    return step


# The first leads from schema 1 to 2, and so on: add a line at the end, never change one that was released.
MIGRATIONS: Sequence[Migration] = (
    new_column("trajectories", "tries", "cast(0 as bigint)"),
    new_column("trajectories", "retry_at", "null"),
    new_column("trajectories", "trouble", "''"),
    new_column("experiences", "origins", "arrow_cast(make_array(), 'List(Utf8)')"),
    new_column("trajectories", "verdicts", "''"),
    *(
        new_column(table, column, default)
        for table in ("experiences", "trash")
        for column, default in (
            ("rated_helpful", "cast(0 as bigint)"),
            ("rated_unhelpful", "cast(0 as bigint)"),
            ("objection", "''"),
            ("supersedes", "''"),
            ("superseded_by", "''"),
        )
    ),
    new_column("receipts", "numbers", "''"),
    ledger_of_its_own(["trajectories", "receipts", "costs", "log", "trash"]),
    new_column("receipts", "arm", "''"),
    new_column("receipts", "chance", "cast(0 as double)"),
    new_column("receipts", "task_vector", "''"),
)
SCHEMA_VERSION = 1 + len(MIGRATIONS)


async def migrate(location: Location, migrations: Sequence[Migration]) -> folder.HomeMarker:
    """Bring the tables up to the newest schema, unless another process just has, and return the mark.

    The mark is rewritten last. It names the backup first, so that a repetition makes no second one. On object storage
    there is no backup: a step adds to the tables, and the storage's own versioning keeps what was there.
    """
    newest = 1 + len(migrations)
    # Whoever adds a receipt to a ledger meanwhile does no harm: it stays where it is.
    async with _tables_only(location):
        mark = await location.read_marker(schema=newest)
        if mark.schema == newest:
            return mark
        with anyio.CancelScope(shield=True), mapped(f"upgrade {location} from schema {mark.schema} to {newest}"):
            if isinstance(location, Folder):
                mark = await _backed_up(location.path, mark)
            connection = await location.connect(mark)
            await location.check_all(mark, await versions_in(connection))
            for step in migrations[mark.schema - 1 :]:
                await step(connection)
            mark = dataclasses.replace(mark, schema=newest, backup="")
            mark = await location.register(mark, await versions_in(connection))
            connection.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
    return mark


async def _backed_up(home: Path, mark: folder.HomeMarker) -> folder.HomeMarker:
    """Make a backup of the tables, unless an upgrade that was cut short has, and return the mark that names it."""
    backups = home / folder.BACKUPS
    if mark.backup and (backups / mark.backup).exists():
        return mark
    name = folder.new_name(backups, f"schema-{mark.schema}-", ".zip")
    tables = await count_rows(home / mark.pool)
    pack = partial(archive.pack, home / mark.pool, backups / name, schema=mark.schema, tables=tables)
    await anyio.to_thread.run_sync(pack)
    # Whoever is killed over the upgrade leaves some tables that are not as the mark said.
    mark = dataclasses.replace(mark, backup=name, tables=())
    folder.write_marker(home, mark)
    return mark


@asynccontextmanager
async def exclusive(location: Location) -> AsyncIterator[None]:
    """Hold all locks of the pool: nobody else writes or compacts anything meanwhile."""
    async with _tables_only(location), location.ledger_lock() if isinstance(location, Folder) else nullcontext():
        yield


@asynccontextmanager
async def _tables_only(location: Location) -> AsyncIterator[None]:
    """Hold the locks of LanceDB's tables; in a folder, that of the receipts is one of earlier versions."""
    # In the order in which compaction takes them.
    async with location.lock("pool-upkeep"), location.lock("pool"), location.lock("pool-receipts"):
        yield
