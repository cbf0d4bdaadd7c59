"""Several processes on one home: throughput, lost writes, errors.

    python -m tests.benchmarks.contention [--processes 1 2 4 8] [--rounds 25] [--json FILE]

Every process opens the same fresh home at the same time, and when all have, plays `rounds` rounds: recall the shared
lesson, rate it with that receipt, record a lesson of its own. Afterwards the counters and the rows are compared with
what was acknowledged.

To read: `lost` and `errors` must be 0. `calls per s` counts acknowledged recalls, ratings and records of all processes
together, from the first call to the last; the home has one writer at a time, so that it can't grow with processes, and
should not fall much. `p95 ms` is of one call, waiting included. `CPU ms a call` is of all processes, their reading of
what the others wrote included: unlike the rest it does not depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import anyio
import anyio.to_thread

from reme_mcp.config.load import load_settings
from reme_mcp.errors import ReMeError
from reme_mcp.memory.memory import Memory
from tests.benchmarks import report

SHARED = {
    "when_to_use": "Whenever the shared counter is asked for",
    "content": "Read it twice and compare both values.",
}
TASK = "Read the shared counter"


async def play(home: Path, name: str, rounds: int) -> dict[str, object]:
    """Play one process' rounds and return what was acknowledged, what failed, and how long each call took."""
    settings = load_settings(environ={}, overrides={"home": str(home), "embedder.provider": "none"})
    rated, added, calls_ms = 0, 0, []
    errors: list[str] = []
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        print("ready", flush=True)
        await anyio.to_thread.run_sync(sys.stdin.readline)
        started, spent = time.time(), spent_s()
        for number in range(rounds):
            lesson = {
                "when_to_use": f"Adjusting valve {name}-{number}",
                "content": f"Open it by {number * 31 + 7} degrees and wait for the gauge of {name} to settle.",
            }
            try:
                before = time.perf_counter()
                recalled = await memory.recall(TASK, limit=1, source=name)
                calls_ms.append((time.perf_counter() - before) * 1000)
                before = time.perf_counter()
                shared = recalled.experiences[0].id
                await memory.rate(shared, helpful=True, receipt=recalled.receipt, source=name)
                rated += 1
                calls_ms.append((time.perf_counter() - before) * 1000)
                before = time.perf_counter()
                answer = await memory.record(
                    f"valve {name}-{number}", outcome="success", experiences=[lesson], source=name
                )
                added += len(answer.added)
                calls_ms.append((time.perf_counter() - before) * 1000)
            except ReMeError as exc:
                errors.append(str(exc))
        told = {"rated": rated, "added": added, "errors": errors, "ms": calls_ms, "from": started, "to": time.time()}
        return told | {"spent_s": spent_s() - spent}


def spent_s() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def contend(processes: int, rounds: int) -> dict[str, object]:
    """Let the processes play on one home and compare what they were told with what is there."""
    with tempfile.TemporaryDirectory(prefix="reme-contention-") as folder:
        home = Path(folder) / "home"
        settings = load_settings(environ={}, overrides={"home": str(home), "embedder.provider": "none"})
        async with Memory.open(settings) as memory:
            learned = await memory.record(TASK, outcome="success", experiences=[SHARED], source="contention")
        command = [sys.executable, "-m", "tests.benchmarks.contention", "--worker", str(home), "--rounds", str(rounds)]
        workers = [
            await asyncio.create_subprocess_exec(*command, "--name", f"p{number}", stdin=PIPE, stdout=PIPE)
            for number in range(processes)
        ]
        for worker in workers:
            assert worker.stdout is not None
            await worker.stdout.readline()
        told = [json.loads(out) for out, _ in await asyncio.gather(*(one.communicate(b"go\n") for one in workers))]
        async with Memory.open(settings) as memory:
            shared, _ = await memory.pool.experience(learned.added[0])
            active = (await memory.pool.stats()).experiences["active"]
    calls = [ms for one in told for ms in one["ms"]]
    seconds = max(one["to"] for one in told) - min(one["from"] for one in told)
    return {
        "processes": processes,
        "acknowledged": len(calls),
        "lost": sum(one["rated"] for one in told) - shared.utility + sum(one["added"] for one in told) + 1 - active,
        "errors": sum(len(one["errors"]) for one in told),
        "calls per s": round(len(calls) / seconds, 1),
        "p50 ms": round(report.percentile(calls, 50), 1),
        "CPU ms a call": round(sum(one["spent_s"] for one in told) * 1000 / len(calls), 1),
        "p95 ms": round(report.percentile(calls, 95), 1),
        "first error": next((error for one in told for error in one["errors"]), ""),
    }


def main() -> None:
    """Run every number of processes, print the table, exit 1 if anything was lost or failed."""
    parser = report.parser(__doc__)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--worker", type=Path, help="be one of the processes, on this home")
    parser.add_argument("--name", default="p")
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(anyio.run(play, options.worker, options.name, options.rounds)))
        return
    rows = [anyio.run(contend, processes, options.rounds) for processes in options.processes]
    columns = [column for column in rows[0] if column != "first error"]
    report.show("Processes on one home", columns, [[str(row[column]) for column in columns] for row in rows])
    report.write(options.json, {"rows": rows})
    if any(row["lost"] or row["errors"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
