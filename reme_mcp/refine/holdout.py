"""The hold-out: now and then a note is withheld, at random, so that what its absence does can be seen.

In:  how many notes there are, the share of recalls; what was drawn and how the attempts ended.
Out: which note is withheld; what is known of each lesson's lift. Pure functions.
Does not know: recalls, or receipts.

A lesson that stands by where tasks succeed need not be why. Where chance alone decided whether it was there, it is. Of
the recalls in which a lesson was due, those that withheld it are compared with those that withheld nothing. A recall
that withheld another lesson says nothing about it. A note among few is withheld more often than one among
many, so that outcomes are weighed by the inverse of the chance (Horvitz and Thompson 1952), and count for as many as
such weights are worth (Kish 1965).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reme_mcp.refine.lift import Lift, Outcomes, lift
from reme_mcp.schema import Arm, Experience, Summary
from reme_mcp.text.plural import many

WITHHELD = "the hold-out drew it ([refine] holdout)"
# From so many known outcomes on, with the note and without it, the hold-out says more than who stood by.
MIN_TRIALS = 5
# How many standard deviations of its lift have to be below 0 before a lesson goes; see `tests/benchmarks/removal.py`.
PRUNING_Z = 1.96


@dataclass(frozen=True, slots=True)
class Draw:
    """What the hold-out drew for a note, and the chance that this had; empty and 0 where it says nothing about it."""

    arm: Arm = ""
    chance: float = 0.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What the hold-out drew for a lesson in one recall, and whether that attempt succeeded."""

    experience_id: str
    draw: Draw
    succeeded: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """By how much tasks go better with a lesson, and how that is known.

    Attributes:
        is_caused: Chance decided which tasks had it; otherwise it only stood by, and the others are all other tasks.
        known: Outcomes with it.
        without: Outcomes without it.
    """

    lift: Lift
    is_caused: bool
    known: int
    without: int

    @property
    def in_words(self) -> str:
        """The same in words."""
        if not self.known:
            return "no outcome is known"
        low, high = self.lift.interval()
        points = f"{100 * self.lift.mean:+.0f} points ({100 * low:+.0f} to {100 * high:+.0f})"
        with_it = f"{many(self.known, 'task')} with it"
        if self.is_caused:
            return f"{points}, caused: {with_it}, {self.without} from which it was withheld at random"
        return f"{points}, not shown to be caused: {with_it}, {many(self.without, 'other task')}"


def should_prune_by_lift(one: Evidence, *, min_frequency: int) -> bool:
    """Return whether enough is known of a lesson, and tasks credibly go worse with it.

    Args:
        one: What is known.
        min_frequency: α, at least 1.
    """
    return one.known >= min_frequency and one.lift.interval(PRUNING_Z)[1] < 0


def draw_withheld(notes: int, share: float, draw: Callable[[], float]) -> list[Draw]:
    """Return what becomes of each of some notes: one of them is withheld in `share` of the recalls.

    Args:
        notes: How many there are.
        share: Of the recalls in which one is withheld, 0 to less than 1.
        draw: Returns a number from 0 to less than 1.
    """
    if not share or not notes:
        return [Draw()] * notes
    chance = share / notes
    withheld = int(draw() / chance)
    if withheld >= notes:
        return [Draw("shown", 1 - share)] * notes
    return [Draw("withheld", chance) if place == withheld else Draw() for place in range(notes)]


def weighed(trials: Sequence[Trial]) -> Outcomes:
    """Return outcomes that weigh the more the rarer they are: their share, and as many as such weights are worth."""
    weights = [1 / one.draw.chance for one in trials]
    total = sum(weights)
    share = sum(weight for weight, one in zip(weights, trials, strict=True) if one.succeeded) / total
    worth = total**2 / sum(weight**2 for weight in weights)
    return Outcomes(share * worth, (1 - share) * worth)


def evidence(
    lessons: Iterable[Experience | Summary], trials: Iterable[Trial], *, succeeded: int, attempts: int
) -> Mapping[str, Evidence]:
    """Return what is known of the lift of each lesson, by id.

    Args:
        lessons: With their counters.
        trials: What the hold-out drew, as far as the outcome is known.
        succeeded: Of the workspace's attempts.
        attempts: All of them.
    """
    drawn: dict[tuple[str, Arm], list[Trial]] = defaultdict(list)
    for one in trials:
        drawn[one.experience_id, one.draw.arm].append(one)
    found = {}
    for lesson in lessons:
        with_it = Outcomes(lesson.utility, lesson.frequency - lesson.utility)
        # Ratings and what came with a file are no attempts here.
        others = Outcomes(max(0, succeeded - lesson.utility), max(0, attempts - succeeded - int(with_it.failed)))
        shown, withheld = drawn[lesson.id, "shown"], drawn[lesson.id, "withheld"]
        found[lesson.id] = evidence_of(shown, withheld, with_it=with_it, without=others)
    return found


def evidence_of(
    shown: Sequence[Trial],
    withheld: Sequence[Trial],
    *,
    with_it: Outcomes,
    without: Outcomes,
    expected: float = 0.5,
) -> Evidence:
    """Return what is known of one lesson: by the hold-out where it has drawn enough, else by who stood by.

    Args:
        shown: Where chance left it.
        withheld: Where chance took it.
        with_it: All tasks that had it.
        without: Others.
        expected: Where the chance without it starts, more than 0 and less than 1.
    """
    if min(len(shown), len(withheld)) >= MIN_TRIALS:
        told = lift(weighed(shown), weighed(withheld), expected=expected)
        return Evidence(told, True, len(shown), len(withheld))
    return Evidence(lift(with_it, without, expected=expected), False, int(with_it.total), int(without.total))


def signs(found: Mapping[str, Evidence]) -> dict[str, int]:
    """Return how many lessons raise the chance of success, lower it, or may do either, at 95 %."""
    intervals = [one.lift.interval() for one in found.values() if one.known]
    raises, lowers = sum(low > 0 for low, _ in intervals), sum(high < 0 for _, high in intervals)
    return {"raises": raises, "lowers": lowers, "not_sure": len(intervals) - raises - lowers}
