"""What the processes of one server have in common: what each holder asks for, who has how many connections, a key.

In:  requests that begin and end, by holder; how many connections a process has.
Out: whether there is room for one more request, and how long it has to wait; whose turn it is to take a connection.
Does not know: HTTP, who the holders are.

The limits that a person sets are the server's, whichever of its processes answers. They are counted in memory that
all of them see, without a lock, so that a process which is killed leaves nothing locked: every number is written whole,
and each process counts its open requests in a column of its own. Where two processes write about one holder in the same
microsecond, one of the two requests is not counted.

Source: the generic cell rate algorithm, ITU-T I.371, annex A.1.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import secrets
import time
from array import array
from collections.abc import Callable, MutableSequence
from dataclasses import dataclass, field
from typing import Self

# So many holders are told apart at once; one is in one of a few places of the table.
PLACES = 16_384
NEAR = 32
MINUTE_S = 60.0
# What floats lose while they are added up.
ROUNDING_S = 1e-6
# The connections of a process that takes none.
NOT_THERE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Shared:
    """Made once for a server, and handed to each of its processes.

    Attributes:
        workers: How many processes there are.
        holders: Whose each place is, as a digest; 0 for nobody's.
        due_at: When what the holder has asked for would be used up at an even pace, in seconds.
        open_requests: How many each holder has open; the places of the first process, of the second, …
        connections: How many each process has.
        app_key: What the Apps' calls bring, see `server.state`.
    """

    workers: int = 1
    holders: MutableSequence[int] = field(default_factory=lambda: array("Q", bytes(8 * PLACES)))
    due_at: MutableSequence[float] = field(default_factory=lambda: array("d", bytes(8 * PLACES)))
    open_requests: MutableSequence[int] = field(default_factory=lambda: array("L", bytes(array("L").itemsize * PLACES)))
    connections: MutableSequence[int] = field(default_factory=lambda: array("L", [NOT_THERE]))
    app_key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    @classmethod
    def among(cls, workers: int) -> Self:
        """Return one that several processes see once they are started with it."""
        memory = multiprocessing.get_context("spawn").RawArray
        return cls(
            workers,
            memory("Q", PLACES),
            memory("d", PLACES),
            memory("L", PLACES * workers),
            memory("L", [NOT_THERE] * workers),
        )

    def clear(self, worker: int) -> None:
        """Forget what a process had open that has ended."""
        self.connections[worker] = NOT_THERE
        for place in range(worker * PLACES, (worker + 1) * PLACES):
            self.open_requests[place] = 0


class Limits:
    """What is allowed to each holder, as one process of the server sees it."""

    def __init__(
        self,
        shared: Shared,
        worker: int,
        *,
        requests_per_minute: int,
        max_open_requests: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._first = worker * PLACES
        self._requests_per_minute = requests_per_minute
        self._max_open_requests = max_open_requests
        # All processes of a machine read the same.
        self._clock = clock

    def take(self, holder: str) -> float:
        """Take one request from what a holder has left; return seconds to wait where nothing is."""
        if not self._requests_per_minute:
            return 0.0
        place, at = self._place(holder), self._clock()
        due_at = max(self._shared.due_at[place], at) + MINUTE_S / self._requests_per_minute
        wait_s = due_at - at - MINUTE_S
        if wait_s > ROUNDING_S:
            return wait_s
        self._shared.due_at[place] = due_at
        return 0.0

    def open(self, holder: str) -> int | None:
        """Count a request that begins; return what `close` takes, `None` where the holder has as many as one may."""
        place = self._place(holder)
        if self._opened(place) >= self._max_open_requests:
            return None
        self._shared.open_requests[self._first + place] += 1
        return place

    def close(self, place: int) -> None:
        """Count a request no more."""
        self._shared.open_requests[self._first + place] -= 1

    def _opened(self, place: int) -> int:
        return sum(self._shared.open_requests[worker * PLACES + place] for worker in range(self._shared.workers))

    def _place(self, holder: str) -> int:
        """Return a holder's place: that which is its own, or one of which nothing has to be remembered."""
        digest = int.from_bytes(hashlib.blake2b(holder.encode(), digest_size=8).digest(), "big") or 1
        near = [(digest + step) % PLACES for step in range(NEAR)]
        for place in near:
            if self._shared.holders[place] == digest:
                return place
        at = self._clock()
        for place in near:
            if self._shared.due_at[place] <= at and not self._opened(place):
                self._shared.holders[place] = digest
                return place
        # More are busy than were thought of: two count as one.
        return near[0]


class Turns:
    """Whose turn it is to take a connection. It stays where it is, so that the process with the fewest goes first."""

    def __init__(self, shared: Shared, worker: int) -> None:
        self._connections = shared.connections
        self._worker = worker

    def tell(self, connections: int) -> None:
        """Say how many this process has."""
        self._connections[self._worker] = connections

    def leave(self) -> bool:
        """Say that this process takes none any more and has answered all; return whether none is left that has not."""
        self.tell(NOT_THERE)
        return min(self._connections) == NOT_THERE

    def is_mine(self) -> bool:
        """Return whether no other process has clearly fewer."""
        return self._connections[self._worker] <= min(self._connections) + 1
