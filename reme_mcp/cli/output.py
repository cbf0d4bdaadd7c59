"""What a command of the command line needs: an open memory to run on, and a way to print what came of it.

In:  a coroutine to run; values.
Out: what `screen.py` shows, JSON with `--json`; one clear sentence and exit status 1 where something is wrong.
Does not know: any single command.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TextIO, TypeVar

import click

from reme_mcp import atomic
from reme_mcp.cli.screen import say, show_below
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ReMeError
from reme_mcp.schema import one_line

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Experience

# Who records and rates by hand.
SOURCE = "cli"
PROGRAM = "reme-mcp"
SHOWN_CHARS = 70
# What click makes of a terminal.
HELP_COLUMNS = 78

Result = TypeVar("Result")

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


def make_writable(stream: TextIO) -> None:
    """Let a stream take every character: UTF-8 in a pipe or a file, and what a console can't show is replaced there.

    What a command has done is done; that a sign in its answer has no place in a code page is no reason to fail.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=stream.encoding if stream.isatty() else "utf-8", errors="replace")


def examples(*lines: str) -> str:
    """Return command lines as the end of a command's help, what each is for behind it or, where it is long, below."""
    shown = []
    for line in lines:
        command, *what_for = re.split(r" {2,}", line, maxsplit=1)
        fits = len(line) + 2 <= HELP_COLUMNS
        shown += [f"  {line}"] if fits else [f"  {command}", *(f"      {said}" for said in what_for)]
    return "\b\nExamples:\n" + "\n".join(shown)


def with_memory(settings: Settings, run: Callable[[Memory], Awaitable[Result]]) -> Result:
    """Run one coroutine on an open memory, and turn our errors into the command line's."""
    import anyio

    from reme_mcp.memory.memory import Memory
    from reme_mcp.progress import on_wait

    async def tell(what: str) -> None:
        say(what, err=True)

    async def opened() -> Result:
        on_wait.set(tell)
        async with Memory.open(settings) as memory:
            return await run(memory)

    try:
        return anyio.run(opened)
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc


def show_experiences(
    experiences: Sequence[Experience],
    *,
    as_json: bool,
    empty: str = "",
    lifts: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Print experiences, two lines each.

    Args:
        experiences: To print.
        as_json: As JSON instead.
        empty: What to say where there are none.
        lifts: What is said of the lift of each, by id, where that is shown.
    """
    if as_json:
        told = [{"lift": lifts[one.id]} if lifts else {} for one in experiences]
        click.echo(to_json([dataclasses.asdict(one) | more for one, more in zip(experiences, told, strict=True)]))
        return
    texts = {one.id: [short(one.when_to_use), *([lifts[one.id]] if lifts else [])] for one in experiences}
    rows = [(one.id, one.kind, _record(one), _status(one), "\n".join(texts[one.id])) for one in experiences]
    piped = [(one.id, _status(one), one.kind, f"{one.utility}/{one.frequency}", *texts[one.id]) for one in experiences]
    show_below(rows, piped=piped, empty=empty)


def _status(experience: Experience) -> str:
    return f"{experience.status}{' (pinned)' if experience.pinned else ''}"


def _record(experience: Experience) -> str:
    if experience.frequency == 0:
        return "not yet tried"
    return f"succeeded {experience.utility} of {experience.frequency}"


def write_files(files: Sequence[tuple[Path, str]], *, force: bool) -> None:
    """Write files, each whole or not at all; without `force` none if any of them is there."""
    there = [path for path, _ in files if path.exists()]
    if there and not force:
        raise click.ClickException(f"{there[0]} exists; --force replaces it")
    for path, text in files:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write(path, text.encode())
        except OSError as exc:
            raise click.ClickException(f"can't write {path}: {exc.strerror}") from exc


def plain(value: object) -> str:
    """Return a value as one line of text."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else " ".join(str(value).split())


def short(text: str) -> str:
    """Return the beginning of a text, in one line that ends with a whole word."""
    line = one_line(text, SHOWN_CHARS)
    words = line.removesuffix("…").rpartition(" ")[0]
    return f"{words} …" if line.endswith("…") and words and len(line) == SHOWN_CHARS else line


def to_json(value: object) -> str:
    """Return a value as JSON that a person can read."""
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
