"""A lock that reaches across tasks and processes. The only file that imports `filelock`.

In:  a path in the home.
Out: `async with lock:`, one holder at a time among all tasks of all processes that name the same file.
Does not know: what it protects.

A killed process leaves no lock behind: the operating system lets go of it.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

import anyio

from reme_mcp.errors import StoreError

POLL_S = 0.005
FOREVER = -1


class ProcessLock:
    """Held by one task of one process; waiting polls the file every `POLL_S` seconds."""

    def __init__(self, path: Path) -> None:
        from filelock import AsyncFileLock

        self._path = path
        self._tasks = anyio.Lock()
        # A try that does not wait needs no thread, and is over before one has begun.
        self._file = AsyncFileLock(path, poll_interval=POLL_S, run_in_executor=False)

    async def __aenter__(self) -> None:
        """Wait for the lock and hold it.

        Raises:
            StoreError: The file can't be made or locked.
        """
        await self._tasks.acquire()
        await self._lock_file(FOREVER)

    @asynccontextmanager
    async def unless_held(self) -> AsyncIterator[bool]:
        """Hold the lock if nobody does; the block is told whether it is held, and is not made to wait.

        Raises:
            StoreError: The file can't be made or locked.
        """
        try:
            self._tasks.acquire_nowait()
        except anyio.WouldBlock:
            yield False
            return
        if not await self._lock_file(0):
            yield False
            return
        try:
            yield True
        finally:
            await self.__aexit__(None, None, None)

    def left(self) -> float:
        """Return for how many more seconds the holder may write: nobody takes over from a process that lives."""
        return math.inf

    async def _lock_file(self, timeout_s: float) -> bool:
        """Return whether the file could be locked in time; whatever comes in between, no task is kept out by it."""
        from filelock import Timeout

        try:
            await self._file.acquire(timeout=timeout_s)
        except BaseException as exc:
            self._tasks.release()
            if isinstance(exc, Timeout):
                return False
            if isinstance(exc, OSError):
                raise StoreError(f"can't lock {self._path} ({exc.strerror}); is the folder writable?") from exc
            raise
        return True

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock, whatever happened."""
        try:
            with anyio.CancelScope(shield=True):
                await self._file.release()
        finally:
            self._tasks.release()
