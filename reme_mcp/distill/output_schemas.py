"""The forms that the model behind the server fills in, and what its entries mean here.

In:  values of these pydantic models, read from a model's JSON.
Out: drafts as the gate takes them, numbers for words, an order of candidates.
Does not know: what was asked, or who answered.

Made for small models. They break number ranges, so a number is a word from a list; they run on, so every text and list
has a maximum; they think while they write, so a finding stands before the lessons and a gist before the values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Annotated, Literal

from pydantic import Field

from reme_mcp.models.question import Form
from reme_mcp.schema import Kind

MAX_SENTENCE_CHARS = 240
MAX_LESSON_CHARS = 600

Confidence = Literal["low", "medium", "high", "certain"]
Answer = Literal["no", "partly", "yes"]
Value = Literal["useless", "weak", "fair", "good", "excellent"]
# fmt: on
CONFIDENCES: dict[Confidence, float] = {"low": 0.3, "medium": 0.5, "high": 0.7, "certain": 0.9}
ACCEPTED: Collection[Value] = ("fair", "good", "excellent")

Sentence = Annotated[str, Field(max_length=MAX_SENTENCE_CHARS)]
Name = Annotated[str, Field(max_length=40)]


class Lesson(Form):
    """What a model proposes to remember."""

    when_to_use: Sentence
    content: Annotated[str, Field(max_length=MAX_LESSON_CHARS)]
    keywords: Annotated[list[Name], Field(max_length=5)]
    tools_used: Annotated[list[Name], Field(max_length=5)]
    confidence: Confidence


class Patterns(Form):
    """What is learned from a success."""

    decisive: Sentence
    experiences: Annotated[list[Lesson], Field(min_length=1, max_length=3)]
    generalized_task: Sentence


class Mistakes(Form):
    """What is learned from a failure."""

    earliest_wrong_step: Sentence
    trigger: Sentence
    experiences: Annotated[list[Lesson], Field(min_length=1, max_length=3)]
    generalized_task: Sentence


class Differences(Form):
    """What is learned from two attempts at one task."""

    difference: Sentence
    experiences: Annotated[list[Lesson], Field(min_length=1, max_length=2)]
    generalized_task: Sentence


class Verdict(Form):
    """What a judge says of one draft."""

    gist: Sentence
    actionability: Answer
    accuracy: Answer
    relevance: Answer
    clarity: Answer
    uniqueness: Answer
    overall: Value


def to_drafts(form: Patterns | Mistakes | Differences, kind: Kind, tools: tuple[str, ...]) -> list[dict[str, object]]:
    """Return the lessons of a form as raw drafts, in the shape in which an assistant would hand them in.

    Args:
        form: As a model filled it in.
        kind: Of what the lessons were learned from.
        tools: That were called; a model names others, too, and those are left out. "call ls" names the tool ls.
    """
    return [
        {
            "when_to_use": whole(lesson.when_to_use, MAX_SENTENCE_CHARS),
            "content": whole(lesson.content, MAX_LESSON_CHARS),
            "keywords": [word for word in dict.fromkeys(lesson.keywords) if word.strip()],
            "tools_used": [tool for tool in dict.fromkeys(tools) if any(map(_names(tool), lesson.tools_used))],
            "confidence": CONFIDENCES[lesson.confidence],
            "kind": kind,
            "generalized_task": whole(form.generalized_task, MAX_SENTENCE_CHARS),
        }
        for lesson in form.experiences
    ]


def whole(text: str, max_chars: int) -> str:
    """Return `text` without the sentence that a form's end cut off: a text as long as its form allows was cut."""
    text = text.strip()
    if len(text) < max_chars - 1 or text.endswith((".", "!", "?", "。")):
        return text
    end = max(text.rfind(mark) for mark in (". ", "! ", "? ", ".\n", "。"))
    return text[: end + 1] if end > 0 else f"{text[: max_chars - 2].rsplit(' ', 1)[0]} …"


def _names(tool: str) -> Callable[[str], bool]:
    return lambda text: text == tool or tool in re.findall(r"[\w.:/-]+", text)


def is_accepted(verdict: Verdict) -> bool:
    """Return whether a draft is good enough to be kept."""
    return verdict.overall in ACCEPTED


def summary(verdict: Verdict) -> str:
    """Return a verdict on one line: the overall value and that of each criterion."""
    values = verdict.model_dump(exclude={"gist", "overall"})
    return f"{verdict.overall} ({', '.join(f'{criterion} {value}' for criterion, value in values.items())})"
