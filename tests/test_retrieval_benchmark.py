"""The retrieval benchmark measures what it says, on a pool so small that its numbers can be worked out by hand."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import month, retrieval

pytestmark = pytest.mark.slow

SQUEAK = "Fix the squeaking fault of my commuter with oil"
RECORDS = {
    "chain": ("Replacing a bicycle chain", "Measure the links and oil the rollers.", SQUEAK),
    "wheel": ("Truing a bicycle wheel", "Turn the spokes by quarters.", ""),
    "tyre": ("Repairing a flat tyre", "Glue a patch over the hole.", ""),
}
QUERIES: list[tuple[str, str, dict[str, int]]] = [
    ("turns", "replacing the bicycle chain", {"chain": 1}),
    # Three words of the wheel's, two of the chain's.
    ("turns", "turn the spokes of a bicycle chain", {"chain": 1}),
    # Three words of the tyre's, two of the wheel's; the chain has none.
    ("turns", "repairing a flat tyre, then the spokes by quarters", {"wheel": 2, "tyre": 1}),
    # Only its oil is in a lesson, and one word in common is too few for the floor; in the task it stands verbatim.
    ("tasks", SQUEAK, {"chain": 1}),
]
SECOND = 1 / log2(3)
GRADED, GRADED_EXP = (1 + 2 * SECOND) / (2 + SECOND), (1 + 3 * SECOND) / (3 + SECOND)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    records = [
        {
            "memory_id": id,
            "when_to_use": when_to_use,
            "content": content,
            "time_created": "2026-03-01 12:00:00",
            "author": "somebody",
            "metadata": {"task_query": task, "generalized_query": "", "category": "success", "utility": 0, "freq": 0},
        }
        for id, (when_to_use, content, task) in RECORDS.items()
    ]
    judged = [{"track": track, "pool": "bikes", "query": text, "relevant": gains} for track, text, gains in QUERIES]
    for name, lines in (("bikes.jsonl", records), ("qrels.jsonl", judged)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def test_the_measures_of_a_tiny_pool_are_those_worked_out_by_hand(data: Path) -> None:
    file = data.parent / "figures.json"

    assert retrieval.main(["--data", str(data), "--json", str(file)]) == 0

    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    assert set(figures) == {"environment", "options", "pools", "results", "off_topic", "languages", "milliseconds"}
    assert figures["pools"] == {"bikes": {"experiences": 3, "distractors": 0, "queries": {"tasks": 1, "turns": 3}}}
    lines = {
        (line["track"], line["system"], line["floor"], line["pool"]): line
        for line in figures["results"]
        if line["pool"] == "bikes" or line["in_mean"] is False
    }
    # Without --models there are only words.
    assert figures["options"]["systems"] == ["lexical", "lexical+task"]

    for floor in (True, False):
        turns = lines["turns", "lexical", floor, "bikes"]
        assert turns["recall_at_5"] == 1
        assert turns["mrr_at_10"] == pytest.approx((1 + 1 / 2 + 1) / 3)
        assert turns["ndcg_at_10"] == pytest.approx((1 + SECOND + GRADED) / 3)
        assert turns["ndcg_at_10_exp"] == pytest.approx((1 + SECOND + GRADED_EXP) / 3)
        low, high = turns["ndcg_at_10_interval"]
        assert SECOND - 1e-9 <= low < turns["ndcg_at_10"] < high <= 1
        mean = lines["turns", "lexical", floor, "mean"]
        assert {**mean, "pool": "bikes", "in_mean": True} == turns
    assert lines["turns", "lexical", True, "bikes"]["lost_to_floor"] == 0

    floored, free = lines["tasks", "lexical", True, "bikes"], lines["tasks", "lexical", False, "bikes"]
    assert (floored["ndcg_at_10"], floored["unanswered"], floored["lost_to_floor"]) == (0, 1, 1)
    assert (free["ndcg_at_10"], free["unanswered"], free["lost_to_floor"]) == (1, 0, None)

    told = lines["tasks", "lexical+task", True, "bikes"]
    assert (told["ndcg_at_10"], told["verbatim"], told["in_mean"]) == (1, True, False)
    assert ("tasks", "lexical+task", True, "mean") not in lines
    assert ("turns", "lexical+task", True, "mean") in lines

    answered = {(one["system"], one["length"]): one["answered"] for one in figures["off_topic"]}
    # "Fix the segmentation fault in my C linked list implementation" has the task's fault and the lesson's links.
    assert answered == {
        ("lexical", "short"): 0,
        ("lexical", "long"): 0,
        ("lexical+task", "short"): 1,
        ("lexical+task", "long"): 0,
    }
    assert {one["language"] for one in figures["languages"]} == {"Chinese", "Japanese", "Korean", "mixed"}
    assert [(one["system"], one["recalls"]) for one in figures["milliseconds"]] == [("lexical", 4), ("lexical+task", 4)]


def test_distractors_are_what_the_other_pools_hold_and_no_more(data: Path) -> None:
    text = (data / "bikes.jsonl").read_text(encoding="utf-8")
    (data / "trikes.jsonl").write_text("".join(text.splitlines(keepends=True)[:2]), encoding="utf-8")
    bikes, trikes = retrieval.with_distractors(retrieval.read_pools(data), 2)

    assert [len(bikes.experiences), len(trikes.experiences)] == [3 + 2, 2 + 2]
    assert len({one.id for pool in (bikes, trikes) for one in pool.experiences}) == 9
    assert {one.workspace for one in bikes.experiences} == {"pool-0"}


def test_a_pool_can_be_left_out_of_the_mean_by_name(data: Path) -> None:
    file = data.parent / "figures.json"
    options = ["--systems", "lexical", "--tracks", "turns", "--tuned-on", "bikes", "--json", str(file)]

    assert retrieval.main(["--data", str(data), *options]) == 0

    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert [(line["pool"], line["in_mean"]) for line in results] == [("bikes", False), ("bikes", False)]


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        ("bikes.jsonl", "{}", "bikes.jsonl, line 4: KeyError"),
        ("qrels.jsonl", "not JSON", "qrels.jsonl, line 5: JSONDecodeError"),
        ("qrels.jsonl", '{"track": "turns", "pool": "bikes", "query": "?", "relevant": {}}', "nothing is relevant"),
    ],
)
def test_a_line_that_is_no_record_or_query_is_said_with_its_place(
    data: Path, capsys: pytest.CaptureFixture[str], name: str, line: str, said: str
) -> None:
    with (data / name).open("a", encoding="utf-8") as file:
        file.write(line + "\n")

    assert retrieval.main(["--data", str(data)]) == 1
    assert said in capsys.readouterr().err


# --- a month of mixed work ---

MONTH: list[dict[str, object]] = [
    {
        "half": "A",
        "field": "bikes",
        "language": "en",
        "task": "Make my chain quiet",
        "right": [],
        "lessons": [
            {"note": "chain", "when_to_use": "A bicycle chain squeaks", "content": "Oil its rollers, then wipe it."}
        ],
    },
    {
        "half": "A",
        "field": "bikes",
        "language": "en",
        "task": "Mend the hole after the nail",
        "right": [],
        "lessons": [
            {"note": "tyre", "when_to_use": "A bicycle tyre is flat", "content": "Glue a patch over the hole."}
        ],
    },
    {
        "half": "A",
        "field": "bikes",
        "language": "en",
        "task": "my chain squeaks",
        "right": ["chain"],
        "lessons": [],
    },
    # It is answered with the wrong note: two words are in common.
    {
        "half": "B",
        "field": "music",
        "language": "en",
        "task": "a song about a flat bicycle",
        "right": ["chain"],
        "lessons": [],
    },
    {"off_topic": "short", "task": "boil eggs"},
    {"off_topic": "short", "task": "a bicycle with a squeaking bell"},
]


def month_file(folder: Path, lines: list[dict[str, object]]) -> Path:
    file = folder / "month.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def test_a_month_counts_right_and_wrong_notes_by_half(tmp_path: Path) -> None:
    file, first = month_file(tmp_path, MONTH), tmp_path / "first.json"
    assert retrieval.main(["--month", str(file), "--json", str(first)]) == 0
    figures = json.loads(first.read_text(encoding="utf-8"))
    early, late = figures["halves"]
    assert (early["recalls"], early["handed_right"], early["handed_wrong"], early["precision"]) == (3, 1, 0, 1)
    assert (early["first"], early["only_wrong"], early["kept"]) == (1, 0, 1)
    assert (late["recalls"], late["handed_right"], late["wrong_per_recall"], late["only_wrong"]) == (1, 0, 1, 1)
    assert (figures["off_topic"], figures["answered"]) == ({"short": 2}, {"lexical": {"short": 1}})

    # Had the first run handed out the right note in the second half, too, it would be missed now.
    figures["handed"]["lexical"][str(MONTH[3]["task"])] = ["chain"]
    first.write_text(json.dumps(figures), encoding="utf-8")
    again = tmp_path / "again.json"
    assert retrieval.main(["--month", str(file), "--before", str(first), "--json", str(again)]) == 0
    assert [half["kept"] for half in json.loads(again.read_text(encoding="utf-8"))["halves"]] == [1, 0]


def test_a_month_that_asks_for_a_note_nobody_left_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retrieval.main(["--month", str(month_file(tmp_path, MONTH[1:]))]) == 1
    assert "line 2: no earlier task left chain" in capsys.readouterr().err


def test_the_month_of_ours_is_one_that_can_be_played() -> None:
    ours, hard = month.read_month(month.BUILT_IN), month.read_month(month.HARD)
    assert len(hard.tasks) == 82
    assert len(ours.tasks) >= 120
    assert all(sum(len(task.right) for task in ours.tasks if task.half == half) >= 50 for half in "AB")
    assert len({task.field for task in ours.tasks}) >= 7
    assert len({task.language for task in ours.tasks}) >= 3
    assert {kind: len(questions) for kind, questions in ours.off_topic.items()} == {
        "short": 70,
        "long": 15,
        "technical": 20,
    }
