"""What the model behind the server is asked: to distil, to judge, to order and to rewrite.

In:  trajectories, drafts, recalled experiences; the model as `llm.LLM`.
Out: drafts that passed the judge, the others with a reason; an order; advice. What goes wrong with the model is raised.
Does not know: the store, the queue, or what happens to a draft afterwards.

Source: ReMe (arXiv 2512.10696, §3.1): distillation of successes, failures and comparisons, and validation.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from reme_mcp import distill, excerpt, prompts
from reme_mcp.budget import shorten, tokens
from reme_mcp.config import LLMSettings
from reme_mcp.distill import NamedDraft
from reme_mcp.llm import LLM, prompt_tokens
from reme_mcp.schema import Experience, Kind, Rejected, Trajectory
from reme_mcp.transcript import from_json
from reme_mcp.words import mostly_latin

TASK_TOKENS = 600
NOTE_TOKENS = 150
MAX_LESSONS = 3
MAX_INSIGHTS = 2
# More than these two the prompt does not need to hold to be of use.
MIN_ATTEMPT_TOKENS = 100

CONFIDENCE = {"low": 0.3, "medium": 0.6, "high": 0.9}
GRADES = {"poor": 0.0, "fair": 1 / 3, "good": 2 / 3, "excellent": 1.0}

# --- the forms that a model fills in; small ones break ranges and run on, so that all is enumerated or bounded ---

Grade = Literal["poor", "fair", "good", "excellent"]
Word = Annotated[str, Field(max_length=40)]


class Lesson(BaseModel):
    """An experience as a model writes it."""

    when_to_use: Annotated[str, Field(max_length=300)]
    content: Annotated[str, Field(max_length=900)]
    generalized_task: Annotated[str, Field(max_length=200)]
    keywords: Annotated[list[Word], Field(max_length=6)]
    tools_used: Annotated[list[Word], Field(max_length=6)]
    confidence: Literal["low", "medium", "high"]


class Lessons(BaseModel):
    """What one attempt teaches."""

    lessons: Annotated[list[Lesson], Field(max_length=MAX_LESSONS)]


class Insights(BaseModel):
    """What the comparison of two attempts teaches."""

    lessons: Annotated[list[Lesson], Field(max_length=MAX_INSIGHTS)]


class Verdict(BaseModel):
    """What the judge thinks of a draft."""

    reason: Annotated[str, Field(max_length=300)]
    actionability: Grade
    accuracy: Grade
    relevance: Grade
    clarity: Grade
    uniqueness: Grade

    @property
    def mean(self) -> float:
        """The mean of the five grades, 0 to 1."""
        return sum(GRADES[grade] for grade in self._grades.values()) / len(self._grades)

    @property
    def _grades(self) -> dict[str, Grade]:
        return {
            "actionability": self.actionability,
            "accuracy": self.accuracy,
            "relevance": self.relevance,
            "clarity": self.clarity,
            "uniqueness": self.uniqueness,
        }

    def __str__(self) -> str:
        grades = ", ".join(f"{name} {grade}" for name, grade in self._grades.items())
        return f"the judge gave {self.mean:.2f} ({grades}): {self.reason}"


class Order(BaseModel):
    """Numbers of notes, the most helpful first."""

    numbers: Annotated[list[int], Field(max_length=20)]


class Advice(BaseModel):
    """Recalled notes made into advice for one task."""

    advice: Annotated[str, Field(max_length=2_000)]


# --- what is asked ---


class Distiller:
    """The model behind the server, with its settings."""

    def __init__(self, llm: LLM, name: str, settings: LLMSettings) -> None:
        self._llm = llm
        self._name = name
        self._settings = settings

    async def distil(
        self, trajectory: Trajectory, attempts: Sequence[Trajectory]
    ) -> tuple[list[NamedDraft], list[Rejected]]:
        """Return what an attempt teaches, and what it teaches beside earlier ones at the same task; nothing is judged.

        Args:
            trajectory: The attempt.
            attempts: Earlier ones at the same task, newest first.

        Raises:
            EndpointError: The model can't be reached, refuses, or gave no answer that can be used.
        """
        system = prompts.DISTIL_SUCCESS if trajectory.outcome == "success" else prompts.DISTIL_FAILURE
        own = await self._llm.answer("distill", system, self._attempts_text([trajectory], system, Lessons), Lessons)
        found: list[tuple[Kind, Lesson]] = [(trajectory.outcome, lesson) for lesson in own.lessons]
        if pair := pair_to_compare(trajectory, attempts):
            text = self._attempts_text(pair, prompts.DISTIL_COMPARISON, Insights)
            both = await self._llm.answer("distill", prompts.DISTIL_COMPARISON, text, Insights)
            found += [("comparative", lesson) for lesson in both.lessons]
        raw = [_draft(lesson, kind) for kind, lesson in found]
        drafts, rejected = distill.read_drafts(raw, max_drafts=MAX_LESSONS + MAX_INSIGHTS)
        kept: list[NamedDraft] = []
        for one in drafts:
            if problem := distill.not_a_lesson(one.draft, latin=mostly_latin(trajectory.task)):
                rejected.append(_refused(one, problem))
            else:
                kept.append(replace(one, author=self._name))
        return kept, rejected

    async def judge(
        self, trajectory: Trajectory, draft: NamedDraft, neighbours: Sequence[Experience], *, threshold: float
    ) -> NamedDraft | Rejected:
        """Return the draft as accepted, or why it is not.

        Args:
            trajectory: That it was learned from.
            draft: What somebody wrote.
            neighbours: What the pool holds about the same.
            threshold: The least mean of the grades, 0 to 1; reaching it is enough.

        Raises:
            EndpointError: As `distil`. A verdict that can't be read is no acceptance.
        """
        mark = secrets.token_hex(4)
        lesson = prompts.record_of("lesson", f"When: {draft.draft.when_to_use}\n{draft.draft.content}", mark)
        known = prompts.record_of("kept lessons", _numbered(neighbours) or "none", mark)
        room = self._room(prompts.JUDGE, Verdict) - tokens(lesson) - tokens(known)
        attempt = _attempt_text(trajectory, max(MIN_ATTEMPT_TOKENS, room), mark)
        verdict = await self._llm.answer("judge", prompts.JUDGE, f"{attempt}\n\n{known}\n\n{lesson}", Verdict)
        if verdict.mean < threshold:
            return _refused(draft, str(verdict))
        return replace(draft, judged=True)

    async def rerank(self, task: str, experiences: Sequence[Experience]) -> list[Experience]:
        """Return those of the experiences that help with the task, the most helpful first.

        Raises:
            EndpointError: As `distil`.
        """
        text = self._notes_text(task, experiences, prompts.RERANK, Order)
        order = await self._llm.answer("rerank", prompts.RERANK, text, Order)
        places = dict.fromkeys(number - 1 for number in order.numbers if 1 <= number <= len(experiences))
        return [experiences[place] for place in places]

    async def rewrite(self, task: str, experiences: Sequence[Experience]) -> str:
        """Return the experiences as advice for the task.

        Raises:
            EndpointError: As `distil`.
        """
        text = self._notes_text(task, experiences, prompts.REWRITE, Advice)
        return (await self._llm.answer("rewrite", prompts.REWRITE, text, Advice)).advice

    def _room(self, system: str, shape: type[BaseModel]) -> int:
        return prompt_tokens(self._settings, shape) - tokens(system)

    def _attempts_text(self, attempts: Sequence[Trajectory], system: str, shape: type[BaseModel]) -> str:
        mark = secrets.token_hex(4)
        room = max(MIN_ATTEMPT_TOKENS, self._room(system, shape) // len(attempts))
        return "\n\n".join(_attempt_text(attempt, room, mark) for attempt in attempts)

    def _notes_text(self, task: str, experiences: Sequence[Experience], system: str, shape: type[BaseModel]) -> str:
        mark = secrets.token_hex(4)
        asked = prompts.record_of("task", shorten(task, TASK_TOKENS), mark)
        notes = shorten(_numbered(experiences), max(MIN_ATTEMPT_TOKENS, self._room(system, shape) - tokens(asked)))
        return f"{prompts.record_of('notes', notes, mark)}\n\n{asked}"


def pair_to_compare(trajectory: Trajectory, attempts: Sequence[Trajectory]) -> tuple[Trajectory, Trajectory] | None:
    """Return the best and the worst attempt at a task, or `None` where all ended alike; of equal ones the latest.

    Args:
        trajectory: The latest attempt.
        attempts: Earlier ones, newest first.
    """
    every = [trajectory, *(attempt for attempt in attempts if attempt.id != trajectory.id)]
    best = max(every, key=lambda attempt: attempt.reward)
    worst = min(every, key=lambda attempt: attempt.reward)
    # Earlier attempts were compared among themselves when they came.
    if best.reward == worst.reward or trajectory not in (best, worst):
        return None
    return best, worst


def _attempt_text(trajectory: Trajectory, max_tokens: int, mark: str) -> str:
    """Return an attempt between marks, its steps cut to what is left of `max_tokens`."""
    ended = f"It ended in {trajectory.outcome} (reward {trajectory.reward:g})."
    head = f"Task: {shorten(trajectory.task, TASK_TOKENS)}\n{ended}"
    if not trajectory.transcript:
        return prompts.record_of("attempt", f"{head}\nIts steps were not recorded.", mark)
    steps = excerpt.without_notes(from_json(trajectory.transcript))
    left = max(0, max_tokens - tokens(prompts.record_of("attempt", head, mark)) - 1)
    return prompts.record_of("attempt", f"{head}\n\n{excerpt.fit(steps, left)}", mark)


def _numbered(experiences: Sequence[Experience]) -> str:
    return "\n".join(
        f"{number}. When: {shorten(one.when_to_use, NOTE_TOKENS)} Do: {shorten(one.content, NOTE_TOKENS)}"
        for number, one in enumerate(experiences, start=1)
    )


def _draft(lesson: Lesson, kind: Kind) -> dict[str, object]:
    return {
        **lesson.model_dump(exclude={"confidence"}),
        "keywords": [word for word in lesson.keywords if word.strip()],
        "tools_used": [tool for tool in lesson.tools_used if tool.strip()],
        "confidence": CONFIDENCE[lesson.confidence],
        "kind": kind,
    }


def _refused(draft: NamedDraft, reason: str) -> Rejected:
    """Return a draft that is not stored; it is kept with its trajectory."""
    return Rejected(when_to_use=draft.draft.when_to_use[: distill.SHOWN_CHARS], reason=reason)
