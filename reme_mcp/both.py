"""Two things at the same time.

In:  two functions to await.
Out: what both returned, or the error of the first that failed, as itself and not in a group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

First = TypeVar("First")
Second = TypeVar("Second")


async def both(first: Callable[[], Awaitable[First]], second: Callable[[], Awaitable[Second]]) -> tuple[First, Second]:
    """Await both at the same time; when one fails, the other is cancelled."""
    left: list[First] = []
    right: list[Second] = []

    async def run_first() -> None:
        left.append(await first())

    async def run_second() -> None:
        right.append(await second())

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_first)
            tasks.start_soon(run_second)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    return left[0], right[0]
