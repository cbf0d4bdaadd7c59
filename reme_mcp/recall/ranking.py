"""From hits to a ranking that a reader can recompute.

In:  a query, experiences, and the hits that the two searches returned.
Out: `Ranked` values, best first. Pure functions.
Does not know: which of them are about the query; `floor.py` does.

Source: the weights were tuned with `tests/benchmarks/retrieval.py` on the smallest of the pools that
ReMe's authors published; the README tells how they do on the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from reme_mcp.refine.rules import is_objected_to, track_record
from reme_mcp.schema import Experience
from reme_mcp.text.words import TextWords, likeness

# Corrections move an experience by a few per cent, so that only those near the top can come to the top.
SHORTLIST_FACTOR = 6
NEIGHBOURS = 2
# How many experiences each of the two searches looks at.
REACH = 50


@dataclass(frozen=True, slots=True)
class Weights:
    """The numbers of the formula of `rank`.

    Attributes:
        vector: 0 to 1, the share of vector search in the relevance; the rest is full text's.
        neighbours: 0 to 1, the share of the two that are most like it: one that stands among relevant ones is likelier
            to be relevant.
        track_record: How far it moves the relevance, at most; so do the two below.
        confidence: That of whoever wrote the lesson.
        freshness: From new to very old.
        half_life_days: Days after which freshness is half gone.
    """

    vector: float = 0.6
    neighbours: float = 0.2
    track_record: float = 0.3
    confidence: float = 0.02
    freshness: float = 0.01
    half_life_days: float = 90.0


WEIGHTS = Weights()


@dataclass(frozen=True, slots=True)
class Hits:
    """What one search found, by experience id: BM25, or the cosine to the query.

    Attributes:
        values: The search's own measure, best first.
        relative: The same from 1 (the best hit) to 0 (where the search's reach ends).
    """

    values: Mapping[str, float]
    relative: Mapping[str, float]

    @classmethod
    def of_text(cls, pairs: Sequence[tuple[str, float]], *, reach: int) -> Hits:
        """Make hits from BM25 values; a search that did not fill its `reach` goes down to 0 words in common."""
        return cls._of(pairs, lowest=pairs[-1][1] if len(pairs) >= reach else 0.0)

    @classmethod
    def of_numbers(cls, pairs: Sequence[tuple[str, float]]) -> Hits:
        """Make hits from cosines: everything has one, the last is where it ends."""
        return cls._of(pairs, lowest=pairs[-1][1] if pairs else 0.0)

    @classmethod
    def _of(cls, pairs: Sequence[tuple[str, float]], *, lowest: float) -> Hits:
        values = dict(pairs)
        span = max(values.values(), default=0.0) - lowest
        return cls(values, {id: (value - lowest) / span if span > 0 else 1.0 for id, value in pairs})


@dataclass(frozen=True, slots=True)
class Ranked:
    """An experience in its place, with the numbers behind it.

    Attributes:
        text_relevance: 0 to 1, from full-text search.
        vector_relevance: 0 to 1, from vector search; `None` if that did not answer.
        neighbour_relevance: 0 to 1, what the two candidates that are most like it have of those two, on average.
        similarity: Cosine to the query; `None` if it was not among the nearest.
        relevance: 0 to 1, the weighted mean of the first three.
        ranking: `relevance` with the small corrections; the order goes by it.
        age_days: Since the lesson was learned.
        missing_tools: What it used and the agent said it lacks.
        track_record: -1 to 1, against the base rate of the workspace; 0 where it is untested.
    """

    experience: Experience
    text_relevance: float
    vector_relevance: float | None
    neighbour_relevance: float
    similarity: float | None
    relevance: float
    ranking: float
    age_days: int
    missing_tools: tuple[str, ...]
    track_record: float = 0.0


def relevance(id: str, text: Hits, vector: Hits | None, weights: Weights = WEIGHTS) -> float:
    """Return how relevant an experience is to the query by the two searches, 0 to 1."""
    by_text = text.relative.get(id, 0.0)
    if vector is None:
        return by_text
    return (1 - weights.vector) * by_text + weights.vector * vector.relative.get(id, 0.0)


def shortlist(text: Hits, vector: Hits | None, *, limit: int) -> list[str]:
    """Return the ids that can come into the first `limit`, most relevant first."""
    ids = {*text.values, *(vector.values if vector is not None else ())}
    return sorted(ids, key=lambda id: (-relevance(id, text, vector), id))[: SHORTLIST_FACTOR * limit]


def neighbour_relevances(words: Sequence[TextWords], own: Sequence[float]) -> list[float]:
    """Return for each experience what the two that are most like it, in their words, have on average.

    Args:
        words: The words of n candidates.
        own: How relevant each is by the two searches; one that is alone has its own for its neighbours'.
    """
    if len(words) < 2:
        return list(own)
    import numpy as np

    alike, values = likeness(words), np.asarray(own)
    np.fill_diagonal(alike, 0.0)
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :NEIGHBOURS]
    # Without a word in common it is no neighbour, but its place stays empty.
    shares = np.where(np.take_along_axis(alike, nearest, axis=1) > 0, values[nearest], 0.0)
    means: list[float] = (shares.sum(axis=1) / min(NEIGHBOURS, len(words) - 1)).tolist()
    return means


def rank(
    experiences: Sequence[Experience],
    text: Hits,
    vector: Hits | None,
    *,
    words: Mapping[str, TextWords],
    tools: Sequence[str],
    base_rate: float,
    at: datetime,
    weights: Weights = WEIGHTS,
) -> list[Ranked]:
    """Rank the experiences, best first.

        own       = (1 - w.vector) × text_relevance + w.vector × vector_relevance
        relevance = (1 - w.neighbours) × own + w.neighbours × neighbour_relevance
        ranking   = relevance × (1 + w.track_record × track_record
                                   + w.confidence × (2 c - 1)
                                   + w.freshness × (2 × 0.5 ^ (age_days / w.half_life_days) - 1))
                    × (1 - 0.5 × share of its tools that are missing)

    The track record is that of `refine.rules.track_record`. What more raters last found not helpful than helpful comes
    behind all others.

    Args:
        experiences: The candidates.
        text: Hits of the full-text search.
        vector: Hits of the vector search; `None` if it did not answer.
        words: The words of each, by its id.
        tools: What the agent has; empty means unknown.
        base_rate: Share of the workspace's attempts that succeed.
        at: Now.
        weights: w.
    """
    own = [relevance(experience.id, text, vector, weights) for experience in experiences]
    neighbours = neighbour_relevances([words[experience.id] for experience in experiences], own)
    ranked = []
    for experience, alone, around in zip(experiences, own, neighbours, strict=True):
        record = track_record(experience, base_rate)
        age_days = max(0, (at - experience.created_at).days)
        missing = tuple(tool for tool in experience.tools_used if tool not in tools) if tools else ()
        relevant = (1 - weights.neighbours) * alone + weights.neighbours * around
        ranked.append(
            Ranked(
                experience=experience,
                text_relevance=text.relative.get(experience.id, 0.0),
                vector_relevance=None if vector is None else vector.relative.get(experience.id, 0.0),
                neighbour_relevance=around,
                similarity=None if vector is None else vector.values.get(experience.id),
                relevance=relevant,
                ranking=relevant * _correction(experience, record, age_days, missing, weights),
                track_record=record,
                age_days=age_days,
                missing_tools=missing,
            )
        )
    return sorted(ranked, key=lambda item: (is_objected_to(item.experience), -item.ranking, item.experience.id))


def _correction(
    experience: Experience, record: float, age_days: int, missing: Sequence[str], weights: Weights
) -> float:
    """Return what relevance is multiplied by."""
    freshness = 2 * math.pow(0.5, age_days / weights.half_life_days) - 1
    correction = (
        weights.track_record * record
        + weights.confidence * (2 * experience.confidence - 1)
        + weights.freshness * freshness
    )
    missing_share = len(missing) / len(experience.tools_used) if missing else 0.0
    return (1 + correction) * (1 - 0.5 * missing_share)
