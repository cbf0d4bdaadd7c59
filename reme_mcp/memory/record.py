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

from reme_mcp.errors import InvalidInput
from reme_mcp.safety.redaction import Redact, redact_all
from reme_mcp.schema import OUTCOMES, Outcome
from reme_mcp.transcripts import transcript
from reme_mcp.transcripts.messages import parse_messages, parse_steps

SUCCESS_REWARD = 1.0


def outcome_and_reward(outcome: Outcome | None, reward: float | None) -> tuple[Outcome, float]:
    """Return outcome and reward, the one filled in from the other."""
    if outcome not in (None, *OUTCOMES):
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


def transcript_text(steps: str | None, messages: Sequence[object] | None, *, max_chars: int, redact: Redact) -> str:
    """Return the steps as JSON text without secrets, or nothing where none came."""
    if steps is not None and messages is not None:
        raise InvalidInput("both steps and messages came; send the messages, or a summary as steps")
    if messages is not None:
        read = parse_messages(messages)
    elif steps is not None and steps.strip():
        read = parse_steps(steps)
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
    texts = redact_all([*(step.text for step in read.steps), *read.marks], redact)
    steps = tuple(replace(step, text=text) for step, text in zip(read.steps, texts, strict=False))
    return replace(read, steps=steps, marks=tuple(texts[len(steps) :]))
