"""From a stored trajectory to what it taught: settle its receipt, pass its drafts through the gate, answer.

In:  a trajectory that is on disk already, the store, the vectors.
Out: experiences added or merged, and the answer, which is kept with the trajectory.
Does not know: who called; the same happens after a call and after a crash.

Everything here may be repeated: drafts have their ids before they are stored, and counters are summed from receipts.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reme_mcp import distill, ledger, prompts, quarantine, refine
from reme_mcp.both import both
from reme_mcp.config import Settings
from reme_mcp.schema import (
    Experience,
    Merged,
    Quarantined,
    ReceiptLine,
    RecordResult,
    RecordStatus,
    Rejected,
    Status,
    Trajectory,
    now,
    task_key,
)
from reme_mcp.searchable import lesson_text
from reme_mcp.store import Store, Writer
from reme_mcp.vectors import Embedded, Vectors
from reme_mcp.words import spell_out

EARLIER_ATTEMPTS = 5
# How many neighbours of a new experience are compared with it.
TWIN_CANDIDATES = 10
# By how many of its words they are searched.
TELLING_WORDS = 16
EVERY_STATUS: tuple[Status, ...] = ("active", "provisional", "quarantined", "archived")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A trajectory with what can be made ready before the pool is locked.

    Attributes:
        candidates: What its drafts would become.
        embedded: Their vectors, in order; `None` without a model.
        readable: Whether the model knows each candidate's script, in order.
    """

    trajectory: Trajectory
    candidates: tuple[Experience, ...]
    embedded: Embedded | None
    readable: tuple[bool, ...]

    def row(self, experience_id: str) -> int:
        """Return the place of a candidate."""
        return [candidate.id for candidate in self.candidates].index(experience_id)


async def prepare(trajectory: Trajectory, vectors: Vectors) -> Prepared:
    """Make the drafts of a trajectory ready to be stored; this may take as long as a model takes."""
    at = now()
    candidates = tuple(
        distill.to_experience(named, trajectory, at=at) for named in distill.from_stored(trajectory.drafts)
    )
    readable = tuple(vectors.reads(lesson_text(candidate)) for candidate in candidates)
    return Prepared(trajectory, candidates, await vectors.embed_experiences(candidates), readable)


async def work_off(
    prepared: Prepared,
    lines: Sequence[ReceiptLine],
    store: Store,
    writer: Writer,
    settings: Settings,
    *,
    to_model: bool,
    put: Callable[[], Awaitable[None]] | None = None,
) -> RecordResult:
    """Do what a trajectory asks for: settle, learn, answer. Safe to repeat after a crash at any point.

    Args:
        prepared: The trajectory.
        lines: All of its receipt.
        store: To read from.
        writer: To write with.
        settings: The rules' numbers.
        to_model: Leave the learning to the model behind the server; the trajectory is queued for it.
        put: Puts the trajectory on disk, which comes before all else that is written; `None` where it is there, and
            some of what it asks for may be done.
    """
    plan = partial(_plan, prepared, lines, store, settings, to_model=to_model)
    if put is None:
        work = await plan()
    else:
        work, _ = await both(plan, put)
    await _carry_out(work, prepared, writer, is_new=put is not None)
    return work.answer


async def learn(prepared: Prepared, store: Store, writer: Writer, settings: Settings) -> RecordResult:
    """Learn what the model behind the server made of a queued trajectory, and complete its answer; may be repeated."""
    answer = RecordResult.model_validate_json(prepared.trajectory.answer)
    answer = answer.model_copy(update={"rejected": rejected_of(prepared.trajectory)})
    work = await _learned(prepared, await _neighbours(prepared, store), store, settings, {}, answer)
    await _carry_out(work, prepared, writer, is_new=False)
    return work.answer


def is_for_model(trajectory: Trajectory) -> bool:
    """Return whether there is anything that a model could distil or judge: not if nothing was said to be learned."""
    return trajectory.drafts_digest == "" or trajectory.drafts != "[]" or trajectory.rejected != "[]"


@dataclass(frozen=True, slots=True)
class _Work:
    """What a trajectory comes to; nothing of it is written yet.

    Attributes:
        settled: Lines of its receipt.
        changed: Experiences that were there before.
        added: Experiences that were not.
        trajectory: Itself, with its answer.
    """

    settled: Sequence[ReceiptLine]
    changed: Sequence[Experience]
    added: Sequence[Experience]
    trajectory: Trajectory
    answer: RecordResult


async def _plan(
    prepared: Prepared, lines: Sequence[ReceiptLine], store: Store, settings: Settings, *, to_model: bool
) -> _Work:
    """Return what a trajectory comes to; nothing is written here."""
    trajectory = prepared.trajectory
    settle = partial(ledger.settle, store, trajectory, lines, settings.refine)
    settlement, neighbours = (
        (await settle(), []) if to_model else await both(settle, partial(_neighbours, prepared, store))
    )
    counted = settlement.counted
    proven = await ledger.prove(store, trajectory, counted.changed, settings.refine)
    changed = counted.changed | proven.changed
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
        work = await _learned(prepared, neighbours, store, settings, changed, answer)
        return replace(work, settled=settlement.lines)
    if trajectory.outcome == "failure":
        # The retry need not wait for the judge.
        lessons = [candidate.content for candidate in prepared.candidates if candidate.status != "quarantined"]
        answer = answer.model_copy(update={"lessons": lessons})
    # What went wrong with earlier drafts says nothing about these.
    queued = _answered(replace(trajectory, tries=0, retry_at=None, trouble=""), answer)
    return _Work(settlement.lines, list(changed.values()), [], queued, answer)


async def _learned(
    prepared: Prepared,
    neighbours: Sequence[_Neighbours],
    store: Store,
    settings: Settings,
    changed: Mapping[str, Experience],
    answer: RecordResult,
) -> _Work:
    """Return what is new of the candidates, together with `changed`, and the answer with its trajectory."""
    trajectory = prepared.trajectory
    added, merged, told, rejected = _sort(prepared, neighbours, changed, settings)
    rejected = [*answer.rejected, *rejected]
    status = _status(trajectory, rejected)
    brief = ""
    if status == "awaiting_experiences":
        # This one may be stored by now, or not.
        attempts = await store.attempts(trajectory.workspace, trajectory.task_key, limit=EARLIER_ATTEMPTS + 1)
        earlier = distill.earlier_attempts(trajectory, attempts)[:EARLIER_ATTEMPTS]
        brief = prompts.brief(trajectory.id, trajectory.outcome, earlier)
    recalled = [one for one in added if one.status != "quarantined"]
    lessons = [one.content for one in (*recalled, *merged.values()) if one.status != "quarantined"]
    answer = answer.model_copy(
        update={
            "status": status,
            "added": [one.id for one in recalled],
            "merged": told,
            "rejected": rejected,
            "lessons": lessons if trajectory.outcome == "failure" else [],
            "brief": brief,
            "quarantined": [
                Quarantined(id=one.id, when_to_use=one.when_to_use[: distill.SHOWN_CHARS], reason=one.status_reason)
                for one in added
                if one.status == "quarantined"
            ],
        }
    )
    answered = _answered(replace(trajectory, drafts="[]", retry_at=None, trouble=""), answer)
    return _Work([], list({**changed, **merged}.values()), added, answered, answer)


async def _carry_out(work: _Work, prepared: Prepared, writer: Writer, *, is_new: bool) -> None:
    """Write it all, the answered trajectory last: until it is there, all of it is done again at the next start."""
    await both(
        partial(writer.settle, work.settled),
        partial(
            both,
            partial(writer.put_experiences, [*work.changed, *work.added], are_new=is_new and not work.changed),
            partial(_put_vectors, prepared, writer, work.added, are_new=is_new),
        ),
    )
    await writer.put_trajectory(work.trajectory)


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


async def _put_vectors(prepared: Prepared, writer: Writer, added: Sequence[Experience], *, are_new: bool) -> None:
    if prepared.embedded is not None:
        rows = [prepared.row(one.id) for one in added]
        vectors, lessons = prepared.embedded.vectors[rows], prepared.embedded.lessons[rows]
        await writer.put_vectors(prepared.embedded.space, added, vectors, lessons, are_new=are_new)


@dataclass(frozen=True, slots=True)
class _Neighbours:
    """What the pool says about the same as a candidate, and the candidate itself if it is stored already.

    Attributes:
        others: The experiences.
        cosines: Of their lessons to the candidate's, by id; of those that have a vector.
    """

    others: Sequence[Experience]
    cosines: Mapping[str, float]


async def _neighbours(prepared: Prepared, store: Store) -> list[_Neighbours]:
    """Return the neighbours of each candidate, in order."""
    found = []
    for row, candidate in enumerate(prepared.candidates):
        words = _telling_words(lesson_text(candidate))
        cosines, similar = await both(
            partial(_cosines, prepared, row, store),
            partial(store.match_text, candidate.workspace, words, statuses=EVERY_STATUS, limit=TWIN_CANDIDATES),
        )
        ids = sorted({candidate.id, *cosines, *(id for id, _ in similar)})
        others = await store.experiences(candidate.workspace, ids)
        found.append(_Neighbours(list(others.values()), cosines))
    return found


async def _cosines(prepared: Prepared, row: int, store: Store) -> dict[str, float]:
    """Return how similar the lessons of the nearest experiences are to a candidate's."""
    embedded = prepared.embedded
    if embedded is None or not prepared.readable[row]:
        return {}
    workspace = prepared.trajectory.workspace
    near = await store.match_vector(embedded.space, workspace, embedded.vectors[row], limit=TWIN_CANDIDATES)
    lessons = await store.lesson_vectors(embedded.space, [id for id, _ in near])
    return {id: float(vector @ embedded.lessons[row]) for id, vector in lessons.items()}


def _sort(
    prepared: Prepared,
    neighbours: Sequence[_Neighbours],
    changed: Mapping[str, Experience],
    settings: Settings,
) -> tuple[list[Experience], dict[str, Experience], list[Merged], list[Rejected]]:
    """Return the candidates that say something new; the twins of others, by id, with their trajectory added; the rest.

    Args:
        prepared: The candidates.
        neighbours: Of each.
        changed: Experiences that are not yet stored as they are now, by id.
        settings: From where on two lessons are the same, and what starts as provisional.
    """
    added: list[Experience] = []
    merged: dict[str, Experience] = {}
    told: list[Merged] = []
    rejected: list[Rejected] = []
    for row, (candidate, near) in enumerate(zip(prepared.candidates, neighbours, strict=True)):
        current = [merged.get(other.id, changed.get(other.id, other)) for other in near.others]
        if stored := [other for other in current if other.id == candidate.id]:
            # A process died after storing it: what it has become since is not undone.
            added += stored
            continue
        candidate = refine.admit(candidate, prepared.trajectory.outcome, add_from=settings.refine.add_from)
        cosines = {**near.cosines, **_cosines_in_batch(prepared, row, added)}
        others = [other for other in (*current, *added) if _may_be_twins(candidate, other)]
        twin = distill.find_twin(candidate, others, cosines, settings.dedup)
        if twin is None:
            added.append(candidate)
            continue
        id, shown = twin.experience.id, candidate.when_to_use[: distill.SHOWN_CHARS]
        if twin.experience.status == "archived":
            reason = f"{id} said the same ({twin.how}) and was archived: {twin.experience.status_reason}"
            rejected.append(Rejected(when_to_use=shown, reason=reason))
        elif any(one.id == id for one in added):
            rejected.append(Rejected(when_to_use=shown, reason=f"{id}, of the same call, says the same ({twin.how})"))
        else:
            merged[id] = _merge(twin.experience, candidate)
            status, known = merged[id].status, merged[id].when_to_use[: distill.SHOWN_CHARS]
            if status == "quarantined":
                # Nobody but a person is told more than that it is there.
                known = ""
            told.append(Merged(id=id, when_to_use=known, status=status, how=twin.how))
    return added, merged, told, rejected


def _may_be_twins(candidate: Experience, other: Experience) -> bool:
    """Return whether one may be taken for the other: nothing gets in, or is held back, as the copy of another.

    What is suspected is a copy of what is held back or was thrown out, and of what a person approved in these very
    words; what is not is never a copy of what is held back.
    """
    if candidate.status != "quarantined":
        return other.status != "quarantined"
    if other.status in ("quarantined", "archived"):
        return True
    same = task_key(distill.lesson(candidate)) == task_key(distill.lesson(other))
    return same and quarantine.is_approved(other)


def _cosines_in_batch(prepared: Prepared, row: int, added: Sequence[Experience]) -> dict[str, float]:
    """Return how similar the lessons of those just added are to a candidate's."""
    embedded = prepared.embedded
    if embedded is None or not prepared.readable[row]:
        return {}
    return {one.id: float(embedded.lessons[prepared.row(one.id)] @ embedded.lessons[row]) for one in added}


def _telling_words(text: str) -> str:
    """Return the longest words of a text: mostly the rarest, and enough to find one that says the same."""
    words = dict.fromkeys(spell_out(text).split())
    return " ".join(sorted(words, key=len, reverse=True)[:TELLING_WORDS])


def _merge(twin: Experience, candidate: Experience) -> Experience:
    """Return the older record with the candidate's trajectory added; text, id and counters stay.

    What a success teaches as well is provisional no longer.
    """
    if twin.status == "provisional" and candidate.status == "active":
        twin = refine.activate(twin, at=candidate.updated_at)
    new = tuple(id for id in candidate.trajectory_ids if id not in twin.trajectory_ids)
    return replace(twin, trajectory_ids=twin.trajectory_ids + new, updated_at=candidate.updated_at) if new else twin


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
