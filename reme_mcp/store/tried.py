"""The tasks of a workspace that were tried after a recall, how they ended, and which of them are alike.

In:  the ledger of a store.
Out: the latest of them, each with the notes that it had; those that are like a task.
Does not know: what follows for a lesson (`refine/neighbourhood.py` does).

Tasks are compared by the vectors that their receipts keep. Where one of the two has none of the same embedder, their
telling words are. Only what is new is read; what is kept in memory comes to about 5 MB a workspace.
"""

from __future__ import annotations

import base64
import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from reme_mcp.schema import Ended, Noted
from reme_mcp.store.ledger import Condition, Filled, Is, Ledger, Since
from reme_mcp.text.words import query_words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

# So many of the latest tasks are known, and so many of those that are alike are looked at. What is older is forgotten,
# so that a lesson which is withheld somewhere gets another chance there.
KNOWN_TASKS = 2_000
ALIKE_TASKS = 500
KEPT_WORKSPACES = 8
# Two tasks are alike from the middle between unrelated and identical on. Of BFCL's first requests with bge-small, that
# are half of the pairs that need the same tools, 3 % of the others, and no pair of different fields.
ALIKE_SHARE = 0.5
# By words: of the telling words of two tasks, the share in common (cosine). It finds the same half, and 2 %.
ALIKE_WORDS = 0.3
# Somebody else may have begun to write before what was read last, and ended after it.
OVERLAP = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class TaskVector:
    """What an embedder made of a task.

    Attributes:
        space: The embedder's name.
        unrelated: The mean cosine of texts there that have nothing to do with each other.
        values: (dim,) float32, unit norm.
    """

    space: str
    unrelated: float
    values: Vector

    def to_text(self) -> str:
        """Return it as a receipt keeps it: a byte for each dimension."""
        import numpy as np

        scaled = np.rint(self.values * (127 / np.abs(self.values).max())).astype(np.int8)
        return f"{base64.b64encode(scaled.tobytes()).decode()} {self.unrelated:.4f} {self.space}"

    @classmethod
    def from_text(cls, text: str) -> TaskVector:
        """Return what `to_text` wrote."""
        import numpy as np

        encoded, unrelated, space = text.split(" ", 2)
        values = np.frombuffer(base64.b64decode(encoded), dtype=np.int8).astype(np.float32)
        return cls(space, float(unrelated), values / np.linalg.norm(values))


@dataclass(frozen=True, slots=True)
class Tried:
    """A task that was tried after a recall.

    Attributes:
        vector: As `TaskVector.to_text` wrote it; empty where there is none.
        notes: What was on its receipt, by experience id; with what was withheld.
    """

    receipt: str
    task: str
    vector: str
    at: datetime
    succeeded: bool
    notes: Mapping[str, Noted]


class TriedTasks:
    """The latest tasks of one workspace, up to `KNOWN_TASKS`."""

    def __init__(self) -> None:
        # A place is used again when all are taken; the matrix has a row for each.
        self._places: list[Tried] = []
        self._next = 0
        self._ended: dict[str, tuple[int, Ended]] = {}
        self._words: dict[int, frozenset[str]] = {}
        self._space = ""
        self._matrix: Vector | None = None
        self._without_vector: set[int] = set()
        self._newest: datetime | None = None

    async def read(self, ledger: Ledger, workspace: str) -> None:
        """Take in what has ended since the last time."""
        where: list[Condition] = [Is("workspace", [workspace]), Filled("receipt")]
        if self._newest is not None:
            where.append(Since("updated_at", self._newest - OVERLAP))
        found = await ledger.read(Ended, where, newest_by="updated_at", limit=KNOWN_TASKS)
        if not found:
            return
        newest = found[0].updated_at
        # The first attempt is the one that the notes were handed to; the oldest come first.
        new = {one.receipt: one for one in sorted(found, key=lambda one: one.created_at, reverse=True)}
        new = {receipt: one for receipt, one in new.items() if self._is_news(one)}
        lines: dict[str, list[Noted]] = defaultdict(list)
        if new:
            for line in await ledger.read(Noted, [Is("workspace", [workspace]), Is("receipt", list(new))]):
                lines[line.receipt].append(line)
        for one in reversed(new.values()):
            if lines[one.receipt] and self._is_news(one):
                self._put(one, lines[one.receipt])
        self._newest = max(newest, self._newest or newest)

    def with_note(self, experience_id: str) -> list[Tried]:
        """Return the tasks that had a note or from which it was withheld, newest first."""
        found = [one for one in self._places if experience_id in one.notes]
        return sorted(found, key=lambda one: one.at, reverse=True)

    def alike(self, task: str, vector: TaskVector | None) -> Sequence[Tried]:
        """Return the tasks that are like one, the latest `ALIKE_TASKS` at most."""
        words = _words(task)
        if vector is None:
            places = self._like(words, range(len(self._places)))
        else:
            places = [*self._near(vector), *self._like(words, self._without_vector)]
        found = [self._places[place] for place in places]
        return found if len(found) <= ALIKE_TASKS else heapq.nlargest(ALIKE_TASKS, found, key=lambda one: one.at)

    def _is_news(self, one: Ended) -> bool:
        _, known = self._ended.get(one.receipt, (0, None))
        return known is None or (one != known and one.created_at <= known.created_at)

    def _put(self, ended: Ended, lines: Sequence[Noted]) -> None:
        vector = next((line.task_vector for line in lines if line.task_vector), "")
        one = Tried(
            receipt=ended.receipt,
            task=lines[0].task,
            vector=vector,
            at=ended.created_at,
            succeeded=ended.outcome == "success",
            notes={line.experience_id: line for line in lines if line.experience_id},
        )
        place, _ = self._ended.get(ended.receipt, (-1, None))
        if place < 0:
            place, self._next = self._next, (self._next + 1) % KNOWN_TASKS
            if place == len(self._places):
                self._places.append(one)
            else:
                del self._ended[self._places[place].receipt]
        self._places[place] = one
        self._ended[ended.receipt] = place, ended
        self._words.pop(place, None)
        self._fill(place, one)

    def _near(self, vector: TaskVector) -> list[int]:
        """Return the places whose vectors are near; those without one are zero, and near to nothing."""
        import numpy as np

        if vector.space != self._space or self._matrix is None:
            self._space = vector.space
            self._matrix = np.zeros((KNOWN_TASKS, len(vector.values)), dtype=np.float32)
            for place, one in enumerate(self._places):
                self._fill(place, one)
        needed = vector.unrelated + ALIKE_SHARE * (1 - vector.unrelated)
        cosines = np.vecdot(self._matrix[: len(self._places)], vector.values)
        near: list[int] = (cosines >= needed).nonzero()[0].tolist()
        return near

    def _fill(self, place: int, one: Tried) -> None:
        """Take the vector of a place into the matrix, where there is one of its embedder."""
        if self._matrix is None:
            return
        if one.vector.endswith(f" {self._space}"):
            self._matrix[place] = TaskVector.from_text(one.vector).values
            self._without_vector.discard(place)
        else:
            self._matrix[place] = 0
            self._without_vector.add(place)

    def _like(self, words: frozenset[str], places: Iterable[int]) -> list[int]:
        """Return those of some places whose tasks share enough telling words with these."""
        needed = ALIKE_WORDS**2 * len(words)
        known = self._words
        found = []
        for place in places:
            if (other := known.get(place)) is None:
                other = known[place] = _words(self._places[place].task)
            if (shared := len(words & other)) and shared * shared >= needed * len(other):
                found.append(place)
        return found


class Tries:
    """The tried tasks of one store, of the workspaces that were asked for last."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, TriedTasks] = {}

    async def of(self, workspace: str) -> TriedTasks:
        """Return the tasks of a workspace as they are now.

        A rating that came after its attempt was read is known once the store is opened anew.
        """
        known = self._known.pop(workspace, None) or TriedTasks()
        self._known[workspace] = known
        if len(self._known) > KEPT_WORKSPACES:
            del self._known[next(iter(self._known))]
        await known.read(self._ledger, workspace)
        return known


def _words(task: str) -> frozenset[str]:
    return frozenset(own for own, _ in query_words(task).words)
