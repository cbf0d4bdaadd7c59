"""What a call records: a new attempt, or the lessons for one that is stored already.

In:  an attempt with its drafts, checked by `record.py`; one store.
Out: the answer. The same call sent again gets the same one, and stores nothing; what a process died over is finished.
Does not know: arguments of a call, the queue, compaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from reme_mcp.config.settings import Settings
from reme_mcp.distill.drafts import NamedDraft, mended, to_json
from reme_mcp.distill.pipeline import Begin, Pipeline
from reme_mcp.distill.plan import Prepared, StoredAttempt, dump_rejected, is_for_model, prepare
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.models.service import Vectors
from reme_mcp.refine import ledger
from reme_mcp.results import RecordResult, Rejected
from reme_mcp.schema import Outcome, Trajectory, Verdicts, now
from reme_mcp.sources import may_speak_for
from reme_mcp.store import log
from reme_mcp.store.ledger_writer import LedgerWriter
from reme_mcp.store.store import Store
from reme_mcp.text import clean

# Puts an attempt on disk; returns the one that is there already, if the same call was sent before.
Put = Callable[[LedgerWriter, Trajectory], Awaitable[Trajectory | None]]


class Recorder:
    """Records into one store."""

    def __init__(self, store: Store, vectors: Vectors, settings: Settings, *, has_model: bool) -> None:
        """Make one; with a model behind the server, attempts are queued for it."""
        self.store = store
        self._vectors = vectors
        self._pipeline = Pipeline(store, settings)
        self._has_model = has_model

    async def add(self, trajectory: Trajectory, drafts: Sequence[NamedDraft], verdicts: Verdicts) -> RecordResult:
        """Record a new attempt.

        Raises:
            InvalidInput: The verdicts are about notes that the receipt did not hand out.
            StoreError: The pool can't be written.
        """

        async def put(writer: LedgerWriter, attempt: Trajectory) -> Trajectory | None:
            known = await self.store.trajectory_by_digest(trajectory.workspace, trajectory.digest)
            if known is None:
                await writer.add_trajectory(attempt)
            return known

        return await self._take(trajectory, drafts, verdicts, put, receipt=trajectory.receipt, source=trajectory.source)

    async def add_drafts(
        self,
        workspace: str,
        trajectory_id: str,
        drafts: Sequence[NamedDraft],
        rejected: Sequence[Rejected],
        *,
        digest: str,
        receipt: str,
        verdicts: Verdicts,
        outcome: Outcome | None,
        reward: float | None,
        source: str,
    ) -> RecordResult:
        """Take the lessons for an attempt that is stored already.

        Args:
            workspace: Whose pool.
            trajectory_id: Of the attempt.
            drafts: The lessons.
            rejected: Those that can't be taken, and why.
            digest: Of all that came.
            receipt: Of the recall that the attempt used, where it was not named before; empty for none.
            verdicts: On what it handed out.
            outcome: As it was recorded, or `None`.
            reward: Likewise.
            source: Who sends them.

        Raises:
            InvalidInput: It is somebody else's, or was recorded otherwise.
            NotFound: No such attempt in this workspace.
            StoreError: The pool can't be written.
        """
        trajectory = await self.store.trajectory(workspace, trajectory_id)
        if trajectory is None:
            raise NotFound(clean.unknown("trajectory", trajectory_id, workspace))
        if not may_speak_for(source, trajectory.source):
            raise InvalidInput(f"{trajectory_id} was recorded by somebody else; record your own attempt")
        if outcome not in (None, trajectory.outcome) or reward not in (None, trajectory.reward):
            raise InvalidInput(
                f"{trajectory_id} was recorded as {trajectory.outcome} with reward {trajectory.reward:g}; "
                "leave outcome and reward out, or record another attempt without trajectory_id"
            )
        if receipt and trajectory.receipt and receipt != trajectory.receipt:
            raise InvalidInput(f"{trajectory_id} was recorded with receipt {trajectory.receipt}; leave receipt out")
        trajectory = replace(
            trajectory,
            status="pending",
            drafts=to_json(drafts),
            drafts_digest=digest,
            receipt=receipt or trajectory.receipt,
            rejected=dump_rejected(rejected),
            answer="",
            verdicts=verdicts.to_json() or trajectory.verdicts,
            updated_at=now(),
        )

        async def put(writer: LedgerWriter, attempt: Trajectory) -> Trajectory | None:
            known = await self.store.trajectory(workspace, trajectory_id)
            if known is not None and (known.drafts_digest, known.verdicts) == (digest, attempt.verdicts):
                return known
            await writer.add_log(log.of_earlier_answer(known or attempt))
            await writer.put_trajectory(attempt)
            return None

        return await self._take(trajectory, drafts, verdicts, put, receipt=receipt, source=source)

    async def resume(self, trajectory: Trajectory) -> RecordResult:
        """Return the answer to an attempt that is stored already; work it off first if a process died over it.

        Raises:
            StoreError: The pool can't be written.
        """
        if trajectory.answer:
            return RecordResult.model_validate_json(trajectory.answer)
        prepared = await prepare(trajectory, self._vectors)
        answered: list[Trajectory] = []

        async def begin(_: LedgerWriter) -> StoredAttempt | None:
            stored = await self.store.trajectory(trajectory.workspace, trajectory.id) or trajectory
            if stored.answer:
                answered.append(stored)
                return None
            return StoredAttempt(stored, await self.store.receipts.lines(stored.workspace, stored.receipt))

        result = await self._process(prepared, begin, is_new=False)
        return result or RecordResult.model_validate_json(answered[0].answer)

    async def _take(
        self,
        trajectory: Trajectory,
        drafts: Sequence[NamedDraft],
        verdicts: Verdicts,
        put: Put,
        *,
        receipt: str,
        source: str,
    ) -> RecordResult:
        """Put an attempt on disk and process it; a receipt that this call names, and nobody knows, settles nothing."""
        prepared = await prepare(trajectory, self._vectors)
        known: list[Trajectory] = []
        is_unknown = False

        async def begin(writer: LedgerWriter) -> StoredAttempt | None:
            nonlocal is_unknown
            lines = await self.store.receipts.lines(trajectory.workspace, trajectory.receipt)
            is_unknown = bool(receipt) and not ledger.is_own(lines, source)
            if is_unknown:
                stored = StoredAttempt(replace(trajectory, receipt="", verdicts=""), [])
            else:
                ledger.check_verdicts(lines, trajectory.receipt, verdicts)
                stored = StoredAttempt(trajectory, lines)
            if there := await put(writer, stored.trajectory):
                known.append(there)
                return None
            return stored

        answer = await self._process(prepared, begin, is_new=True)
        result = await self.resume(known[0]) if answer is None else answer
        notes = mended(drafts) + ([ledger.unknown_receipt(receipt, trajectory.workspace)] if is_unknown else [])
        return result.model_copy(update={"notes": notes})

    async def _process(self, prepared: Prepared, begin: Begin, *, is_new: bool) -> RecordResult | None:
        to_model = self._has_model and is_for_model(prepared.trajectory)
        return await self._pipeline.process(prepared, begin, to_model=to_model, is_new=is_new)
