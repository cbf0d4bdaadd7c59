"""Tasks with tools that are executed for real, and the check that says whether one was solved.

In:  a file in our own small format, or BFCL-V3 multi-turn as the package `bfcl-eval` carries it.
Out: `Task`s: what the user says turn by turn, the tools, the solution; a fresh `World` for each trial.
Does not know: who plays, or what is remembered.

A call is a name and JSON arguments, dispatched by name to a public method; nothing that a model wrote is evaluated. The
solutions of BFCL are Python calls with literal arguments; they are parsed, not run as code.

Our own format, one JSON object:

    {"tools": [{"name", "description", "parameters": JSON schema, "needs": {state: value}, "sets": {state: value}}],
     "tasks": [{"id", "kind", "turns": [text], "solution": [[{"name", "arguments"}]], "lesson": text}]}

A tool fails while the world's state lacks one of its `needs`, and says only that it failed; else it changes `sets`. In
`sets`, "$NAME" stands for the argument of that name.

Source: BFCL-V3 multi-turn (Berkeley Function Calling Leaderboard), whose rule is repeated here: after each turn the
state equals that of the solution, and the results of all calls so far hold those of the solution's calls of that turn.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

BFCL_CATEGORIES = ("base", "long_context", "miss_func", "miss_param")
# What BFCL says when it hands out a tool that was held back so far.
NEW_TOOLS = "I have updated some more functions you can choose from. What about now?"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: Mapping[str, Any]


class World(Protocol):
    """The state that the tools of one trial work on."""

    def call(self, call: Call) -> str:
        """Execute one call and return what it answers; an error is an answer, too."""

    def state(self) -> object:
        """Return what the solution's state is compared with."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    Attributes:
        id: Unique in its set.
        kind: Tasks of one kind need the same lesson; only scripted players know it.
        turns: What the user says, in order.
        tools: For each turn, the tools at hand, in the shape of OpenAI's `tools`.
        solution: For each turn, the calls that solve it.
        lesson: What a scripted player would learn; empty where nobody wrote it.
        start: Makes a fresh world.
        by_state: Whether the state at the end alone decides, and not what was answered on the way.
        about: What memory is asked for, where it is not all that the user says.
    """

    id: str
    kind: str
    turns: tuple[str, ...]
    tools: tuple[tuple[Mapping[str, Any], ...], ...]
    solution: tuple[tuple[Call, ...], ...]
    lesson: str
    start: Callable[[], World]
    by_state: bool = False
    about: str = ""

    @property
    def text(self) -> str:
        """The task as one would say it: all that the user asks for."""
        return self.about or "\n".join(self.turns)


def is_solved(task: Task, played: Sequence[Sequence[Call]]) -> bool:
    """Return whether the calls of each turn did what the solution's do.

    Args:
        task: The task.
        played: For each turn, the calls that were made in it.
    """
    world, ideal = task.start(), task.start()
    if task.by_state:
        for at, turns in ((world, played), (ideal, task.solution)):
            for call in (call for calls in turns for call in calls):
                at.call(call)
        return world.state() == ideal.state()
    answers: list[str] = []
    for turn, solution in enumerate(task.solution):
        calls = played[turn] if turn < len(played) else ()
        answers += [world.call(call) for call in calls]
        wanted = [ideal.call(call) for call in solution]
        if not solution:
            # Nothing can be done in this turn; calls in it are seen in the state after the next.
            continue
        if not calls or world.state() != ideal.state() or not _holds(answers, wanted):
            return False
    return True


def _holds(answers: Sequence[str], wanted: Sequence[str]) -> bool:
    left = list(answers)
    for answer in wanted:
        if answer not in left:
            return False
        left.remove(answer)
    return True


# --- our own small format ---


class Bench:
    """A world of named states that tools need and set."""

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self._tools = tools
        self._state: dict[str, object] = {}

    def call(self, call: Call) -> str:
        """Execute one call."""
        tool = self._tools.get(call.name)
        if tool is None:
            return f"Error: there is no tool {call.name}"
        if any(self._state.get(name) != value for name, value in tool.get("needs", {}).items()):
            return f"Error: {call.name} failed"
        for name, value in tool.get("sets", {}).items():
            is_argument = isinstance(value, str) and value.startswith("$")
            self._state[name] = call.arguments.get(value[1:]) if is_argument else value
        return "done"

    def state(self) -> object:
        """Return all states."""
        return dict(self._state)


def read_tasks(file: Path) -> list[Task]:
    """Return the tasks of a file in our own format."""
    content = json.loads(file.read_text(encoding="utf-8"))
    tools = {tool["name"]: tool for tool in content["tools"]}
    shown = tuple(_shown(tool["name"], tool["description"], tool["parameters"]) for tool in content["tools"])
    return [
        Task(
            id=one["id"],
            kind=one["kind"],
            turns=tuple(one["turns"]),
            tools=(shown,) * len(one["turns"]),
            solution=tuple(tuple(Call(c["name"], c["arguments"]) for c in turn) for turn in one["solution"]),
            lesson=one["lesson"],
            start=lambda: Bench(tools),
        )
        for one in content["tasks"]
    ]


def _shown(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


# --- BFCL ---


class Backends:
    """The tool backends of BFCL that one task involves."""

    def __init__(self, instances: Mapping[str, object]) -> None:
        self._instances = instances
        self._methods: dict[str, tuple[object, Callable[..., object]]] = {}
        for instance in instances.values():
            for name, method in inspect.getmembers(instance, predicate=inspect.ismethod):
                if not name.startswith("_"):
                    self._methods[name] = (instance, method)

    def call(self, call: Call) -> str:
        """Execute one call by the name of its method; whatever a backend raises is what it answers."""
        found = self._methods.get(call.name)
        if found is None:
            return f"Error during execution: there is no tool {call.name}"
        try:
            result = found[1](**call.arguments)
        except Exception as exc:  # noqa: BLE001  BFCL's backends answer wrong arguments with errors of every kind
            return f"Error during execution: {exc}"
        if isinstance(result, str):
            return result
        try:
            return json.dumps(result) if isinstance(result, dict) else str(result)
        except TypeError:
            return str(result)

    def signature(self, name: str) -> inspect.Signature:
        """Return what a tool takes."""
        return inspect.signature(self._methods[name][1])

    def state(self) -> object:
        """Return the public attributes of every backend."""
        return {
            name: {key: value for key, value in vars(instance).items() if not key.startswith("_")}
            for name, instance in self._instances.items()
        }


def read_bfcl(folder: Path, categories: Sequence[str] = ("base",)) -> list[Task]:
    """Return the tasks of BFCL-V3 multi-turn.

    Args:
        folder: Where `pip install --no-deps --target FOLDER bfcl-eval` put it.
        categories: Of `BFCL_CATEGORIES`; 200 tasks each.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    config: Any = importlib.import_module("bfcl_eval.constants.executable_backend_config")
    data = folder / "bfcl_eval" / "data"
    docs = {
        name: [_parameters(doc) for doc in _lines(data / "multi_turn_func_doc" / file)]
        for name, file in config.MULTI_TURN_FUNC_DOC_FILE_MAPPING.items()
        if name in config.CLASS_FILE_PATH_MAPPING and (data / "multi_turn_func_doc" / file).exists()
    }
    tasks = []
    for category in categories:
        file = f"BFCL_v4_multi_turn_{category}.json"
        answers = {one["id"]: one["ground_truth"] for one in _lines(data / "possible_answer" / file)}
        tasks += [_bfcl_task(one, answers[one["id"]], docs, config) for one in _lines(data / file)]
    return tasks


def _bfcl_task(one: Mapping[str, Any], answers: Sequence[Sequence[str]], docs: Mapping[str, Any], config: Any) -> Task:
    classes = one["involved_classes"]

    def start() -> Backends:
        instances = {}
        for name in classes:
            instance = getattr(importlib.import_module(config.CLASS_FILE_PATH_MAPPING[name]), name)()
            if name not in config.STATELESS_CLASSES:
                scenario = copy.deepcopy(one["initial_config"].get(name, {}))
                instance._load_scenario(scenario, long_context="long_context" in one["id"])
            instances[name] = instance
        return Backends(instances)

    world = start()
    solution = tuple(tuple(_call(text, world) for text in turn) for turn in answers)
    held_back = {int(turn): names for turn, names in one.get("missed_function", {}).items()}
    tools = []
    for turn in range(len(one["question"])):
        missing = {name for when, names in held_back.items() if when > turn for name in names}
        missing |= set(one.get("excluded_function", ()))
        tools.append(tuple(doc for name in classes for doc in docs[name] if doc["function"]["name"] not in missing))
    said = [" ".join(message["content"] for message in turn) or NEW_TOOLS for turn in one["question"]]
    used = sorted({call.name for turn in solution for call in turn})
    return Task(one["id"], " ".join(used), tuple(said), tuple(tools), solution, "", start)


def _call(text: str, world: Backends) -> Call:
    """Return the call that a line of BFCL's solutions says; its arguments are literals."""
    node = ast.parse(text.strip(), mode="eval").body
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"{text!r} is no call")
    given = [ast.literal_eval(argument) for argument in node.args]
    named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
    return Call(node.func.id, dict(world.signature(node.func.id).bind(*given, **named).arguments))


def _parameters(doc: Mapping[str, Any]) -> dict[str, Any]:
    return _shown(doc["name"], doc["description"], _schema(doc["parameters"]))


def _schema(value: Any) -> Any:
    """Return BFCL's schema as a JSON schema: it names two types as Python does."""
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    named = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
    return {
        key: named.get(item, item) if key == "type" and isinstance(item, str) else _schema(item)
        for key, item in value.items()
    }


def _lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
