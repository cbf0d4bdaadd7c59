"""Full-text search in memory: the same words, the same order, and only what may be found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from reme_mcp.store.inverted_index import InvertedIndex
from reme_mcp.text.words import text_words

TEXTS = {
    "e-site": "Building a static site: upload the public folder, then purge the cache.",
    "e-egg": "Boiling eggs at high altitude takes longer.",
    "e-cache": "A cache that is purged too often helps nobody; the cache has to live.",
}


def index(texts: dict[str, str], *, workspace: str = "default", status: str = "active") -> InvertedIndex:
    made = InvertedIndex()
    put(made, texts, workspace=workspace, status=status)
    return made


def put(made: InvertedIndex, texts: dict[str, str], *, workspace: str = "default", status: str = "active") -> None:
    ids = list(texts)
    made.put(ids, [workspace] * len(ids), [status] * len(ids), list(texts.values()))  # type: ignore[list-item]  # a test


def ids(
    made: InvertedIndex, query: str, *, workspace: str = "default", also: Sequence[str] = (), limit: int = 10
) -> list[str]:
    return [id for id, _ in made.match(workspace, query, statuses=["active"], also=also, limit=limit)]


def test_words_are_found_by_their_stems_and_the_rarer_and_more_frequent_come_first() -> None:
    made = index(TEXTS)
    assert ids(made, "purge caches") == ["e-cache", "e-site"]
    assert ids(made, "egg") == ["e-egg"]
    assert ids(made, "the at that") == ids(made, "unheard of") == ids(InvertedIndex(), "egg") == []


def test_the_number_is_bm25_computed_by_hand() -> None:
    made = index({"e-a": "apple pear", "e-b": "apple apple plum cherry"})
    # Two of two hold the word: ln(1 + 0.5 / 2.5); lengths 2 and 4, mean 3; once and twice.
    rarity = 0.1823215568
    expected = [
        ("e-b", rarity * 2.2 * 2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3))),
        ("e-a", rarity * 2.2 * 1 / (1 + 1.2 * (0.25 + 0.75 * 2 / 3))),
    ]
    found = made.match("default", "apple", statuses=["active"], also=(), limit=10)
    assert [id for id, _ in found] == [id for id, _ in expected]
    assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-5)
    twice = made.match("default", "apple apples", statuses=["active"], also=(), limit=10)
    assert [value for _, value in twice] == pytest.approx([2 * value for _, value in expected], rel=1e-5)


def test_only_the_best_are_returned_and_equal_ones_as_they_came() -> None:
    made = index({f"e-{number}": "the same words" for number in range(9)})
    assert ids(made, "words", limit=3) == ["e-0", "e-1", "e-2"]
    put(made, {"e-best": "words words words"})
    assert ids(made, "words", limit=2) == ["e-best", "e-0"]


def test_what_is_archived_or_elsewhere_is_not_found_unless_it_is_asked_for() -> None:
    made = index(TEXTS)
    put(made, {"e-site": TEXTS["e-site"]}, status="archived")
    assert ids(made, "cache") == ["e-cache"]
    assert ids(made, "cache", also=["e-site", "e-unknown"]) == ["e-cache", "e-site"]
    put(made, {"e-site": TEXTS["e-site"]})
    assert ids(made, "cache") == ["e-cache", "e-site"]
    assert ids(made, "cache", workspace="other") == []
    put(made, {"e-elsewhere": "cache"}, workspace="other")
    assert ids(made, "cache", workspace="other") == ["e-elsewhere"]
    assert ids(made, "cache", also=["e-elsewhere"]) == ["e-cache", "e-site"]


def test_another_text_takes_the_place_of_the_older_one_and_what_is_gone_is_not_found() -> None:
    made = index(TEXTS)
    put(made, {"e-egg": "Frying bacon"})
    assert ids(made, "egg") == []
    assert ids(made, "bacon") == ["e-egg"]
    made.keep({"e-site"})
    assert ids(made, "bacon cache") == ["e-site"]
    put(made, {"e-egg": "Frying bacon"})
    assert ids(made, "bacon") == ["e-egg"]


def test_the_words_of_a_text_are_kept_as_they_are() -> None:
    texts = {
        **TEXTS,
        "e-german": "Wie öffne ich die Türen mit dem Schlüssel, und die Tür, und die Türen?",
        "e-chinese": "启动发动机 startEngine",
        "e-empty": "",
        "e-common": "What should we do now? Use it, use it!",
    }
    made = index(texts)
    assert {id: made.words_of(id) for id in texts} == {id: text_words(text) for id, text in texts.items()}
    assert made.words_of("e-unknown") is None
    put(made, {"e-egg": TEXTS["e-site"]})
    assert made.words_of("e-egg") == text_words(TEXTS["e-site"])
