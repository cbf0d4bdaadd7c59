"""One session, several tasks: where one attempt ends and the next begins.

In:  the messages of a session in which only a user's own words have the role `user`.
Out: parts of it, an attempt each.
Does not know: outcomes, or which client wrote the session.

A user who asks for something else once the last thing is settled begins another attempt: settled is what they said
works or thanked for, in an earlier message or earlier in the same one. "A new task: ..." begins one, too. A few words
("commit it") after something is settled are no task; what they set off is left out, for it tells nothing of either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reme_mcp.transcripts.verdict import next_request, opens_new_task, verdict_of, words_in

# What asks for something in fewer words is no task of its own.
MIN_TASK_WORDS = 3


@dataclass(frozen=True, slots=True)
class Part:
    """One attempt.

    Attributes:
        start: Where its first message stands among all.
        messages: Its messages.
    """

    start: int
    messages: tuple[object, ...]


def split(messages: Sequence[object]) -> tuple[Part, ...]:
    """Return the attempts of a session, in order; one where there is but one task."""
    parts: list[Part] = []
    current: list[object] = []
    start = 0
    is_worked_on = is_settled = is_tail = False
    for place, message in enumerate(messages):
        text = text_of(message)
        if text and is_worked_on:
            before, after = _cut(text, is_settled=is_settled, is_tail=is_tail)
            if after:
                if before:
                    current.append(_with_text(message, before))
                if not is_tail:
                    parts.append(Part(start, tuple(current)))
                current, start, is_worked_on, is_settled = [], place, False, False
                is_tail = words_in(after) < MIN_TASK_WORDS
                message = _with_text(message, after) if before else message
            elif (said := verdict_of(text)) is not None:
                is_settled = said.outcome == "success" and said.is_firm
        is_worked_on = is_worked_on or not text
        current.append(message)
    if not is_tail:
        parts.append(Part(start, tuple(current)))
    return tuple(parts)


def _cut(text: str, *, is_settled: bool, is_tail: bool) -> tuple[str, str]:
    """Return what of a user's words belongs to the attempt before them, and what begins the next."""
    if opens_new_task(text):
        return "", text
    said = verdict_of(text)
    place = next_request(text)
    if place is None:
        return text, ""
    if place == 0:
        is_next = said is None and (is_settled or (is_tail and words_in(text) >= MIN_TASK_WORDS))
        return ("", text) if is_next else (text, "")
    settled = verdict_of(text[:place])
    if settled is not None and settled.is_firm:
        return text[:place].strip(), text[place:].strip()
    return text, ""


def text_of(message: object) -> str:
    """Return the words of a user's message; empty for every other message."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return ""
    content = message.get("content")
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(b["text"] for b in blocks if isinstance(b, dict) and isinstance(b.get("text"), str))


def _with_text(message: object, text: str) -> object:
    return message | {"content": text} if isinstance(message, dict) else message
