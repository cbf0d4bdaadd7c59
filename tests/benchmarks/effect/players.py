"""Who plays a task: a model behind an OpenAI-compatible endpoint, or a script that proves the harness.

In:  the conversation so far, the tools at hand, what memory said at the start.
Out: the next calls, or none where the turn is over; lessons, where the player writes them itself.
Does not know: whether the task is solved, where notes come from.

A model's text is parsed as JSON and never evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.benchmarks.effect.tasks import Call, Task

SYSTEM = (
    "You work for a user by calling tools. Call the tools that the request needs, with the values that the user gave, "
    "and nothing else. When the request is done, answer in one sentence without a call. Ask nothing back."
)


@dataclass(slots=True)
class Turn:
    """One answer of a player; `is_unreadable` where it meant to call a tool, and nothing can be made of it."""

    text: str = ""
    calls: Sequence[Call] = ()
    tokens: int = 0
    raw_calls: list[dict[str, Any]] = field(default_factory=list)
    is_unreadable: bool = False


class Player(Protocol):
    """Plays a task, a step at a time."""

    async def act(
        self, task: Task, turn: int, step: int, seed: int, messages: Sequence[Mapping[str, Any]], notes: str
    ) -> Turn:
        """Return what to do next in this turn; no calls ends it."""

    def lessons(self, task: Task, *, solved: bool) -> list[dict[str, object]] | None:
        """Return the lessons of an attempt; `None` where the server's own model writes them."""


class Scripted:
    """Plays the solution, unless what it is made to depend on says otherwise."""

    def lessons(self, task: Task, *, solved: bool) -> list[dict[str, object]] | None:
        """Return the lesson that the task's author wrote, from a failure only."""
        if solved or not task.lesson:
            return []
        return [{"when_to_use": f"When the task is like this: {task.kind}", "content": task.lesson, "confidence": 0.9}]

    async def act(
        self, task: Task, turn: int, step: int, seed: int, messages: Sequence[Mapping[str, Any]], notes: str
    ) -> Turn:
        """Return the solution's calls of this turn, all at once."""
        return Turn("done", task.solution[turn] if step == 0 and self.plays(task, turn, notes) else (), tokens=1)

    def plays(self, task: Task, turn: int, notes: str) -> bool:
        """Return whether it plays this turn."""
        return True


class Oracle(Scripted):
    """Plays every solution."""


class WithoutTheEnd(Scripted):
    """Leaves the last turn out in which there is something to do."""

    def plays(self, task: Task, turn: int, notes: str) -> bool:
        """Return whether the turn is not the last one with calls."""
        return turn != max((place for place, calls in enumerate(task.solution) if calls), default=-1)


class NeedsLesson(Scripted):
    """Solves a task only with the lesson of its kind before it."""

    def plays(self, task: Task, turn: int, notes: str) -> bool:
        """Return whether the notes hold the lesson."""
        return task.lesson in notes


class MisledByNotes(Scripted):
    """Solves a task unless notes of another kind stand before it: harm that has to be counted."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._lessons = {task.kind: task.lesson for task in tasks}

    def lessons(self, task: Task, *, solved: bool) -> list[dict[str, object]] | None:
        """Return the lesson in any case."""
        return super().lessons(task, solved=False)

    def plays(self, task: Task, turn: int, notes: str) -> bool:
        """Return whether no note is about another kind."""
        return not any(lesson in notes for kind, lesson in self._lessons.items() if kind != task.kind)


class Endpoint:
    """A model behind an OpenAI-compatible endpoint."""

    def __init__(self, base_url: str, model: str, api_key: str, *, temperature: float, max_tokens: int) -> None:
        import openai

        self._client = openai.AsyncOpenAI(base_url=base_url, api_key=api_key or "none", timeout=1_800, max_retries=3)
        self._model = model
        self._temperature = temperature
        self._max_tokens = max_tokens

    def lessons(self, task: Task, *, solved: bool) -> list[dict[str, object]] | None:
        """Return `None`: the server distils with the same model."""
        return None

    async def act(
        self, task: Task, turn: int, step: int, seed: int, messages: Sequence[Mapping[str, Any]], notes: str
    ) -> Turn:
        """Ask the model."""
        asked: Any = with_notes(messages, notes)
        completion: Any = await self._client.chat.completions.create(
            model=self._model,
            messages=asked,
            tools=list(task.tools[turn]),  # type: ignore[arg-type]  # they come from files
            temperature=self._temperature,
            max_tokens=self._max_tokens,
            seed=seed,
        )
        message = completion.choices[0].message
        text = message.content or ""
        found = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]
        if not found and (found := written_calls(text)):
            # They stand among its calls from now on; told twice, a small model says everything twice.
            text = ""
        raw, calls = [], []
        for id, name, arguments in found:
            raw.append({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
            calls.append(Call(name, _object(arguments)))
        tokens = completion.usage.total_tokens if completion.usage else 0
        is_unreadable = not calls and '"name"' in text and '"arguments"' in text
        return Turn(text, calls, tokens, raw, is_unreadable)


def with_notes(messages: Sequence[Mapping[str, Any]], notes: str) -> list[Mapping[str, Any]]:
    """Return the conversation with the notes before the first thing that the user says."""
    if not notes:
        return list(messages)
    system, first, *rest = messages
    return [system, {**first, "content": f"Notes from earlier work:\n{notes}\n\n{first['content']}"}, *rest]


def written_calls(text: str) -> list[tuple[str, str, str]]:
    """Return the calls that a model wrote into its text as JSON: id, name, arguments as JSON.

    Small models know the protocol's calls only roughly: they write them between tags, in a fence, one after the other,
    or with a brace too many. An object that has a name and arguments is a call, wherever it stands.
    """
    found: list[tuple[str, str, str]] = []
    reader = json.JSONDecoder()
    place = text.find("{")
    while place >= 0:
        try:
            value, end = reader.raw_decode(text, place)
        except ValueError:
            value, end = None, place + 1
        if isinstance(value, dict) and isinstance(value.get("name"), str) and isinstance(value.get("arguments"), dict):
            found.append((f"written-{len(found)}", value["name"], json.dumps(value["arguments"])))
        place = text.find("{", end)
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
