"""What the three tools take, wherever it comes from: a protocol, a file.

In:  JSON objects.
Out: checked arguments that know how to call the memory, or an `InvalidInput` that says what is wrong with which value.

Strict modes of clients make every property required, so that models fill in what they would leave out; other clients
add arguments of their own. Both are read as they are meant.

The descriptions are read by models: short, and only where the name does not say it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, WithJsonSchema

from reme_mcp.errors import InvalidInput
from reme_mcp.progress import Tell, ignore_progress
from reme_mcp.results import RateResult, RecallResult, RecordResult
from reme_mcp.schema import ExperienceDraft, Outcome, is_left_out

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory

SHOWN_CHARS = 60
SHOWN_NAMES = 8

Taken = TypeVar("Taken", bound="Arguments")


def _parsed(value: object) -> object:
    """Return a list that arrived as JSON text as a list: some clients send nested arguments so."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _parsed_texts(value: object) -> object:
    parsed = _parsed(value)
    return [item for item in parsed if not is_left_out(item)] if isinstance(parsed, list) else parsed


Objects = Annotated[list[object], BeforeValidator(_parsed)]
Texts = Annotated[list[str], BeforeValidator(_parsed_texts)]
Workspace = Annotated[str | None, Field(description="Pool; leave out for the configured one")]

# A client sees the shape of a draft; the gate checks each by itself, so that a bad one does not take the others along.
_DRAFT_SCHEMA = {key: value for key, value in ExperienceDraft.model_json_schema().items() if key != "description"}
_DRAFTS = WithJsonSchema({"type": "array", "items": _DRAFT_SCHEMA})
_MESSAGES = WithJsonSchema({"type": "array", "items": {"type": "object"}})


class Arguments(BaseModel):
    """What every tool's arguments have in common: what was left out is left out, however it was written."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # Of these, an empty list says something.
    empty_says: ClassVar[frozenset[str]] = frozenset()
    _passed_over: tuple[str, ...] = PrivateAttr(())

    @classmethod
    def read(cls: type[Taken], raw: Mapping[str, object]) -> Taken:
        """Return the arguments checked; one that a client has added is passed over, a slip in a name is not.

        Raises:
            InvalidInput: One line for each thing that is wrong.
        """
        given = {name: value for name, value in raw.items() if not cls._is_left_out(name, value)}
        added = [name for name, value in given.items() if cls._is_added(name, value)]
        try:
            arguments = cls.model_validate({name: value for name, value in given.items() if name not in added})
        except ValidationError as exc:
            raise InvalidInput("\n".join(cls._explain(error) for error in exc.errors(include_url=False))) from exc
        arguments._passed_over = tuple(added)
        return arguments

    @property
    def note(self) -> str:
        """What was passed over, in words; empty where nothing was."""
        if not self._passed_over:
            return ""
        shown = [name[:SHOWN_CHARS] or repr(name) for name in self._passed_over[:SHOWN_NAMES]]
        more = len(self._passed_over) - len(shown)
        names = ", ".join(shown) + (f" and {more} more" if more else "")
        return (
            f"Passed over, because there is no such argument: {names}. There are {', '.join(type(self).model_fields)}."
        )

    @classmethod
    def _is_left_out(cls, name: str, value: object) -> bool:
        field = cls.model_fields.get(name)
        if field is None or field.is_required():
            return False
        items = _parsed(value)
        if isinstance(items, list):
            return all(map(is_left_out, items)) if items else name not in cls.empty_says
        return is_left_out(value)

    @classmethod
    def _is_added(cls, name: str, value: object) -> bool:
        """Return whether a name that is none of ours was added by a client, rather than meant for one of ours."""
        if name in cls.model_fields:
            return False
        # Longer than any of ours with its slips.
        word = _folded(name[:SHOWN_CHARS])
        return not any(
            _slips(word, _folded(ours)) <= (2 if len(ours) > 5 else 1) and (not takes_list or _may_be_list(value))
            for ours, takes_list in _lists_among(cls).items()
        )

    @classmethod
    def _explain(cls, error: Mapping[str, Any]) -> str:
        name = ".".join(str(part) for part in error["loc"])[:SHOWN_CHARS]
        if error["type"] == "extra_forbidden":
            return f"{name}: no such argument; there are {', '.join(cls.model_fields)}"
        if error["type"] == "missing":
            return f"{name}: missing"
        message: str = error["msg"]
        return f"{name} = {repr(error['input'])[:SHOWN_CHARS]}: {message[:1].lower()}{message[1:]}"


@cache
def _lists_among(arguments: type[Arguments]) -> dict[str, bool]:
    """Return the name of each argument, and whether it takes a list."""
    properties = arguments.model_json_schema()["properties"]
    return {name: '"array"' in json.dumps(schema) for name, schema in properties.items()}


def _folded(name: str) -> str:
    """Return a name as it is compared with another: however its words are set apart."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _slips(word: str, other: str) -> int:
    """Return how many letters were left out, added, mistaken or exchanged with their neighbour between two words."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word):
        last, before, row = before, row, [i + 1]
        for j, wanted in enumerate(other):
            cost = min(before[j] + (letter != wanted), before[j + 1] + 1, row[j] + 1)
            if i and j and letter == other[j - 1] and word[i - 1] == wanted:
                cost = min(cost, last[j - 1] + 1)
            row.append(cost)
    return row[-1]


def _may_be_list(value: object) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and value.lstrip().startswith("["))


class RecallArguments(Arguments):
    """What `recall_experiences` takes."""

    task: Annotated[str, Field(description="The task, in the user's words")]
    context: Annotated[str | None, Field(description="Project, files, error text")] = None
    tools: Annotated[Texts | None, Field(description="Names of the tools you have")] = None
    limit: Annotated[int | None, Field(ge=1, le=20)] = None
    workspace: Workspace = None

    async def run(self, memory: Memory, *, source: str) -> RecallResult:
        """Recall."""
        return await memory.recall(
            self.task,
            context=self.context or "",
            tools=self.tools or (),
            limit=self.limit,
            workspace=self.workspace,
            source=source,
        )


class RecordArguments(Arguments):
    """What `record_trajectory` takes."""

    empty_says = frozenset(("experiences", "used"))

    task: Annotated[str, Field(description="The task, in the user's words")] = ""
    outcome: Outcome | None = None
    reward: Annotated[float | None, Field(ge=0, le=1, description="Instead of outcome; 1 is success")] = None
    steps: Annotated[str | None, Field(description="Summary of what was done, with the errors met")] = None
    messages: Annotated[
        Objects | None, _MESSAGES, Field(description="Instead of steps: the conversation, OpenAI or Anthropic shape")
    ] = None
    experiences: Annotated[Objects | None, _DRAFTS, Field(description="What to remember; [] if nothing")] = None
    receipt: Annotated[str | None, Field(description="From the recall used for this task")] = None
    used: Annotated[Texts | None, Field(description="Ids of recalled notes you acted on; [] if none")] = None
    misled: Annotated[Texts | None, Field(description="Ids of those that led you astray")] = None
    trajectory_id: Annotated[str | None, Field(description="With experiences only: the recorded trajectory")] = None
    workspace: Workspace = None

    async def run(self, memory: Memory, *, source: str, tell: Tell = ignore_progress) -> RecordResult:
        """Record."""
        return await memory.record(
            self.task,
            outcome=self.outcome,
            reward=self.reward,
            steps=self.steps,
            messages=self.messages,
            experiences=self.experiences,
            receipt=self.receipt,
            used=self.used,
            misled=self.misled or (),
            trajectory_id=self.trajectory_id,
            workspace=self.workspace,
            source=source,
            tell=tell,
        )


class RateArguments(Arguments):
    """What `rate_experience` takes."""

    experience_id: Annotated[str, Field(description="e-…")]
    helpful: bool
    receipt: Annotated[str | None, Field(description="r-…; leave out for your latest recall")] = None
    reason: str | None = None
    workspace: Workspace = None

    async def run(self, memory: Memory, *, source: str) -> RateResult:
        """Rate."""
        return await memory.rate(
            self.experience_id,
            helpful=self.helpful,
            receipt=self.receipt,
            reason=self.reason or "",
            workspace=self.workspace,
            source=source,
        )
