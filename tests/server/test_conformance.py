"""The protocol's own conformance suite, from npm, against `serve --http`."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial
from pathlib import Path

import anyio.to_thread
import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from tests.hosted import hosted
from tests.npm import npm_program, run_npm
from tests.server.test_offers import prove

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
NODE_MAJOR = 22
# What the suite wants of a server that was written for it: tools, prompts and resources by its own names.
FIXTURE = re.compile(
    r"no (tool|prompt|resource) '(test|json_schema)|Tool '\w+' not found|Not testable: server |Prerequisite failed"
    r"|Expected InputRequiredResult"
)
# Scenarios of what is not offered: protocol logging is deprecated, and no call takes long enough for a task.
NOT_OFFERED = ("logging", "tools-call-with-logging", "tasks-")
SKILLS = ("sep-2640-skills-enumeration", "sep-2640-skills-manifest")


def failed(folder: Path) -> list[str]:
    """Return the checks that failed for another reason than that the server is not the suite's own."""
    found: list[str] = []
    for file in sorted(folder.glob("*/checks.json")):
        checks = json.loads(file.read_text(encoding="utf-8"))
        messages = [check.get("errorMessage") or "" for check in checks if check["status"] == "FAILURE"]
        # A later round of a scenario says only that there was no first one.
        lacks_fixture = any(FIXTURE.search(json.dumps(check)) for check in checks)
        if not lacks_fixture and not file.parent.name.removeprefix("server-").startswith(NOT_OFFERED):
            found += [f"{file.parent.name}: {message}" for message in messages]
    return found


async def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    conformance = npm_program("conformance", "@modelcontextprotocol/conformance")
    command = [conformance, "server", "--output-dir", str(folder), *arguments]
    return await anyio.to_thread.run_sync(partial(run_npm, command, folder.parent, {}))


@pytest.fixture(autouse=True)
def node(tmp_path: Path) -> None:
    """Skip where the suite, or a Node that runs it, is not to be had."""
    npm_program("conformance", "@modelcontextprotocol/conformance")
    npm_program("node", "node")
    version = run_npm(["node", "--version"], tmp_path, {}).stdout
    if int(version.removeprefix("v").partition(".")[0]) < NODE_MAJOR:
        pytest.skip(f"Node is {version.strip()}; the suite needs {NODE_MAJOR}")


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_no_check_fails_but_for_the_fixtures_of_the_suite(
    settings: Settings, tmp_path: Path, revision: str
) -> None:
    async with hosted(settings, "http") as server:
        done = await run(tmp_path / "results", "--url", f"{server.url}/mcp", "--requirements", revision)
    passed = re.search(r"Total: (\d+) passed", done.stdout)
    assert passed is not None, done.stdout + done.stderr
    assert int(passed[1]) >= 40
    assert failed(tmp_path / "results") == []


@pytest.mark.parametrize("scenario", SKILLS)
async def test_no_check_of_skills_fails(memory: Memory, settings: Settings, tmp_path: Path, scenario: str) -> None:
    await prove(memory, 0)
    async with hosted(settings, "http") as server:
        done = await run(tmp_path / "results", "--url", f"{server.url}/mcp", "--scenario", scenario)
    assert re.search(r"Passed: (\d+)/\1, 0 failed", done.stdout), done.stdout + done.stderr
    assert "SKIPPED" not in done.stdout
