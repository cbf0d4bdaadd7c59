"""What of a model's drafts does not deserve to be judged: empty talk, repetition, a lesson that the record dictated.

In:  drafts, the record of the attempt, the instructions that the model had.
Out: the drafts that pass, and the others with their reasons. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from reme_mcp.distill import prompts
from reme_mcp.distill.drafts import NamedDraft, read_drafts
from reme_mcp.results import Rejected
from reme_mcp.safety import quarantine
from reme_mcp.safety.injection_rules import order as order_pattern
from reme_mcp.safety.secret_rules import compiled
from reme_mcp.schema import ExperienceDraft, task_key
from reme_mcp.text.words import mostly_latin, stems
from reme_mcp.transcripts.transcript import Transcript

# How much of a text may be made of runs of words that stand in the instructions.
MAX_REPEATED_SHARE = 0.3
REPEATED_WORDS = 5
MIN_TELLING_WORDS = 2
_EMPTY_TALK = """
    accurate accurately achieve agent aim always appropriate appropriately approach attention attentive avoid best
    better careful carefully check complete completely confirm consider correct correctly detail detailed double
    effective efficient ensure error everything expected experience failure follow goal good help helpful important
    information instruct instruction issue keep know lesson make mistake necessary outcome pay plan possible problem
    proceed process proper properly provide record relevant require requirement result right situation specific step
    success successful successfully task thing thorough thoroughly tool understand use user verify way well work
"""


def fault(draft: ExperienceDraft, *, instructions: str, task: str, record: Transcript) -> str:
    """Return what makes a model's draft worthless at first sight, as a reason; empty if nothing does.

    A first sieve before the judge: it knows a model that repeats its prompt, answers in another script, copies the
    record, or talks without saying anything. What somebody planted is not worthless, but for a person to see.

    Args:
        draft: As a model wrote it.
        instructions: That it was given.
        task: That was worked on.
        record: Of the attempt, as the model saw it or whole.
    """
    if max(_repeated_share(text, instructions) for text in (draft.when_to_use, draft.content)) >= MAX_REPEATED_SHARE:
        return "repeats the instructions instead of saying what was learned"
    if suspicions_of(draft, record):
        return ""
    if mostly_latin(draft.content) != mostly_latin(task):
        return "is written in another script than the task, and would not be found"
    content = task_key(draft.content)
    done = [step.text for step in record.steps if step.role in ("call", "result")]
    said = [step.text for step in record.steps if step.role == "user"]
    if any(content in task_key(text) for text in (task, *done)) or content in map(task_key, said):
        return "copies the task or a step instead of saying what was learned"
    if len(stems(draft.content) - stems(_EMPTY_TALK)) < MIN_TELLING_WORDS:
        return "says nothing that could be acted on"
    return ""


def suspicions_of(draft: ExperienceDraft, record: Transcript) -> list[str]:
    """Return why a model's draft is for a person to see first; the rules are those of `quarantine.py`.

    Args:
        draft: As a model wrote it.
        record: Of the attempt, which may have dictated it.
    """
    dictated = [DICTATED] if is_dictated(draft.content, record) else []
    return [*quarantine.suspicions(draft), *dictated]


def _repeated_share(text: str, instructions: str) -> float:
    """Return the share of the runs of words in `text` that stand in the instructions, 0 to 1."""
    words, instructed = _word_runs(text), _word_runs(instructions)
    return len(words & instructed) / len(words) if words else 0.0


def _word_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", task_key(text))
    return {tuple(words[start : start + REPEATED_WORDS]) for start in range(len(words) - REPEATED_WORDS + 1)}


@dataclass(frozen=True, slots=True)
class Distilled:
    """What became of the drafts of one trajectory: those for the pool, and the others with their reasons."""

    drafts: tuple[NamedDraft, ...] = ()
    rejected: tuple[Rejected, ...] = ()


def sift(raw: Sequence[dict[str, object]], sources: Sequence[Sequence[Transcript]], task: str) -> Distilled:
    """Sort out what isn't worth a judge's time: no draft by its form, no lesson at first sight, or said already."""
    drafts: list[NamedDraft] = []
    rejected: list[Rejected] = []
    for one, records in zip(raw, sources, strict=True):
        named, refused = read_drafts([one], max_drafts=1)
        rejected += refused
        for draft in (item.draft for item in named):
            reasons = [fault(draft, instructions=prompts.INSTRUCTIONS, task=task, record=r) for r in records]
            if any(task_key(draft.content) == task_key(other.draft.content) for other in drafts):
                reasons.append("says the same as another draft of this trajectory")
            if reason := next(filter(None, reasons), ""):
                rejected.append(rejected_for(draft, reason))
            else:
                dictated = any(is_dictated(draft.content, record) for record in records)
                drafts += [replace(one, suspicions=(DICTATED,) if dictated else ()) for one in named]
    return Distilled(tuple(drafts), tuple(rejected))


def rejected_for(draft: ExperienceDraft, reason: str) -> Rejected:
    """Return the draft as rejected for this reason."""
    # Whole, as it is kept with its trajectory only.
    return Rejected(when_to_use=draft.when_to_use, reason=reason, content=draft.content)


# How far an order reaches, in characters behind it, and how much of a lesson must stand there to come from it.
ORDER_CHARS = 600
MIN_DICTATED_SHARE = 0.7


def is_dictated(content: str, record: Transcript) -> bool:
    """Return whether a lesson stands where the record gives orders to its reader.

    Args:
        content: Of the lesson.
        record: Of the attempt that it was learned from.
    """
    words = stems(content)
    for step in record.steps:
        orders = (order_pattern(), _DICTATION) if step.role == "result" else (order_pattern(),)
        for pattern in orders:
            at = 0
            while order := compiled(pattern).search(step.text, at):
                reach = stems(step.text[order.start() : order.end() + ORDER_CHARS])
                if len(words & reach) >= MIN_DICTATED_SHARE * len(words):
                    return True
                # The next order may begin in the reach of this one; half of it is looked at again.
                at = order.end() + ORDER_CHARS // 2
    return False


DICTATED = "dictated: it was dictated by a text in the record"
# An order to whoever learns from it. A person may say so; what a tool returned may not.
_DICTATION = (
    r"(?i)\b(?:write|store|save|record|add|remember|output)\b.{0,60}"
    r"\b(?:experiences?|lessons?|memory|memories|notes?)\b"
)
