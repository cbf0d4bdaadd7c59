"""The gate: form, identity and duplicates of what somebody wrote."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.distill.dedup import Nearness, find_twin, pairs_to_compare, text_overlap
from reme_mcp.distill.drafts import (
    NamedDraft,
    from_stored,
    read_drafts,
    to_experience,
    to_json,
)
from reme_mcp.schema import (
    MAX_CONTENT_CHARS,
    MAX_KEYWORDS,
    MAX_LABEL_CHARS,
    MAX_TOOLS,
    MAX_WHEN_TO_USE_CHARS,
)
from tests.distill.draft_cases import calls
from tests.fakes import LEARNED, draft, experience, trajectory

LATER = LEARNED + timedelta(days=1)


def read(*raw: object, max_drafts: int = 6) -> tuple[list[NamedDraft], list[tuple[str, str]]]:
    drafts, rejected = read_drafts(raw, max_drafts=max_drafts)
    return drafts, [(one.when_to_use, one.reason) for one in rejected]


WITHIN = [
    {"when_to_use": "x" * 8},
    {"when_to_use": "x" * MAX_WHEN_TO_USE_CHARS},
    {"content": "y" * 12},
    {"content": "y" * MAX_CONTENT_CHARS},
    {"keywords": ["k"] * MAX_KEYWORDS},
    {"keywords": ["k" * MAX_LABEL_CHARS]},
    {"tools_used": ["t"] * MAX_TOOLS},
    {"confidence": 0},
    {"confidence": 1},
    {"kind": "comparative"},
    {"kind": None},
    {"generalized_task": "g" * MAX_WHEN_TO_USE_CHARS},
]


BEYOND = [
    ({"when_to_use": "x" * 7}, "when_to_use", "at least 8"),
    ({"when_to_use": " " * 20}, "when_to_use", "at least 8"),
    ({"when_to_use": "x" * (MAX_WHEN_TO_USE_CHARS + 1)}, "when_to_use", "at most 500"),
    ({"content": "y" * 11}, "content", "at least 12"),
    ({"content": "\0" * 20 + "y"}, "content", "at least 12"),
    ({"content": "y" * (MAX_CONTENT_CHARS + 1)}, "content", "at most 2000"),
    ({"content": "y" * 10_000_000}, "content", "at most 2000"),
    ({"content": ["a list of steps"]}, "content", "string"),
]


BEYOND_BESIDE_THE_LESSON = [
    ({"keywords": ["k"] * (MAX_KEYWORDS + 1)}, "keywords", "at most 12"),
    ({"keywords": ["k" * (MAX_LABEL_CHARS + 1)]}, "keywords", "at most 80"),
    ({"keywords": ["fine", ""]}, "keywords", "at least 1"),
    ({"keywords": "deploy, site"}, "keywords", "taken apart"),
    ({"tools_used": ["t"] * (MAX_TOOLS + 1)}, "tools_used", "at most 32"),
    ({"confidence": -0.01}, "confidence", "greater than or equal to 0"),
    ({"confidence": 1.01}, "confidence", "less than or equal to 1"),
    ({"confidence": float("nan")}, "confidence", ""),
    ({"confidence": "high"}, "confidence", "number"),
    ({"kind": "mixed"}, "kind", "'success', 'failure' or 'comparative'"),
    ({"generalized_task": "g" * (MAX_WHEN_TO_USE_CHARS + 1)}, "generalized_task", "at most 500"),
    ({"id": "e-mine"}, "id", "no field"),
    ({"workspace": "other"}, "workspace", "no field"),
]


# --- form ---


@pytest.mark.parametrize("changes", WITHIN)
def test_a_draft_of_the_right_form_is_taken(changes: dict[str, object]) -> None:
    drafts, rejected = read(draft(**changes))
    assert (len(drafts), rejected) == (1, [])


@pytest.mark.parametrize(("changes", "field", "words"), BEYOND)
def test_a_draft_of_the_wrong_form_is_rejected_with_field_and_reason(
    changes: dict[str, object], field: str, words: str
) -> None:
    drafts, [(_, reason)] = read(draft(**changes))
    assert drafts == []
    assert reason.startswith(f"{field}: ")
    assert words in reason


@pytest.mark.parametrize(("changes", "field", "words"), BEYOND_BESIDE_THE_LESSON)
def test_another_field_of_the_wrong_form_is_mended_or_left_out_and_told(
    changes: dict[str, object], field: str, words: str
) -> None:
    [named], rejected = read(draft(**changes))
    assert rejected == []
    [told] = named.mended
    assert field in told
    assert words in told


@pytest.mark.parametrize("field", ["when_to_use", "content"])
def test_a_draft_without_scenario_or_lesson_is_rejected(field: str) -> None:
    without = draft()
    del without[field]
    assert read(without) == (
        [],
        [(draft()["when_to_use"] if field == "content" else "experiences[0]", f"{field}: field required")],
    )


@pytest.mark.parametrize("item", [None, "a sentence", 7, [], ["x"]])
def test_what_is_no_draft_at_all_is_rejected_by_its_position(item: object) -> None:
    drafts, [(shown, reason)] = read(draft(), item)
    assert len(drafts) == 1
    assert shown == "experiences[1]"
    assert reason.startswith("experience: ")


def test_a_lesson_that_only_repeats_its_scenario_is_rejected() -> None:
    _, [(_, reason)] = read(draft(when_to_use="Publishing a static site", content="publishing  a STATIC site "))
    assert "repeats" in reason
    drafts, _ = read(draft(when_to_use="Publishing a static site", content="publishing  a STATIC site first"))
    assert len(drafts) == 1


@pytest.mark.parametrize(("most", "taken"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_only_so_many_drafts_are_taken_and_the_rest_is_named(most: int, taken: int) -> None:
    drafts, rejected = read(draft(0), draft(1), draft(2), max_drafts=most)
    assert len(drafts) == taken
    assert [shown for shown, _ in rejected] == [draft(number)["when_to_use"] for number in range(taken, 3)]
    assert all(f"only {most}" in reason for _, reason in rejected)


def test_one_bad_draft_does_not_spoil_the_others() -> None:
    drafts, rejected = read(draft(0), draft(1, content=7), draft(2))
    assert [named.draft.when_to_use for named in drafts] == [draft(0)["when_to_use"], draft(2)["when_to_use"]]
    assert [shown for shown, _ in rejected] == [draft(1)["when_to_use"]]


def test_all_errors_of_a_draft_are_told_at_once() -> None:
    _, [(_, reason)] = read(draft(content="short", when_to_use=7))
    assert "content: " in reason
    assert "when_to_use: " in reason


def test_a_long_scenario_is_shown_short() -> None:
    _, [(shown, _)] = read(draft(when_to_use="w" * 10_000))
    assert shown == "w" * 80


def test_texts_are_cleaned_before_they_are_measured() -> None:
    [named], _ = read(draft(content="Run\0 the build\r\nthen \ud800 upload", keywords=["de\0ploy"]))
    assert named.draft.content == "Run the build\nthen \ufffd upload"
    assert named.draft.keywords == ["deploy"]


def test_every_draft_gets_an_id_of_its_own() -> None:
    drafts, _ = read(draft(0), draft(0), draft(1))
    assert len({named.id for named in drafts}) == 3


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_json_is_a_draft_or_rejected_with_a_reason(item: object) -> None:
    drafts, rejected = read(item)
    assert len(drafts) + len(rejected) == 1
    assert all(reason for _, reason in rejected)


def test_drafts_come_back_from_storage_as_they_were() -> None:
    drafts, _ = read(draft(0, keywords=["日本語"], confidence=0.1, kind="failure"), draft(1))
    assert from_stored(to_json(drafts)) == drafts


def become(changes: dict[str, object], **attempt: Any) -> Any:
    [named], _ = read(draft(**changes))
    return to_experience(named, trajectory(**attempt), at=LATER)


# --- what a draft becomes ---


def test_provenance_comes_from_the_trajectory() -> None:
    one = become({}, workspace="team", source="cursor", task="Put my blog online")
    assert (one.workspace, one.source, one.task, one.trajectory_ids) == (
        "team",
        "cursor",
        "Put my blog online",
        ("t-bcdfghjkmn",),
    )
    assert (one.frequency, one.utility, one.status, one.pinned) == (0, 0, "active", False)
    assert one.created_at == one.counted_since == LATER


@pytest.mark.parametrize(
    ("given_kind", "outcome", "kind"),
    [(None, "failure", "failure"), (None, "success", "success"), ("comparative", "failure", "comparative")],
)
def test_the_kind_is_the_outcome_unless_the_draft_says_otherwise(
    given_kind: str | None, outcome: str, kind: str
) -> None:
    assert become({"kind": given_kind}, outcome=outcome).kind == kind


def test_the_tools_are_those_of_the_trajectory_that_the_lesson_names() -> None:
    transcript = calls("resize_image", "upload")
    assert become({"content": "Use resize_image before anything else."}, transcript=transcript).tools_used == (
        "resize_image",
    )
    assert become({"content": "Shrink images before anything else."}, transcript=transcript).tools_used == ()
    assert become({"content": "Use resize_image before anything else."}).tools_used == ()


def test_tools_that_the_draft_names_itself_are_kept() -> None:
    assert become({"tools_used": ["ssh"], "content": "Then upload."}, transcript=calls("upload")).tools_used == ("ssh",)


# --- duplicates ---


@pytest.mark.parametrize(
    "text", ["Run the build before the upload.", "先构建再上传网站。", "アップロードの前にビルドする", "a", ""]
)
def test_a_text_overlaps_itself_wholly(text: str) -> None:
    assert text_overlap(text, text) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Run the build before the upload.", "run  the BUILD before\nthe upload."),
        ("先构建 再上传", "先构建\u3000再上传"),
        ("ＡＢＣ deploy", "abc deploy"),
    ],
)
def test_case_width_and_blanks_make_no_difference(first: str, second: str) -> None:
    assert text_overlap(first, second) == 1


@pytest.mark.parametrize(
    ("first", "near", "far"),
    [
        (
            "Run the build before the upload of the site.",
            "Run the build before the upload of a site.",
            "Boil the eggs two minutes longer up there.",
        ),
        ("上传网站之前先运行构建命令。", "上传网站之前要先运行构建命令。", "高海拔地区煮鸡蛋需要更长时间。"),
    ],
)
def test_a_reworded_text_overlaps_mostly_and_another_one_hardly(first: str, near: str, far: str) -> None:
    assert text_overlap(first, near) > 0.6
    assert text_overlap(first, far) < 0.1


def test_texts_with_nothing_in_common_do_not_overlap() -> None:
    assert text_overlap("abcdef", "uvwxyz") == 0


@given(st.text(), st.text())
def test_overlap_is_a_share_and_the_same_both_ways(first: str, second: str) -> None:
    assert 0 <= text_overlap(first, second) == text_overlap(second, first) <= 1


NEW = experience("e-new", content="Run the build before the upload of the site.")


NEAR = experience("e-near", content="Run the build before the upload of a site.")


FAR = experience("e-far", when_to_use="Boiling eggs at altitude", content="Two minutes more per thousand metres.")


FAR_OFF = {"min_cosine": 1.0, "min_text_overlap": 1.0, "min_agreement": 1.0}


SHORTER = experience("e-new", content="Run the build before the upload.")


@pytest.mark.parametrize(
    "near",
    [{}, {"min_text_overlap": 0.3}, {"min_cosine": 0.9}, {"min_agreement": 0.5}],
)
def test_reaching_one_threshold_is_enough_to_be_compared(near: dict[str, float]) -> None:
    longer = experience("e-near", content="Run the build before the upload of the site, and look at it on a phone.")
    twin = find_twin(SHORTER, [FAR, longer], {"e-near": 0.9}, nearness=Nearness(**(FAR_OFF | near)))
    assert (twin is not None) is bool(near)
    if twin is not None:
        assert (twin.experience, twin.corrects) == (longer, False)


def test_what_is_only_near_by_meaning_is_another_lesson() -> None:
    assert find_twin(NEW, [FAR], {"e-far": 0.99}) is None


def test_what_reads_alike_but_is_of_another_kind_is_no_twin_unless_it_is_the_same_in_every_word() -> None:
    assert find_twin(NEW, [experience("e-near", content=NEAR.content, kind="failure")], {}) is None
    twin = find_twin(NEW, [experience("e-same", content=NEW.content.upper(), kind="failure")], {})
    assert twin is not None
    assert "same words" in twin.how


@pytest.mark.parametrize(
    ("content", "same"),
    [
        ("Run the build shortly before you upload the site.", True),
        ("Do not run the build before the upload of the site.", False),
        ("Run the build 2 times before the upload of the site.", False),
        ("Run the upload before the build of the site.", False),
        ("Run the tests before the upload of the site.", False),
        ("Run the build of the site before the upload, and look at it.", True),
    ],
)
def test_a_not_a_number_or_another_order_turns_a_lesson_around(content: str, same: bool) -> None:
    other = experience("e-other", content=content)
    twin = find_twin(NEW, [other], {"e-other": 0.99})
    assert twin is not None
    assert twin.corrects is not same


def test_a_difference_in_the_situation_makes_another_lesson_and_no_correction() -> None:
    other = experience("e-other", when_to_use=f"{NEW.when_to_use} on staging", content="Never run the build before it.")
    assert find_twin(NEW, [other], {"e-other": 0.99}) is None


def test_a_synonym_that_a_model_knows_says_nothing_new() -> None:
    newer = experience("e-new", content="Erase the old images before the upload of the site.")
    older = experience("e-old", content="Delete the old images before the upload of the site.")
    assert pairs_to_compare(newer, older) == {frozenset(("erase", "delete"))}
    for synonyms, corrects in ((frozenset(), True), (frozenset({frozenset(("erase", "delete"))}), False)):
        twin = find_twin(newer, [older], {}, synonyms=synonyms)
        assert twin is not None
        assert twin.corrects is corrects


def test_an_experience_is_not_its_own_twin() -> None:
    assert find_twin(NEW, [NEW], {"e-new": 1.0}) is None
    assert find_twin(NEW, [experience("e-other", content=NEW.content)], {}) is not None


def test_the_closest_twin_is_chosen() -> None:
    same = experience("e-same", content=NEW.content)
    for others in ([NEAR, same], [same, NEAR]):
        twin = find_twin(NEW, others, {})
        assert twin is not None
        assert twin.experience == same


def test_without_others_there_is_no_twin() -> None:
    assert find_twin(NEW, [], {"e-gone": 1.0}) is None
