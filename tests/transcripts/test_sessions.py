"""Session files of Claude Code and Codex, read as attempts."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.errors import InvalidInput
from reme_mcp.schema import MAX_TASK_CHARS
from reme_mcp.transcripts.outcome import infer
from reme_mcp.transcripts.sessions import Format, Session, read
from reme_mcp.transcripts.transcript import to_json
from tests.session_cases import REPORT, TUNE, Case
from tests.session_files import (
    CLAUDE_CODE,
    CODEX,
    TASK,
    codex_says,
    hook_added,
    item,
    jsonl,
    returns,
    says,
    user,
    uses,
)

RECEIPT = "r-bcdfghjkmn"


def session(*entries: object, format: Format = "claude-code", max_chars: int = 1_000_000) -> Session:
    (only,) = read(jsonl(*entries), format, max_chars=max_chars)
    return only


def shown(read_session: Session) -> list[tuple[str, str]]:
    return [(step.role, step.text) for step in read_session.transcript.steps]


def test_a_session_of_claude_code_is_an_attempt() -> None:
    got = session(*CLAUDE_CODE)
    assert got.task == TASK
    assert shown(got) == [
        ("user", TASK),
        ("assistant", "I will run them."),
        ("call", '{"command":"pytest -q","description":"Run tests"}'),
        ("result", "2 passed in 0.03s"),
        ("assistant", "All tests pass."),
    ]
    assert got.receipts == (RECEIPT,)
    assert not got.is_recorded
    assert not got.is_interrupted
    assert got.skipped == {
        "queue-operation": 1,
        "summary": 1,
        "of the client or a subagent": 3,
        "attachment": 1,
        "last-prompt": 1,
    }


def test_a_session_of_codex_is_an_attempt() -> None:
    got = session(*CODEX, format="codex")
    assert got.task == TASK
    assert [(step.role, step.tool) for step in got.transcript.steps] == [
        ("user", ""),
        ("call", "shell"),
        ("result", "shell"),
        ("call", "apply_patch"),
        ("result", "apply_patch"),
        ("call", "shell"),
        ("result", "shell"),
        ("assistant", ""),
    ]
    assert got.skipped == {
        "session_meta": 1,
        "message of developer": 1,
        "of the client or a subagent": 2,
        "turn_context": 1,
        "event_msg": 1,
        "reasoning": 1,
        "web_search_call": 1,
    }


def test_the_older_form_of_codex_has_no_envelopes() -> None:
    items = [entry["payload"] for entry in CODEX if entry["type"] == "response_item"]
    assert shown(session(*items, format="codex")) == shown(session(*CODEX, format="codex"))


def test_an_output_of_codex_may_be_an_object_or_blocks() -> None:
    call = item("function_call", name="f", arguments="{}", call_id="c")
    for output in ({"content": "done", "success": True}, [{"type": "input_text", "text": "done"}]):
        got = session(
            codex_says("user", TASK), call, item("function_call_output", call_id="c", output=output), format="codex"
        )
        assert shown(got)[-1] == ("result", "done")


@pytest.mark.parametrize("format", ["claude-code", "codex"])
def test_a_file_without_words_of_a_user_is_refused_with_what_is_in_it(format: Format) -> None:
    with pytest.raises(InvalidInput, match=r"no words of a user .*1 line that is no JSON.*is it a session of"):
        read(b"{", format, max_chars=1000)
    with pytest.raises(InvalidInput, match="left out: nothing"):
        read(b"", format, max_chars=1000)


def test_the_session_of_one_client_is_none_of_the_other() -> None:
    with pytest.raises(InvalidInput, match="is it a session of codex"):
        session(*CLAUDE_CODE, format="codex")
    with pytest.raises(InvalidInput, match="is it a session of claude-code"):
        session(*CODEX, format="claude-code")


def test_a_torn_line_and_unknown_entries_are_counted_and_left_out() -> None:
    data = jsonl({"type": "novelty"}, 7, user(TASK), {"type": "user", "message": "odd"}) + b'{"type": "assi'
    (got,) = read(data, "claude-code", max_chars=1000)
    assert got.skipped == {"novelty": 1, "line that is no object": 1, "user": 1, "line that is no JSON": 1}
    assert shown(got) == [("user", TASK)]


def test_a_message_of_an_unknown_shape_is_left_out() -> None:
    got = session(user(TASK), says("x") | {"message": {"role": "assistant", "content": [{"no": "type"}]}})
    assert got.skipped == {"message of an unknown shape": 1}


def test_an_entry_that_stands_twice_counts_once() -> None:
    got = session(user(TASK), says("Hello.", 1), says("Hello.", 1))
    assert got.skipped == {"repeated": 1}


def test_what_the_client_adds_to_a_prompt_is_not_the_users() -> None:
    got = session(
        user(
            [
                {"type": "text", "text": "<system-reminder>Today is Sunday.</system-reminder>"},
                {"type": "text", "text": f"{TASK}<system-reminder>Be brief.</system-reminder>"},
            ]
        )
    )
    assert shown(got) == [("user", TASK)]
    assert got.task == TASK


@pytest.mark.parametrize(
    ("tool", "text", "receipts"),
    [
        (
            "mcp__reme__recall_experiences",
            f'Notes …\nrecord_trajectory(task, outcome, receipt="{RECEIPT}").',
            (RECEIPT,),
        ),
        ("mcp__plugin_reme_reme__recall_experiences", json.dumps({"guidance": "", "receipt": RECEIPT}), (RECEIPT,)),
        ("recall_experiences", 'receipt="r-aeiou"', ()),
        ("WebFetch", f'receipt="{RECEIPT}"', ()),
    ],
)
def test_a_receipt_is_taken_from_our_own_answers_only(tool: str, text: str, receipts: tuple[str, ...]) -> None:
    blocks = [{"type": "text", "text": text}]
    assert session(user(TASK), uses(tool, task=TASK), returns(blocks)).receipts == receipts


def test_receipts_come_in_their_order_each_once() -> None:
    second = "r-ccccccccck"
    footer = 'record_trajectory(task, outcome, receipt="{}")'
    got = session(
        user(TASK), hook_added(footer.format(RECEIPT)), hook_added(footer.format(second) + footer.format(RECEIPT))
    )
    assert got.receipts == (RECEIPT, second)


@pytest.mark.parametrize(("failed", "is_recorded"), [(False, True), (True, False)])
def test_what_the_assistant_has_recorded_is_known(failed: bool, is_recorded: bool) -> None:
    calls = (
        uses("mcp__reme__record_trajectory", task=TASK),
        returns("Trajectory t-bcdfghjkmn: distilled.", failed=failed),
    )
    assert session(user(TASK), *calls).is_recorded is is_recorded


def test_an_interruption_counts_only_at_the_end() -> None:
    stop = user("[Request interrupted by user for tool use]", 5)
    assert session(user(TASK), says("Well"), stop).is_interrupted
    assert not session(user(TASK), stop, says("Well", 6)).is_interrupted


def test_long_texts_are_cut_in_their_middle_until_the_session_fits() -> None:
    entries = (user(TASK), uses("Bash", command="cat"), returns("begin " + "x" * 50_000 + " end"))
    assert len(session(*entries).transcript.steps[-1].text) == 50_010
    got = session(*entries, max_chars=10_000)
    text = got.transcript.steps[-1].text
    assert text.startswith("begin xxx")
    assert text.endswith("xxx end")
    assert "characters left out]" in text
    assert len(to_json(got.transcript)) <= 10_000


def test_a_task_is_cut_to_what_a_task_may_be() -> None:
    assert len(session(user("x" * (MAX_TASK_CHARS + 1))).task) == MAX_TASK_CHARS
    assert len(session(user("x" * MAX_TASK_CHARS)).task) == MAX_TASK_CHARS


_kinds = st.sampled_from(["user", "assistant", "attachment", "message", "function_call", "text", "tool_result"])
_names = st.sampled_from(["type", "role", "content", "text", "message", "payload", "uuid"])
_json: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "message", "payload", "id"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(st.lists(_json, max_size=4), st.sampled_from(["claude-code", "codex"]))
def test_nothing_in_a_file_makes_the_reader_fail(entries: list[object], format: Format) -> None:
    assert session(user(TASK), codex_says("user", TASK), *entries, format=format).task


# --- whose words they are, and how many tasks ---


@pytest.mark.parametrize("case", [*TUNE, *REPORT], ids=lambda case: case.name)
def test_task_and_outcome_are_those_of_the_user(case: Case) -> None:
    attempts = read(case.data, case.format, max_chars=100_000)
    got = [(one.task, infer(one.transcript.steps, is_interrupted=one.is_interrupted).outcome) for one in attempts]
    assert tuple(got) == case.expected


def test_a_torn_line_is_taken_up_where_it_was_written_again() -> None:
    whole = json.dumps(user(TASK))
    torn = b"\0\0" + whole[:40].encode() + whole.encode() + b"\n" + jsonl(says("Done.")).strip()
    glued = torn + json.dumps(user("thanks", 5)).encode()
    (got,) = read(glued, "claude-code", max_chars=100_000)
    assert shown(got) == [("user", TASK), ("assistant", "Done."), ("user", "thanks")]


def test_what_stands_inside_a_torn_entry_is_no_entry() -> None:
    torn = json.dumps({"payload": {"type": "message", "role": "user", "content": "torn"}, "timestamp": "2026"})[:-4]
    (got,) = read(torn.encode() + b"\n" + jsonl(codex_says("user", TASK)), "codex", max_chars=100_000)
    assert shown(got) == [("user", TASK)]


@pytest.mark.parametrize(
    ("pack", "name"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")], ids=["gz", "bz2", "xz"]
)
def test_a_compressed_file_is_named_as_such(pack: Callable[[bytes], bytes], name: str) -> None:
    with pytest.raises(InvalidInput, match=rf"the file is compressed \({name}\); unpack it first"):
        read(pack(jsonl(*CLAUDE_CODE)), "claude-code", max_chars=1000)


def test_text_in_utf_16_is_read() -> None:
    (got,) = read(jsonl(*CLAUDE_CODE).decode().encode("utf-16"), "claude-code", max_chars=100_000)
    assert got.task == TASK


def test_praise_for_what_came_before_the_file_is_no_task() -> None:
    with pytest.raises(InvalidInput, match="no words of a user"):
        session(says("Done."), user("thanks, it works"))


def test_what_a_person_says_is_said_of_the_whole_session() -> None:
    case = next(case for case in REPORT if case.name == "three tasks")
    (got,) = read(case.data, case.format, max_chars=100_000, whole=True)
    assert got.task == case.expected[0][0]
    assert len(read(case.data, case.format, max_chars=100_000)) == 3


def test_a_recall_and_a_record_belong_to_their_own_task() -> None:
    second = "r-ccccccccck"
    footer = 'record_trajectory(task, outcome, receipt="{}")'
    attempts = read(
        jsonl(
            user(TASK, 0),
            hook_added(footer.format(RECEIPT)),
            uses("mcp__reme__record_trajectory", 2, task=TASK),
            returns("Trajectory t-bcdfghjkmn: distilled.", 3, of=2),
            user("thanks, it works", 4),
            user("Now write the documentation of it", 5),
            hook_added(footer.format(second)),
            says("Written.", 6),
            user("great, thanks", 7),
        ),
        "claude-code",
        max_chars=100_000,
    )
    assert [one.receipts for one in attempts] == [(RECEIPT,), (second,)]
    assert [one.is_recorded for one in attempts] == [True, False]
