"""Attempts that have taught nothing yet: listed, shown, offered by the hook, and learned from by hand; and consoles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result

from reme_mcp.cli.claude_code import MAX_OUTPUT_CHARS, for_prompt, for_subagent
from reme_mcp.cli.main import cli
from reme_mcp.config.settings import Settings
from reme_mcp.memory.capture import OFFER, offer
from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.session_files import hook_added, jsonl, user

pytestmark = pytest.mark.anyio
TASK = "Put my static site online"
STEPS = "Built it with hugo, then uploaded the public folder with rsync."
DEADLINE_S = 60


def run(settings: Settings, *arguments: str, given: str = "") -> Result:
    options = ["--home", settings.home, "--set", "embedder.provider=none"]
    return CliRunner().invoke(cli, [*options, *arguments], input=given)


async def recorded(settings: Settings, *tasks: str) -> list[str]:
    async with Memory.open(settings) as memory:
        results = [await memory.record(one, outcome="success", steps=STEPS, source="claude-code") for one in tasks]
    return [one.trajectory_id for one in results]


def prompt(file: Path) -> dict[str, object]:
    return {
        "hook_event_name": "UserPromptSubmit",
        "prompt": "Write the release notes, please",
        "transcript_path": str(file),
    }


async def test_a_session_is_asked_once_to_learn_from_what_has_waited_longest(
    settings: Settings, tmp_path: Path
) -> None:
    first, _ = await recorded(settings, TASK, "Write a changelog")
    file = tmp_path / "s.jsonl"
    async with Memory.open(settings) as memory:
        text = str((await for_prompt(memory, prompt(file)))["additionalContext"])
        assert OFFER in text
        assert f'trajectory_id="{first}"' in text
        assert f"> assistant: {STEPS}" in text
        assert "(2 wait in all.)" in text
        # The session has it now.
        file.write_bytes(jsonl(user("Write the release notes, please"), hook_added(text)))
        assert await for_prompt(memory, prompt(file)) == {}


async def test_what_has_taught_its_lessons_is_offered_no_more(settings: Settings) -> None:
    first, second = await recorded(settings, TASK, "Write a changelog")
    async with Memory.open(settings) as memory:
        await memory.record(TASK, trajectory_id=first, experiences=[draft(0)], source="test")
        assert second in await offer(memory, known=b"", fits=bool)
        await memory.record(TASK, trajectory_id=second, experiences=[], source="test")
        assert await offer(memory, known=b"", fits=bool) == ""


async def test_an_attempt_that_nobody_answers_for_makes_room_for_the_others(settings: Settings) -> None:
    first, second = await recorded(settings, TASK, "Write a changelog")
    async with Memory.open(settings) as memory:
        assert await offer(memory, known=b"", fits=lambda text: False) == ""
        offered = [await offer(memory, known=b"", fits=bool) for _ in range(4)]
    assert [first in text for text in offered] == [True, False, True, False]
    assert [second in text for text in offered] == [False, True, False, True]


async def test_what_a_hook_prints_is_never_too_long_for_claude_code(settings: Settings, tmp_path: Path) -> None:
    async with Memory.open(settings) as memory:
        lesson = draft(0) | {"when_to_use": "Writing the release notes", "content": '先 "构建" 再上传。\n' * 100}
        await memory.record("Release notes", outcome="success", experiences=[lesson], source="test")
        await memory.record("发布 " * 2_000, outcome="success", steps="步骤 \\ \n" * 9_000, source="test")
        output = await for_prompt(memory, prompt(tmp_path / "s.jsonl"))
    assert 1_000 < len(json.dumps(output, ensure_ascii=False)) < MAX_OUTPUT_CHARS
    assert "发布" in str(output)


async def test_a_subagent_gets_notes_behind_its_prompt(settings: Settings) -> None:
    given = {"prompt": f"{TASK}, please", "description": "d", "subagent_type": "general-purpose"}
    told: dict[str, object] = {"hook_event_name": "PreToolUse", "tool_name": "Agent", "tool_input": given}
    unlike = given | {"prompt": "Water the flowers in the garden"}
    async with Memory.open(settings) as memory:
        await memory.record(TASK, outcome="success", experiences=[draft(0)], source="test")
        output = await for_subagent(memory, told)
        # Whether it may start is not for a memory to decide.
        assert set(output) == {"updatedInput"}
        changed = output["updatedInput"]
        assert isinstance(changed, dict)
        assert changed["prompt"].startswith(f"{TASK}, please\n\n")
        assert str(draft(0)["content"])[:20] in changed["prompt"]
        assert changed | {"prompt": given["prompt"]} == given
        assert await for_subagent(memory, told | {"tool_name": "Bash"}) == {}
        assert await for_subagent(memory, told | {"tool_input": unlike}) == {}


def test_attempts_lists_what_waits_and_show_its_steps(settings: Settings) -> None:
    assert "Nothing waits" in run(settings, "attempts").stderr
    (id,) = anyio.run(recorded, settings, TASK)
    assert run(settings, "attempts").stdout.split("\t")[::5] == [id, f"{TASK}\n"]
    (one,) = json.loads(run(settings, "attempts", "--json").stdout)
    assert (one["id"], one["waits_for"]) == (id, "lessons")
    assert f"assistant: {STEPS}" in run(settings, "show", id).stdout
    assert "1 have taught nothing yet" in run(settings, "doctor").stdout


def test_a_person_writes_lessons_by_hand(settings: Settings) -> None:
    anyio.run(recorded, settings, TASK, "Write a changelog", "Say hello")
    lesson = (
        "w",
        "Putting a static site online",
        "Build it first, then upload the public folder with rsync.",
        "hugo, rsync",
        "n",
    )
    done = run(settings, "distill", "--by-hand", given="\n".join([*lesson, "n", "l"]) + "\n")
    assert done.exit_code == 0, done.output
    assert "Learned: e-" in done.output
    assert "it waits no longer" in done.output
    (left,) = json.loads(run(settings, "attempts", "--json").stdout)
    assert left["task"] == "Say hello"
    (experience,) = json.loads(run(settings, "list", "--json").stdout)
    assert experience["keywords"] == ["hugo", "rsync"]
    assert "go with --json" in run(settings, "distill", "--by-hand", "--json").stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_pipe_takes_every_character_whatever_its_code_page(settings: Settings, encoding: str) -> None:
    anyio.run(recorded, settings, "部署博客 → 生产 🚀")
    command = [sys.executable, "-m", "reme_mcp", "--home", settings.home, "attempts"]
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    assert "部署博客 → 生产 🚀" in done.stdout.decode()
