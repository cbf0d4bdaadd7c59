"""From a stored trajectory to what it taught: settle its receipt, pass its drafts through the gate, answer.

In:  a trajectory that is on disk already, the store, the vectors.
Out: experiences added or merged, and the answer, which is kept with the trajectory.
Does not know: who called; the same happens after a call and after a crash.

Everything here may be repeated: drafts have their ids before they are stored, and counters are summed from receipts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from reme_mcp import distill, ledger, prompts
from reme_mcp.config import Settings
from reme_mcp.schema import (
    Experience,
    Merged,
    RecordResult,
    RecordStatus,
    Rejected,
    Settled,
    Status,
    Trajectory,
    now,
)
from reme_mcp.searchable import split_names, vector_text
from reme_mcp.store import Store, Writer
from reme_mcp.vectors import Vectors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Embedded = npt.NDArray[np.float32]

EARLIER_ATTEMPTS = 5
# How many neighbours of a new experience are compared with it.
TWIN_CANDIDATES = 10
EVERY_STATUS: tuple[Status, ...] = ("active", "provisional", "quarantined", "archived")


async def work_off(trajectory: Trajectory, store: Store, vectors: Vectors, settings: Settings) -> RecordResult:
    """Do what a stored trajectory asks for: settle, learn, answer. Safe to repeat after a crash at any point."""
    at = now()
    candidates = [
        distill.to_experience(named, trajectory, author="assistant", at=at)
        for named in distill.from_stored(trajectory.drafts)
    ]
    texts = [vector_text(candidate) for candidate in candidates]
    embedded = await vectors.embed(texts) if texts else None
    async with store.writing() as writer:
        current = await store.trajectory(trajectory.workspace, trajectory.id)
        if current is not None and current.drafts_digest == trajectory.drafts_digest and current.answer:
            # Another process took it for abandoned, and was faster.
            return RecordResult.model_validate_json(current.answer)
        added, merged, rejected = await _learn(store, writer, candidates, embedded, vectors.space, settings)
        rejected = [*(Rejected.model_validate(item) for item in json.loads(trajectory.rejected)), *rejected]
        settled, pruned = await ledger.settle(store, writer, trajectory, settings.refine)
        earlier = await store.attempts(trajectory.workspace, trajectory.task_key, limit=EARLIER_ATTEMPTS)
        result = _record_result(trajectory, added, merged, rejected, settled, pruned, earlier)
        await writer.put_trajectory(
            replace(
                trajectory,
                status=result.status,
                drafts="[]",
                rejected=dump_rejected(rejected),
                answer=result.model_dump_json(),
                updated_at=at,
            )
        )
    return result


async def _learn(
    store: Store,
    writer: Writer,
    candidates: Sequence[Experience],
    embedded: Embedded | None,
    space: str | None,
    settings: Settings,
) -> tuple[list[Experience], list[Experience], list[Rejected]]:
    """Store the candidates that say something new; add the others' trajectory to their twins."""
    added: list[Experience] = []
    added_rows: list[int] = []
    merged: list[Experience] = []
    rejected: list[Rejected] = []
    for row, candidate in enumerate(candidates):
        cosines: dict[str, float] = {}
        if embedded is not None and space is not None:
            near = await store.match_vector(space, candidate.workspace, embedded[row], limit=TWIN_CANDIDATES)
            cosines = dict(near)
            cosines |= {candidates[other].id: float(embedded[other] @ embedded[row]) for other in added_rows}
        similar = await store.match_text(
            candidate.workspace,
            split_names(distill.lesson(candidate)),
            statuses=EVERY_STATUS,
            limit=TWIN_CANDIDATES,
        )
        others = await store.experiences(candidate.workspace, sorted({*cosines, *(id for id, _ in similar)}))
        twin = distill.find_twin(candidate, [*others.values(), *added], cosines, settings.dedup)
        if twin is None:
            added.append(candidate)
            added_rows.append(row)
        elif twin.experience.status == "archived":
            reason = (
                f"{twin.experience.id} said the same ({twin.how}) and was archived: {twin.experience.status_reason}"
            )
            rejected.append(Rejected(when_to_use=candidate.when_to_use[: distill.SHOWN_CHARS], reason=reason))
        else:
            merged.append(_merge(twin.experience, candidate))
    # By id: two drafts may have found the same twin, and a twin may be a draft of this very batch.
    await writer.put_experiences(list({one.id: one for one in (*merged, *added)}.values()))
    if embedded is not None and space is not None:
        await writer.put_vectors(space, added, embedded[added_rows])
    return added, merged, rejected


def _merge(twin: Experience, candidate: Experience) -> Experience:
    """Return the older record with the candidate's trajectory added; text, id and counters stay."""
    new = tuple(id for id in candidate.trajectory_ids if id not in twin.trajectory_ids)
    return replace(twin, trajectory_ids=twin.trajectory_ids + new, updated_at=candidate.updated_at) if new else twin


def _record_result(
    trajectory: Trajectory,
    added: Sequence[Experience],
    merged: Sequence[Experience],
    rejected: Sequence[Rejected],
    settled: list[Settled],
    pruned: list[str],
    earlier: Sequence[Trajectory],
) -> RecordResult:
    """Return the answer to a trajectory that has been worked off."""
    drafts_came = trajectory.drafts_digest != ""
    some_were_valid = trajectory.drafts != "[]"
    status: RecordStatus
    if drafts_came and some_were_valid:
        status = "distilled"
    elif drafts_came and not rejected:
        status = "nothing_to_learn"
    else:
        status = "awaiting_experiences"
    brief = ""
    if status == "awaiting_experiences":
        brief = prompts.brief(trajectory.id, trajectory.outcome, distill.earlier_attempts(trajectory, earlier))
    return RecordResult(
        trajectory_id=trajectory.id,
        status=status,
        added=[experience.id for experience in added],
        merged=[
            Merged(id=one.id, when_to_use=one.when_to_use[: distill.SHOWN_CHARS], status=one.status) for one in merged
        ],
        rejected=list(rejected),
        settled=settled,
        pruned=pruned,
        lessons=[one.content for one in (*added, *merged)] if trajectory.outcome == "failure" else [],
        brief=brief,
    )


def dump_rejected(rejected: Sequence[Rejected]) -> str:
    """Return the rejected drafts as JSON text, to be kept with their trajectory."""
    return json.dumps([one.model_dump() for one in rejected], ensure_ascii=False)
