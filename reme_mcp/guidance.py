"""What a person or a model reads of a result.

In:  ranked experiences and results.
Out: text within a token budget. Every line of a stored text is quoted with `> `, so that none can pass for ours: there
     is no end of a quotation that a text could write itself. Names are short, and quoted where they are no mere names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from reme_mcp import prompts
from reme_mcp.budget import shorten, tokens
from reme_mcp.recall import Ranked
from reme_mcp.schema import Experience, RateResult, RecordResult

# A note that is cut shorter than this says nothing any more; it is left out instead.
MIN_NOTE_TOKENS = 40
HEADING_TOKENS = 44
NAME_CHARS = 48


def recall_guidance(ranked: Sequence[Ranked], *, token_budget: int) -> tuple[str, list[Ranked]]:
    """Return the notes as text within `token_budget`, and which of them are in it.

    The last note is cut to what is left of the budget, or left out where that is too little to be of use.
    """
    if not ranked:
        return prompts.RECALL_NOTHING, []
    blocks = [prompts.RECALL_HEADER]
    left = token_budget - tokens(prompts.RECALL_HEADER) - 1
    shown: list[Ranked] = []
    for place, item in enumerate(ranked, start=1):
        heading = shorten(f"[{place}] {_heading(item)}", HEADING_TOKENS)
        content = quote(item.experience.content)
        room = left - tokens(heading) - 2
        when = shorten(quote(f"When: {item.experience.when_to_use}"), max(room // 3, room - tokens(content)))
        room -= tokens(when)
        if shown and room < min(MIN_NOTE_TOKENS, tokens(content)):
            break
        block = "\n".join([heading, when, shorten(content, room)])
        blocks.append(block)
        shown.append(item)
        left -= tokens(block) + 1
    return "\n\n".join(blocks), shown


def with_advice(advice: str, notes: str) -> str:
    """Return the notes with what a model made of them for the task; both are quoted."""
    return f"{prompts.ADVICE_HEADER}\n{quote(advice)}\n\n{notes}"


def record_summary(result: RecordResult) -> str:
    """Return the readable form of a `RecordResult`."""
    lines = [f"Trajectory {result.trajectory_id}: {result.status.replace('_', ' ')}."]
    if result.added:
        lines.append(f"Learned: {', '.join(result.added)}.")
    lines += [
        f"Already known as {merged.id} ({merged.status}; {merged.how or 'it says the same'}): {merged.when_to_use!r}. "
        "This attempt was added to it, its wording was not kept."
        for merged in result.merged
    ]
    lines += [f"Held back as {held.id}, until a person has approved it: {held.reason}." for held in result.quarantined]
    lines += [f"Not stored: {rejected.when_to_use!r}: {rejected.reason}." for rejected in result.rejected]
    lines += [
        f"{settled.id} {'helped' if settled.helped else 'did not help'}: now {settled.utility} of {settled.frequency}."
        for settled in result.settled
    ]
    if result.pruned:
        lines.append(f"Removed, because they helped too rarely: {', '.join(result.pruned)}.")
    if result.lessons:
        lines += ["For the retry:", *(quote(lesson) for lesson in result.lessons)]
    if result.brief:
        lines.append(result.brief)
    return "\n".join(lines)


def rate_summary(result: RateResult) -> str:
    """Return the readable form of a `RateResult`."""
    text = (
        f"{result.experience_id} rated {'helpful' if result.helpful else 'not helpful'}: "
        f"helped in {result.utility} of {result.frequency} known cases; {result.status}"
    )
    return f"{text} ({result.status_reason})." if result.status_reason else f"{text}."


def track_record(experience: Experience) -> str:
    """Return how an experience has done so far, in words."""
    if experience.frequency == 0:
        return "not yet tried"
    return f"helped {experience.utility} of {experience.frequency}"


def quote(text: str) -> str:
    """Return `text` with every line quoted: stored text can't end its own quotation."""
    return "\n".join(f"> {line}" for line in text.splitlines())


def name(text: str) -> str:
    """Return the name of a client or a tool as it may stand in a line of ours: one that could say more is quoted."""
    if re.fullmatch(r"[\w.:/@+-]{1,48}", text):
        return text
    # Nothing that ends a quotation or sets a part of the heading off.
    bare = " ".join(re.sub(r"[^\w.:/@+() -]", " ", text).split())
    return f'"{bare if len(bare) <= NAME_CHARS else bare[: NAME_CHARS - 1] + "…"}"'


def _heading(item: Ranked) -> str:
    experience = item.experience
    # Which attempts a file names, nobody has seen.
    ids = () if experience.source.startswith("file:") else experience.trajectory_ids[:1]
    attempt = "".join(f", {name(id)}" for id in ids)
    kind = f"from a {experience.kind}{attempt}"
    parts = [experience.id, kind, track_record(experience), f"{item.age_days} days old"]
    parts.append(f"by {name(experience.source)}")
    if experience.status == "provisional":
        parts.append("provisional")
    if item.missing_tools:
        parts.append(f"needs {', '.join(map(name, item.missing_tools))}")
    # On one line, whatever a client calls itself or its tools.
    return " ".join(" · ".join(parts).split())
