"""Erasing for good: an experience or an attempt with all that the home holds of its texts.

In:  the id of either, the store.
Out: what is erased, or would be, and what stays. There is no way back.
Does not know: who may, terminals.

An attempt keeps its row, without its texts: sent again, it gets the answer that it got, and teaches nothing anew. The
rows of receipts stay for the books, without the task and what a rater wrote. Deleted rows would stand in the files of
the tables until some compaction, so that all of them are written anew (`Compaction.forget`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from reme_mcp.errors import NotFound
from reme_mcp.results import RecordResult
from reme_mcp.schema import Experience, Trajectory
from reme_mcp.store import log
from reme_mcp.store.store import Store

# What stands where a task was.
ERASED = "(erased)"


@dataclass(frozen=True, slots=True)
class Erasure:
    """What goes, and what stays although it may speak of the same.

    Attributes:
        workspace: Where.
        id: What was asked for.
        experience: It, from the pool or from what was deleted; `None` where `id` is an attempt, or it is gone already.
        trajectories: The attempt; of an experience those that it was learned from, or that said the same.
        others: The ids of the other experiences that were learned from those; they stay.
    """

    workspace: str
    id: str
    experience: Experience | None
    trajectories: Sequence[Trajectory]
    others: Sequence[str]


async def plan(store: Store, workspace: str, id: str) -> Erasure:
    """Return what erasing would mean.

    Raises:
        NotFound: There is nothing of this id, and there never was anything that was erased.
    """
    found = (await store.experiences(workspace, [id])).get(id)
    experience = found or await store.activity_log.deleted_experience(workspace, id)
    if experience is None:
        trajectories = await store.trajectories(workspace, [id])
    else:
        trajectories = await store.activity_log.attempts_about(workspace, experience.id, experience.trajectory_ids)
    if experience is None and not trajectories:
        entries = await store.activity_log.entries(workspace, since=None, about=id, limit=1_000)
        # Whoever was interrupted between the change and the files may ask again.
        if not any(one.did == "erased" for one in entries):
            raise NotFound(f"no experience or trajectory {id!r} in workspace {workspace!r}; check the id")
    learned = await store.learned_from(workspace, [one.id for one in trajectories])
    return Erasure(workspace, id, experience, trajectories, [one.id for one in learned if one.id != id])


async def carry_out(store: Store, erasure: Erasure, *, source: str) -> None:
    """Erase it, from the tables and then from their files."""
    tasks = {one.task for one in erasure.trajectories if one.task != ERASED}
    async with store.writing() as writer:
        entry = log.entry("erased", erasure.id, workspace=erasure.workspace, source=source)
        await writer.add_log([entry])
        if erasure.experience is not None:
            tasks.add(erasure.experience.task)
            await writer.delete_experience(erasure.workspace, erasure.id)
            await writer.drop_deleted(erasure.workspace, erasure.id)
            await writer.drop_counters(erasure.id)
        for trajectory in erasure.trajectories:
            await writer.put_trajectory(_emptied(trajectory))
        await writer.empty_receipts(erasure.workspace, erasure.id, sorted(tasks - {""}))
    await store.purge_deleted()


def _emptied(trajectory: Trajectory) -> Trajectory:
    """Return an attempt without its texts, done with."""
    bare = RecordResult(
        trajectory_id=trajectory.id,
        status="distilled" if trajectory.status == "distilled" else "nothing_to_learn",
        added=[],
        merged=[],
        rejected=[],
        settled=[],
        pruned=[],
        lessons=[],
        brief="",
    )
    if trajectory.answer:
        told = RecordResult.model_validate_json(trajectory.answer)
        bare = bare.model_copy(update={"added": told.added, "settled": told.settled, "pruned": told.pruned})
    return replace(
        trajectory,
        task=ERASED,
        task_key="",
        transcript="",
        drafts="[]",
        rejected="[]",
        answer=bare.model_dump_json(),
        status=bare.status,
        retry_at=None,
        trouble="",
    )
