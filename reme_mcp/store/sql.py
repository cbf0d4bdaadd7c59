"""How the ledger's values and conditions are said in SQL.

In:  kinds of values by their dataclasses; conditions of `ledger.py`.
Out: names, types and both ways between a field and its column; a clause with what it is asked with.
Does not know: connections, files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from reme_mcp.store.ledger import Condition, Contains, Either, Filled, Is
from reme_mcp.store.tables import column_type, columns_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
DECLARED: Mapping[object, str] = {
    str: "TEXT NOT NULL DEFAULT ''",
    int: "INTEGER NOT NULL DEFAULT 0",
    float: "REAL NOT NULL DEFAULT 0",
    bool: "INTEGER",
    datetime: "INTEGER",
    tuple[str, ...]: "TEXT NOT NULL DEFAULT '[]'",
}


def same(value: Any) -> Any:
    """Return a value that stands in its column as it is."""
    return value


def to_microseconds(value: datetime | None) -> int | None:
    """Return a moment as it stands in its column: microseconds since 1970, UTC."""
    return None if value is None else (value - EPOCH) // MICROSECOND


def _to_datetime(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + value * MICROSECOND


def _to_json(value: Sequence[str]) -> str:
    return json.dumps(list(value), ensure_ascii=False)


def _to_texts(value: str) -> tuple[str, ...]:
    return tuple(json.loads(value))


def _to_flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


TO_COLUMN: Mapping[object, Callable[[Any], Any]] = {datetime: to_microseconds, tuple[str, ...]: _to_json}
FROM_COLUMN: Mapping[object, Callable[[Any], Any]] = {
    datetime: _to_datetime,
    tuple[str, ...]: _to_texts,
    bool: _to_flag,
}


class Columns:
    """How one kind of value stands in its table: the names of its columns, their types, and both ways between."""

    def __init__(self, kind: type[Any]) -> None:
        self.names = columns_of(kind)
        self.types = {name: column_type(kind, name) for name in self.names}
        self.to = [TO_COLUMN.get(self.types[name], same) for name in self.names]
        self.back = [FROM_COLUMN.get(self.types[name], same) for name in self.names]


_known: dict[type[Any], Columns] = {}


def columns_for(kind: type[Any]) -> Columns:
    """Return the columns of a kind of value; to look at its annotations takes longer than a query."""
    if kind not in _known:
        _known[kind] = Columns(kind)
    return _known[kind]


def where_clause(conditions: Sequence[Condition]) -> tuple[str, list[object]]:
    """Return the SQL of the conditions and what it is asked with."""
    parts = [_sql(condition) for condition in conditions]
    clause = " AND ".join(sql for sql, _ in parts)
    return (f" WHERE {clause}" if parts else ""), [value for _, values in parts for value in values]


def _sql(condition: Condition) -> tuple[str, list[object]]:
    match condition:
        case Is("workspace", [value]):
            # Mostly a home has one, which SQLite does not know: it would read all of it in the order of another index.
            return "likely(workspace = ?)", [value]
        case Is(field, [value]):
            return f"{field} = ?", [value]
        case Is(field, values):
            return f"{field} IN (SELECT value FROM json_each(?))", [json.dumps(list(values))]
        case Contains(field, part):
            return f"instr({field}, ?) > 0", [part]
        case Filled(field):
            return f"{field} <> ''", []
        case Either(one, other):
            (first, left), (second, right) = _sql(one), _sql(other)
            return f"({first} OR {second})", [*left, *right]
        case _:
            return f"{condition.field} >= ?", [to_microseconds(condition.moment)]
