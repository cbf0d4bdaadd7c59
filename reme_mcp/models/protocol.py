"""The OpenAI protocol, as far as it is spoken here.

In:  the shape that an answer has to have; the body and the headers of what came back.
Out: the options of a request; values with what is used of an answer; what a refusal says and asks for.
Does not know: connections.

Servers differ in what they take. It is found out by asking: a request that is refused is sent again without the part
that the refusal names, or else with the next best thing in the place of the form.

Source: the OpenAI API reference; RFC 9110, §10.2.3; and what servers that only resemble it send instead.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from reme_mcp.errors import EndpointError
from reme_mcp.models.structured import schema_of
from reme_mcp.schema import now

Form = Literal["schema", "schema without bounds", "object", "text"]
# From the strictest to what every server takes.
FORMS: tuple[Form, ...] = ("schema", "schema without bounds", "object", "text")
FORM_WORDS = (
    *("response_format", "response format", "response_schema", "json_schema", "json schema", "json_object"),
    *("json object", "json mode", "structured output", "grammar"),
)
# What servers call what they don't take, and what is wrong with a request as a whole.
NOT_SUPPORTED = (400, 404, 415, 422, 501)
ANY_WORDS = (400, 422)

# --- how a server is asked ---


_SYSTEM_REFUSED = re.compile(
    r"roles? must alternate|alternat\w* (?:user|roles?)"
    r"|(?:system|developer)['\"]? (?:role|message|prompt|instruction)s?\b"
    r"|(?:role|messages?)\W{1,3}system|role.{0,40}\bsystem\b"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Manner:
    """How a server wants to be asked.

    Attributes:
        form: How it is told the form of the answer.
        limit: What it calls the length of an answer.
        temperature: Whether the model takes one.
        system: Whether instructions have a role of their own; else they stand before the first words of the user.
    """

    form: Form = FORMS[0]
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True
    system: bool = True

    def options(self, shape: type[BaseModel], *, max_tokens: int, temperature: float) -> dict[str, object]:
        """Return what a request has beside its model and messages."""
        options: dict[str, object] = {self.limit: max_tokens}
        if self.temperature:
            options["temperature"] = temperature
        if self.form == "object":
            options["response_format"] = {"type": "json_object"}
        elif self.form != "text":
            schema = schema_of(shape, bounds=self.form == "schema")
            options["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": shape.__name__, "strict": True, "schema": schema},
            }
        return options

    def messages(self, system: str, turns: Sequence[Turn]) -> list[Turn]:
        """Return what is said, the instructions first."""
        if self.system:
            return [Turn("system", system), *turns]
        return [Turn("user", f"{system}\n\n{turns[0].content}"), *turns[1:]]

    def after(self, refusal: EndpointError) -> Manner | None:
        """Return the next best manner after a refusal, `None` where there is none.

        A refusal that names a part of the request gets rid of that part. Others need not name the form to mean it, so
        while there is a form every refusal costs it some of its strictness.
        """
        if refusal.status not in NOT_SUPPORTED:
            return None
        said = str(refusal).lower()
        if self.limit == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in said:
            return replace(self, temperature=False)
        if self.system and _SYSTEM_REFUSED.search(said):
            return replace(self, system=False)
        names_form = any(word in said for word in FORM_WORDS)
        if self.form != FORMS[-1] and (names_form or refusal.status in ANY_WORDS):
            return replace(self, form=FORMS[FORMS.index(self.form) + 1])
        if self.system and not names_form and refusal.status in ANY_WORDS:
            return replace(self, system=False)
        return None


# --- what comes back ---


class Vector(BaseModel):
    """One text's vector, and which text's."""

    index: int
    embedding: list[float]


class Vectors(BaseModel):
    """The answer of `POST /v1/embeddings`."""

    data: list[Vector]


def _text(value: object) -> str:
    """Return the text in what a server calls content: text, an object, or a list of parts."""
    match value:
        case str():
            return value
        case [*parts]:
            return "".join(map(_text, parts))
        case {"type": "thinking" | "reasoning" | "redacted_thinking"}:
            return ""
        case {"text": text} | {"content": text}:
            return _text(text)
        case {"arguments": str() | {} as arguments}:
            return _text(arguments)
    return ""


def _thought(value: object) -> str:
    """Return the text of the parts in which a model thinks."""
    match value:
        case [*parts]:
            return "".join(map(_thought, parts))
        case {"type": "thinking" | "reasoning", **rest}:
            return "".join(_text(rest[name]) for name in ("thinking", "reasoning", "text", "content") if name in rest)
    return ""


class Message(BaseModel):
    """What a model says; servers put it in more than one place.

    Attributes:
        content: The answer, whatever it came in.
        reasoning: What stands where a model thinks: some servers take a whole answer for that.
        refusal: Why there is no answer.
    """

    content: str = ""
    reasoning: str = ""
    refusal: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        content, refusal = value.get("content"), value.get("refusal")
        if not isinstance(content, str | list | None):
            return value
        calls = value.get("tool_calls")
        called = [one.get("function") for one in calls if isinstance(one, dict)] if isinstance(calls, list) else []
        thoughts = (_text(value.get("reasoning_content")), _text(value.get("reasoning")), _thought(content))
        return {
            # A server that asks for a form by way of a tool answers with a call of it.
            "content": _text(content) if _text(content).strip() else _text(called),
            "reasoning": next((one for one in thoughts if one.strip()), ""),
            "refusal": refusal if isinstance(refusal, str) and refusal else None,
        }

    @property
    def answer(self) -> str:
        """The text that may hold an answer."""
        return self.content if "{" in self.content or "{" not in self.reasoning else self.reasoning


class Choice(BaseModel):
    """One way on in a conversation, and why it ends there."""

    message: Message
    finish_reason: object = None


class Usage(BaseModel):
    """What a request cost, where a server says so."""

    prompt_tokens: Annotated[int, Field(ge=0)] | None = None
    completion_tokens: Annotated[int, Field(ge=0)] | None = None


def _usage_or_none(value: object) -> Usage | None:
    try:
        return Usage.model_validate(value)
    except ValidationError:
        # An answer is worth more than the count of its tokens, which can be estimated.
        return None


class Completion(BaseModel):
    """The answer of `POST /v1/chat/completions`."""

    choices: list[Choice] = Field(min_length=1)
    usage: Annotated[Usage | None, BeforeValidator(_usage_or_none)] = None


def words_of(body: object) -> str:
    """Return what a refusal says; not the request that some servers quote in it."""
    match body:
        case str():
            return body
        case {"message": str(words)} | {"error": str(words)} | {"detail": str(words)}:
            return words
        case {"error": {"message": str(words)}}:
            return words
        case {"detail": [{"loc": place, "msg": str(words)}, *_]}:  # FastAPI's
            return f"{place}: {words}"
        case None:
            return ""
    return json.dumps(body, ensure_ascii=False)


def retry_after_s(header: str) -> float | None:
    """Return the seconds of a `Retry-After` header (RFC 9110, §10.2.3), `None` where there is none."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - now()).total_seconds()
        except (TypeError, ValueError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
