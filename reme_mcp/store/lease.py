"""A lock that reaches across machines: an object that says who holds it, written only by who has seen it last.

In:  a place on object storage, a name.
Out: `async with lease:`, one holder at a time among all tasks of all processes that name the same object.
Does not know: what it protects.

Nobody lets go of it for a process that was killed, as the operating system does with `lock.py`. So the holder renews it
every few seconds, and whoever finds it unchanged for `LEASE_S` seconds takes it over. No two clocks are compared: each
measures on its own how long it has seen no change, and how long ago it has renewed. A process that was held up for too
long (stopped, asleep, cut off) finds out before it writes, in `left`, and not afterwards.

Source: Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency", 1989.
"""

from __future__ import annotations

import json
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType

import anyio
from anyio.abc import TaskGroup

from reme_mcp.errors import StoreError
from reme_mcp.store.object_store import Objects, Version

logger = logging.getLogger(__name__)

# From the last change on, others wait so long; the holder itself believes that it holds it for less, so that what it
# has sent off by then arrives before anybody else begins.
LEASE_S = 20.0
HELD_S = 12.0
RENEW_EVERY_S = 4.0
POLL_S = 0.15
# Who takes turn after turn steps back once in so many seconds, for long enough that every other has looked.
STEP_BACK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Moment:
    """A point in time by two clocks: one may stand still while a machine sleeps, the other may be set."""

    monotonic: float
    wall: float

    @classmethod
    def now(cls) -> _Moment:
        return cls(time.monotonic(), time.time())

    def elapsed(self) -> float:
        """Return how many seconds it is ago at most."""
        return max(time.monotonic() - self.monotonic, time.time() - self.wall)


class Lease:
    """Held by one task of one process; waiting looks at the object every `POLL_S` seconds, or a little earlier."""

    def __init__(self, objects: Objects, name: str) -> None:
        self._objects = objects
        self._name = f"locks/{name}.json"
        self._me = secrets.token_hex(8)
        self._turn = 0
        self._tasks = anyio.Lock()
        self._renewing: TaskGroup | None = None
        # What this process wrote last, as long as nobody else is known to have written since.
        self._own: Version | None = None
        self._renewed: _Moment | None = None
        # What somebody else wrote, and since when it was seen unchanged.
        self._other: tuple[Version, float] | None = None
        self._busy_since = 0.0
        self._let_go_at = 0.0

    async def __aenter__(self) -> None:
        """Wait for the lease and hold it.

        Raises:
            StoreError: The object can't be read or written.
        """
        await self._tasks.acquire()
        try:
            await self._step_back()
            while not await self._take():  # noqa: ASYNC110  who lets go of it is another process
                await anyio.sleep(random.uniform(POLL_S / 2, POLL_S))
        except BaseException:
            self._tasks.release()
            raise
        await self._keep()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the lease, whatever happened."""
        try:
            if self._renewing is not None:
                # It waits for a renewal that is under way, so that the last version is known.
                self._renewing.cancel_scope.cancel()
                await self._renewing.__aexit__(None, None, None)
        finally:
            self._renewing = None
            with anyio.CancelScope(shield=True):
                await self._let_go()
            self._let_go_at = time.monotonic()
            self._tasks.release()

    def within(self, _: float) -> Lease:
        """Return the lease itself: that of a process which is stopped runs out, so that nobody waits without an end."""
        return self

    @asynccontextmanager
    async def unless_held(self) -> AsyncIterator[bool]:
        """Hold the lease if nobody does; the block is told whether it is held, and is not made to wait.

        Raises:
            StoreError: The object can't be read or written.
        """
        try:
            self._tasks.acquire_nowait()
        except anyio.WouldBlock:
            yield False
            return
        taken = False
        try:
            taken = await self._take()
        finally:
            if not taken:
                self._tasks.release()
        if not taken:
            yield False
            return
        await self._keep()
        try:
            yield True
        finally:
            await self.__aexit__(None, None, None)

    def left(self) -> float:
        """Return for how many more seconds the holder may write.

        Raises:
            StoreError: It was held up for so long that others may have taken over.
        """
        left = 0.0 if self._renewed is None else HELD_S - self._renewed.elapsed()
        if left <= 0:
            raise StoreError(
                f"this process was held up for longer than its turn at {self._objects.address} lasts, and wrote "
                "nothing more; try again"
            )
        return left

    # --- inside ---

    async def _take(self) -> bool:
        """Return whether the lease could be had; once it is, nobody keeps it from being let go of."""
        began = _Moment.now()
        with anyio.CancelScope(shield=True):
            version = await self._taken_again() or await self._taken_over()
        if version is not None:
            self._own, self._renewed, self._other = version, began, None
        return version is not None

    async def _taken_again(self) -> Version | None:
        """Take what this process has let go of last, if nobody else has had it since; this needs no look."""
        if self._own is None:
            return None
        seen, self._own = self._own, None
        return await self._objects.replace(self._name, self._content(held=True), seen)

    async def _taken_over(self) -> Version | None:
        """Take what is free, what is our own by a write that we believed lost, or what nobody has renewed in time."""
        found = await self._objects.read(self._name)
        if found is None:
            return await self._objects.create(self._name, self._content(held=True))
        content, version = found
        if _holder(content) not in ("", self._me):
            seen_at = time.monotonic()
            if self._other is None or self._other[0] != version:
                self._other = version, seen_at
            if seen_at - self._other[1] < LEASE_S:
                return None
            logger.warning("%s in %s was not renewed for %g s; taken over", self._name, self._objects.address, LEASE_S)
        return await self._objects.replace(self._name, self._content(held=True), version)

    async def _keep(self) -> None:
        """Renew the lease from now on."""
        self._renewing = anyio.create_task_group()
        await self._renewing.__aenter__()
        self._renewing.start_soon(self._renew)

    async def _renew(self) -> None:
        while self._own is not None:
            await anyio.sleep(RENEW_EVERY_S)
            # Half done, it would not be known which version is the last.
            with anyio.CancelScope(shield=True):
                began = _Moment.now()
                content = self._content(held=True)
                try:
                    version = await self._objects.replace(self._name, content, self._own)
                    if version is None:
                        # An answer may have got lost on its way, and the write been repeated.
                        found = await self._objects.read(self._name)
                        version = found[1] if found is not None and found[0] == content else None
                except StoreError as exc:
                    logger.warning("the turn to write is not renewed yet: %s", exc)
                    continue
                self._own, self._renewed = version, None if version is None else began

    async def _let_go(self) -> None:
        """Say that it is free; where that can't be said, it is once nobody renews it."""
        seen, self._own, self._renewed = self._own, None, None
        if seen is None:
            return
        try:
            self._own = await self._objects.replace(self._name, self._content(held=False), seen)
        except StoreError as exc:
            logger.warning("others have to wait %g s for their turn: %s", LEASE_S, exc)

    async def _step_back(self) -> None:
        """Let others have their turn: who takes it again at once is always quicker than who has to look first."""
        at = time.monotonic()
        if at - self._let_go_at > POLL_S:
            self._busy_since = at
        elif at - self._busy_since > STEP_BACK_EVERY_S:
            await anyio.sleep(2 * POLL_S)
            self._busy_since = time.monotonic()

    def _content(self, *, held: bool) -> bytes:
        # The turn makes each content another one: storage tells versions apart by it.
        self._turn += 1
        return json.dumps({"holder": self._me if held else "", "turn": f"{self._me}-{self._turn}"}).encode()


def _holder(content: bytes) -> str:
    """Return who holds it; who wrote what can't be read holds it until that is too old."""
    try:
        return str(json.loads(content)["holder"])
    except (ValueError, KeyError, TypeError):
        return "?"
