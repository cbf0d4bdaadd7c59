"""The words of a text, in the languages of our users; and that recall finds by them, with no model at all."""

from __future__ import annotations

import numpy as np
import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.text.words import likeness, mostly_latin, query_words, spell_out, stems, text_words, unquoted

LESSONS = {
    "zh": ("启动发动机之前", "先锁好所有车门并踩住刹车。"),
    "ja": ("エンジンを始動する前に", "すべてのドアをロックしてからブレーキを踏む。"),
    "ko": ("엔진을 시동하기 전에 확인할 것", "문이 모두 잠겼는지 보고 브레이크를 밟으십시오."),
    "mixed": ("调用 get_stock_info 查询股票价格", "先用 getSymbolByName 找到代码，再查询价格。"),
    "en": ("Before booking a flight", "Compare the balance of the card with the fare; end the booking if it is short."),
    "door": ("When the door of a room is stuck", "Oil its hinges, then lift the handle while pulling."),
}


def test_english_words_are_stemmed_and_function_words_left_out() -> None:
    assert stems("Please start the engines of my cars") == stems("starting: engine, car!") == {"start", "engin", "car"}


def test_names_are_taken_apart() -> None:
    assert stems("getStockInfo") == stems("get_stock_info") == {"get", "stock", "info"}
    assert spell_out("startEngine") == "start Engine"


def test_east_asian_runs_count_by_pairs() -> None:
    assert stems("发动机") == {"发动", "动机"}
    assert stems("차") == {"차"}
    assert spell_out("엔진을 켜") == "엔진 진을 켜"


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("move 'report.pdf' away", "move   away"),
        ("don't touch Bob's car", "don't touch Bob's car"),
        ("'all of it'", "'all of it'"),
    ],
)
def test_quoted_literals_are_left_out_unless_nothing_else_is_there(text: str, rest: str) -> None:
    assert unquoted(text) == rest


def test_texts_are_alike_by_the_words_that_few_of_them_have() -> None:
    alike = likeness([*map(text_words, ["start the engine", "the engine starts now", "start a loop", "发动机", ""])])
    assert np.allclose(np.diag(alike), [1, 1, 1, 1, 0])
    assert np.allclose(alike, alike.T)
    assert alike[0, 1] == pytest.approx(1)
    assert 0 < alike[0, 2] < 0.9
    assert alike[0, 3] == alike[3, 4] == 0
    assert likeness([]).shape == (0, 0)


@pytest.mark.parametrize(
    ("text", "language", "left"),
    [
        ("wie öffne ich die Türen mit dem Schlüssel", "german", {"offn", "tur", "schlussel"}),
        ("how to unlock the doors with the keys", "english", {"unlock", "door", "key"}),
        ("comment ouvrir les portes avec la clé", "french", {"ouvr", "port", "cle"}),
        ("docker die", "english", {"docker", "die"}),  # one such word makes no language
        ("docker und die", "german", {"dock"}),
        ("启动发动机", "other", {"启动", "动发", "发动", "动机"}),
        ("jak otworzyć drzwi kluczem albo nie", "polish", {"otworzyc", "drzwi", "kluczem"}),  # nobody stems it
        ("what should we do now?", "english", set()),
        ("a 404 after 2 of 12 tries", "english", {"404", "tri"}),  # a short number counts, a long one names
        ("", "english", set()),
    ],
)
def test_a_text_tells_its_subject_in_its_own_language(text: str, language: str, left: set[str]) -> None:
    assert query_words(text).language == language
    assert {own for own, _ in query_words(text).words} == left


@pytest.mark.parametrize(
    ("text", "latin"), [("engine", True), ("启动发动机", False), ("startEngine 启动", True), ("42!", True)]
)
def test_the_script_of_most_letters_decides(text: str, latin: bool) -> None:
    assert mostly_latin(text) is latin


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("query", "found"),
    [("怎样启动发动机", "zh"), ("エンジン 始動", "ja"), ("자동차 엔진 시동", "ko"), ("股票的价格怎么查询", "mixed"),
     ("use get_stock_info for the stock", "mixed"), ("the doors of rooms", "door"), ("flight booking", "en")],
)  # fmt: skip
async def test_a_lesson_is_found_in_its_own_language_without_a_model(
    settings: Settings, query: str, found: str
) -> None:
    async with Memory.open(settings) as memory:
        ids = {}
        for name, (when_to_use, content) in LESSONS.items():
            lesson = {"when_to_use": when_to_use, "content": content}
            answer = await memory.record(when_to_use, outcome="success", experiences=[lesson], source="test")
            ids[name] = answer.added[0]
        recalled = await memory.recall(query, source="test")
        assert [one.id for one in recalled.experiences][:1] == [ids[found]]


@pytest.mark.anyio
@pytest.mark.parametrize("query", ["축구 경기 결과", "今天天气怎么样", "Who wrote the ninth symphony?", "the and of"])
async def test_what_nothing_is_about_gets_nothing(settings: Settings, query: str) -> None:
    async with Memory.open(settings) as memory:
        for when_to_use, content in LESSONS.values():
            lesson = {"when_to_use": when_to_use, "content": content}
            await memory.record(when_to_use, outcome="success", experiences=[lesson], source="test")
        assert (await memory.recall(query, source="test")).experiences == []
