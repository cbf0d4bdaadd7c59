"""The ledger: what was recalled, tried, settled, done and paid for; everything in a home but lessons and their vectors.

In:  values of `schema.py`, and conditions on their fields.
Out: the same values.
Does not know: what is asked of it (`Store`, `Receipts` and `ActivityLog` know), or where it stands.

A seam with two implementations. In a folder it is a database (`sqlite_ledger.py`): what is written together is there
together, and on the disk when it is acknowledged. On object storage it is LanceDB's tables (`table_ledger.py`), which
take one change at a time, in the order in which they come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

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
    Trajectory,
)
from reme_mcp.store.feed import Announce, News, Tell
from reme_mcp.store.tables import Row

# So long is waited for another process that writes.
WAIT_S = 30.0

# Where each kind of value stands. Some are a part of what stands there.
TABLES: Mapping[type[Any], str] = MappingProxyType(
    {
        Trajectory: "trajectories",
        Attempt: "trajectories",
        Recorded: "trajectories",
        Ended: "trajectories",
        ReceiptLine: "receipts",
        Handout: "receipts",
        Noted: "receipts",
        Spent: "costs",
        Entry: "log",
        # Experiences that a person deleted, as they were.
        Experience: "trash",
        Counters: "counters",
    }
)
# The kinds that are written, each with what tells two of its values apart; costs are only ever added.
KEYS: Mapping[type[Any], tuple[str, ...]] = MappingProxyType(
    {
        Trajectory: ("id",),
        ReceiptLine: ("receipt", "experience_id"),
        Spent: (),
        Entry: ("id",),
        Experience: ("id",),
        Counters: ("id",),
    }
)


@dataclass(frozen=True, slots=True)
class Is:
    """The field holds one of some values."""

    field: str
    values: Sequence[str]


@dataclass(frozen=True, slots=True)
class Contains:
    """The text of the field contains another."""

    field: str
    part: str


@dataclass(frozen=True, slots=True)
class Filled:
    """The text of the field is not empty."""

    field: str


@dataclass(frozen=True, slots=True)
class Since:
    """The time of the field is not before a moment."""

    field: str
    moment: datetime


@dataclass(frozen=True, slots=True)
class Either:
    """One of two conditions holds."""

    one: Is | Contains
    other: Is | Contains


Condition = Is | Contains | Filled | Since | Either


@dataclass(frozen=True, slots=True)
class Put:
    """Write values, in the place of those with their keys; `are_new` says that there are none of those."""

    kind: type[Any]
    values: Sequence[Any]
    are_new: bool = False


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove the values for which all conditions hold."""

    kind: type[Any]
    where: Sequence[Condition]


@dataclass(frozen=True, slots=True)
class Blank:
    """Empty some text fields of the values for which all conditions hold."""

    kind: type[Any]
    fields: Sequence[str]
    where: Sequence[Condition]


Change = Put | Drop | Blank | Announce | Tell


class Ledger(Protocol):
    """Where the values stand. Reading needs no lock; each `write` is one turn among all processes."""

    @property
    def has_feed(self) -> bool:
        """Return whether it takes `Announce` and `Tell`, and has news; otherwise the tables have to be looked at."""
        ...

    async def read(
        self,
        kind: type[Row],
        where: Sequence[Condition] = (),
        *,
        newest_by: str | None = None,
        offset: int = 0,
        limit: int | None = None,
    ) -> list[Row]:
        """Return the values for which all conditions hold.

        Args:
            kind: Of the values.
            where: The conditions; none for all values.
            newest_by: The field that orders them, the newest first; `None` for any order.
            offset: How many to leave out.
            limit: How many at most; `None` for all.

        Raises:
            StoreError: It can't be read.
        """
        ...

    async def write(
        self, changes: Sequence[Change], *, wait_s: float = WAIT_S, within: timedelta | None = None
    ) -> None:
        """Make the changes, in their order; they are there for good once it returns.

        Args:
            changes: What to write.
            wait_s: How long to wait for another process that writes.
            within: How long the writing may take where the right to it ends by itself; `None` where it does not.

        Raises:
            StoreError: They can't be made. In a folder none of them is; on object storage the first ones may be.
        """
        ...

    def turn(
        self, *, wait_s: float = WAIT_S, within: timedelta | None = None
    ) -> AbstractAsyncContextManager[list[Change]]:
        """Return what holds the right to write; what its block appends to the list is written when the block ends.

        In a folder nobody else writes meanwhile, and where the block raises, nothing is written. On object storage
        whoever comes here holds the pool already. The arguments are those of `write`.

        Raises:
            StoreError: As `write` does.
        """
        ...

    async def counters(self, since: int) -> tuple[int, Sequence[Counters]]:
        """Return a number that rises with every write, and the counters that were written since it was `since`.

        Raises:
            StoreError: It can't be read.
        """
        ...

    def is_quiet(self, table: str, since: int) -> bool:
        """Return whether there is nothing to know of one of LanceDB's tables beyond the news up to `since`.

        Raises:
            StoreError: It can't be read.
        """
        ...

    def news(self, table: str, since: int) -> News:
        """Return what has been told of one of LanceDB's tables since it was `since`, at first 0; needs a feed.

        Raises:
            StoreError: It can't be read.
        """
        ...

    def is_unfinished(self) -> bool:
        """Return whether somebody has announced a commit and not told of it: who holds the pool knows it died.

        Raises:
            StoreError: It can't be read.
        """
        ...

    async def version(self) -> int:
        """Return a number that another one follows with every write, by whichever process; 0 where it stands in tables.

        Raises:
            StoreError: It can't be read.
        """
        ...

    async def columns(
        self, kind: type[Any], names: Sequence[str], where: Sequence[Condition] = ()
    ) -> list[tuple[Any, ...]]:
        """Return some fields of the values for which all conditions hold, each as a column, in the same order.

        For what is counted by the hundred thousand, of which no values are made. Times are microseconds since 1970.

        Args:
            kind: Of the values.
            names: The fields.
            where: The conditions; none for all values.

        Raises:
            StoreError: It can't be read.
        """
        ...

    async def purge_deleted(self) -> None:
        """Leave nothing in its files that was removed or emptied.

        Raises:
            StoreError: It can't be written.
        """
        ...

    def close(self) -> None:
        """Close it; it is not used after this."""
        ...
