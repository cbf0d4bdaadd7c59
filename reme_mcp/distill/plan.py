"""What a trajectory comes to: its receipt settled, its drafts passed through the gate, the answer.

In:  a trajectory that is on disk already, its neighbours in the pool, the store to read from.
Out: experiences added or merged, lines settled, and the answer, which is kept with the trajectory. Nothing is written.
Does not know: who called, when it is written, or who else waits for the pool.

All of it may be worked out again: drafts have their ids before they are stored, and counters are summed from receipts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reme_mcp.config.settings import Settings
from reme_mcp.distill import brief as briefs
from reme_mcp.distill import drafts
from reme_mcp.distill.intake import Batch, Neighbours, admit, embed, find_twin, may_correct, with_provenance
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
from reme_mcp.store.store import Store

EARLIER_ATTEMPTS = 5


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


@dataclass(frozen=True, slots=True)
class Work:
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


def is_for_model(trajectory: Trajectory) -> bool:
    """Return whether there is anything that a model could distil or judge: not if nothing was said to be learned."""
    return trajectory.drafts_digest == "" or trajectory.drafts != "[]" or trajectory.rejected != "[]"


async def plan(
    prepared: Prepared,
    stored: StoredAttempt,
    near: Sequence[Neighbours],
    store: Store,
    settings: Settings,
    *,
    to_model: bool,
    is_new: bool,
) -> Work:
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
        work = await learned(prepared, near, store, settings, counted.changed | proven.changed, answer)
        work = replace(
            work,
            settled=settlement.lines,
            counted=list(counted.changed.values()),
            changed=list({**rows, **{one.id: one for one in work.changed}}.values()),
            activated=[*activated, *work.activated],
        )
        return await without_credit(work, lines, store, settings)
    if trajectory.outcome == "failure":
        # The retry need not wait for the judge.
        lessons = [candidate.content for candidate in prepared.batch.candidates if candidate.status != "quarantined"]
        answer = answer.model_copy(update={"lessons": lessons})
    # What went wrong with earlier drafts says nothing about these.
    queued = _answered(replace(trajectory, tries=0, retry_at=None, trouble=""), answer)
    return Work(settlement.lines, list(counted.changed.values()), list(rows.values()), [], queued, answer, activated)


async def without_credit(work: Work, lines: Sequence[ReceiptLine], store: Store, settings: Settings) -> Work:
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


async def learned(
    prepared: Prepared,
    near: Sequence[Neighbours],
    store: Store,
    settings: Settings,
    changed: Mapping[str, Experience],
    answer: RecordResult,
) -> Work:
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
    return Work([], [], list(merged.values()), added, answered, answer, activated)


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
