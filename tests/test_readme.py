"""What the README and the help tell people to type works as it stands there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import click
import pytest
from click.testing import CliRunner

from reme_mcp.cli.main import cli
from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.memory.memory import Memory

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
TEXT = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
COMMANDS = cli.list_commands(click.Context(cli))
LESSON = {"when_to_use": "Before deploying the blog", "content": "Build it with the production settings first."}
LIBRARY_RECORD = {"when_to_use": "Before naming a branch", "content": "Use hyphens, as blanks are not allowed there."}
PAGE = "---\nwhen_to_use: Before naming a tag\n---\n\nBegin with the letter v, as the release job looks for it.\n"
RECORD = {"task": "Deploy the blog", "outcome": "failure", "experiences": [LESSON]}

# What stands in the README for something of the reader's own.
STAND_INS = {r"\be-[a-z0-9]{10}\b": "{id}"}
# These wait for a client or ask for what a test has not; each with its reason.
NOT_RUN = {"serve": "it waits for a client", "ui": "it waits for a browser", "demo": "test_main.py plays it"}


def lines() -> Iterator[str]:
    """Yield the command lines of the README's shell blocks that start with this program."""
    for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            if line.startswith("reme-mcp"):
                yield line


@pytest.fixture
def lesson(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Go to a folder with a pool and what the lines speak of; return the id of the pool's one experience."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REME_MCP_HOME", str(home))
    monkeypatch.setenv("REME_MCP_EMBEDDER_PROVIDER", "none")
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    # An editor that changes nothing.
    monkeypatch.setenv("VISUAL", f'"{sys.executable}" -c "pass"')
    (tmp_path / "folder").mkdir()
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "branches.md").write_text(PAGE, encoding="utf-8")
    (tmp_path / "attempts.jsonl").write_text(json.dumps(RECORD | {"task": "Deploy the shop"}), encoding="utf-8")
    (tmp_path / "library.jsonl").write_text(json.dumps(LIBRARY_RECORD), encoding="utf-8")
    done = CliRunner().invoke(cli, ["record", "-", "--json"], input=json.dumps(RECORD))
    added: list[str] = json.loads(done.stdout)["added"]
    return added[0]


def prepare(command: str, id: str, home: Path) -> None:
    """Bring the experience into the state that the command is for."""

    async def archive() -> None:
        settings = Settings(home=str(home), embedder=EmbedderSettings(provider="none"))
        async with Memory.open(settings) as memory:
            await memory.pool.archive(id, "it does not help")

    if command == "restore":
        anyio.run(archive)


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    assert len(README.splitlines()) <= 120
    assert max(len(line) for line in README.splitlines() if not line.startswith("|")) <= 100
    assert {page.name for page in PAGES[3:]} <= set(re.findall(r"\(docs/(\w+\.md)\)", README))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_there_is_something_to_run() -> None:
    assert len(list(lines())) >= 5


@pytest.mark.parametrize("line", list(lines()))
def test_every_command_line_works(line: str, lesson: str, home: Path, tmp_path: Path) -> None:
    for pattern, stand_in in STAND_INS.items():
        line = re.sub(pattern, stand_in.format(id=lesson), line)
    arguments = shlex.split(line, comments=True)[1:]
    command = next((word for word in arguments if word in COMMANDS), "serve")
    if command in NOT_RUN:
        pytest.skip(NOT_RUN[command])
    prepare(command, lesson, home)
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output


def test_every_command_that_is_spoken_of_exists() -> None:
    spoken = re.findall(r"`(?:\.venv/bin/)?reme-mcp ([a-z][a-z-]*)", TEXT)
    assert spoken
    assert set(spoken) <= set(COMMANDS)


def examples() -> list[str]:
    """Return the command lines that the help of this program and of its commands gives as examples."""
    context = click.Context(cli)
    helps = [cli.epilog, *(found.epilog for name in COMMANDS if (found := cli.get_command(context, name)) is not None)]
    return [line.strip() for text in helps if text for line in text.splitlines() if line.startswith("  reme-mcp")]


@pytest.mark.parametrize("line", examples())
def test_every_example_of_the_help_names_what_there_is(line: str) -> None:
    # What it is for stands after two blanks, and where its output goes after a sign.
    words = shlex.split(re.split(r"  +| [|>] ", line)[0])[1:]
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    given = command.make_context(words[0], words[1:], resilient_parsing=True)
    assert [word for word in given.args if word.startswith("-")] == []
    known = {name for option in command.params for name in [*option.opts, *option.secondary_opts]}
    assert {word for word in words if word.startswith("--")} <= known
