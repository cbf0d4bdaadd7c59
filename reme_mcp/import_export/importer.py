"""From records of a file to the pool: what is new is added, what is known is merged, everything is accounted for.

In:  records as `records.read` gives them, the store, the vectors.
Out: a count of what became of them; each record that could not be taken, with its place and the reason.
Does not know: files, terminals.

Records pass the gate that recorded experiences pass: secrets are cut out of them where they are read, `quarantine`
holds back what is suspected, and `intake.admit` and `intake.find_twin` decide what is new. The rule for twins is the
pool's: the older one keeps its id, text and counters, and the trajectories of the other are added to it. So importing a
file again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reme_mcp.config.settings import Settings
from reme_mcp.distill import dedup, intake
from reme_mcp.distill.intake import Batch
from reme_mcp.import_export.record import Record
from reme_mcp.models.service import Vectors
from reme_mcp.safety import quarantine
from reme_mcp.schema import Experience, new_id, now, task_key
from reme_mcp.store import log
from reme_mcp.store.store import Store

# Written at once, with the pool locked for a second or so: clients wait that long.
BATCH = 100
# Each search reads through all that is not indexed yet; to index it costs a twentieth of a second.
INDEX_AFTER = 100


@dataclass(frozen=True, slots=True)
class Unusable:
    """A record that was not taken: its place in the file, and why."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the records of one file.

    Attributes:
        file: Its name.
        read: How many records it has.
        added: New to the pool.
        quarantined: Those of them that a person has to look at first.
        edited: Experiences of the pool that have another wording now.
        merged: Said in other words by an experience of the pool.
        known: In the pool already: the same one, or another in the same words.
        rejected: The others.
    """

    file: str
    read: int
    added: int
    quarantined: int
    merged: int
    known: int
    rejected: tuple[Unusable, ...]
    edited: int = 0


@dataclass(slots=True)
class _Tally:
    rejected: list[Unusable]
    added: int = 0
    quarantined: int = 0
    merged: int = 0
    known: int = 0


async def import_file(
    file: str,
    records: Sequence[Record],
    workspace: str,
    store: Store,
    vectors: Vectors,
    settings: Settings,
    *,
    dry_run: bool,
    tell: Callable[[int], None],
) -> Imported:
    """Take the records of a file into a workspace, a batch at a time; one that fails leaves those before it stored.

    Args:
        file: Its name.
        records: In their order.
        workspace: Theirs already.
        store: The pool.
        vectors: Where a model is loaded, records are compared by their vectors, too. Without one their words decide,
            and they are embedded when a process finds them without vectors.
        settings: The rules' numbers.
        dry_run: Write nothing.
        tell: Told how many more records are done.

    Raises:
        StoreError: The pool can't be read or written.
    """
    tally = _Tally([Unusable(one.where, one.fault) for one in records if one.experience is None])
    tell(len(tally.rejected))
    good = [(one, one.experience) for one in records if one.experience is not None]
    # What was in one pool stays apart in another: whether it is one lesson or two was decided there.
    ours = frozenset(experience.id for one, experience in good if one.is_ours)
    unindexed = 0
    entry_id = new_id("l")
    for start in range(0, len(good), BATCH):
        part = good[start : start + BATCH]
        taken = await _ids_elsewhere(store, workspace, [experience.id for _, experience in part])
        candidates = [_held(_renamed(one) if one.id in taken else one) for _, one in part]
        batch = await intake.embed(candidates, vectors)
        source = candidates[0].source
        taking = partial(_take, [one for one, _ in part], batch, ours, store, settings, tally)
        if dry_run:
            await taking()
        else:
            async with store.writing() as writer:
                added, changed = await taking()
                if added or changed:
                    done = {"added": tally.added, "held": tally.quarantined, "merged": tally.merged}
                    told = log.of_import(entry_id, source, workspace, **done)
                    await writer.add_log([told], are_new=False)
                await writer.put_experiences([*changed, *added], are_new=not changed)
                await intake.put_vectors([(one, batch) for one in added], writer, are_new=True)
            unindexed += len(added)
            if unindexed >= INDEX_AFTER:
                await store.compaction.index_experiences()
                unindexed = 0
        tell(len(part))
    if unindexed:
        await store.compaction.index_experiences()
    place = {one.where: number for number, one in enumerate(records)}
    return Imported(
        file=file,
        read=len(records),
        added=tally.added,
        quarantined=tally.quarantined,
        merged=tally.merged,
        known=tally.known,
        rejected=tuple(sorted(tally.rejected, key=lambda one: place[one.where])),
    )


async def _ids_elsewhere(store: Store, workspace: str, ids: Sequence[str]) -> set[str]:
    """Return those ids that an experience of another workspace has: storing them once more would take it away there."""
    return {one.id for one in await store.experiences_to_embed(ids) if one.workspace != workspace}


def _held(experience: Experience) -> Experience:
    """Return the experience held back if anything is suspected of it: that somebody approved it, a file can't say."""
    if experience.status != "archived":
        return quarantine.hold(experience, quarantine.suspicions(experience, of_file=True))
    # It stays out of recall. Whoever records the same is told why, in the file's words only where they are harmless.
    suspected = quarantine.suspicions_of_text(experience.status_reason)
    return replace(experience, status_reason="; ".join(suspected)) if suspected else experience


def _renamed(experience: Experience) -> Experience:
    return replace(experience, id=new_id("e"), origins=(experience.id, *experience.origins))


async def _take(
    records: Sequence[Record], batch: Batch, ours: frozenset[str], store: Store, settings: Settings, tally: _Tally
) -> tuple[list[Experience], list[Experience]]:
    """Return what of a batch is to be added to the pool, and what of the pool is to be changed; count the rest."""
    workspace = batch.candidates[0].workspace
    known = await store.of_origins(workspace, [one.id for one in records if one.id])
    present = await store.experiences(workspace, [one.id for one in batch.candidates])
    fresh = [row for row, one in enumerate(records) if one.id not in known]
    near = dict(zip(fresh, await intake.neighbours(batch, store, rows=fresh), strict=True))
    added: dict[str, Experience] = {}
    changed: dict[str, Experience] = {}
    for row, (record, candidate) in enumerate(zip(records, batch.candidates, strict=True)):
        candidate = intake.admit(candidate, "success", settings)
        same = present.get(candidate.id) or added.get(candidate.id)
        if same is not None and dedup.lesson(same) != dedup.lesson(candidate):
            reason = f"{same.id} is in the pool with another text, which stays; without id and format it is a new one"
            tally.rejected.append(Unusable(record.where, reason))
            continue
        if same is not None or row not in near:
            tally.known += 1
            continue
        apart = ours if record.is_ours else frozenset()
        others = [changed.get(other.id, other) for other in near[row].others if other.id not in apart]
        of_batch = [one for one in added.values() if one.id not in apart]
        twin = intake.find_twin(candidate, batch, near[row], others, of_batch)
        if twin is None or twin.corrects:
            added[candidate.id] = candidate
            tally.added += 1
            tally.quarantined += candidate.status == "quarantined"
            continue
        older = twin.experience
        if older.status == "archived" and candidate.status != "archived":
            reason = f"{older.id} said the same ({twin.how}) and was archived: {older.status_reason}"
            tally.rejected.append(Unusable(record.where, reason))
            continue
        if task_key(dedup.lesson(older)) == task_key(dedup.lesson(candidate)):
            tally.known += 1
        else:
            tally.merged += 1
        origin = tuple(dict.fromkeys((*candidate.origins, *([record.id] if record.id else []))))
        merged = intake.with_provenance(older, replace(candidate, origins=origin), at=now())
        if older.id in added:
            added[older.id] = merged
        elif merged is not older:
            changed[older.id] = merged
    return list(added.values()), list(changed.values())
