"""What an attempt looked like, step by step: `Transcript`, its JSON and its text.

In:  steps.
Out: frozen steps of clean text. `to_json` and `from_json` carry them through the store, `to_text` shows them.
Does not know: the shape in which a client sent them; it shortens no text.
"""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass
from typing import Literal

from reme_mcp.errors import InvalidInput
from reme_mcp.schema import clean_text

MAX_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was said, called or returned.

    Attributes:
        role: Who speaks, or `call` and `result` for the two halves of a tool call.
        text: What was said; a call's arguments as compact JSON; what a tool returned.
        tool: The tool's name on `call` and `result`; empty elsewhere and on a result whose call is unknown.
        failed: A result that `is_failure` takes for an error.
    """

    role: Literal["system", "user", "assistant", "call", "result"]
    text: str
    tool: str = ""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Transcript:
    """An attempt, in the order in which it happened.

    Attributes:
        messages: How many messages were understood; 0 for plain text.
        marks: What was left out or odd, one sentence each.
    """

    steps: tuple[Step, ...]
    messages: int
    marks: tuple[str, ...]

    @property
    def tools_used(self) -> tuple[str, ...]:
        """Names of the tools that were called, each once, in order of first use."""
        return tuple(dict.fromkeys(step.tool for step in self.steps if step.role == "call"))


def to_json(transcript: Transcript) -> str:
    """Write a transcript as compact JSON that `from_json` reads back without loss."""
    return compact_json(asdict(transcript))


def from_json(text: str) -> Transcript:
    """Read what `to_json` wrote.

    Raises:
        InvalidInput: It did not write this.
    """
    try:
        fields = json.loads(text)
        steps = tuple(Step(**step) for step in fields["steps"])
        return Transcript(steps=steps, messages=fields["messages"], marks=tuple(fields["marks"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise InvalidInput(f"transcript is {quoted_value(text)}; allowed: the JSON text of a transcript") from exc


def to_text(transcript: Transcript) -> str:
    """Write a transcript for a reader, human or model: one block a step, an empty line between two.

    Further lines of a step are indented, so that no text can pass itself off as another step.
    """
    return "\n\n".join(block(step) for step in transcript.steps)


def block(step: Step) -> str:
    """Write one step: who, which tool, whether it failed, and the text, its further lines indented."""
    head = f"{step.role} {step.tool}" if step.tool else step.role
    failed = " (failed)" if step.failed else ""
    lines = "\n  ".join(step.text.splitlines())
    return f"{head}{failed}: {lines}".rstrip()


def compact_json(value: object) -> str:
    """Return the value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def quoted_value(value: object) -> str:
    """Return the value's repr in at most `MAX_SHOWN_CHARS` characters, however large or deep it is."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = MAX_SHOWN_CHARS
    shown = clean_text(short.repr(value))
    return shown if len(shown) <= MAX_SHOWN_CHARS else shown[: MAX_SHOWN_CHARS - 1] + "…"
