"""What a home and a process come to by use alone.

    python -m tests.benchmarks.growth [--cycles 500] [--recalls 10000] [--size 10000] [--commits 500] [--quiet 75]
        [--data DIR] [--json FILE]

Each part is played by processes of their own, through `Memory`, with upkeep as it runs in use:

    a home       an empty one: recall, record with the receipt and one experience, rate what was recalled, and again;
                 what it weighs at each fifth of the cycles, and `--quiet` seconds later, in which nobody has called
    a process    at a pool of `--size` experiences: recalls and nothing else, and then while another process records
                 `--commits` experiences into the pool

The embedder is a stand-in that takes no memory to speak of; the texts are made up, or those of the pools that
`retrieval` reads (`--data DIR`). Memory is resident memory, from /proc (Linux). `versions` are those of LanceDB's
tables; they stay for a minute, as a reader may hold one.

The targets are, after 500 cycles, once it is quiet, ≤ 20 MB and ≤ 1,000 files; ≤ 10 MB more memory after 10,000 recalls
than after 100.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio

from reme_mcp.schema import Experience
from tests.benchmarks import pools, report

WARM_UP = 100
# The home is weighed so often while it is used.
PARTS = 5
LOOK_EVERY_S = 0.2
TARGET_MB = 20
TARGET_FILES = 1_000
TARGET_GROWTH_MB = 10


async def use(home: Path, experiences: Sequence[Experience], quiet_s: float) -> list[dict[str, Any]]:
    """Recall, record and rate, once for each of the experiences, and return what the home weighed on the way."""
    weighed = []
    async with pools.open_memory(home, pools.HashingEmbedder()) as memory:
        await memory.warm_up(download=False)
        weighed.append(weigh(home, "opened"))
        for number, one in enumerate(experiences, start=1):
            recalled = await memory.recall(one.task, source=pools.SOURCE)
            lesson = {"when_to_use": one.when_to_use, "content": one.content}
            recorded = await memory.record(
                one.task,
                outcome="success",
                receipt=recalled.receipt,
                steps=one.content,
                experiences=[lesson],
                source=pools.SOURCE,
            )
            if rated := [note.id for note in recalled.experiences] or recorded.added:
                await memory.rate(rated[0], helpful=True, source=pools.SOURCE)
            if number * PARTS % len(experiences) < PARTS:
                weighed.append(weigh(home, f"{number} cycles"))
        await anyio.sleep(quiet_s)
        weighed.append(weigh(home, f"quiet for {quiet_s:.0f} s"))
    return weighed


def weigh(home: Path, when: str) -> dict[str, Any]:
    """Return what a home weighs, and this process."""
    files, megabytes = pools.weigh(home)
    versions = sum(1 for _ in home.rglob("_versions/*.manifest"))
    return {"when": when, "mb": megabytes, "files": files, "versions": versions, "memory_mb": pools.resident_mb()}


async def recall(home: Path, queries: Sequence[str], commits: int, data: Path | None) -> dict[str, Any]:
    """Return the memory of this process as it recalls, and then sees at its recalls what another one commits."""
    weighed = []

    def look(when: str) -> None:
        weighed.append({"when": when, "memory_mb": pools.resident_mb()})

    async with pools.open_memory(home, pools.HashingEmbedder()) as memory:
        await memory.warm_up(download=False)
        look("opened")
        for number, query in enumerate(queries, start=1):
            await memory.recall(query, source=pools.SOURCE)
            if number in (min(WARM_UP, len(queries)), len(queries)):
                look(f"{number:,} recalls")
        with child("write", home, size=commits, data=data) as writing:
            for query in cycle(queries):
                if writing.poll() is not None:
                    break
                await memory.recall(query, source=pools.SOURCE)
                await anyio.sleep(LOOK_EVERY_S)
            added = json.load(writing.stdout)
        await memory.recall(queries[0], source=pools.SOURCE)
        look(f"another one added {added:,}")
    return {"weighed": weighed, "added": added}


async def write(home: Path, experiences: Sequence[Experience]) -> int:
    """Record these, one after the other, and return how many were new to the pool."""
    added = 0
    async with pools.open_memory(home, pools.HashingEmbedder()) as memory:
        for one in experiences:
            lesson = {"when_to_use": one.when_to_use, "content": one.content}
            recorded = await memory.record(one.task, outcome="success", experiences=[lesson], source=pools.SOURCE)
            added += len(recorded.added)
    return added


@contextmanager
def child(part: str, home: Path, *, size: int, data: Path | None = None, quiet_s: float = 0.0) -> Iterator[Any]:
    """Run one part in a process of its own; at the end of the block it has ended well."""
    command = [sys.executable, "-m", "tests.benchmarks.growth", "--worker", part, "--home", str(home)]
    command += ["--size", str(size), "--quiet", str(quiet_s), *([] if data is None else ["--data", str(data)])]
    # As `tables.connect` has it, which comes too late for a process that has imported numpy for its stand-in.
    environ = os.environ | {"LANCEDB_LOG": "error", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
        yield process
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def measure(folder: Path, options: Options) -> dict[str, Any]:
    """Play all parts and return their figures."""
    texts = pools.read_texts(options.data)
    with child("use", folder / "used", size=options.cycles, data=options.data, quiet_s=options.quiet) as process:
        used = json.load(process.stdout)
    experiences = list(pools.write_experiences(options.size, texts))
    queries = pools.write_queries(experiences, options.recalls)
    (folder / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    anyio.run(partial(pools.fill, folder / "home", experiences, embedder=pools.HashingEmbedder()))
    with child("recall", folder / "home", size=options.commits, data=options.data) as process:
        return {"home": used, "process": json.load(process.stdout)}


def _show(found: Mapping[str, Any], options: Options) -> None:
    columns = ["of a home", "MB", "files", "versions", "memory MB"]
    cells = [
        [one["when"], f"{one['mb']:.1f}", f"{one['files']:,}", f"{one['versions']:,}", f"{one['memory_mb']:.0f}"]
        for one in found["home"]
    ]
    report.show(f"{options.cycles:,} cycles of recall, record and rate", columns, cells)
    print(f"targets at the end, after 500: {TARGET_MB} MB, {TARGET_FILES:,} files\n")
    weighed = found["process"]["weighed"]
    cells = [
        [one["when"], f"{one['memory_mb']:.0f}", f"{one['memory_mb'] - before['memory_mb']:+.1f}"]
        for before, one in zip([weighed[0], *weighed], weighed, strict=False)
    ]
    report.show(f"A process at {options.size:,} experiences, no model", ["when", "memory MB", "since"], cells)
    print(f"target from {WARM_UP} to 10,000 recalls: {TARGET_GROWTH_MB} MB")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    cycles: int
    recalls: int
    size: int
    commits: int
    quiet: float
    data: Path | None


async def _work(part: str, home: Path, size: int, quiet_s: float, data: Path | None) -> object:
    if part == "recall":
        queries: list[str] = json.loads((home.parent / "queries.json").read_text(encoding="utf-8"))
        return await recall(home, queries, size, data)
    experiences = list(pools.write_experiences(size, pools.read_texts(data)))
    return await (use(home, experiences, quiet_s) if part == "use" else write(home, experiences))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__, data="upstream's pools with qrels.jsonl, as for retrieval", needs_data=False)
    parser.add_argument("--cycles", type=int, default=500, metavar="N", help="of recall, record and rate (500)")
    parser.add_argument("--recalls", type=int, default=10_000, metavar="N", help="of one process (10,000)")
    parser.add_argument("--size", type=int, default=10_000, metavar="N", help="experiences in the pool (10,000)")
    parser.add_argument("--commits", type=int, default=500, metavar="N", help="by another process (500)")
    parser.add_argument("--quiet", type=float, default=75.0, metavar="SECONDS", help="after the cycles (75)")
    parser.add_argument("--worker", choices=("use", "recall", "write"), help="be one of the processes")
    parser.add_argument("--home", type=Path)
    given = parser.parse_args(argv)
    if given.worker:
        print(json.dumps(anyio.run(_work, given.worker, given.home, given.size, given.quiet, given.data)))
        return 0
    if min(given.cycles, given.recalls, given.size, given.commits) < 1 or given.quiet < 0:
        parser.error("--cycles, --recalls, --size and --commits must be at least 1, --quiet not negative")
    options = Options(given.cycles, given.recalls, given.size, given.commits, given.quiet, given.data)
    with tempfile.TemporaryDirectory(prefix="reme-growth-") as name:
        found = measure(Path(name), options)
    _show(found, options)
    report.write(given.json, asdict(options) | {"data": str(options.data or "")} | found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
