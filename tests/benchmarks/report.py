"""What every benchmark does around its measuring: arguments, a server of its own, a table, a JSON file.

In:  a benchmark's docstring, its rows, its figures.
Out: parsed arguments; a table on stdout; JSON in which the figures stand beside the machine that they were read on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table

SERVER = (sys.executable, "-m", "reme_mcp", "serve")
PACKAGES = ("reme-mcp", "mcp", "lancedb", "pyarrow", "fastembed", "openai", "pydantic")
# What a desktop client hands on to a server; the home folder is the benchmark's own.
HANDED_ON = ("LOGNAME", "PATH", "SHELL", "TERM", "USER", "SYSTEMROOT", "TEMP")
FILE_WIDTH = 150


def parser(docstring: str | None, *, data: str = "", needs_data: bool = True) -> argparse.ArgumentParser:
    """Return a parser that knows `--json`, and `--data` where `data` says what that is."""
    made = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    if data:
        made.add_argument("--data", type=Path, metavar="DIR", required=needs_data, help=data)
    return made


def server_environ(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server that knows no home, no settings and no cache but those in `folder`.

    Args:
        folder: Exists; gets an empty configuration file.
        settings: Names without their prefix, such as `EMBEDDER_PROVIDER`.
    """
    config = folder / "config.toml"
    config.touch()
    own = {"HOME": str(folder), "REME_MCP_CONFIG": str(config), "REME_MCP_HOME": str(folder / "pool")}
    handed_on = {name: os.environ[name] for name in HANDED_ON if name in os.environ}
    return handed_on | own | {f"REME_MCP_{name}": value for name, value in settings.items()}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile: a value that was really seen; NaN where none was."""
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)] if values else math.nan


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; every column but the first is right-aligned."""
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    for row in rows:
        table.add_row(*row)
    # Without markup, as a cell may hold brackets; into a file, as wide as it needs.
    Console(markup=False, width=None if sys.stdout.isatty() else FILE_WIDTH).print(table)


def write(path: Path | None, figures: Mapping[str, object]) -> None:
    """Write the figures and where they were read, if there is a file to write to."""
    if path is not None:
        text = json.dumps({"environment": environment()} | dict(figures), ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


def environment() -> dict[str, object]:
    """Return what figures depend on: interpreter, platform, processors, versions."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
    }
