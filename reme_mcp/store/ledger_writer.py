"""What is written into the ledger together: changes that are gathered, and made when a turn ends.

In:  values of `schema.py`.
Out: changes as `ledger.py` makes them.
Does not know: when they are made (`Store.settling` and `Store.writing` do).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reme_mcp.schema import Counters, Entry, Experience, ReceiptLine, Spent, Trajectory
from reme_mcp.store.ledger import Blank, Change, Drop, Either, Is, Put


class LedgerWriter:
    """The right to write into the ledger. What puts may be repeated safely."""

    def __init__(self, changes: list[Change]) -> None:
        """Make one; `changes` are those that are made when the turn ends."""
        self._changes = changes

    def discard(self) -> None:
        """Write nothing of what has come so far."""
        self._changes.clear()

    async def add_log(self, entries: Sequence[Entry], *, are_new: bool = True) -> None:
        """Append entries to the log; where they may be there already (`are_new` off), none stands there twice."""
        self._put_values(Entry, entries, are_new=are_new)

    async def put_counters(self, experiences: Sequence[Experience]) -> None:
        """Store the counters of experiences, and nothing else of them."""
        self._put_values(Counters, [Counters.of(one) for one in experiences])

    async def drop_counters(self, experience_id: str) -> None:
        """Keep the counters of an experience no longer, which will never come back."""
        self._changes.append(Drop(Counters, [Is("id", [experience_id])]))

    async def put_deleted(self, experience: Experience) -> None:
        """Keep an experience that is about to be deleted."""
        self._put_values(Experience, [experience])

    async def drop_deleted(self, workspace: str, experience_id: str) -> None:
        """Keep a deleted experience no longer."""
        self._changes.append(Drop(Experience, [Is("workspace", [workspace]), Is("id", [experience_id])]))

    async def add_trajectory(self, trajectory: Trajectory) -> None:
        """Append a trajectory whose id is new."""
        self._put_values(Trajectory, [trajectory], are_new=True)

    async def put_trajectory(self, trajectory: Trajectory) -> None:
        """Insert the trajectory, or replace the one with its id."""
        self._put_values(Trajectory, [trajectory])

    async def settle(self, lines: Sequence[ReceiptLine]) -> None:
        """Replace these lines, each found by its receipt and experience."""
        self._put_values(ReceiptLine, lines)

    async def empty_receipts(self, workspace: str, experience_id: str, tasks: Sequence[str]) -> None:
        """Take task, its vector and reason out of the lines of an experience, and of recalls for any of these tasks."""
        about = Is("experience_id", [experience_id])
        where = [Is("workspace", [workspace]), Either(about, Is("task", tasks)) if tasks else about]
        self._changes.append(Blank(ReceiptLine, ["task", "reason", "task_vector"], where))

    async def add_spent(self, spent: Sequence[Spent]) -> None:
        """Append what questions to the model behind the server have cost."""
        self._put_values(Spent, spent, are_new=True)

    def _put_values(self, kind: type[Any], values: Sequence[Any], *, are_new: bool = False) -> None:
        if values:
            self._changes.append(Put(kind, values, are_new))
