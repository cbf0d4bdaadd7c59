"""What Claude Code and Codex write down of a session, read as chat messages.

In:  the bytes of a session file, `~/.claude/projects/*/<session>.jsonl` or `~/.codex/sessions/…/rollout-*.jsonl`.
Out: a `Session`: messages in a shape that `transcript.py` reads, the task, what of our own answers is in it, and how
     many entries of which kind were left out.
Does not know: how the session ended, or the pool.

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from reme_mcp.errors import InvalidInput
from reme_mcp.schema import ID_ALPHABET, ID_LENGTH, MAX_LABEL_CHARS, MAX_TASK_CHARS
from reme_mcp.transcripts.messages import parse_messages
from reme_mcp.transcripts.transcript import Transcript, to_json

Format = Literal["claude-code", "codex"]
# Texts are cut to these lengths, one after the other, until the session is short enough.
CUTS = (20_000, 8_000, 4_000, 2_000, 1_000, 500)

# What the clients put into a user's message, or send as one.
_NOT_THE_USER = re.compile(
    r"\s*(?:<(?:command-|local-command-|bash-|system-reminder|user-prompt-submit-hook|task-notification"
    r"|environment_context|user_instructions|INSTRUCTIONS|turn_aborted|permissions|skills|collaboration_mode)"
    r"|# AGENTS\.md instructions|Caveat: The messages below were generated)"
)
_INTERRUPTED = re.compile(r"\[Request interrupted by user|<turn_aborted>")
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_OURS = re.compile(r"(?:.*[^a-z0-9])?(recall_experiences|record_trajectory)", re.IGNORECASE)
_RECEIPT = re.compile(rf"receipt\\?\"?\s*[=:]\s*\\?\"(r-[{ID_ALPHABET}]{{{ID_LENGTH}}})")


@dataclass(frozen=True, slots=True)
class Session:
    """One session, as an attempt at a task.

    Attributes:
        task: The user's first words, cut to what a task may be.
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


def read(data: bytes, format: Format, *, max_chars: int) -> Session:
    """Read a session file.

    Args:
        data: Of the file.
        format: Whose it is.
        max_chars: Of the transcript's JSON text; long texts are cut in their middle until it fits.

    Raises:
        InvalidInput: There is no message of a user in it.
    """
    reading = _Reading()
    take = reading.claude_code if format == "claude-code" else reading.codex
    for entry in _entries(data, reading.skipped):
        take(entry)
    if not reading.task:
        left_out = ", ".join(f"{count} {kind}" for kind, count in sorted(reading.skipped.items())) or "nothing"
        raise InvalidInput(f"no words of a user are in it (left out: {left_out}); is it a session of {format}?")
    messages, transcript = _within(reading.messages, max_chars)
    ours = [(match[1].lower(), step) for step in transcript.steps if (match := _OURS.fullmatch(step.tool))]
    said = [step.text for tool, step in ours if tool == "recall_experiences" and step.role == "result"]
    receipts = dict.fromkeys(match[1] for text in (*reading.contexts, *said) for match in _RECEIPT.finditer(text))
    return Session(
        task=reading.task[:MAX_TASK_CHARS],
        messages=messages,
        transcript=transcript,
        receipts=tuple(receipts),
        is_recorded=any(t == "record_trajectory" and s.role == "result" and not s.failed for t, s in ours),
        is_interrupted=reading.is_interrupted,
        skipped=dict(reading.skipped),
    )


class _Reading:
    """What has been read of one file so far."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.skipped: Counter[str] = Counter()
        self.contexts: list[str] = []
        self.task = ""
        self.is_interrupted = False
        self._seen: set[str] = set()

    def claude_code(self, entry: dict[str, object]) -> None:
        kind, message = entry.get("type"), entry.get("message")
        if kind == "attachment":
            # What a hook added to a prompt is kept beside the conversation.
            self.contexts += _hook_contexts(entry.get("attachment"))
            self.skipped["attachment"] += 1
        elif not isinstance(kind, str) or kind not in ("user", "assistant") or not isinstance(message, dict):
            self.skipped[_label(kind)] += 1
        elif entry.get("isSidechain") or entry.get("isMeta") or entry.get("isCompactSummary"):
            self.skipped["of the client or a subagent"] += 1
        elif isinstance(uuid := entry.get("uuid"), str) and uuid in self._seen:
            self.skipped["repeated"] += 1
        else:
            self._seen.add(str(uuid))
            self.add(kind, message.get("content"))

    def codex(self, entry: dict[str, object]) -> None:
        # Older versions write the item itself, without its envelope.
        item = entry.get("payload") if entry.get("type") == "response_item" else entry
        kind = item.get("type") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(kind, str) or kind not in _CODEX_ITEMS:
            self.skipped[_label(kind or entry.get("type"))] += 1
            return
        if kind == "message":
            role = item.get("role")
            if isinstance(role, str) and role in ("user", "assistant"):
                self.add(role, _codex_text(item.get("content")))
            else:
                self.skipped[_label(f"message of {role}")] += 1
        else:
            self.put(_CODEX_ITEMS[kind](item))

    def add(self, role: str, content: object) -> None:
        """Add what somebody said, without what the client put into the user's mouth."""
        if role == "user":
            texts = [content] if isinstance(content, str) else _texts(content)
            if any(_INTERRUPTED.match(text.lstrip()) for text in texts):
                self.is_interrupted = True
                self.skipped["interruption"] += 1
                return
            content = _of_the_user(content)
            if not content:
                self.skipped["of the client or a subagent"] += 1
                return
            said = content if isinstance(content, str) else "\n".join(_texts(content))
            self.task = self.task or said.strip()
        self.put({"role": role, "content": content})

    def put(self, message: object) -> None:
        try:
            parse_messages([message])
        except InvalidInput:
            self.skipped["message of an unknown shape"] += 1
            return
        self.is_interrupted = False
        self.messages.append(message)


def _entries(data: bytes, skipped: Counter[str]) -> Iterator[dict[str, object]]:
    # Only \n ends a line; the last one may be torn, where the client is still writing.
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            skipped["line that is no JSON"] += 1
            continue
        if isinstance(entry, dict):
            yield entry
        else:
            skipped["line that is no object"] += 1


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
        return "" if _NOT_THE_USER.match(content) else _REMINDER.sub("", content).strip()
    if not isinstance(content, list):
        return content
    kept: list[object] = []
    for block in content:
        if isinstance(block, dict) and isinstance(text := block.get("text"), str):
            text = "" if _NOT_THE_USER.match(text) else _REMINDER.sub("", text).strip()
            if text:
                kept.append(block | {"text": text})
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


def _codex_text(content: object) -> str:
    return content if isinstance(content, str) else "\n".join(_texts(content))


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
