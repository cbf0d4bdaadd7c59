"""How long the page takes to show a pool, and what it sends, as the pool grows.

    python -m tests.benchmarks.page [--sizes 10000 100000] [--loads 20] [--json FILE]

Every size gets a home of its own, filled through the store (`pools`), and is served as `reme-mcp ui` serves it, in a
process of its own. Each page is asked for `--loads` times after a first time, which is `first` in the table: for the
lessons it is what a person sees first after `reme-mcp ui`. `search` is what each key in the search field asks for, with
another word each time. There is no embedder: recall goes by words.

To read: times are of the whole answer at a client of HTTP on the same machine; `cpu` is what the serving process spent
meanwhile, the figure that a busy machine leaves as it is. The target is <= 150 ms for the first page at 10,000
experiences. `bytes` is what is sent, not compressed.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.http.local import serve_page
from tests.benchmarks import pools, report

TARGET_MS = 150
TARGET_SIZE = 10_000
DEADLINE_S = 120
FIGURES = ("first_ms", "first_cpu_ms", "p50_ms", "p95_ms", "cpu_ms", "bytes")
STATIC = ("/static/page.css", "/static/page.js", "/static/htmx.min.js", "/static/icon.svg")


def serve(home: str, tell: Connection) -> None:
    """Serve the page of a home until the process is ended; tell its address."""
    settings = Settings(home=home, workspace=pools.WORKSPACE, embedder=EmbedderSettings(provider="none"))
    asyncio.run(serve_page(settings, 0, tell.send))


def cpu_s(pid: int) -> float:
    """Return the seconds of processor that a process has had (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(home: Path, loads: int) -> dict[str, dict[str, float]]:
    """Return the times in ms and the size of each page."""
    context = get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(str(home), tell), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        if not told.poll(DEADLINE_S):
            raise TimeoutError(f"nothing served {home} within {DEADLINE_S} s")
        address = httpx.URL(told.recv())
        with httpx.Client(base_url=address.copy_with(path="", query=None), timeout=DEADLINE_S) as http:
            http.get(address.raw_path.decode())
            figures: dict[str, dict[str, float]] = {}
            lesson = ""
            for name, paths in pages(loads).items():
                headers = {"hx-request": "true"} if name == "search" else {}
                wall, sizes = [], []
                begun = [cpu_s(process.pid)]
                for turn, path in enumerate(paths):
                    if turn == 1:
                        begun.append(cpu_s(process.pid))
                    started = time.perf_counter()
                    answer = http.get(path.format(lesson=lesson), headers=headers)
                    wall.append(1000 * (time.perf_counter() - started))
                    sizes.append(len(answer.raise_for_status().content))
                    lesson = lesson or re.findall(r"/lesson/(e-\w+)", answer.text)[0]
                begun.append(cpu_s(process.pid))
                figures[name] = {
                    "first_ms": wall[0],
                    "p50_ms": median(wall[1:]),
                    "p95_ms": report.percentile(wall[1:], 95),
                    "first_cpu_ms": 1000 * (begun[1] - begun[0]),
                    "cpu_ms": 1000 * (begun[2] - begun[1]) / loads,
                    "bytes": median(sizes),
                }
            figures["files"] = {"bytes": sum(len(http.get(path).raise_for_status().content) for path in STATIC)}
        return figures
    finally:
        process.terminate()
        process.join()


def pages(loads: int) -> dict[str, list[str]]:
    """Return the addresses that are asked for, the first time and `loads` times after it."""
    words = pools.Writing(7)
    texts = [words.text(1) for _ in range(loads + 1)]
    tasks = [words.text(8).replace(" ", "+") for _ in range(loads + 1)]
    again = loads + 1
    return {
        "lessons": ["/"] * again,
        "lessons, page 200": ["/?from=7960"] * again,
        "search": [f"/?q={text}" for text in texts],
        "one lesson": ["/lesson/{lesson}"] * again,
        "review": ["/review"] * again,
        "try a recall": [f"/recall?task={task}" for task in tasks],
        "removal": ["/removal?alpha=1&beta=50"] * again,
        "changes": ["/changes"] * again,
        "attempts": ["/attempts"] * again,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure each size, print the tables, and write them where `--json` says."""
    parser = report.parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], metavar="N")
    parser.add_argument("--loads", type=int, default=20, metavar="N")
    given = parser.parse_args(arguments)
    sizes: dict[str, Any] = {}
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            experiences = list(pools.write_experiences(size))
            asyncio.run(pools.fill(Path(folder), experiences, embedder=None))
            figures = measure(Path(folder), given.loads)
        sizes[str(size)] = figures
        rows = [(name, *(f"{one.get(key, float('nan')):,.0f}" for key in FIGURES)) for name, one in figures.items()]
        report.show(f"{size:,} experiences", ["page", "first ms", "its cpu", "p50", "p95", "cpu", "bytes"], rows)
    if str(TARGET_SIZE) in sizes:
        first = sizes[str(TARGET_SIZE)]["lessons"]["first_ms"]
        print(f"first page at {TARGET_SIZE:,}: {first:.0f} ms; target {TARGET_MS}")
    report.write(given.json, {"sizes": sizes})
    return 0


if __name__ == "__main__":
    sys.exit(main())
