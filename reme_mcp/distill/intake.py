"""What would enter the pool, compared with what is there: the same gate for what is recorded, judged or imported.

In:  experiences that are not stored yet; the store; the vectors.
Out: their neighbours in the pool, and which of these says the same, or is corrected.
Does not know: where a candidate came from, what becomes of it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType

from reme_mcp.aio import gather
from reme_mcp.config.settings import Settings
from reme_mcp.distill import dedup
from reme_mcp.distill.dedup import Twin
from reme_mcp.models.service import Embedded, Vectors
from reme_mcp.refine import rules
from reme_mcp.safety import quarantine
from reme_mcp.schema import RECALLABLE, STATUSES, Experience, Outcome, task_key
from reme_mcp.sources import rater_of
from reme_mcp.store.store import Store, Writer
from reme_mcp.text.fields import lesson_text
from reme_mcp.text.words import spell_out

# How many neighbours of a new experience are compared with it.
TWIN_CANDIDATES = 10
# By how many of its words they are searched.
TELLING_WORDS = 16


FindSynonyms = Callable[[Collection[frozenset[str]]], Awaitable[frozenset[frozenset[str]]]]


@dataclass(frozen=True, slots=True)
class Batch:
    """What would enter one workspace, with what can be made ready before the pool is locked.

    Attributes:
        candidates: Not yet stored.
        embedded: Their vectors, in order; `None` without a model.
        readable: Whether the model knows each candidate's script, in order.
        synonyms: Returns those pairs of words that mean the same.
    """

    candidates: tuple[Experience, ...]
    embedded: Embedded | None
    readable: tuple[bool, ...]
    synonyms: FindSynonyms

    def row(self, experience_id: str) -> int:
        """Return the place of a candidate."""
        return [candidate.id for candidate in self.candidates].index(experience_id)


async def embed(candidates: Sequence[Experience], vectors: Vectors) -> Batch:
    """Make candidates ready to be compared with the pool by their vectors, too."""
    readable = tuple(vectors.reads(lesson_text(candidate)) for candidate in candidates)
    return Batch(tuple(candidates), await vectors.embed_experiences(candidates), readable, vectors.synonyms)


def admit(candidate: Experience, outcome: Outcome, settings: Settings) -> Experience:
    """Return a candidate as it may enter the pool. Whatever enters goes through here: recorded, judged or imported."""
    return rules.admit(candidate, outcome, add_from=settings.refine.add_from)


async def put_vectors(added: Sequence[tuple[Experience, Batch]], writer: Writer, *, are_new: bool) -> None:
    """Store the vectors of experiences, each with the batch that it was a candidate of."""
    import numpy as np

    spaces: dict[str, list[tuple[Experience, Embedded, int]]] = {}
    for one, batch in added:
        if batch.embedded is not None:
            spaces.setdefault(batch.embedded.space, []).append((one, batch.embedded, batch.row(one.id)))
    for space, some in spaces.items():
        vectors = np.stack([embedded.vectors[row] for _, embedded, row in some])
        lessons = np.stack([embedded.lessons[row] for _, embedded, row in some])
        await writer.put_vectors(space, [one for one, *_ in some], vectors, lessons, are_new=are_new)


@dataclass(frozen=True, slots=True)
class Found:
    """What the pool may have that says the same as a candidate, for as long as nothing is written into the pool.

    Attributes:
        ids: Of these experiences, and of the candidate, which may be stored already.
        cosines: As in `Neighbours`.
        synonyms: Likewise.
    """

    ids: Sequence[str]
    cosines: Mapping[str, float]
    synonyms: frozenset[frozenset[str]]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What the pool says about the same as a candidate, and the candidate itself if it is stored already.

    Attributes:
        others: The experiences.
        cosines: Of their lessons to the candidate's, by id; of those that have a vector.
        synonyms: Pairs of words, one of the candidate and one of another, that mean the same.
    """

    others: Sequence[Experience]
    cosines: Mapping[str, float]
    synonyms: frozenset[frozenset[str]] = frozenset()


async def search(batch: Batch, store: Store) -> list[Found]:
    """Return what the pool may have that says the same as each candidate, in order."""
    return [await _search(batch, row, store) for row in range(len(batch.candidates))]


async def _search(batch: Batch, row: int, store: Store) -> Found:
    candidate = batch.candidates[row]
    words = _telling_words(lesson_text(candidate))
    near, similar = await gather(
        partial(_near, batch, row, store),
        partial(store.match_text, candidate.workspace, words, statuses=STATUSES, limit=TWIN_CANDIDATES),
    )
    ids = sorted({candidate.id, *near, *(id for id, _ in similar)})
    # The vectors come from the disk; the texts are read meanwhile.
    cosines, synonyms = await gather(
        partial(_cosines, batch, row, near, store),
        partial(_synonyms, batch, candidate, ids, store),
    )
    return Found(ids, cosines, synonyms)


async def neighbours(
    batch: Batch,
    store: Store,
    *,
    rows: Sequence[int] | None = None,
    found: Sequence[Found] | None = None,
    also: Mapping[str, tuple[Experience, Batch]] = MappingProxyType({}),
) -> list[Neighbours]:
    """Return the neighbours of candidates as they are now, in order.

    Args:
        batch: With the candidates.
        store: To read from.
        rows: Which of them; all where `None`.
        found: What `search` has found for these, where that was done already.
        also: What is about to be stored, with the batch that it comes from: neighbours of each, too.
    """
    near = []
    for place, row in enumerate(range(len(batch.candidates)) if rows is None else rows):
        candidate = batch.candidates[row]
        stored = await _search(batch, row, store) if found is None else found[place]
        others = await store.experiences(candidate.workspace, stored.ids)
        staged = {id: one for id, (one, _) in also.items() if one.workspace == candidate.workspace}
        others |= staged
        cosines = {**stored.cosines, **_cosines_to(batch, row, [(id, also[id][1]) for id in staged])}
        synonyms = stored.synonyms | await _synonyms_of(batch, candidate, staged.values())
        near.append(Neighbours(list(others.values()), cosines, synonyms))
    return near


async def _near(batch: Batch, row: int, store: Store) -> list[str]:
    """Return the ids of the experiences whose vectors are nearest to a candidate's."""
    embedded = batch.embedded
    if embedded is None or not batch.readable[row]:
        return []
    workspace = batch.candidates[row].workspace
    near = await store.match_vector(embedded.space, workspace, embedded.vectors[row], limit=TWIN_CANDIDATES)
    return [id for id, _ in near]


async def _cosines(batch: Batch, row: int, ids: Sequence[str], store: Store) -> dict[str, float]:
    """Return how similar the lessons of experiences are to a candidate's."""
    embedded = batch.embedded
    if embedded is None or not ids:
        return {}
    lessons = await store.lesson_vectors(embedded.space, ids)
    return {id: float(vector @ embedded.lessons[row]) for id, vector in lessons.items()}


async def _synonyms(batch: Batch, candidate: Experience, ids: Sequence[str], store: Store) -> frozenset[frozenset[str]]:
    return await _synonyms_of(batch, candidate, (await store.experiences(candidate.workspace, ids)).values())


async def _synonyms_of(batch: Batch, candidate: Experience, others: Iterable[Experience]) -> frozenset[frozenset[str]]:
    """Return the pairs of words, one of a candidate and one of another experience, that mean the same."""
    return await batch.synonyms({pair for one in others for pair in dedup.pairs_to_compare(candidate, one)})


def find_twin(
    candidate: Experience,
    batch: Batch,
    near: Neighbours,
    others: Sequence[Experience],
    added: Sequence[Experience],
) -> Twin | None:
    """Return what says the same as a candidate, of its neighbours and of those of its batch that are to be added.

    Where none does, return the neighbour that it corrects.

    Args:
        candidate: Of the batch, as it may enter the pool.
        batch: With the vectors, if there are any.
        near: Its neighbours in the pool.
        others: These as they are now.
        added: What is to be added of the batch.
    """
    compared = [other for other in (*others, *added) if _may_be_twins(candidate, other)]
    cosines = {**near.cosines, **_cosines_to(batch, batch.row(candidate.id), [(one.id, batch) for one in added])}
    return dedup.find_twin(candidate, compared, cosines, synonyms=near.synonyms)


def may_correct(candidate: Experience, older: Experience) -> bool:
    """Return whether a newer lesson may take the place of an older one.

    Only what is in recall itself does, and not where a person said keep. What somebody else found useful does not go
    because another holder of a token writes it anew with a difference: then both stay.
    """
    if candidate.status != "active" or older.status not in RECALLABLE or older.pinned:
        return False
    return older.utility == 0 or rater_of(candidate.source) == rater_of(older.source)


def _cosines_to(batch: Batch, row: int, others: Sequence[tuple[str, Batch]]) -> dict[str, float]:
    """Return how similar the lessons of candidates, each of a batch, are to the one in a row of this batch."""
    embedded = batch.embedded
    if embedded is None or not batch.readable[row]:
        return {}
    return {
        id: float(theirs.embedded.lessons[theirs.row(id)] @ embedded.lessons[row])
        for id, theirs in others
        if theirs.embedded is not None and theirs.embedded.space == embedded.space
    }


def _may_be_twins(candidate: Experience, other: Experience) -> bool:
    """Return whether one may be taken for the other: nothing gets in, or is held back, as the copy of another.

    What is suspected is a copy of what is held back or was thrown out, and of what a person approved in these very
    words; what is not is never a copy of what is held back.
    """
    if candidate.status != "quarantined":
        return other.status != "quarantined"
    if other.status in ("quarantined", "archived"):
        return True
    same = task_key(dedup.lesson(candidate)) == task_key(dedup.lesson(other))
    return same and quarantine.is_approved(other)


def _telling_words(text: str) -> str:
    """Return the longest words of a text: mostly the rarest, and enough to find one that says the same."""
    words = dict.fromkeys(spell_out(text).split())
    return " ".join(sorted(words, key=len, reverse=True)[:TELLING_WORDS])


def with_provenance(twin: Experience, candidate: Experience, *, at: datetime) -> Experience:
    """Return the older record with what the candidate was learned from added, or as it is if it has all of it."""
    trajectory_ids = tuple(dict.fromkeys((*twin.trajectory_ids, *candidate.trajectory_ids)))
    origins = tuple(dict.fromkeys((*twin.origins, *candidate.origins)))
    if (trajectory_ids, origins) == (twin.trajectory_ids, twin.origins):
        return twin
    return replace(twin, trajectory_ids=trajectory_ids, origins=origins, updated_at=at)
