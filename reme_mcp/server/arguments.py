"""What the three tools take, wherever it comes from: a protocol, a file.

In:  JSON objects.
Out: checked arguments that know how to call the memory, or an `InvalidInput` that says what is wrong with which value.

The descriptions are read by models: short, and only where the name does not say it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from reme_mcp.errors import InvalidInput
from reme_mcp.memory.memory import Memory, Tell, ignore_progress
from reme_mcp.schema import ExperienceDraft, Outcome, RateResult, RecallResult, RecordResult

SHOWN_CHARS = 60

Taken = TypeVar("Taken", bound="Arguments")


def _parsed(value: object) -> object:
    """Return a list that arrived as JSON text as a list: some clients send nested arguments so."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


Objects = Annotated[list[object], BeforeValidator(_parsed)]
Texts = Annotated[list[str], BeforeValidator(_parsed)]
Workspace = Annotated[str | None, Field(description="Pool; leave out for the configured one")]

# A client sees the shape of a draft; the gate checks each by itself, so that a bad one does not take the others along.
_DRAFT_SCHEMA = {key: value for key, value in ExperienceDraft.model_json_schema().items() if key != "description"}
_DRAFTS = WithJsonSchema({"type": "array", "items": _DRAFT_SCHEMA})
_MESSAGES = WithJsonSchema({"type": "array", "items": {"type": "object"}})


class Arguments(BaseModel):
    """What every tool's arguments have in common: none that doesn't exist."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls: type[Taken], raw: Mapping[str, object]) -> Taken:
        """Return the arguments checked.

        Raises:
            InvalidInput: One line for each thing that is wrong.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as exc:
            raise InvalidInput("\n".join(cls._explain(error) for error in exc.errors(include_url=False))) from exc

    @classmethod
    def _explain(cls, error: Mapping[str, Any]) -> str:
        name = ".".join(str(part) for part in error["loc"])[:SHOWN_CHARS]
        if error["type"] == "extra_forbidden":
            return f"{name}: no such argument; there are {', '.join(cls.model_fields)}"
        if error["type"] == "missing":
            return f"{name}: missing"
        message: str = error["msg"]
        return f"{name} = {repr(error['input'])[:SHOWN_CHARS]}: {message[:1].lower()}{message[1:]}"


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
