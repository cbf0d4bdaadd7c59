"""Whether two texts say the same lesson, or are about the same task.

In:  a draft, and experiences of the pool or of the same batch that may be its twins, with their cosines.
Out: the twin, or nothing. Pure functions; no table, no model.

Source: ReMe (arXiv 2512.10696, §3.1): deduplication.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from reme_mcp.distill import difference
from reme_mcp.schema import Experience, ExperienceDraft, task_key

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|cannot|without|avoid)\b|n't\b|[不没沒别勿無无]|ない|않|말", re.IGNORECASE
)
# What has an underscore, a dot or a capital inside is the name of something: get_stock_info, startEngine, config.toml.
_NAME = re.compile(r"\b\w+(?:[_.]\w+|(?<=[a-z])[A-Z]\w*)+")
# Texts whose key and trigrams are remembered: each new one is compared with the same few. About 20 kB each.
REMEMBERED_TEXTS = 256
# Two texts that have less in common are not made one by a synonym.
MIN_AGREEMENT_FOR_SYNONYMS = 0.25
# From where on two tasks are one, whose attempts are compared: by their vectors, or by wording where there are none.
MIN_TASK_COSINE = 0.97
MIN_TASK_OVERLAP = 0.9


@dataclass(frozen=True, slots=True)
class Nearness:
    """From where on two lessons are compared word by word; reaching one of the three is enough.

    Attributes:
        min_cosine: Of the two lessons' vectors.
        min_text_overlap: Share of the wording (groups of three characters) that is the same.
        min_agreement: Share of the telling words that have a counterpart.
    """

    min_cosine: float = 0.93
    min_text_overlap: float = 0.6
    min_agreement: float = 0.3


NEARNESS = Nearness()


@dataclass(frozen=True, slots=True)
class Twin:
    """The experience that already says what a draft says, or is corrected by it, and how that was seen."""

    experience: Experience
    how: str
    corrects: bool = False


def find_twin(
    candidate: Experience,
    others: Iterable[Experience],
    cosines: Mapping[str, float],
    *,
    nearness: Nearness = NEARNESS,
    synonyms: Container[frozenset[str]] = frozenset(),
) -> Twin | None:
    """Return the closest of `others` that says all that `candidate` says; else the one that it corrects, or `None`.

    The same words are the same lesson. What only reads alike has to be of one kind ("this order worked" and "this order
    was not enough" read alike, too), and must leave nothing to say that the other does not, see `difference.py`. What
    says something else of the same situation in mostly the same words is a correction, whatever its kind.

    Args:
        candidate: Not yet stored.
        others: What a search for it found, or the rest of its batch.
        cosines: Similarity of the lessons by id, for those that have vectors.
        nearness: From where on they are compared.
        synonyms: Pairs of words that a model finds near enough in meaning.
    """

    def is_known(one: str, other: str) -> bool:
        return frozenset((one, other)) in synonyms

    are_near = is_known if synonyms else difference.never_near
    twins: list[tuple[bool, float, Twin]] = []
    key = _key(lesson(candidate))
    for other in others:
        if other.id == candidate.id:
            continue
        texts = lesson(other), lesson(candidate)
        # Flags may differ in their case alone.
        if key == _key(texts[0]) and not difference.difference(*texts):
            twins.append((True, 2.0, Twin(other, "in the same words")))
            continue
        overlap, cosine = text_overlap(*texts), cosines.get(other.id, 0.0)
        agreement = difference.agreement(*texts, are_near)
        if overlap < nearness.min_text_overlap and cosine < nearness.min_cosine and agreement < nearness.min_agreement:
            continue
        closeness = max(overlap, cosine, agreement)
        if says := difference.difference(*texts, are_near):
            if _is_same_situation(other, candidate, are_near):
                twins.append((False, closeness, Twin(other, f"it differs in: {says}", corrects=True)))
        elif other.kind == candidate.kind:
            twins.append((True, closeness, Twin(other, f"{agreement:.0%} of the telling words are the same")))
    return max(twins, key=lambda twin: twin[:2])[2] if twins else None


def pairs_to_compare(candidate: Experience, other: Experience) -> set[frozenset[str]]:
    """Return the pairs of words that may be synonyms, of two lessons that share enough words for it to matter."""
    texts = lesson(other), lesson(candidate)
    if other.id == candidate.id or difference.agreement(*texts) < MIN_AGREEMENT_FOR_SYNONYMS:
        return set()
    old, new = difference.leftover(*texts)
    return {frozenset((one, two)) for one in old for two in new if difference.may_be_synonyms(one, two)}


def _is_same_situation(older: Experience, newer: Experience, are_near: difference.AreNear) -> bool:
    """Return whether neither scenario says anything that the other does not: only then one lesson corrects another."""
    one, other = older.when_to_use, newer.when_to_use
    return not difference.difference(one, other, are_near) and not difference.difference(other, one, are_near)


def is_same_task(first: str, second: str, cosine: float | None) -> bool:
    """Return whether two tasks are one: in the same words, or nearly the same with nothing turned round.

    Args:
        first: A task.
        second: Another one.
        cosine: Of their vectors; `None` where no model made any.
    """
    if task_key(first) == task_key(second):
        return True
    if contradicts(first, second):
        return False
    if cosine is not None:
        return cosine >= MIN_TASK_COSINE
    return text_overlap(first, second) >= MIN_TASK_OVERLAP


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


def lesson(experience: Experience | ExperienceDraft) -> str:
    """Return the text that makes two experiences the same: scenario and lesson."""
    return f"{experience.when_to_use}\n{experience.content}"


def text_overlap(first: str, second: str) -> float:
    """Return the share of character trigrams that two texts have in common, 0 to 1 (Jaccard); any language."""
    left, right = _trigrams(first), _trigrams(second)
    common = len(left & right)
    return common / (len(left) + len(right) - common)


@functools.lru_cache(maxsize=REMEMBERED_TEXTS)
def _key(text: str) -> str:
    return task_key(text)


@functools.lru_cache(maxsize=REMEMBERED_TEXTS)
def _trigrams(text: str) -> frozenset[str]:
    folded = f"  {task_key(text)}  "
    return frozenset(map("".join, zip(folded, folded[1:], folded[2:], strict=False)))
