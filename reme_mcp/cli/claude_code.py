"""At home in Claude Code: `plugin` writes a plugin folder, `hook` is what its hooks run.

A hook must never block or break the session of the user: it ends with status 0 and within its time, whatever happens,
and says nothing but what is of use. What went wrong is one line on stderr, and for the end of a session in `hooks.log`
in the home, as nobody reads stderr then.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reme_mcp.cli import last_error
from reme_mcp.cli.options import Choice
from reme_mcp.cli.output import examples, write_files
from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput, ReMeError

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory

MAX_INPUT_BYTES = 10_000_000
# Claude Code takes no more of what a hook prints.
MAX_OUTPUT_CHARS = 10_000
FRAME_CHARS = 200
MAX_NOTES_TOKENS = 1_200
# The tool that starts a subagent, by its older and its newer name.
SUBAGENT_TOOLS = ("Task", "Agent")
LOG_FILE = "hooks.log"
MAX_LOG_BYTES = 100_000


@click.command(epilog=examples("reme-mcp plugin ./reme-plugin", "reme-mcp plugin ./reme-plugin --workspace team"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--force", is_flag=True, help="Replace the files that are there.")
@click.pass_obj
def plugin(choice: Choice, folder: Path, force: bool) -> None:
    """Write a plugin for Claude Code into DIR: this server, and hooks that record sessions and recall at prompts.

    It stands for `install claude-code`: don't use both. Home, workspace and settings that are chosen now are written
    into it. Try it with `claude --plugin-dir DIR`.
    """
    from reme_mcp.clients.installer import own_command
    from reme_mcp.clients.plugin import files

    own = own_command(sys.argv[0], sys.executable)
    try:
        chosen = choice.arguments(choice.settings(os.environ), os.environ)
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc
    command = [own.command, *own.args, *chosen]
    write_files([(folder / name, text) for name, text in files(command).items()], force=force)
    click.echo(f"Written. Try it: claude --plugin-dir {folder}", err=True)


@click.command()
@click.option("--now", is_flag=True, hidden=True, help="Record in this process.")
@click.pass_obj
def hook(choice: Choice, now: bool) -> None:
    """Serve a hook of Claude Code, whose JSON comes on stdin; always ends with status 0.

    At UserPromptSubmit it prints what earlier work says about the prompt, and once a session an attempt that waits for
    its lessons; at PreToolUse it adds notes to what a subagent is told; at SessionEnd it records the session.
    """
    home = ""
    try:
        settings = choice.settings(os.environ)
        home = settings.home
        told = json.loads(sys.stdin.buffer.read(MAX_INPUT_BYTES))
        if not isinstance(told, dict):
            raise InvalidInput("what came on stdin is no JSON object; Claude Code runs this, see `reme-mcp plugin`")
        event = told.get("hook_event_name")
        if event == "UserPromptSubmit" and settings.capture.at_prompt:
            _within_budget(settings, told, for_prompt)
        elif event == "PreToolUse" and settings.capture.at_prompt:
            _within_budget(settings, told, for_subagent)
        elif event == "SessionEnd" and settings.capture.at_end:
            if now:
                _at_end(settings, told)
            else:
                _leave_behind(told, settings.own_folder)
    except Exception as exc:  # noqa: BLE001  the session goes on, whatever is wrong here
        _complain(home, f"{exc}" if isinstance(exc, ReMeError | ValueError | OSError) else f"{exc!r}")


def _within_budget(
    settings: Settings,
    told: dict[str, object],
    answer: Callable[[Memory, dict[str, object]], Awaitable[dict[str, object]]],
) -> None:
    """Print what a hook answers within the budget, or nothing."""
    if not Path(settings.home).is_dir():
        return
    budget_s = settings.capture.prompt_budget_s
    watchdog = threading.Timer(budget_s, _give_up, [settings.home, budget_s])
    watchdog.daemon = True
    watchdog.start()
    import anyio

    from reme_mcp.memory.memory import Memory

    # Loading a model takes longer than a user waits, and Claude Code takes no more than so many characters.
    quick = settings.model_copy(
        update={
            "embedder": settings.embedder.model_copy(update={"provider": "none"}),
            "llm": settings.llm.model_copy(update={"base_url": ""}),
            "recall": settings.recall.model_copy(
                update={"token_budget": min(settings.recall.token_budget, MAX_NOTES_TOKENS)}
            ),
        }
    )

    async def run() -> dict[str, object]:
        async with Memory.open(quick) as memory:
            return await answer(memory, told)

    output = anyio.run(run)
    watchdog.cancel()
    text = json.dumps({"hookSpecificOutput": {"hookEventName": told["hook_event_name"], **output}}, ensure_ascii=False)
    if output and len(text) <= MAX_OUTPUT_CHARS:
        click.echo(text)


async def for_prompt(memory: Memory, told: dict[str, object]) -> dict[str, object]:
    """Return notes for a prompt, and what the session may learn from, as far as there is room for it."""
    from reme_mcp.memory.capture import context_for_prompt, is_task, offer

    prompt = told.get("prompt")
    if not isinstance(prompt, str) or not is_task(prompt):
        return {}
    known = _session_so_far(told)
    notes = await context_for_prompt(memory, prompt, known=known)
    texts = [notes] if notes and _fits(notes) else []
    # Where the model behind the server distils, nothing waits for a session.
    if memory.settings.capture.offer:
        offered = await offer(memory, known=known, fits=lambda text: _fits(*texts, text))
        texts += [offered] if offered else []
    return {"additionalContext": "\n\n".join(texts)} if texts else {}


def _fits(*texts: str) -> bool:
    """Say whether Claude Code takes as much from a hook."""
    return len(json.dumps(texts, ensure_ascii=False)) <= MAX_OUTPUT_CHARS - FRAME_CHARS


async def for_subagent(memory: Memory, told: dict[str, object]) -> dict[str, object]:
    """Return the input of the task tool with notes behind the prompt: a subagent sees nothing else of us."""
    from reme_mcp.memory.capture import context_for_prompt

    given = told.get("tool_input")
    prompt = given.get("prompt") if isinstance(given, dict) else None
    if told.get("tool_name") not in SUBAGENT_TOOLS or not isinstance(given, dict) or not isinstance(prompt, str):
        return {}
    notes = await context_for_prompt(memory, prompt, known=prompt.encode())
    # No decision: whether a subagent may start is for the user's rules to say, and not for a memory.
    return {"updatedInput": given | {"prompt": f"{prompt}\n\n{notes}"}} if notes else {}


def _session_so_far(told: dict[str, object]) -> bytes:
    from reme_mcp.memory.capture import told_transcript

    file = told_transcript(told)
    # A session's first prompt comes before its file.
    return file.read_bytes() if file.is_file() else b""


def _leave_behind(told: dict[str, object], home: Path) -> None:
    """Let another process record the session: Claude Code ends without waiting for its hooks for long.

    What it says when it dies, before it could log anything, stays in the home for `doctor`.
    """
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    with last_error.of_child(home) as errors:
        process = subprocess.Popen(
            # -P: the folder that the session is in is a stranger's, whose modules are not ours to run.
            [sys.executable, "-P", "-m", "reme_mcp", *sys.argv[1:], "--now"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
            creationflags=flags,
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(told).encode())
    process.stdin.close()


def _at_end(settings: Settings, told: dict[str, object]) -> None:
    """Record the session; what became of it stands in the log."""
    import anyio

    from reme_mcp.memory.capture import Captured, record_session, told_transcript
    from reme_mcp.memory.memory import Memory

    file = told_transcript(told)
    data = file.read_bytes()
    # The model behind the server has all the time it needs when a server runs.
    settings = settings.model_copy(update={"llm": settings.llm.model_copy(update={"wait": False})})

    async def run() -> tuple[Captured, ...]:
        async with Memory.open(settings) as memory:
            return await record_session(memory, data, "claude-code")

    attempts = anyio.run(run)
    for number, done in enumerate(attempts, start=1):
        name = file.name if len(attempts) == 1 else f"{file.name}, task {number} of {len(attempts)},"
        if done.result is None:
            again = f"; to record it: reme-mcp record --format claude-code --outcome success|failure {file}"
            # What a person says is said of the whole session.
            is_open = done.inferred is not None and len(attempts) == 1
            _log(settings.home, f"{name} not recorded: {done.reason}{again if is_open else ''}")
        elif done.inferred is not None:
            ended = f"{done.inferred.outcome} by its {done.inferred.rule} ({done.inferred.evidence})"
            _log(settings.home, f"{name} recorded as {done.result.trajectory_id}: {ended}")


def _give_up(home: str, budget_s: float) -> None:
    _complain(home, f"notes for the prompt took longer than {budget_s:g} s ([capture] prompt_budget_s)")
    sys.stderr.flush()
    # Nothing was printed yet, and what was half written is as after a killed process: taken up or dropped.
    os._exit(0)


def _complain(home: str, what: str) -> None:
    line = " ".join(what.split())
    click.echo(f"reme-mcp hook: {line}", err=True)
    _log(home, line)


def _log(home: str, line: str) -> None:
    """Add a line to the log of the hooks in the home, if there is a home; it begins anew when it has grown long."""
    from datetime import UTC, datetime

    log = Path(home, LOG_FILE)
    if not log.with_name("home.json").exists():
        return
    try:
        mode = "a" if log.exists() and log.stat().st_size < MAX_LOG_BYTES else "w"
        with log.open(mode, encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {' '.join(line.split())}\n")
    except OSError as exc:
        click.echo(f"reme-mcp hook: can't write {log}: {exc.strerror}", err=True)
