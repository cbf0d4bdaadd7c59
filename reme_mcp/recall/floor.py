"""The floor: which of the experiences that were found are about the task, each by itself.

In:  a task, ranked experiences, what cosines mean for the model.
Out: a verdict for each, with the reason in a sentence. Pure functions.
Does not know: the order among those that pass, or how many are handed out.

Two kinds of evidence count. *Words*: an experience shares enough of the task's telling words, and full-text search
found it not far below its best. *Meaning*: the cosine is above what texts that have nothing to do with each other reach
in this model, and near the best. A little similarity and the words are enough together. A model's cosine between texts
of which it does not know the language says little; there it takes a shared word besides.

Source: the numbers were tuned on the first half of `tests/benchmarks/month.jsonl` and the smallest of the pools that
ReMe's authors published, see `tests/benchmarks/retrieval.py`. A threshold in spreads above the mean of unrelated pairs
is the impostor normalisation of speaker verification (Auckenthaler et al. 2000).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reme_mcp.models.embedder import Unrelated
from reme_mcp.recall.ranking import Hits, Ranked
from reme_mcp.text.fields import search_text
from reme_mcp.text.words import Told, told, unquoted, words_needed

# In spreads of the cosines of unrelated texts: above their mean, and below the best one found.
CLEAR = 3.3
NEAR = 1.2
BEHIND = 1.25
# The same in cosines, for a model of which only `[recall] min_similarity` is known.
UNKNOWN_NEAR = 0.1
UNKNOWN_BEHIND = 0.06
# Of the best that full-text search found.
MIN_TEXT_RELEVANCE = 0.4


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a cosine of one model has to be.

    Attributes:
        clear: From here on it needs no word.
        near: From here on enough words in common are believed.
        behind: How far it may be behind the best, where the words don't speak for it.
    """

    clear: float
    near: float
    behind: float

    @classmethod
    def of(cls, unrelated: Unrelated | None, *, min_similarity: float = 0.0) -> Thresholds | None:
        """Return the thresholds of a model, `None` where nothing is known of it.

        Args:
            unrelated: The cosines of texts that have nothing to do with each other.
            min_similarity: `clear` as somebody has set it; 0 where nobody has.
        """
        if unrelated is None:
            return cls(min_similarity, min_similarity - UNKNOWN_NEAR, UNKNOWN_BEHIND) if min_similarity else None
        clear = min_similarity or unrelated.mean + CLEAR * unrelated.spread
        return cls(clear, clear - (CLEAR - NEAR) * unrelated.spread, BEHIND * unrelated.spread)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an experience is about the task, and why, as a part of a sentence."""

    passes: bool
    why: str


def verdicts(
    query: str,
    ranked: Sequence[Ranked],
    vector: Hits | None,
    thresholds: Thresholds | None,
    *,
    reads: Callable[[str], bool],
) -> list[Verdict]:
    """Return for each experience whether it is about the query.

    Args:
        query: As it was asked; quoted literals in it don't count as words.
        ranked: The experiences, with the numbers of both searches.
        vector: Hits of the vector search; `None` if it did not answer, and the words decide alone.
        thresholds: Of the model; `None` where nobody knows them, and every similarity is enough.
        reads: Whether the model was made for a language, by its name.
    """
    if vector is not None and thresholds is None:
        return [Verdict(passes=True, why="nobody knows from which cosine on this model means the same")] * len(ranked)
    asked = told(unquoted(query))
    # What is not among the nearest is at most as similar as the last of them.
    lowest = min(vector.values.values(), default=0.0) if vector is not None else 0.0
    best = max(vector.values.values(), default=0.0) if vector is not None else 0.0
    found = []
    for item in ranked:
        words = _Words.shared_with(asked, item)
        if vector is None or thresholds is None:
            found.append(Verdict(words.are_enough, words.why))
        else:
            similarity = vector.values.get(item.experience.id, lowest)
            is_read = reads(asked.language) and reads(words.language)
            found.append(_by_similarity(similarity, best, words, thresholds, is_read=is_read))
    return found


@dataclass(frozen=True, slots=True)
class _Words:
    """What the words say for an experience, and whether that is enough; in a part of a sentence, too."""

    shared: int
    asked: int
    language: str
    are_enough: bool
    why: str

    @classmethod
    def shared_with(cls, asked: Told, item: Ranked) -> _Words:
        text = told(search_text(item.experience))
        shared, needed = asked.shared_with(text), words_needed(len(asked.words))
        has_words = 0 < needed <= shared
        is_found = item.text_relevance >= MIN_TEXT_RELEVANCE
        why = f"{shared} of the task's {len(asked.words)} telling words ({needed} needed)"
        if has_words:
            why += f", text relevance {item.text_relevance:.2f} ({MIN_TEXT_RELEVANCE:.2f} needed)"
        return cls(shared, len(asked.words), text.language, has_words and is_found, why)


def _by_similarity(similarity: float, best: float, words: _Words, thresholds: Thresholds, *, is_read: bool) -> Verdict:
    cosine = f"cosine {similarity:.2f}"
    if words.are_enough and similarity >= thresholds.near:
        return Verdict(passes=True, why=f"{cosine} ({thresholds.near:.2f} needed with words), {words.why}")
    if similarity < thresholds.clear:
        return Verdict(passes=False, why=f"{cosine} ({thresholds.clear:.2f} needed), {words.why}")
    if similarity < best - thresholds.behind:
        behind = f"more than {thresholds.behind:.2f} behind the best, {best:.2f}"
        return Verdict(passes=False, why=f"{cosine} is {behind}, {words.why}")
    if not is_read and not 0 < words_needed(words.asked, least=1) <= words.shared:
        return Verdict(passes=False, why=f"{cosine} says little in a language that the model was not made for")
    return Verdict(passes=True, why=f"{cosine} ({thresholds.clear:.2f} needed)")
