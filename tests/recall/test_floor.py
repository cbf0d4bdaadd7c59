"""The floor: which experiences are about a task, each by itself, by its words and by its meaning."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from reme_mcp.config.settings import RecallSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.models.embedder import Unrelated
from reme_mcp.recall.floor import BEHIND, CLEAR, MIN_TEXT_RELEVANCE, Thresholds, Verdict, verdicts
from reme_mcp.recall.ranking import Hits, rank
from reme_mcp.schema import Experience
from reme_mcp.text.fields import search_text
from reme_mcp.text.words import said
from tests.fakes import LEARNED, draft, experience

BLANK = {"when_to_use": "", "generalized_task": "", "keywords": (), "task": ""}
ZEBRAS = experience("e-a", content="Feed the zebras hay at dawn", **BLANK)
MODEL = Unrelated(mean=0.2, spread=0.1)
LIMITS = Thresholds(clear=0.6, unrelated=0.4, behind=0.1)


def everything(_: str) -> bool:
    return True


def english(language: str) -> bool:
    return language == "english"


def judged(
    query: str,
    *experiences: Experience,
    words: dict[str, float] | None = None,
    cosines: dict[str, float] | None = None,
    thresholds: Thresholds | None = LIMITS,
    reads: Callable[[str], bool] = everything,
) -> dict[str, Verdict]:
    """Return the verdicts by id; `words` are BM25 values, and all experiences are equally good where there are none."""
    found = words if words is not None else {one.id: 1.0 for one in experiences}
    text = Hits.of_text(sorted(found.items(), key=lambda pair: -pair[1]), reach=50)
    vector = None if cosines is None else Hits.of_numbers(sorted(cosines.items(), key=lambda pair: -pair[1]))
    its = {one.id: said(search_text(one)) for one in experiences}
    ranked = rank(experiences, text, vector, said=its, tools=(), base_rate=0.5, at=LEARNED + timedelta(days=1))
    given = verdicts(query, ranked, vector, thresholds, said=its, reads=reads)
    return {item.experience.id: verdict for item, verdict in zip(ranked, given, strict=True)}


def passing(query: str, *experiences: Experience, **given: object) -> list[str]:
    return sorted(id for id, verdict in judged(query, *experiences, **given).items() if verdict.passes)  # type: ignore[arg-type]  # passed on as they came


# --- by words ---


@pytest.mark.parametrize(
    ("query", "is_about_it"),
    [
        ("zebras", True),  # the only word
        ("giraffes", False),
        ("zebra feeding", True),  # both words, in other forms
        ("zebra riding", False),  # one of two
        ("feed giraffes and zebras", True),  # two of three
        ("feed zebras, lions, tigers, bears, wolves, foxes, hares, mice, rats, bats, cats, dogs", True),  # two of 13
        ("feed zebras, lions, tigers, bears, wolves, foxes, hares, mice, rats, bats, cats, dogs, cows", False),
        ("how should I please do it for the", False),  # nothing but common words
        ("wie sind die zebras", True),  # the only word that is none, in another language
        ("", False),
    ],
)
def test_without_vectors_shared_words_decide(query: str, is_about_it: bool) -> None:
    assert passing(query, ZEBRAS) == (["e-a"] if is_about_it else [])


@pytest.mark.parametrize(
    ("least", "is_about_it"), [(MIN_TEXT_RELEVANCE - 0.01, False), (MIN_TEXT_RELEVANCE, True), (0.9, True)]
)
def test_what_full_text_search_found_far_below_its_best_is_not_about_it(least: float, is_about_it: bool) -> None:
    other = experience("e-b", content="Feed the zebras grass", **BLANK)
    found = passing("feed zebras", ZEBRAS, other, words={"e-a": 10.0, "e-b": 10.0 * least})
    assert found == ["e-a", *(["e-b"] if is_about_it else [])]


def test_what_is_quoted_in_a_query_says_nothing_about_its_subject() -> None:
    assert passing("rename the folder 'feed zebras hay'", ZEBRAS) == []
    assert passing("feed zebras, not the folder 'x'", ZEBRAS) == ["e-a"]


def test_one_that_answers_lets_no_other_pass() -> None:
    other = experience("e-b", content="Boil the eggs", **BLANK)
    assert passing("feed zebras", other, ZEBRAS) == ["e-a"]


@pytest.mark.parametrize(
    ("lesson", "query"),
    [
        ("Die Tür ist mit dem Schlüssel nicht zu öffnen, und der Motor ist aus", "wie ist das Wetter und der Wind"),
        ("Le moteur ne démarre pas si la porte est ouverte", "quelle est la météo pour demain dans le sud"),
        ("El motor no arranca si la puerta está abierta", "cómo es el tiempo en la playa para mañana"),
    ],
)
def test_grammar_of_other_languages_is_no_subject(lesson: str, query: str) -> None:
    stored = experience("e-a", content=lesson, **BLANK)
    assert passing(query, stored) == []
    assert passing(lesson, stored) == ["e-a"]


# --- by meaning ---


@pytest.mark.parametrize(
    ("query", "cosine", "is_about_it"),
    [
        ("giraffes", 0.601, True),
        ("giraffes", 0.6, True),
        ("giraffes", 0.599, False),
        ("zebras", 0.599, True),
        ("zebras", 0.4, True),
        ("zebras", 0.399, False),
    ],
)
def test_with_vectors_meaning_decides_and_words_help_a_little(query: str, cosine: float, is_about_it: bool) -> None:
    assert passing(query, ZEBRAS, cosines={"e-a": cosine}) == (["e-a"] if is_about_it else [])


@pytest.mark.parametrize(("found", "cosine", "is_about_it"), [
    (1.0, 0.41, True), (0.5, 0.51, True), (0.5, 0.49, False), (0.1, 0.57, False), (0.1, 0.59, True),
])  # fmt: skip
def test_the_less_full_text_search_found_it_the_more_similar_it_has_to_be(
    found: float, cosine: float, is_about_it: bool
) -> None:
    other = experience("e-b", content="Feed the zebras grass", **BLANK)
    given = passing("feed zebras", other, words={"e-a": 10.0, "e-b": 10.0 * found}, cosines={"e-b": cosine})
    assert given == (["e-b"] if is_about_it else [])


@pytest.mark.parametrize(("cosine", "content", "passes"), [
    (0.71, "Boil the eggs", True), (0.69, "Boil the eggs", False), (0.51, "Feed the zebras grass", True),
    (0.49, "Feed the zebras grass", False),
])  # fmt: skip
def test_where_there_is_an_answer_all_others_have_to_be_the_more_similar(
    cosine: float, content: str, passes: bool
) -> None:
    other = experience("e-b", content=content, **BLANK)
    # Without words 0.6 would be enough, with them 0.4.
    found = passing("feed zebras", ZEBRAS, other, cosines={"e-a": 0.8, "e-b": cosine})
    assert found == ["e-a", *(["e-b"] if passes else [])]


def test_too_few_words_in_common_are_worth_nothing() -> None:
    assert passing("zebra riding", ZEBRAS, cosines={"e-a": 0.59}) == []
    assert passing("feed zebras", ZEBRAS, cosines={"e-a": 0.59}) == ["e-a"]


def test_what_the_vector_search_did_not_return_is_no_more_similar_than_its_last_hit() -> None:
    assert passing("feed zebras", ZEBRAS, cosines={"e-b": 0.7, "e-c": 0.45}) == ["e-a"]
    assert passing("feed zebras", ZEBRAS, cosines={"e-b": 0.7, "e-c": 0.1}) == []


GERMAN = experience("e-a", content="Die Zebras sind am Morgen mit dem Heu zu füttern", **BLANK)


@pytest.mark.parametrize(
    ("query", "reads", "passes"),
    [
        ("wie ist das mit den Giraffen", english, False),
        ("wie ist das mit den Giraffen", everything, True),
        ("wie ist das mit den Zebras im Zoo", english, True),  # one word in common is enough
        ("giraffes", english, False),  # the lesson is in the other language
    ],
)
def test_in_a_language_that_the_model_was_not_made_for_its_word_alone_is_not_taken(
    query: str, reads: Callable[[str], bool], passes: bool
) -> None:
    assert passing(query, GERMAN, cosines={"e-a": 0.7}, reads=reads) == (["e-a"] if passes else [])


# --- thresholds ---


def test_the_thresholds_follow_from_the_cosines_of_unrelated_texts() -> None:
    limits = Thresholds.of(MODEL)
    assert limits is not None
    assert limits.clear == pytest.approx(0.2 + CLEAR * 0.1)
    assert limits.unrelated == pytest.approx(0.2)
    assert limits.behind == pytest.approx(BEHIND * 0.1)
    assert limits.needed(0.5, limits.clear) == pytest.approx((limits.clear + limits.unrelated) / 2)


def test_a_threshold_that_somebody_has_set_moves_the_lower_one_along() -> None:
    limits = Thresholds.of(MODEL, min_similarity=0.9)
    assert limits is not None
    assert limits.needed(0, 0.9) == 0.9
    assert limits.needed(1, 0.9) == pytest.approx(0.9 - CLEAR * 0.1)
    alone = Thresholds.of(None, min_similarity=0.9)
    assert alone is not None
    assert alone.needed(1, 0.9) < alone.needed(0, 0.9) == 0.9


def test_where_nothing_is_known_of_a_model_every_similarity_is_enough() -> None:
    assert Thresholds.of(None) is None
    assert passing("giraffes", ZEBRAS, cosines={"e-a": 0.1}, thresholds=None) == ["e-a"]


# --- why ---


def test_each_verdict_says_what_it_compared() -> None:
    assert "1 of the task's 2 telling words (2 needed)" in judged("zebra riding", ZEBRAS)["e-a"].why
    assert "cosine 0.59 (0.60 needed)" in judged("giraffes", ZEBRAS, cosines={"e-a": 0.59})["e-a"].why
    assert "cosine 0.62 (0.60 needed)" in judged("giraffes", ZEBRAS, cosines={"e-a": 0.62})["e-a"].why
    both = judged("feed zebras", ZEBRAS, cosines={"e-a": 0.45})["e-a"].why
    assert both == "cosine 0.45 (0.40 needed), 2 of the task's 2 telling words (2 needed), text relevance 1.00"


# --- in a recall ---


@pytest.mark.anyio
@pytest.mark.parametrize(("floor", "shown"), [(True, 0), (False, 1)])
async def test_below_the_floor_nothing_is_recalled(settings: Settings, floor: bool, shown: int) -> None:
    changed = settings.model_copy(update={"recall": RecallSettings(floor=floor)})
    async with Memory.open(changed) as memory:
        await memory.record("publish a site", outcome="success", experiences=[draft()], source="test")
        recalled = await memory.recall("publish a cookery book about soup", source="test")
        assert len(recalled.experiences) == shown
        assert len((await memory.recall("publish my site", source="test")).experiences) == 1
