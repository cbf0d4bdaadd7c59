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
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

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
    """Import a module into a process that is ours alone, without a search for garbage in it, now or later."""
    gc.disable()
    try:
        import_module(module)
    finally:
        gc.freeze()
        gc.enable()


class _Outcome(Generic[Result]):
    """What comes of work in a thread, for whoever waits for it in the loop."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._is_over = anyio.Event()
        self._loop = current_token()
        self._outcome: Result | BaseException | None = None

    def work(self) -> None:
        """Do it, in the thread."""
        try:
            self._outcome = self._work()
        except BaseException as exc:  # noqa: BLE001  it is raised where it is waited for
            self._outcome = exc
        with suppress(RunFinishedError):
            from_thread.run_sync(self._is_over.set, token=self._loop)

    async def wait(self) -> None:
        """Come back when it is over."""
        await self._is_over.wait()

    async def wait_to_the_end(self) -> None:
        """Come back when it is over and no sooner, however one is cancelled meanwhile; raise the cancellation then."""
        cancelled: BaseException | None = None
        with anyio.CancelScope(shield=True):
            # What asyncio cancels itself, as after Ctrl-C, no scope shields.
            while not self._is_over.is_set():
                try:
                    await self._is_over.wait()
                except anyio.get_cancelled_exc_class() as exc:
                    cancelled = exc
        if cancelled is not None:
            raise cancelled

    def result(self) -> Result:
        """Return what the work has returned, or raise what it has raised."""
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return cast(Result, self._outcome)


class WorkerThread:
    """One thread that does one thing after the other, and begins at once.

    One of anyio's begins after all others have had a turn, twice: with many calls that takes as long as the work.
    """

    def __init__(self) -> None:
        self._given: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns, or raise what it raises; who is cancelled waits for it all the same."""
        outcome = _Outcome(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
            self._thread.start()
        self._given.put(outcome.work)
        await outcome.wait_to_the_end()
        return outcome.result()

    def close(self) -> None:
        """End the thread, once it has done all that it was given."""
        if self._thread is not None:
            self._given.put(None)
            self._thread = None

    def _work(self) -> None:
        while (work := self._given.get()) is not None:
            work()


# How long an interpreter that ends waits for such a thread: inside an extension, it would abort the process.
DAEMON_S = 10.0


async def in_daemon_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in a thread that a process which ends does not wait for long: a download may hang for a minute."""
    outcome = _Outcome(work)
    thread = threading.Thread(target=outcome.work, name="load-embedder", daemon=True)
    thread.start()
    atexit.register(thread.join, DAEMON_S)
    await outcome.wait()
    atexit.unregister(thread.join)
    return outcome.result()
