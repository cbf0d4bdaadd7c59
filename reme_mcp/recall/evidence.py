"""What the words of a task say for each of the notes that were found.

In:  the telling words of a task; those of the notes, and the task that each was learned from.
Out: for each note a weight: the more, the less an unrelated note would have these words by chance. Pure functions.
Does not know: how similar the meanings are, or from which weight on a note is about the task; `floor.py` does.

A word weighs the more the fewer of the candidates have it, and the more often the note itself says it: what a note
repeats in scenario, lesson, keywords and task is what it is about. A long task shares some words with anything, so that
few of many weigh less. Lessons of one task speak for each other.

Source: rarity and repetition are those of BM25 (Robertson and Zaragoza 2009), counted among the candidates, which are
known wherever the search ran. The numbers were tuned on half A of `tests/benchmarks/month.jsonl`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from reme_mcp.text.words import COMPOUNDING, QueryWords, TextWords, columns_of_words

# So many candidates there are at least, for the rarity of a word: all that were found for a rare one have it.
CANDIDATES = 60
# Each time that a note repeats a word, up to three times, it weighs half as much again.
REPEATED = 0.5
MAX_REPEATED = 3
# Fewer than this share of the task's telling words weigh in proportion; more than six of them are asked of nobody.
SHARE = 0.15
MAX_WORDS = 6
# What each telling word of the task beyond ten takes off, up to thirty.
CHANCE = 0.3
USUAL_WORDS = 10
LONG_WORDS = 30
# Of what speaks for the best other lesson of the same task.
FELLOW = 0.7
# From here on words alone are enough; two of them are, too, if they are a quarter of the task's.
ENOUGH = 6.5
ENOUGH_WORDS = 2
ENOUGH_SHARE = 0.25
# A part of a compound is at least so long.
MIN_PART_CHARS = 5


@dataclass(frozen=True, slots=True)
class Evidence:
    """What words say for one note.

    Attributes:
        shared: How many of the task's telling words it has.
        asked: How many telling words the task has.
        own: What they weigh, 0 or more.
        fellows: What is added for other lessons of the same task.
    """

    shared: int
    asked: int
    own: float
    fellows: float

    @property
    def weight(self) -> float:
        """All that words say for it."""
        return self.own + self.fellows

    def __str__(self) -> str:
        said = f"{self.shared} of the task's {self.asked} telling words"
        if self.own:
            said += f" weigh {self.own:.1f}"
        return f"{said}, other lessons of its task {self.fellows:.1f}" if self.fellows else said


def weigh(asked: QueryWords, texts: Sequence[TextWords], tasks: Sequence[str]) -> list[Evidence]:
    """Return what the words of a task say for each of n candidates.

    Args:
        asked: The words of the task.
        texts: Those of the candidates.
        tasks: What each candidate was learned from; empty where that is not known.
    """
    sought = _Sought.of(asked)
    marks = sought.marks(texts)
    shared = [_shared(asked, sought, one, its) for one, its in zip(texts, marks, strict=True)]
    holders = Counter(word for words in shared for word in words)
    total = max(CANDIDATES, len(texts))
    rarity = {word: math.log(1 + (total - count + 0.5) / (count + 0.5)) for word, count in holders.items()}
    own = [_weight(words, its, rarity, len(asked.words)) for words, its in zip(shared, marks, strict=True)]
    best: dict[str, list[tuple[float, int]]] = {}
    for place, (weight, task) in enumerate(zip(own, tasks, strict=True)):
        if task:
            best.setdefault(task, []).append((weight, place))
    return [
        Evidence(
            shared=len(words),
            asked=len(asked.words),
            own=own[place],
            fellows=FELLOW * max((weight for weight, other in best.get(tasks[place], ()) if other != place), default=0),
        )
        for place, words in enumerate(shared)
    ]


@dataclass(frozen=True, slots=True)
class _Sought:
    """The words of a task, by the hashes of what a note may have of them.

    Attributes:
        stems: Those of which it has a stem.
        parts: Those of which it has a part, where both are in a language that writes compounds.
    """

    stems: Mapping[int, Sequence[tuple[str, str]]]
    parts: Mapping[int, Sequence[tuple[str, str]]]

    @classmethod
    def of(cls, asked: QueryWords) -> _Sought:
        stems: dict[int, list[tuple[str, str]]] = defaultdict(list)
        parts: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for word in asked.words:
            for stem in {*word}:
                stems[hash(stem)].append(word)
            if asked.language in COMPOUNDING:
                for part in _parts(word[1]):
                    parts[hash(part)].append(word)
        return cls(dict(stems), dict(parts))

    def marks(self, texts: Sequence[TextWords]) -> Sequence[Mapping[int, int]]:
        """Return for each note those of its words that are sought, with their marks."""
        import numpy as np

        hashes = self.stems.keys() | self.parts.keys()
        rows, words, marks = columns_of_words(texts)
        common = np.isin(words, np.fromiter(hashes, np.int64, len(hashes)))
        found: list[dict[int, int]] = [{} for _ in texts]
        for row, word, mark in zip(*(column[common].tolist() for column in (rows, words, marks)), strict=True):
            found[row][word] = mark
        return found


def _weight(
    shared: Collection[tuple[str, str]],
    marks: Mapping[int, int],
    rarity: Mapping[tuple[str, str], float],
    asked: int,
) -> float:
    if not shared:
        return 0.0
    weight = 0.0
    for word in shared:
        own, english = (marks.get(hash(stem), 0) >> 1 for stem in word)
        weight += rarity[word] * (1 + REPEATED * min((english or own or 1) - 1, MAX_REPEATED))
    weight *= min(1.0, len(shared) / min(MAX_WORDS, SHARE * asked))
    weight -= CHANCE * max(0, min(asked, LONG_WORDS) - USUAL_WORDS)
    is_enough = len(shared) >= max(min(ENOUGH_WORDS, asked), ENOUGH_SHARE * asked)
    return max(weight, ENOUGH if is_enough else 0.0)


def _shared(asked: QueryWords, sought: _Sought, text: TextWords, marks: Mapping[int, int]) -> set[tuple[str, str]]:
    """Return the telling words of the task that a note has, as a part of a compound, too."""
    telling = [word for word, mark in marks.items() if mark & 1]
    shared = {word for stem in telling for word in sought.stems.get(stem, ())}
    if text.compounds and text.language == asked.language:
        shared.update(word for part in telling for word in sought.parts.get(part, ()))
        shared.update(word for word in asked.words if len(word[0]) >= MIN_PART_CHARS and word[0] in text.compounds)
    return shared


def _parts(word: str) -> set[str]:
    """Return what may be a part of a compound."""
    return {
        word[start:end]
        for start in range(len(word) - MIN_PART_CHARS + 1)
        for end in range(start + MIN_PART_CHARS, len(word) + 1)
    }
