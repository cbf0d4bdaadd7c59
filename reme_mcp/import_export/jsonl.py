"""Files of experiences as JSON lines: our own format, and whatever of ReMe's formats a line turns out to be.

In:  the bytes of a file.
Out: experiences with what is known of their past; of each bad record its place and what is wrong with it; our own line.
Does not know: the pool. Nothing of the outside is trusted: workspace and source of a record are not taken over.

A record of ours keeps its id, counters, status, provenance and times.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args, get_type_hints

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError, create_model

from reme_mcp.distill.drafts import reasons
from reme_mcp.errors import InvalidInput
from reme_mcp.import_export.record import Record, make_draft, make_experience, redacted, shown
from reme_mcp.import_export.reme import read_upstream
from reme_mcp.safety.redaction import Redact
from reme_mcp.schema import Experience, ExperienceDraft, Kind, Number, fields_of

FORMAT = "reme-mcp/1"
# What a line says of itself is not believed.
_READ_OVER = ("workspace", "source")
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
            experience = redacted(_read_one(value, workspace=workspace, source=source, kind=kind, at=at), redact)
        except InvalidInput as exc:
            records.append(Record(where, fault=str(exc)))
        else:
            is_ours = isinstance(value, dict) and "format" in value
            id = experience.id if is_ours else next(iter(experience.origins), "")
            records.append(Record(where, experience, is_ours, id))
    return records


def to_line(experience: Experience) -> str:
    """Return an experience as a line of our own format; `read` brings back all of it but workspace and source."""
    fields = {name: getattr(experience, name) for name in _in_files()}
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


def _in_files() -> list[str]:
    """Return the fields that a line of ours has: all but what counts only beside the receipts of its own pool."""
    return [
        name for name, holds in fields_of(Experience).items() if not (isinstance(holds, Number) and not holds.in_files)
    ]


@functools.cache
def _past() -> type[BaseModel]:
    """Return the form of what a line of ours says beside the draft. Workspace and source are read over."""
    declared = get_type_hints(Experience, include_extras=True)
    defaults = {
        one.name: one.default for one in dataclasses.fields(Experience) if one.default is not dataclasses.MISSING
    }
    fields: dict[str, Any] = {"format": (Literal["reme-mcp/1"], ...)}
    for name in _in_files():
        if name in _READ_OVER:
            fields[name] = (str, "")
        elif name not in _DRAFT_FIELDS or name == "kind":
            is_time = get_args(declared[name])[0] is datetime
            fields[name] = (AwareDatetime if is_time else declared[name], defaults.get(name, ...))
    config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)
    return create_model("Past", __config__=config, **fields)


def _read_ours(value: Mapping[str, object], *, workspace: str, source: str, at: datetime) -> Experience:
    if value["format"] != FORMAT:
        raise InvalidInput(f"format is {shown(value['format'])}; this version reads {FORMAT!r}")
    draft = make_draft({name: value[name] for name in _DRAFT_FIELDS if name in value})
    fields = {name: field for name, field in value.items() if name not in _DRAFT_FIELDS or name == "kind"}
    try:
        past = _past().model_validate(fields).model_dump(exclude={"format", *_READ_OVER})
    except ValidationError as exc:
        raise InvalidInput(reasons(exc)) from exc
    if past["status"] == "active":
        # That a person has let something pass, a file can't say.
        past["status_reason"] = ""
    return make_experience(draft, past, workspace=workspace, source=source, at=at)
