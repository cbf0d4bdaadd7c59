"""The form of a model's answer: the JSON schema that it is asked to fill in, and the value that it made of it.

In:  a pydantic model; the text that a language model wrote.
Out: a schema that strict servers take; a valid value, or an `AnswerError` with words that the model can act on.
Does not know: servers, prompts, or how often it is asked.

Source of what strict means: the OpenAI guide to structured outputs, "Supported schemas".
"""

from __future__ import annotations

import json
import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from reme_mcp.errors import AnswerError

T = TypeVar("T", bound=BaseModel)
JsonSchema = dict[str, object]

# What servers without a full grammar refuse in a schema.
BOUNDS = frozenset(
    (
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems", "uniqueItems"),
    )
)
NOISE = frozenset({"title", "default", "examples"})
NAMED = frozenset({"properties", "$defs"})
_OBJECT = re.compile(r"\{\s*[\"}]")
# Small models write line breaks into their strings.
_DECODER = json.JSONDecoder(strict=False)
_THOUGHT_ENDS = re.compile(r"</[\w-]+>|\[/[A-Za-z_]+\]|<\|[\w-]+\|>")
MAX_OBJECTS = 200
MAX_PROBLEMS = 5


def schema_of(shape: type[BaseModel], *, bounds: bool = True) -> JsonSchema:
    """Return the JSON schema of a shape: every property required, no other allowed.

    Args:
        shape: What an answer has to be.
        bounds: Whether lengths, ranges and patterns stand in it.
    """
    return _strict(shape.model_json_schema(), bounds)


def _strict(node: JsonSchema, bounds: bool) -> JsonSchema:
    if "$ref" in node:
        return {"$ref": node["$ref"]}  # strict servers allow nothing beside it
    made: JsonSchema = {}
    for key, value in node.items():
        if key in NOISE or (key in BOUNDS and not bounds):
            continue
        if key in NAMED and isinstance(value, dict):
            made[key] = {name: _strict(inner, bounds) for name, inner in value.items()}
        elif isinstance(value, dict) and key != "const":
            made[key] = _strict(value, bounds)
        elif isinstance(value, list) and key.endswith("Of"):
            made[key] = [_strict(inner, bounds) for inner in value]
        else:
            made[key] = value
    if isinstance(properties := node.get("properties"), dict):
        made |= {"additionalProperties": False, "required": list(properties)}
    return made


def read(text: str, shape: type[T], prompt: str) -> T:
    """Return the value that an answer holds: the first JSON object in it that fits, wherever it stands.

    Models think aloud before it, in marks of many kinds, put it into fences, wrap it into another object and talk after
    it. Of what stands before the end of a thought (`</think>`, `[/THINK]`, `<|end|>`) only that counts which nothing
    after it replaces.

    Args:
        text: The answer.
        shape: What it has to be, checked strictly.
        prompt: That led to it. A model that repeats it must not get its example through.

    Raises:
        AnswerError: It is no such value; the message, said of the answer, says why.
    """
    answer = text.strip().removeprefix("\ufeff").strip()
    if not answer:
        raise AnswerError("was empty")
    fitting: list[tuple[int, T]] = []
    trouble: ValidationError | None = None
    is_repeated = answer in prompt
    starts = [match.start() for match in _OBJECT.finditer(answer)]
    outside = answer
    end = 0
    for start in starts[:MAX_OBJECTS]:
        if start < end:
            continue
        try:
            value, after = _DECODER.raw_decode(answer, start)
        except (ValueError, RecursionError):
            continue
        if answer[start:after] in prompt:
            is_repeated = True
            continue
        try:
            fitting.append((start, shape.model_validate_json(json.dumps(value), strict=True)))
        except ValidationError as exc:
            # What stands inside it may still fit.
            trouble = trouble or exc
            continue
        end = after
        outside = outside[:start] + " " * (after - start) + outside[after:]
    if fitting:
        for mark in reversed(list(_THOUGHT_ENDS.finditer(outside))):
            if (behind := next((value for start, value in fitting if start >= mark.end()), None)) is not None:
                return behind
        return fitting[0][1]
    if is_repeated:
        raise AnswerError("repeats the prompt")
    if trouble is None:
        thoughts = list(_THOUGHT_ENDS.finditer(answer))
        answer = answer[thoughts[-1].end() :].strip() if thoughts else answer
        if not answer:
            raise AnswerError("was empty")
        try:
            return shape.model_validate_json(answer, strict=True)
        except ValidationError as exc:
            trouble = exc
    problems = trouble.errors(include_url=False, include_context=False, include_input=False)
    words = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}".removeprefix(": ") for one in problems]
    more = f"; and {len(words) - MAX_PROBLEMS} more" if len(words) > MAX_PROBLEMS else ""
    raise AnswerError("does not fit: " + "; ".join(words[:MAX_PROBLEMS]) + more) from trouble


# --- for the model behind the server: the form of its answer ---

_ANSWER_FORM = "{system}\n\nAnswer with nothing but one JSON object that fits this JSON schema:\n{schema}"
_ASK_AGAIN = """\
Your answer can't be used: it {problem}
Answer once more, with nothing but one JSON object that fits this JSON schema:
{schema}"""


def with_form(system: str, schema: str) -> str:
    """Return a system prompt that says in words which form the answer has to have."""
    return _ANSWER_FORM.format(system=system, schema=schema)


def ask_again(problem: str, schema: str) -> str:
    """Return what is said to a model whose answer could not be used; `problem` goes on after "it"."""
    return _ASK_AGAIN.format(problem=problem, schema=schema)
