"""Full-text search in memory: which experiences hold the words of a query, best first.

In:  ids, workspaces, statuses and texts, in any number of portions.
Out: `(id, BM25)` pairs, best first; what each text is compared by.
Does not know: where they come from, or whether they are all that there is.

The words are those of `text/words.py`, the numbers those of LanceDB's index (BM25 with the same constants, over all
workspaces). At 10,000 experiences it takes a tenth of the processor time, and it has what was just written.

Source: S. Robertson, H. Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, FnTIR 3 (2009).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Container, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from reme_mcp.schema import STATUSES, Status
from reme_mcp.text.words import TextWords, text_words, word_counts

K1 = 1.2
B = 0.75
# Of a row whose experience has another text now, or is gone.
GONE = len(STATUSES)
# More often than this no word stands in a text, as far as anybody compares it.
MAX_TIMES = 2**15 - 1

# The words of so many texts are kept as they are compared, at about 6 kB each: some come up again and again.
KEPT_WORDS = 1_024


class _Posting(NamedTuple):
    """A word: its number, the rows that hold it, and how often each does."""

    number: int
    rows: array[int]
    times: array[int]


class InvertedIndex:
    """For each word, the rows that hold it and how often, and for each row its words. Rows are only ever added.

    The words of a row are there so that nobody has to split its text again, as numbers, at half a kilobyte each.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._ids: list[str] = []
        self._texts: list[int] = []
        self._workspaces: dict[str, int] = {}
        self._postings: dict[str, _Posting] = {}
        self._lengths = array("I")
        self._owners = array("I")
        self._statuses = array("B")
        self._words = 0
        self._vocabulary: list[str] = []
        self._languages: list[str] = []
        # Of each row after the other: the numbers of its words; how often each stands there, twice, and one more for a
        # form of a telling word.
        self._numbers = array("I")
        self._marks = array("H")
        self._ends = array("Q")
        # Of rows that were compared lately.
        self._read: dict[int, TextWords] = {}

    def put(
        self, ids: Sequence[str], workspaces: Sequence[str], statuses: Sequence[Status], texts: Sequence[str]
    ) -> None:
        """Take in experiences as they are now, n of each; one whose text is known gets no new row."""
        for id, workspace, status, text in zip(ids, workspaces, statuses, texts, strict=True):
            row = self._rows.get(id)
            if row is None or self._texts[row] != hash(text):
                if row is not None:
                    self._statuses[row] = GONE
                row = self._add(id, text)
            self._owners[row] = self._workspaces.setdefault(workspace, len(self._workspaces))
            self._statuses[row] = STATUSES.index(status)

    def keep(self, ids: Container[str]) -> None:
        """Forget all experiences but these."""
        for id in [id for id in self._rows if id not in ids]:
            self._statuses[self._rows.pop(id)] = GONE

    def match(
        self, workspace: str, query: str, *, statuses: Sequence[Status], also: Sequence[str], limit: int
    ) -> list[tuple[str, float]]:
        """Return up to `limit` `(id, BM25)` pairs of a workspace, best first; equal ones in the order they came in.

        Args:
            workspace: Whose.
            query: Its words are searched; one that stands in it twice counts twice.
            statuses: Of what may be found.
            also: Ids that may be found whatever their status.
            limit: How many.
        """
        owner = self._workspaces.get(workspace)
        if owner is None:
            return []
        values = self._values(query)
        wanted = np.zeros(GONE + 1, dtype=bool)
        wanted[[STATUSES.index(status) for status in statuses]] = True
        found = np.flatnonzero(values)
        may_be = wanted[np.frombuffer(self._statuses, np.uint8)[found]]
        may_be |= np.isin(found, [self._rows[id] for id in also if id in self._rows])
        found = found[may_be & (np.frombuffer(self._owners, np.uint32)[found] == owner)]
        if len(found) > limit:
            lowest = np.partition(values[found], -limit)[-limit]
            found = found[values[found] >= lowest]
        best = found[np.argsort(-values[found], kind="stable")][:limit]
        return [(self._ids[row], float(values[row])) for row in best]

    def words_of(self, id: str) -> TextWords | None:
        """Return what the text of an experience is compared by; `None` where it is not here."""
        row = self._rows.get(id)
        if row is None:
            return None
        if row not in self._read:
            if len(self._read) >= KEPT_WORDS:
                self._read.clear()
            self._read[row] = self._words_in(row)
        return self._read[row]

    def _words_in(self, row: int) -> TextWords:
        part = slice(self._ends[row - 1] if row else 0, self._ends[row])
        pairs = list(zip([self._vocabulary[number] for number in self._numbers[part]], self._marks[part], strict=True))
        counts = {word: mark >> 1 for word, mark in pairs if mark > 1}
        return TextWords(counts, self._languages[row], frozenset([word for word, mark in pairs if mark & 1]))

    def _values(self, query: str) -> npt.NDArray[np.float32]:
        values = np.zeros(len(self._ids), dtype=np.float32)
        if not len(values):
            return values
        lengths = np.frombuffer(self._lengths, np.uint32)
        mean = self._words / len(values)
        for word, asked in word_counts(query).items():
            if word not in self._postings or not self._postings[word].rows:
                continue
            rows, times = (np.frombuffer(part, np.uint32) for part in self._postings[word][1:])
            rarity = math.log(1 + (len(values) - len(rows) + 0.5) / (len(rows) + 0.5))
            often = times.astype(np.float32)
            values[rows] += asked * rarity * (K1 + 1) * often / (often + K1 * (1 - B + B / mean * lengths[rows]))
        return values

    def _add(self, id: str, text: str) -> int:
        row = self._rows[id] = len(self._ids)
        its = text_words(text)
        counts, forms = its.counts, its.forms
        for word, times in counts.items():
            posting = self._postings.get(word) or self._new_posting(word)
            posting.rows.append(row)
            posting.times.append(times)
            self._numbers.append(posting.number)
            self._marks.append(min(times, MAX_TIMES) * 2 + (word in forms))
        for word in forms - counts.keys():
            self._numbers.append((self._postings.get(word) or self._new_posting(word)).number)
            self._marks.append(1)
        self._ends.append(len(self._numbers))
        self._languages.append(its.language)
        length = sum(counts.values())
        self._ids.append(id)
        self._texts.append(hash(text))
        self._lengths.append(length)
        self._owners.append(0)
        self._statuses.append(GONE)
        self._words += length
        return row

    def _new_posting(self, word: str) -> _Posting:
        posting = self._postings[word] = _Posting(len(self._vocabulary), array("I"), array("I"))
        self._vocabulary.append(word)
        return posting
