"""Callers that ask for the same while it can't be done yet: it is done once, for all of them.

In:  what is to be done and whose turn it takes; what each caller brings.
Out: done, begun after the caller asked, or the error that it ended with.
Does not know: what it is.

A write costs the same for one row as for sixty, and a look whether anything has changed answers everybody who waits.
Under load this is what keeps those who wait for the same lock from doing one after the other what could be done once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import anyio

from reme_mcp.errors import StoreError

Item = TypeVar("Item")


@dataclass(slots=True)
class _Round(Generic[Item]):
    """Who waits for the same turn, and what came of it."""

    items: list[Item]
    over: anyio.Event = field(default_factory=anyio.Event)
    is_done: bool = False
    failure: StoreError | None = None


class Gathering(Generic[Item]):
    """One thing to do, for as many at once as wait for it."""

    def __init__(
        self, turn: Callable[[], AbstractAsyncContextManager[None]], do: Callable[[list[Item]], Awaitable[None]]
    ) -> None:
        """Make one.

        Args:
            turn: Gives the lock under which it is done.
            do: Does it, for all that callers have brought by the time that the turn has come.
        """
        self._turn = turn
        self._do = do
        self._next: _Round[Item] | None = None

    async def join(self, items: Sequence[Item] = ()) -> None:
        """Have it done with these items among others.

        Raises:
            StoreError: It could not be done; nobody's items were taken.
        """
        while self._next is not None:
            gathered = self._next
            gathered.items += items
            await gathered.over.wait()
            if gathered.failure is not None:
                raise StoreError(str(gathered.failure)) from gathered.failure
            if gathered.is_done:
                return
            # Whoever was to do it was cancelled.
        await self._do_for_all(_Round([*items]))

    async def _do_for_all(self, gathered: _Round[Item]) -> None:
        self._next = gathered
        try:
            async with self._turn():
                # Who comes from now on may want what begins from now on.
                self._next = None
                await self._do(gathered.items)
                gathered.is_done = True
        except StoreError as exc:
            gathered.failure = exc
            raise
        finally:
            if self._next is gathered:
                self._next = None
            gathered.over.set()
