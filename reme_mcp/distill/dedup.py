"""Whether two texts say the same lesson, or are about the same task.

In:  a draft, and experiences of the pool or of the same batch that may be its twins, with their cosines.
Out: the twin, or nothing. Pure functions; no table, no model.

Source: ReMe (arXiv 2512.10696, §3.1): deduplication.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reme_mcp.config.settings import DedupSettings
from reme_mcp.schema import Experience, ExperienceDraft, task_key
from reme_mcp.text.words import stems

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|cannot|without|avoid)\b|n't\b|[不没沒别勿無无]|ない|않|말", re.IGNORECASE
)
# What has an underscore, a dot or a capital inside is the name of something: get_stock_info, startEngine, config.toml.
_NAME = re.compile(r"\b\w+(?:[_.]\w+|(?<=[a-z])[A-Z]\w*)+")
# Texts whose key and trigrams are remembered: each new one is compared with the same few. About 20 kB each.
REMEMBERED_TEXTS = 256
# Of two texts that differ in more words than these on either side, one is the other told anew.
MAX_EXCHANGED_WORDS = 3


@dataclass(frozen=True, slots=True)
class Twin:
    """The experience that already says what a draft says, and how that was seen."""

    experience: Experience
    how: str


def find_twin(
    candidate: Experience, others: Iterable[Experience], cosines: Mapping[str, float], settings: DedupSettings
) -> Twin | None:
    """Return the closest of `others` that says the same as `candidate`, or `None`.

    The same words are the same lesson. What only reads alike has to be of one kind ("this order worked" and "this order
    was not enough" read alike, too), must not contradict, and not say it of something else.

    Args:
        candidate: Not yet stored.
        others: What a search for it found, or the rest of its batch.
        cosines: Similarity of the lessons by id, for those that have vectors.
        settings: Thresholds; reaching one is enough.
    """
    twins: list[tuple[float, Twin]] = []
    key = _key(lesson(candidate))
    for other in others:
        if other.id == candidate.id:
            continue
        if key == _key(lesson(other)):
            twins.append((1.0, Twin(other, "in the same words")))
            continue
        if other.kind != candidate.kind:
            continue
        texts = lesson(candidate), lesson(other)
        overlap = text_overlap(*texts)
        cosine = cosines.get(other.id, 0.0)
        if max(overlap - settings.min_text_overlap, cosine - settings.min_cosine) < 0:
            continue
        # Asked last: it takes longer than the rest.
        if contradicts(*texts) or exchanges_words(*texts):
            continue
        if overlap >= settings.min_text_overlap:
            twins.append((overlap, Twin(other, f"{overlap:.0%} of the wording is the same")))
        else:
            twins.append((cosine, Twin(other, f"cosine {cosine:.2f}")))
    return max(twins, key=lambda pair: pair[0])[1] if twins else None


def is_same_task(first: str, second: str, cosine: float | None, settings: DedupSettings) -> bool:
    """Return whether two tasks are one: in the same words, or nearly the same with nothing turned round.

    Args:
        first: A task.
        second: Another one.
        cosine: Of their vectors; `None` where no model made any.
        settings: Thresholds; reaching one is enough.
    """
    if task_key(first) == task_key(second):
        return True
    if contradicts(first, second):
        return False
    if cosine is not None:
        return cosine >= settings.min_task_cosine
    return text_overlap(first, second) >= settings.min_task_overlap


def contradicts(first: str, second: str) -> bool:
    """Return whether two texts differ in what turns a lesson around: a number, a "not", a name, or the order of words.

    Measured on upstream's pools, such pairs are *more* alike than true paraphrases, by cosine and by wording.
    """
    if set(_NUMBER.findall(first)) != set(_NUMBER.findall(second)):
        return True
    if (_NEGATION.search(first) is None) != (_NEGATION.search(second) is None):
        return True
    names, other_names = set(_NAME.findall(first)), set(_NAME.findall(second))
    if not (names <= other_names or other_names <= names):
        return True
    words, other_words = task_key(first).split(), task_key(second).split()
    return words != other_words and sorted(words) == sorted(other_words)


def exchanges_words(first: str, second: str) -> bool:
    """Return whether one text has a few words where the other has a few others: "restart postfix", "reload nginx".

    Nobody can say without knowing them whether they mean the same. A lesson that is kept twice costs a row, one that is
    taken for another is lost.
    """
    told, other_told = stems(first), stems(second)
    return 0 < len(told - other_told) <= MAX_EXCHANGED_WORDS and 0 < len(other_told - told) <= MAX_EXCHANGED_WORDS


def lesson(experience: Experience | ExperienceDraft) -> str:
    """Return the text that makes two experiences the same: scenario and lesson."""
    return f"{experience.when_to_use}\n{experience.content}"


def text_overlap(first: str, second: str) -> float:
    """Return the share of character trigrams that two texts have in common, 0 to 1 (Jaccard); any language."""
    left, right = _trigrams(first), _trigrams(second)
    return len(left & right) / len(left | right)


@functools.lru_cache(maxsize=REMEMBERED_TEXTS)
def _key(text: str) -> str:
    return task_key(text)


@functools.lru_cache(maxsize=REMEMBERED_TEXTS)
def _trigrams(text: str) -> frozenset[str]:
    folded = f"  {task_key(text)}  "
    return frozenset(folded[start : start + 3] for start in range(len(folded) - 2))
