"""Receipts and counters on the store: what was handed out, how it was settled, whom φ removes, who proved itself.

In:  the store, receipt lines, a recorded trajectory, the `[refine]` numbers.
Out: receipts and experiences brought up to date, for the caller to store.
Does not know: what was recalled for, or what a trajectory taught.

Counters are summed from the receipts each time, and retries counted in the trajectories, never incremented: settling
twice, or after a crash in between, comes to the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reme_mcp.config.settings import RefineSettings
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.refine import rules as rules_
from reme_mcp.refine.holdout import Draw, Evidence, Trial, evidence, should_prune_by_lift
from reme_mcp.refine.neighbourhood import Neighbourhood, harms_everywhere, neighbourhoods
from reme_mcp.refine.rules import archive, prune_reason, settle_by_outcome, should_prune_by_raters, with_prior
from reme_mcp.results import Settled
from reme_mcp.schema import (
    RECALLABLE,
    Attempt,
    Experience,
    Rater,
    ReceiptLine,
    Summary,
    Tally,
    Trajectory,
    Verdicts,
    now,
    task_key,
)
from reme_mcp.sources import may_speak_for
from reme_mcp.store.store import Store
from reme_mcp.store.summaries import Summaries
from reme_mcp.text.clean import unknown


@dataclass(frozen=True, slots=True)
class Counted:
    """Experiences that are not what they were, by id, and the ids of those that are archived now; not yet stored."""

    changed: dict[str, Experience]
    pruned: list[str]


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a known outcome makes of a receipt; not yet stored.

    Attributes:
        lines: Those that it settles, settled.
        told: The same for the answer, with the counters that come of it.
        counted: The experiences that it changes.
    """

    lines: list[ReceiptLine]
    told: list[Settled]
    counted: Counted


def receipt_lines(
    receipt: str,
    experiences: Sequence[Experience],
    workspace: str,
    task: str,
    source: str,
    *,
    numbers: Sequence[str] | None = None,
    draws: Sequence[Draw] | None = None,
    task_vector: str = "",
) -> list[ReceiptLine]:
    """Return the lines of a new receipt, one for each experience, or the one line of an empty receipt.

    No line is older than what it is counted from: where the clock was set back in between, it would never count.
    `numbers` are what the rank of each came from, as the lines keep them; `draws` what the hold-out drew for
    each. The first line keeps `task_vector`.
    """
    at = now()
    behind = numbers if numbers is not None else [""] * len(experiences)
    drawn = draws if draws is not None else [Draw()] * len(experiences)
    handed_out = [
        (one.id, max(at, one.counted_since), told, draw)
        for one, told, draw in zip(experiences, behind, drawn, strict=True)
    ]
    return [
        ReceiptLine(
            receipt=receipt,
            experience_id=experience_id,
            workspace=workspace,
            task=task,
            rank=place,
            source=source,
            created_at=created_at,
            helped=None,
            settled_by="",
            settled_at=None,
            reason="",
            numbers=told,
            arm=draw.arm,
            chance=draw.chance,
            task_vector=task_vector if place <= 1 else "",
        )
        for place, (experience_id, created_at, told, draw) in (
            enumerate(handed_out, start=1) if handed_out else [(0, ("", at, "", Draw()))]
        )
    ]


async def settle(
    store: Store, trajectory: Trajectory, lines: Sequence[ReceiptLine], rules: RefineSettings, *, is_new: bool
) -> Settlement:
    """Settle what nothing has settled yet of the trajectory's receipt; the caller stores it.

    Args:
        store: To read from.
        trajectory: Its outcome, and what was said of the notes, settle them.
        lines: All of its receipt.
        rules: The numbers of φ.
        is_new: Whether this is done for the first time, not once more after a crash.
    """
    if not lines:
        return Settlement([], [], Counted({}, []))
    verdicts = Verdicts.from_json(trajectory.verdicts)
    settled = settle_by_outcome(lines, trajectory.outcome, verdicts, at=now())
    # Counted for every line of the receipt, not only those settled now: a crash may have come in between.
    ids = [line.experience_id for line in lines if line.is_handed_out]
    experiences = await store.experiences(trajectory.workspace, ids)
    counted = await count(store, list(experiences.values()), rules, settled=settled, is_new=is_new)
    current = experiences | counted.changed
    told = [
        Settled(
            id=line.experience_id,
            helped=line.helped,
            frequency=current[line.experience_id].frequency,
            utility=current[line.experience_id].utility,
            by=line.settled_by,
        )
        for line in settled
        if line.experience_id in current and line.helped is not None
    ]
    return Settlement(settled, told, counted)


async def count(
    store: Store,
    experiences: Sequence[Experience],
    rules: RefineSettings,
    *,
    settled: Sequence[ReceiptLine],
    is_new: bool = True,
) -> Counted:
    """Sum the counters from the receipts and apply φ; the caller stores what changed.

    Args:
        store: To read from.
        experiences: Whose counters.
        rules: The numbers of φ.
        settled: Lines that are about to be written, and count as if they were.
        is_new: Whether φ is asked only about what changed; otherwise a crash may have come before its answer.
    """
    if not experiences:
        return Counted({}, [])
    tallies = await store.receipts.tally(experiences, settled=settled)
    changed: dict[str, Experience] = {}
    pruned: list[str] = []
    both = [(one, rules_.count(one, tallies[one.id], at=now())) for one in experiences]
    asked = [(before, counted) for before, counted in both if counted is not before or not is_new]
    reasons = await _reasons_to_prune(store, experiences[0].workspace, [one for _, one in asked], tallies, rules)
    for before, counted in asked:
        if reason := reasons[counted.id]:
            changed[counted.id] = archive(counted, reason, at=now())
            pruned.append(counted.id)
        elif counted is not before:
            changed[counted.id] = counted
    return Counted(changed, pruned)


async def provisional_for(store: Store, workspace: str, task: str) -> list[Experience]:
    """Return the provisional experiences that were learned from attempts at this very task."""
    if not await store.has_provisional():
        return []
    return await _provisional(store, workspace, await store.outcomes(workspace, task_key(task)))


async def prove(
    store: Store, trajectory: Trajectory, changed: Mapping[str, Experience], rules: RefineSettings
) -> Counted:
    """Return what this attempt and those before make of their task's provisional experiences.

    Args:
        store: The pool; nothing is written here.
        trajectory: The attempt, stored already or not.
        changed: Experiences that are not yet stored as they are now, by id.
        rules: The numbers.
    """
    if not await store.has_provisional():
        return Counted({}, [])
    stored = await store.outcomes(trajectory.workspace, trajectory.task_key)
    earlier = [attempt for attempt in stored if attempt.id != trajectory.id]
    this = Attempt(trajectory.id, trajectory.outcome, trajectory.created_at)
    attempts = sorted([*earlier, this], key=lambda attempt: attempt.created_at)
    proven: dict[str, Experience] = {}
    for found in await _provisional(store, trajectory.workspace, earlier):
        experience = changed.get(found.id, found)
        if experience.status == "provisional":
            after = rules_.prove(experience, attempts, at=now())
            if after is not experience:
                proven[after.id] = after
    return Counted(proven, [one.id for one in proven.values() if one.status == "archived"])


async def _provisional(store: Store, workspace: str, attempts: Sequence[Attempt]) -> list[Experience]:
    # Only failures bring any.
    return await store.provisional(workspace, [attempt.id for attempt in attempts if attempt.outcome == "failure"])


async def lifts(store: Store, workspace: str, lessons: Sequence[Experience | Summary]) -> Mapping[str, Evidence]:
    """Return by how much tasks go better with each of some lessons of a workspace, by id, and how that is known."""
    succeeded, attempts = await store.successes.count(workspace)
    since = {one.id: one.counted_since for one in lessons}
    trials = [
        Trial(one.experience_id, Draw(one.arm, one.chance), ended)
        for one, ended in await store.receipts.trials(workspace)
        if one.experience_id in since and one.created_at >= since[one.experience_id]
    ]
    return evidence(lessons, trials, succeeded=succeeded, attempts=attempts)


async def kinds_of_tasks(
    store: Store, workspace: str, lessons: Sequence[Experience | Summary], *, min_frequency: int
) -> Mapping[str, Sequence[Neighbourhood]]:
    """Return what each of some lessons does among the kinds of tasks that had it at least so often, by its id."""
    tried = await store.tries.of(workspace)
    usual = rules_.base_rate(*await store.successes.count(workspace))
    return {
        one.id: neighbourhoods(
            tried, one.id, counted_since=one.counted_since, base_rate=usual, min_frequency=min_frequency
        )
        for one in lessons
    }


async def removals(store: Store, workspace: str, lessons: Summaries, rules: RefineSettings) -> dict[str, str]:
    """Return why the removal rule takes lessons of a workspace, by the id of each, the worst first."""
    import numpy as np

    known, good = lessons.frequency, lessons.utility
    asked = lessons.status.are(*RECALLABLE) & ~lessons.pinned & (known >= rules.min_frequency)
    rows = asked.nonzero()[0]
    worst_first = rows[np.lexsort((-known[rows], good[rows] / known[rows]))]
    if rules.removal == "lift":
        reasons = await _reasons_by_lift(store, workspace, lessons.at(worst_first), rules)
    else:
        voices = await store.receipts.voices(workspace, lessons, asked)
        numbers = (
            column[worst_first].tolist() for column in (good, known, lessons.prior_frequency, lessons.prior_utility)
        )
        reasons = {
            lessons.id[row]: _reason_by_share(utility, frequency, with_prior(voices.get(row, ()), *prior), rules)
            for row, utility, frequency, *prior in zip(worst_first.tolist(), *numbers, strict=True)
        }
    return {id: reason for id, reason in reasons.items() if reason}


async def _reasons_to_prune(
    store: Store,
    workspace: str,
    experiences: Sequence[Experience],
    tallies: Mapping[str, Tally],
    rules: RefineSettings,
) -> dict[str, str]:
    """Return why the removal rule takes each of some experiences of one workspace, by id; empty where one stays."""
    may_go = [one for one in experiences if not one.pinned and one.status in RECALLABLE]
    reasons = {one.id: "" for one in experiences}
    if rules.removal == "lift":
        return reasons | await _reasons_by_lift(store, workspace, may_go, rules)
    for one in may_go:
        voices = with_prior(tallies[one.id].voices, one.prior_frequency, one.prior_utility)
        reasons[one.id] = _reason_by_share(one.utility, one.frequency, voices, rules)
    return reasons


async def _reasons_by_lift(
    store: Store, workspace: str, lessons: Sequence[Experience | Summary], rules: RefineSettings
) -> dict[str, str]:
    """Return why some lessons go; one that harms only some kinds of tasks stays, and is withheld from these."""
    told = await lifts(store, workspace, lessons) if lessons else {}
    harmful = [one for one in lessons if should_prune_by_lift(told[one.id], min_frequency=rules.min_frequency)]
    if not harmful:
        return {}
    kinds = await kinds_of_tasks(store, workspace, harmful, min_frequency=rules.min_frequency)
    return {id: f"tasks go worse with it: {told[id].in_words}" for id, some in kinds.items() if harms_everywhere(some)}


def _reason_by_share(utility: int, frequency: int, voices: Sequence[Rater], rules: RefineSettings) -> str:
    goes = should_prune_by_raters(
        voices,
        min_frequency=rules.min_frequency,
        max_utility_ratio=rules.max_utility_ratio,
        outcomes_per_source=rules.outcomes_per_source,
    )
    return prune_reason(utility, frequency, voices) if goes else ""


def is_own(lines: Sequence[ReceiptLine], source: str) -> bool:
    """Return whether a receipt exists and a source may settle it; somebody else's is as unknown as none."""
    return bool(lines) and may_speak_for(source, lines[0].source)


def unknown_receipt(receipt: str, workspace: str) -> str:
    """Return what is said of an attempt that came with a receipt which is not known."""
    return f"{unknown('receipt', receipt, workspace)}; nothing is credited to any note, what was recorded is kept"


def line_of(lines: Sequence[ReceiptLine], receipt: str, workspace: str, source: str, experience_id: str) -> ReceiptLine:
    """Return the line of an experience on a receipt that a source may settle, or say why there is none."""
    if not is_own(lines, source):
        raise NotFound(unknown("receipt", receipt, workspace))
    for line in lines:
        if line.experience_id == experience_id and line.is_handed_out:
            return line
    raise InvalidInput(f"{experience_id} is not on receipt {receipt}; leave receipt out to rate it all the same")


def check_verdicts(lines: Sequence[ReceiptLine], receipt: str, verdicts: Verdicts) -> None:
    """Raise `InvalidInput` where a verdict is on a note that the receipt did not hand out, or two are on one."""
    said = verdicts.misled | (verdicts.used or frozenset())
    if said and not receipt:
        raise InvalidInput("used or misled came without the receipt of the recall; send it, or leave them out")
    handed_out = [line.experience_id for line in lines if line.is_handed_out]
    if unknown_ids := sorted(said.difference(handed_out)):
        raise InvalidInput(
            f"{', '.join(unknown_ids)} is not on receipt {receipt}, which handed out "
            f"{', '.join(handed_out) or 'nothing'}; used and misled take ids from there"
        )
    if both := sorted(verdicts.misled & (verdicts.used or frozenset())):
        raise InvalidInput(f"{', '.join(both)} is in used and in misled; name it in one of them")
