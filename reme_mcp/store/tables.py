"""How values stand in LanceDB's tables: columns, rows, conditions, indexes, and what its errors say.

In:  values of `schema.py` and `costs.py`.
Out: Arrow schemas and rows, and the values again; conditions that no text can break out of.
Does not know: which tables are read or written when; `store.py` does. The two are the only files that import LanceDB.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import anyio.to_thread

from reme_mcp.errors import StoreError
from reme_mcp.schema import (
    Attempt,
    Counters,
    Ended,
    Entry,
    Experience,
    Handout,
    Noted,
    ReceiptLine,
    Recorded,
    Spent,
    Status,
    Summary,
    Trajectory,
)
from reme_mcp.text.words import STOP_WORDS

if TYPE_CHECKING:
    import lancedb
    import pyarrow as pa
    from lancedb.expr import Expr
    from lancedb.query import ColumnOrdering

# LanceDB would keep whatever it has read, of every version of a table.
INDEX_CACHE_BYTES = 32 * 2**20
METADATA_CACHE_BYTES = 8 * 2**20

COLUMN_TYPES = "str, int, float, bool, datetime, tuple[str, ...]"

Row = TypeVar(
    "Row",
    Experience,
    Trajectory,
    ReceiptLine,
    Attempt,
    Spent,
    Entry,
    Recorded,
    Summary,
    Handout,
    Counters,
    Ended,
    Noted,
)


def space_name(embedder: str) -> str:
    """Return the name of the vector table of `embedder`: readable, and one for each name."""
    digest = hashlib.sha256(embedder.encode()).hexdigest()[:8]
    return f"vectors_{re.sub(r'[^a-z0-9]+', '_', embedder.lower()).strip('_')[:48]}_{digest}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# LanceDB's messages end with a place in its own source.
_SOURCE_PLACE = re.compile(r",? \S+\.rs:\d+:\d+")


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn LanceDB's and the system's errors into a `StoreError` that says what could not be done."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as exc:
        raise StoreError(f"can't {what}: {_said_by(exc)}") from exc


def _said_by(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.filename is not None:
        return f"{exc.filename}: {exc.strerror}"
    return _SOURCE_PLACE.sub("", str(exc))


async def create_table(connection: lancedb.AsyncConnection, name: str, schema: pa.Schema) -> lancedb.AsyncTable:
    """Return the table of this name; it is made where it is not there yet, with its full-text index."""
    table = await connection.create_table(name, schema=schema, exist_ok=True)
    if "search_text" in schema.names and not await table.list_indices():
        await _index_words(table)
    return table


async def _index_words(table: lancedb.AsyncTable) -> None:
    """Index the words of a table's texts, anew if they are."""
    from lancedb.index import FTS

    # icu/split finds the words of Chinese and Japanese and the parts of get_stock_info; stems are English only.
    words = FTS(base_tokenizer="icu/split", custom_stop_words=list(STOP_WORDS))
    await table.create_index("search_text", config=words)


async def index_vectors(table: lancedb.AsyncTable) -> None:
    """Index the vectors, once: searching all of them takes seconds for a million. What comes later, upkeep adds."""
    from lancedb.index import IvfFlat

    if not await table.list_indices():
        await table.create_index("vector", config=IvfFlat(distance_type="cosine"))


async def rewrite_table(table: lancedb.AsyncTable) -> None:
    """Write a table and its indexes into new files; nothing that was deleted is in them.

    A compaction leaves deleted rows in a file of which it finds too little deleted, and deleted words in an index.
    """
    column = (await table.schema()).names[0]
    await table.update(updates_sql={column: column})
    for index in await table.list_indices():
        if index.columns == ["search_text"]:
            await _index_words(table)
        else:
            await table.drop_index(index.name)
            await index_vectors(table)


@functools.cache
def schemas() -> dict[str, pa.Schema]:
    """Return the columns of every table but those of vectors: of the experiences, and of a ledger in tables."""
    import pyarrow as pa

    text = pa.string()
    types: dict[object, pa.DataType] = {
        str: text, int: pa.int64(), float: pa.float64(), bool: pa.bool_(), datetime: pa.timestamp("us", tz="UTC"),
        tuple[str, ...]: pa.list_(text),
    }  # fmt: skip

    def columns(kind: type[Row]) -> list[pa.Field]:
        return [pa.field(name, types[column_type(kind, name)]) for name in columns_of(kind)]

    return {
        "experiences": pa.schema([*columns(Experience), pa.field("search_text", text)]),
        "trajectories": pa.schema(columns(Trajectory)),
        "receipts": pa.schema(columns(ReceiptLine)),
        "costs": pa.schema(columns(Spent)),
        "log": pa.schema(columns(Entry)),
        # A column that `experiences` gets in an upgrade has to come to this one, too.
        "trash": pa.schema(columns(Experience)),
        "counters": pa.schema(columns(Counters)),
    }


def column_type(kind: type[Row], name: str) -> object:
    """Return the type of a column: `str`, `int`, `float`, `bool`, `datetime` or `tuple[str, ...]`; any may be null.

    Raises:
        TypeError: The field is of a type for which there is no column.
    """
    declared = get_type_hints(kind)[name]
    options = {option for option in get_args(declared) if option is not NoneType} if _is_union(declared) else {declared}
    # One of some texts is a text to the table.
    plain = {type(value) for option in options for value in get_args(option)} if _is_literal(options) else options
    if len(plain) == 1 and (found := plain.pop()) in (str, int, float, bool, datetime, tuple[str, ...]):
        return found
    raise TypeError(f"{kind.__name__}.{name} is {declared}; allowed in a table: {COLUMN_TYPES}, or one of them | None")


def _is_union(declared: object) -> bool:
    return get_origin(declared) in (Union, UnionType)


def _is_literal(options: set[object]) -> bool:
    return all(get_origin(option) is Literal for option in options)


def vector_schema(dim: int) -> pa.Schema:
    """Return the columns of a table of vectors of `dim` dimensions."""
    import pyarrow as pa

    text, vector = pa.string(), pa.list_(pa.float32(), dim)
    return pa.schema({"id": text, "workspace": text, "vector": vector, "lesson": vector})


def to_arrow(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as Arrow takes them."""
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)


def columns_of(kind: type[Row]) -> list[str]:
    """Return the columns in which a value stands."""
    return [field.name for field in dataclasses.fields(kind)]


def to_row(value: Row) -> dict[str, Any]:
    """Return a value as a row holds it; unlike `asdict`, without copying what it holds."""
    return {name: getattr(value, name) for name in columns_of(type(value))}


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return all rows in one batch."""
    import pyarrow as pa

    return pa.concat_batches(batches)


def values_in(kind: type[Row], rows: pa.RecordBatch | pa.Table) -> list[Row]:
    """Return the values that rows hold, whose columns may stand in any order."""
    columns = (_values_of(rows.column(name)) for name in columns_of(kind))
    return [kind(*values) for values in zip(*columns, strict=True)]


def _values_of(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return what a column holds, as a field of a value has it."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        # Arrow would look up the time zone of each, which takes longer than a whole row.
        elapsed = column.cast("int64").to_pylist()
        return [None if one is None else _EPOCH + timedelta(microseconds=one) for one in elapsed]
    if pa.types.is_list(column.type):
        return [tuple(values) for values in column.to_pylist()]
    held: list[Any] = column.to_pylist()
    return held


def equals(column: str, value: str) -> Expr:
    """Return the condition that a column holds a value."""
    from lancedb import col, lit

    return col(column) == lit(value)


def is_in(column: str, values: Sequence[str]) -> Expr:
    """Return the condition that a column holds one of some values."""
    from lancedb import col

    return col(column).isin(list(values))


def contains(column: str, part: str) -> Expr:
    """Return the condition that a column's text contains another."""
    from lancedb import col

    return col(column).contains(part)


def is_filled(column: str) -> Expr:
    """Return the condition that a column's text is not empty."""
    from lancedb import col, lit

    return col(column) != lit("")


def has_status(statuses: Sequence[Status] | None, also: Sequence[str] = ()) -> Expr | None:
    """Return the condition on the status, or on the id being in `also`; `None` for no condition."""
    if statuses is None:
        return None
    return is_in("status", statuses) | is_in("id", also) if also else is_in("status", statuses)


def all_of(first: Expr, *rest: Expr | None) -> Expr:
    """Return the conjunction; `None` stands for no condition."""
    for condition in rest:
        if condition is not None:
            first = first & condition
    return first


def from_newest(id_column: str, *, by: str = "created_at") -> list[ColumnOrdering]:
    """Return the order from the newest to the oldest, stable among rows of one moment by their id."""
    from lancedb.query import ColumnOrdering

    return [ColumnOrdering(column_name=by, ascending=False), ColumnOrdering(column_name=id_column)]


async def connect(pool: str | Path, options: Mapping[str, str] = {}) -> lancedb.AsyncConnection:
    """Return a connection to the tables in a folder or on object storage; LanceDB is imported in a thread.

    Args:
        pool: The folder, or its address.
        options: What the object storage has to be told.
    """
    os.environ.setdefault("LANCEDB_LOG", "error")
    # A second thread halves nothing that is bound by memory, and waits for its turn where the other core is busy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Arrow's own allocator keeps what it has once had: 20 MB after the vectors of 10,000 experiences were read.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    await anyio.to_thread.run_sync(importlib.import_module, "lancedb", abandon_on_cancel=True)
    import lancedb

    return await lancedb.connect_async(
        str(pool),
        read_consistency_interval=timedelta(0),
        storage_options={"new_table_enable_stable_row_ids": "true", **options},
        session=lancedb.Session(INDEX_CACHE_BYTES, METADATA_CACHE_BYTES),
    )


async def give_back_freed() -> None:
    """Return to the system what is free by now, where a lot was read: glibc keeps it, 12 MB of 10,000 experiences."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            # Other libraries of C have no such thing.
            await anyio.to_thread.run_sync(ctypes.CDLL(None).malloc_trim, 0)


async def read_table(query: lancedb.AsyncQuery, *, batch_rows: int) -> pa.Table:
    """Return what a query finds, read in batches of so many rows.

    LanceDB's own are a thousand rows each: of a hundred thousand narrow ones, handing over the batches takes eight
    times as long as reading them, and each waits for its turn where another thread is busy.
    """
    import pyarrow as pa

    reader = await query.to_batches(max_batch_length=batch_rows)
    return pa.Table.from_batches([batch async for batch in reader], schema=reader.schema)


async def read_rows(
    table: lancedb.AsyncTable,
    kind: type[Row],
    where: Expr | str | None,
    *,
    newest_by: str | None = None,
    offset: int = 0,
    limit: int | None = None,
) -> list[Row]:
    """Return the values in those rows of a table for which a condition holds.

    Args:
        table: Of that kind of value.
        kind: What a row becomes.
        where: The condition; `None` for all rows.
        newest_by: The column that orders them, the newest first; `None` for any order.
        offset: How many to leave out.
        limit: How many at most; `None` for all.
    """
    columns = columns_of(kind)
    with mapped(f"read {table.name}"):
        query = table.query().select(columns)
        if where is not None:
            query = query.where(where)
        if newest_by is not None:
            # The first column is an id.
            query = query.order_by(from_newest(columns[0], by=newest_by))
        if limit is not None:
            query = query.limit(limit).offset(offset)
        rows = await query.to_arrow()
    return values_in(kind, rows)


def at_or_after(column: str, moment: datetime) -> Expr:
    """Return the condition that a column's time is not before a moment."""
    from lancedb import col, lit

    return col(column) >= lit(moment)


async def count_rows(pool: Path) -> dict[str, int]:
    """Return how many rows each table in the folder `pool` has, having read all of them to the end.

    Raises:
        StoreError: One of them can't be read.
    """
    with mapped(f"read the tables in {pool}"):
        connection = await connect(pool)
        counts = {}
        for name in sorted((await connection.list_tables()).tables or []):
            table = await connection.open_table(name)
            counts[name] = 0
            async for batch in await table.query().to_batches():
                counts[name] += batch.num_rows
            table.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
        connection.close()  # type: ignore[no-untyped-call]  # likewise
    return counts


async def versions_in(connection: lancedb.AsyncConnection) -> dict[str, Callable[[], Awaitable[int]]]:
    """Return what tells the version of each table, by name."""
    with mapped("look at the tables"):
        names = (await connection.list_tables()).tables or []
        return {name: (await connection.open_table(name)).version for name in names}


async def prove(table: lancedb.AsyncTable) -> int:
    """Read enough of a table to know that all of its files are there, and return its version.

    Its first column stands in every file of data; a search opens every file of an index of words.
    """
    with mapped(f"read {table.name}"):
        version = await table.version()
        columns = (await table.schema()).names
        async for _ in await table.query().select(columns[:1]).to_batches():
            pass
        if "search_text" in columns:
            words = table.query().nearest_to_text("a", columns="search_text")
            await words.select([columns[0], "_score"]).limit(1).to_list()
    return version
