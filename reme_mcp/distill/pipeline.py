"""From a stored trajectory to what it taught: settle its receipt, pass its drafts through the gate, answer.

In:  a trajectory that is on disk already, the store, the vectors.
Out: experiences added or merged, and the answer, which is kept with the trajectory.
Does not know: who called; the same happens after a call and after a crash.

Everything here may be repeated: drafts have their ids before they are stored, and counters are summed from receipts.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import anyio

from reme_mcp.aio import gather
from reme_mcp.config.settings import Settings
from reme_mcp.distill import brief as briefs
from reme_mcp.distill import drafts
from reme_mcp.distill.intake import (
    Batch,
    Found,
    Neighbours,
    admit,
    embed,
    find_twin,
    may_correct,
    neighbours,
    put_vectors,
    search,
    with_provenance,
)
from reme_mcp.models.service import Vectors
from reme_mcp.refine import ledger
from reme_mcp.refine import rules as rules_
from reme_mcp.refine.rules import activate
from reme_mcp.results import Merged, Quarantined, RecordResult, Rejected, Superseded
from reme_mcp.safety import quarantine
from reme_mcp.schema import (
    Experience,
    ReceiptLine,
    RecordStatus,
    Trajectory,
    now,
)
from reme_mcp.sources import rater_of
from reme_mcp.store import log
from reme_mcp.store.ledger_writer import LedgerWriter
from reme_mcp.store.store import Store, Writer

EARLIER_ATTEMPTS = 5
# Other processes wait for the pool meanwhile; who is left over then gets in first with the next turn.
TURN_S = 1.0
# The neighbours of so many that wait are searched at the same time.
SEARCHED_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Prepared:
    """A trajectory with what its drafts would become."""

    trajectory: Trajectory
    batch: Batch


async def prepare(trajectory: Trajectory, vectors: Vectors) -> Prepared:
    """Make the drafts of a trajectory ready to be stored; this may take as long as a model takes."""
    at = now()
    candidates = tuple(
        drafts.to_experience(named, trajectory, at=at) for named in drafts.from_stored(trajectory.drafts)
    )
    return Prepared(trajectory, await embed(candidates, vectors))


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt that is on disk, and the lines of its receipt, as they are while the ledger is held."""

    trajectory: Trajectory
    lines: Sequence[ReceiptLine]


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
        last = self._waiting[-1]
        request = None
        while self._waiting and request is not last:
            if staged.concerns(self._waiting[0]):
                await staged.commit()
                found.clear()
            request = self._waiting.popleft()
            if request not in found:
                found = await self._search([request, *islice(self._waiting, SEARCHED_AT_ONCE - 1)])
            try:
                work = await self._settled(request, found[request], pool, staged)
            except Exception as exc:  # noqa: BLE001  it is raised where this one is waited for
                request.failure = exc
                request.is_done = True
            else:
                staged.add(request, work)
                if work is not None and work.changed:
                    await staged.commit()
                    found.clear()
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
    ) -> _Work | None:
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

    async def _planned(self, request: _Request, near: Sequence[Neighbours], writer: LedgerWriter) -> _Work | None:
        """Put a trajectory on disk and return what it comes to; `None` where nothing is left to be done for it."""
        stored = await request.begin(writer)
        if stored is None:
            return None
        return await _plan(
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
            work = await _learned(prepared, near, store, settings, {}, answer)
            work = await _without_credit(work, stored.lines, store, settings)
            await _settle(work, writer, is_new=False)
        staged = _Staged(pool)
        staged.add(_Request(prepared, begin, to_model=False, is_new=False), work)
        await staged.write()


def is_for_model(trajectory: Trajectory) -> bool:
    """Return whether there is anything that a model could distil or judge: not if nothing was said to be learned."""
    return trajectory.drafts_digest == "" or trajectory.drafts != "[]" or trajectory.rejected != "[]"


@dataclass(frozen=True, slots=True)
class _Work:
    """What a trajectory comes to; nothing of it is written yet.

    Attributes:
        settled: Lines of its receipt.
        counted: Experiences whose counters are others now.
        changed: Experiences that were there before, and differ in more than their counters.
        added: Experiences that were not.
        trajectory: Itself, with its answer.
        activated: The ids of those changed that are provisional no longer.
    """

    settled: Sequence[ReceiptLine]
    counted: Sequence[Experience]
    changed: Sequence[Experience]
    added: Sequence[Experience]
    trajectory: Trajectory
    answer: RecordResult
    activated: Sequence[str] = ()


async def _plan(
    prepared: Prepared,
    stored: StoredAttempt,
    near: Sequence[Neighbours],
    store: Store,
    settings: Settings,
    *,
    to_model: bool,
    is_new: bool,
) -> _Work:
    """Return what a trajectory comes to; nothing is written here."""
    trajectory, lines = stored.trajectory, stored.lines
    prepared = replace(prepared, trajectory=trajectory)
    settlement = await ledger.settle(store, trajectory, lines, settings.refine, is_new=is_new)
    counted = settlement.counted
    proven = await ledger.prove(store, trajectory, counted.changed, settings.refine)
    activated = [id for id in proven.changed if id not in proven.pruned]
    rows = {id: counted.changed[id] for id in counted.pruned} | proven.changed
    answer = RecordResult(
        trajectory_id=trajectory.id,
        status="queued",
        added=[],
        merged=[],
        rejected=rejected_of(trajectory),
        settled=settlement.told,
        pruned=[*counted.pruned, *proven.pruned],
        lessons=[],
        brief="",
    )
    if not to_model:
        work = await _learned(prepared, near, store, settings, counted.changed | proven.changed, answer)
        work = replace(
            work,
            settled=settlement.lines,
            counted=list(counted.changed.values()),
            changed=list({**rows, **{one.id: one for one in work.changed}}.values()),
            activated=[*activated, *work.activated],
        )
        return await _without_credit(work, lines, store, settings)
    if trajectory.outcome == "failure":
        # The retry need not wait for the judge.
        lessons = [candidate.content for candidate in prepared.batch.candidates if candidate.status != "quarantined"]
        answer = answer.model_copy(update={"lessons": lessons})
    # What went wrong with earlier drafts says nothing about these.
    queued = _answered(replace(trajectory, tries=0, retry_at=None, trouble=""), answer)
    return _Work(settlement.lines, list(counted.changed.values()), list(rows.values()), [], queued, answer, activated)


async def _without_credit(work: _Work, lines: Sequence[ReceiptLine], store: Store, settings: Settings) -> _Work:
    """Return the work without a success for what it corrects: the attempt succeeded with the correction."""
    corrected = {one.id for one in work.answer.superseded}
    settled = {line.experience_id: line for line in (*lines, *work.settled) if line.experience_id}
    reset = [rules_.unsettle(line) for id, line in settled.items() if id in corrected and rules_.is_credited(line)]
    if not reset:
        return work
    without = {line.experience_id for line in reset}
    archived = [one for one in work.changed if one.id in without]
    recounted = (await ledger.count(store, archived, settings.refine, settled=reset)).changed
    answer = work.answer.model_copy(update={"settled": [one for one in work.answer.settled if one.id not in without]})
    return replace(
        work,
        settled=[*(line for line in work.settled if line.experience_id not in without), *reset],
        counted=[*(one for one in work.counted if one.id not in recounted), *recounted.values()],
        changed=[recounted.get(one.id, one) for one in work.changed],
        trajectory=replace(work.trajectory, answer=answer.model_dump_json()),
        answer=answer,
    )


async def _learned(
    prepared: Prepared,
    near: Sequence[Neighbours],
    store: Store,
    settings: Settings,
    changed: Mapping[str, Experience],
    answer: RecordResult,
) -> _Work:
    """Return what is new of the candidates, and the answer with its trajectory.

    Args:
        prepared: The candidates, and the trajectory that they came with.
        near: The neighbours of each.
        store: To read from.
        settings: The rules' numbers.
        changed: Experiences that are not yet stored as they are now, by id.
        answer: As far as it is known.
    """
    trajectory = prepared.trajectory
    room = await _room_in_review(prepared, store)
    added, merged, told, rejected, superseded = _sort(prepared, near, changed, settings, room=room)
    rejected = [*answer.rejected, *rejected]
    status = _status(trajectory, rejected)
    brief = ""
    if status == "awaiting_experiences":
        # This one may be stored by now, or not.
        attempts = await store.attempts(trajectory.workspace, trajectory.task_key, limit=EARLIER_ATTEMPTS + 1)
        earlier = drafts.earlier_attempts(trajectory, attempts)[:EARLIER_ATTEMPTS]
        asks = bool(trajectory.receipt) and not trajectory.verdicts
        brief = briefs.brief(trajectory.id, trajectory.outcome, earlier, asks_for_verdicts=asks)
    recalled = [one for one in added if one.status != "quarantined"]
    lessons = [one.content for one in (*recalled, *merged.values()) if one.status not in ("quarantined", "archived")]
    answer = answer.model_copy(
        update={
            "status": status,
            "added": [one.id for one in recalled],
            "merged": told,
            "superseded": superseded,
            "rejected": rejected,
            "lessons": lessons if trajectory.outcome == "failure" else [],
            "brief": brief,
            "quarantined": [
                Quarantined(id=one.id, when_to_use=one.when_to_use[: drafts.SHOWN_CHARS], reason=one.status_reason)
                for one in added
                if one.status == "quarantined"
            ],
        }
    )
    answered = _answered(replace(trajectory, drafts="[]", retry_at=None, trouble=""), answer)
    before = {other.id: changed.get(other.id, other).status for found in near for other in found.others}
    activated = [id for id, one in merged.items() if (before[id], one.status) == ("provisional", "active")]
    return _Work([], [], list(merged.values()), added, answered, answer, activated)


async def _settle(work: _Work, writer: LedgerWriter, *, is_new: bool) -> None:
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

    def add(self, request: _Request, work: _Work | None) -> None:
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


def _answered(trajectory: Trajectory, answer: RecordResult) -> Trajectory:
    return replace(
        trajectory,
        status=answer.status,
        rejected=dump_rejected(answer.rejected),
        answer=answer.model_dump_json(),
        updated_at=now(),
    )


def rejected_of(trajectory: Trajectory) -> list[Rejected]:
    """Return the drafts that were refused so far, and why."""
    return [Rejected.model_validate(item) for item in json.loads(trajectory.rejected)]


async def _room_in_review(prepared: Prepared, store: Store) -> int:
    """Return how many more lessons of who recorded this may wait for a person: a flood would hide what matters."""
    if all(candidate.status != "quarantined" for candidate in prepared.batch.candidates):
        return 0
    who = rater_of(prepared.trajectory.source)
    sources = await store.sources(prepared.trajectory.workspace, statuses=["quarantined"])
    return max(0, quarantine.MAX_WAITING - sum(rater_of(source) == who for source in sources))


def _sort(
    prepared: Prepared,
    near: Sequence[Neighbours],
    changed: Mapping[str, Experience],
    settings: Settings,
    *,
    room: int,
) -> tuple[list[Experience], dict[str, Experience], list[Merged], list[Rejected], list[Superseded]]:
    """Return the candidates that say something new; what of the pool they change, by id; and what is told of the rest.

    Args:
        prepared: The candidates.
        near: The neighbours of each.
        changed: Experiences that are not yet stored as they are now, by id.
        settings: What starts as provisional.
        room: How many more may wait for review.
    """
    added: list[Experience] = []
    merged: dict[str, Experience] = {}
    told: list[Merged] = []
    rejected: list[Rejected] = []
    superseded: list[Superseded] = []
    for candidate, found in zip(prepared.batch.candidates, near, strict=True):
        current = [merged.get(other.id, changed.get(other.id, other)) for other in found.others]
        if stored := [other for other in current if other.id == candidate.id]:
            # A process died after storing it: what it has become since is not undone.
            added += stored
            superseded += [Superseded(id=one.supersedes, by=one.id, how="") for one in stored if one.supersedes]
            continue
        candidate = admit(candidate, prepared.trajectory.outcome, settings)
        twin = find_twin(candidate, prepared.batch, found, current, added)
        is_new = twin is None or twin.corrects
        waiting = sum(one.status == "quarantined" for one in added)
        if is_new and candidate.status == "quarantined" and waiting >= room:
            shown = candidate.when_to_use[: drafts.SHOWN_CHARS]
            rejected.append(Rejected(when_to_use=shown, reason=quarantine.TOO_MANY))
            continue
        if twin is None:
            added.append(candidate)
            continue
        if twin.corrects:
            older = twin.experience
            # What came with the same call says something else on purpose.
            if not any(one.id == older.id for one in added) and may_correct(candidate, older):
                merged[older.id] = rules_.supersede(older, candidate, at=candidate.updated_at)
                candidate = replace(candidate, supersedes=older.id)
                superseded.append(Superseded(id=older.id, by=candidate.id, how=twin.how))
            added.append(candidate)
            continue
        id, shown = twin.experience.id, candidate.when_to_use[: drafts.SHOWN_CHARS]
        if twin.experience.status == "archived":
            reason = f"{id} said the same ({twin.how}) and was archived: {twin.experience.status_reason}"
            rejected.append(Rejected(when_to_use=shown, reason=reason))
        elif any(one.id == id for one in added):
            rejected.append(Rejected(when_to_use=shown, reason=f"{id}, of the same call, says the same ({twin.how})"))
        else:
            merged[id] = _merge(twin.experience, candidate)
            status, known = merged[id].status, merged[id].when_to_use[: drafts.SHOWN_CHARS]
            if status == "quarantined":
                # Nobody but a person is told more than that it is there.
                known = ""
            told.append(Merged(id=id, when_to_use=known, status=status, how=twin.how))
    return added, merged, told, rejected, superseded


def _merge(twin: Experience, candidate: Experience) -> Experience:
    """Return the older record with the candidate's trajectory added; text, id and counters stay.

    What a success teaches as well is provisional no longer.
    """
    if twin.status == "provisional" and candidate.status == "active":
        twin = activate(twin, at=candidate.updated_at)
    return with_provenance(twin, candidate, at=candidate.updated_at)


def _status(trajectory: Trajectory, rejected: Sequence[Rejected]) -> RecordStatus:
    """Return what has become of the trajectory, once its drafts have been through the gate."""
    by_model = trajectory.status == "queued"
    drafts_came = by_model or trajectory.drafts_digest != ""
    if drafts_came and (trajectory.drafts != "[]" or (by_model and rejected)):
        return "distilled"
    return "nothing_to_learn" if drafts_came and not rejected else "awaiting_experiences"


def dump_rejected(rejected: Sequence[Rejected]) -> str:
    """Return the rejected drafts as JSON text, to be kept with their trajectory."""
    return json.dumps([one.model_dump() for one in rejected], ensure_ascii=False)
