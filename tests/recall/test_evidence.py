"""What shared words weigh: rare ones, repeated ones, few of many, parts of compounds, and those of other lessons."""

from __future__ import annotations

import pytest

from reme_mcp.recall.evidence import ENOUGH, FELLOW, weigh
from reme_mcp.text.words import query_words, text_words


def weights(task: str, *notes: str, tasks: tuple[str, ...] = ()) -> list[float]:
    found = weigh(query_words(task), [text_words(note) for note in notes], tasks or ("",) * len(notes))
    return [round(one.weight, 2) for one in found]


def test_a_word_that_few_candidates_have_weighs_more() -> None:
    rare, common, both, none = weights(
        "polish the brass lantern and the shutter near the harbour lighthouse keeper",
        "a brass bell", "a lantern", "a lantern of glass", "an anchor",
    )  # fmt: skip
    assert rare > common == both > none == 0


def test_what_a_note_repeats_it_is_about() -> None:
    task = "polish the brass lantern and the shutter"
    once, twice, often, more = weights(task, *(" ".join(["brass"] * times) for times in (1, 2, 4, 9)))
    assert [twice, often] == pytest.approx([once * 1.5, once * 2.5], abs=0.02)
    assert more == often


@pytest.mark.parametrize(
    ("task", "note", "is_enough"),
    [
        ("polish brass", "polish the brass", True),  # all of it
        ("brass", "a bell of brass", True),
        ("polish brass lantern shutter harbour keeper anchor gull", "polish the brass", True),  # two of eight
        ("polish brass lantern shutter harbour keeper anchor gull sailor", "brass", False),  # one of nine
    ],
)
def test_a_quarter_of_the_telling_words_is_enough_however_common_they_are(
    task: str, note: str, is_enough: bool
) -> None:
    # Fifty others have them, too.
    assert (weights(task, note, *[note] * 50)[0] >= ENOUGH) is is_enough


def test_two_words_of_a_long_task_are_chance() -> None:
    short = "polish brass lantern shutter harbour keeper anchor gull sailor"
    long = short + " winter supper ladder candle mirror basket pepper saddle marble violin"
    assert weights(short, "polish the brass")[0] > weights(long, "polish the brass")[0]
    # Beyond thirty words, and with six in common, more words take nothing off.
    endless = long + "".join(f" {first}{last}ko" for first in "bdfgklmnprst" for last in "aeiou")
    assert weights(endless, long) > [ENOUGH]


def test_lessons_of_one_task_speak_for_each_other() -> None:
    task = "polish the brass lantern, shutter, harbour and keeper of the coast"
    alone = weights(task, "the brass", "an anchor", "a gull")
    assert weights(task, "the brass", "an anchor", "a gull", tasks=("t", "t", "u")) == [
        alone[0], pytest.approx(FELLOW * alone[0], abs=0.01), 0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "note", "shared"),
    [
        ("wie ist die Rechnung von dem Süden", "das ist die Hotelrechnung an der Küste", 1),
        ("wo ist die Hotelrechnung von der Firma", "das ist eine Rechnung nach dem Süden", 1),
        ("wo ist die Katze von der Nachbarin", "das ist ein Hund nach dem Süden", 0),
        ("prevent the leak", "an event at the harbour", 0),  # English words are no compounds
        ("wo liegen die Rechnungen von dem Hotel", "die Rechnung ist von dem Hotel", 2),
        ("wie sind die Zebras", "a zebra of the zoo", 1),  # a word that both languages have
        ("one of the two is good", "one of the two is bad", 0),  # nothing but common words
    ],
)
def test_forms_and_parts_of_words_are_shared(task: str, note: str, shared: int) -> None:
    [found] = weigh(query_words(task), [text_words(note)], [""])
    assert found.shared == shared
