"""The trajectories that wait for the model behind the server, and the work on them.

In:  the store, whose table of trajectories is the queue; the model; the vectors.
Out: experiences in the pool, and each trajectory's answer completed; what went wrong stands with the trajectory.
Does not know: who recorded what, or who waits for it.

One process at a time works on the queue of a home: it holds a lock that the operating system lets go of when it dies.
Nothing is marked as begun, so that there is nothing to clean up after a death: what was not finished is still queued.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import anyio

from reme_mcp.config.settings import Settings
from reme_mcp.distill import dedup, distiller, pipeline
from reme_mcp.distill.drafts import from_stored, to_json
from reme_mcp.distill.plan import StoredAttempt, dump_rejected, prepare, rejected_of
from reme_mcp.errors import AnswerError, ConfigError, EndpointError, StoreError
from reme_mcp.models.question import Model
from reme_mcp.models.service import Vectors
from reme_mcp.schema import Experience, ExperienceDraft, Spent, Trajectory, now
from reme_mcp.store.ledger_writer import LedgerWriter
from reme_mcp.store.store import Store
from reme_mcp.text.words import spell_out

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 3_600.0
# A model that fails on one trajectory so often is not asked again until a person wants it.
MAX_TRIES = 5
# How often is looked for what other processes queued and did not get to.
LOOK_AGAIN_S = 60.0
# The same while another process works on the queue.
LOOK_AFTER_OTHER_S = 2.0
LOOK_WHILE_WAITED_FOR_S = 1.0
NEIGHBOURS = 3
# Among how many recorded tasks another attempt at the same one is looked for, and how many are looked at closely.
RECENT_TASKS = 500
LIKELY_TASKS = 8
# By their beginnings: to compare five hundred tasks of full length would hold up every call for seconds.
COMPARED_CHARS = 300

Done = Callable[[Trajectory], Awaitable[None]]


class Queue:
    """The queue of one home, worked on by one model."""

    def __init__(
        self,
        store: Store,
        vectors: Vectors,
        model: Model,
        settings: Settings,
        take_spent: Callable[[], list[Spent]],
        count_spent: Callable[[], Awaitable[None]],
    ) -> None:
        """Make one.

        Args:
            store: Holds the queue.
            vectors: Embeds what is learned.
            model: Works on it.
            settings: Of the home.
            take_spent: Hands over what the model has cost since it was last asked.
            count_spent: Finds out what other processes have spent of the day's tokens.
        """
        self._store = store
        self._vectors = vectors
        self._model = model
        self._settings = settings
        self._take_spent = take_spent
        self._count_spent = count_spent
        self._changed = anyio.Event()
        self._paused_until: datetime | None = None
        self._trouble = ""

    def wake(self) -> None:
        """Say that something was queued or worked off."""
        self._changed.set()
        self._changed = anyio.Event()

    async def processed(self, trajectory: Trajectory, tell: Callable[[str], Awaitable[None]]) -> Trajectory:
        """Wait until the model has worked off a queued trajectory, or has to put it off, and return it as it is then.

        Args:
            trajectory: It may be another process that works on it.
            tell: Told about once a second what is waited for.
        """
        while True:
            changed = self._changed
            stored = await self._store.trajectory(trajectory.workspace, trajectory.id) or trajectory
            if stored.status != "queued" or not self._is_due(stored):
                return stored
            await tell("the model is distilling")
            with anyio.move_on_after(LOOK_WHILE_WAITED_FOR_S):
                await changed.wait()

    async def run(self) -> None:
        """Work on the queue for as long as this process lives, or until a backup takes the place of the pool."""
        while True:
            changed = self._changed
            try:
                if not await self._store.is_current():
                    return
                pause_s = await self._work_if_free()
            except StoreError as exc:
                logger.warning("the queue can't be worked on: %s", exc)
                pause_s = LOOK_AGAIN_S
            with anyio.move_on_after(pause_s):
                await changed.wait()

    async def work_all(self, done: Done) -> int:
        """Work once on all that is queued, whatever failed before, and return how many there were.

        Args:
            done: Told of each trajectory as it is afterwards.
        """
        async with self._store.queue_lock:
            self._paused_until = None
            waiting = await self._store.queued()
            await self._work_on(waiting, done)
            return len(waiting)

    async def _work_if_free(self) -> float:
        """Work on what is due, unless another process does; return in how many seconds to look again."""
        if not await self._store.queued():
            return LOOK_AGAIN_S
        async with self._store.queue_lock.unless_held() as ours:
            if not ours:
                return LOOK_AFTER_OTHER_S
            while True:
                waiting = await self._store.queued()
                due = [one for one in waiting if self._is_due(one)]
                if not due:
                    return min([self._seconds_left(one) for one in waiting], default=LOOK_AGAIN_S)
                await self._work_on(due, None)

    def _is_due(self, trajectory: Trajectory) -> bool:
        return self._seconds_left(trajectory) <= 0

    def _seconds_left(self, trajectory: Trajectory) -> float:
        """Return in how many seconds a trajectory is due."""
        if trajectory.retry_at is None and trajectory.tries:
            return LOOK_AGAIN_S
        moments = [at for at in (trajectory.retry_at, self._paused_until) if at is not None]
        return max([(at - now()).total_seconds() for at in moments], default=0.0)

    async def _work_on(self, trajectories: Sequence[Trajectory], done: Done | None) -> None:
        """Work on several at a time; the model's own limit says how many questions are under way."""
        await self._count_spent()
        turns = anyio.CapacityLimiter(self._settings.llm.concurrency)

        async def work(trajectory: Trajectory) -> None:
            async with turns:
                if asked := self._paused_until is None or self._paused_until <= now():
                    await self._work_off_or_keep(trajectory)
            if done is not None:
                stored = await self._store.trajectory(trajectory.workspace, trajectory.id) or trajectory
                await done(stored if asked else replace(stored, trouble=self._trouble))

        async with anyio.create_task_group() as tasks:
            for trajectory in trajectories:
                tasks.start_soon(work, trajectory)

    async def _work_off_or_keep(self, trajectory: Trajectory) -> None:
        """Work a trajectory off; whatever goes wrong, it stays queued and the others go on."""
        try:
            await self._process_or_retry_later(trajectory)
        except StoreError as exc:
            logger.warning("%s is not distilled yet: %s", trajectory.id, exc)
            # At once, the model would be asked, and paid, for what can't be stored over and over.
            self._pause(now() + timedelta(seconds=LOOK_AGAIN_S), str(exc))

    async def _process_or_retry_later(self, trajectory: Trajectory) -> None:
        try:
            await self._process(trajectory)
        except EndpointError as exc:
            logger.warning("%s is not distilled yet: %s", trajectory.id, exc)
            await self._put_off(trajectory, exc)
        except ConfigError as exc:
            logger.warning("%s is not distilled yet: %s", trajectory.id, exc)
            await self._put_off(trajectory, EndpointError(str(exc), is_permanent=True))
        except StoreError:
            raise
        except Exception:
            logger.exception("%s could not be distilled", trajectory.id)
            await self._put_off(trajectory, AnswerError("it failed inside the server; its log (stderr) says why"))

    async def _process(self, trajectory: Trajectory) -> None:
        judged = await self._judged(trajectory)
        # Kept with its drafts first: whatever fails or dies from here on, the next try asks nobody again. Where none
        # was accepted, what was sent stays, and is judged again: without drafts, it would be distilled.
        async with self._store.settling() as writer:
            await writer.add_spent(self._take_spent())
            if await self._as_it_was(trajectory) is None:
                return
            if judged.drafts != "[]":
                await writer.put_trajectory(judged)
        prepared = await prepare(judged, self._vectors)

        async def begin(writer: LedgerWriter) -> StoredAttempt | None:
            if await self._as_it_was(judged) is None:
                return None
            return StoredAttempt(judged, await self._store.receipts.lines(judged.workspace, judged.receipt))

        await pipeline.learn(prepared, begin, self._store, self._settings)
        self.wake()

    async def _judged(self, trajectory: Trajectory) -> Trajectory:
        """Return the trajectory with drafts that a judge has accepted.

        Raises:
            EndpointError: The model failed.
            ConfigError: Its context is too small.
        """
        drafts = from_stored(trajectory.drafts)
        if drafts and all(draft.judged for draft in drafts):
            # A process died between this and storing them.
            return trajectory
        attempts = await self._attempts(trajectory)
        neighbours = partial(self._neighbours, trajectory.workspace)
        recalled = await self._recalled([trajectory, *attempts])
        model = self._model
        if drafts:
            found = await distiller.judge(model, drafts, trajectory, attempts, neighbours, recalled=recalled)
            accepted = [replace(draft, judged=True) for draft in found.drafts]
        else:
            found = await distiller.distil(model, trajectory, attempts, neighbours, recalled=recalled)
            accepted = [replace(draft, judged=True, author=model.name) for draft in found.drafts]
        rejected = [*rejected_of(trajectory), *found.rejected]
        return replace(trajectory, drafts=to_json(accepted), rejected=dump_rejected(rejected))

    async def _recalled(self, attempts: Sequence[Trajectory]) -> list[str]:
        """Return the scenarios and lessons that the attempts' recalls handed out."""
        texts: list[str] = []
        for attempt in attempts:
            if attempt.receipt:
                lines = await self._store.receipts.lines(attempt.workspace, attempt.receipt)
                handed_out = await self._store.experiences(
                    attempt.workspace, [line.experience_id for line in lines if line.is_handed_out]
                )
                texts += [text for one in handed_out.values() for text in (one.when_to_use, one.content)]
        return texts

    async def _attempts(self, trajectory: Trajectory) -> list[Trajectory]:
        """Return earlier attempts at the same task, newest first: the same by its words, or by what they mean."""
        workspace, task = trajectory.workspace, trajectory.task
        recent = dict(await self._store.tasks(workspace, limit=RECENT_TASKS))
        # In the same words also those from long ago.
        alike = await self._store.attempts(workspace, trajectory.task_key, limit=LIKELY_TASKS)
        recent |= {one.id: one.task for one in alike}
        recent.pop(trajectory.id, None)
        start = task[:COMPARED_CHARS]
        likely = sorted(recent, key=lambda id: -dedup.text_overlap(start, recent[id][:COMPARED_CHARS]))[:LIKELY_TASKS]
        vectors = await self._vectors.embed_tasks([task, *(recent[id] for id in likely)])
        same = [
            id
            for row, id in enumerate(likely, start=1)
            if dedup.is_same_task(task, recent[id], None if vectors is None else float(vectors[0] @ vectors[row]))
        ]
        attempts = await self._store.trajectories(workspace, same)
        # What came later is compared with this one when its own turn comes.
        return [one for one in attempts if one.created_at < trajectory.created_at]

    async def _neighbours(self, workspace: str, draft: ExperienceDraft) -> list[Experience]:
        """Return what the pool says about the same."""
        words = spell_out(f"{draft.when_to_use}\n{draft.content}")
        hits = await self._store.match_text(workspace, words, statuses=["active"], limit=NEIGHBOURS)
        return list((await self._store.experiences(workspace, [id for id, _ in hits])).values())

    async def _put_off(self, trajectory: Trajectory, exc: EndpointError) -> None:
        """Keep the trajectory for later, with the reason."""
        tries = trajectory.tries + 1
        pause_s = max(exc.retry_after_s or 0.0, min(FIRST_PAUSE_S * 2**trajectory.tries, LONGEST_PAUSE_S))
        if exc.is_permanent:
            pause_s = LONGEST_PAUSE_S
        retry_at: datetime | None = now() + timedelta(seconds=pause_s)
        if isinstance(exc, AnswerError):
            # Only this trajectory is at fault; the others need not wait.
            retry_at = None if tries >= MAX_TRIES else retry_at
        else:
            self._pause(now() + timedelta(seconds=pause_s), str(exc))
        async with self._store.settling() as writer:
            await writer.add_spent(self._take_spent())
            if stored := await self._as_it_was(trajectory):
                await writer.put_trajectory(replace(stored, tries=tries, retry_at=retry_at, trouble=str(exc)))
        self.wake()

    def _pause(self, until: datetime, trouble: str) -> None:
        """Ask the model nothing for a while; of two reasons the longer one counts."""
        if self._paused_until is None or until > self._paused_until:
            self._paused_until, self._trouble = until, trouble

    async def _as_it_was(self, trajectory: Trajectory) -> Trajectory | None:
        """Return it as it is stored; `None` where somebody has sent experiences for it, or worked it off, meanwhile."""
        stored = await self._store.trajectory(trajectory.workspace, trajectory.id)
        is_as_it_was = stored and (stored.status, stored.drafts_digest) == ("queued", trajectory.drafts_digest)
        return stored if is_as_it_was else None
