"""Receipts and counters on the store: what was handed out, how it was settled, whom φ removes.

In:  an open `Writer`, receipt lines, the `[refine]` numbers.
Out: receipts and experiences brought up to date.
Does not know: what was recalled for, or what a trajectory taught.

Counters are summed from the receipts each time, never incremented: settling twice, or after a crash in between, comes
to the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reme_mcp import refine
from reme_mcp.config import RefineSettings
from reme_mcp.schema import Experience, ReceiptLine, Settled, Trajectory, now
from reme_mcp.store import Store, Writer


@dataclass(frozen=True, slots=True)
class Counted:
    """Experiences whose counters are not what they were, by id, and the ids of those that φ removed; not yet stored."""

    changed: dict[str, Experience]
    pruned: list[str]


def receipt_lines(
    receipt: str, experiences: Sequence[Experience], workspace: str, task: str, source: str
) -> list[ReceiptLine]:
    """Return the lines of a new receipt, one for each experience, or the one line of an empty receipt.

    No line is older than what it is counted from: where the clock was set back in between, it would never count.
    """
    at = now()
    handed_out = [(one.id, max(at, one.counted_since)) for one in experiences]
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
        )
        for place, (experience_id, created_at) in (enumerate(handed_out, start=1) if handed_out else [(0, ("", at))])
    ]


async def settle(
    store: Store, writer: Writer, trajectory: Trajectory, rules: RefineSettings
) -> tuple[list[Settled], Counted]:
    """Settle what the trajectory's receipt handed out and nothing has settled yet; return that, and what it changes."""
    if not trajectory.receipt:
        return [], Counted({}, [])
    helped = trajectory.outcome == "success"
    lines = await store.receipt(trajectory.workspace, trajectory.receipt)
    settled = refine.settle_by_outcome(lines, helped=helped, at=now())
    await writer.settle(settled)
    # Counted for every line of the receipt, not only those settled now: a crash may have come in between.
    ids = [line.experience_id for line in lines if line.experience_id]
    experiences = await store.experiences(trajectory.workspace, ids)
    counted = await count(store, list(experiences.values()), rules)
    current = experiences | counted.changed
    return [
        Settled(
            id=line.experience_id,
            helped=helped,
            frequency=current[line.experience_id].frequency,
            utility=current[line.experience_id].utility,
        )
        for line in settled
        if line.experience_id in current
    ], counted


async def count(store: Store, experiences: Sequence[Experience], rules: RefineSettings) -> Counted:
    """Sum the counters from the receipts and apply φ; the caller stores what changed."""
    tallies = await store.tally(experiences)
    changed: dict[str, Experience] = {}
    pruned: list[str] = []
    for experience in experiences:
        counted = refine.count(experience, tallies[experience.id], at=now())
        if counted is experience:
            continue
        if is_to_prune(counted, rules):
            counted = refine.archive(counted, refine.prune_reason(counted), at=now())
            pruned.append(counted.id)
        changed[counted.id] = counted
    return Counted(changed, pruned)


def is_to_prune(experience: Experience, rules: RefineSettings) -> bool:
    """Return whether φ removes the experience: only what is in recall, and nothing that is pinned."""
    return (
        not experience.pinned
        and experience.status in ("active", "provisional")
        and refine.should_prune(
            experience.frequency,
            experience.utility,
            min_frequency=rules.min_frequency,
            max_utility_ratio=rules.max_utility_ratio,
        )
    )
