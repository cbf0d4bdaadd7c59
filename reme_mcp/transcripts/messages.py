"""From chat messages of any shape to a `Transcript`.

In:  messages as OpenAI's chat completions or Anthropic's Messages API write them (one list may mix both), or
     plain text.
Out: a `Transcript`, or an `InvalidInput` that says which message is wrong.
Does not know: the task, its outcome, what is secret or worth learning.

Sources: https://platform.openai.com/docs/api-reference/chat/create (roles, content parts, `tool_calls`,
`function_call`, `refusal`) and https://docs.anthropic.com/en/api/messages (content blocks).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Literal

from reme_mcp.errors import InvalidInput
from reme_mcp.schema import clean_text
from reme_mcp.transcripts.transcript import MAX_SHOWN_CHARS, Step, Transcript, compact_json, quoted_value

Speaker = Literal["system", "user", "assistant"]

_SPEAKERS: dict[str, Speaker] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ROLES = (*_SPEAKERS, "tool", "function")
_PLAIN_NAMES = {"image_url": "image", "input_audio": "audio"}  # of blocks whose type differs between the two APIs
_DATA_URL = re.compile(r"data:(?:(image|audio|video)|[a-z]+)/[\w.+-]+(?:;[\w=.-]+)*;base64,[\w+/=-]+", re.I | re.A)


def parse_messages(messages: object) -> Transcript:
    """Read chat messages in OpenAI's shape, Anthropic's, or a mix.

    Raises:
        InvalidInput: `messages` or a part of it has a shape that neither API writes; the text says where.
    """
    reading = _Reading()
    values = _list(messages, "messages", "a list of message objects")
    if not values:
        raise InvalidInput("messages is empty; send at least one message, or leave it out")
    for index, value in enumerate(values):
        reading.where = f"messages[{index}]"
        reading.message(value)
    return reading.transcript(messages=len(values))


def parse_steps(text: str) -> Transcript:
    """Take an account in plain text as one step of the assistant.

    Raises:
        InvalidInput: The text is blank.
    """
    reading = _Reading()
    reading.where = "steps"
    reading.say("assistant", [reading.clean(text)])
    if not reading.steps:
        raise InvalidInput("steps is empty; say what was done, or leave it out")
    return reading.transcript(messages=0)


def is_failure(text: str, is_error: bool) -> bool:
    """Say whether a tool's result is an error.

    It is if the client says so (`is_error`), if the text is a JSON object whose `error` is truthy, or if it starts with
    "error" or "traceback" in any case. A tool that reports trouble in other words is not caught.
    """
    if is_error or text.lower().startswith(("error", "traceback")):
        return True
    try:
        value = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value.get("error"))


class _Reading:
    """What one parse has read so far.

    Attributes:
        where: The message being read, for marks.
        tools: Tool name of every call seen, by call id.
        waiting: Where the calls stand that have no result yet, by call id.
    """

    def __init__(self) -> None:
        self.where = ""
        self.steps: list[Step] = []
        self.marks: list[str] = []
        self.thinking = 0
        self.tools: dict[str, str] = {}
        self.waiting: dict[str, str] = {}

    def transcript(self, messages: int) -> Transcript:
        for call_id, where in self.waiting.items():
            self.mark_unanswered(call_id, where)
        if self.thinking:
            self.marks.append(f"{self.thinking} thinking block{'s' if self.thinking > 1 else ''} dropped")
        return Transcript(steps=tuple(self.steps), messages=messages, marks=tuple(self.marks))

    def message(self, value: object) -> None:
        where = self.where
        fields = _object(value, where)
        role = fields.get("role")
        content = fields.get("content")
        if not isinstance(role, str) or role not in _ROLES:
            raise _wrong(f"{where}.role", role, ", ".join(_ROLES))
        if role == "tool":
            call_id = _string(fields.get("tool_call_id"), f"{where}.tool_call_id")
            self.result(call_id, content, False, f"{where}.content")
        elif role == "function":
            self.result(_function_id(fields, where), content, False, f"{where}.content")
        else:
            self.speech(_SPEAKERS[role], content, f"{where}.content")
            self.extras(_SPEAKERS[role], fields, where)

    def speech(self, role: Speaker, content: object, where: str) -> None:
        """Read blocks in their order: texts that stand together become one step."""
        texts: list[str] = []
        for kind, block, at in _blocks(content, where):
            if kind not in ("tool_use", "tool_result"):
                texts.append(self.text(kind, block, at))
                continue
            self.say(role, texts)
            texts = []
            if kind == "tool_use":
                self.call(_string(block.get("id"), f"{at}.id"), block, "input", at)
            else:
                call_id = _string(block.get("tool_use_id"), f"{at}.tool_use_id")
                is_error = _flag(block.get("is_error"), f"{at}.is_error")
                self.result(call_id, block.get("content"), is_error, f"{at}.content")
        self.say(role, texts)

    def extras(self, role: Speaker, fields: dict[str, object], where: str) -> None:
        """Read what OpenAI writes beside `content`: a refusal, spoken audio, and calls."""
        if fields.get("refusal") is not None:
            self.say(role, [self.text("refusal", fields, where)])
        if fields.get("audio") is not None:
            self.say(role, [self.drop("audio")])
        if fields.get("tool_calls") is not None:
            calls = _list(fields["tool_calls"], f"{where}.tool_calls", "a list of tool calls")
            for index, value in enumerate(calls):
                self.tool_call(value, f"{where}.tool_calls[{index}]")
        if fields.get("function_call") is not None:
            at = f"{where}.function_call"
            function = _object(fields["function_call"], at)
            self.call(_function_id(function, at), function, "arguments", at)

    def tool_call(self, value: object, where: str) -> None:
        fields = _object(value, where)
        call_id = _string(fields.get("id"), f"{where}.id")
        kind, arguments = ("custom", "input") if fields.get("type") == "custom" else ("function", "arguments")
        self.call(call_id, _object(fields.get(kind), f"{where}.{kind}"), arguments, f"{where}.{kind}")

    def call(self, call_id: str, fields: dict[str, object], arguments: str, where: str) -> None:
        """Add a call whose tool is `fields["name"]` and whose arguments are `fields[arguments]`."""
        tool = _name(fields.get("name"), f"{where}.name")
        text = self.clean(_arguments(fields.get(arguments), f"{where}.{arguments}"))
        self.steps.append(Step("call", text, tool))
        if call_id in self.waiting:
            self.mark_unanswered(call_id, self.waiting[call_id])
        self.tools[call_id] = tool
        self.waiting[call_id] = self.where

    def result(self, call_id: str, content: object, is_error: bool, where: str) -> None:
        text = _joined([self.text(kind, block, at) for kind, block, at in _blocks(content, where)])
        tool = ""
        if call_id in self.tools:
            tool = self.tools[call_id]
            self.waiting.pop(call_id, None)
        else:
            self.marks.append(f"result of an unknown call {quoted_value(call_id)} ({self.where})")
        self.steps.append(Step("result", text, tool, is_failure(text, is_error)))

    def say(self, role: Speaker, texts: list[str]) -> None:
        if text := _joined(texts):
            self.steps.append(Step(role, text))

    def text(self, kind: str, block: dict[str, object], where: str) -> str:
        """Return a block as text, with `[… dropped]` in the place of what is none."""
        if kind in ("text", "refusal"):
            return self.clean(_string(block.get(kind), f"{where}.{kind}"))
        if kind in ("thinking", "redacted_thinking"):
            self.thinking += 1
            return ""
        return self.drop(_PLAIN_NAMES.get(kind, kind))

    def clean(self, text: str) -> str:
        """Return clean text without the files that it holds as data: URLs."""
        return _DATA_URL.sub(lambda url: self.drop(url[1].lower() if url[1] else "file"), clean_text(text))

    def drop(self, kind: str) -> str:
        self.marks.append(f"{kind} dropped ({self.where})")
        return f"[{kind} dropped]"

    def mark_unanswered(self, call_id: str, where: str) -> None:
        self.marks.append(f"call {quoted_value(call_id)} of {self.tools[call_id]} got no result ({where})")


def _blocks(content: object, where: str) -> Iterator[tuple[str, dict[str, object], str]]:
    """Yield type, block and place of every content block; a bare text is one, null is none."""
    if content is None:
        return
    if isinstance(content, str):
        yield "text", {"text": content}, where
        return
    for index, value in enumerate(_list(content, where, "text, null or a list of content blocks")):
        at = f"{where}[{index}]"
        block = _object(value, at)
        yield _name(block.get("type"), f"{at}.type")[:MAX_SHOWN_CHARS], block, at


def _function_id(fields: dict[str, object], where: str) -> str:
    """Return what stands in for the id that the old `function_call` and its result don't have."""
    return f"function {_name(fields.get('name'), f'{where}.name')}"


def _arguments(value: object, where: str) -> str:
    if isinstance(value, str):
        try:
            return compact_json(json.loads(value))
        except (ValueError, RecursionError):
            return value  # a model wrote it; what it got wrong may be the lesson
    try:
        return compact_json(_object(value, where, "an object, or its JSON text"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise _wrong(where, value, "an object that JSON can hold, or its JSON text") from exc


def _joined(texts: list[str]) -> str:
    return "\n".join(text for text in texts if text)


def _object(value: object, where: str, allowed: str = "an object") -> dict[str, object]:
    if not isinstance(value, dict):
        raise _wrong(where, value, allowed)
    return value


def _list(value: object, where: str, allowed: str) -> list[object]:
    if not isinstance(value, list):
        raise _wrong(where, value, allowed)
    return value


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(where, value, "text")
    return value


def _name(value: object, where: str) -> str:
    """Return a tool's or a block type's name, on one line."""
    name = " ".join(clean_text(_string(value, where)).split())
    if not name:
        raise _wrong(where, value, "text that is not blank")
    return name


def _flag(value: object, where: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _wrong(where, value, "true, false or null")
    return value is True


def _wrong(where: str, value: object, allowed: str) -> InvalidInput:
    return InvalidInput(f"{where} is {quoted_value(value)}; allowed: {allowed}")
