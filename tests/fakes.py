"""What stands in for a model, and the values that tests are made of.

The fakes stand at the seams of the embedder and the language model only; everything else in a test is real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from click.testing import Result
from pydantic import BaseModel

from reme_mcp.config.settings import EmbedderSettings
from reme_mcp.distill.output_schemas import Differences, Lesson, Mistakes, Patterns, Value, Verdict
from reme_mcp.errors import EmbedderError
from reme_mcp.models.embedder import Embedder
from reme_mcp.models.question import Question
from reme_mcp.schema import Experience, Purpose, ReceiptLine, Trajectory, task_key

T = TypeVar("T", bound=BaseModel)
# Runs a command line.
Run = Callable[..., Result]

LEARNED = datetime(2026, 3, 1, 12, tzinfo=UTC)


class FakeEmbedder:
    """An embedder whose cosines can be told from the test.

    Attributes:
        name: Of the vector space.
        broken: What it fails with; it works while this is empty.
        embedded: Every text that it was given.
    """

    def __init__(self, meanings: Mapping[str, Sequence[float]], *, dim: int = 3, name: str = "fake") -> None:
        """Make one whose text means the sum of the `meanings` of the words found in it.

        Args:
            meanings: Up to `dim` numbers for each word, in lower case.
            dim: Of the vectors; one axis more is added for texts with none of the words, so they are orthogonal.
            name: Of the vector space.
        """
        self.name = name
        self.broken = ""
        self.embedded: list[str] = []
        self._meanings = meanings
        self._dim = dim

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim + 1) float32, unit norm."""
        if self.broken:
            raise EmbedderError(self.broken)
        self.embedded += texts
        return np.stack([self._vector(text.lower()) for text in texts])

    def _vector(self, text: str) -> npt.NDArray[np.float32]:
        vector = np.zeros(self._dim + 1, dtype=np.float64)
        for word, numbers in self._meanings.items():
            if word in text:
                vector[: len(numbers)] += numbers
        if not vector.any():
            vector[-1] = 1
        unit: npt.NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit


class FakeLoader:
    """Loads what it was told to, in order: an embedder, or an error with the text that stands in its place.

    It fails on a load that it was not told about.
    """

    def __init__(self, *outcomes: Embedder | str) -> None:
        self._outcomes = list(outcomes)

    def __call__(self, settings: EmbedderSettings, download: bool) -> Embedder:
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, str):
            raise EmbedderError(outcome)
        return outcome


class ScriptedLLM:
    """A language model that answers what it was told to, in order.

    It fails on a question that it was not told about, or whose answer would have another shape.

    Attributes:
        asked: Every question that it was asked.
    """

    def __init__(self, *answers: BaseModel | Exception) -> None:
        self.asked: list[Question[Any]] = []
        self._answers = list(answers)

    async def answer(self, purpose: Purpose, system: str, user: str, shape: type[T]) -> T:
        """Return the next answer, or raise it."""
        self.asked.append(Question(purpose, system, user, shape))
        assert self._answers, f"nobody expected the question {user!r}"
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, shape), f"the script has {answer!r}, but {shape.__name__} was asked for"
        return answer

    async def close(self) -> None:
        """Nothing is open."""

    @property
    def left(self) -> int:
        """How many answers nobody asked for."""
        return len(self._answers)


EXPERIENCE = Experience(
    id="e-bcdfghjkmn",
    workspace="default",
    when_to_use="When a static site has to go online",
    content="Build it first, then upload the public folder.",
    keywords=("deploy", "site"),
    confidence=0.5,
    tools_used=(),
    kind="success",
    task="put my blog online",
    generalized_task="publish a static site",
    frequency=0,
    utility=0,
    prior_frequency=0,
    prior_utility=0,
    source="test",
    author="assistant",
    trajectory_ids=("t-bcdfghjkmn",),
    created_at=LEARNED,
    updated_at=LEARNED,
    counted_since=LEARNED,
    status="active",
    status_reason="",
    pinned=False,
)

TRAJECTORY = Trajectory(
    id="t-bcdfghjkmn",
    workspace="default",
    task="Put my blog online",
    task_key="put my blog online",
    outcome="success",
    reward=1.0,
    transcript="",
    digest="d1",
    drafts_digest="",
    receipt="",
    source="test",
    created_at=LEARNED,
    updated_at=LEARNED,
    status="awaiting_experiences",
    drafts="[]",
    rejected="[]",
    answer="{}",
)

LINE = ReceiptLine(
    receipt="r-bcdfghjkmn",
    experience_id="e-bcdfghjkmn",
    workspace="default",
    task="put my blog online",
    rank=1,
    source="test",
    created_at=LEARNED,
    helped=None,
    settled_by="",
    settled_at=None,
    reason="",
)


def experience(id: str = EXPERIENCE.id, **changes: Any) -> Experience:
    """Return an experience like `EXPERIENCE`, but for `id` and `changes`."""
    return replace(EXPERIENCE, id=id, **changes)


def counted(id: str, frequency: int, utility: int = 0, **changes: Any) -> Experience:
    """Return an experience that came with its counters, as an import brings it."""
    prior = {"prior_frequency": frequency, "prior_utility": utility}
    return experience(id, frequency=frequency, utility=utility, **prior, **changes)


def trajectory(id: str = TRAJECTORY.id, **changes: Any) -> Trajectory:
    """Return a trajectory like `TRAJECTORY`, but for `id` and `changes`; its key follows its task."""
    changed = replace(TRAJECTORY, id=id, **changes)
    return changed if "task_key" in changes else replace(changed, task_key=task_key(changed.task))


def line(receipt: str = LINE.receipt, **changes: Any) -> ReceiptLine:
    """Return a receipt line like `LINE`, but for `receipt` and `changes`."""
    return replace(LINE, receipt=receipt, **changes)


# Ten situations with nothing in common, so that none is taken for another's twin.
SITUATIONS = (
    ("When a static site has to go online", "Build it first, then upload the public folder and purge the cache."),
    ("Boiling eggs at high altitude", "Add two minutes for each thousand metres above the sea."),
    ("A pandas merge doubles its rows", "Look for repeated keys with duplicated() before joining the frames."),
    ("Reading a PDF invoice", "Take the total from the last page; headers repeat older sums."),
    ("Kubernetes pod restarts in a loop", "Describe the pod and compare its memory limit with the peak usage."),
    ("Booking a train for a group", "Ask for the group fare by phone, the website hides it."),
    ("Migrating a PostgreSQL column", "Add the new column, backfill in batches, then switch the readers over."),
    ("Planting tomatoes outside", "Wait until nights stay warmer than ten degrees."),
    ("An OAuth callback fails with mismatch", "Copy the redirect address exactly, with its trailing slash."),
    ("Compressing a video for a phone", "Scale down to 720p before lowering the bitrate."),
)


def draft(number: int = 0, /, **changes: object) -> dict[str, object]:
    """Return a valid draft about the situation with this number, as a client sends it."""
    when_to_use, content = SITUATIONS[number]
    return {"when_to_use": when_to_use, "content": content, **changes}


# --- what a model answers ---


def lesson(number: int, **changes: Any) -> Lesson:
    when_to_use, content = SITUATIONS[number]
    values = {"when_to_use": when_to_use, "content": content, "keywords": ["site"], "tools_used": ["upload"]}
    return Lesson(**(values | {"confidence": "high"} | changes))


def patterns(*lessons: Lesson) -> Patterns:
    return Patterns(decisive="Building first.", experiences=list(lessons), generalized_task="Publish a site")


def mistakes(*lessons: Lesson) -> Mistakes:
    return Mistakes(
        earliest_wrong_step="Upload.",
        trigger="Nothing was built.",
        experiences=list(lessons),
        generalized_task="Publish a site",
    )


def differences(*lessons: Lesson) -> Differences:
    return Differences(difference="It built first.", experiences=list(lessons), generalized_task="Publish a site")


def verdict(overall: Value) -> Verdict:
    criteria: dict[str, Any] = dict.fromkeys(("actionability", "accuracy", "relevance", "clarity", "uniqueness"), "yes")
    return Verdict(gist="Build first.", overall=overall, **criteria)


GOOD, WEAK = verdict("good"), verdict("weak")
