"""The service: recall, record and rate, and behind them the queue. Usable as a library, without MCP.

    async with Memory.open(settings) as memory:
        recalled = await memory.recall("deploy the blog", source="my-agent")
        await memory.record("deploy the blog", outcome="success", receipt=recalled.receipt, source="my-agent")

In:  plain arguments from a protocol, a command line or a program; settings.
Out: the models of `results.py`.
Does not know: MCP, terminals.

This is the composition root: store, embedder and rules meet here and nowhere else. Opening is cheap; the store and the
model are loaded by `warm_up` or by the first call that needs them.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from reme_mcp.config.settings import LLMSettings, Settings
from reme_mcp.distill.drafts import read_drafts, to_json
from reme_mcp.distill.plan import dump_rejected
from reme_mcp.distill.queue import Queue
from reme_mcp.errors import InvalidInput, NotFound, StoreError
from reme_mcp.memory import record as records
from reme_mcp.memory.background import MissingVectors
from reme_mcp.memory.overview import Overview
from reme_mcp.memory.pool import Pool
from reme_mcp.memory.record import digest_of_drafts, outcome_and_reward, redacted_drafts, transcript_text
from reme_mcp.memory.recorder import Recorder
from reme_mcp.models.embedder import load_embedder
from reme_mcp.models.llm import LLM, DiscreetLLM, EndpointLLM, prompt_tokens
from reme_mcp.models.question import Model
from reme_mcp.models.service import LoadEmbedder, Vectors
from reme_mcp.models.usage import Allowance
from reme_mcp.progress import Tell, ignore_progress
from reme_mcp.recall.explanation import explained, recalled
from reme_mcp.recall.notes import RECALL_FOOTER, RECALL_FOOTER_EMPTY, RECALL_FOOTER_UNCOUNTED
from reme_mcp.recall.search import Notes, Search
from reme_mcp.refine import ledger, rules
from reme_mcp.results import ExplainResult, RateResult, RecallResult, RecordResult
from reme_mcp.safety import quarantine
from reme_mcp.safety.redaction import redactor_of
from reme_mcp.schema import Experience, Outcome, ReceiptLine, Spent, Trajectory, Verdicts, new_id, now, task_key
from reme_mcp.sources import THIS_MACHINE, rater_of
from reme_mcp.store import log
from reme_mcp.store.compaction import KEEP_VERSIONS
from reme_mcp.store.ledger_writer import LedgerWriter
from reme_mcp.store.location import location_of
from reme_mcp.store.store import Store
from reme_mcp.text import clean

logger = logging.getLogger(__name__)

# The pool is compacted when nobody has written for a moment, or when so much was written that calls get slow.
QUIET_S = 0.5
# How often processes tell each other what they have spent of the day's tokens, while they spend.
COSTS_S = 1.0
MAX_WRITES_WITHOUT_COMPACTION = 60


# Makes the model that the settings name. The seam at which a test puts its own.
ConnectLLM = Callable[[LLMSettings, Allowance, Callable[[Spent], None]], LLM]


class Memory:
    """An open pool with its search and its rules. Make one with `Memory.open`."""

    def __init__(
        self,
        settings: Settings,
        background: TaskGroup,
        load: LoadEmbedder,
        connect: ConnectLLM,
    ) -> None:
        self.settings = settings
        self._background = background
        self._store: Store | None = None
        self._replaced: list[Store] = []
        self._recording: Recorder | None = None
        self._opening = anyio.Lock()
        self._vectors = Vectors(settings.embedder, load)
        self._missing_vectors = MissingVectors(self._vectors)
        self._spent: list[Spent] = []
        self._allowance = Allowance(settings.llm.tokens_per_day)
        self._redact = redactor_of(settings.redaction)
        self._llm = (
            DiscreetLLM(connect(settings.llm, self._allowance, self._take_in_cost), self._redact)
            if settings.llm.base_url
            else None
        )
        self._model = (
            Model(self._llm, settings.llm.model, partial(prompt_tokens, settings.llm))
            if self._llm is not None
            else None
        )
        self.pool = Pool(settings, self._vectors, self._open_store, self._redact)
        self._search = Search(self._vectors, self._model, settings)
        self.overview = Overview(settings, self._search, self._open_store)
        self._queue: Queue | None = None
        self._queue_is_run = False
        self._last_call = 0.0
        self._looking_after = False
        self._dropping_versions = False
        self._telling_costs = False
        self._is_frozen = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        *,
        load: LoadEmbedder = load_embedder,
        connect: ConnectLLM = EndpointLLM,
    ) -> AsyncIterator[Memory]:
        """Open the memory of `settings.home`; nothing is read or loaded yet.

        Args:
            settings: Where the pool is, and every rule's numbers.
            load: What loads the embedder.
            connect: What makes the model behind the server, where the settings name one.

        Leaving the block stops background work; what it had not finished is taken up at the next start.
        """
        failure: Exception | None = None
        background = anyio.create_task_group()
        memory = cls(settings, background, load, connect)
        try:
            async with background:
                try:
                    yield memory
                except Exception as exc:  # noqa: BLE001  the task group would wrap it; it is raised below
                    failure = exc
                finally:
                    background.cancel_scope.cancel()
        finally:
            # Only now: a table that is closed under a reader makes LanceDB panic.
            with anyio.CancelScope(shield=True):
                await memory._close()
        if failure is not None:
            raise failure

    @property
    def is_open(self) -> bool:
        """Whether the store is loaded; until then a call takes a second or two longer."""
        return self._store is not None

    @property
    def has_embedder(self) -> bool:
        """Whether the embedding model is there; until then recall goes by words."""
        return self._vectors.space is not None

    async def check(self) -> None:
        """Open the pool if it is not open yet.

        Raises:
            StoreError: The home can't be used.
        """
        await self._open_store()

    def start_warm_up(self) -> None:
        """Run `warm_up` in the background, for a process that serves from then on."""
        self._start(self._warm_up_to_serve)

    async def _warm_up_to_serve(self) -> None:
        await self.warm_up(download=True)
        # What is in memory now stays there: of 10,000 experiences 300,000 objects, to look through which for garbage
        # stops every call for a fifth of a second.
        gc.collect()
        gc.freeze()
        self._is_frozen = True

    async def warm_up(self, *, download: bool, work: bool = True) -> None:
        """Load store and model, finish what an earlier process left, fill in missing vectors, work on the queue.

        A model that can't be had is not an error: recall goes on by words.

        Args:
            download: Whether a model may be fetched from its hub, if the settings allow it, too.
            work: Whether the queue is worked on from now on; not worth it for a process that soon ends.

        Raises:
            StoreError: The home can't be used.
        """
        store = await self._open_store()
        with _put_off_unwritable():
            for trajectory in await store.pending():
                await self._recorder(store).resume(trajectory)
        await self._vectors.load(download=download)
        with _put_off_unwritable():
            await self._missing_vectors.fill(store)
            await store.compaction.count_leftovers()
        await store.load_all()
        if self.settings.refine.removal == "lift":
            await store.tries.of(self.settings.workspace)
        self._look_after_pool()
        if work:
            # The first lesson would wait a quarter of a second for the rules to be compiled.
            await anyio.to_thread.run_sync(quarantine.suspicions_of_text, "any text", abandon_on_cancel=True)
            self._run_queue()

    # --- the three tools ---

    async def recall(
        self,
        task: str,
        *,
        context: str = "",
        tools: Sequence[str] = (),
        limit: int | None = None,
        workspace: str | None = None,
        source: str,
        with_receipt: bool = True,
    ) -> RecallResult:
        """Return what earlier work says about a task, and a receipt to settle when its outcome is known.

        Args:
            task: In the user's words; 1 to 8,000 characters.
            context: What else narrows it down: project, files, error text; at most 8,000 characters.
            tools: What the agent has; lessons that need others are ranked lower. Empty means unknown.
            limit: 1 to 20 experiences; the settings' `recall.limit` where `None`.
            workspace: Whose pool; the settings' where `None`.
            source: Who asks.
            with_receipt: Whether it is a recall whose outcome will be told; without one, nothing is written.

        Raises:
            InvalidInput: An argument is out of its range.
            StoreError: The pool can't be read. If the receipt can't be written, the result has none, and says why.
        """
        source = clean.label(source)
        # Without a receipt there would be nothing to learn from a note that is withheld.
        holdout = self.settings.refine.holdout if with_receipt else 0.0
        task, workspace, store, notes = await self._notes(task, context, tools, limit, workspace, source, holdout)
        due = {item.experience.id: recalled(item) for item in notes.due}
        experiences = [due[item.experience.id] for item in notes.shown]
        trouble = [_for_reader(part, source) for part in (self._search.tell_once(), notes.trouble)]
        receipt, footer = "", ""
        if with_receipt:
            receipt = new_id("r")
            lines = ledger.receipt_lines(
                receipt,
                [item.experience for item in notes.due],
                workspace,
                task,
                source,
                numbers=[one.numbers.model_dump_json(exclude_none=True) for one in due.values()],
                draws=notes.draws,
                task_vector=notes.task_vector,
            )
            footer = (RECALL_FOOTER if notes.shown else RECALL_FOOTER_EMPTY).format(receipt=receipt)
            try:
                await store.add_receipt(lines)
            except StoreError as exc:
                # A full disk, or a home that may only be read, does not make the notes worse.
                receipt, footer = "", RECALL_FOOTER_UNCOUNTED
                trouble.insert(0, f"This recall is not counted ({_for_reader(str(exc), source)}).")
            self._look_after_pool()
        return RecallResult(
            guidance="\n\n".join(part for part in (notes.guidance, footer) if part),
            experiences=experiences,
            receipt=receipt,
            search=list(notes.modes),
            note=" ".join(part for part in trouble if part),
        )

    async def explain(
        self,
        task: str,
        *,
        context: str = "",
        tools: Sequence[str] = (),
        limit: int | None = None,
        workspace: str | None = None,
        source: str = "",
        reader: str | None = None,
    ) -> ExplainResult:
        """Return what `recall` would hand out for a task, what it would not, and why; no receipt is written.

        Args:
            task: In the user's words; 1 to 8,000 characters.
            context: What else narrows it down; at most 8,000 characters.
            tools: What the agent has; empty means unknown.
            limit: 1 to 20 experiences; the settings' `recall.limit` where `None`.
            workspace: Whose pool; the settings' where `None`.
            source: Who asks; this machine where empty.
            reader: The holder of a token as whom it is answered, by the name in the sources of the lessons; empty for
                somebody who has brought none, `None` for who asks.

        Raises:
            InvalidInput: An argument is out of its range.
            NotFound: No holder of this name has brought a lesson here.
            StoreError: The pool can't be read.
        """
        eyes = source if reader is None else f"{reader}/{source}"
        if reader and reader not in (holders := await self.overview.holders(workspace=workspace)):
            known = f"those who have: {', '.join(holders)}" if holders else "nobody has"
            raise NotFound(
                f"no holder {clean.label(reader)!r} has brought a lesson here ({known}); who has brought none is "
                "handed out what somebody new is"
            )
        *_, notes = await self._notes(task, context, tools, limit, workspace, eyes)
        return explained(notes, note=_for_reader(notes.trouble, source))

    async def record(
        self,
        task: str = "",
        *,
        outcome: Outcome | None = None,
        reward: float | None = None,
        steps: str | None = None,
        messages: Sequence[object] | None = None,
        experiences: Sequence[object] | None = None,
        receipt: str | None = None,
        used: Sequence[str] | None = None,
        misled: Sequence[str] = (),
        trajectory_id: str | None = None,
        workspace: str | None = None,
        source: str,
        tell: Tell = ignore_progress,
    ) -> RecordResult:
        """Store what was tried and how it ended, settle the receipt, and learn from it.

        A first call takes `task` and `outcome` or `reward`, and anything else that is known. A second call takes
        `trajectory_id` and the `experiences` for it. The same call sent again gets the same answer and stores nothing.

        Args:
            task: In the user's words; 1 to 8,000 characters.
            outcome: `success` or `failure`.
            reward: 0 to 1; 1 is success. Instead of `outcome`, or in agreement with it.
            steps: A summary of what was done.
            messages: The conversation in OpenAI's or Anthropic's shape; instead of `steps`.
            experiences: What is worth keeping, as `ExperienceDraft` describes it; an empty list says nothing is.
            receipt: Of the recall that this attempt used; one that is not known settles nothing, and is told.
            used: Ids of the recalled notes that were acted on: these have the outcome, and the others stay unsettled.
                `None` where it is not known: all that nothing was said of have the outcome.
            misled: Ids of the recalled notes that led astray; each counts as rated not helpful.
            trajectory_id: Of the trajectory that `experiences` are for.
            workspace: Whose pool; the settings' where `None`.
            source: Who records.
            tell: Told what is waited for, where the settings say to wait for the model.

        Raises:
            InvalidInput: Arguments contradict each other or are out of their range; nothing was stored.
            NotFound: No such trajectory in this workspace.
            StoreError: The pool can't be written.
        """
        workspace = self._workspace(workspace)
        source = clean.label(source)
        # A recall that could not write its receipt has handed out an empty one.
        receipt = clean.label(receipt) if receipt else ""
        names = None if used is None else frozenset(map(clean.label, used))
        verdicts = Verdicts(names, frozenset(map(clean.label, misled)))
        if experiences is not None:
            experiences = await redacted_drafts(experiences, self._redact)
        store = await self._open_store()
        if trajectory_id is not None:
            trajectory_id = clean.label(trajectory_id)
            if experiences is None:
                raise InvalidInput("trajectory_id came without experiences; send the list, or [] if there are none")
            if steps is not None or messages is not None:
                name = "steps" if messages is None else "messages"
                raise InvalidInput(f"{name} came with trajectory_id, whose attempt is stored already; leave {name} out")
            drafts, rejected = read_drafts(experiences)
            result = await self._recorder(store).add_drafts(
                workspace,
                trajectory_id,
                drafts,
                rejected,
                digest=digest_of_drafts(experiences),
                receipt=receipt,
                verdicts=verdicts,
                outcome=outcome,
                reward=reward,
                source=source,
            )
            return await self._after_recording(store, workspace, result, tell)

        task = self._redact(clean.text("task", task))
        outcome, reward = outcome_and_reward(outcome, reward)
        steps_taken = await transcript_text(steps, messages, redact=self._redact)
        drafts, rejected = read_drafts(experiences or [])
        digest = records.digest(workspace, task, reward, steps_taken, receipt, digest_of_drafts(experiences))
        if said := verdicts.to_json():
            digest = records.digest(digest, said)
        at = now()
        trajectory = Trajectory(
            id=new_id("t"),
            workspace=workspace,
            task=task,
            task_key=task_key(task),
            outcome=outcome,
            reward=reward,
            transcript=steps_taken,
            digest=digest,
            drafts_digest=digest_of_drafts(experiences),
            receipt=receipt,
            source=source,
            created_at=at,
            updated_at=at,
            status="pending",
            drafts=to_json(drafts),
            rejected=dump_rejected(rejected),
            answer="",
            verdicts=verdicts.to_json(),
        )
        result = await self._recorder(store).add(trajectory, drafts, verdicts)
        return await self._after_recording(store, workspace, result, tell)

    async def rate(
        self,
        experience_id: str,
        *,
        helpful: bool,
        receipt: str | None = None,
        reason: str = "",
        workspace: str | None = None,
        source: str,
    ) -> RateResult:
        """Say whether one recalled experience helped. Rating the same receipt again replaces the rating.

        Without a receipt, the latest recall of the experience by the same source is rated; where there is none, the
        rating stands for itself, once per source.

        Raises:
            InvalidInput: The reason is too long, or the experience is not on that receipt.
            NotFound: No such experience or receipt in this workspace.
            StoreError: The pool can't be written.
        """
        workspace = self._workspace(workspace)
        source = clean.label(source)
        experience_id = clean.label(experience_id)
        # A recall that could not write its receipt has handed out an empty one.
        receipt = clean.label(receipt) if receipt else None
        reason = self._redact(clean.text("reason", reason, optional=True))
        store = await self._open_store()

        async def rated(writer: LedgerWriter) -> tuple[Experience, ReceiptLine, bool]:
            """Settle the rating; return the experience after it, what was rated, and whether the rules archive it."""
            experience = (await store.experiences(workspace, [experience_id])).get(experience_id)
            if experience is None:
                raise NotFound(clean.unknown("experience", experience_id, workspace))
            line: ReceiptLine | None
            if receipt is not None:
                lines = await store.receipts.lines(workspace, receipt)
                line = ledger.line_of(lines, receipt, workspace, source, experience_id)
            else:
                line = await store.receipts.latest_line(workspace, experience_id, source)
                if line is None or line.created_at < experience.counted_since:
                    line = ledger.receipt_lines(new_id("r"), [experience], workspace, experience.task, source)[0]
            line = rules.settle_by_rating(line, helped=helpful, reason=reason, at=now())
            counted = await ledger.count(store, [experience], self.settings.refine, settled=[line])
            experience = counted.changed.get(experience_id, experience)
            await writer.add_log(log.of_rating(line, experience, source=source, pruned=bool(counted.pruned)))
            await writer.settle([line])
            await writer.put_counters(list(counted.changed.values()))
            return experience, line, bool(counted.pruned)

        async with store.settling() as writer:
            experience, line, is_pruned = await rated(writer)
            if is_pruned:
                # That is a change of the pool, and the pool comes before the ledger.
                writer.discard()
        if is_pruned:
            async with store.writing() as pool:
                async with pool.settling() as writer:
                    experience, line, is_pruned = await rated(writer)
                if is_pruned:
                    await pool.put_experiences([experience])
        self._look_after_pool()
        return RateResult(
            experience_id=experience.id,
            helpful=helpful,
            receipt=line.receipt,
            frequency=experience.frequency,
            utility=experience.utility,
            status=experience.status,
            status_reason=experience.status_reason,
        )

    # --- the queue ---

    async def awaiting(self, *, workspace: str | None = None) -> list[Trajectory]:
        """Return the trajectories that wait for somebody to write their lessons, oldest first."""
        store = await self._open_store()
        return await store.awaiting(self._workspace(workspace))

    async def count_as_asked(self, trajectory: Trajectory) -> None:
        """Note that somebody was asked for the lessons of an attempt that waits for them."""
        store = await self._open_store()
        with _put_off_unwritable():
            async with store.settling() as writer:
                current = await store.trajectory(trajectory.workspace, trajectory.id)
                if current is not None and current.status == "awaiting_experiences":
                    await writer.put_trajectory(replace(current, tries=current.tries + 1))

    async def queued(self, *, workspace: str | None = None) -> list[Trajectory]:
        """Return the trajectories that wait for the model behind the server, oldest first."""
        store = await self._open_store()
        return await store.queued(self._workspace(workspace))

    async def distill(self, done: Callable[[Trajectory], Awaitable[None]]) -> int:
        """Let the model work on all that is queued, in every workspace, now; return how many there were.

        Args:
            done: Told of each trajectory as it is afterwards; one that is still queued says why.

        Raises:
            InvalidInput: No model is configured.
        """
        await self._open_store()
        if self._queue is None:
            raise InvalidInput("no model is configured; name one in [llm] base_url and model")
        await self._vectors.load(download=False)
        return await self._queue.work_all(done)

    # --- inside ---

    async def _notes(
        self,
        task: str,
        context: str,
        tools: Sequence[str],
        limit: int | None,
        workspace: str | None,
        reader: str,
        holdout: float = 0.0,
    ) -> tuple[str, str, Store, Notes]:
        """Return task and workspace as they are taken, the store, and the notes about the task."""
        task = self._redact(clean.text("task", task))
        context = self._redact(clean.text("context", context, optional=True))
        workspace = self._workspace(workspace)
        limit = self.settings.recall.limit if limit is None else limit
        if not 1 <= limit <= 20:
            raise InvalidInput(f"limit is {limit}; it must be from 1 to 20")
        store = await self._open_store()
        notes = await self._search.notes(
            store, workspace, task, context=context, tools=tools, limit=limit, reader=reader, holdout=holdout
        )
        return task, workspace, store, notes

    async def _open_store(self) -> Store:
        async with self._opening:
            if self._store is not None and not await self._store.is_current():
                # Closed at the end only: a table that is closed under a reader makes LanceDB panic.
                self._replaced.append(self._store)
                self._store = None
            if self._store is None:
                store = await Store.open(location_of(self.settings.home, self.settings.storage))
                if self._model is not None:
                    count_spent = partial(self._count_spent, store)
                    await count_spent()
                    self._queue = Queue(store, self._vectors, self._model, self.settings, self._take_spent, count_spent)
                self._store = store
                if self._queue_is_run:
                    # That of the tables before has ended with them.
                    self._queue_is_run = False
                    self._run_queue()
            return self._store

    def _run_queue(self) -> None:
        """Have the queue worked on in the background, where there is a model to do it."""
        if self._queue is not None and not self._queue_is_run:
            self._queue_is_run = True
            self._start(self._queue.run)

    def _take_in_cost(self, spent: Spent) -> None:
        """Note what a question has cost; where the day has a limit, others on this home have to know it soon."""
        self._spent.append(spent)
        if self.settings.llm.tokens_per_day and not self._telling_costs:
            self._telling_costs = True
            self._start(self._tell_costs)

    async def _tell_costs(self) -> None:
        try:
            store = await self._open_store()
            while self._spent:
                await self._store_costs(store)
                await self._count_spent(store)
                await anyio.sleep(COSTS_S)
        finally:
            self._telling_costs = False

    def _take_spent(self) -> list[Spent]:
        spent = self._spent[:]
        self._spent.clear()
        return spent

    async def _close(self) -> None:
        if self._is_frozen:
            gc.unfreeze()
        if self._llm is not None:
            await self._llm.close()
        if self._store is not None:
            try:
                await self._store_costs(self._store)
            except StoreError as exc:
                logger.warning("what the model has cost is not entered: %s", exc)
        for store in [*self._replaced, *([self._store] if self._store is not None else [])]:
            store.close()

    async def _store_costs(self, store: Store) -> None:
        if self._spent:
            async with store.settling() as writer:
                await writer.add_spent(self._take_spent())

    async def _count_spent(self, store: Store) -> None:
        """Know what all processes on this home have spent of the day's tokens."""
        if self.settings.llm.tokens_per_day:
            stored = await store.spent(since=now() - timedelta(days=1))
            self._allowance.recount([*stored, *self._spent])

    def _look_after_pool(self) -> None:
        """Compact and fill in vectors behind the calls, not between them."""
        self._last_call = anyio.current_time()
        if not self._looking_after:
            self._looking_after = True
            self._start(self._look_after_pool_now)

    async def _look_after_pool_now(self) -> None:
        try:
            store = await self._open_store()
            while store.compaction.writes < MAX_WRITES_WITHOUT_COMPACTION:
                seen = self._last_call, await store.versions()
                await anyio.sleep(QUIET_S)
                if seen == (self._last_call, await store.versions()):
                    break
            await self._store_costs(store)
            await self._count_spent(store)
            await store.compaction.run()
            await self._missing_vectors.fill(store)
        finally:
            self._looking_after = False
        if store.compaction.has_old_versions and not self._dropping_versions:
            self._dropping_versions = True
            self._start(self._drop_old_versions)

    async def _drop_old_versions(self) -> None:
        """Leave no old version of a table behind, once nobody has called for as long as one has to stay."""
        try:
            seen = None
            while seen != self._last_call:
                seen = self._last_call
                await anyio.sleep_until(seen + KEEP_VERSIONS.total_seconds())
            with _put_off_unwritable():
                await (await self._open_store()).compaction.drop_old_versions()
        finally:
            self._dropping_versions = False

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` in the background. What goes wrong there is logged; the calls in front go on."""

        async def run() -> None:
            try:
                await work()
            except StoreError as exc:
                # The next call meets the same error and tells its caller.
                logger.warning("%s", exc)
            except Exception:
                logger.exception("background work failed")

        self._background.start_soon(run)

    def _workspace(self, workspace: str | None) -> str:
        return clean.workspace(self.settings.workspace if workspace is None else workspace)

    def _recorder(self, store: Store) -> Recorder:
        """Return the one of a store: calls that come at the same time share it."""
        if self._recording is None or self._recording.store is not store:
            self._recording = Recorder(store, self._vectors, self.settings, has_model=self._model is not None)
        return self._recording

    async def _after_recording(self, store: Store, workspace: str, result: RecordResult, tell: Tell) -> RecordResult:
        """Return the answer, completed where the settings say to wait for the model."""
        self._look_after_pool()
        if result.status != "queued" or self._queue is None:
            return result
        self._queue.wake()
        if not self.settings.llm.wait:
            return result
        self._run_queue()
        trajectory = await store.trajectory(workspace, result.trajectory_id)
        if trajectory is None:
            return result
        processed = await self._queue.processed(trajectory, tell)
        result = RecordResult.model_validate_json(processed.answer).model_copy(update={"notes": result.notes})
        if processed.status == "queued" and processed.trouble:
            again = (
                "tried again later" if processed.retry_at is not None else "not tried again until `reme-mcp distill`"
            )
            trouble = _for_reader(processed.trouble, processed.source)
            why = f"Nothing was learned from it yet, and it is {again}: {trouble}"
            return result.model_copy(update={"brief": "\n\n".join(filter(None, (result.brief, why)))})
        return result


@contextmanager
def _put_off_unwritable() -> Iterator[None]:
    """Leave what can't be written for the next start: a home that can only be read is still good for that."""
    try:
        yield
    except StoreError as exc:
        logger.warning("unfinished work has to wait: %s", exc)


def _for_reader(trouble: str, source: str) -> str:
    """Return what a source is told of a trouble of this machine, whose folders and addresses are nothing to guests."""
    if not trouble or rater_of(source) == THIS_MACHINE:
        return trouble
    logger.warning("%s", trouble)
    return "the server has some trouble, its log says why"
