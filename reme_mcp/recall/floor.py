"""The floor: which of the experiences that were found are about the task, each by itself.

In:  a task, ranked experiences, what cosines mean for the model.
Out: a verdict for each, with the reason in a sentence. Pure functions.
Does not know: the order among those that pass, or how many are handed out.

Two kinds of evidence add up. *Words*: an experience shares enough of the task's telling words; they speak for it as
much as full-text search found it relevant. *Meaning*: its cosine to the task is above what texts that have nothing to
do with each other reach in this model. Without a word in common it takes a clear one, with words that speak fully for
it the mean of unrelated texts is enough, and in between a straight line leads. The line rises with the best one found,
as soon as that is well above a clear one: where there is an answer, what is half about the task is none. A model's
cosine between texts of which it does not know the language says little; there it takes a shared word besides.

Source: the numbers were tuned on the first half of `tests/benchmarks/month.jsonl` and the smallest of the pools that
ReMe's authors published, see `tests/benchmarks/retrieval.py`. A threshold in spreads above the mean of unrelated pairs
is the impostor normalisation of speaker verification (Auckenthaler et al. 2000).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reme_mcp.models.embedder import Unrelated
from reme_mcp.recall.ranking import Hits, Ranked
from reme_mcp.text.words import Said, Told, told, unquoted, words_needed

# In spreads of the cosines of unrelated texts: above their mean, and below the best one found.
CLEAR = 3.3
BEHIND = 1.5
# The spread of a model of which only `[recall] min_similarity` is known.
UNKNOWN_SPREAD = 0.05
# Of the best that full-text search found, where words decide alone.
MIN_TEXT_RELEVANCE = 0.3


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a cosine of one model has to be.

    Attributes:
        clear: From here on it needs no word.
        unrelated: From here on words that speak fully for an experience are believed.
        behind: How far below the best one found it may be without words, where the best is above `clear`.
    """

    clear: float
    unrelated: float
    behind: float

    @classmethod
    def of(cls, unrelated: Unrelated | None, *, min_similarity: float = 0.0) -> Thresholds | None:
        """Return the thresholds of a model, `None` where nothing is known of it.

        Args:
            unrelated: The cosines of texts that have nothing to do with each other.
            min_similarity: `clear` as somebody has set it; 0 where nobody has.
        """
        if unrelated is None and not min_similarity:
            return None
        if unrelated is None:
            unrelated = Unrelated(min_similarity - CLEAR * UNKNOWN_SPREAD, UNKNOWN_SPREAD)
        spread = unrelated.spread
        clear = min_similarity or unrelated.mean + CLEAR * spread
        return cls(clear, clear - CLEAR * spread, BEHIND * spread)

    def needed(self, words: float, best: float) -> float:
        """Return the least cosine that an experience needs.

        Args:
            words: How much its words speak for it, 0 to 1.
            best: The highest cosine found.
        """
        rise = max(0.0, best - self.behind - self.clear)
        return self.clear - words * (self.clear - self.unrelated) + rise


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
    said: Mapping[str, Said],
    reads: Callable[[str], bool],
) -> list[Verdict]:
    """Return for each experience whether it is about the query.

    Args:
        query: As it was asked; quoted literals in it don't count as words.
        ranked: The experiences, with the numbers of both searches.
        vector: Hits of the vector search; `None` if it did not answer, and the words decide alone.
        thresholds: Of the model; `None` where nobody knows them, and every similarity is enough.
        said: The words of each, by its id.
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
        words = _Words.shared_with(asked, item, said[item.experience.id])
        if vector is None or thresholds is None:
            found.append(words.decide_alone())
        else:
            similarity = vector.values.get(item.experience.id, lowest)
            is_read = reads(asked.language) and reads(words.language)
            found.append(_by_similarity(similarity, best, words, thresholds, is_read=is_read))
    return found


@dataclass(frozen=True, slots=True)
class _Words:
    """What the words say for an experience; in a part of a sentence, too.

    Attributes:
        weight: 0 to 1, how much they speak for it; 0 where too few are shared.
    """

    shared: int
    asked: int
    language: str
    weight: float
    why: str

    @classmethod
    def shared_with(cls, asked: Told, item: Ranked, text: Said) -> _Words:
        shared, needed = asked.shared_with(text), words_needed(len(asked.words))
        weight = item.text_relevance if 0 < needed <= shared else 0.0
        why = f"{shared} of the task's {len(asked.words)} telling words ({needed} needed)"
        if weight:
            why += f", text relevance {weight:.2f}"
        return cls(shared, len(asked.words), text.language, weight, why)

    def decide_alone(self) -> Verdict:
        why = f"{self.why} ({MIN_TEXT_RELEVANCE:.2f} needed)" if self.weight else self.why
        return Verdict(self.weight >= MIN_TEXT_RELEVANCE, why)


def _by_similarity(similarity: float, best: float, words: _Words, thresholds: Thresholds, *, is_read: bool) -> Verdict:
    needed = thresholds.needed(words.weight, best)
    cosine = f"cosine {similarity:.2f}"
    if similarity >= needed and not is_read and not 0 < words_needed(words.asked, least=1) <= words.shared:
        return Verdict(passes=False, why=f"{cosine} says little in a language that the model was not made for")
    why = f"{cosine} ({needed:.2f} needed), {words.why}"
    if best > thresholds.clear + thresholds.behind:
        why += f", the best has {best:.2f}"
    return Verdict(similarity >= needed, why)
