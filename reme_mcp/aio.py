"""Doing several things at once: gather results, batch what waits, keep what blocks out of the way of the rest.

In:  async functions without arguments, blocking functions, names of modules.
Out: their results.
Does not know: what is done.
"""

from __future__ import annotations

import atexit
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Generic, TypeVar

import anyio
import anyio.to_thread
from anyio import RunFinishedError, from_thread
from anyio.lowlevel import current_token

from reme_mcp.errors import StoreError

# Who sleeps for so long wakes later than that where others keep the loop.
BREATH_S = 0.002
# As late as the clock may tell it to be, and a little more.
LATE_S = max(0.002, 1.5 * time.get_clock_info("monotonic").resolution)
LONGEST_WAIT_S = 0.05

First = TypeVar("First")
Second = TypeVar("Second")


async def gather(
    first: Callable[[], Awaitable[First]], second: Callable[[], Awaitable[Second]]
) -> tuple[First, Second]:
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


async def let_others_go_first() -> None:
    """Return once nothing else is being done, or after `LONGEST_WAIT_S`: for work that nobody waits for."""
    deadline = time.monotonic() + LONGEST_WAIT_S
    while (asked_at := time.monotonic()) < deadline:
        await anyio.sleep(BREATH_S)
        if time.monotonic() - asked_at < BREATH_S + LATE_S:
            return


Item = TypeVar("Item")


@dataclass(slots=True)
class _Round(Generic[Item]):
    """Who waits for the same turn, and what came of it."""

    items: list[Item]
    over: anyio.Event = field(default_factory=anyio.Event)
    is_done: bool = False
    failure: StoreError | None = None


class Batcher(Generic[Item]):
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

    async def submit(self, items: Sequence[Item] = ()) -> None:
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


Result = TypeVar("Result")


# To redact or screen so many characters takes ten milliseconds or more, while every other call would wait.
LONG_CHARS = 20_000


async def off_loop_if_long(work: Callable[[], Result], chars: int) -> Result:
    """Run `work` on a text of so many characters: a long one in a thread, so that other calls go on meanwhile."""
    return work() if chars < LONG_CHARS else await anyio.to_thread.run_sync(work)


def import_for_good(module: str) -> None:
    """Import a module, and what it brings along, without a search for garbage in it, now or ever after."""
    gc.disable()
    try:
        import_module(module)
    finally:
        gc.freeze()
        gc.enable()


# How long an interpreter that ends waits for such a thread: inside an extension, it would abort the process.
DAEMON_S = 10.0


async def in_daemon_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in a thread that a process which ends does not wait for long: a download may hang for a minute."""
    done = anyio.Event()
    token = current_token()
    outcome: list[Result | BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as exc:  # noqa: BLE001  it is raised where it is waited for
            outcome.append(exc)
        with suppress(RunFinishedError):
            from_thread.run_sync(done.set, token=token)

    thread = threading.Thread(target=run, name="load-embedder", daemon=True)
    thread.start()
    atexit.register(thread.join, DAEMON_S)
    await done.wait()
    atexit.unregister(thread.join)
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
