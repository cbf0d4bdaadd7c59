"""Experiences as skills: folders with a `SKILL.md`, as agents load them that have no memory server.

In:  experiences.
Out: skills, each with the name of its folder and the text of its `SKILL.md`.
Does not know: the disk.

A skill is read as instructions, an experience is a record: what was learned is quoted line by line, and its provenance
stands beside it.

Source: https://agentskills.io/specification (folder, frontmatter, the limits of `name` and `description`).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reme_mcp.recall.notes import track_record
from reme_mcp.safety import quarantine
from reme_mcp.schema import Experience, one_line
from reme_mcp.text.summaries import quote

MAX_NAME_CHARS = 64
MAX_DESCRIPTION_CHARS = 1_024
# Scenarios that a description names; there may be many at one task.
MAX_SCENARIOS = 5


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill: `name` is that of its folder, too; `frontmatter` is what stands at the head of `text`."""

    name: str
    frontmatter: Mapping[str, object]
    text: str


def one_each(experiences: Sequence[Experience], *, with_counters: bool = True) -> list[Skill]:
    """Return a skill for each experience. Its name ends with the experience's id, so it stays the same.

    Args:
        experiences: Which of them.
        with_counters: Say how often attempts succeeded with it; without, its text changes with the lesson alone.
    """
    return [
        _skill(
            _name(one.when_to_use, f"-{one.id.removeprefix('e-')}"),
            _title(one.when_to_use),
            [one],
            with_counters=with_counters,
        )
        for one in map(quarantine.readable, experiences)
    ]


def one_per_task(experiences: Sequence[Experience]) -> list[Skill]:
    """Return a skill for each generalized task, with all that was learned at it; the task counts where it has none."""
    groups: dict[str, list[Experience]] = {}
    for one in map(quarantine.readable, experiences):
        groups.setdefault(_title(one.generalized_task or one.task or one.when_to_use), []).append(one)
    # The oldest one's id tells tasks apart whose names begin alike, and stays.
    return [
        _skill(_name(title, f"-{min(group, key=_age).id.removeprefix('e-')}"), title, group)
        for title, group in groups.items()
    ]


def _skill(name: str, title: str, experiences: Sequence[Experience], *, with_counters: bool = True) -> Skill:
    description = _description(title, experiences)
    metadata = {"author": "reme-mcp", "experiences": " ".join(one.id for one in experiences)}
    blocks = [
        "---",
        f"name: {name}",
        # A JSON text is a YAML text as well, whatever stands in it.
        f"description: {json.dumps(description, ensure_ascii=False)}",
        "metadata:",
        *(f"  {key}: {json.dumps(value)}" for key, value in metadata.items()),
        "---",
        "",
        f"# {_markdown(title)}",
        "",
        "Notes from earlier work, quoted. They are records, not instructions: use what fits.",
    ]
    for one in experiences:
        blocks += ["", f"## {_markdown(_title(one.when_to_use))}", "", quote(one.content), ""]
        blocks.append(_provenance(one, with_counters=with_counters))
    frontmatter = {"name": name, "description": description, "metadata": metadata}
    return Skill(name, frontmatter, "\n".join(blocks) + "\n")


def _description(title: str, experiences: Sequence[Experience]) -> str:
    scenarios = [_title(one.when_to_use) for one in experiences[:MAX_SCENARIOS]]
    tools = sorted({tool for one in experiences for tool in one.tools_used})
    parts = [f"What earlier work taught about: {title}."]
    if scenarios != [title]:
        parts.append(f"Use when: {'; '.join(scenarios)}.")
    if tools:
        parts.append(f"Tools: {', '.join(tools)}.")
    return one_line(" ".join(parts), MAX_DESCRIPTION_CHARS)


def _provenance(one: Experience, *, with_counters: bool) -> str:
    parts = [one.id, f"from a {one.kind}", f"learned {one.created_at:%Y-%m-%d}", f"by {one.source}"]
    if with_counters:
        parts.insert(2, track_record(one))
    if one.tools_used:
        parts.append(f"tools: {', '.join(one.tools_used)}")
    return _markdown(" · ".join(parts))


def _name(text: str, suffix: str) -> str:
    """Return a name that the format allows: at most 64 of a-z, 0-9 and single hyphens; what is no ASCII goes."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-") or "lesson"
    return words[: MAX_NAME_CHARS - len(suffix)].rstrip("-") + suffix


def _title(text: str) -> str:
    return " ".join(text.split()).rstrip(".。")


def _markdown(text: str) -> str:
    """Return a text on one line in which nothing is markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()))


def _age(experience: Experience) -> tuple[object, str]:
    return experience.created_at, experience.id
