"""The parts of an attempt that matter, within what a model can read.

In:  a transcript, a number of tokens.
Out: a transcript without recalled notes; text with marks for what was left out.
Does not know: what the text is for.

The end is never cut off blindly: that is where a failure shows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from reme_mcp.budget import BYTES_PER_TOKEN, tokens
from reme_mcp.prompts import RECALL_HEADER
from reme_mcp.transcript import Step, Transcript, to_text

NOTES_LEFT_OUT = "[recalled notes left out]"
RECALL_TOOL = "recall_experiences"
# Long outputs are cut to these, one after the other, before whole steps go.
STEP_TOKENS = (400, 150, 60)
FIRST_STEPS = 2
LAST_STEPS = 4

# A heading of a recalled note, as `guidance.py` writes it; its quoted lines follow.
_NOTE = re.compile(r"\[\d+\] e-\w{10} · ")
_RECEIPT = re.compile(r'record_trajectory\(task, outcome, receipt="r-\w{10}"\)')


def without_notes(transcript: Transcript) -> Transcript:
    """Return the transcript without the notes that a recall handed out: a memory must not echo itself."""
    kept: list[Step] = []
    for step in transcript.steps:
        if step.role in ("call", "result") and step.tool.endswith(RECALL_TOOL):
            text = NOTES_LEFT_OUT if step.role == "result" else step.text
        else:
            text = _without_notes(step.text)
        kept.append(replace(step, text=text))
    return replace(transcript, steps=tuple(kept))


def _without_notes(text: str) -> str:
    if RECALL_HEADER not in text and _NOTE.search(text) is None:
        return text
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        ours = line.startswith(RECALL_HEADER) or _NOTE.match(line) or _RECEIPT.search(line)
        inside = bool(ours) or (inside and (line.startswith(">") or not line.strip()))
        if not inside:
            kept.append(line)
        elif not kept or kept[-1] != NOTES_LEFT_OUT:
            kept.append(NOTES_LEFT_OUT)
    return "\n".join(kept)


def fit(transcript: Transcript, max_tokens: int) -> str:
    """Return the transcript as text of at most `max_tokens` tokens.

    What is too long is cut in its middle first; then steps are left out, and a mark says how many. The first steps, the
    last ones, and each failed result with the call before it are the last to go.
    """
    text = to_text(transcript)
    for most in STEP_TOKENS:
        if tokens(text) <= max_tokens:
            return text
        steps = tuple(replace(step, text=_middle_cut(step.text, most)) for step in transcript.steps)
        text = to_text(replace(transcript, steps=steps))
    if tokens(text) <= max_tokens:
        return text
    shown: set[int] = set()
    for place in _by_weight(steps):
        if tokens(_with_marks(steps, shown | {place})) <= max_tokens:
            shown.add(place)
    return _with_marks(steps, shown) if shown else ""


def _by_weight(steps: Sequence[Step]) -> list[int]:
    """Return the places of the steps, those first that are kept longest."""
    last = len(steps) - 1
    failed = [place for place, step in enumerate(steps) if step.failed]
    weighty = [
        *(place for place in range(last, last - LAST_STEPS, -1) if place >= 0),
        *range(min(FIRST_STEPS, len(steps))),
        *(near for place in reversed(failed) for near in (place, place - 1) if near >= 0),
    ]
    return list(dict.fromkeys([*weighty, *range(last, -1, -1)]))


def _with_marks(steps: Sequence[Step], shown: set[int]) -> str:
    pieces: list[str] = []
    missing = 0
    for place, step in enumerate(steps):
        if place not in shown:
            missing += 1
            continue
        if missing:
            pieces.append(_mark(missing))
            missing = 0
        pieces.append(to_text(Transcript(steps=(step,), messages=0, marks=())))
    if missing:
        pieces.append(_mark(missing))
    return "\n\n".join(pieces)


def _mark(missing: int) -> str:
    return f"[… {missing} step{'s' if missing > 1 else ''} left out]"


def _middle_cut(text: str, max_tokens: int) -> str:
    """Return `text` with its middle cut out, and marked, if it is longer than `max_tokens`."""
    if tokens(text) <= max_tokens:
        return text
    mark = f" [… {tokens(text) - max_tokens} tokens left out …] "
    half = max(0, max_tokens * BYTES_PER_TOKEN - len(mark.encode())) // 2
    raw = text.encode()
    return raw[:half].decode(errors="ignore") + mark + raw[len(raw) - half :].decode(errors="ignore")
