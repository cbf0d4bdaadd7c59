"""Experiences as Markdown, a file a lesson, for people: read in a pull request, edited by hand, read back.

In:  experiences; files that a person may have edited; what the pool holds of them.
Out: pages with a stable name and order; which of them are new lessons, which are edits, and which can't be taken.
Does not know: the disk, the pool. What a page says of an experience's past (its track record) is for reading only.

The front matter is YAML, the text below it the lesson as it is. The owner of `yaml`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from reme_mcp.distill.drafts import draft_of
from reme_mcp.errors import InvalidInput
from reme_mcp.import_export.record import Record, make_draft, make_experience, redacted
from reme_mcp.recall.notes import track_record
from reme_mcp.safety.redaction import Redact
from reme_mcp.schema import Experience, ExperienceDraft, is_left_out, new_id, one_line
from reme_mcp.text import clean

ENDING = ".md"
FENCE = "---"
SLUG_CHARS = 48
VERSION_CHARS = 8
# Who wrote a lesson that came as a page.
AUTHOR = "person"
# What a person may change; the rest of the front matter is only shown.
EDITED = ("when_to_use", "kind", "keywords", "tools_used", "confidence", "generalized_task")
SHOWN = ("id", "version", "status", "track_record")


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
        changes: The same, but only the fields that the page names: a line that is taken out says nothing.
        version: Of the text that the page was written from; empty where it does not say.
        status: That the experience had then; empty where it does not say.
    """

    id: str
    draft: ExperienceDraft
    changes: Mapping[str, object]
    version: str
    status: str


@dataclass(slots=True)
class Plan:
    """What is to be done with the pages of a folder.

    Attributes:
        records: Lessons that are new, and pages that can't be read, in their order.
        edits: Pages that say something else than the pool, by name.
        known: How many say what the pool says, or said it when they were written.
    """

    records: list[Record]
    edits: dict[str, Edited]
    known: int = 0


def to_pages(experiences: Sequence[Experience], *, named: Mapping[str, str] | None = None) -> list[Page]:
    """Return a page for each experience, in the order of their names, which stay the same.

    Args:
        experiences: To write.
        named: The names that pages of a folder have already, by id: one keeps its name when its scenario is edited.
    """
    names = named or {}
    pages = [Page(names.get(one.id) or name_of(one), to_text(one)) for one in experiences]
    return sorted(pages, key=lambda page: page.name)


def id_in(name: str) -> str:
    """Return the id that the name of a page ends with; empty where it ends with none."""
    found = re.search(rf"--(e-[a-z0-9]+){re.escape(ENDING)}$", name)
    return found[1] if found else ""


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
        # Every value is a text: a keyword may be "no" or "1.10".
        fields = yaml.load("\n".join(lines[1:end]), Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as exc:
        raise InvalidInput(f"its front matter is no YAML: {one_line(str(exc), 200)}") from exc
    if not isinstance(fields, dict):
        raise InvalidInput("its front matter is not a list of names and values")
    if unknown := [str(name) for name in fields if name not in (*EDITED, *SHOWN)]:
        raise InvalidInput(f"its front matter has {one_line(unknown[0], 60)}; known are {', '.join((*SHOWN, *EDITED))}")
    shown = {name: "" if is_left_out(fields.get(name)) else clean.label(str(fields[name])) for name in SHOWN}
    values = {name: fields[name] for name in EDITED if not is_left_out(fields.get(name))}
    draft = make_draft(values | {"content": "\n".join(lines[end + 1 :])})
    named = {name: value for name, value in draft.model_dump().items() if name in fields or name == "content"}
    changes = {name: value for name, value in named.items() if value is not None}
    return Edited(shown["id"], draft, changes, shown["version"], shown["status"])


def ids_in(pages: Sequence[Page]) -> list[str]:
    """Return the ids of the lessons that pages were written from."""
    found = []
    for page in pages:
        with suppress(InvalidInput):
            found.append(read_page(page.text).id)
    return [id for id in dict.fromkeys(found) if id]


def plan(
    pages: Sequence[Page],
    held: Mapping[str, Experience],
    *,
    workspace: str,
    source: str,
    redact: Redact,
    at: datetime,
) -> Plan:
    """Return what is to be done with pages: what the pool has is edited, and the others are new lessons.

    A page that was edited while the pool's own text changed, too, is refused: neither of the two may be lost unseen.

    Args:
        pages: Of a folder.
        held: What the pool holds of the lessons that they name, by id.
        workspace: Whose they will be.
        source: Where they come from, as the experiences will say.
        redact: Cuts secrets out of a text.
        at: Now.
    """
    planned = Plan([], {})
    seen: dict[str, str] = {}
    for page in pages:
        try:
            said = read_page(page.text)
            if said.id in seen:
                raise InvalidInput(f"its id is that of {seen[said.id]}, too; a new lesson has no line id")
            if said.id:
                seen[said.id] = page.name
            current = held.get(said.id)
            if current is None:
                planned.records.append(_new(page.name, said, workspace=workspace, source=source, redact=redact, at=at))
            elif _is_same(said, current):
                planned.known += 1
            elif said.version not in ("", version_of(draft_of(current))):
                raise InvalidInput(
                    f"{said.id} has changed in the pool since the page was written; export it again and edit that, or "
                    "take out its line version to put this text in the place of the pool's"
                )
            else:
                planned.edits[page.name] = said
        except InvalidInput as exc:
            planned.records.append(Record(page.name, fault=str(exc)))
    return planned


def _is_same(said: Edited, current: Experience) -> bool:
    """Say whether a page holds nothing that the pool has not: it says the same, or nobody has edited it."""
    lesson = draft_of(current).model_dump()
    return lesson | dict(said.changes) == lesson or version_of(said.draft) == said.version


def _new(name: str, said: Edited, *, workspace: str, source: str, redact: Redact, at: datetime) -> Record:
    if said.status not in ("", "active"):
        raise InvalidInput(
            f"it is a lesson that was {said.status}, and not in this pool; only active ones are taken in"
        )
    past = {
        "id": said.id or new_id("e"),
        "kind": said.draft.kind or "success",
        "task": "",
        "frequency": 0,
        "utility": 0,
        "author": AUTHOR,
        "trajectory_ids": (),
        "created_at": at,
        "updated_at": at,
        "status": "active",
        "status_reason": "",
        "pinned": False,
    }
    experience = redacted(make_experience(said.draft, past, workspace=workspace, source=source, at=at), redact)
    return Record(name, experience, bool(said.id), said.id)


def version_of(draft: ExperienceDraft) -> str:
    """Return what tells the texts of a lesson apart from an earlier or later wording of it."""
    return hashlib.sha256(draft.model_dump_json().encode()).hexdigest()[:VERSION_CHARS]


def to_text(one: Experience) -> str:
    """Return the page of an experience."""
    import yaml

    fields: dict[str, object] = {
        "id": one.id,
        "version": version_of(draft_of(one)),
        "status": one.status,
        "track_record": track_record(one),
        "when_to_use": one.when_to_use,
        "kind": one.kind,
        "keywords": list(one.keywords),
        "tools_used": list(one.tools_used),
        "confidence": one.confidence,
        "generalized_task": one.generalized_task,
    }
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=100)
    return f"{FENCE}\n{front}{FENCE}\n\n{one.content}\n"


def name_of(one: Experience) -> str:
    """Return the name of the page of an experience."""
    slug = re.sub(r"[^\w]+", "-", one.when_to_use.lower()).strip("-_")[:SLUG_CHARS].rstrip("-")
    return f"{slug or 'lesson'}--{one.id}{ENDING}"
