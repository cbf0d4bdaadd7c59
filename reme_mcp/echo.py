"""What of a transcript this server said itself: a memory must not learn from its own notes.

In:  a transcript; the texts that its receipt handed out, where they are known.
Out: the transcript without recalled notes and calls of our tools, with a mark in their place.
Does not know: the store. What is kept of an attempt stays whole; only what is distilled goes through here.

The layout of the notes is that of `guidance.recall_guidance`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace

from reme_mcp import prompts
from reme_mcp.transcript import Step, Transcript

MARK = "[recalled notes left out]"
# Shorter texts than this may well be the agent's own words.
MIN_KNOWN_CHARS = 24

# Clients put the server's name before a tool's: mcp__reme__recall_experiences, reme.recall_experiences, …
_OWN_TOOL = re.compile(r"(?:.*[^a-z0-9])?(?:recall_experiences|record_trajectory|rate_experience)", re.IGNORECASE)
# No other tool answers with both of them.
_OWN_KEYS = {"guidance", "receipt"}
_NOTE_HEADING = re.compile(r"\[\d+\] e-\w+ · ")
_FOOTER = prompts.RECALL_FOOTER.partition("{")[0]
# What a client puts before a line when it quotes or indents the notes once more.
_MARGIN = " \t>"
_MARKS = re.compile(rf"{re.escape(MARK)}(?:[\s>]*{re.escape(MARK)})+")


def without_guidance(transcript: Transcript, known: Iterable[str] = ()) -> Transcript:
    """Return the transcript without what this server said in it.

    Calls and results of its tools go, whatever a client puts before their names. So do notes in what anybody said or
    another tool returned: a whole recall, or only its quoted lines.

    Args:
        transcript: As it was recorded.
        known: Scenarios and lessons that the attempt's receipt handed out; repeated word for word, they go as well.
    """
    repeated = _repeated(known)
    steps: list[Step] = []
    for step in transcript.steps:
        if _is_own(step):
            cut = Step("result", MARK, step.tool)
        elif step.role == "call":
            cut = step
        else:
            text = _without_notes(step.text)
            cut = replace(step, text=_MARKS.sub(MARK, repeated.sub(MARK, text) if repeated else text))
        # A call of ours and its result are one thing that is missing.
        if not (cut.text == MARK and steps and (steps[-1].role, steps[-1].text) == (cut.role, MARK)):
            steps.append(cut)
    return replace(transcript, steps=tuple(steps))


def _is_own(step: Step) -> bool:
    if step.role not in ("call", "result"):
        return False
    return _OWN_TOOL.fullmatch(step.tool) is not None or (step.role == "result" and _is_own_json(step.text))


def _is_own_json(text: str) -> bool:
    """Say whether a result holds one of ours as JSON; its call may be unknown, or that of a tool that calls others."""
    if not text.startswith(("{", "[")):
        return False
    if prompts.RECALL_HEADER in text:
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and set(value) >= _OWN_KEYS


def _without_notes(text: str) -> str:
    """Return `text` without the notes of a recall: header, headings, quoted lines, footer, whichever are there."""
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        bare = line.lstrip(_MARGIN)
        is_quoted = line.lstrip().startswith(">")
        before, header, _ = line.partition(prompts.RECALL_HEADER)
        if header or _NOTE_HEADING.match(bare) or (is_quoted and bare.startswith("When: ")):
            if before.strip(_MARGIN) and header:
                kept.append(before.rstrip())
            if not inside:
                kept.append(MARK)
            inside = True
        elif bare.startswith(_FOOTER) or bare == prompts.RECALL_NOTHING:
            kept.append(MARK)
            inside = False
        elif inside and (is_quoted or not bare):
            continue
        else:
            if inside:
                kept.append("")
            kept.append(line)
            inside = False
    return "\n".join(kept) if MARK in kept else text


def _repeated(known: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches any of these texts, however its lines are broken or quoted; the longest first."""
    texts = sorted({text for text in known if len(text) >= MIN_KNOWN_CHARS}, key=lambda text: (-len(text), text))
    if not texts:
        return None
    return re.compile("|".join(r"[\s>]+".join(map(re.escape, text.split())) for text in texts), re.IGNORECASE)
