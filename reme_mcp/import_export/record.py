"""A record that was read from a file, and how an experience is made from its values.

In:  values that a file format has named.
Out: experiences, or what is wrong with a record.
Does not know: file formats, the pool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from reme_mcp.distill.drafts import read_drafts
from reme_mcp.errors import InvalidInput
from reme_mcp.schema import Experience, ExperienceDraft, Kind, Status, clean_text, one_line

SHOWN_CHARS = 60


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


def make_draft(fields: Mapping[str, object]) -> ExperienceDraft:
    """Return the fields as a draft that has the form which recorded ones must have, too."""
    drafts, rejected = read_drafts([fields], max_drafts=1)
    if rejected:
        raise InvalidInput(rejected[0].reason)
    return drafts[0].draft


def make_experience(
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
    """Return the experience of these values; its counters are imported ones."""
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


def check_counters(frequency: int, utility: int) -> None:
    """Raise `InvalidInput` unless 0 ≤ utility ≤ frequency."""
    if not 0 <= utility <= frequency < 2**31:
        raise InvalidInput(f"utility is {utility} and frequency {frequency}; allowed: 0 ≤ utility ≤ frequency")


def shown(value: object) -> str:
    """Return a value as a message shows it, on one line and shortened."""
    return one_line(clean_text(repr(value)), SHOWN_CHARS)
