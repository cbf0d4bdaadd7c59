"""From hits to a ranking that a reader can recompute, and from a ranking to what fits the budget.

In:  a task, experiences, and the two lists of hits that the store returned.
Out: `Ranked` values, best first. Pure functions; no table, no model.

Source: reciprocal rank fusion after Cormack, Clarke and Büttcher (SIGIR 2009).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from reme_mcp.config import RecallSettings
from reme_mcp.schema import Experience

BYTES_PER_TOKEN = 4
ELLIPSIS = " …"


@dataclass(frozen=True, slots=True)
class Hits:
    """What one search found: experience ids, best first, each with its own measure (BM25 or cosine)."""

    ids: tuple[str, ...]
    values: Mapping[str, float]

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, float]]) -> Hits:
        """Make hits from `(id, value)` pairs in rank order."""
        pairs = list(pairs)
        return cls(tuple(id for id, _ in pairs), dict(pairs))

    def among(self, ids: Iterable[str]) -> Hits:
        """Return only the hits on `ids`; ranks close up."""
        keep = set(ids)
        return Hits(tuple(id for id in self.ids if id in keep), self.values)

    def rank(self, id: str) -> int | None:
        """Return the rank of `id`, from 1, or `None`."""
        return self.ids.index(id) + 1 if id in self.ids else None


@dataclass(frozen=True, slots=True)
class Ranked:
    """An experience in its place, with the numbers behind it.

    Attributes:
        text_rank: Rank in full-text search, from 1; `None` if it was not among the candidates.
        vector_rank: The same for vector search.
        similarity: Cosine to the query, -1 to 1; `None` without vectors.
        relevance: 0 to 1; 1 is first in every search that answered.
        ranking: `relevance` and the small corrections; the order goes by it.
        age_days: Since the lesson was learned.
        missing_tools: What it used and the agent said it lacks.
    """

    experience: Experience
    text_rank: int | None
    vector_rank: int | None
    similarity: float | None
    relevance: float
    ranking: float
    age_days: int
    missing_tools: tuple[str, ...]


def rank(
    experiences: Mapping[str, Experience],
    text: Hits,
    vector: Hits | None,
    *,
    tools: Sequence[str],
    settings: RecallSettings,
    at: datetime,
) -> list[Ranked]:
    """Rank the experiences, best first; those below the relevance floor are left out.

        relevance = mean over the searches that answered of (rrf_k + 1) / (rrf_k + rank)
        ranking   = relevance × (1 + helpfulness_weight × (2 (u + 1) / (f + 2) - 1)
                                   + confidence_weight × (2 c - 1)
                                   + freshness_weight × (2 × 0.5 ^ (age / half life) - 1))
                    and half of it if every tool of the lesson is missing, in proportion if some are

    Args:
        experiences: The candidates by id.
        text: Hits of the full-text search.
        vector: Hits of the vector search; `None` if there is no model.
        tools: What the agent has; empty means unknown.
        settings: Weights and floor.
        at: Now.
    """
    text = text.among(experiences)
    searches = [text] if vector is None else [text, vector.among(experiences)]
    ranked = []
    for id, experience in experiences.items():
        ranks = [hits.rank(id) for hits in searches]
        relevance = sum((settings.rrf_k + 1) / (settings.rrf_k + place) for place in ranks if place) / len(searches)
        if relevance < settings.min_relevance:
            continue
        age_days = max(0, (at - experience.created_at).days)
        missing = tuple(tool for tool in experience.tools_used if tool not in tools) if tools else ()
        helpfulness = 2 * (experience.utility + 1) / (experience.frequency + 2) - 1
        freshness = 2 * math.pow(0.5, age_days / settings.half_life_days) - 1
        correction = (
            settings.helpfulness_weight * helpfulness
            + settings.confidence_weight * (2 * experience.confidence - 1)
            + settings.freshness_weight * freshness
        )
        tool_share = 1 - 0.5 * len(missing) / len(experience.tools_used) if missing else 1.0
        ranked.append(
            Ranked(
                experience=experience,
                text_rank=ranks[0],
                vector_rank=ranks[1] if vector is not None else None,
                similarity=vector.values.get(id) if vector is not None else None,
                relevance=relevance,
                ranking=relevance * (1 + correction) * tool_share,
                age_days=age_days,
                missing_tools=missing,
            )
        )
    return sorted(ranked, key=lambda item: (-item.ranking, item.experience.id))


def tokens(text: str) -> int:
    """Return what `text` costs a model, roughly: a token is four bytes of UTF-8."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def shorten(text: str, max_tokens: int) -> str:
    """Return `text`, cut at a word and marked if it is longer than `max_tokens`."""
    if tokens(text) <= max_tokens:
        return text
    room = max(0, max_tokens * BYTES_PER_TOKEN - len(ELLIPSIS.encode()))
    cut = text.encode()[:room].decode(errors="ignore")
    return (cut.rsplit(" ", 1)[0] if " " in cut[len(cut) // 2 :] else cut).rstrip() + ELLIPSIS
