"""Among tasks that are alike: what a lesson does there. It may help one kind of task and harm another.

In:  a lesson, the tasks that are like one, how they ended and what each had.
Out: its lift among them; whether it is withheld there. Pure functions.
Does not know: which tasks are alike (`store/tried.py` does), recalls.

The outcome of the attempt counts, as the hold-out has it: on the one side the alike tasks that had the lesson, on the
other those that did not, whether they went without it, another note had its place, or it was withheld. A task that had
it and did not use it is on neither side. What is withheld gathers tasks without it, so that a mistake corrects itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from reme_mcp.refine.holdout import PRUNING_Z, Draw, Evidence, Trial, evidence_of
from reme_mcp.refine.lift import Outcomes
from reme_mcp.store.tried import TaskVector, Tried, TriedTasks

# How many standard deviations of its lift have to be below 0 before it is withheld from alike tasks; see
# `tests/benchmarks/neighbourhood.py`. That corrects itself, so that less is asked for than before a lesson is removed.
WITHHOLDING_Z = 1.0
# So many kinds of tasks are told of a lesson at most, and so many of its latest tasks are looked at for them.
TOLD = 5
LOOKED_AT = 30


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Tasks that are alike, and what is known of a lesson among them; `receipt` is that of the latest of them."""

    receipt: str
    evidence: Evidence


def evidence_among(
    alike: Sequence[Tried], experience_id: str, *, counted_since: datetime, base_rate: float
) -> Evidence:
    """Return by how much alike tasks go better with a lesson.

    Args:
        alike: They, each with the notes that it had.
        experience_id: Of the lesson.
        counted_since: What had it before then says nothing.
        base_rate: What is expected of tasks without it, as long as none is known.
    """
    drawn: dict[str, list[Trial]] = {"shown": [], "withheld": []}
    with_it, without = [0, 0], [0, 0]
    for one in alike:
        note = one.notes.get(experience_id)
        if note is None:
            without[one.succeeded] += 1
            continue
        if note.created_at < counted_since:
            continue
        if note.arm == "withheld":
            without[one.succeeded] += 1
        elif not note.settled_by:
            continue
        else:
            with_it[one.succeeded and note.settled_by != "misled"] += 1
        if note.arm:
            drawn[note.arm].append(Trial(experience_id, Draw(note.arm, note.chance), one.succeeded))
    return evidence_of(
        drawn["shown"],
        drawn["withheld"],
        with_it=Outcomes(with_it[True], with_it[False]),
        without=Outcomes(without[True], without[False]),
        expected=base_rate,
    )


def should_withhold(one: Evidence, *, min_frequency: int) -> bool:
    """Return whether enough is known of a lesson among alike tasks, and they credibly go worse with it.

    Args:
        one: What is known.
        min_frequency: α, at least 1; of tasks with it.
    """
    return one.known >= min_frequency and one.lift.interval(WITHHOLDING_Z)[1] < 0


def neighbourhoods(
    tried: TriedTasks, experience_id: str, *, counted_since: datetime, base_rate: float, min_frequency: int
) -> list[Neighbourhood]:
    """Return the kinds of tasks that had a lesson at least `min_frequency` times, with its lift among each.

    The latest task and all that are like it are one kind, then the latest of what is left. A task may be like those of
    two kinds. The other arguments are those of `evidence_among`.
    """
    left = {one.receipt: one for one in tried.with_note(experience_id)}
    found: list[Neighbourhood] = []
    for _ in range(LOOKED_AT):
        if not left or len(found) == TOLD:
            break
        one = left.pop(next(iter(left)))
        alike = tried.alike(one.task, TaskVector.from_text(one.vector) if one.vector else None)
        for other in alike:
            left.pop(other.receipt, None)
        told = evidence_among(alike, experience_id, counted_since=counted_since, base_rate=base_rate)
        if told.known >= min_frequency:
            found.append(Neighbourhood(one.receipt, told))
    return found


def harms_everywhere(kinds: Sequence[Neighbourhood]) -> bool:
    """Return whether every kind of tasks that is known goes worse with a lesson, as credibly as removes it.

    Otherwise it is withheld from those that it harms, and stays for the others.
    """
    return all(one.evidence.lift.interval(PRUNING_Z)[1] < 0 for one in kinds)
