"""The floor: which experiences are about a task, each by itself, by its words and by its meaning."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from reme_mcp.config.settings import RecallSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.models.embedder import Unrelated
from reme_mcp.recall.evidence import ENOUGH
from reme_mcp.recall.floor import BY_WORDS, CLEAR, FOREIGN, Thresholds, Verdict, verdicts
from reme_mcp.recall.ranking import REACH, Hits, rank
from reme_mcp.schema import Experience
from reme_mcp.text.fields import search_text
from reme_mcp.text.words import text_words
from tests.fakes import LEARNED, draft, experience

BLANK = {"when_to_use": "", "generalized_task": "", "keywords": (), "task": ""}
ZEBRAS = experience("e-a", content="Feed the zebras hay at dawn", **BLANK)
MODEL = Unrelated(mean=0.2, spread=0.1)
LIMITS = Thresholds(clear=0.6, spread=0.1)
# Both of its words are enough; what one of two weighs.
BOTH, ONE = 0.6 - 0.1 * BY_WORDS * ENOUGH, 0.6 - 0.1 * BY_WORDS * 3.70


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
    its = {one.id: text_words(search_text(one)) for one in experiences}
    ranked = rank(experiences, text, vector, words=its, tools=(), base_rate=0.5, at=LEARNED + timedelta(days=1))
    given = verdicts(query, ranked, vector, thresholds, words=its, reads=reads)
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
        ("feed zebras, lions, tigers, bears, wolves, foxes, hares, mice, rats, bats", True),  # two of 11
        ("feed zebras, lions, tigers, bears, wolves, foxes, hares, mice, rats, bats, cats, dogs, cows", False),
        ("how should I please do it for the", False),  # nothing but common words
        ("wie sind die zebras", True),  # the only word that is none, in another language
        ("", False),
    ],
)
def test_without_vectors_shared_words_decide(query: str, is_about_it: bool) -> None:
    assert passing(query, ZEBRAS) == (["e-a"] if is_about_it else [])


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
        ("zebras", BOTH + 0.001, True),
        ("zebras", BOTH - 0.001, False),
        ("zebra riding", ONE + 0.001, True),
        ("zebra riding", ONE - 0.001, False),
    ],
)
def test_with_vectors_meaning_decides_and_words_help(query: str, cosine: float, is_about_it: bool) -> None:
    assert passing(query, ZEBRAS, cosines={"e-a": cosine}) == (["e-a"] if is_about_it else [])


def test_what_the_vector_search_did_not_return_is_no_more_similar_than_its_last_hit() -> None:
    others = [f"e-{number}" for number in range(REACH)]
    assert passing("feed zebras", ZEBRAS, cosines={"e-b": 0.7, **dict.fromkeys(others, 0.55)}) == ["e-a"]
    assert passing("feed zebras", ZEBRAS, cosines={"e-b": 0.7, **dict.fromkeys(others, 0.1)}) == []


def test_what_has_no_vector_yet_is_judged_by_its_words() -> None:
    assert passing("where do giraffes sleep", ZEBRAS, cosines={"e-b": 0.9}) == []
    assert passing("feed zebras", ZEBRAS, cosines={"e-b": 0.9}) == passing("feed zebras", ZEBRAS, cosines=None)


GERMAN = experience("e-a", content="Die Zebras sind am Morgen mit dem Heu zu füttern", **BLANK)


@pytest.mark.parametrize(
    ("query", "cosine", "reads", "passes"),
    [
        ("wie ist das mit den Giraffen", 0.74, english, False),
        ("wie ist das mit den Giraffen", 0.76, english, True),
        ("wie ist das mit den Giraffen", 0.61, everything, True),
        ("wie ist das mit den Zebras im Zoo", 0.70, english, True),  # a word in common lowers it there, too
        ("how is it with giraffes", 0.61, english, True),  # two languages don't make texts alike
    ],
)
def test_a_language_that_the_model_was_not_made_for_makes_no_two_texts_alike(
    query: str, cosine: float, reads: Callable[[str], bool], passes: bool
) -> None:
    assert pytest.approx(0.75) == 0.6 + 0.1 * FOREIGN
    assert passing(query, GERMAN, cosines={"e-a": cosine}, reads=reads) == (["e-a"] if passes else [])


# --- thresholds ---


def test_the_thresholds_follow_from_the_cosines_of_unrelated_texts() -> None:
    limits = Thresholds.of(MODEL)
    assert limits is not None
    assert limits.clear == pytest.approx(0.2 + CLEAR * 0.1)
    assert limits.needed(2.0) == pytest.approx(limits.clear - 2 * BY_WORDS * 0.1)


def test_a_threshold_that_somebody_has_set_takes_the_place_of_the_clear_one() -> None:
    limits = Thresholds.of(MODEL, min_similarity=0.9)
    assert limits is not None
    assert limits.needed(0) == 0.9
    assert limits.needed(2.0) == pytest.approx(0.9 - 2 * BY_WORDS * 0.1)
    alone = Thresholds.of(None, min_similarity=0.9)
    assert alone is not None
    assert alone.needed(1) < alone.needed(0) == 0.9


def test_where_nothing_is_known_of_a_model_every_similarity_is_enough() -> None:
    assert Thresholds.of(None) is None
    assert passing("giraffes", ZEBRAS, cosines={"e-a": 0.1}, thresholds=None) == ["e-a"]


# --- why ---


def test_each_verdict_says_what_it_compared() -> None:
    alone = judged("zebra riding", ZEBRAS)["e-a"].why
    assert alone == "1 of the task's 2 telling words weigh 3.7 (6.5 needed)"
    assert "cosine 0.59 (0.60 needed)" in judged("giraffes", ZEBRAS, cosines={"e-a": 0.59})["e-a"].why
    assert "cosine 0.62 (0.60 needed)" in judged("giraffes", ZEBRAS, cosines={"e-a": 0.62})["e-a"].why
    both = judged("feed zebras", ZEBRAS, cosines={"e-a": 0.51})["e-a"].why
    assert both == "cosine 0.51 (0.49 needed), 2 of the task's 2 telling words weigh 7.4"


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
