"""Refinement: what a known outcome does to counters, when a lesson has to go, and which has to prove itself first.

In:  receipt lines, tallies, attempts, experiences.
Out: the same, changed. Pure functions over values; no table, no clock but the one handed in.

Source: ReMe (arXiv 2512.10696, §3.3): eq. 1, selective addition, failure-aware reflection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from typing import Literal

from reme_mcp.schema import Attempt, Experience, Outcome, Rater, ReceiptLine, Tally, Verdicts
from reme_mcp.sources import THIS_MACHINE

# How many outcomes the prior of a track record weighs, and how many more than its own a rating does.
PRIOR_OUTCOMES = 2
RATER_OUTCOMES = 2
# Failed attempts at the task of a provisional lesson that archive it.
MAX_FAILED_RETRIES = 3
# Of the normal distribution, 95 % lie within as many standard deviations.
Z_95 = 1.96
UNPROVEN = "learned from a failure; no attempt at the same task has succeeded since"


def should_prune(frequency: int, utility: int, *, min_frequency: int, max_utility_ratio: float) -> bool:
    """Return whether φ removes an experience: recalled often (≥ α), and succeeded with in at most β of it.

    Equality removes, as in eq. 1.

    Args:
        frequency: Recalls with a known outcome.
        utility: Those that succeeded with it.
        min_frequency: α, at least 1.
        max_utility_ratio: β, 0 to 1.
    """
    return frequency >= min_frequency and utility <= max_utility_ratio * frequency


def should_prune_by_raters(
    voices: Sequence[Rater], *, min_frequency: int, max_utility_ratio: float, outcomes_per_source: int
) -> bool:
    """Return whether φ removes an experience, no single voice deciding against the others.

    Where one knows outcomes, that is eq. 1. Where several do, α is compared with the outcomes of all, and β with the
    mean of their own shares, in which a voice weighs as many outcomes as it knows, but `outcomes_per_source` at most,
    and no more than all others together. Equality keeps it there: what one finds useful and another does not may be
    either's mistake.

    # Departs from the paper, eq. 1, in which all outcomes come from one benchmark driver: here anybody who may record
    # could otherwise have removed what helps everybody else, or kept what harms them, by saying so often enough.

    Args:
        voices: Each with a known outcome.
        min_frequency: α, at least 1.
        max_utility_ratio: β, 0 to 1.
        outcomes_per_source: At least 1; 0 lets every outcome weigh the same.
    """
    frequency = sum(rater.frequency for rater in voices)
    utility = sum(rater.utility for rater in voices)
    if len(voices) < 2 or outcomes_per_source == 0:
        return should_prune(frequency, utility, min_frequency=min_frequency, max_utility_ratio=max_utility_ratio)
    weights = [min(rater.frequency, outcomes_per_source, frequency - rater.frequency) for rater in voices]
    helped = sum(
        (Fraction(weight * rater.utility, rater.frequency) for weight, rater in zip(weights, voices, strict=True)),
        Fraction(),
    )
    return frequency >= min_frequency and float(helped / sum(weights)) < max_utility_ratio


def share_interval(utility: int, frequency: int) -> tuple[float, float]:
    """Return between which shares the true one lies with 95 % confidence; 0 to 1 where nothing is known.

    Source: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22 (1927).
    """
    if not frequency:
        return 0.0, 1.0
    share, weight = utility / frequency, Z_95**2 / frequency
    middle = (share + weight / 2) / (1 + weight)
    half = Z_95 * math.sqrt(share * (1 - share) / frequency + weight / (4 * frequency)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def settle_by_outcome(
    lines: Sequence[ReceiptLine], outcome: Outcome, verdicts: Verdicts, *, at: datetime
) -> list[ReceiptLine]:
    """Return the lines that a known outcome changes, as they are then; doing it again changes none.

    A rating stays. A note that was used gets the outcome, one that misled did not help, whatever an outcome said of
    all that stood by. Where it was said what was used, nothing else is settled; otherwise all are that nothing has
    settled before.

    # Departs from the paper, §3.3: f rises when the outcome is known, not at every recall. A benchmark always knows it;
    # a desktop client mostly does not, and counting silence as failure would empty the pool.
    """
    after = [(line, _settled(line, outcome == "success", verdicts, at=at)) for line in lines if line.is_handed_out]
    return [new for line, new in after if (new.helped, new.settled_by) != (line.helped, line.settled_by)]


def _settled(line: ReceiptLine, succeeded: bool, verdicts: Verdicts, *, at: datetime) -> ReceiptLine:
    if line.settled_by == "rating":
        return line
    if line.experience_id in verdicts.misled:
        return replace(line, helped=False, settled_by="misled", settled_at=at)
    if verdicts.used is None:
        return line if line.settled_by else replace(line, helped=succeeded, settled_by="trajectory", settled_at=at)
    if line.experience_id in verdicts.used:
        return replace(line, helped=succeeded, settled_by="used", settled_at=at)
    if line.settled_by == "trajectory":
        # It was settled before it was said what was used.
        return unsettle(line)
    return line


def settle_by_rating(line: ReceiptLine, *, helped: bool, reason: str, at: datetime) -> ReceiptLine:
    """Return the line as rated. A rating replaces whatever settled it before."""
    return replace(line, helped=helped, settled_by="rating", settled_at=at, reason=reason)


def count(experience: Experience, tally: Tally, *, at: datetime) -> Experience:
    """Return the experience with its counters brought up to date from the receipts; the same one if nothing changed."""
    frequency = experience.prior_frequency + tally.frequency
    utility = experience.prior_utility + tally.utility
    counted = replace(
        experience,
        frequency=frequency,
        utility=utility,
        rated_helpful=tally.rated_helpful,
        rated_unhelpful=tally.rated_unhelpful,
        objection=tally.objection,
    )
    return experience if counted == experience else replace(counted, updated_at=at)


def archive(experience: Experience, reason: str, *, at: datetime) -> Experience:
    """Return the experience out of recall, with the reason."""
    return replace(experience, status="archived", status_reason=reason, updated_at=at)


def supersede(older: Experience, newer: Experience, *, at: datetime) -> Experience:
    """Return the older wording out of recall, with the newer one as the reason; counters do not pass on."""
    return replace(archive(older, f"superseded by {newer.id}", at=at), superseded_by=newer.id)


def is_credited(line: ReceiptLine) -> bool:
    """Return whether an outcome, and no rater, says of a line that the attempt succeeded."""
    return line.helped is True and line.settled_by in ("trajectory", "used")


def unsettle(line: ReceiptLine) -> ReceiptLine:
    """Return the line as if nothing had settled it."""
    return replace(line, helped=None, settled_by="", settled_at=None)


def restore(experience: Experience, *, at: datetime) -> Experience:
    """Return the experience back in recall, counting anew; otherwise the next miss would remove it again."""
    return replace(
        experience,
        status="active",
        status_reason="",
        frequency=0,
        utility=0,
        prior_frequency=0,
        prior_utility=0,
        rated_helpful=0,
        rated_unhelpful=0,
        objection="",
        superseded_by="",
        counted_since=at,
        updated_at=at,
    )


def admit(experience: Experience, outcome: Outcome, *, add_from: Literal["all", "success"]) -> Experience:
    """Return a new experience with the status that it starts with.

    The outcome of the attempt that brought it decides, whatever kind its writer gives it: a comparison that comes with
    a failure says what the better attempt did, and that this attempt could do it is still to be seen.

    # Departs from the paper, §3.3, which keeps a failure's lessons out of the pool until a retry of the same run has
    # succeeded: over MCP the retry may come days later, and from another client.

    Args:
        experience: Not yet stored.
        outcome: Of the attempt that brought it.
        add_from: Whose lessons are recalled at once.
    """
    if add_from == "all" or outcome == "success" or experience.status == "quarantined":
        return experience
    return replace(experience, status="provisional", status_reason=UNPROVEN)


def activate(experience: Experience, *, at: datetime) -> Experience:
    """Return the experience in recall for every task."""
    return replace(experience, status="active", status_reason="", updated_at=at)


def prove(experience: Experience, attempts: Sequence[Attempt], *, at: datetime) -> Experience:
    """Return a provisional experience active, archived or as it is: what the retries of its task make of it.

    The first success makes it active, unless `MAX_FAILED_RETRIES` failures came before. A pinned one is never archived.
    Attempts from before the lesson was there, and the one that brought it, say nothing about it.

    Args:
        experience: Provisional.
        attempts: All at one task that it was learned from, oldest first.
        at: Now.
    """
    origin = next((attempt.created_at for attempt in attempts if attempt.id in experience.trajectory_ids), at)
    learned_at = max(experience.created_at, origin)
    failed = 0
    for attempt in attempts:
        if attempt.created_at <= learned_at:
            continue
        if attempt.outcome == "success":
            return activate(experience, at=at)
        failed += 1
        if failed == MAX_FAILED_RETRIES and not experience.pinned:
            return archive(experience, f"{failed} later attempts at its task failed, too", at=at)
    return experience


def track_record(experience: Experience, base_rate: float) -> float:
    """Return how an experience has done against all attempts of its workspace, -1 (fails) to 1; 0 is untested.

    The mean of a Beta posterior, whose prior is centred on the base rate and weighs as much as `PRIOR_OUTCOMES`. Above
    the base rate only what is left of it a standard deviation lower counts, so that one lucky success is no merit.
    A rater weighs as many outcomes more as `RATER_OUTCOMES`.

    Args:
        experience: With its counters.
        base_rate: Share of the workspace's attempts that succeed, more than 0 and less than 1.
    """
    raters = experience.rated_helpful + experience.rated_unhelpful
    frequency = experience.frequency + RATER_OUTCOMES * raters
    utility = experience.utility + RATER_OUTCOMES * experience.rated_helpful
    if not frequency:
        return 0.0
    weight = PRIOR_OUTCOMES + frequency
    mean = (PRIOR_OUTCOMES * base_rate + utility) / weight
    if mean < base_rate:
        return mean / base_rate - 1
    lower = mean - math.sqrt(max(0.0, mean * (1 - mean)) / (weight + 1))
    return max(0.0, lower - base_rate) / (1 - base_rate)


def is_proven(experience: Experience, base_rate: float) -> bool:
    """Return whether attempts succeed with an experience more often than without it, as far as that can be known.

    The mean of its track record stays above the base rate when a standard deviation is taken from it, and no rater who
    objects is left unanswered.
    """
    return track_record(experience, base_rate) > 0 and not is_objected_to(experience)


def is_objected_to(experience: Experience) -> bool:
    """Return whether more raters say last that it did not help than that it did: all that is unrated goes before it."""
    return experience.rated_unhelpful > experience.rated_helpful


def base_rate(succeeded: int, attempts: int) -> float:
    """Return the share of attempts that succeed, more than 0 and less than 1; a half where there are none."""
    return (succeeded + 1) / (attempts + 2)


def prune_reason(utility: int, frequency: int, voices: Sequence[Rater]) -> str:
    """Return the sentence that an experience is archived with."""
    reason = f"succeeded with it {utility} of {frequency}"
    return reason if len(voices) < 2 else f"{reason}; {len(voices)} users were heard"


def with_prior(voices: Sequence[Rater], prior_frequency: int, prior_utility: int) -> Sequence[Rater]:
    """Return who knows outcomes of an experience; the counters that it came with were brought from this machine."""
    if not prior_frequency:
        return voices
    known = {rater.who: rater for rater in voices}
    own = known.get(THIS_MACHINE, Rater(THIS_MACHINE, 0, 0))
    known[THIS_MACHINE] = Rater(THIS_MACHINE, own.frequency + prior_frequency, own.utility + prior_utility)
    return tuple(known.values())
