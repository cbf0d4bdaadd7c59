"""Capture without asking the model: session files by hand, hooks of Claude Code, and the plugin that brings them."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from reme_mcp.cli.main import cli
from reme_mcp.clients.plugin import files
from reme_mcp.config.settings import Settings
from reme_mcp.memory.capture import MIN_PROMPT_CHARS, Captured, context_for_prompt, record_session
from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.session_files import CLAUDE_CODE, CODEX, TASK, hook_added, jsonl, returns, says, user, uses

pytestmark = pytest.mark.anyio

DEADLINE_S = 60
PROMPT = "Put my static site online, please"

Run = Callable[..., Result]
Hook = Callable[..., subprocess.CompletedProcess[str]]


async def capture(memory: Memory, *entries: object, **options: Any) -> Captured:
    (only,) = await record_session(memory, jsonl(*entries), options.pop("format", "claude-code"), **options)
    return only


async def recalled(memory: Memory) -> str:
    """Learn something, recall it, and return the receipt."""
    await memory.record("Put it online", outcome="success", experiences=[draft(0)], source="test")
    return (await memory.recall(PROMPT, source="test")).receipt


def footer(receipt: str) -> dict[str, Any]:
    return hook_added(f'When the outcome is known: record_trajectory(task, outcome, receipt="{receipt}").')


# --- sessions ---


async def test_two_tasks_in_one_session_are_two_attempts(settings: Settings) -> None:
    entries = (
        user(TASK),
        says("Done."),
        user("thanks, works", 2),
        user("Add a retry to the uploader", 3),
        says("Added.", 4),
    )
    async with Memory.open(settings) as memory:
        first, second = await record_session(memory, jsonl(*entries, user("that still fails", 9)), "claude-code")
        assert first.result is not None
        assert second.result is not None
        recorded = [await memory.pool.trajectory(one.result.trajectory_id) for one in (first, second) if one.result]
        assert [(one.task, one.outcome) for one in recorded] == [
            (TASK, "success"),
            ("Add a retry to the uploader", "failure"),
        ]


async def test_a_session_whose_tests_pass_is_recorded_as_a_success(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        done = await capture(memory, *CLAUDE_CODE)
        assert done.inferred is not None
        assert (done.inferred.outcome, done.inferred.rule) == ("success", "tests")
        assert done.result is not None
        assert done.result.status == "awaiting_experiences"
        assert (await memory.pool.stats()).trajectories["success"] == 1
        again = await capture(memory, *CLAUDE_CODE)
        assert again.result == done.result
        assert (await memory.pool.stats()).trajectories["success"] == 1


async def test_a_session_of_codex_is_recorded_too(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        done = await capture(memory, *CODEX, format="codex")
        assert done.inferred is not None
        assert (done.inferred.outcome, done.inferred.evidence) == ("success", "4 passed")


async def test_a_receipt_is_settled_by_an_outcome_that_is_known(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        receipt = await recalled(memory)
        done = await capture(memory, user(TASK), footer(receipt), says("Done."), user("Thanks, it works!", 5))
        assert done.result is not None
        assert [(one.helped, one.frequency, one.utility) for one in done.result.settled] == [(True, 1, 1)]


async def test_a_session_that_does_not_say_how_it_ended_counts_nothing(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        receipt = await recalled(memory)
        entries = (user(TASK), footer(receipt), says("Done."))
        before = await memory.pool.stats()
        done = await capture(memory, *entries)
        assert (done.result, done.reason) == (None, "nothing in it says how it ended")
        assert await memory.pool.stats() == before
        told = await capture(memory, *entries, outcome="failure")
        assert told.inferred is None
        assert told.result is not None
        assert [(one.helped, one.frequency, one.utility) for one in told.result.settled] == [(False, 1, 0)]


async def test_what_a_person_says_weighs_more_than_what_is_found(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        assert (await capture(memory, *CLAUDE_CODE, reward=0.3)).result is not None
        assert (await memory.pool.stats()).trajectories["failure"] == 1


async def test_a_session_that_the_assistant_has_recorded_is_left_alone(settings: Settings) -> None:
    recorded = (uses("mcp__reme__record_trajectory", 7, task=TASK), returns("Trajectory t-b: distilled.", 8, of=7))
    async with Memory.open(settings) as memory:
        done = await capture(memory, *CLAUDE_CODE, *recorded)
        assert (done.result, done.reason) == (None, "the assistant has recorded it itself")
        assert (await memory.pool.stats()).trajectories["success"] == 0


async def test_a_receipt_of_another_pool_does_not_stand_in_the_way(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        receipt = await recalled(memory)
        done = await capture(memory, *CLAUDE_CODE, footer("r-kkkkkkkkkk"), footer(receipt))
        assert done.result is not None
        assert len(done.result.settled) == 1


async def test_a_prompt_gets_notes_once(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        await recalled(memory)
        notes = await context_for_prompt(memory, PROMPT, known=b"")
        assert "> Build it first" in notes
        assert "receipt=" in notes
        assert await context_for_prompt(memory, PROMPT, known=notes.encode()) == ""
        assert await context_for_prompt(memory, "Explain the theory of relativity", known=b"") == ""


async def test_what_names_no_task_gets_none(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        await recalled(memory)
        task = "so a static site."
        assert len(task) == MIN_PROMPT_CHARS + 1
        assert await context_for_prompt(memory, task, known=b"")
        assert await context_for_prompt(memory, task[1:], known=b"")
        assert await context_for_prompt(memory, task[2:], known=b"") == ""
        for mark in "/!#":
            assert await context_for_prompt(memory, f"{mark}{task}", known=b"") == ""


# --- by hand ---


@pytest.fixture
def run(home: Path) -> Run:
    def run(*arguments: str, given: bytes | None = None) -> Result:
        options = ["--home", str(home), "--set", "embedder.provider=none"]
        return CliRunner().invoke(cli, [*options, *arguments], input=given)

    return run


def test_a_session_is_recorded_by_hand_and_what_was_left_out_is_told(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "session.jsonl"
    file.write_bytes(jsonl(*CLAUDE_CODE))
    done = run("record", "--format", "claude-code", str(file))
    assert done.exit_code == 0
    assert "left out: 1 queue-operation\n" in done.stderr
    assert "success by its tests: 2 passed in 0.03s\n" in done.stderr
    assert done.stdout.startswith("Trajectory t-")
    silent = jsonl(user(TASK), says("Done."))
    done = run("record", "--format", "claude-code", "-", given=silent)
    assert done.exit_code == 1
    assert done.stderr.endswith(
        "Error: not recorded: nothing in it says how it ended; say it with --outcome success or failure\n"
    )
    assert run("record", "--format", "claude-code", "--outcome", "failure", "-", given=silent).exit_code == 0
    assert json.loads(run("stats", "--json").stdout)["trajectories"]["failure"] == 1


def test_bad_use_is_one_clear_sentence(run: Run) -> None:
    assert "is it a session of codex?" in run("record", "--format", "codex", "-", given=jsonl(*CLAUDE_CODE)).stderr
    assert "--outcome and --reward go with --format" in run("record", "--outcome", "failure", "-", given=b"{}").stderr


# --- hooks ---


@pytest.fixture
def hook(home: Path) -> Hook:
    def hook(told: object, *options: str) -> subprocess.CompletedProcess[str]:
        # A busy machine takes longer than a user would wait.
        patient = ["--set", "capture.prompt_budget_s=25"]
        command = [sys.executable, "-m", "reme_mcp", "--home", str(home), *patient, *options, "hook"]
        given = told if isinstance(told, str) else json.dumps(told)
        return subprocess.run(
            command, input=given, capture_output=True, text=True, encoding="utf-8", timeout=DEADLINE_S, check=False
        )

    return hook


def prompt(text: str = PROMPT, **more: object) -> dict[str, object]:
    told = {"session_id": "s", "transcript_path": "/nowhere/s.jsonl", "cwd": "/", "permission_mode": "default"}
    return told | {"hook_event_name": "UserPromptSubmit", "prompt": text} | more


def ended(file: Path) -> dict[str, object]:
    return {"session_id": "s", "transcript_path": str(file), "hook_event_name": "SessionEnd", "reason": "other"}


def line_of_log(home: Path, begins: str) -> str:
    """Wait for a line of the log: the session is recorded behind its back."""
    deadline = time.monotonic() + DEADLINE_S
    log = home / "hooks.log"
    while time.monotonic() < deadline:
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        if found := [line for line in lines if line[20:].startswith(begins)]:
            return found[0]
        threading.Event().wait(0.05)
    raise AssertionError(f"no line of {log} begins with {begins!r}")


def test_a_session_is_recorded_at_its_end_and_its_lesson_recalled_at_the_next_prompt(
    hook: Hook, run: Run, home: Path, tmp_path: Path
) -> None:
    file = tmp_path / "one.jsonl"
    file.write_bytes(jsonl(user(PROMPT), says("Done."), user("It still fails.", 5)))
    done = hook(ended(file))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    line = line_of_log(home, "one.jsonl")
    assert line.endswith("failure by its words (It still fails.)")
    trajectory_id = line.split(":")[2].split()[-1]
    lesson = {"trajectory_id": trajectory_id, "experiences": [draft(0)]}
    assert run("record", "-", given=json.dumps(lesson).encode()).exit_code == 0

    done = hook(prompt())
    assert (done.returncode, done.stderr) == (0, "")
    output = json.loads(done.stdout)["hookSpecificOutput"]
    assert output["hookEventName"] == "UserPromptSubmit"
    notes = output["additionalContext"]
    assert "> Build it first" in notes

    # The next session has the notes, and thanks for them.
    file = tmp_path / "two.jsonl"
    file.write_bytes(jsonl(user(PROMPT), hook_added(notes), says("Built and uploaded."), user("Thank you!", 5)))
    assert hook(prompt(transcript_path=str(file))).stdout == ""
    hook(ended(file))
    assert "success by its words (Thank you!)" in line_of_log(home, "two.jsonl")
    (experience,) = json.loads(run("list", "--json").stdout)
    assert (experience["frequency"], experience["utility"]) == (1, 1)


def test_a_session_without_an_outcome_is_logged_with_the_command_that_records_it(
    hook: Hook, run: Run, home: Path, tmp_path: Path
) -> None:
    run("list")
    file = tmp_path / "silent.jsonl"
    file.write_bytes(jsonl(user(PROMPT), says("Done.")))
    hook(ended(file))
    line = line_of_log(home, "silent.jsonl not recorded: nothing in it says how it ended; to record it: ")
    assert line.endswith(f"reme-mcp record --format claude-code --outcome success|failure {file}")


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("{", "reme-mcp hook: Expecting property name"),
        ("[]", "what came on stdin is no JSON object"),
        ("", "Expecting value"),
        (prompt(transcript_path=None), "transcript_path is None"),
    ],
)
def test_whatever_is_wrong_the_hook_ends_well(hook: Hook, run: Run, told: object, says: str) -> None:
    run("list")
    done = hook(told)
    assert (done.returncode, done.stdout) == (0, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "told",
    [prompt(), prompt(prompt=None), {"hook_event_name": "Stop"}, {}],
    ids=["no home", "no prompt", "other", "none"],
)
def test_where_there_is_nothing_to_do_the_hook_is_silent_and_makes_no_home(
    hook: Hook, home: Path, told: object
) -> None:
    done = hook(told)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not home.exists()


def test_what_is_switched_off_does_nothing(hook: Hook, run: Run, home: Path, tmp_path: Path) -> None:
    lesson = {"task": "x", "outcome": "success", "experiences": [draft(0)]}
    run("record", "-", given=json.dumps(lesson).encode())
    assert "Build it first" in hook(prompt()).stdout
    assert hook(prompt(), "--set", "capture.at_prompt=false").stdout == ""
    assert hook(ended(tmp_path / "none.jsonl"), "--set", "capture.at_end=false").stderr == ""
    assert not (home / "hooks.log").exists()
    hook(ended(tmp_path / "none.jsonl"))
    assert "No such file" in line_of_log(home, "")


def test_a_bad_setting_does_not_stand_in_the_way_of_a_session(hook: Hook, run: Run) -> None:
    done = hook(prompt(), "--set", "recall.limit=0")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "reme-mcp hook: command line --set recall.limit = '0': must be from 1 to 20\n"
    assert run("--set", "recall.limit=0", "list").exit_code == 1


def test_a_home_that_is_none_is_one_line(hook: Hook, home: Path) -> None:
    home.mkdir()
    (home / "photo.jpg").write_bytes(b"x")
    done = hook(prompt())
    assert done.returncode == 0
    assert "not a home of reme-mcp" in done.stderr
    assert [entry.name for entry in home.iterdir()] == ["photo.jpg"]


def test_a_prompt_goes_on_without_notes_when_the_budget_is_spent(hook: Hook, run: Run, home: Path) -> None:
    lesson = {"task": "x", "outcome": "success", "experiences": [draft(0)]}
    run("record", "-", given=json.dumps(lesson).encode())
    with closing(sqlite3.connect(home / "pool" / "ledger.db", isolation_level=None)) as ledger:
        ledger.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        done = hook(prompt(), "--set", "capture.prompt_budget_s=2")
        assert time.monotonic() - started < DEADLINE_S / 2
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == ("reme-mcp hook: notes for the prompt took longer than 2 s ([capture] prompt_budget_s)\n")
    assert "Build it first" in hook(prompt()).stdout


# --- the plugin ---


def test_the_plugin_has_the_server_and_its_hooks() -> None:
    made = {name: json.loads(text) for name, text in files(["/opt/my tools/reme-mcp", "--home", "/h"]).items()}
    assert made[".claude-plugin/plugin.json"]["name"] == "reme"
    assert made[".mcp.json"] == {
        "mcpServers": {"reme": {"command": "/opt/my tools/reme-mcp", "args": ["--home", "/h"]}}
    }
    hooks = made["hooks/hooks.json"]["hooks"]
    assert set(hooks) == {"UserPromptSubmit", "PreToolUse", "SessionEnd"}
    assert hooks["PreToolUse"][0]["matcher"] == "Task|Agent"
    for event in hooks:
        ((entry,),) = [group["hooks"] for group in hooks[event]]
        assert entry["type"] == "command"
        assert entry["command"] == "'/opt/my tools/reme-mcp' --home /h hook || true"
        assert entry["timeout"] > Settings().capture.prompt_budget_s


def test_a_command_of_windows_survives_the_shell() -> None:
    hooks = json.loads(files([r"C:\Program Files\reme-mcp.exe"])["hooks/hooks.json"])["hooks"]
    assert hooks["SessionEnd"][0]["hooks"][0]["command"] == "'C:/Program Files/reme-mcp.exe' hook || true"


def test_the_plugin_is_written_once_and_replaced_when_told(run: Run, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "plugin"
    done = run("--workspace", "mine", "plugin", str(folder))
    assert done.exit_code == 0
    args = json.loads((folder / ".mcp.json").read_text(encoding="utf-8"))["mcpServers"]["reme"]["args"]
    assert args[-6:] == ["--home", str(home), "--workspace", "mine", "--set", "embedder.provider=none"]
    assert f"claude --plugin-dir {folder}" in done.stderr
    done = run("plugin", str(folder))
    assert done.exit_code == 1
    assert "exists; --force replaces it" in done.stderr
    config = tmp_path / "config.toml"
    config.write_text("", encoding="utf-8")
    assert run("--config", str(config), "plugin", str(folder), "--force").exit_code == 0
    assert str(config) in (folder / ".mcp.json").read_text(encoding="utf-8")
    done = run("plugin", str(tmp_path / "other"), "--set", "llm.api_key=secret")
    assert done.exit_code == 1
    assert "llm.api_key is a secret" in done.stderr
    assert not (tmp_path / "other").exists()
