"""What Claude Code and Codex write down of a session, read as chat messages.

In:  the bytes of a session file, `~/.claude/projects/*/<session>.jsonl` or `~/.codex/sessions/…/rollout-*.jsonl`.
Out: a `Session` for each task in it: messages in a shape that `messages.py` reads, the task, what of our own answers is
     in it, and how many entries of which kind were left out.
Does not know: how an attempt ended, or the pool.

Neither format is documented by its maker, and both change with every version: an entry that is not known is counted and
left out, never an error. Sidechains (the work of subagents), thinking, and what the client itself puts into the user's
mouth (commands, reminders, environment) are no part of the attempt.

Source: the session files of Claude Code 2.1, and `codex-rs/protocol/src/models.rs` (`ResponseItem`) and
`codex-rs/protocol/src/protocol.rs` (`RolloutItem`) of https://github.com/openai/codex.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from reme_mcp.errors import InvalidInput
from reme_mcp.schema import ID_ALPHABET, ID_LENGTH, MAX_LABEL_CHARS, MAX_TASK_CHARS
from reme_mcp.transcripts.attempts import Part, split, text_of
from reme_mcp.transcripts.messages import parse_messages
from reme_mcp.transcripts.session_lines import entries
from reme_mcp.transcripts.transcript import Transcript, to_json
from reme_mcp.transcripts.verdict import verdict_of
from reme_mcp.transcripts.wrapping import is_interruption, request_in, words_of

Format = Literal["claude-code", "codex"]
OF_THE_CLIENT = "of the client or a subagent"
# Texts are cut to these lengths, one after the other, until the session is short enough.
CUTS = (20_000, 8_000, 4_000, 2_000, 1_000, 500)

_OURS = re.compile(r"(?:.*[^a-z0-9])?(recall_experiences|record_trajectory)", re.IGNORECASE)
_RECEIPT = re.compile(rf"receipt\\?\"?\s*[=:]\s*\\?\"(r-[{ID_ALPHABET}]{{{ID_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class Session:
    """A session, or the part of one that is about one task.

    Attributes:
        task: The user's words that ask for it, cut to what a task may be.
        messages: For `transcript.parse_messages`.
        transcript: What that makes of them.
        receipts: Of our recalls that are in it, in order.
        is_recorded: The assistant has recorded it itself.
        is_interrupted: The last thing in it is that the user stopped the assistant.
        skipped: Entries that were left out, by kind.
    """

    task: str
    messages: tuple[object, ...]
    transcript: Transcript
    receipts: tuple[str, ...]
    is_recorded: bool
    is_interrupted: bool
    skipped: Mapping[str, int]


def read(data: bytes, format: Format, *, max_chars: int, whole: bool = False) -> tuple[Session, ...]:
    """Read a session file.

    Args:
        data: Of the file.
        format: Whose it is.
        max_chars: Of each transcript's JSON text; long texts are cut in their middle until it fits.
        whole: Whether it is one attempt, however many tasks are in it.

    Returns:
        The attempts in it, one at least, in order.

    Raises:
        InvalidInput: There is no request of a user in it, or it is compressed.
    """
    reading = _Reading()
    take = reading.claude_code if format == "claude-code" else reading.codex
    for entry in entries(data, reading.skipped):
        take(entry)
    if not reading.has_task:
        left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(reading.skipped.items())) or "nothing"
        raise InvalidInput(f"no words of a user are in it (left out: {left_out}); is it a session of {format}?")
    parts = (Part(0, tuple(reading.messages)),) if whole else split(reading.messages)
    starts = [0, *(part.start for part in parts[1:]), len(reading.messages) + 1]
    read = [reading.session(part, starts[place], starts[place + 1], max_chars) for place, part in enumerate(parts)]
    # An assistant may record what is settled when the next thing has been asked for already.
    last_recorded = max((place for place, one in enumerate(read) if one.is_recorded), default=-1)
    return tuple(
        replace(
            one,
            is_recorded=place <= last_recorded,
            is_interrupted=reading.is_interrupted and place == len(read) - 1,
        )
        for place, one in enumerate(read)
    )


class _Reading:
    """What has been read of one file so far.

    Attributes:
        has_task: A user has asked for something.
        contexts: What hooks added, each with the number of messages before it.
        command: What a block asked for that is not in a user's own words, until somebody answers it.
    """

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.skipped: Counter[str] = Counter()
        self.contexts: list[tuple[int, str]] = []
        self.has_task = False
        self.is_interrupted = False
        self.command = ""
        self._is_compacted = False
        self._seen: set[str] = set()

    def session(self, part: Part, start: int, end: int, max_chars: int) -> Session:
        """Return one attempt; what stands between `start` and `end` of the messages is its own."""
        messages, transcript = _within(list(part.messages), max_chars)
        ours = [(match[1].lower(), step) for step in transcript.steps if (match := _OURS.fullmatch(step.tool))]
        said = [step.text for tool, step in ours if tool == "recall_experiences" and step.role == "result"]
        added = [text for place, text in self.contexts if start < place <= end or place == start == 0]
        receipts = dict.fromkeys(match[1] for text in (*added, *said) for match in _RECEIPT.finditer(text))
        return Session(
            task=next(filter(None, map(text_of, part.messages))).strip()[:MAX_TASK_CHARS],
            messages=messages,
            transcript=transcript,
            receipts=tuple(receipts),
            is_recorded=any(t == "record_trajectory" and s.role == "result" and not s.failed for t, s in ours),
            is_interrupted=False,
            skipped=dict(self.skipped),
        )

    def claude_code(self, entry: dict[str, object]) -> None:
        kind, message = entry.get("type"), entry.get("message")
        follows_compaction, self._is_compacted = self._is_compacted, entry.get("subtype") == "compact_boundary"
        if kind == "attachment":
            attachment = entry.get("attachment")
            if isinstance(attachment, dict) and attachment.get("type") == "queued_command":
                # What the user typed while the assistant worked.
                self.add("user", attachment.get("prompt"))
                return
            # What a hook added to a prompt is kept beside the conversation.
            self.contexts += ((len(self.messages), text) for text in _hook_contexts(attachment))
            self.skipped["attachment"] += 1
        elif not isinstance(kind, str) or kind not in ("user", "assistant") or not isinstance(message, dict):
            self.skipped[_label(kind)] += 1
        elif _is_flagged(entry) or (follows_compaction and kind == "user"):
            self.skipped[OF_THE_CLIENT] += 1
        elif isinstance(uuid := entry.get("uuid"), str) and uuid in self._seen:
            self.skipped["repeated"] += 1
        else:
            self._seen.add(str(uuid))
            self.add(kind, message.get("content"))

    def codex(self, entry: dict[str, object]) -> None:
        # Older versions write the item itself, without its envelope.
        item = entry.get("payload") if entry.get("type") in ("response_item", "event_msg") else entry
        kind = item.get("type") if isinstance(item, dict) else None
        if entry.get("type") == "event_msg":
            self.is_interrupted = self.is_interrupted or kind == "turn_aborted"
            self.skipped["event_msg"] += 1
        elif not isinstance(item, dict) or not isinstance(kind, str) or kind not in _CODEX_ITEMS:
            self.skipped[_label(kind or entry.get("type"))] += 1
        elif kind == "message":
            role = item.get("role")
            if isinstance(role, str) and role in ("user", "assistant"):
                content = item.get("content")
                self.add(role, content if isinstance(content, str) else _codex_blocks(content, role))
            else:
                self.skipped[_label(f"message of {role}")] += 1
        else:
            self.put(_CODEX_ITEMS[kind](item))

    def add(self, role: str, content: object) -> None:
        """Add what somebody said, without what the client put into the user's mouth."""
        if role == "user":
            texts = [content] if isinstance(content, str) else _texts(content)
            if any(map(is_interruption, texts)):
                self.is_interrupted = True
                self.skipped["interruption"] += 1
                return
            self.command = _request_in(texts, plain=not self.has_task)
            content = _of_the_user(content)
            if not content:
                self.skipped[OF_THE_CLIENT] += 1
                return
            if (said := text_of({"role": "user", "content": content})).strip():
                # Praise for what came before the file is no request.
                self.has_task = self.has_task or not self.messages or verdict_of(said) is None
        self.put({"role": role, "content": content})

    def put(self, message: object) -> None:
        try:
            parse_messages([message])
        except InvalidInput:
            self.skipped["message of an unknown shape"] += 1
            return
        if self.command:
            self.messages.append({"role": "user", "content": self.command})
            self.has_task, self.command = True, ""
        self.is_interrupted = False
        self.messages.append(message)


def _is_flagged(entry: Mapping[str, object]) -> bool:
    """Say whether a client marks an entry as something else than a turn of the conversation.

    Its marks are called `isMeta`, `isSidechain`, `isCompactSummary` and more with every version; ordinary turns have
    none that is true.
    """
    origin = entry.get("origin")
    kind = origin.get("kind") if isinstance(origin, dict) else None
    return (isinstance(kind, str) and kind not in ("human", "user")) or any(
        value is True and name.startswith("is") and name[2:3].isupper() for name, value in entry.items()
    )


def _request_in(texts: list[str], *, plain: bool) -> str:
    found = next(filter(None, map(request_in, texts)), "")
    return found if plain or found.startswith("/") else ""


def _label(kind: object) -> str:
    return " ".join(str(kind).split())[:MAX_LABEL_CHARS]


def _within(messages: list[object], max_chars: int) -> tuple[tuple[object, ...], Transcript]:
    """Return the messages with texts as long as they may be for the transcript to fit, and the transcript."""
    cut: list[object] = messages
    for longest in (None, *CUTS):
        cut = messages if longest is None else [_cut(message, longest) for message in messages]
        transcript = parse_messages(cut)
        if len(to_json(transcript)) <= max_chars:
            break
    return tuple(cut), transcript


def _cut(value: object, longest: int) -> object:
    if isinstance(value, str) and len(value) > longest:
        return f"{value[: longest // 2]}\n[… {len(value) - longest:,} characters left out]\n{value[-longest // 2 :]}"
    if isinstance(value, list):
        return [_cut(item, longest) for item in value]
    if isinstance(value, dict):
        return {name: _cut(item, longest) for name, item in value.items()}
    return value


def _of_the_user(content: object) -> object:
    """Return a user's content without what the client added; empty where nothing is left."""
    if isinstance(content, str):
        return words_of(content)
    if not isinstance(content, list):
        return content
    kept: list[object] = []
    for block in content:
        if isinstance(block, dict) and isinstance(text := block.get("text"), str):
            if words := words_of(text):
                kept.append(block | {"text": words})
        else:
            kept.append(block)
    return kept


def _texts(content: object) -> list[str]:
    blocks = content if isinstance(content, list) else []
    return [block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]


def _hook_contexts(attachment: object) -> list[str]:
    """Return what hooks added to a prompt, wherever in the attachment it stands."""
    if isinstance(attachment, str):
        return [attachment]
    values = attachment.values() if isinstance(attachment, dict) else attachment if isinstance(attachment, list) else []
    return [text for value in values for text in _hook_contexts(value)]


def _codex_blocks(content: object, role: str) -> object:
    """Return content blocks of Codex as plain ones; an assistant's stand together, a user's may be of several minds."""
    texts = _texts(content)
    return "\n".join(texts) if role == "assistant" else [{"type": "text", "text": text} for text in texts]


def _codex_call(item: Mapping[str, object]) -> object:
    name: object
    arguments: object
    if item.get("type") == "local_shell_call":
        name, arguments = "shell", json.dumps(item.get("action"))
    elif item.get("type") == "custom_tool_call":
        name, arguments = item.get("name"), json.dumps({"input": item.get("input")})
    else:
        name, arguments = item.get("name"), item.get("arguments")
    call = {"id": item.get("call_id"), "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _codex_result(item: Mapping[str, object]) -> object:
    output = item.get("output")
    if isinstance(output, dict) and "content" in output:
        output = output["content"]
    if not isinstance(output, str):
        output = "\n".join(_texts(output)) or json.dumps(output)
    return {"role": "tool", "tool_call_id": item.get("call_id"), "content": output}


_CODEX_ITEMS: Mapping[str, Callable[[Mapping[str, object]], object]] = {
    "message": dict,
    "function_call": _codex_call,
    "custom_tool_call": _codex_call,
    "local_shell_call": _codex_call,
    "function_call_output": _codex_result,
    "custom_tool_call_output": _codex_result,
}
