"""The OpenAI protocol, as far as it is spoken here.

In:  the shape that an answer has to have; the body and the headers of what came back.
Out: the options of a request; values with what is used of an answer; what a refusal says and asks for.
Does not know: connections.

Servers differ in what they take. It is found out by asking: a request that is refused by the name of one of its parts
is sent again with the next best thing in its place.

Source: the OpenAI API reference; RFC 9110, §10.2.3; and what servers that only resemble it send instead.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Literal

from pydantic import BaseModel, Field

from reme_mcp.errors import EndpointError
from reme_mcp.models.structured import schema_of
from reme_mcp.schema import now

Form = Literal["schema", "schema without bounds", "object", "text"]
# From the strictest to what every server takes.
FORMS: tuple[Form, ...] = ("schema", "schema without bounds", "object", "text")
FORM_WORDS = (
    *("response_format", "response format", "json_schema", "json schema", "json_object", "json object", "json mode"),
    *("structured output", "grammar"),
)
NOT_SUPPORTED = (400, 404, 422, 501)

# --- how a server is asked ---


@dataclass(frozen=True, slots=True)
class Manner:
    """How a server wants to be asked.

    Attributes:
        form: How it is told the form of the answer.
        limit: What it calls the length of an answer.
        temperature: Whether the model takes one.
    """

    form: Form = FORMS[0]
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    temperature: bool = True

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

    def after(self, refusal: EndpointError) -> Manner | None:
        """Return the next best manner if the refusal names a part of this one, else `None`."""
        if refusal.status not in NOT_SUPPORTED:
            return None
        said = str(refusal).lower()
        if self.limit == "max_tokens" and "max_completion_tokens" in said:
            return replace(self, limit="max_completion_tokens")
        if self.temperature and "temperature" in said:
            return replace(self, temperature=False)
        if self.form != FORMS[-1] and any(word in said for word in FORM_WORDS):
            return replace(self, form=FORMS[FORMS.index(self.form) + 1])
        return None


# --- what comes back ---


class Vector(BaseModel):
    """One text's vector, and which text's."""

    index: int
    embedding: list[float]


class Vectors(BaseModel):
    """The answer of `POST /v1/embeddings`."""

    data: list[Vector]


class Message(BaseModel):
    """What a model says."""

    content: str | None = None
    refusal: str | None = None


class Choice(BaseModel):
    """One way on in a conversation, and why it ends there."""

    message: Message
    finish_reason: str | None = None


class Usage(BaseModel):
    """What a request cost, where a server says so."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Completion(BaseModel):
    """The answer of `POST /v1/chat/completions`."""

    choices: list[Choice] = Field(min_length=1)
    usage: Usage | None = None


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
