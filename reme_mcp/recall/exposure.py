"""Exposure: how much of a recall goes to what others brought and nobody else has tried.

In:  ranked experiences, who asks, which of them have proven themselves.
Out: the same in the order in which they may be handed out, without those that have no place. Pure functions.
Does not know: what is written in an experience. No list of words keeps out what was not seen before; this is what such
               a lesson can do at most.

Unproven is a lesson of another holder of a token with which nobody but that holder has succeeded, unless a person
pinned or approved it. It never stands before a proven one, and two of five places at most go to those of one holder.
What this machine brought, through a client without a token, the command line or a file, is nobody else's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set

from reme_mcp.recall.ranking import Ranked
from reme_mcp.safety.quarantine import is_approved
from reme_mcp.schema import Experience
from reme_mcp.sources import THIS_MACHINE, rater_of

# Of the places of a recall, for the unproven lessons of one holder; one in any case.
MAX_SHARE = 0.4


def is_of_another(item: Ranked, reader: str) -> bool:
    """Return whether a holder of a token brought it who is not the one that speaks through the source `reader`."""
    return rater_of(item.experience.source) not in (THIS_MACHINE, rater_of(reader))


def unproven(ranked: Sequence[Ranked], reader: str, credited: Set[str]) -> set[str]:
    """Return the ids of what others brought and what has not proven itself.

    Args:
        ranked: What was found.
        reader: The source of who asks.
        credited: The ids of those with which somebody succeeded who did not bring them.
    """
    return {item.experience.id for item in ranked if is_of_another(item, reader) and not _is_proven(item, credited)}


def in_order(ranked: Sequence[Ranked], unproven: Set[str]) -> list[Ranked]:
    """Return all, best first, with what is unproven right behind the last that is proven, where it stood before it."""
    last = max((place for place, item in enumerate(ranked) if _has_succeeded(item, unproven)), default=-1)
    before = ranked[: last + 1]
    return [
        *(item for item in before if item.experience.id not in unproven),
        *(item for item in before if item.experience.id in unproven),
        *ranked[last + 1 :],
    ]


def within_share(ranked: Sequence[Ranked], unproven: Set[str], *, limit: int) -> tuple[list[Ranked], list[Ranked]]:
    """Return those that have a place among `limit`, in order, and those whose holder has had its share."""
    taken: Counter[str] = Counter()
    kept: list[Ranked] = []
    over: list[Ranked] = []
    for item in ranked:
        if item.experience.id in unproven:
            holder = rater_of(item.experience.source)
            taken[holder] += 1
            if taken[holder] > share(limit):
                over.append(item)
                continue
        kept.append(item)
    return kept, over


def share(limit: int) -> int:
    """Return how many of `limit` places the unproven lessons of one holder may have."""
    return max(1, int(MAX_SHARE * limit))


def is_proven_to_others(experience: Experience, credited: Set[str]) -> bool:
    """Return whether others may rely on an experience: this machine brought it, or somebody else vouches for it.

    Args:
        experience: From any holder.
        credited: The ids of those with which somebody succeeded who did not bring them.
    """
    is_ours = rater_of(experience.source) == THIS_MACHINE
    return is_ours or _is_vouched_for(experience) or experience.id in credited


def _is_vouched_for(experience: Experience) -> bool:
    """Say whether a person has pinned or approved it."""
    return experience.pinned or is_approved(experience)


def _is_proven(item: Ranked, credited: Set[str]) -> bool:
    experience = item.experience
    return _is_vouched_for(experience) or (experience.id in credited and item.track_record >= 0)


def _has_succeeded(item: Ranked, unproven: Set[str]) -> bool:
    """Say whether it is proven, not only one's own."""
    return item.experience.id not in unproven and item.experience.utility > 0
