"""What a model gets to see of a long transcript: how it began, what failed, how it ended, and marks for the rest."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reme_mcp.text.tokens import tokens
from reme_mcp.transcripts.excerpt import MIN_STEP_TOKENS, fit, shorten_middle
from reme_mcp.transcripts.messages import parse_messages
from reme_mcp.transcripts.transcript import Step, Transcript, to_text

GAP = re.compile(r"^\[… (\d+) steps? left out\]$", re.MULTILINE)
CUT = re.compile(r"\[… (\d+) characters left out …\]")


def attempt(*steps: Step) -> Transcript:
    return Transcript(steps=steps, messages=len(steps), marks=())


def walk(*, failing: tuple[int, ...] = (), length: int = 40, words: int = 1) -> Transcript:
    """Return an attempt of `length` calls, each followed by its result, and an end."""
    steps = [Step("user", "Find the red door.")]
    for number in range(length):
        steps.append(Step("call", f'{{"room":{number}}}', "look"))
        failed = number in failing
        steps.append(Step("result", f"{'error' if failed else 'seen'} {number} " * words, "look", failed))
    return attempt(*steps, Step("assistant", "No red door is left."))


# --- what stays ---


def test_a_transcript_that_fits_is_shown_as_it_is() -> None:
    transcript = walk(failing=(3,))
    whole = to_text(transcript)
    assert fit(transcript, tokens(whole)) == whole
    assert fit(transcript, tokens(whole) - 1) != whole


def test_the_beginning_the_failures_with_their_calls_and_the_end_stay() -> None:
    text = fit(walk(failing=(7, 20, 33)), 250)
    for number in (7, 20, 33):
        assert f'call look: {{"room":{number}}}' in text
        assert f"result look (failed): error {number}" in text
    assert text.startswith("user: Find the red door.\n\n")
    assert text.endswith("assistant: No red door is left.")
    assert len(GAP.findall(text)) >= 3


def test_long_results_lose_their_middle_before_any_step_is_left_out() -> None:
    text = fit(walk(length=4, words=800), 900)
    assert GAP.search(text) is None
    assert len(CUT.findall(text)) == 4
    assert "seen 3" in text


def test_the_end_of_a_long_error_stays_because_the_cause_is_there() -> None:
    trace = "Traceback\n" + 'File "x.py"\n' * 3_000 + "KeyError: 'door'"
    text = fit(attempt(Step("call", "{}", "run"), Step("result", trace, "run", failed=True)), 120)
    assert "result run (failed): Traceback" in text
    assert text.endswith("KeyError: 'door'")


def test_a_failure_brings_its_own_call_also_where_calls_ran_side_by_side() -> None:
    calls = [Step("call", f'{{"host":{number}}}', f"tool{number}") for number in range(30)]
    results = [Step("result", "fine " * 30, f"tool{number}", number == 11) for number in range(30)]
    text = fit(attempt(Step("user", "Ping all."), *calls, *results, Step("assistant", "Done.")), 200)
    assert "result tool11 (failed)" in text
    assert 'call tool11: {"host":11}' in text
    assert "call tool12" not in text


def test_what_the_user_said_comes_before_other_steps() -> None:
    steps = [*walk(length=15).steps, Step("user", "Try the cellar as well."), *walk(length=15).steps]
    text = fit(attempt(*steps), 150)
    assert "user: Try the cellar as well." in text


def test_of_too_many_failures_the_first_and_the_last_stay() -> None:
    text = fit(walk(failing=tuple(range(200)), length=200), 150)
    assert "error 0" in text
    assert "error 199" in text
    assert "No red door is left." in text
    assert tokens(text) <= 150


def test_a_single_long_step_uses_the_room_that_there_is() -> None:
    text = fit(attempt(Step("assistant", "I opened doors. " * 5_000)), 1_000)
    assert 950 <= tokens(text) <= 1_000
    assert text.startswith("assistant: I opened doors.")


def test_a_result_without_its_call_takes_the_call_before_it() -> None:
    steps = [Step("call", f'{{"room":{number}}}', "look") for number in range(60)]
    steps.insert(30, Step("result", "lost", "", failed=True))
    text = fit(attempt(Step("user", "Look."), *steps), 150)
    assert 'call look: {"room":29}\n\nresult (failed): lost' in text


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
def test_where_nothing_has_room_nothing_is_shown(max_tokens: int) -> None:
    assert fit(walk(), max_tokens) == ""


def test_where_no_step_has_room_the_mark_counts_them_all() -> None:
    assert fit(walk(words=200), 10) == "[… 82 steps left out]"


# --- properties ---

TEXTS = st.text(st.sampled_from("ab é界\n{}\u2028"), max_size=400).map(str.strip)
STEPS = st.one_of(
    st.builds(Step, st.sampled_from(["system", "user", "assistant"]), TEXTS),
    st.builds(Step, st.just("call"), TEXTS, st.sampled_from(["soil", "water"])),
    st.builds(Step, st.just("result"), TEXTS, st.sampled_from(["soil", "water", ""]), st.booleans()),
)
TRANSCRIPTS = st.lists(STEPS, max_size=40).map(lambda steps: attempt(*steps))


@settings(deadline=None)
@example(walk(failing=(1, 2)), 60)
@given(TRANSCRIPTS, st.integers(0, 3_000))
def test_it_never_costs_more_than_allowed(transcript: Transcript, max_tokens: int) -> None:
    assert tokens(fit(transcript, max_tokens)) <= max_tokens


@settings(deadline=None)
@given(TRANSCRIPTS, st.integers(0, 3_000))
def test_marks_and_steps_add_up(transcript: Transcript, max_tokens: int) -> None:
    text = fit(transcript, max_tokens)
    shown = sum(not line.startswith(("  ", "[…")) and bool(line) for line in text.split("\n"))
    missing = sum(int(count) for count in GAP.findall(text))
    assert text == "" or shown + missing == len(transcript.steps)


@settings(deadline=None)
@given(TRANSCRIPTS, st.integers(0, 3_000))
def test_failures_and_the_last_step_are_there_if_the_budget_is_sane(transcript: Transcript, extra: int) -> None:
    failures = sum(step.failed for step in transcript.steps)
    text = fit(transcript, 2 * MIN_STEP_TOKENS * (2 * failures + 8) + extra)
    assert len(re.findall(r"^result[^:\n]* \(failed\):", text, re.MULTILINE)) == failures
    if transcript.steps:
        assert GAP.search(text.rsplit("\n\n", 1)[-1]) is None


@settings(deadline=None)
@given(TRANSCRIPTS, st.integers(0, 3_000))
def test_the_same_transcript_gives_the_same_text_and_its_excerpt_fits_as_it_is(
    transcript: Transcript, max_tokens: int
) -> None:
    text = fit(transcript, max_tokens)
    assert fit(transcript, max_tokens) == text
    assert shorten_middle(text, max_tokens) == text


@given(st.text(max_size=600), st.integers(0, 200))
def test_shortening_the_middle_keeps_within_its_length_and_does_nothing_twice(text: str, max_tokens: int) -> None:
    text = text.encode(errors="replace").decode()
    short = shorten_middle(text, max_tokens)
    assert tokens(short) <= max_tokens
    assert shorten_middle(short, max_tokens) == short


def test_a_shortened_text_says_how_many_characters_are_missing() -> None:
    text = "x" * 400 + "y" * 400
    short = shorten_middle(text, 50)
    cut = CUT.search(short)
    assert cut is not None
    assert int(cut[1]) == 800 - short.count("x") - short.count("y")
    assert short.startswith("x")
    assert short.endswith("y")


def test_chat_messages_go_the_whole_way() -> None:
    messages: list[object] = [{"role": "user", "content": "Water the ferns."}]
    for number in range(30):
        function = {"name": "soil", "arguments": f'{{"pot": {number}}}'}
        messages.append({"role": "assistant", "tool_calls": [{"id": f"c{number}", "function": function}]})
        answer = '{"error": "no sensor"}' if number == 12 else json.dumps({"moisture": 0.4, "history": "0.4 " * 50})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": answer})
    text = fit(parse_messages(messages), 300)
    assert 'call soil: {"pot":12}\n\nresult soil (failed): {"error": "no sensor"}' in text
    assert tokens(text) <= 300
