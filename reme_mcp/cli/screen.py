"""What a terminal shows and a pipe gets: rows, facts, sentences.

In:  cells and sentences.
Out: on a terminal text that fits its width, wrapped between words and coloured where a word says something (not with
     NO_COLOR); anywhere else tab-separated lines, and sentences as they are.
Does not know: any single command.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence

import click

GAP = "  "
# What a cell that is one of these words is shown in.
STYLES = {
    "ok": "green",
    "note": "yellow",
    "broken": "bold red",
    "off": "dim",
    "success": "green",
    "failure": "red",
    "active": "green",
    "provisional": "cyan",
    "quarantined": "yellow",
    "archived": "dim",
}
# How often an error is shown that comes again and again.
SHOWN_ERRORS = 3
_PARTICULARS = re.compile(r"'[^']*'|[et]-[a-z0-9]{10}|\d+")


def width() -> int:
    """Return how many columns the terminal has."""
    return shutil.get_terminal_size().columns


def say(text: str, *, err: bool = False) -> None:
    """Print sentences; a terminal gets them wrapped between words, quotes as quotes."""
    click.echo(fitted(text) if (sys.stderr if err else sys.stdout).isatty() else text, err=err)


def fitted(text: str, *, before: int = 0) -> str:
    """Return text in lines that fit the terminal, whose first line has so many columns before it."""
    lines = [part for line in f"{'x' * before}{text}".split("\n") for part in _hanging(line, width())]
    return "\n".join(lines)[before:]


def show_below(rows: Sequence[Sequence[str]], *, piped: Sequence[Sequence[str]] | None = None, empty: str = "") -> None:
    """Print records: the last cell of each below the others.

    Args:
        rows: Cells in words.
        piped: What a pipe gets instead.
        empty: What to say where there are none.
    """
    if not rows and empty:
        say(empty, err=True)
    elif _to_pipe(rows if piped is None else piped):
        return
    widths = _widths(rows)
    for *head, text in rows:
        _print_cells(head, widths)
        for line in text.split("\n") if text else []:
            _print_lines(_wrapped(line, width() - len(GAP)), GAP)


def show_beside(rows: Sequence[Sequence[str]], *, piped: Sequence[Sequence[str]] | None = None) -> None:
    """Print facts: the last cell of each beside the others; what a pipe gets may be told apart."""
    if _to_pipe(rows if piped is None else piped):
        return
    widths = _widths(rows)
    indent = " " * (sum(widths) + len(GAP) * len(widths))
    for *head, text in rows:
        first, *others = [part for line in text.split("\n") for part in _wrapped(line, width() - len(indent))]
        _print_cells([*head, first], widths)
        _print_lines(others, indent)


def show_errors(errors: Sequence[tuple[str, str]]) -> None:
    """Print what is wrong with the parts of a file, each with its place; what is alike a few times, and counted."""
    seen: dict[str, int] = {}
    for where, reason in errors:
        kind = _PARTICULARS.sub("…", reason)
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= SHOWN_ERRORS:
            say(f"{where}: {reason}", err=True)
    for kind, number in seen.items():
        if number > SHOWN_ERRORS:
            say(f"… and {number - SHOWN_ERRORS} more like it: {kind}", err=True)


def _to_pipe(rows: Sequence[Sequence[str]]) -> bool:
    """Print tab-separated lines if nobody looks; say whether that was done."""
    if sys.stdout.isatty():
        return False
    for row in rows:
        click.echo("\t".join(row))
    return True


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [max(map(cell_len, cells)) for cells in zip(*(row[:-1] for row in rows), strict=True)]


def _print_cells(cells: Sequence[str], widths: Sequence[int]) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    line = Text()
    for place, cell in enumerate(cells):
        line.append(cell, STYLES.get(cell, ""))
        if place < len(cells) - 1:
            line.append(" " * (widths[place] - cell_len(cell)) + GAP)
    Console(highlight=False).print(line, soft_wrap=True)


def _print_lines(lines: Sequence[str], indent: str) -> None:
    for line in lines:
        click.echo(f"{indent}{line}")


def _hanging(line: str, columns: int) -> list[str]:
    """Return a line in parts that fit; each begins as it does: indented, or as a quote."""
    begin = re.match(r" *(?:> )?", line)
    start = "" if begin is None else begin[0]
    return [f"{start}{part}" for part in _wrapped(line[len(start) :], columns - len(start))]


def _wrapped(line: str, columns: int) -> list[str]:
    """Return a line in parts of so many columns; a word that is longer stays whole."""
    from rich.cells import cell_len

    parts = [""]
    for word in line.split(" "):
        longer = f"{parts[-1]} {word}" if parts[-1] else word
        if parts[-1].strip() and cell_len(longer) > columns:
            parts.append(word)
        else:
            parts[-1] = longer
    return parts
