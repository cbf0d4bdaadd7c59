"""Files of experiences: what is read of ours and of every format that ReMe has published."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.import_export.jsonl import FORMAT, read, to_line
from reme_mcp.import_export.record import Record
from reme_mcp.safety.redaction import redactor
from reme_mcp.schema import Experience, Kind
from tests.fakes import experience

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
MEMORY: dict[str, Any] = {
    "workspace_id": "theirs",
    "when_to_use": "Before a car is started",
    "content": "Lock every door and hold the brake, or the engine refuses.",
}


def records(data: str | bytes, *, kind: Kind = "success", workspace: str = "default") -> list[Record]:
    data = data if isinstance(data, bytes) else data.encode()
    return read(data, workspace=workspace, source="file:pool.jsonl", kind=kind, redact=redactor(), at=NOW)


def one(value: object, **options: Any) -> Experience:
    """Return what a good record holds."""
    (record,) = records(json.dumps(value), **options)
    assert record.experience is not None, record.fault
    return record.experience


def fault(value: object) -> str:
    """Return what is wrong with a bad record."""
    (record,) = records(json.dumps(value))
    assert record.experience is None
    return record.fault


# --- ours ---

FULL = experience(
    "e-kkkkkkkkkk",
    keywords=("deploy", "出来事"),
    confidence=0.75,
    tools_used=("upload",),
    kind="comparative",
    frequency=7,
    utility=3,
    prior_frequency=2,
    prior_utility=1,
    trajectory_ids=("t-bbbbbbbbbb", "t-cccccccccc"),
    updated_at=datetime(2026, 5, 1, tzinfo=UTC),
    status="archived",
    status_reason="succeeded with it 3 of 7",
    pinned=True,
    origins=("abc",),
)


def test_a_line_of_ours_brings_back_all_but_workspace_and_source() -> None:
    (record,) = records(to_line(FULL), workspace="mine")
    back = record.experience
    assert back is not None
    assert record.is_ours
    assert (back.workspace, back.source, back.counted_since) == ("mine", "file:pool.jsonl", NOW)
    # What the receipts said of it stands in the counters for good.
    assert (back.frequency, back.utility, back.prior_frequency, back.prior_utility) == (7, 3, 7, 3)
    assert to_line(back).replace('"mine"', '"default"').replace('"file:pool.jsonl"', '"test"') == to_line(FULL)


@given(st.text(min_size=12, max_size=300))
def test_a_text_of_any_kind_is_one_line_and_comes_back(text: str) -> None:
    line = to_line(experience(task=text))
    (record,) = records((line + "\n").encode("utf-8", "surrogatepass"))
    if record.fault:
        assert any(0xD800 <= ord(character) <= 0xDFFF for character in text)
    else:
        assert record.experience is not None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "reme-mcp/2"}, "this version reads 'reme-mcp/1'"),
        ({"format": 1}, "format is 1"),
        ({"id": "e-1"}, "id: string should match pattern"),
        ({"utility": 8}, "utility is 8 and frequency 7"),
        ({"frequency": -1}, "frequency: input should be greater than or equal to 0"),
        ({"status": "great"}, "status: input should be"),
        ({"created_at": "yesterday"}, "created_at: input should be a valid datetime"),
        ({"created_at": "2026-03-01T12:00:00"}, "created_at: input should have timezone info"),
        ({"surprise": 1}, "surprise: extra inputs are not permitted"),
        ({"content": "short"}, "content: string should have at least 12 characters"),
        ({"confidence": 1.1}, "confidence: input should be less than or equal to 1"),
        ({"kind": None}, "kind: input should be"),
    ],
)
def test_a_bad_line_of_ours_says_which_field_is_wrong(changes: dict[str, Any], says: str) -> None:
    assert says in fault(json.loads(to_line(FULL)) | changes)


def test_a_missing_field_of_ours_is_named() -> None:
    fields = json.loads(to_line(FULL))
    del fields["pinned"]
    assert fault(fields) == "pinned: field required"


def test_no_time_is_later_than_now() -> None:
    (record,) = records(to_line(experience(created_at=NOW + timedelta(days=1), updated_at=NOW + timedelta(days=1))))
    assert record.experience is not None
    assert (record.experience.created_at, record.experience.updated_at) == (NOW, NOW)
    (record,) = records(to_line(experience(created_at=NOW - timedelta(days=1), updated_at=NOW)))
    assert record.experience is not None
    assert record.experience.created_at == NOW - timedelta(days=1)


# --- ReMe's, one after the other ---

FIRST = MEMORY | {
    "experience_id": "9880a12e011b4ad6b063f11d40115034",
    "experience_type": "text",
    "score": None,
    "metadata": {
        "author": "qwen3-8b",
        "created_time": "2025-08-04 07:32:40",
        "modified_time": "2025-08-04 07:32:41",
        "extra_info": {"tags": ["car", "engine"], "confidence": 0.9, "step_type": "action", "tools_used": ["lock"]},
    },
}
PAPER = MEMORY | {
    "memory_id": "3bd4929d874a4750b0d4ab78c0246299",
    "memory_type": "task",
    "score": 0,
    "time_created": "2025-09-20 11:22:49",
    "time_modified": "2025-09-20 11:22:49",
    "author": "qwen3-14b",
    "metadata": {
        "author": "qwen3-14b",
        "task_query": "Start my car.",
        "category": "failure",
        "extra_info": {"tags": ["car"], "generalized_query": "Start a vehicle"},
        "utility": 2,
        "freq": 3,
    },
}
FLAT = PAPER | {
    "memory_type": "procedural",
    "metadata": {
        "task_query": "Start my car.",
        "category": "comparative",
        "generalized_query": "Start a vehicle",
        "utility": 2,
        "freq": 3,
    },
}
DUMP = {
    "memory_id": "0123456789abcdef",
    "memory_type": "procedural",
    "memory_target": "",
    "when_to_use": MEMORY["when_to_use"],
    "content": MEMORY["content"],
    "message_time": "",
    "ref_memory_id": "",
    "time_created": "2026-02-01 10:00:00",
    "time_modified": "2026-02-02 10:00:00",
    "author": "qwen3-32b",
    "score": 0.0,
    "vector": [0.1, 0.2],
    "metadata": {"tags": "car,engine, start", "tools_used": "lock,start", "confidence": "0.8", "category": "success"},
}


def test_a_record_of_the_first_libraries_is_read() -> None:
    got = one(FIRST, kind="failure")
    assert (got.when_to_use, got.content) == (MEMORY["when_to_use"], MEMORY["content"])
    assert (got.keywords, got.tools_used, got.confidence) == (("car", "engine"), ("lock",), 0.9)
    assert (got.kind, got.author, got.task, got.generalized_task) == ("failure", "qwen3-8b", "", "")
    assert got.created_at == datetime(2025, 8, 4, 7, 32, 40, tzinfo=UTC)
    assert got.updated_at == datetime(2025, 8, 4, 7, 32, 41, tzinfo=UTC)
    assert got.origins == ("9880a12e011b4ad6b063f11d40115034",)
    assert (got.workspace, got.source, got.status) == ("default", "file:pool.jsonl", "active")
    assert one(FIRST).kind == "success"


@pytest.mark.parametrize("extra", [None, {"author": "x", "created_time": "2025-08-15 17:02:21", "extra_info": None}])
def test_a_record_without_extras_is_read(extra: object) -> None:
    got = one(FIRST | {"metadata": FIRST["metadata"] | {"extra_info": extra}})
    assert (got.keywords, got.tools_used, got.confidence, got.frequency) == ((), (), 0.5, 0)


def test_a_record_of_the_early_libraries_is_read() -> None:
    early = {name: value for name, value in FIRST.items() if not name.startswith("experience_")}
    early |= {"memory_id": "m1", "memory_type": "task", "time_created": "2025-07-24 21:15:17", "author": "a model"}
    got = one(early)
    assert (got.author, got.origins) == ("a model", ("m1",))
    assert got.created_at == datetime(2025, 7, 24, 21, 15, 17, tzinfo=UTC)


@pytest.mark.parametrize(("record", "kind"), [(PAPER, "failure"), (FLAT, "comparative")])
def test_a_record_of_the_paper_data_keeps_its_counters_and_tasks(record: object, kind: str) -> None:
    got = one(record)
    assert (got.frequency, got.utility, got.prior_frequency, got.prior_utility) == (3, 2, 3, 2)
    assert (got.task, got.generalized_task, got.kind) == ("Start my car.", "Start a vehicle", kind)


def test_a_record_of_a_dump_has_its_lists_as_text() -> None:
    got = one(DUMP)
    assert (got.keywords, got.tools_used, got.confidence) == (("car", "engine", "start"), ("lock", "start"), 0.8)
    assert (got.frequency, got.origins) == (0, ("0123456789abcdef",))


@pytest.mark.parametrize("inner", [{"author": "a", "category": "failure"}, '{"author": "a", "category": "failure"}'])
def test_a_node_of_a_vector_store_is_read(inner: object) -> None:
    node = {
        "unique_id": "u1",
        "workspace_id": "w",
        "content": MEMORY["when_to_use"],
        "vector": [0.5],
        "metadata": {"experience_type": "text", "experience_content": MEMORY["content"], "metadata": inner},
    }
    got = one(node)
    assert (got.when_to_use, got.content) == (MEMORY["when_to_use"], MEMORY["content"])
    assert (got.author, got.kind, got.origins) == ("a", "failure", ("u1",))


def test_a_node_of_a_later_vector_store_is_flat() -> None:
    flat = {"memory_type": "procedural", "content": MEMORY["content"], "freq": 4, "utility": 1, "author": "b"}
    got = one({"vector_id": "v1", "content": MEMORY["when_to_use"], "vector": None, "metadata": flat})
    assert (got.content, got.frequency, got.utility, got.author) == (MEMORY["content"], 4, 1, "b")


@pytest.mark.parametrize(
    ("content", "lesson"),
    [
        ("['Lock the doors.', 'Hold the brake.']", "Lock the doors.\nHold the brake."),
        (
            "[{'step': 1, 'action': 'lock the doors'}, {'step': 2, 'action': 'go'}]",
            "step: 1; action: lock the doors\nst",
        ),
        (["Lock the doors.", "Hold the brake."], "Lock the doors.\nHold the brake."),
        ("[not a list, but a lesson]", "[not a list, but a lesson]"),
    ],
)
def test_a_lesson_that_is_a_list_of_steps_becomes_lines(content: object, lesson: str) -> None:
    assert one(FIRST | {"content": content}).content.startswith(lesson)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"memory_type": "personal"}, "memory_type is 'personal'; only task, procedural, text memories"),
        ({"content": None}, "content: string should have at least 12 characters"),
        ({"content": 7}, "content is 7; allowed: text"),
        ({"when_to_use": ""}, "when_to_use: string should have at least 8 characters"),
        ({"content": "x" * 2001}, "content: string should have at most 2000 characters"),
        ({"content": MEMORY["when_to_use"]}, "content repeats when_to_use"),
        ({"metadata": []}, "metadata is []; allowed: an object"),
        ({"metadata": {"freq": 1, "utility": 2}}, "utility is 2 and frequency 1"),
        ({"metadata": {"freq": "many"}}, "freq is 'many'; allowed: a number"),
        ({"metadata": {"confidence": 2}}, "confidence: input should be less than or equal to 1"),
        ({"metadata": {"tags": 3}}, "tags is 3; allowed: a list"),
        ({"time_created": "soon"}, "time is 'soon'"),
        ({"metadata": {"task_query": "x" * 8001}}, "metadata.task_query has 8,001 characters"),
    ],
)
def test_a_bad_record_of_reme_says_what_is_wrong(changes: dict[str, Any], says: str) -> None:
    assert says in fault(PAPER | changes)


def test_lists_are_cut_to_what_an_experience_holds() -> None:
    assert len(one(DUMP | {"metadata": {"tags": [f"tag {n}" for n in range(12)]}}).keywords) == 12
    assert len(one(DUMP | {"metadata": {"tags": [f"tag {n}" for n in range(13)]}}).keywords) == 12
    assert one(DUMP | {"metadata": {"tags": ["x" * 81, "", "x" * 80]}}).keywords == ("x" * 80,)


def test_secrets_are_cut_out_and_ids_are_not() -> None:
    got = one(
        PAPER
        | {
            "content": "Log in with password=hunter2-Xy7! before anything else.",
            "metadata": {"task_query": "Use AKIAIOSFODNN7EXAMPLE to upload"},
        }
    )
    assert "hunter2" not in got.content
    assert "AKIA" not in got.task
    assert got.origins == (PAPER["memory_id"],)


# --- files ---


def test_one_bad_line_is_reported_with_its_number_and_the_others_are_read() -> None:
    lines = [json.dumps(PAPER), "", "{", "[1]", json.dumps(FLAT)]
    got = records("\n".join(lines) + "\n")
    assert [record.where for record in got] == ["line 1", "line 3", "line 4", "line 5"]
    assert [bool(record.fault) for record in got] == [False, True, True, False]
    assert got[1].fault.startswith("it is not JSON: ")
    assert got[2].fault == "it is [1]; allowed: a JSON object"


def test_a_line_of_another_encoding_is_the_only_one_that_is_lost() -> None:
    good = json.dumps(PAPER).encode()
    got = records(b"\xef\xbb\xbf" + good + b"\r\n" + '{"content": "café"}'.encode("latin-1") + b"\n" + good)
    assert [bool(record.fault) for record in got] == [False, True, False]
    assert got[1].fault == "it is not UTF-8 (byte 17); save the file as UTF-8"


def test_a_line_separator_inside_a_text_ends_no_line() -> None:
    text = json.dumps(PAPER | {"content": "Lock every door\u2028and hold the brake."}, ensure_ascii=False)
    (record,) = records(text)
    assert record.experience is not None
    assert "brake" in record.experience.content


def test_a_json_array_is_read_record_by_record() -> None:
    got = records(json.dumps([PAPER, 7, FLAT], indent=1))
    assert [record.where for record in got] == ["record 1", "record 2", "record 3"]
    assert [bool(record.fault) for record in got] == [False, True, False]


def test_one_object_may_stand_on_several_lines() -> None:
    (record,) = records("\n" + json.dumps(PAPER, indent=1))
    assert (record.where, record.fault) == ("line 2", "")
    assert fault(7) == "it is 7; allowed: a JSON object"


@pytest.mark.parametrize("data", ["", "\n\n", "\ufeff"])
def test_an_empty_file_has_no_records(data: str) -> None:
    assert records(data) == []


def test_deep_nesting_is_an_error_like_any_other() -> None:
    (record,) = records('{"content": ' + "[" * 100_000 + "]" * 100_000 + "}")
    assert record.fault


def test_the_format_has_a_number() -> None:
    assert FORMAT == "reme-mcp/1"
