"""Utility-based refinement: what a known outcome does to counters, and when a lesson has to go.

In:  receipt lines, tallies, experiences.
Out: the same, changed. Pure functions over values; no table, no clock but the one handed in.

Source: ReMe (arXiv 2512.10696, §3.3, eq. 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reme_mcp.schema import Experience, ReceiptLine
from reme_mcp.store import Tally


def should_prune(frequency: int, utility: int, *, min_frequency: int, max_utility_ratio: float) -> bool:
    """Return whether φ removes an experience: recalled often (≥ α), and helpful in at most β of it.

    Equality removes, as in eq. 1.

    Args:
        frequency: Recalls with a known outcome.
        utility: Those that helped.
        min_frequency: α, at least 1.
        max_utility_ratio: β, 0 to 1.
    """
    return frequency >= min_frequency and utility <= max_utility_ratio * frequency


def settle_by_outcome(lines: Sequence[ReceiptLine], *, helped: bool, at: datetime) -> list[ReceiptLine]:
    """Return the lines that a known outcome settles, settled: those that nothing has settled before.

    # Departs from the paper, §3.3: f rises when the outcome is known, not at every recall. A benchmark always knows it;
    # a desktop client mostly does not, and counting silence as failure would empty the pool.
    """
    return [
        replace(line, helped=helped, settled_by="trajectory", settled_at=at)
        for line in lines
        if line.experience_id and line.helped is None
    ]


def settle_by_rating(line: ReceiptLine, *, helped: bool, reason: str, at: datetime) -> ReceiptLine:
    """Return the line as rated. A rating replaces whatever settled it before."""
    return replace(line, helped=helped, settled_by="rating", settled_at=at, reason=reason)


def count(experience: Experience, tally: Tally, *, at: datetime) -> Experience:
    """Return the experience with its counters brought up to date from the receipts; the same one if nothing changed."""
    frequency = experience.prior_frequency + tally.frequency
    utility = experience.prior_utility + tally.utility
    if (frequency, utility) == (experience.frequency, experience.utility):
        return experience
    return replace(experience, frequency=frequency, utility=utility, updated_at=at)


def archive(experience: Experience, reason: str, *, at: datetime) -> Experience:
    """Return the experience out of recall, with the reason."""
    return replace(experience, status="archived", status_reason=reason, updated_at=at)


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
        counted_since=at,
        updated_at=at,
    )


def prune_reason(experience: Experience) -> str:
    """Return the sentence that an experience is archived with."""
    return f"helped in {experience.utility} of {experience.frequency} recalls with a known outcome"
