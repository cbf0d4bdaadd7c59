"""A month of mixed work: how many of the notes that a recall hands out are about something else.

In:  a file, one JSON object a line. A task is `{"half", "field", "language", "task", "right", "lessons"}`: `lessons`
     are what it leaves, each `{"note", "when_to_use", "content", "keywords"}`; `right` names the notes of earlier tasks
     that are right for it, mostly none. A question that no note answers is `{"off_topic", "task"}`, with its kind.
Out: `Precision` values: what was handed out, right or wrong, by half.

The memory explains what it would hand out for a task before the task's lessons are recorded, in one pool that grows;
off-topic questions come last, when it is full.

Both months are text of our own, and the numbers of the floor were tuned on half A of both. `month.jsonl` is a month as
people work: 123 tasks of thirteen fields in six languages, half of which come back with other words, names and
projects, some in another language. It was written, and every note labelled that is right, before any rule was tried on
it; 57 tasks have 110 right notes. `month_hard.jsonl` has 82 tasks, most of which come back in a paraphrase without a
word in common, next to notes of the same field that are wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.models.service import LoadEmbedder
from tests.benchmarks import report

BUILT_IN = Path(__file__).with_name("month.jsonl")
HARD = Path(__file__).with_name("month_hard.jsonl")


@dataclass(frozen=True, slots=True)
class Task:
    """One task of the month: which earlier notes are right for it, and the drafts that it leaves, by note."""

    half: str
    field: str
    language: str
    text: str
    right: frozenset[str]
    lessons: Mapping[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Month:
    """Tasks in their order, and by their kind the questions that no note answers."""

    tasks: Sequence[Task]
    off_topic: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Handed:
    """What one task was handed, best first, and what was right.

    Attributes:
        task: Which.
        notes: By the floor.
        ranked: Without a floor: the first of the ranking, as many as a recall hands out at most.
    """

    task: Task
    notes: Sequence[str]
    ranked: Sequence[str]

    @property
    def right(self) -> list[str]:
        """Those that are right for it."""
        return [note for note in self.notes if note in self.task.right]


@dataclass(frozen=True, slots=True)
class Precision:
    """How one half of the month went; shares are 0 to 1.

    Attributes:
        right_notes: How many right ones there are.
        handed_right: Those of them that were handed out; `handed_wrong` are all others that were.
        precision: Of what was handed out, the right ones.
        only_wrong: Recalls that handed out nothing but wrong ones, of all recalls.
        first: Tasks that got a right one first, of those that have one.
        kept: Of the right ones that the ranking without a floor hands out, or that another run did, those handed out.
    """

    month: str
    system: str
    half: str
    recalls: int
    right_notes: int
    handed_right: int
    handed_wrong: int
    wrong_per_recall: float
    precision: float
    only_wrong: float
    first: float
    kept: float


def read_month(path: Path) -> Month:
    """Return the month that a file holds.

    Raises:
        ValueError: A line is not what it should be, or a task has a right note that no earlier task left.
    """
    tasks: list[Task] = []
    off_topic: dict[str, list[str]] = {}
    notes: set[str] = set()
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line)
                if "off_topic" in value:
                    off_topic.setdefault(value["off_topic"], []).append(value["task"])
                    continue
                task = _task(value)
            except (ValueError, TypeError, KeyError, AttributeError) as exc:
                raise ValueError(f"{path}, line {number}: {exc!r}") from exc
            if unknown := task.right - notes:
                raise ValueError(f"{path}, line {number}: no earlier task left {', '.join(sorted(unknown))}")
            tasks.append(task)
            notes |= set(task.lessons)
    return Month(tasks, off_topic)


def _task(value: dict[str, Any]) -> Task:
    lessons = {one["note"]: {name: part for name, part in one.items() if name != "note"} for one in value["lessons"]}
    return Task(value["half"], value["field"], value["language"], value["task"], frozenset(value["right"]), lessons)


async def measure(
    month: Month,
    folder: Path,
    systems: Mapping[str, EmbedderSettings],
    load: LoadEmbedder,
    before: Mapping[str, Mapping[str, Sequence[str]]],
    *,
    name: str,
    show: int = 0,
) -> dict[str, Any]:
    """Play a month to every system, print how it went, and return it for a JSON file.

    Args:
        month: Which one.
        folder: Exists; the homes are made in there.
        systems: Their embedders, by name.
        load: Loads an embedder.
        before: What an earlier run says that each system handed out, by system and task.
        name: Of the month.
        show: How many of its last recalls are printed, those of the half that was not tuned on.
    """
    halves: list[Precision] = []
    answered: dict[str, dict[str, int]] = {}
    handed: dict[str, list[Handed]] = {}
    for system, embedder in systems.items():
        settings = Settings(home=str(folder / f"{name}-{system}"), embedder=embedder)
        async with Memory.open(settings, load=load) as memory:
            await memory.warm_up(download=False, work=False)
            handed[system], answered[system] = await play_month(memory, month)
        names = dict.fromkeys(task.half for task in month.tasks)
        halves += [precision_of(name, system, half, handed[system], before.get(system)) for half in names]
    _show(name, month, halves, answered)
    for system, found in handed.items():
        _show_recalls(
            month, f"{name}, {system}", [one for one in found if one.task.half == "B"][-show:] if show else []
        )
    return {
        "halves": [asdict(one) for one in halves],
        "off_topic": {kind: len(questions) for kind, questions in month.off_topic.items()},
        "answered": answered,
        "handed": {system: {one.task.text: list(one.notes) for one in found} for system, found in handed.items()},
    }


def _show(name: str, month: Month, halves: Sequence[Precision], answered: Mapping[str, Mapping[str, int]]) -> None:
    columns = ["system", "half", "recalls", "right", "handed right", "wrong", "wrong a recall", "precision@5"]
    columns += ["only wrong", "right first", "kept"]
    rows = [
        [
            one.system,
            one.half,
            *(str(count) for count in (one.recalls, one.right_notes, one.handed_right, one.handed_wrong)),
            *(f"{share:.2f}" for share in (one.wrong_per_recall, one.precision, one.only_wrong, one.first, one.kept)),
        ]
        for one in halves
    ]
    report.show(f"{name}: a month of mixed work", columns, rows)
    if not month.off_topic:
        return
    kinds = {kind: len(questions) for kind, questions in month.off_topic.items()}
    rows = [
        [system, *(f"{found[kind]} of {count}" for kind, count in kinds.items())] for system, found in answered.items()
    ]
    report.show("Off-topic questions that got anything", ("system", *kinds), rows)


def _show_recalls(month: Month, title: str, recalls: Sequence[Handed]) -> None:
    """Print recalls as text: what the ranking alone would hand out, and what the floor lets pass."""
    scenarios = {note: lesson["when_to_use"] for task in month.tasks for note, lesson in task.lessons.items()}
    for number, one in enumerate(recalls, start=1):
        print(f"\n{title}, recall {number}: {one.task.text}")
        for note in dict.fromkeys([*one.ranked, *one.notes]):
            verdict = "right" if note in one.task.right else "wrong"
            print(f"  {'handed out' if note in one.notes else 'held back ':10}  {verdict}  {scenarios[note]}")


async def play_month(memory: Memory, month: Month) -> tuple[list[Handed], dict[str, int]]:
    """Play a month to an empty memory.

    Returns:
        What each task was handed, and how many off-topic questions of each kind got anything.
    """
    handed: list[Handed] = []
    names: dict[str, str] = {}
    for task in month.tasks:
        found = (await memory.explain(task.text)).experiences
        ranked = sorted(found, key=lambda one: -one.numbers.ranking)[: memory.settings.recall.limit]
        notes = [names[one.id] for one in found if one.rule == "handed_out"]
        handed.append(Handed(task, notes, [names[one.id] for one in ranked]))
        drafts = list(task.lessons.values())
        done = await memory.record(task.text, outcome="success", experiences=drafts, source="benchmark")
        if len(done.added) < len(drafts):
            raise ValueError(f"{task.text!r}: {done.rejected or done.merged or done.quarantined}")
        names |= dict(zip(done.added, task.lessons, strict=True))
    answered = {
        kind: sum([await _is_answered(memory, question) for question in questions])
        for kind, questions in month.off_topic.items()
    }
    return handed, answered


async def _is_answered(memory: Memory, question: str) -> bool:
    return any(one.rule == "handed_out" for one in (await memory.explain(question)).experiences)


def precision_of(
    month: str, system: str, half: str, handed: Sequence[Handed], before: Mapping[str, Sequence[str]] | None = None
) -> Precision:
    """Return how a half went.

    Args:
        month: Its name.
        system: Its name.
        half: Which.
        handed: What all tasks were handed.
        before: The notes that another run handed out, by task; without it, what the ranking alone hands out.
    """
    ours = [one for one in handed if one.task.half == half]
    right = sum(len(one.right) for one in ours)
    total = sum(len(one.notes) for one in ours)
    with_right = [one for one in ours if one.task.right]
    earlier = [
        (one, note)
        for one in ours
        for note in (one.ranked if before is None else before.get(one.task.text, ()))
        if note in one.task.right
    ]
    return Precision(
        month=month,
        system=system,
        half=half,
        recalls=len(ours),
        right_notes=sum(len(one.task.right) for one in ours),
        handed_right=right,
        handed_wrong=total - right,
        wrong_per_recall=(total - right) / max(1, len(ours)),
        precision=right / max(1, total),
        only_wrong=sum(bool(one.notes) and not one.right for one in ours) / max(1, len(ours)),
        first=sum(one.notes[:1] == one.right[:1] != [] for one in with_right) / max(1, len(with_right)),
        kept=sum(note in one.notes for one, note in earlier) / max(1, len(earlier)),
    )
