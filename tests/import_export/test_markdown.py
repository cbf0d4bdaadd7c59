"""A lesson as a page: what a person edits comes back, and nothing else of it counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reme_mcp.distill.drafts import draft_of
from reme_mcp.errors import InvalidInput
from reme_mcp.import_export.markdown import read_page, to_pages
from reme_mcp.schema import clean_text, task_key
from tests.fakes import experience

ONE = replace(
    experience("e-bcdfghjkmn"),
    when_to_use="Before deploying the blog: check 'base_path'",
    content="Build with `--base-path`.\n\n---\n\n- links are relative\n- 中文 works, too",
    keywords=("blog", "base: path"),
    tools_used=("build",),
    frequency=4,
    utility=3,
)


def test_a_page_reads_back_as_the_lesson_it_was_written_from() -> None:
    (page,) = to_pages([ONE])
    assert read_page(page.text).id == ONE.id
    assert read_page(page.text).draft == draft_of(ONE)


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=20, max_size=200),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), min_size=40, max_size=400),
)
def test_any_lesson_survives_its_page(when: str, content: str) -> None:
    # As the pool holds it: normalized, and with something to say.
    held = replace(ONE, when_to_use=clean_text(when), content=clean_text(content))
    assume(len(held.when_to_use) >= 8 and len(held.content) >= 12)
    assume(task_key(held.when_to_use) != task_key(held.content))
    (page,) = to_pages([held])
    assert read_page(page.text).draft == draft_of(held)


def test_what_a_person_changes_is_read_and_counters_are_not() -> None:
    (page,) = to_pages([ONE])
    text = page.text.replace("links are relative", "links must be relative").replace("- blog\n", "- weblog\n")
    text = text.replace("track_record:", "track_record: succeeded 900 of 900 #")
    edited = read_page(text)
    assert edited.draft.content.startswith("Build with `--base-path`.\n\n---\n\n- links must be relative")
    assert edited.draft.keywords == ["weblog", "base: path"]
    assert set(type(edited.draft).model_fields).isdisjoint({"frequency", "utility", "track_record"})


def test_a_page_that_a_person_wrote_anew_has_no_id() -> None:
    edited = read_page("---\nwhen_to_use: Before publishing a package\n---\nBuild it with `python -m build` first.\n")
    assert (edited.id, edited.draft.content) == ("", "Build it with `python -m build` first.")


def test_names_and_order_stay_the_same_whatever_the_order_of_the_pool() -> None:
    two = replace(ONE, id="e-qrtvwxy346", when_to_use="Antes de publicar la página")
    names = [page.name for page in to_pages([ONE, two])]
    assert names == [page.name for page in to_pages([two, ONE])]
    (page,) = to_pages([two], named={two.id: "as-it-was--e-qrtvwxy346.md"})
    assert page.name == "as-it-was--e-qrtvwxy346.md"
    assert names == ["antes-de-publicar-la-página--e-qrtvwxy346.md", names[1]]
    assert names[1].startswith("before-deploying-the-blog-check-base_path")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# A lesson\nwithout front matter", "does not begin with front matter"),
        ("---\nwhen_to_use: x", "does not begin with front matter"),
        ("---\n: [\n---\nText", "no YAML"),
        ("---\n- a\n---\nText", "not a list of names and values"),
        ("---\nwhen: now\n---\nText", "has when; known are id"),
        ("---\nwhen_to_use: Before deploying the blog\n---\nshort", "content"),
        (
            "---\nwhen_to_use: Before deploying the blog\nconfidence: high\n---\nBuild it first, then look.",
            "confidence",
        ),
        ("---\nwhen_to_use: !!python/object/apply:os.system ['true']\n---\nBuild it first.", "valid string"),
    ],
)
def test_a_page_that_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        read_page(text)
