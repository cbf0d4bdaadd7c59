"""From hits to an order that a reader can recompute, and from text to what fits a budget.

The numbers of the formula stand in `recomputed` and nowhere else.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.recall.ranking import WEIGHTS, Hits, Ranked, Weights, rank, shortlist
from reme_mcp.schema import Experience
from reme_mcp.text.fields import lesson_text, request_text, search_text
from reme_mcp.text.tokens import ELLIPSIS, shorten, tokens
from reme_mcp.text.words import text_words
from tests.fakes import LEARNED, draft, experience

NOW = LEARNED + timedelta(days=30)
NO_NEIGHBOURS = Weights(neighbours=0)
BASE_RATE = 0.5
NO_CORRECTIONS = Weights(track_record=0, confidence=0, freshness=0)
MOST = WEIGHTS.track_record + WEIGHTS.confidence + WEIGHTS.freshness


def words(**values: float) -> Hits:
    """Return what the text search found: `a=2.0` is the experience `e-a` with BM25 value 2."""
    return Hits.of_text(pairs(values), reach=50)


def meanings(**values: float) -> Hits:
    """Return what the vector search found, in the same way."""
    return Hits.of_numbers(pairs(values))


def pairs(values: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(((f"e-{name}", value) for name, value in values.items()), key=lambda pair: -pair[1])


def ranking(
    candidates: list[Experience],
    text: Hits,
    vector: Hits | None = None,
    *,
    tools: tuple[str, ...] = (),
    weights: Weights = WEIGHTS,
) -> list[Ranked]:
    words = {one.id: text_words(search_text(one)) for one in candidates}
    return rank(candidates, text, vector, words=words, tools=tools, weights=weights, base_rate=BASE_RATE, at=NOW)


def order(ranked: list[Ranked]) -> list[str]:
    return [item.experience.id for item in ranked]


def recomputed(item: Ranked, weights: Weights = WEIGHTS) -> tuple[float, float]:
    """Return relevance and ranking by the formula in the docstring of `rank`, from what the item shows."""
    relevance = item.text_relevance
    if item.vector_relevance is not None:
        relevance = (1 - weights.vector) * relevance + weights.vector * item.vector_relevance
    relevance = (1 - weights.neighbours) * relevance + weights.neighbours * item.neighbour_relevance
    one = item.experience
    correction = (
        weights.track_record * item.track_record
        + weights.confidence * (2 * one.confidence - 1)
        + weights.freshness * (2 * 0.5 ** (item.age_days / weights.half_life_days) - 1)
    )
    missing = len(item.missing_tools) / len(one.tools_used) if item.missing_tools else 0
    return relevance, relevance * (1 + correction) * (1 - missing / 2)


@st.composite
def rankings(draw: st.DrawFn) -> list[Ranked]:
    """Draw a ranking of up to eight experiences that one or two searches found."""
    names = "abcdefgh"[: draw(st.integers(1, 8))]
    candidates = []
    for name in names:
        frequency = draw(st.integers(0, 50))
        candidates.append(
            experience(
                f"e-{name}",
                frequency=frequency,
                utility=draw(st.integers(0, frequency)),
                confidence=draw(st.floats(0, 1)),
                created_at=NOW - timedelta(days=draw(st.integers(0, 2000))),
                tools_used=tuple(draw(st.sets(st.sampled_from(["ssh", "git", "curl"])))),
            )
        )
    text = words(**draw(st.dictionaries(st.sampled_from(names), st.floats(0.01, 40))))
    found = st.dictionaries(st.sampled_from(names), st.floats(-1, 1)).map(lambda values: meanings(**values))
    tools = tuple(draw(st.lists(st.sampled_from(["ssh", "git", "ls"]), unique=True)))
    return ranking(candidates, text, draw(st.none() | found), tools=tools)


BLANK = {"when_to_use": "", "generalized_task": "", "keywords": (), "task": ""}
A, B, C = (experience(id) for id in ("e-a", "e-b", "e-c"))

# --- hits ---


@pytest.mark.parametrize("hits", [words(a=8.0, b=4.0, c=2.0), meanings(a=0.9, b=0.5, c=0.1)])
def test_the_best_hit_of_a_search_is_one_and_the_others_follow_in_its_order(hits: Hits) -> None:
    assert list(hits.relative) == ["e-a", "e-b", "e-c"]
    assert hits.relative["e-a"] == 1
    assert 1 > hits.relative["e-b"] > hits.relative["e-c"] >= 0


@pytest.mark.parametrize(("reach", "last"), [(2, 0.0), (3, 0.25)])
def test_the_last_word_hit_is_zero_only_where_the_search_filled_its_reach(reach: int, last: float) -> None:
    hits = Hits.of_text([("e-a", 8.0), ("e-b", 2.0)], reach=reach)
    assert hits.relative == {"e-a": 1.0, "e-b": last}


@pytest.mark.parametrize("hits", [words(a=3.0, b=3.0), meanings(a=0.5, b=0.5), meanings(a=-0.5, b=-0.5)])
def test_equal_hits_are_all_the_best(hits: Hits) -> None:
    assert set(hits.relative.values()) == {1.0}


def test_no_hits_are_no_error() -> None:
    assert words().relative == meanings().relative == {}
    assert shortlist(words(), None, limit=5) == []
    assert ranking([], words()) == []


# --- the shortlist ---


def test_the_shortlist_begins_with_the_most_relevant_of_both_searches() -> None:
    found = shortlist(words(a=8.0, b=2.0), meanings(b=0.9, c=0.4, d=0.1), limit=5)
    assert found == ["e-b", "e-a", "e-c", "e-d"]


@pytest.mark.parametrize(("limit", "length"), [(1, 6), (2, 12), (5, 20)])
def test_the_shortlist_is_longer_than_the_answer_but_not_endless(limit: int, length: int) -> None:
    hits = Hits.of_text([(f"e-{place:02d}", 40.0 - place) for place in range(20)], reach=50)
    found = shortlist(hits, None, limit=limit)
    assert found == [f"e-{place:02d}" for place in range(length)]


# --- the order ---


def test_the_best_of_every_search_is_first_with_relevance_one() -> None:
    ranked = ranking([A, B], words(b=9.0, a=1.0), meanings(b=0.9, a=0.2), weights=NO_NEIGHBOURS)
    assert order(ranked) == ["e-b", "e-a"]
    assert ranked[0].relevance == 1
    assert ranking([B], words(b=9.0))[0].relevance == 1


def test_one_that_stands_among_relevant_ones_is_above_an_equal_that_does_not() -> None:
    zebras = [experience(f"e-{name}", content=f"Feed zebras {name}", **BLANK) for name in ("b", "c", "d")]
    eggs = experience("e-a", content="Boil eggs", **BLANK)
    found = words(a=5.0, b=5.0, c=3.0, d=2.0)
    ranked = ranking([eggs, *zebras], found)
    assert order(ranked) == ["e-b", "e-a", "e-c", "e-d"]
    assert ranked[0].neighbour_relevance == pytest.approx((0.6 + 0.4) / 2)
    assert ranked[1].neighbour_relevance == 0
    assert order(ranking([eggs, *zebras], found, weights=NO_NEIGHBOURS)) == ["e-a", "e-b", "e-c", "e-d"]


def test_one_that_is_alone_has_its_own_relevance_around_it() -> None:
    [item] = ranking([A], words(a=3.0, b=6.0))
    assert item.neighbour_relevance == item.relevance == 0.5


def test_what_both_searches_found_is_above_what_one_found() -> None:
    ranked = ranking([A, B, C], words(a=5.0, c=4.5), meanings(b=0.9, c=0.85, a=0.1))
    assert order(ranked)[0] == "e-c"


def test_without_vectors_the_order_is_that_of_the_words() -> None:
    ranked = ranking([A, B, C], words(c=9.0, a=5.0, b=1.0))
    assert order(ranked) == ["e-c", "e-a", "e-b"]
    assert {(item.vector_relevance, item.similarity) for item in ranked} == {(None, None)}


@pytest.mark.parametrize(("weight", "first"), [(0.0, "e-a"), (1.0, "e-b")])
def test_the_weight_says_which_search_decides(weight: float, first: str) -> None:
    ranked = ranking([A, B], words(a=9.0, b=1.0), meanings(b=0.9, a=0.1), weights=Weights(vector=weight))
    assert order(ranked)[0] == first


def test_the_similarity_is_the_cosine_that_the_search_measured() -> None:
    ranked = ranking([A, B], words(a=2.0, b=1.0), meanings(a=0.25))
    assert {item.experience.id: item.similarity for item in ranked} == {"e-a": 0.25, "e-b": None}


@pytest.mark.parametrize("candidates", [[A, B], [B, A]])
def test_a_tie_has_the_same_order_however_the_candidates_come(candidates: list[Experience]) -> None:
    assert order(ranking(candidates, words(b=2.0, a=2.0))) == ["e-a", "e-b"]


@given(rankings())
def test_the_order_goes_by_the_ranking_number(ranked: list[Ranked]) -> None:
    numbers = [item.ranking for item in ranked]
    assert numbers == sorted(numbers, reverse=True)


# --- the corrections ---


@pytest.mark.parametrize("better", [{"frequency": 10, "utility": 9}, {"confidence": 0.9}, {"created_at": NOW}])
def test_of_two_equally_relevant_ones_the_better_record_is_first(better: dict[str, Any]) -> None:
    candidates = [A, experience("e-b", **better)]
    assert order(ranking(candidates, words(a=2.0, b=2.0))) == ["e-b", "e-a"]
    assert order(ranking(candidates, words(a=2.0, b=2.0), weights=NO_CORRECTIONS)) == ["e-a", "e-b"]


def test_one_that_never_helped_is_below_one_that_was_never_tried() -> None:
    assert order(ranking([experience("e-a", frequency=4, utility=0), B], words(a=2.0, b=2.0))) == ["e-b", "e-a"]


@given(rankings())
def test_no_correction_lifts_a_clearly_less_relevant_one_above(ranked: list[Ranked]) -> None:
    kept = [item for item in ranked if not item.missing_tools]
    for place, item in enumerate(kept):
        for below in kept[place + 1 :]:
            assert below.relevance * (1 - MOST) <= item.relevance * (1 + MOST) + 1e-9


@pytest.mark.parametrize(("relevance", "first"), [(0.3, "e-a"), (0.99, "e-b")])
def test_the_best_record_overtakes_only_what_is_not_far_more_relevant(relevance: float, first: str) -> None:
    worst = experience("e-a", frequency=50, utility=0, confidence=0.0, created_at=NOW - timedelta(days=2000))
    best = experience("e-b", frequency=50, utility=50, confidence=1.0, created_at=NOW)
    assert order(ranking([worst, best], words(a=10.0, b=10 * relevance)))[0] == first


def test_the_default_corrections_leave_relevance_first() -> None:
    assert MOST <= 0.35


def test_a_lesson_from_the_future_is_as_fresh_as_one_of_now() -> None:
    ahead, today = ranking(
        [experience("e-a", created_at=NOW + timedelta(days=3)), experience("e-b", created_at=NOW)], words(a=2.0, b=2.0)
    )
    assert (ahead.age_days, ahead.ranking) == (0, today.ranking)


# --- tools ---


def test_an_experience_whose_tools_are_missing_is_lower_but_there() -> None:
    candidates = [experience("e-a", tools_used=("kubectl",)), experience("e-b", tools_used=("ssh",))]
    text = words(a=2.0, b=1.9)
    assert order(ranking(candidates, text, tools=("kubectl", "ssh"))) == ["e-a", "e-b"]
    without = ranking(candidates, text, tools=("ssh",))
    assert order(without) == ["e-b", "e-a"]
    assert [item.missing_tools for item in without] == [(), ("kubectl",)]


def test_the_more_of_its_tools_are_missing_the_lower_it_is() -> None:
    used = ("git", "ssh", "curl")
    numbers = [
        ranking([experience("e-a", tools_used=used)], words(a=2.0), tools=tools)[0].ranking
        for tools in (used, ("git", "ssh"), ("git",), ("none of them",))
    ]
    assert numbers == sorted(set(numbers), reverse=True)
    assert numbers[-1] == pytest.approx(numbers[0] / 2)


def test_an_agent_that_names_no_tools_is_missing_none() -> None:
    [item] = ranking([experience("e-a", tools_used=("kubectl",))], words(a=2.0))
    assert item.missing_tools == ()


# --- the exact numbers; the only place that knows them ---


@given(rankings())
def test_relevance_and_ranking_can_be_recomputed_from_what_is_shown(ranked: list[Ranked]) -> None:
    for item in ranked:
        relevance, number = recomputed(item)
        assert item.relevance == pytest.approx(relevance)
        assert item.ranking == pytest.approx(number)
        assert -1e-9 <= item.relevance <= 1 + 1e-9


@pytest.mark.anyio
async def test_the_numbers_of_a_recall_recompute_to_its_ranking(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        for number in range(3):
            await memory.record(
                f"publish a site, part {number}",
                outcome="success",
                experiences=[draft(number, confidence=number / 3)],
                source="test",
            )
        first = await memory.recall("publish a site", source="test")
        await memory.rate(first.experiences[-1].id, helpful=True, source="test")
        result = await memory.recall("publish a site", source="test")
        for one in result.experiences:
            stored, _ = await memory.pool.experience(one.id)
            shown = one.numbers
            item = Ranked(
                experience=stored,
                text_relevance=shown.text_relevance,
                vector_relevance=shown.vector_relevance,
                neighbour_relevance=shown.neighbour_relevance,
                similarity=shown.similarity,
                relevance=shown.relevance,
                ranking=shown.ranking,
                age_days=shown.age_days,
                missing_tools=tuple(shown.missing_tools),
                track_record=shown.track_record,
            )
            relevance, number_shown = recomputed(item)
            assert shown.relevance == pytest.approx(relevance, abs=2e-4)
            assert shown.ranking == pytest.approx(number_shown, abs=2e-4)
        assert len(result.experiences) == 3


# --- what search sees ---


def test_search_text_holds_everything_that_one_would_look_for() -> None:
    one = experience(tools_used=("startEngine",), keywords=("hosting",))
    text = search_text(one)
    for part in (one.when_to_use, one.content, one.task, one.generalized_task, "hosting", "start Engine"):
        assert part in text


def test_the_embedder_sees_no_keywords_and_no_empty_lines() -> None:
    text = lesson_text(experience(generalized_task="", keywords=("hosting",)))
    assert "hosting" not in text
    assert "" not in text.split("\n")


@pytest.mark.parametrize(
    ("blank", "request_is"),
    [((), "task"), (("task",), "generalized_task"), (("task", "generalized_task"), "when_to_use")],
)
def test_the_request_is_the_task_as_exactly_as_it_is_known(blank: tuple[str, ...], request_is: str) -> None:
    one = experience(**dict.fromkeys(blank, ""))
    assert request_text(one) == getattr(one, request_is)


# --- the budget ---


@pytest.mark.parametrize(("text", "cost"), [("", 0), ("abcd", 1), ("abcde", 2), ("日本", 2), ("😀", 1)])
def test_a_token_is_four_bytes(text: str, cost: int) -> None:
    assert tokens(text) == cost


@pytest.mark.parametrize(("budget", "cut"), [(2, True), (3, False), (4, False)])
def test_a_text_is_cut_only_if_it_is_longer_than_its_budget(budget: int, cut: bool) -> None:
    assert (shorten("abcd efgh ij", budget) != "abcd efgh ij") is cut


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=5), st.data())
def test_a_cut_text_fits_and_says_that_it_was_cut(text: str, data: st.DataObject) -> None:
    budget = data.draw(st.integers(1, tokens(text) - 1))
    cut = shorten(text, budget)
    assert tokens(cut) <= budget
    assert cut.endswith(ELLIPSIS)
    assert text.startswith(cut.removesuffix(ELLIPSIS))


def test_a_text_is_cut_between_words() -> None:
    assert shorten("compare the memory limit with the peak", 8) == "compare the memory limit" + ELLIPSIS


def test_a_text_without_words_is_cut_between_characters() -> None:
    assert shorten("日本語の長い文章です", 4) == "日本語の" + ELLIPSIS
