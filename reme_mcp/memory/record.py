"""What may come in: the arguments of a call, cleaned, or an `InvalidInput` that says which is wrong.

In:  plain arguments.
Out: the same, clean and consistent; digests by which the same call is known again.
Does not know: the pool.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from reme_mcp.aio import off_loop_if_long
from reme_mcp.errors import InvalidInput
from reme_mcp.safety.redaction import Redact, redact_all, redact_json
from reme_mcp.schema import MAX_CONTENT_CHARS, OUTCOMES, Outcome
from reme_mcp.transcripts import transcript
from reme_mcp.transcripts.messages import parse_messages, parse_steps

SUCCESS_REWARD = 1.0
# Room for twenty experiences with every field full.
MAX_DRAFTS_CHARS = 100_000
# Stands for a text that is longer than this, which nobody searches: the gate finds it too long for any field, and
# refuses that experience alone.
OVERLONG = "…" * (MAX_CONTENT_CHARS + 1)
MAX_TEXT_CHARS = 10_000
MAX_TRANSCRIPT_CHARS = 1_000_000


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


def text_size(value: object) -> int:
    """Return how many characters the texts of a JSON value have together."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(text_size(key) + text_size(item) for key, item in value.items())
    return sum(map(text_size, value)) if isinstance(value, list | tuple) else 0


def _without_overlong(value: object) -> object:
    """Return a JSON value with `OVERLONG` in the place of each text, and of each name, that is far too long."""
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT_CHARS else OVERLONG
    if isinstance(value, Mapping):
        return {_without_overlong(key): _without_overlong(item) for key, item in value.items()}
    return [_without_overlong(item) for item in value] if isinstance(value, list | tuple) else value


async def redacted_drafts(experiences: Sequence[object], redact: Redact) -> list[object]:
    """Return the experiences that came, clean and without secrets, or say that they are too long to be read."""
    experiences = [_without_overlong(one) for one in experiences]
    size = text_size(experiences)
    if size > MAX_DRAFTS_CHARS:
        raise InvalidInput(
            f"experiences come to {size:,} characters; at most {MAX_DRAFTS_CHARS:,} are read. Send fewer, shorter ones"
        )
    return await off_loop_if_long(lambda: [redact_json(one, redact) for one in experiences], size)


async def transcript_text(steps: str | None, messages: Sequence[object] | None, *, redact: Redact) -> str:
    """Return the steps as JSON text without secrets, or nothing where none came."""
    if steps is not None and messages is not None:
        raise InvalidInput("both steps and messages came; send the messages, or a summary as steps")
    name = "steps" if messages is None else "messages"
    if steps is not None:
        _check_length(name, len(steps))
    if messages is not None:
        read = parse_messages(messages)
    elif steps is not None and steps.strip():
        read = parse_steps(steps)
    else:
        return ""
    # Before anything looks for secrets in it.
    size = sum(len(step.text) for step in read.steps)
    _check_length(name, size)
    text = await off_loop_if_long(lambda: transcript.to_json(_redacted(read, redact)), size)
    _check_length(name, len(text))
    return text


def _check_length(name: str, length: int) -> None:
    if length > MAX_TRANSCRIPT_CHARS:
        raise InvalidInput(
            f"{name} come to {length:,} characters; at most {MAX_TRANSCRIPT_CHARS:,} are kept. "
            "Leave out long outputs, or send a summary as steps"
        )


def _redacted(read: transcript.Transcript, redact: Redact) -> transcript.Transcript:
    texts = redact_all([*(step.text for step in read.steps), *read.marks], redact)
    steps = tuple(replace(step, text=text) for step, text in zip(read.steps, texts, strict=False))
    return replace(read, steps=steps, marks=tuple(texts[len(steps) :]))
