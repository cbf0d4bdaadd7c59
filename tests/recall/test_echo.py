"""Recalled notes are cut out of what is distilled, in whatever shape they came into the conversation."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.recall.notes import MARK, RECALL_FOOTER, RECALL_HEADER, RECALL_NOTHING, recall_guidance, without_guidance
from reme_mcp.recall.ranking import Ranked
from reme_mcp.server import prompts
from reme_mcp.transcripts.messages import parse_messages, parse_steps
from reme_mcp.transcripts.transcript import Step, Transcript, to_text
from tests.fakes import experience

LESSONS = ("Build it first, then upload the public folder.", "Purge the cache.\nThen look at the page in a new window.")
SCENARIO = "When a static site has to go online"


def ranked(place: int) -> Ranked:
    return Ranked(
        experience=experience(f"e-bcdfghjkm{place}", content=LESSONS[place]),
        ranking=1.0,
        relevance=1.0,
        text_relevance=1.0,
        vector_relevance=None,
        neighbour_relevance=0.0,
        similarity=None,
        missing_tools=(),
        age_days=1,
    )


NOTES, _ = recall_guidance([ranked(0), ranked(1)], token_budget=1_000)
GUIDANCE = f"{NOTES}\n\n{RECALL_FOOTER.format(receipt='r-bcdfghjkmn')}"
QUOTED = "\n".join(line for line in NOTES.split("\n") if line.startswith(">"))
RESULT = json.dumps({"experiences": [], "receipt": "r-bcdfghjkmn", "search": ["text"], "note": ""})


def attempt(*steps: Step) -> Transcript:
    return Transcript(steps=steps, messages=len(steps), marks=())


def text_after(*steps: Step, known: tuple[str, ...] = ()) -> str:
    return to_text(without_guidance(attempt(*steps), known))


def holds_no_notes(text: str) -> bool:
    return not any(part in text for part in (*LESSONS, "Purge", "Build it", SCENARIO, "e-bcdf", "r-bcdf", "quoted."))


# --- our tools ---


@pytest.mark.parametrize(
    "tool",
    [
        "recall_experiences",
        "mcp__reme__recall_experiences",
        "reme.recall_experiences",
        "mcp_reme-mcp_recall_experiences",
        "reme/recall_experiences",
        "mcp__memory__record_trajectory",
        "rate_experience",
    ],
)
@pytest.mark.parametrize("answer", [GUIDANCE, RESULT, "Trajectory t-x: distilled. For the retry:\n> Purge the cache."])
def test_calls_and_results_of_our_own_tools_go_whatever_their_prefix(tool: str, answer: str) -> None:
    text = text_after(
        Step("user", "Put my blog online."),
        Step("call", '{"task":"Put my blog online. Purge"}', tool),
        Step("result", answer, tool),
        Step("call", '{"path":"public"}', "upload"),
    )
    assert text == f'user: Put my blog online.\n\nresult {tool}: {MARK}\n\ncall upload: {{"path":"public"}}'


@pytest.mark.parametrize(
    "tool", ["recall", "total_recall_experiences_v2", "xrecall_experiences", "recall_experiences2"]
)
def test_tools_of_others_stay(tool: str) -> None:
    steps = (Step("call", "{}", tool), Step("result", "Purge the cache.", tool))
    assert without_guidance(attempt(*steps)).steps == steps


@pytest.mark.parametrize(
    "answer",
    [RESULT, json.dumps([{"type": "text", "text": GUIDANCE}]), json.dumps({"structuredContent": {"g": NOTES}})],
)
def test_a_result_of_ours_is_known_without_its_call(answer: str) -> None:
    assert text_after(Step("result", answer), Step("result", answer, "run_tool")) == f"result: {MARK}"


def test_other_json_stays() -> None:
    for answer in ('{"receipt": "paid", "total": 3}', "[1, 2]", "{broken", '["' * 3_000):
        assert text_after(Step("result", answer, "shop")) == f"result shop: {answer}"


def test_both_shapes_of_a_conversation_lose_their_notes() -> None:
    name = "mcp__reme__recall_experiences"
    openai: list[object] = [
        {"role": "user", "content": "Put my blog online."},
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": name, "arguments": '{"task":"blog"}'}}]},
        {"role": "tool", "tool_call_id": "a", "content": GUIDANCE},
        {"role": "assistant", "content": "I upload it."},
    ]
    anthropic: list[object] = [
        {"role": "user", "content": "Put my blog online."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": name, "input": {"task": "blog"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": GUIDANCE}]},
        {"role": "assistant", "content": [{"type": "text", "text": "I upload it."}]},
    ]
    for messages in (openai, anthropic):
        text = to_text(without_guidance(parse_messages(messages)))
        assert text == f"user: Put my blog online.\n\nresult {name}: {MARK}\n\nassistant: I upload it."


# --- notes in what somebody said ---


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
@pytest.mark.parametrize("notes", [GUIDANCE, NOTES, QUOTED, NOTES.partition("\n\n")[2]])
@pytest.mark.parametrize("margin", ["", "  ", "> "])
def test_a_block_of_notes_goes_and_what_stands_around_it_stays(role: str, notes: str, margin: str) -> None:
    quoted = "\n".join(f"{margin}{line}" for line in notes.split("\n"))
    cut = without_guidance(attempt(Step(role, f"Be brief.\n\n{quoted}\n\nThe task:\nBlog")))  # type: ignore[arg-type]  # one of the three
    assert holds_no_notes(to_text(cut))
    text = cut.steps[0].text
    assert text.startswith(f"Be brief.\n\n{MARK}\n")
    assert text.endswith("\nThe task:\nBlog")
    assert text.count(MARK) == 1


def test_the_prompt_that_starts_a_task_keeps_the_task_alone() -> None:
    said = prompts.start_task("Put my blog online", GUIDANCE)
    text = text_after(Step("user", said))
    assert holds_no_notes(text)
    assert "Put my blog online" in text


def test_a_recall_that_found_nothing_goes_too() -> None:
    said = f"{RECALL_NOTHING}\n\n{RECALL_FOOTER.format(receipt='r-bcdfghjkmn')}"
    assert text_after(Step("user", said)) == f"user: {MARK}"


def test_words_before_the_header_on_its_line_stay() -> None:
    assert text_after(Step("user", f"From memory: {GUIDANCE}")).startswith("user: From memory:\n  [recalled")


def test_an_account_in_plain_text_loses_them_as_well() -> None:
    cut = without_guidance(parse_steps(f"I asked the memory:\n{NOTES}\n\nThen I uploaded it."))
    assert cut.steps[0].text == f"I asked the memory:\n{MARK}\n\nThen I uploaded it."


def test_what_others_quote_stays() -> None:
    said = "As she wrote:\n> Send it on Monday.\n> When in doubt, call.\n\n[1] a footnote"
    assert text_after(Step("user", said)) == "user: " + said.replace("\n", "\n  ")


def test_the_arguments_of_other_tools_stay() -> None:
    step = Step("call", json.dumps({"text": GUIDANCE}), "write_file")
    assert without_guidance(attempt(step), LESSONS).steps == (step,)


# --- texts that the receipt handed out ---


def test_a_lesson_that_is_known_goes_wherever_it_is_repeated() -> None:
    said = "Memory says: build it first, then\n> upload the public folder. So I do."
    assert text_after(Step("assistant", said), known=LESSONS) == f"assistant: Memory says: {MARK} So I do."
    assert "upload" in text_after(Step("assistant", said))


def test_a_known_text_that_is_short_stays() -> None:
    assert (
        text_after(Step("assistant", "I run make test now."), known=("make test",)) == "assistant: I run make test now."
    )


def test_of_two_known_texts_the_longer_one_goes_whole() -> None:
    longer = f"{LESSONS[0]} Then purge."
    assert text_after(Step("assistant", longer), known=(LESSONS[0], longer)) == f"assistant: {MARK}"


# --- properties ---

LINES = st.sampled_from(
    [
        "",
        "words",
        "> words",
        "> When: it rains",
        "  > > When: x",
        RECALL_HEADER,
        "[1] e-bcdfghjkmn · from",
        "[2] a",
    ]
)
STEPS = st.builds(
    Step,
    st.sampled_from(["system", "user", "assistant", "call", "result"]),
    st.lists(LINES, max_size=8).map("\n".join),
    st.sampled_from(["", "upload", "mcp__reme__recall_experiences"]),
)


@given(st.lists(STEPS, max_size=8))
def test_cutting_twice_cuts_nothing_more(steps: list[Step]) -> None:
    once = without_guidance(attempt(*steps), LESSONS)
    assert without_guidance(once, LESSONS) == once


@given(st.lists(st.text(st.sampled_from("ab \n[]-·"), max_size=60), max_size=6))
def test_a_transcript_without_notes_stays_as_it_is(texts: list[str]) -> None:
    transcript = attempt(*(Step("assistant", text) for text in texts))
    assert without_guidance(transcript) == transcript
