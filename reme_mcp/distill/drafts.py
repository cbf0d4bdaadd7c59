"""Drafts: experiences as somebody wrote them, read, checked for form, and made ready to store.

In:  drafts as they arrived, the trajectory that they belong to.
Out: valid drafts and experiences, or a reason for each draft that is not one. Pure functions; no table, no model.

Source: ReMe (arXiv 2512.10696, §3.1): distillation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from reme_mcp.results import Rejected
from reme_mcp.safety import quarantine
from reme_mcp.schema import (
    MAX_KEYWORDS,
    MAX_LABEL_CHARS,
    MAX_TOOLS,
    Experience,
    ExperienceDraft,
    Trajectory,
    clean_text,
    is_left_out,
    new_id,
    task_key,
)
from reme_mcp.sources import may_speak_for
from reme_mcp.text.tokens import shorten
from reme_mcp.transcripts.transcript import from_json

EARLIER_TOKENS = 60
# What one trajectory may bring.
MAX_EXPERIENCES = 6
SHOWN_CHARS = 80
TWICE = "content repeats when_to_use instead of saying what to do"


@dataclass(frozen=True, slots=True)
class NamedDraft:
    """A draft with the id that its experience will have, so that storing it twice stores it once.

    Attributes:
        author: `assistant`, or the name of the model that wrote it.
        judged: Whether a judge has seen it.
        suspicions: What its record, or the judge, says against it, besides what its own text does.
        mended: What was not taken as it came, in words.
    """

    id: str
    draft: ExperienceDraft
    author: str = "assistant"
    judged: bool = False
    suspicions: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()


def read_drafts(raw: Sequence[object], *, max_drafts: int = MAX_EXPERIENCES) -> tuple[list[NamedDraft], list[Rejected]]:
    """Return the drafts whose form is right, and the others with what is wrong with them.

    A lesson is what its scenario and content say: any other field that is not as it should be is mended or left out,
    and told in `mended`.
    """
    drafts: list[NamedDraft] = []
    rejected: list[Rejected] = []
    for position, item in enumerate(raw):
        cleaned, mended = _mended(_clean(item))
        shown = _shown(cleaned, position)
        if position >= max_drafts:
            rejected.append(
                Rejected(when_to_use=shown, reason=f"only {max_drafts} experiences per trajectory are taken")
            )
            continue
        try:
            draft = ExperienceDraft.model_validate(cleaned)
        except ValidationError as exc:
            rejected.append(Rejected(when_to_use=shown, reason=reasons(exc)))
            continue
        if _says_one_thing_twice(draft):
            rejected.append(Rejected(when_to_use=shown, reason=TWICE))
            continue
        told = tuple(f"{shown!r}: {what}" for what in mended)
        drafts.append(NamedDraft(new_id("e"), draft, mended=told))
    return drafts, rejected


def mended(drafts: Sequence[NamedDraft]) -> list[str]:
    """Return what was not taken as it came, of all of them."""
    return [what for one in drafts for what in one.mended]


def draft_of(experience: Experience) -> ExperienceDraft:
    """Return what an experience teaches: what of it a person may change."""
    fields = {name: getattr(experience, name) for name in ExperienceDraft.model_fields}
    held = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return ExperienceDraft.model_construct(set(held), **held)


def _says_one_thing_twice(draft: ExperienceDraft) -> bool:
    return task_key(draft.when_to_use) == task_key(draft.content)


def to_json(drafts: Sequence[NamedDraft]) -> str:
    """Return the drafts as JSON text, to be kept with their trajectory until they are stored."""
    rows = [
        {
            "id": one.id,
            "draft": one.draft.model_dump(),
            "author": one.author,
            "judged": one.judged,
            "suspicions": one.suspicions,
        }
        for one in drafts
    ]
    return json.dumps(rows, ensure_ascii=False)


def from_stored(text: str) -> list[NamedDraft]:
    """Return what `to_json` wrote."""
    return [
        NamedDraft(
            id=row["id"],
            draft=ExperienceDraft.model_validate(row["draft"]),
            author=row["author"],
            judged=row["judged"],
            # What was queued before there was a quarantine has none.
            suspicions=tuple(row["suspicions"]) if "suspicions" in row else (),
        )
        for row in json.loads(text)
    ]


def to_experience(named: NamedDraft, trajectory: Trajectory, *, at: datetime) -> Experience:
    """Return the experience that a draft becomes: quarantined where anything is suspected of it.

    Provenance comes from the trajectory, never from the draft.
    """
    draft = named.draft
    experience = Experience(
        id=named.id,
        workspace=trajectory.workspace,
        when_to_use=draft.when_to_use,
        content=draft.content,
        keywords=tuple(draft.keywords),
        confidence=draft.confidence,
        tools_used=tuple(draft.tools_used) or _tools_of(trajectory, draft),
        kind=draft.kind or trajectory.outcome,
        task=trajectory.task,
        generalized_task=draft.generalized_task,
        frequency=0,
        utility=0,
        prior_frequency=0,
        prior_utility=0,
        source=trajectory.source,
        author=named.author,
        trajectory_ids=(trajectory.id,),
        created_at=at,
        updated_at=at,
        counted_since=at,
        status="active",
        status_reason="",
        pinned=False,
    )
    return quarantine.hold(experience, list(dict.fromkeys([*quarantine.suspicions(experience), *named.suspicions])))


def to_compare(trajectory: Trajectory, attempts: Sequence[Trajectory]) -> tuple[Trajectory, Trajectory] | None:
    """Return the best and the worst attempt at one task, of several alike the latest; `None` where they don't differ.

    Args:
        trajectory: The attempt that is being distilled. A pair without it was compared when its later half was.
        attempts: Others at the same task; those without a transcript say nothing about what made the difference.
    """
    others = {attempt.id: attempt for attempt in (*attempts, trajectory) if attempt.transcript}
    latest_first = sorted(others.values(), key=lambda attempt: (attempt.created_at, attempt.id), reverse=True)
    if not latest_first:
        return None
    best = max(latest_first, key=lambda attempt: attempt.reward)
    worst = min(latest_first, key=lambda attempt: attempt.reward)
    if best.reward == worst.reward or trajectory.id not in (best.id, worst.id):
        return None
    return best, worst


def earlier_attempts(trajectory: Trajectory, attempts: Sequence[Trajectory]) -> list[str]:
    """Return two lines for each earlier attempt whose reward differs from this one's: ours, and, quoted, what it did.

    Anybody may have recorded it: what somebody else did is not told, and nothing that a lesson would be held back for.
    """
    return [
        f"- {attempt.id} ({attempt.outcome}, reward {attempt.reward:g}):\n{_told(attempt, trajectory.source)}"
        for attempt in attempts
        if attempt.id != trajectory.id and attempt.reward != trajectory.reward
    ]


def _told(attempt: Trajectory, reader: str) -> str:
    """Return what the source `reader` may know of the steps of an attempt."""
    if not may_speak_for(reader, attempt.source):
        return "its steps are known to whoever recorded it only"
    gist = shorten(_gist(attempt), EARLIER_TOKENS)
    if quarantine.suspicions_of_text(gist):
        return "its steps are held back: they hold what may be meant for their reader"
    return f"> {gist}"


def _gist(trajectory: Trajectory) -> str:
    """Return the calls of an attempt in order, or its words where it made none."""
    if not trajectory.transcript:
        return "no steps were recorded"
    steps = from_json(trajectory.transcript).steps
    calls = [f"{step.tool}{step.text}" for step in steps if step.role == "call"]
    gist = ", ".join(calls) if calls else " ".join(step.text for step in steps if step.role == "assistant")
    # On one line: what an attempt said is not to pass for a line of the brief.
    return " ".join(gist.split())


def _tools_of(trajectory: Trajectory, draft: ExperienceDraft) -> tuple[str, ...]:
    """Return the tools of the trajectory that the lesson names."""
    if not trajectory.transcript:
        return ()
    return tuple(tool for tool in from_json(trajectory.transcript).tools_used if tool in draft.content)


def _clean(item: object) -> object:
    """Return the item with every text in it cleaned."""
    if isinstance(item, str):
        return clean_text(item)
    if isinstance(item, list):
        return [_clean(part) for part in item]
    if isinstance(item, dict):
        return {key: _clean(value) for key, value in item.items()}
    return item


def _mended(item: object) -> tuple[object, list[str]]:
    """Return a draft with what can be mended of its optional fields, and what was mended, in words."""
    if not isinstance(item, dict):
        return item, []
    fields = {name: value for name, value in item.items() if name in ExperienceDraft.model_fields}
    mended = [f"there is no field {name[:SHOWN_CHARS]!r}, so it was left out" for name in item if name not in fields]
    optional = {name for name, field in ExperienceDraft.model_fields.items() if not field.is_required()}
    for name in optional & set(fields):
        if is_left_out(fields[name]):
            del fields[name]
    for name in optional & set(fields) & set(_LISTS):
        if isinstance(fields[name], str):
            fields[name] = _split(fields[name])
            mended.append(f"{name} came as one text, which was taken apart")
    if isinstance(kind := fields.get("kind"), str):
        fields["kind"] = kind.lower()
    for name, why in _faults(fields, optional).items():
        kept = _kept(fields, name)
        mended.append(f"{name}: {why}; " + ("what is wrong with it was left out" if kept else "it was left out"))
        if kept:
            fields[name] = kept
        else:
            del fields[name]
    return fields, mended


# Optional fields that take a list, and how long.
_LISTS = {"keywords": MAX_KEYWORDS, "tools_used": MAX_TOOLS}


def _split(text: str) -> list[str]:
    parts = re.split(r"[,;\n]", text.strip().removeprefix("[").removesuffix("]"))
    return [bare for part in parts if (bare := part.strip(" \t\"'"))]


def _faults(fields: Mapping[str, object], optional: set[str]) -> dict[str, str]:
    """Return what is first wrong with each optional field that is not as it should be."""
    faults: dict[str, str] = {}
    try:
        ExperienceDraft.model_validate(fields)
    except ValidationError as exc:
        for error in exc.errors(include_url=False):
            if (name := str(error["loc"][0])) in optional:
                faults.setdefault(name, f"{error['msg'][:1].lower()}{error['msg'][1:]}")
    return faults


def _kept(fields: Mapping[str, object], name: str) -> list[str]:
    """Return what of a list can be taken."""
    value = fields[name]
    if name not in _LISTS or not isinstance(value, list):
        return []
    return [part for part in value if isinstance(part, str) and 0 < len(part) <= MAX_LABEL_CHARS][: _LISTS[name]]


def _shown(item: object, position: int) -> str:
    scenario = item.get("when_to_use") if isinstance(item, dict) else None
    return scenario[:SHOWN_CHARS] if isinstance(scenario, str) and scenario else f"experiences[{position}]"


def reasons(exc: ValidationError) -> str:
    """Return what is wrong with a value, each field by its name."""
    return "; ".join(
        f"{' '.join('.'.join(str(part) for part in error['loc']).split())[:SHOWN_CHARS] or 'experience'}: "
        f"{error['msg'][:1].lower()}{error['msg'][1:]}"
        for error in exc.errors(include_url=False)
    )
