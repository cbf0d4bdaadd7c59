"""The process that a hook leaves behind: it runs none of the project's modules, and its death leaves a word."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner

from reme_mcp.cli import last_error
from reme_mcp.cli.main import cli
from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.session_files import jsonl, user

DEADLINE_S = 60


@pytest.fixture
def pool(settings: Settings) -> Path:
    """A home with a lesson in it."""

    async def learn() -> None:
        async with Memory.open(settings) as memory:
            await memory.record("a first task", outcome="success", experiences=[draft(0)], source="test")

    anyio.run(learn)
    return Path(settings.home)


def until_told(home: Path) -> str:
    """Wait for what the process writes into its log when it has read the session."""
    deadline = time.monotonic() + DEADLINE_S
    log = home / "hooks.log"
    while not (log.exists() and log.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline, last_error.said_by_child(home)
        threading.Event().wait(0.05)
    return log.read_text(encoding="utf-8")


def test_the_modules_of_a_project_are_not_run(pool: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    stolen = tmp_path / "stolen"
    for name in ("click", "json", "anyio"):
        (project / f"{name}.py").write_text(f"open({str(stolen)!r}, 'a').write({name!r})\nraise SystemExit(0)\n")
    session = tmp_path / "s.jsonl"
    session.write_bytes(jsonl(user("Deploy the blog to production"), user("It works now, thanks!")))
    told = {"hook_event_name": "SessionEnd", "transcript_path": str(session), "session_id": "s", "cwd": str(project)}
    command = [sys.executable, "-P", "-m", "reme_mcp", "--home", str(pool), "--set", "embedder.provider=none", "hook"]
    given = json.dumps(told).encode()
    done = subprocess.run(command, input=given, cwd=project, capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert until_told(pool)
    assert not stolen.exists()
    assert last_error.said_by_child(pool) == ""


def test_a_process_that_dies_leaves_a_line_for_doctor(pool: Path) -> None:
    with last_error.of_child(pool) as errors:
        dying = [sys.executable, "-P", "-c", "raise ModuleNotFoundError('No module named click')"]
        assert subprocess.run(dying, stderr=errors, check=False).returncode == 1
    options = ["--home", str(pool), "--set", "embedder.provider=none"]
    found = json.loads(CliRunner().invoke(cli, [*options, "doctor", "--json"]).stdout)
    assert any("No module named click" in str(one) for one in found)


def test_without_a_home_nothing_is_made(tmp_path: Path) -> None:
    with last_error.of_child(tmp_path / "home") as errors:
        errors.write(b"nobody reads it\n")
    assert not (tmp_path / "home").exists()
