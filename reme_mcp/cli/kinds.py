"""What a file is that was given to the wrong command.

In:  the bytes of a file.
Out: a sentence that says what it looks like and which command takes it; nothing where it may be right.
Does not know: how any of them is read.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Literal

LOOKED_AT = 20
Kind = Literal["claude-code", "codex", "qrels", "attempts", "lessons"]
_QRELS_LINE = re.compile(rb"\s*\S+\s+\S+\s+\S+\s+-?\d+\s*|query-id\s+corpus-id\s+score\s*")
# By which of its fields an object is told; all of one set have to be there.
_FIELDS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    ("claude-code", ("sessionId", "type")),
    ("codex", ("type", "payload")),
    ("qrels", ("query", "relevant")),
    ("lessons", ("when_to_use", "content")),
    ("lessons", ("memory_id",)),
    ("attempts", ("task", "outcome")),
    ("attempts", ("task", "reward")),
)
_LOOKS_LIKE: dict[Kind, str] = {
    "claude-code": "a Claude Code session: reme-mcp record --format claude-code FILE",
    "codex": "a session of Codex: reme-mcp record --format codex FILE",
    "qrels": "relevance judgments (qrels), which say what is right for a query, and no library of lessons",
    "attempts": "attempts to record: reme-mcp record FILE",
    "lessons": "lessons, and no attempts: reme-mcp import FILE",
}


def wrong_kind(data: bytes, *, right: Kind) -> str:
    """Return what a file looks like, and what to do with it; empty where it is `right`, or nothing is known of it."""
    found = _kind_of(data)
    if found in (None, right):
        return ""
    return f"this looks like {_LOOKS_LIKE[found]}"


def _kind_of(data: bytes) -> Kind | None:
    lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()][:LOOKED_AT]
    if lines and all(_QRELS_LINE.fullmatch(line) for line in lines):
        return "qrels"
    objects = [value for line in lines if isinstance(value := _parsed(line), dict)]
    if not objects:
        whole = _parsed(data)
        objects = [one for one in islice(whole, LOOKED_AT) if isinstance(one, dict)] if isinstance(whole, list) else []
    for kind, names in _FIELDS:
        if any(all(name in one for name in names) for one in objects):
            return kind
    return None


def _parsed(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
