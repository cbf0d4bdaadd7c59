"""Files of experiences: our own JSON lines, and every format of record that ReMe has published.

In:  the bytes of a file.
Out: experiences with what is known of their past; of each bad record its place and what is wrong with it; our own line.
Does not know: the pool. Nothing of the outside is trusted: workspace and source of a record are not taken over.

A record of ours keeps its id, counters, status, provenance and times. One of ReMe gets a new id; what it calls freq and
utility are the counters. Its formats, from `docs/library`, `library` and the dumps of its versions:

    first libraries     `experience_id`, `experience_type`; a lesson may be a Python literal
    0.1 and 0.2         `memory_id`, `memory_type` "task"; more in `metadata.extra_info`
    paper data, 0.3     `memory_type` "task" or "procedural"; more flat in `metadata`, lists as comma-joined text
    its vector stores   `unique_id` or `vector_id`; all but the scenario in `metadata`

Source: https://github.com/agentscope-ai/ReMe (`reme_ai/schema/memory.py` and `reme/core/schema/memory_node.py` at
v0.3.1.10; `docs/library` through its history).
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from reme_mcp import checks, distill
from reme_mcp.errors import InvalidInput
from reme_mcp.redaction import Redact
from reme_mcp.schema import (
    ID_ALPHABET,
    ID_LENGTH,
    MAX_CONTENT_CHARS,
    MAX_KEYWORDS,
    MAX_LABEL_CHARS,
    MAX_TASK_CHARS,
    MAX_TOOLS,
    MAX_WHEN_TO_USE_CHARS,
    Experience,
    ExperienceDraft,
    Kind,
    Status,
    clean_text,
    new_id,
)

FORMAT = "reme-mcp/1"
SHOWN_CHARS = 60
# What ReMe calls an experience; its other memories are about persons, tools and conversations.
EXPERIENCE_TYPES = ("task", "procedural", "text")
KINDS: tuple[Kind, ...] = ("success", "failure", "comparative")
# What of an experience only counts beside the receipts of its own pool.
_LEFT_OUT = {"prior_frequency", "prior_utility", "counted_since"}
_ID_FIELDS = ("memory_id", "experience_id", "unique_id", "vector_id")
_DRAFT_FIELDS = tuple(ExperienceDraft.model_fields)


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        where: Its place in the file: `line 3`, or `record 3` of a JSON array.
        experience: What it holds, with its id there as one of its origins; `None` where it is bad.
        is_ours: It is of our format, and its id one of ours.
        id: What it is called in the file; empty where it has no name.
        fault: What is wrong with it; empty where nothing is.
    """

    where: str
    experience: Experience | None = None
    is_ours: bool = False
    id: str = ""
    fault: str = ""


def read(data: bytes, *, workspace: str, source: str, kind: Kind, redact: Redact, at: datetime) -> list[Record]:
    """Return the records of a file: a JSON object on each line, one object, or one JSON array of them.

    Args:
        data: Of the file.
        workspace: Whose they will be.
        source: Where they come from, as the experiences will say.
        kind: Of records that don't say theirs.
        redact: Cuts secrets out of a text.
        at: Now. No time of a record is later.
    """
    records = []
    for where, value in _values(data):
        try:
            experience = _redacted(_read_one(value, workspace=workspace, source=source, kind=kind, at=at), redact)
        except InvalidInput as exc:
            records.append(Record(where, fault=str(exc)))
        else:
            is_ours = isinstance(value, dict) and "format" in value
            id = experience.id if is_ours else next(iter(experience.origins), "")
            records.append(Record(where, experience, is_ours, id))
    return records


def to_line(experience: Experience) -> str:
    """Return an experience as a line of our own format; `read` brings back all of it but workspace and source."""
    fields = {name: value for name, value in dataclasses.asdict(experience).items() if name not in _LEFT_OUT}
    return json.dumps({"format": FORMAT, **fields}, ensure_ascii=False, default=datetime.isoformat)


# --- from bytes to values ---


def _values(data: bytes) -> list[tuple[str, object]]:
    """Return what stands in the file, each with its place; the value is an error where it is no JSON."""
    # Windows editors put a byte order mark at the start. Only \n ends a line: a text may hold any other line end.
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    # An array, or one object over several lines.
    if numbered and not isinstance(_parsed(numbered[0][1]), dict):
        whole = _parsed(b"\n".join(lines))
        if isinstance(whole, list):
            return [(f"record {number}", value) for number, value in enumerate(whole, start=1)]
        if isinstance(whole, dict):
            return [(f"line {numbered[0][0]}", whole)]
    return [(f"line {number}", _parsed(line)) for number, line in numbered]


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError as exc:
        return InvalidInput(f"it is not UTF-8 (byte {exc.start + 1}); save the file as UTF-8")
    except (ValueError, RecursionError) as exc:
        return InvalidInput(f"it is not JSON: {exc}")


# --- from values to experiences ---


def _read_one(value: object, *, workspace: str, source: str, kind: Kind, at: datetime) -> Experience:
    if isinstance(value, InvalidInput):
        raise value
    if not isinstance(value, dict):
        raise InvalidInput(f"it is {_shown(value)}; allowed: a JSON object")
    if "format" in value:
        return _read_ours(value, workspace=workspace, source=source, at=at)
    return _read_upstream(value, workspace=workspace, source=source, kind=kind, at=at)


def _redacted(experience: Experience, redact: Redact) -> Experience:
    """Return the experience without secrets; what is left is cut to what a field holds."""
    return replace(
        experience,
        when_to_use=redact(experience.when_to_use)[:MAX_WHEN_TO_USE_CHARS],
        content=redact(experience.content)[:MAX_CONTENT_CHARS],
        generalized_task=redact(experience.generalized_task)[:MAX_WHEN_TO_USE_CHARS],
        task=redact(experience.task)[:MAX_TASK_CHARS],
        keywords=tuple(redact(keyword)[:MAX_LABEL_CHARS] for keyword in experience.keywords),
        tools_used=tuple(redact(tool)[:MAX_LABEL_CHARS] for tool in experience.tools_used),
        author=redact(experience.author)[:MAX_LABEL_CHARS],
        status_reason=redact(experience.status_reason),
    )


def _draft(fields: Mapping[str, object]) -> ExperienceDraft:
    """Return the fields as a draft that has the form which recorded ones must have, too."""
    drafts, rejected = distill.read_drafts([fields], max_drafts=1)
    if rejected:
        raise InvalidInput(rejected[0].reason)
    return drafts[0].draft


class _Ours(BaseModel):
    """What a line of ours says beside the draft. Workspace and source are read over."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    format: Literal["reme-mcp/1"]
    id: Annotated[str, Field(pattern=rf"^e-[{ID_ALPHABET}]{{{ID_LENGTH}}}$")]
    workspace: str = ""
    source: str = ""
    task: Annotated[str, Field(max_length=MAX_TASK_CHARS)]
    kind: Kind
    frequency: Annotated[int, Field(ge=0)]
    utility: Annotated[int, Field(ge=0)]
    author: str
    trajectory_ids: list[Annotated[str, Field(pattern=rf"^t-[{ID_ALPHABET}]{{{ID_LENGTH}}}$")]]
    created_at: AwareDatetime
    updated_at: AwareDatetime
    status: Status
    status_reason: Annotated[str, Field(max_length=MAX_TASK_CHARS)]
    pinned: bool
    origins: list[str]


def _read_ours(value: Mapping[str, object], *, workspace: str, source: str, at: datetime) -> Experience:
    if value["format"] != FORMAT:
        raise InvalidInput(f"format is {_shown(value['format'])}; this version reads {FORMAT!r}")
    draft = _draft({name: value[name] for name in _DRAFT_FIELDS if name in value})
    try:
        past = _Ours.model_validate(
            {name: field for name, field in value.items() if name not in _DRAFT_FIELDS or name == "kind"}
        )
    except ValidationError as exc:
        raise InvalidInput(distill.reasons(exc)) from exc
    _check_counters(past.frequency, past.utility)
    return _experience(
        past.id,
        draft,
        workspace=workspace,
        source=source,
        kind=past.kind,
        task=clean_text(past.task),
        frequency=past.frequency,
        utility=past.utility,
        author=checks.label(past.author),
        trajectory_ids=tuple(past.trajectory_ids),
        created_at=min(past.created_at, at),
        updated_at=min(past.updated_at, at),
        status=past.status,
        # That a person has let something pass, a file can't say.
        status_reason="" if past.status == "active" else clean_text(past.status_reason),
        pinned=past.pinned,
        origins=tuple(checks.label(id) for id in past.origins),
        at=at,
    )


def _read_upstream(value: Mapping[str, object], *, workspace: str, source: str, kind: Kind, at: datetime) -> Experience:
    memory = _memory(value)
    metadata = _object(memory, "metadata")
    extra = metadata | _object(metadata, "extra_info")
    memory_type = _first(memory, "memory_type", "experience_type")
    if memory_type is not None and memory_type not in EXPERIENCE_TYPES:
        raise InvalidInput(
            f"memory_type is {_shown(memory_type)}; only {', '.join(EXPERIENCE_TYPES)} memories are experiences"
        )
    draft = _draft(
        {
            "when_to_use": _text(memory, "when_to_use"),
            "content": _lesson(memory.get("content")),
            "keywords": _labels(extra, "tags", MAX_KEYWORDS) or _labels(extra, "keywords", MAX_KEYWORDS),
            "confidence": _number(extra, "confidence", 0.5),
            "tools_used": _labels(extra, "tools_used", MAX_TOOLS),
            "generalized_task": _text(extra, "generalized_query"),
        }
    )
    frequency, utility = (int(_number(extra, name, 0)) for name in ("freq", "utility"))
    _check_counters(frequency, utility)
    category = _first(extra, "category")
    name = checks.label(str(_first(memory, *_ID_FIELDS) or ""))
    created_at = _time(_first(memory, "time_created") or _first(metadata, "created_time"), at)
    return _experience(
        new_id("e"),
        draft,
        workspace=workspace,
        source=source,
        kind=next((one for one in KINDS if one == category), kind),
        task=checks.text("metadata.task_query", _text(extra, "task_query"), optional=True),
        frequency=frequency,
        utility=utility,
        author=checks.label(_text(memory, "author") or _text(metadata, "author")),
        trajectory_ids=(),
        created_at=created_at,
        updated_at=max(created_at, _time(_first(memory, "time_modified") or _first(metadata, "modified_time"), at)),
        status="active",
        status_reason="",
        pinned=False,
        origins=(name,) if name else (),
        at=at,
    )


def _experience(
    id: str,
    draft: ExperienceDraft,
    *,
    workspace: str,
    source: str,
    kind: Kind,
    task: str,
    frequency: int,
    utility: int,
    author: str,
    trajectory_ids: tuple[str, ...],
    created_at: datetime,
    updated_at: datetime,
    status: Status,
    status_reason: str,
    pinned: bool,
    origins: tuple[str, ...],
    at: datetime,
) -> Experience:
    return Experience(
        id=id,
        workspace=workspace,
        when_to_use=draft.when_to_use,
        content=draft.content,
        keywords=tuple(draft.keywords),
        confidence=draft.confidence,
        tools_used=tuple(draft.tools_used),
        kind=kind,
        task=task,
        generalized_task=draft.generalized_task,
        frequency=frequency,
        utility=utility,
        # This pool has no receipts for them, and what it may have of an earlier life of the same id is in them already.
        prior_frequency=frequency,
        prior_utility=utility,
        source=source,
        author=author,
        trajectory_ids=trajectory_ids,
        created_at=created_at.astimezone(UTC),
        updated_at=updated_at.astimezone(UTC),
        counted_since=at,
        status=status,
        status_reason=status_reason,
        pinned=pinned,
        origins=origins,
    )


def _memory(value: Mapping[str, object]) -> Mapping[str, object]:
    """Return a record of ReMe's in the shape of its libraries: its vector stores put everything into `metadata`."""
    if "unique_id" not in value and "vector_id" not in value:
        return value
    fields = _object(value, "metadata")
    lesson = _first(fields, "content", "experience_content")
    inner = fields.get("metadata")
    if isinstance(inner, str):
        try:
            inner = json.loads(inner)
        except (ValueError, RecursionError) as exc:
            raise InvalidInput(f"metadata.metadata is {_shown(inner)}; allowed: an object, or its JSON text") from exc
    # 0.3 keeps everything flat; before, what is not the memory's own stands one level deeper.
    ids = {name: value[name] for name in _ID_FIELDS if name in value}
    return {**fields, **ids, "when_to_use": value.get("content"), "content": lesson, "metadata": inner or fields}


def _check_counters(frequency: int, utility: int) -> None:
    if not 0 <= utility <= frequency < 2**31:
        raise InvalidInput(f"utility is {utility} and frequency {frequency}; allowed: 0 ≤ utility ≤ frequency")


def _lesson(content: object) -> str:
    """Return a lesson as text; the first libraries wrote some as the Python literal of a list of steps."""
    if isinstance(content, str) and content.lstrip().startswith("["):
        try:
            content = ast.literal_eval(content.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return str(content)
    if isinstance(content, list):
        return "\n".join(_step(item) for item in content)
    return _text({"content": content}, "content")


def _step(item: object) -> str:
    if isinstance(item, dict):
        return "; ".join(f"{name}: {value}" for name, value in item.items())
    return str(item)


def _first(fields: Mapping[str, object], *names: str) -> object:
    """Return the first of these fields that says anything."""
    return next((fields[name] for name in names if fields.get(name) not in (None, "")), None)


def _object(fields: Mapping[str, object], name: str) -> dict[str, object]:
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} is {_shown(value)}; allowed: an object, or null")
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {_shown(value)}; allowed: text")
    return value


def _number(fields: Mapping[str, object], name: str, default: float) -> float:
    """Return a number; vector stores may have made text of it."""
    value = _first(fields, name)
    if value is None:
        return default
    try:
        number = float(value) if isinstance(value, str | int | float) else float("nan")
    except (ValueError, OverflowError):
        number = float("nan")
    if not abs(number) < 2**31:
        raise InvalidInput(f"{name} is {_shown(value)}; allowed: a number")
    return number


def _labels(fields: Mapping[str, object], name: str, most: int) -> list[str]:
    """Return the first `most` names of a list, or of a text in which commas stand between them."""
    value = _first(fields, name)
    if isinstance(value, str):
        value = value.split(",")
    if value is None:
        return []
    if not isinstance(value, Sequence):
        raise InvalidInput(f"{name} is {_shown(value)}; allowed: a list, or a text with commas")
    labels = [checks.label(str(item)) for item in value]
    return list(dict.fromkeys(label for label in labels if label))[:most]


def _time(value: object, at: datetime) -> datetime:
    """Return a time of ReMe's, which names no zone; `at` where there is none, or a later one."""
    if value is None:
        return at
    try:
        time = datetime.fromisoformat(str(value))
        time = time if time.tzinfo else time.replace(tzinfo=UTC)
        return min(time, at)
    except (ValueError, OverflowError) as exc:
        raise InvalidInput(f"time is {_shown(value)}; allowed: 2026-01-31 12:00:00") from exc


def _shown(value: object) -> str:
    text = clean_text(repr(value))
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"
