"""The way of trajectories into the pool: what each comes to is written, and who sent it is told.

In:  trajectories with their drafts, the store.
Out: the ledger settled, experiences and vectors stored, answers.
Does not know: what a trajectory comes to (`plan.py`), or who called: the same happens after a call and after a crash.

Everything here may be repeated.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import anyio

from reme_mcp.aio import gather
from reme_mcp.config.settings import Settings
from reme_mcp.distill.intake import Batch, Found, Neighbours, neighbours, put_vectors, search
from reme_mcp.distill.plan import Prepared, StoredAttempt, Work, learned, plan, rejected_of, without_credit
from reme_mcp.results import RecordResult
from reme_mcp.schema import Experience, Trajectory
from reme_mcp.store import log
from reme_mcp.store.ledger_writer import LedgerWriter
from reme_mcp.store.store import Store, Writer

# Other processes wait for the pool meanwhile; who is left over then gets in first with the next turn.
TURN_S = 1.0
# The neighbours of so many that wait are searched at the same time.
SEARCHED_AT_ONCE = 8


# Puts a trajectory on disk, unless it is there, and returns it; `None` where nothing is left to be done for it.
Begin = Callable[[LedgerWriter], Awaitable[StoredAttempt | None]]


@dataclass(slots=True, eq=False)
class _Request:
    """A trajectory that waits for the pool, and what came of it."""

    prepared: Prepared
    begin: Begin
    to_model: bool
    is_new: bool
    is_done: bool = False
    answer: RecordResult | None = None
    failure: Exception | None = None


class Pipeline:
    """The way into one pool. Those who wait for it at the same time get in together, with one commit for all."""

    def __init__(self, store: Store, settings: Settings) -> None:
        """Make one, with the numbers of the rules."""
        self._store = store
        self._settings = settings
        self._waiting: deque[_Request] = deque()
        # Whose it is holds the pool for all.
        self._leading = anyio.Lock()

    async def process(self, prepared: Prepared, begin: Begin, *, to_model: bool, is_new: bool) -> RecordResult | None:
        """Do what a trajectory asks for: settle, learn, answer. Safe to repeat after a crash at any point.

        Where no lesson comes with it, and the rules take none out of recall, the pool is neither read nor held.

        Args:
            prepared: The trajectory.
            begin: Puts it on disk, which comes before all else that is written.
            to_model: Leave the learning to the model behind the server; the trajectory is queued for it.
            is_new: Nothing of what it asks for has been done yet.

        Returns:
            The answer; `None` where there was nothing to begin.
        """
        request = _Request(prepared, begin, to_model, is_new)
        if to_model or not prepared.batch.candidates:
            async with self._store.settling() as writer:
                work = await self._planned(request, (), writer)
                if work is None:
                    return None
                if not work.changed and not work.added:
                    await _settle(work, writer, is_new=is_new)
                    await writer.put_trajectory(work.trajectory)
                    return work.answer
                writer.discard()
        self._waiting.append(request)
        try:
            async with self._leading:
                while not request.is_done:
                    await self._take_turn()
        finally:
            # Who was cancelled, or could not have the pool, waits no more. To ask first saves an error that would spell
            # out the request with all of its vectors, for seven milliseconds.
            if request in self._waiting:
                self._waiting.remove(request)
        if request.failure is not None:
            raise request.failure
        return request.answer

    async def _take_turn(self) -> None:
        """Hold the pool for those who wait, the first ones first, for as many as there is time for."""
        staged: _Staged | None = None
        try:
            async with self._store.writing() as pool:
                staged = _Staged(pool)
                await self._let_in(staged, pool, until=time.monotonic() + TURN_S)
                await staged.write()
        except Exception as exc:
            if staged is None or not staged.tell(exc):
                raise
        else:
            staged.tell()

    async def _let_in(self, staged: _Staged, pool: Writer, *, until: float) -> None:
        """Settle and learn from one after the other; what the next one reads in the pool is committed before it.

        Who comes meanwhile waits for the next turn: all of this one would wait for a search of its own.
        """
        # As long as nothing is committed, it is as good as if each had searched when its turn came.
        found: dict[_Request, Sequence[Found] | Exception] = {}
        # After a commit, the next one is searched for alone, and then more at once: another commit, as where one after
        # the other is merged, makes no more searches void than have served since.
        at_once = SEARCHED_AT_ONCE
        last = self._waiting[-1]
        request = None
        while self._waiting and request is not last:
            if staged.concerns(self._waiting[0]):
                await staged.commit()
                found, at_once = {}, 1
            request = self._waiting.popleft()
            if request not in found:
                found = await self._search([request, *islice(self._waiting, at_once - 1)])
                at_once = min(2 * at_once, SEARCHED_AT_ONCE)
            try:
                work = await self._settled(request, found[request], pool, staged)
            except Exception as exc:  # noqa: BLE001  it is raised where this one is waited for
                request.failure = exc
                request.is_done = True
            else:
                staged.add(request, work)
                if work is not None and work.changed:
                    await staged.commit()
                    found, at_once = {}, 1
            if time.monotonic() > until:
                break

    async def _search(self, requests: Sequence[_Request]) -> dict[_Request, Sequence[Found] | Exception]:
        """Return what the pool may have that says the same as the candidates of each, or why that can't be told."""
        found: dict[_Request, Sequence[Found] | Exception] = {}

        async def find(request: _Request) -> None:
            try:
                found[request] = () if request.to_model else await search(request.prepared.batch, self._store)
            except Exception as exc:  # noqa: BLE001  it is raised to whom it concerns
                found[request] = exc

        async with anyio.create_task_group() as tasks:
            for request in requests:
                tasks.start_soon(find, request)
        return found

    async def _settled(
        self, request: _Request, found: Sequence[Found] | Exception, pool: Writer, staged: _Staged
    ) -> Work | None:
        """Return what a trajectory comes to, once it is on disk and what concerns the ledger is written."""
        if isinstance(found, Exception):
            raise found
        batch = request.prepared.batch
        near = () if request.to_model else await neighbours(batch, self._store, found=found, also=staged.added)
        async with pool.settling() as writer:
            work = await self._planned(request, near, writer)
            if work is not None:
                await _settle(work, writer, is_new=request.is_new)
            return work

    async def _planned(self, request: _Request, near: Sequence[Neighbours], writer: LedgerWriter) -> Work | None:
        """Put a trajectory on disk and return what it comes to; `None` where nothing is left to be done for it."""
        stored = await request.begin(writer)
        if stored is None:
            return None
        return await plan(
            request.prepared,
            stored,
            near,
            self._store,
            self._settings,
            to_model=request.to_model,
            is_new=request.is_new,
        )


async def learn(prepared: Prepared, begin: Begin, store: Store, settings: Settings) -> None:
    """Learn what the model behind the server made of a queued trajectory, and complete its answer; may be repeated."""
    answer = RecordResult.model_validate_json(prepared.trajectory.answer)
    answer = answer.model_copy(update={"rejected": rejected_of(prepared.trajectory)})
    async with store.writing() as pool:
        near = await neighbours(prepared.batch, store)
        async with pool.settling() as writer:
            stored = await begin(writer)
            if stored is None:
                return
            work = await learned(prepared, near, store, settings, {}, answer)
            work = await without_credit(work, stored.lines, store, settings)
            await _settle(work, writer, is_new=False)
        staged = _Staged(pool)
        staged.add(_Request(prepared, begin, to_model=False, is_new=False), work)
        await staged.write()


async def _settle(work: Work, writer: LedgerWriter, *, is_new: bool) -> None:
    """Write what concerns the ledger, but for the answer."""
    pruned, activated = ([one for one in work.changed if one.id in ids] for ids in (work.answer.pruned, work.activated))
    # Done again, the rules would find nothing left to do.
    await writer.add_log(log.of_rules(work.trajectory, pruned=pruned, activated=activated), are_new=is_new)
    await writer.settle(work.settled)
    await writer.put_counters(work.counted)


class _Staged:
    """What has to be written into the pool, and then the answers: until these are there, all is done again later."""

    def __init__(self, pool: Writer) -> None:
        self._pool = pool
        # With the batch that each came with, by id.
        self.added: dict[str, tuple[Experience, Batch]] = {}
        self._changed: list[Experience] = []
        self._answered: list[Trajectory] = []
        self._are_new = True
        # Those who are told when it is there for good, or could not be.
        self._requests: list[_Request] = []

    def concerns(self, request: _Request) -> bool:
        """Return whether rules that read the pool or the ledger would miss something of it."""
        batch, trajectory = request.prepared.batch, request.prepared.trajectory
        # Those that wait for review are counted.
        return any(candidate.status == "quarantined" for candidate in batch.candidates) or any(
            one.id == trajectory.id or (one.workspace, one.task_key) == (trajectory.workspace, trajectory.task_key)
            for one in self._answered
        )

    def add(self, request: _Request, work: Work | None) -> None:
        """Take in what a request comes to; `None` where nothing was left to be done."""
        self._requests.append(request)
        if work is None:
            return
        request.answer = work.answer
        for one in work.changed:
            if one.id in self.added:
                self.added[one.id] = one, self.added[one.id][1]
            else:
                self._changed.append(one)
        self.added |= {one.id: (one, request.prepared.batch) for one in work.added}
        self._answered.append(work.trajectory)
        self._are_new = self._are_new and request.is_new

    async def write(self) -> None:
        """Write it; it is there for good when the pool is let go of, or flushed."""
        experiences = [*self._changed, *(one for one, _ in self.added.values())]
        await gather(
            partial(self._pool.put_experiences, experiences, are_new=self._are_new and not self._changed),
            partial(put_vectors, list(self.added.values()), self._pool, are_new=self._are_new),
        )
        for trajectory in self._answered:
            await self._pool.put_trajectory(trajectory)
        self._changed, self._answered, self._are_new = [], [], True
        self.added.clear()

    async def commit(self) -> None:
        """Write it, and tell those who wait for it."""
        await self.write()
        await self._pool.flush()
        self.tell()

    def tell(self, failure: Exception | None = None) -> bool:
        """Tell those who wait that it is there, or why not; return whether there were any."""
        told, self._requests = self._requests, []
        for request in told:
            request.failure = failure
            request.is_done = True
        return bool(told)
