"""What a terminal shows of rows, facts and sentences: words stay whole, lines fit, colour where it says something."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from reme_mcp.cli.screen import fitted, say, show_below, show_beside, show_errors

LONG = "Deploying a static site below a sub-path such as /blog, when the assets answer 404 after an upload with rsync"
Shown = Callable[[Callable[[], None]], str]


@pytest.fixture(params=[80, 140])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("NO_COLOR", "1")
    columns: int = request.param
    return columns


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Return what a terminal gets from a function."""

    def show(run: Callable[[], None]) -> str:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        run()
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize(
    "run",
    [
        lambda: say(f"{LONG}\n> {LONG} {LONG}"),
        lambda: show_below([("e-bcdfghjkmn", "success", f"{LONG} {LONG}")]),
        lambda: show_beside([("state", "what", f"{LONG} {LONG}\nand then"), ("ok", "a longer one", "短")]),
    ],
)
def test_lines_fit_and_words_stay_whole(shown: Shown, columns: int, run: Callable[[], None]) -> None:
    text = shown(run)
    assert max(map(cell_len, text.splitlines())) <= columns
    assert LONG.split() == [word for word in text.split() if word in LONG.split()][: len(LONG.split())]


def test_a_quote_stays_a_quote_and_a_word_that_is_longer_than_a_line_stays_whole(columns: int) -> None:
    path = "/home/" + "x" * 200
    assert [line[:2] for line in fitted(f"> {LONG} {LONG}").splitlines()] == ["> "] * (3 if columns == 80 else 2)
    assert path in fitted(f"It is in {path} now").splitlines()


@pytest.mark.usefixtures("columns")
def test_records_are_two_lines_and_a_pipe_gets_one(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("e-bcdfghjkmn", "success", "short"), ("e-bcdfghjkmp", "comparative", "shorter")]
    show_below(rows)
    assert capsys.readouterr().out == "e-bcdfghjkmn\tsuccess\tshort\ne-bcdfghjkmp\tcomparative\tshorter\n"
    assert shown(lambda: show_below(rows)).splitlines() == [
        "e-bcdfghjkmn  success",
        "  short",
        "e-bcdfghjkmp  comparative",
        "  shorter",
    ]


def test_errors_that_differ_in_names_and_numbers_only_are_alike(capsys: pytest.CaptureFixture[str]) -> None:
    show_errors([(f"line {number}", f"limit is {number}; it must be smaller") for number in range(5)] + [("x", "else")])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "line 0: limit is 0; it must be smaller",
        "line 1: limit is 1; it must be smaller",
        "line 2: limit is 2; it must be smaller",
        "x: else",
        "… and 2 more like it: limit is …; it must be smaller",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize(("no_color", "is_coloured"), [("", True), ("1", False)])
def test_a_terminal_has_colours_unless_it_is_told_to_have_none(home: Path, no_color: str, is_coloured: bool) -> None:
    import pty

    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "NO_COLOR": no_color}
    program = "from reme_mcp.cli.screen import show_below; show_below([('e-1', 'note', 'text')])"
    subprocess.run([sys.executable, "-c", program], stdout=theirs, check=True, timeout=60, env=environ)
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "text" in shown
    assert ("\x1b[" in shown) is is_coloured
