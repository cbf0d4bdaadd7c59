"""A lock that reaches across tasks and processes.

In:  a path in the home.
Out: `async with lock:`, one holder at a time among all tasks of all processes that name the same file.
Does not know: what it protects.

A killed process leaves no lock behind: the operating system lets go of it. One that is stopped keeps it, so that nobody
waits without an end: who waits says so after `TELL_AFTER_S`, and gives up after `WAIT_S` with an error that names the
holder, which has written its process id and command into the lock file.
"""

from __future__ import annotations

import logging
import math
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType

import anyio

from reme_mcp.errors import StoreError
from reme_mcp.progress import on_wait
from reme_mcp.store.file_lock import FileLock

logger = logging.getLogger(__name__)

WAIT_S = 30.0
TELL_AFTER_S = 1.0
PROGRAM = "reme-mcp"
MAX_HOLDER_BYTES = 200


class ProcessLock:
    """Held by one task of one process."""

    def __init__(self, path: Path, *, wait_s: float = WAIT_S) -> None:
        """Make one; `wait_s` is how many seconds to wait for it at most."""
        self._path = path
        self._wait_s = wait_s
        self._tasks = anyio.Lock()
        self._file = FileLock(path)

    async def __aenter__(self) -> None:
        """Wait for the lock and hold it.

        Raises:
            StoreError: The file can't be made or locked, or somebody holds it for longer than may be waited.
        """
        await self._acquire(self._wait_s)

    @asynccontextmanager
    async def within(self, wait_s: float) -> AsyncIterator[None]:
        """Hold the lock, having waited for it `wait_s` seconds at most.

        Raises:
            StoreError: As `__aenter__` does.
        """
        await self._acquire(wait_s)
        try:
            yield
        finally:
            await self.__aexit__(None, None, None)

    def holder(self) -> str:
        """Return who holds the lock, or held it last: `process 4711 (reme-mcp record)`."""
        try:
            with self._path.open("rb") as file:
                said = file.read(MAX_HOLDER_BYTES).decode(errors="replace").splitlines()
        except OSError:
            # Windows lets nobody read what another has locked.
            said = []
        if not said or not re.fullmatch(r"\d+ [a-z -]+", said[0]):
            return "another process"
        pid, command = said[0].split(" ", 1)
        return f"another call of this process ({pid})" if int(pid) == os.getpid() else f"process {pid} ({command})"

    async def _acquire(self, wait_s: float) -> None:
        if await self._try(0) or await self._try(min(wait_s, TELL_AFTER_S)):
            return
        if wait_s > TELL_AFTER_S:
            await on_wait.get()(f"Waiting for {self.holder()}, which holds {self._path.name}")
            if await self._try(wait_s - TELL_AFTER_S):
                return
        raise StoreError(
            f"{self.holder()} has held {self._path.name} for {wait_s:g} s, and nothing was stored; "
            "try again, or end that process if it is stuck"
        )

    @asynccontextmanager
    async def unless_held(self) -> AsyncIterator[bool]:
        """Hold the lock if nobody does; the block is told whether it is held, and is not made to wait.

        Raises:
            StoreError: The file can't be made or locked.
        """
        if not await self._try(0):
            yield False
            return
        try:
            yield True
        finally:
            await self.__aexit__(None, None, None)

    def left(self) -> float:
        """Return for how many more seconds the holder may write: nobody takes over from a process that lives."""
        return math.inf

    async def _try(self, wait_s: float) -> bool:
        """Return whether the lock is held within so many seconds; without any, nobody is waited for."""
        deadline = anyio.current_time() + wait_s
        try:
            self._tasks.acquire_nowait()
        except anyio.WouldBlock:
            is_ours = False
            with anyio.move_on_after(wait_s):
                await self._tasks.acquire()
                is_ours = True
            if not is_ours:
                return False
        return await self._lock_file(max(0.0, deadline - anyio.current_time()))

    async def _lock_file(self, timeout_s: float) -> bool:
        """Return whether the file could be locked in time; whatever comes in between, no task is kept out by it."""
        is_ours = False
        try:
            is_ours = self._file.take_now()
            if not is_ours and timeout_s:
                with anyio.move_on_after(timeout_s):
                    await self._file.take()
                    is_ours = True
        except OSError as exc:
            raise StoreError(f"can't lock {self._path} ({exc.strerror}); is the folder writable?") from exc
        finally:
            if not is_ours:
                self._tasks.release()
        if not is_ours:
            return False
        self._sign()
        return True

    def _sign(self) -> None:
        """Write down who holds the lock; where that fails, whoever waits is told less."""
        # Of its arguments only the command: an option may carry a secret or a path.
        command = " ".join(word for word in (PROGRAM, *sys.argv[1:2]) if re.fullmatch(r"[a-z][a-z-]*", word))
        with suppress(OSError):
            file = os.open(self._path, os.O_WRONLY)
            try:
                os.write(file, f"{os.getpid()} {command}\n".encode())
            finally:
                os.close(file)

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lock, whatever happened."""
        try:
            self._file.release()
        finally:
            self._tasks.release()
