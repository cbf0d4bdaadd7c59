"""A lock that reaches across tasks and processes. The only file that imports `filelock`.

In:  a path in the home.
Out: `async with lock:`, one holder at a time among all tasks of all processes that name the same file.
Does not know: what it protects.

A killed process leaves no lock behind: the operating system lets go of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType

import anyio

from reme_mcp.errors import StoreError

POLL_S = 0.005


class ProcessLock:
    """Held by one task of one process; waiting polls the file every `POLL_S` seconds."""

    def __init__(self, path: Path) -> None:
        from filelock import AsyncFileLock

        self._path = path
        self._tasks = anyio.Lock()
        self._file = AsyncFileLock(path, poll_interval=POLL_S)

    async def __aenter__(self) -> None:
        """Wait for the lock and hold it.

        Raises:
            StoreError: The file can't be made or locked.
        """
        await self._tasks.acquire()
        try:
            await self._file.acquire()
        except OSError as exc:
            self._tasks.release()
            raise StoreError(f"can't lock {self._path} ({exc.strerror}); is the folder writable?") from exc
        except BaseException:
            self._tasks.release()
            raise

    @asynccontextmanager
    async def unless_held(self) -> AsyncIterator[bool]:
        """Hold the lock if nobody does; the block is told whether it is held, and is not made to wait.

        Raises:
            StoreError: The file can't be made or locked.
        """
        from filelock import Timeout

        try:
            self._tasks.acquire_nowait()
        except anyio.WouldBlock:
            yield False
            return
        try:
            await self._file.acquire(timeout=0)
        except Timeout:
            self._tasks.release()
            yield False
            return
        except OSError as exc:
            self._tasks.release()
            raise StoreError(f"can't lock {self._path} ({exc.strerror}); is the folder writable?") from exc
        try:
            yield True
        finally:
            await self.__aexit__(None, None, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock, whatever happened."""
        try:
            with anyio.CancelScope(shield=True):
                await self._file.release()
        finally:
            self._tasks.release()
