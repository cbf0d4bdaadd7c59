"""The forms of a model's answers: bounds that small models can't run over, and what the words in them mean here."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from reme_mcp.distill import output_schemas
from reme_mcp.distill.output_schemas import (
    MAX_LESSON_CHARS,
    MAX_SENTENCE_CHARS,
    Differences,
    Lesson,
    Mistakes,
    Patterns,
    Value,
    Verdict,
)
from reme_mcp.recall import rerank
from reme_mcp.recall.rerank import Order, Rewriting
from reme_mcp.schema import ExperienceDraft, Kind

SHAPES: tuple[type[BaseModel], ...] = (Patterns, Mistakes, Differences, Verdict, Order, Rewriting)
# Of the answer's JSON; a model writes up to 2,000 tokens by default.
MAX_ANSWER_CHARS = 6_000


def lesson(**changes: Any) -> Lesson:
    values: dict[str, Any] = {
        "when_to_use": "When a site has to go online.",
        "content": "Build it, then upload the public folder.",
        "keywords": ["deploy"],
        "tools_used": ["build", "upload"],
        "confidence": "high",
    }
    return Lesson(**(values | changes))


def verdict(overall: Value, **changes: Any) -> Verdict:
    criteria = dict.fromkeys(("actionability", "accuracy", "relevance", "clarity", "uniqueness"), "yes")
    return Verdict(**({"gist": "It says how.", **criteria, "overall": overall} | changes))


def patterns(*lessons: Lesson) -> Patterns:
    return Patterns(generalized_task="Publish a site", decisive="Building first.", experiences=list(lessons))


# --- the schema ---


def longest(node: dict[str, Any], definitions: dict[str, Any]) -> int:
    """Return how many characters of JSON the largest value has that a schema allows; fail where there is no bound."""
    if "$ref" in node:
        return longest(definitions[node["$ref"].rpartition("/")[2]], definitions)
    if "enum" in node:
        return max(map(len, node["enum"])) + 2
    match node["type"]:
        case "string":
            return int(node["maxLength"]) + 2
        case "array":
            return int(node["maxItems"]) * (longest(node["items"], definitions) + 2) + 2
        case "object":
            return sum(len(name) + 6 + longest(inner, definitions) for name, inner in node["properties"].items()) + 2
    raise AssertionError(f"{node} has no bound")


@pytest.mark.parametrize("shape", SHAPES)
def test_no_answer_can_run_on(shape: type[BaseModel]) -> None:
    schema = shape.model_json_schema()
    assert longest(schema, schema.get("$defs", {})) <= MAX_ANSWER_CHARS


@pytest.mark.parametrize("shape", [*SHAPES, Lesson])
def test_a_model_has_to_fill_in_everything_and_nothing_else(shape: type[BaseModel]) -> None:
    schema = shape.model_json_schema()
    assert schema["required"] == list(schema["properties"])
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("shape", [Patterns, Mistakes, Differences, Verdict])
def test_no_number_has_to_be_written(shape: type[BaseModel]) -> None:
    assert '"number"' not in str(shape.model_json_schema()).replace("'", '"')


@pytest.mark.parametrize(("shape", "most"), [(Patterns, 3), (Mistakes, 3), (Differences, 2)])
def test_the_counts_of_lessons_are_those_of_the_design(shape: type[BaseModel], most: int) -> None:
    findings = {name: "x" for name in shape.model_fields if name != "experiences"}
    for count in (1, most):
        shape(**findings, experiences=[lesson()] * count)
    for count in (0, most + 1):
        with pytest.raises(ValidationError):
            shape(**findings, experiences=[lesson()] * count)


# --- drafts ---


@pytest.mark.parametrize("kind", ["success", "failure", "comparative"])
def test_a_lesson_becomes_a_draft_that_the_gate_takes(kind: Kind) -> None:
    (raw,) = output_schemas.to_drafts(patterns(lesson()), kind, ("upload", "build"))
    assert ExperienceDraft.model_validate(raw) == ExperienceDraft(
        when_to_use="When a site has to go online.",
        content="Build it, then upload the public folder.",
        keywords=["deploy"],
        tools_used=["upload", "build"],
        confidence=0.7,
        kind=kind,
        generalized_task="Publish a site",
    )


@pytest.mark.parametrize(("word", "number"), [("low", 0.3), ("medium", 0.5), ("high", 0.7), ("certain", 0.9)])
def test_confidence_is_a_word_for_a_number(word: str, number: float) -> None:
    (raw,) = output_schemas.to_drafts(patterns(lesson(confidence=word)), "success", ())
    assert raw["confidence"] == number


def test_tools_that_nobody_called_and_what_stands_twice_are_left_out() -> None:
    one = lesson(
        tools_used=["call build", "invented", "`build`()", "uploads"], keywords=["deploy", " ", "deploy", "site"]
    )
    (raw,) = output_schemas.to_drafts(patterns(one), "success", ("build", "upload"))
    assert raw["tools_used"] == ["build"]
    assert raw["keywords"] == ["deploy", "site"]


def test_the_longest_lesson_that_a_form_takes_is_a_draft() -> None:
    one = lesson(
        when_to_use="w" * MAX_SENTENCE_CHARS,
        content="c" * MAX_LESSON_CHARS,
        keywords=["k" * 40] * 5,
        tools_used=["t" * 40] * 5,
    )
    (raw,) = output_schemas.to_drafts(patterns(one), "success", ("t" * 40,))
    ExperienceDraft.model_validate(raw)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Build it. Then upload it", "Build it. Then upload it"),
        ("Build it first. Then upl", "Build it first. Then upl"),
        ("Build it first. Then uplo", "Build it first."),
        ("Build it first! Then uploa", "Build it first!"),
        ("Build it first, then uploa", "Build it first, then …"),
        ("Build it, then upload it.", "Build it, then upload it."),
        ("先构建。然后上传公共文件夹并且清除缓存然后查看页面是不是", "先构建。"),
    ],
)
def test_a_text_that_the_form_cut_off_ends_with_its_last_whole_sentence(text: str, kept: str) -> None:
    assert output_schemas.whole(text, 26) == kept


@given(st.text(max_size=30))
def test_a_text_is_never_longer_than_its_form_allows(text: str) -> None:
    assert len(output_schemas.whole(text, 30)) <= 30
    assert output_schemas.whole(text[:20], 30) == text[:20].strip()


# --- the verdict ---


def test_a_verdict_is_told_with_every_criterion() -> None:
    assert output_schemas.summary(verdict("weak", actionability="no", accuracy="partly")) == (
        "weak (actionability no, accuracy partly, relevance yes, clarity yes, uniqueness yes)"
    )


# --- the order ---


@pytest.mark.parametrize(
    ("answer", "ranks"),
    [
        (["2", "1", "3"], [1, 0, 2]),
        (["3"], [2, 0, 1]),
        (["3", "3", "20", "3"], [2, 0, 1]),
        ([], [0, 1, 2]),
    ],
)
def test_an_order_holds_every_candidate_once(answer: list[Any], ranks: list[int]) -> None:
    assert rerank.ranks(Order(order=answer), 3) == ranks


@given(st.lists(st.integers(1, 20), max_size=20), st.integers(0, 20))
def test_any_order_is_a_permutation(answer: list[int], count: int) -> None:
    order = Order.model_validate({"order": [str(place) for place in answer]})
    assert sorted(rerank.ranks(order, count)) == list(range(count))
