"""Experiences as Markdown, a file a lesson, for people: read in a pull request, edited by hand, read back.

In:  experiences; files that a person may have edited.
Out: pages with a stable name and order; what each page says now.
Does not know: the disk, the pool. What a page says of an experience's past (its track record) is for reading only.

The front matter is YAML, the text below it the lesson as it is. The owner of `yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from reme_mcp.errors import InvalidInput
from reme_mcp.recall.notes import track_record
from reme_mcp.schema import Experience, ExperienceDraft, one_line
from reme_mcp.text import clean

ENDING = ".md"
FENCE = "---"
SLUG_CHARS = 48
# What a person may change; the rest of the front matter is only shown.
EDITED = ("when_to_use", "kind", "keywords", "tools_used", "confidence", "generalized_task")
SHOWN = ("id", "status", "track_record")


@dataclass(frozen=True, slots=True)
class Page:
    """One file: its name and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Edited:
    """What a page says.

    Attributes:
        id: Of the experience that it was written from; empty for a lesson that a person wrote anew.
        draft: The lesson as it stands there.
    """

    id: str
    draft: ExperienceDraft


def to_pages(experiences: Sequence[Experience]) -> list[Page]:
    """Return a page for each experience, in the order of their names, which stay the same."""
    return sorted((Page(_name(one), _text(one)) for one in experiences), key=lambda page: page.name)


def draft_of(experience: Experience) -> ExperienceDraft:
    """Return what of an experience a person may change."""
    return ExperienceDraft(
        when_to_use=experience.when_to_use,
        content=experience.content,
        keywords=list(experience.keywords),
        confidence=experience.confidence,
        tools_used=list(experience.tools_used),
        kind=experience.kind,
        generalized_task=experience.generalized_task,
    )


def read_page(text: str) -> Edited:
    """Return what a page says.

    Raises:
        InvalidInput: It has no front matter, a field of it is not known, or the lesson is none; the message says which.
    """
    import yaml

    lines = text.lstrip("\ufeff").replace("\r\n", "\n").split("\n")
    if lines[0].strip() != FENCE or FENCE not in (line.strip() for line in lines[1:]):
        raise InvalidInput(f"it does not begin with front matter between two lines of {FENCE}")
    end = next(place for place, line in enumerate(lines[1:], start=1) if line.strip() == FENCE)
    try:
        fields = yaml.safe_load("\n".join(lines[1:end])) or {}
    except yaml.YAMLError as exc:
        raise InvalidInput(f"its front matter is no YAML: {one_line(str(exc), 200)}") from exc
    if not isinstance(fields, dict):
        raise InvalidInput("its front matter is not a list of names and values")
    if unknown := [str(name) for name in fields if name not in (*EDITED, *SHOWN)]:
        raise InvalidInput(f"its front matter has {unknown[0]}; known are {', '.join((*SHOWN, *EDITED))}")
    id = clean.label(str(fields.get("id") or "")) if fields.get("id") else ""
    try:
        values = {name: fields[name] for name in EDITED if fields.get(name) is not None}
        draft = ExperienceDraft.model_validate(values | {"content": "\n".join(lines[end + 1 :])})
    except ValidationError as exc:
        error = exc.errors(include_url=False)[0]
        raise InvalidInput(f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}") from exc
    return Edited(id, draft)


def _text(one: Experience) -> str:
    import yaml

    fields: dict[str, object] = {"id": one.id, "status": one.status, "track_record": track_record(one)}
    fields |= {
        "when_to_use": one.when_to_use,
        "kind": one.kind,
        "keywords": list(one.keywords),
        "tools_used": list(one.tools_used),
        "confidence": one.confidence,
        "generalized_task": one.generalized_task,
    }
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    return f"{FENCE}\n{front}{FENCE}\n\n{one.content}\n"


def _name(one: Experience) -> str:
    slug = re.sub(r"[^\w]+", "-", one.when_to_use.lower()).strip("-_")[:SLUG_CHARS].rstrip("-")
    return f"{slug or 'lesson'}--{one.id}{ENDING}"
