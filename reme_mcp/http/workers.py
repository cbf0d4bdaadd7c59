"""Several processes at one socket: started, replaced when one dies, and ended together.

In:  a socket that listens, how many processes, and what each of them does with it.
Out: an exit status, when all of them are gone.
Does not know: what they do.

The first starts alone, so that what keeps it from serving is told once. A process that finds its parent gone ends as if
it had been told to.

uvicorn has a supervisor of its own. Its processes outlive a parent that is killed, one that dies while it starts is
started for ever, and one that is too busy to say that it is alive is killed with the calls that it answers.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

logger = logging.getLogger(__name__)

# A process that dies is replaced; where so many died in so many seconds, the next would die, too.
MAX_DEATHS = 10
DEATHS_S = 60.0
# How long the system gets to have room again for a process that it could not start.
NO_ROOM_S = 5.0

# What a process does: with its number, from 0, and the socket; it calls the last when it serves.
Work = Callable[[int, socket.socket, Callable[[], None]], None]


class _Worker:
    """One process, from its start on."""

    def __init__(self, work: Work, number: int, listener: socket.socket) -> None:
        self.is_serving = False
        context = multiprocessing.get_context("spawn")
        self.said, says = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(
            target=_run, args=(work, number, listener, says), name=f"worker {number + 1}"
        )
        with _without_interrupt():
            self.process.start()
        # It holds its own end; this one would hide that it is gone.
        says.close()

    def read_report(self) -> None:
        """Take in that it serves, or that it never will."""
        with suppress(EOFError):
            self.is_serving = self.said.recv()
            logger.info("worker %d serves", self.process.pid)

    def close(self) -> SpawnProcess:
        """Return the process, which has ended."""
        self.process.join()
        self.said.close()
        return self.process


def supervise(
    listener: socket.socket, count: int, work: Work, *, on_death: Callable[[int, int], None], stop_timeout_s: float
) -> int:
    """Keep `count` processes at work until this one is told to stop; return its exit status.

    Args:
        listener: Where they accept; it is closed in this process when they are told to stop.
        count: How many.
        work: What each does. It can be pickled, and ends on SIGTERM.
        on_death: Called with the number and the process id of one that died, before another takes its place.
        stop_timeout_s: How long they may take to end, seconds; those that take longer are killed.
    """
    workers: dict[int, _Worker] = {}
    deaths: deque[float] = deque(maxlen=MAX_DEATHS)
    has_served = False

    def is_last(how: str) -> bool:
        """Count a death; return whether the server stops for it, which is logged."""
        deaths.append(time.monotonic())
        if not has_served:
            logger.error("%s before any served; the server stops", how)
        elif len(deaths) == MAX_DEATHS and deaths[-1] - deaths[0] < DEATHS_S:
            logger.error("%s, the last of %d in a minute; the server stops", how, MAX_DEATHS)
        else:
            return False
        return True

    with _signals() as told:
        try:
            while True:
                pause_s: float | None = None
                for number in range(count if has_served else 1):
                    if number in workers or pause_s is not None:
                        continue
                    try:
                        workers[number] = _Worker(work, number, listener)
                    except OSError as exc:
                        how = f"worker {number + 1} of {count} can't be started ({exc.strerror or exc})"
                        if is_last(how):
                            return 1
                        pause_s = NO_ROOM_S
                        logger.warning("%s; it is tried again in %d s", how, pause_s)
                sentinels = {worker.process.sentinel: number for number, worker in workers.items()}
                starting = {worker.said: worker for worker in workers.values() if not worker.is_serving}
                happened = wait([told, *starting, *sentinels], pause_s)
                if told in happened:
                    return 128 + signal.SIGINT if signal.SIGINT in told.recv(16) else 0
                for said in starting.keys() & set(happened):
                    starting[said].read_report()
                    has_served = has_served or starting[said].is_serving
                for number in [sentinels[one] for one in sentinels.keys() & set(happened)]:
                    process = workers.pop(number).close()
                    how = f"worker {process.pid} ended (exit status {process.exitcode})"
                    if is_last(how):
                        return 1
                    logger.warning("%s; another takes its place", how)
                    on_death(number, process.pid or 0)
        finally:
            listener.close()
            _end(list(workers.values()), told, stop_timeout_s)


def _end(workers: list[_Worker], told: socket.socket, timeout_s: float) -> None:
    """Tell all to end, and wait for them; kill those that take too long, or longer than a person has patience."""
    until = time.monotonic() + timeout_s
    for worker in workers:
        worker.process.terminate()
    left = {worker.process.sentinel: worker for worker in workers}
    while left and (seconds := until - time.monotonic()) > 0:
        happened = wait([told, *left], seconds)
        if told in happened and signal.SIGINT in told.recv(16):
            break
        left = {sentinel: worker for sentinel, worker in left.items() if sentinel not in happened}
    for worker in left.values():
        logger.warning("worker %d did not end in time", worker.process.pid)
        worker.process.kill()
    for worker in workers:
        worker.close()


@contextmanager
def _without_interrupt() -> Iterator[None]:
    """Start what a person's Ctrl-C does not reach: the parent tells it to end."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Yield where the numbers of the signals arrive that tell a process to end."""
    told, tells = socket.socketpair()
    with told, tells:
        tells.setblocking(False)
        wakeup = signal.set_wakeup_fd(tells.fileno())
        handlers = {one: signal.signal(one, lambda *_: None) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield told
        finally:
            for one, handler in handlers.items():
                signal.signal(one, handler)
            signal.set_wakeup_fd(wakeup)


# --- in the process of a worker ---


def is_orphaned() -> bool:
    """Return whether the parent of this process is gone, so that nobody cleans up after it."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _run(work: Work, number: int, listener: socket.socket, says: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(number, listener, partial(says.send, True))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGTERM)
