"""The log: who changed what in the pool, when and why. Entries are appended, and never changed.

In:  experiences, ratings, trajectories.
Out: entries to store; what other tables say already as entries, too.
Does not know: tables.

An entry holds ids, names and a few words, no text of a lesson. What follows from other tables is not written twice:
that a trajectory was recorded stands in `trajectories`, that a token was made or revoked in the file of tokens.

An entry is written in the lock of its change. What a person does by hand, and what the rules do, is entered first: a
crash in between leaves an entry of a change that did not come about, never a change without its entry. What a recorded
attempt adds is entered beside it, which saves time, and before its answer is stored: until that is there,
all of it is done again after a crash, with entries of the same ids. A rating is entered beside it, too, and answered
after both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from reme_mcp.schema import Experience, Outcome, ReceiptLine, RecordResult, Trajectory, new_id, now

Deed = Literal[
    "added", "merged", "quarantined", "activated", "pruned", "rated", "archived", "restored", "approved", "rejected",
    "pinned", "unpinned", "deleted", "erased", "imported", "backup made", "backup restored", "recorded",
    "token created", "token revoked",
]  # fmt: skip

# Who acts where nobody asked for it: the rules of `refine.py`.
REFINE = "refine"
# Who looks after the pool by hand.
BY_HAND = "cli"
MAX_REASON_CHARS = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One change.

    Attributes:
        id: Random, or made of what it is about where the same change may be written again.
        workspace: Whose pool; empty for what concerns all of the home.
        source: Who did it: a client, the holder of a token, `cli`, a file, `refine`.
        did: What.
        about: The id of the experience or trajectory, the name of a file or token; empty where none.
        reason: In a few words, on one line.
        created_at: When.
    """

    id: str
    workspace: str
    source: str
    did: Deed
    about: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """What of a trajectory the log follows from; as in `Trajectory`."""

    id: str
    workspace: str
    source: str
    outcome: Outcome
    answer: str
    created_at: datetime
    updated_at: datetime


def entry(did: Deed, about: str, *, workspace: str, source: str, reason: str = "", id: str = "") -> Entry:
    """Return an entry of now."""
    return Entry(id or new_id("l"), workspace, source, did, about, _brief(reason), now())


def entries_of(did: Deed, experiences: Iterable[Experience], *, source: str) -> list[Entry]:
    """Return an entry of now for each experience, as it is afterwards; its reason is that of a status that it got."""
    says_why = did not in ("pinned", "unpinned", "deleted")
    return [
        entry(did, one.id, workspace=one.workspace, source=source, reason=one.status_reason if says_why else "")
        for one in experiences
    ]


def of_rules(trajectory: Trajectory, *, pruned: Sequence[Experience], activated: Sequence[Experience]) -> list[Entry]:
    """Return what the rules did to other experiences, now that it is known how an attempt ended; ids as above."""
    after = f"after {trajectory.id} of {trajectory.source}"
    entries = [_of_trajectory(trajectory, "pruned", one.id, REFINE, f"{one.status_reason}; {after}") for one in pruned]
    return entries + [_of_trajectory(trajectory, "activated", one.id, REFINE, after) for one in activated]


def of_import(added: Sequence[Experience], merged: Sequence[Experience], *, source: str) -> list[Entry]:
    """Return what records of a file did to the pool."""
    held = [one for one in added if one.status == "quarantined"]
    taken = [one for one in added if one.status != "quarantined"]
    return [
        *entries_of("imported", taken, source=source),
        *entries_of("quarantined", held, source=source),
        *(entry("merged", one.id, workspace=one.workspace, source=source) for one in merged),
    ]


def of_rating(rated: ReceiptLine, experience: Experience, *, source: str, pruned: bool) -> tuple[Entry, list[Entry]]:
    """Return the entry of a rating, and what the rules did to the experience because of it.

    Args:
        rated: The line of the receipt, as it is now.
        experience: Rated, as it is now.
        source: Who rated.
        pruned: Whether the rules took it out of recall.
    """
    said = f"{'helpful' if rated.helped else 'not helpful'}, {rated.receipt}"
    after = f"{experience.status_reason}; after a rating of {source}"
    return (
        entry("rated", experience.id, workspace=experience.workspace, source=source, reason=said),
        [entry("pruned", experience.id, workspace=experience.workspace, source=REFINE, reason=after)] if pruned else [],
    )


def recorded(one: Recorded) -> list[Entry]:
    """Return the entries that a stored trajectory stands for: itself, and what its lessons did to the pool."""
    first = Entry(one.id, one.workspace, one.source, "recorded", one.id, one.outcome, one.created_at)
    if not one.answer:
        return [first]
    answer = RecordResult.model_validate_json(one.answer)
    done: list[tuple[Deed, str, str]] = [
        *(("added", id, f"from {one.id}") for id in answer.added),
        *(("merged", merged.id, f"{one.id} says the same") for merged in answer.merged),
        *(("quarantined", held.id, f"from {one.id}; {held.reason}") for held in answer.quarantined),
    ]
    return [
        first,
        *(
            Entry(f"{one.id} {did} {id}", one.workspace, one.source, did, id, _brief(reason), one.updated_at)
            for did, id, reason in done
        ),
    ]


def of_earlier_answer(trajectory: Trajectory) -> list[Entry]:
    """Return what would no longer follow from a trajectory once it has another answer."""
    values = {name: getattr(trajectory, name) for name in Recorded.__dataclass_fields__}
    return recorded(Recorded(**values))[1:]


def _of_trajectory(trajectory: Trajectory, did: Deed, about: str, source: str, reason: str) -> Entry:
    id = f"{trajectory.id} {did} {about}"
    return entry(did, about, workspace=trajectory.workspace, source=source, reason=reason, id=id)


def newest(entries: Iterable[Entry], *, limit: int) -> list[Entry]:
    """Return the `limit` newest entries, newest first."""
    return sorted(entries, key=lambda one: (one.created_at, one.id), reverse=True)[:limit]


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_REASON_CHARS else f"{line[: MAX_REASON_CHARS - 1]}…"
