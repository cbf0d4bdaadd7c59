"""A lock on a file, which the operating system lets go of when its holder dies. The only file that imports `filelock`.

In:  a path.
Out: the lock, held by one at a time among all that name the same file, in this process or another.
Does not know: what it protects, or who holds it.

Waiting costs nothing, and whoever came first is first: the system wakes up a thread that waits in it. With eight
processes, looking at the file every few milliseconds took half of all processor time, and some never had luck. Windows
has no such call; there is looked, with `filelock`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio import RunFinishedError, from_thread
from anyio.lowlevel import EventLoopToken, current_token

# The locks of a home are its owner's, as the home is.
MODE = 0o600

if sys.platform == "win32":
    POLL_S = 0.005

    class FileLock:
        """Held or not, by whoever has this object."""

        def __init__(self, path: Path) -> None:
            from filelock import FileLock as Polled

            self._file = Polled(path, mode=MODE, thread_local=False)

        def take_now(self) -> bool:
            """Return whether the lock is held now.

            Raises:
                OSError: The file can't be made or locked.
            """
            from filelock import Timeout

            try:
                self._file.acquire(timeout=0)
            except Timeout:
                return False
            return True

        async def take(self) -> None:
            """Wait for the lock and hold it.

            Raises:
                OSError: The file can't be made or locked.
            """
            while not self.take_now():  # noqa: ASYNC110  no other process sets an event
                await anyio.sleep(POLL_S)

        def release(self) -> None:
            """Let go of it."""
            self._file.release()

else:
    import fcntl

    MOMENT_S = 0.001

    @dataclass(slots=True)
    class _Waiting:
        """A thread that waits for the lock: what it came to, unless nobody is there any more to be told."""

        token: EventLoopToken
        over: anyio.Event = field(default_factory=anyio.Event)
        deciding: threading.Lock = field(default_factory=threading.Lock)
        is_abandoned: bool = False
        is_over: bool = False
        opened: int | None = None
        failure: OSError | None = None

        def run(self, opened: int) -> None:
            """Wait in the system for the lock on an open file."""
            try:
                fcntl.flock(opened, fcntl.LOCK_EX)
            except OSError as exc:
                self.failure = exc
            with self.deciding:
                self.is_over = True
                if self.is_abandoned or self.failure is not None:
                    os.close(opened)
                else:
                    self.opened = opened
            try:
                from_thread.run_sync(self.over.set, token=self.token)
            except RunFinishedError:
                self.abandon()

        def is_ending(self) -> bool:
            """Return whether the wait is over, having given its thread a moment to say so."""
            time.sleep(MOMENT_S)
            with self.deciding:
                return self.is_over

        def adopt(self, token: EventLoopToken) -> bool:
            """Have it wait for somebody else, if it was abandoned and waits still: no call can end it."""
            with self.deciding:
                if self.is_over:
                    return False
                self.token, self.over, self.is_abandoned = token, anyio.Event(), False
                return True

        def abandon(self) -> None:
            """Let go of the lock, now or as soon as it comes."""
            with self.deciding:
                self.is_abandoned = True
                if self.opened is not None:
                    os.close(self.opened)
                    self.opened = None

    class FileLock:
        """Held or not, by whoever has this object."""

        def __init__(self, path: Path) -> None:
            self._path = path
            self._held: int | None = None
            self._waiting: _Waiting | None = None

        def take_now(self) -> bool:
            """Return whether the lock is held now.

            Raises:
                OSError: The file can't be made or locked.
            """
            # An abandoned wait of our own may have come to its end this very moment.
            return self._try_to_take() or (
                self._waiting is not None and self._waiting.is_ending() and self._try_to_take()
            )

        async def take(self) -> None:
            """Wait for the lock and hold it.

            Raises:
                OSError: The file can't be made or locked.
            """
            waiting = self._waiting
            if waiting is None or not waiting.adopt(current_token()):
                waiting = self._waiting = _Waiting(current_token())
                # A daemon: a process that ends waits for nobody who holds the lock.
                threading.Thread(target=waiting.run, args=[self._open()], name="wait-for-lock", daemon=True).start()
            try:
                await waiting.over.wait()
            except BaseException:
                waiting.abandon()
                raise
            self._waiting = None
            if waiting.failure is not None:
                raise waiting.failure
            self._held = waiting.opened

        def release(self) -> None:
            """Let go of it."""
            if self._held is not None:
                os.close(self._held)
                self._held = None

        def _try_to_take(self) -> bool:
            opened = self._open()
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(opened)
                return False
            except BaseException:
                os.close(opened)
                raise
            self._held = opened
            return True

        def _open(self) -> int:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, MODE)
