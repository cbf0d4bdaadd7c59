"""What may come in: the arguments of a call, cleaned, or an `InvalidInput` that says which is wrong.

In:  plain arguments.
Out: the same, clean and consistent; digests by which the same call is known again.
Does not know: the pool.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from reme_mcp import transcript
from reme_mcp.access import may_speak_for
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.redaction import Redact, every_one
from reme_mcp.schema import MAX_LABEL_CHARS, MAX_TASK_CHARS, WORKSPACE_PATTERN, Outcome, ReceiptLine, clean_text

SUCCESS_REWARD = 1.0


def text(name: str, text: str, *, optional: bool = False) -> str:
    """Return the text cleaned, or say why it can't be used."""
    if len(text) > MAX_TASK_CHARS:
        raise InvalidInput(f"{name} has {len(text):,} characters; at most {MAX_TASK_CHARS:,} are taken, so shorten it")
    cleaned = clean_text(text)
    if not cleaned and not optional:
        raise InvalidInput(f"{name} is {text[:20]!r}, which says nothing; give the task in the user's words")
    return cleaned


def outcome_and_reward(outcome: Outcome | None, reward: float | None) -> tuple[Outcome, float]:
    """Return outcome and reward, the one filled in from the other."""
    if outcome not in (None, "success", "failure"):
        raise InvalidInput(f"outcome is {outcome!r}; it must be success or failure")
    if reward is not None and not 0 <= reward <= 1:
        raise InvalidInput(f"reward is {reward:g}; it must be from 0 to 1, where 1 is success")
    if reward is None:
        if outcome is None:
            raise InvalidInput("neither outcome nor reward came; say how the attempt ended: outcome success or failure")
        return outcome, SUCCESS_REWARD if outcome == "success" else 0.0
    implied: Outcome = "success" if reward >= SUCCESS_REWARD else "failure"
    if outcome not in (None, implied):
        raise InvalidInput(f"outcome {outcome} contradicts reward {reward:g}, which is a {implied}; send one of them")
    return implied, reward


def digest(*parts: object) -> str:
    """Return a digest of values: the same for the same ones."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


def digest_of_drafts(experiences: Sequence[object] | None) -> str:
    """Return a digest of the experiences that came, empty where none did."""
    return "" if experiences is None else digest(*experiences)


def label(text: str) -> str:
    """Return an id or a name on one line, fit for a table; one that is too long names nothing."""
    return " ".join(clean_text(text[:MAX_LABEL_CHARS]).split())


def workspace(name: str) -> str:
    """Return the name of a workspace, or say why it can't be one."""
    if not WORKSPACE_PATTERN.fullmatch(name):
        raise InvalidInput(
            f"workspace is {name[:80]!r}; it must be 1 to 64 letters, digits, dots, dashes or underscores"
        )
    return name


def unknown(what: str, id: str, workspace: str) -> str:
    """Return what is said of an id that names nothing."""
    return f"no {what} {id!r} in workspace {workspace!r}; check the id, or name its workspace"


def own_receipt(lines: Sequence[ReceiptLine], receipt: str, workspace: str, source: str) -> None:
    """Raise `NotFound` unless a receipt exists and a source may settle it; somebody else's is as unknown as none."""
    if not lines or not may_speak_for(source, lines[0].source):
        raise NotFound(unknown("receipt", receipt, workspace))


def line_of(lines: Sequence[ReceiptLine], receipt: str, workspace: str, source: str, experience_id: str) -> ReceiptLine:
    """Return the line of an experience on a receipt that a source may settle, or say why there is none."""
    own_receipt(lines, receipt, workspace, source)
    for line in lines:
        if line.experience_id == experience_id:
            return line
    raise InvalidInput(f"{experience_id} is not on receipt {receipt}; leave receipt out to rate it all the same")


def transcript_text(steps: str | None, messages: Sequence[object] | None, *, max_chars: int, redact: Redact) -> str:
    """Return the steps as JSON text without secrets, or nothing where none came."""
    if steps is not None and messages is not None:
        raise InvalidInput("both steps and messages came; send the messages, or a summary as steps")
    if messages is not None:
        read = transcript.parse_messages(messages)
    elif steps is not None and steps.strip():
        read = transcript.parse_steps(steps)
    else:
        return ""
    text = transcript.to_json(_redacted(read, redact))
    if len(text) > max_chars:
        name = "steps" if messages is None else "messages"
        raise InvalidInput(
            f"{name} come to {len(text):,} characters; at most {max_chars:,} are kept ([record] max_transcript_chars). "
            "Leave out long outputs, or send a summary as steps"
        )
    return text


def _redacted(read: transcript.Transcript, redact: Redact) -> transcript.Transcript:
    texts = every_one([*(step.text for step in read.steps), *read.marks], redact)
    steps = tuple(replace(step, text=text) for step, text in zip(read.steps, texts, strict=False))
    return replace(read, steps=steps, marks=tuple(texts[len(steps) :]))
