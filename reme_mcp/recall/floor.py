"""The floor: which of the experiences that were found are about the task, each by itself.

In:  a task, ranked experiences, what cosines mean for the model.
Out: a verdict for each, with the reason in a sentence. Pure functions.
Does not know: the order among those that pass, or how many are handed out.

Two kinds of evidence add up. *Words* weigh what `evidence.py` says; without vectors they decide alone. *Meaning*: the
cosine to the task is well above what texts that have nothing to do with each other reach in this model; what words
weigh lowers the cosine that is needed. Two texts in a language that the model was not made for are alike to it because
of that language; there the cosine has to be higher.

Source: the numbers were tuned on half A of `tests/benchmarks/month.jsonl`, see `tests/benchmarks/retrieval.py`. A
threshold in spreads above the mean of unrelated pairs is the impostor normalisation of speaker verification
(Auckenthaler et al. 2000); a sum of evidence against one threshold is a likelihood ratio test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reme_mcp.models.embedder import Unrelated
from reme_mcp.recall.evidence import ENOUGH, Evidence, weigh
from reme_mcp.recall.ranking import REACH, Hits, Ranked
from reme_mcp.text.words import TextWords, query_words, unquoted

# In spreads of the cosines of unrelated texts: above their mean without a word in common; lower by so much for each 1
# that words weigh; higher where task and note share a language that the model was not made for.
CLEAR = 3.9
BY_WORDS = 0.15
FOREIGN = 1.5
# The spread of a model of which only `[recall] min_similarity` is known.
UNKNOWN_SPREAD = 0.05


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a cosine of one model has to be.

    Attributes:
        clear: From here on it needs no word.
        spread: That of the cosines of unrelated texts.
    """

    clear: float
    spread: float

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
            return cls(min_similarity, UNKNOWN_SPREAD)
        return cls(min_similarity or unrelated.mean + CLEAR * unrelated.spread, unrelated.spread)

    def needed(self, weight: float, *, is_foreign: bool = False) -> float:
        """Return the least cosine that an experience needs.

        Args:
            weight: What words say for it.
            is_foreign: Whether it shares a language with the task that the model was not made for.
        """
        return self.clear + self.spread * (FOREIGN * is_foreign - BY_WORDS * weight)


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
    words: Mapping[str, TextWords],
    reads: Callable[[str], bool],
) -> list[Verdict]:
    """Return for each experience whether it is about the query.

    Args:
        query: As it was asked; quoted literals in it don't count as words.
        ranked: The experiences, with the numbers of both searches.
        vector: Hits of the vector search; `None` if it did not answer, and the words decide alone.
        thresholds: Of the model; `None` where nobody knows them, and every similarity is enough.
        words: The words of each, by its id.
        reads: Whether the model was made for a language, by its name.
    """
    if vector is not None and thresholds is None:
        return [Verdict(passes=True, why="nobody knows from which cosine on this model means the same")] * len(ranked)
    asked = query_words(unquoted(query))
    texts = [words[item.experience.id] for item in ranked]
    evidence = weigh(asked, texts, [item.experience.task for item in ranked])
    if vector is None or thresholds is None:
        return [_by_words(one) for one in evidence]
    # What is not among the nearest is at most as similar as the last of them; of few, it has no vector yet.
    lowest = min(vector.values.values()) if len(vector.values) >= REACH else None
    is_foreign = not reads(asked.language)
    given = []
    for item, text, one in zip(ranked, texts, evidence, strict=True):
        similarity = vector.values.get(item.experience.id, lowest)
        needed = thresholds.needed(one.weight, is_foreign=is_foreign and text.language == asked.language)
        given.append(_by_words(one) if similarity is None else _by_similarity(similarity, one, needed))
    return given


def _by_words(evidence: Evidence) -> Verdict:
    return Verdict(evidence.weight >= ENOUGH, f"{evidence} ({ENOUGH:.1f} needed)")


def _by_similarity(similarity: float, evidence: Evidence, needed: float) -> Verdict:
    return Verdict(similarity >= needed, f"cosine {similarity:.2f} ({needed:.2f} needed), {evidence}")
