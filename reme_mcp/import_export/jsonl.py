"""Files of experiences as JSON lines: our own format, and whatever of ReMe's formats a line turns out to be.

In:  the bytes of a file.
Out: experiences with what is known of their past; of each bad record its place and what is wrong with it; our own line.
Does not know: the pool. Nothing of the outside is trusted: workspace and source of a record are not taken over.

A record of ours keeps its id, counters, status, provenance and times.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from reme_mcp.distill.drafts import reasons
from reme_mcp.errors import InvalidInput
from reme_mcp.import_export.record import Record, check_counters, make_draft, make_experience, shown
from reme_mcp.import_export.reme import read_upstream
from reme_mcp.safety.redaction import Redact
from reme_mcp.schema import (
    ID_ALPHABET,
    ID_LENGTH,
    MAX_CONTENT_CHARS,
    MAX_LABEL_CHARS,
    MAX_TASK_CHARS,
    MAX_WHEN_TO_USE_CHARS,
    Experience,
    ExperienceDraft,
    Kind,
    Status,
    clean_text,
)
from reme_mcp.text import clean

FORMAT = "reme-mcp/1"
# What of an experience only counts beside the receipts of its own pool.
_LEFT_OUT = {"prior_frequency", "prior_utility", "counted_since"}
_DRAFT_FIELDS = tuple(ExperienceDraft.model_fields)


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
        raise InvalidInput(f"it is {shown(value)}; allowed: a JSON object")
    if "format" in value:
        return _read_ours(value, workspace=workspace, source=source, at=at)
    return read_upstream(value, workspace=workspace, source=source, kind=kind, at=at)


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
        raise InvalidInput(f"format is {shown(value['format'])}; this version reads {FORMAT!r}")
    draft = make_draft({name: value[name] for name in _DRAFT_FIELDS if name in value})
    try:
        past = _Ours.model_validate(
            {name: field for name, field in value.items() if name not in _DRAFT_FIELDS or name == "kind"}
        )
    except ValidationError as exc:
        raise InvalidInput(reasons(exc)) from exc
    check_counters(past.frequency, past.utility)
    return make_experience(
        past.id,
        draft,
        workspace=workspace,
        source=source,
        kind=past.kind,
        task=clean_text(past.task),
        frequency=past.frequency,
        utility=past.utility,
        author=clean.label(past.author),
        trajectory_ids=tuple(past.trajectory_ids),
        created_at=min(past.created_at, at),
        updated_at=min(past.updated_at, at),
        status=past.status,
        # That a person has let something pass, a file can't say.
        status_reason="" if past.status == "active" else clean_text(past.status_reason),
        pinned=past.pinned,
        origins=tuple(clean.label(id) for id in past.origins),
        at=at,
    )
