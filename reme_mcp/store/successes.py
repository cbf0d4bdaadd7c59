"""How many attempts of a workspace succeeded.

In:  the ledger of a store.
Out: two numbers. Every recall asks for them, so that only attempts are read that came since.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from reme_mcp.schema import Attempt
from reme_mcp.store.ledger import Is, Ledger, Since


@dataclass(slots=True)
class _Counted:
    """What was counted of one workspace; `latest` are the ids of `newest_at`, which may get company."""

    succeeded: int = 0
    attempts: int = 0
    newest_at: datetime | None = None
    latest: set[str] = field(default_factory=set)


class Successes:
    """The successes of one store. An attempt that was erased meanwhile still counts until the store is opened anew."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._counted: dict[str, _Counted] = {}

    async def count(self, workspace: str) -> tuple[int, int]:
        """Return how many attempts of `workspace` succeeded, and how many there are."""
        counted = self._counted.setdefault(workspace, _Counted())
        since = [] if counted.newest_at is None else [Since("created_at", counted.newest_at)]
        found = await self._ledger.read(Attempt, [Is("workspace", [workspace]), *since])
        for attempt in sorted(found, key=lambda one: one.created_at):
            if attempt.id in counted.latest or (counted.newest_at and attempt.created_at < counted.newest_at):
                continue
            if attempt.created_at != counted.newest_at:
                counted.newest_at, counted.latest = attempt.created_at, set()
            counted.latest.add(attempt.id)
            counted.attempts += 1
            counted.succeeded += attempt.outcome == "success"
        return counted.succeeded, counted.attempts
