"""What stays of changes: the log, and experiences that a person deleted.

In:  the ledger of a store.
Out: entries of the log, with the trajectories among them; deleted experiences as they were.
Does not know: who may see it. `store.Writer` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from reme_mcp.results import RecordResult
from reme_mcp.schema import Deed, Entry, Experience, ReceiptLine, Recorded, Trajectory, new_id, now, one_line
from reme_mcp.store.ledger import Condition, Contains, Either, Is, Ledger, Since


class ActivityLog:
    """The log and the deleted experiences of one store, and what its trajectories say of who recorded what."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def entries(self, workspace: str, *, since: datetime | None, about: str, limit: int) -> list[Entry]:
        """Return the latest entries of a workspace and of what concerns all of the home, newest first.

        Args:
            workspace: Whose.
            since: None from before; `None` for all.
            about: Only those about this id; empty for all.
            limit: How many.
        """
        where: list[Condition] = [Is("workspace", [workspace, ""])]
        where += [Since("created_at", since)] if since is not None else []
        where += [Is("about", [about])] if about else []
        found = await self._ledger.read(Entry, where, newest_by="created_at", limit=limit)
        where = [Is("workspace", [workspace])]
        where += [Since("updated_at", since)] if since is not None else []
        where += [Either(Is("id", [about]), Contains("answer", about))] if about else []
        attempts = await self._ledger.read(Recorded, where, newest_by="updated_at", limit=limit)
        found += [one for attempt in attempts for one in recorded(attempt)]
        return newest([one for one in found if _is_wanted(one, since, about)], limit=limit)

    async def every_entry(self) -> list[Entry]:
        """Return all that stands in the log, of every workspace."""
        return await self._ledger.read(Entry)

    async def deleted(self, workspace: str, *, offset: int, limit: int) -> list[Experience]:
        """Return deleted experiences of a workspace as they were, newest first, from `offset` on."""
        where = [Is("workspace", [workspace])]
        return await self._ledger.read(Experience, where, newest_by="created_at", offset=offset, limit=limit)

    async def attempts_about(self, workspace: str, experience_id: str, ids: Sequence[str]) -> list[Trajectory]:
        """Return the trajectories among `ids`, and those with a draft that was refused because of an experience."""
        refused = Contains("rejected", experience_id)
        where = [Is("workspace", [workspace]), Either(refused, Is("id", ids)) if ids else refused]
        return await self._ledger.read(Trajectory, where)

    async def deleted_experience(self, workspace: str, experience_id: str) -> Experience | None:
        """Return the deleted experience of a workspace with this id as it was, or `None`."""
        where = [Is("workspace", [workspace]), Is("id", [experience_id])]
        return next(iter(await self._ledger.read(Experience, where)), None)


def _is_wanted(entry: Entry, since: datetime | None, about: str) -> bool:
    return (since is None or entry.created_at >= since) and about in ("", entry.about)


# Who acts where nobody asked for it: the rules of `refine.py`.
REFINE = "refine"
# Who looks after the pool by hand.
BY_HAND = "cli"
MAX_REASON_CHARS = 200


def entry(did: Deed, about: str, *, workspace: str, source: str, reason: str = "", id: str = "") -> Entry:
    """Return an entry of now."""
    return Entry(id or new_id("l"), workspace, source, did, about, one_line(reason, MAX_REASON_CHARS), now())


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


def of_import(id: str, source: str, workspace: str, *, added: int, held: int, merged: int) -> Entry:
    """Return the one entry of an import, as far as it has come; which lessons came so, they say themselves.

    Args:
        id: Of the entry, which is written anew with every batch.
        source: The file.
        workspace: Whose pool.
        added: Lessons that are new.
        held: Those of them that wait for review.
        merged: Lessons that got the provenance of another wording.
    """
    counts = {"new": added - held, "held back for review": held, "merged": merged}
    said = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "nothing new"
    return entry("imported", source, workspace=workspace, source=source, reason=said, id=id)


def of_rating(rated: ReceiptLine, experience: Experience, *, source: str, pruned: bool) -> list[Entry]:
    """Return the entry of a rating, and that of what the rules did to the experience because of it.

    Args:
        rated: The line of the receipt, as it is now.
        experience: Rated, as it is now.
        source: Who rated.
        pruned: Whether the rules took it out of recall.
    """
    said = f"{'helpful' if rated.helped else 'not helpful'}, {rated.receipt}"
    after = f"{experience.status_reason}; after a rating of {source}"
    by_hand = entry("rated", experience.id, workspace=experience.workspace, source=source, reason=said)
    if not pruned:
        return [by_hand]
    return [by_hand, entry("pruned", experience.id, workspace=experience.workspace, source=REFINE, reason=after)]


def recorded(one: Recorded) -> list[Entry]:
    """Return the entries that a stored trajectory stands for: itself, and what its lessons did to the pool."""
    first = Entry(one.id, one.workspace, one.source, "recorded", one.id, one.outcome, one.created_at)
    if not one.answer:
        return [first]
    answer = RecordResult.model_validate_json(one.answer)
    done: list[tuple[Deed, str, str]] = [
        *(("added", id, f"from {one.id}") for id in answer.added),
        *(("merged", merged.id, f"{one.id} says the same") for merged in answer.merged),
        *(("superseded", old.id, f"by {old.by} from {one.id}; {old.how}") for old in answer.superseded),
        *(("quarantined", held.id, f"from {one.id}; {held.reason}") for held in answer.quarantined),
    ]
    return [
        first,
        *(
            Entry(
                f"{one.id} {did} {id}",
                one.workspace,
                one.source,
                did,
                id,
                one_line(reason, MAX_REASON_CHARS),
                one.updated_at,
            )
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
