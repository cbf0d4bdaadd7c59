"""A record that was read from a file, and how an experience is made from its values.

In:  values that a file format has named.
Out: experiences, or what is wrong with a record.
Does not know: file formats, the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reme_mcp.distill.drafts import read_drafts
from reme_mcp.errors import InvalidInput
from reme_mcp.safety.redaction import Redact
from reme_mcp.schema import Experience, ExperienceDraft, Text, clean_text, one_line, with_texts
from reme_mcp.text import clean

SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file.

    Attributes:
        where: Its place in the file: `line 3`, `record 3` of a JSON array, or the name of a page.
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


def make_draft(fields: Mapping[str, object]) -> ExperienceDraft:
    """Return the fields as a draft that has the form which recorded ones must have, too."""
    drafts, rejected = read_drafts([fields], max_drafts=1)
    if rejected:
        raise InvalidInput(rejected[0].reason)
    if drafts[0].mended:
        raise InvalidInput("; ".join(drafts[0].mended))
    return drafts[0].draft


def make_experience(
    draft: ExperienceDraft, past: Mapping[str, Any], *, workspace: str, source: str, at: datetime
) -> Experience:
    """Return the experience of a record; its counters are imported ones.

    Args:
        draft: What it teaches.
        past: The other fields of an experience, by name, but for those that are given here.
        workspace: Whose it will be.
        source: Where it comes from.
        at: Now; no time of it is later.

    Raises:
        InvalidInput: Its counters contradict each other.
    """
    values = {**draft.model_dump(), **past}
    frequency, utility = values["frequency"], values["utility"]
    if not 0 <= utility <= frequency < 2**31:
        raise InvalidInput(f"utility is {utility} and frequency {frequency}; allowed: 0 ≤ utility ≤ frequency")
    # This pool has no receipts for them, and what it may have of an earlier life of the same id is in them already.
    values |= {"prior_frequency": frequency, "prior_utility": utility, "counted_since": at}
    values |= {"workspace": workspace, "source": source}
    return Experience(**{name: _as_held(value, at) for name, value in values.items()})


def redacted(experience: Experience, redact: Redact) -> Experience:
    """Return the experience with its texts clean and without secrets; what is left is cut to what a field holds."""

    def changed(text: str, holds: Text) -> str:
        text = clean.label(text) if holds.one_line else clean_text(text)
        return redact(text)[: holds.max_chars]

    return with_texts(experience, changed)


def _as_held(value: Any, at: datetime) -> Any:
    """Return a value of a file as an experience holds it: lists frozen, times in UTC and not later than now."""
    if isinstance(value, list):
        return tuple(value)
    return min(value, at).astimezone(UTC) if isinstance(value, datetime) else value


def shown(value: object) -> str:
    """Return a value as a message shows it, on one line and shortened."""
    return one_line(clean_text(repr(value)), SHOWN_CHARS)
