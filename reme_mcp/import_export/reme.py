"""Records of experiences in every format that ReMe has published.

In:  one record, parsed.
Out: an experience under a new id; what the record calls freq and utility are its counters.

Its formats, from `docs/library`, `library` and the dumps of its versions:

    first libraries     `experience_id`, `experience_type`; a lesson may be a Python literal
    0.1 and 0.2         `memory_id`, `memory_type` "task"; more in `metadata.extra_info`
    paper data, 0.3     `memory_type` "task" or "procedural"; more flat in `metadata`, lists as comma-joined text
    its vector stores   `unique_id` or `vector_id`; all but the scenario in `metadata`

Source: https://github.com/agentscope-ai/ReMe (`reme_ai/schema/memory.py` and `reme/core/schema/memory_node.py` at
v0.3.1.10; `docs/library` through its history).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from reme_mcp.errors import InvalidInput
from reme_mcp.import_export.record import make_draft, make_experience, shown
from reme_mcp.schema import KINDS, MAX_KEYWORDS, MAX_TOOLS, Experience, Kind, new_id
from reme_mcp.text import clean

# What ReMe calls an experience; its other memories are about persons, tools and conversations.
EXPERIENCE_TYPES = ("task", "procedural", "text")
_ID_FIELDS = ("memory_id", "experience_id", "unique_id", "vector_id")


def read_upstream(value: Mapping[str, object], *, workspace: str, source: str, kind: Kind, at: datetime) -> Experience:
    """Return the experience that a record of ReMe holds; raise `InvalidInput` where it is none."""
    memory = _memory(value)
    metadata = _object(memory, "metadata")
    extra = metadata | _object(metadata, "extra_info")
    memory_type = _first(memory, "memory_type", "experience_type")
    if memory_type is not None and memory_type not in EXPERIENCE_TYPES:
        raise InvalidInput(
            f"memory_type is {shown(memory_type)}; only {', '.join(EXPERIENCE_TYPES)} memories are experiences"
        )
    draft = make_draft(
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
    category = _first(extra, "category")
    name = clean.label(str(_first(memory, *_ID_FIELDS) or ""))
    created_at = _time(_first(memory, "time_created") or _first(metadata, "created_time"), at)
    past = {
        "id": new_id("e"),
        "kind": next((one for one in KINDS if one == category), kind),
        "task": clean.text("metadata.task_query", _text(extra, "task_query"), optional=True),
        "frequency": frequency,
        "utility": utility,
        "author": _text(memory, "author") or _text(metadata, "author"),
        "trajectory_ids": (),
        "created_at": created_at,
        "updated_at": max(created_at, _time(_first(memory, "time_modified") or _first(metadata, "modified_time"), at)),
        "status": "active",
        "status_reason": "",
        "pinned": False,
        "origins": (name,) if name else (),
    }
    return make_experience(draft, past, workspace=workspace, source=source, at=at)


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
            raise InvalidInput(f"metadata.metadata is {shown(inner)}; allowed: an object, or its JSON text") from exc
    # 0.3 keeps everything flat; before, what is not the memory's own stands one level deeper.
    ids = {name: value[name] for name in _ID_FIELDS if name in value}
    return {**fields, **ids, "when_to_use": value.get("content"), "content": lesson, "metadata": inner or fields}


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
        raise InvalidInput(f"{name} is {shown(value)}; allowed: an object, or null")
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"{name} is {shown(value)}; allowed: text")
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
        raise InvalidInput(f"{name} is {shown(value)}; allowed: a number")
    return number


def _labels(fields: Mapping[str, object], name: str, most: int) -> list[str]:
    """Return the first `most` names of a list, or of a text in which commas stand between them."""
    value = _first(fields, name)
    if isinstance(value, str):
        value = value.split(",")
    if value is None:
        return []
    if not isinstance(value, Sequence):
        raise InvalidInput(f"{name} is {shown(value)}; allowed: a list, or a text with commas")
    labels = [clean.label(str(item)) for item in value]
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
        raise InvalidInput(f"time is {shown(value)}; allowed: 2026-01-31 12:00:00") from exc
