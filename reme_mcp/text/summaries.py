"""What a person or a model reads of a result, and what any text of ours says in the same words.

In:  results, counters, stored texts.
Out: text in which every line of a stored text is quoted with `> `.
Does not know: the notes of a recall; those are in `recall/notes.py`.
"""

from __future__ import annotations

from reme_mcp.results import RateResult, RecordResult
from reme_mcp.schema import SettledBy

# What is told of a note before its counters, by what settled it.
_BY: dict[SettledBy, str] = {"": "", "trajectory": "", "used": "used, ", "misled": "misled, ", "rating": ""}


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
    lines += [f"{new.by} takes the place of {new.id}, which is archived: {new.how}." for new in result.superseded]
    lines += [f"Held back as {held.id}, until a person has approved it: {held.reason}." for held in result.quarantined]
    lines += [f"Not stored: {rejected.when_to_use!r}: {rejected.reason}." for rejected in result.rejected]
    lines += [f"Not as it was sent: {note}." for note in result.notes]
    lines += [f"{one.id}: {_BY[one.by]}{succeeded(one.utility, one.frequency)} by now." for one in result.settled]
    if result.pruned:
        lines.append(f"Removed, because attempts succeeded with them too rarely: {', '.join(result.pruned)}.")
    if result.lessons:
        lines += ["For the retry:", *(quote(lesson) for lesson in result.lessons)]
    if result.brief:
        lines.append(result.brief)
    return "\n".join(lines)


def rate_summary(result: RateResult) -> str:
    """Return the readable form of a `RateResult`."""
    text = (
        f"{result.experience_id} rated {'helpful' if result.helpful else 'not helpful'}: "
        f"{succeeded(result.utility, result.frequency)}; a rating weighs more than an outcome; {result.status}"
    )
    return f"{text} ({result.status_reason})." if result.status_reason else f"{text}."


def succeeded(utility: int, frequency: int) -> str:
    """Return counters in words: whether a note helped, nobody knows of those that only stood by."""
    return f"succeeded with it {utility} of {frequency}"


def quote(text: str) -> str:
    """Return `text` with every line quoted: stored text can't end its own quotation."""
    return "\n".join(f"> {line}" for line in text.splitlines())
