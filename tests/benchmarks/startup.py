"""How long a client waits for our tools, against a server that does nothing.

    python -m tests.benchmarks.startup [--runs 10] [--linger 0] [--json FILE]

Measured: the time from before the process is spawned until the line with the answer to `tools/list` is read, and the
time from closing its stdin until it has exited by itself (polled, at most 50 ms late). The server is spawned as a
desktop client does it: a process of its own, pipes, a minimal environment, another working directory. JSON-RPC lines
are written by hand (`initialize`, `notifications/initialized`, `tools/list`), so that no client's cost is in the
figures.

Against: a script with one tool on the SDK's `MCPServer`. Each run of ours follows a run of that one, in one go, so that
both meet the machine in the same mood; the first pair of each row is thrown away (bytecode, disk cache).

Rows:
    no embedder       an empty home of its own for each run, `[embedder] provider = "none"`
    default embedder  the same with the default embedder, an empty model cache and a hub that is alive and then never
                      sends a byte of the model: nothing is downloaded, and exit meets a download at its slowest
    200 experiences   a home that holds them, no embedder

To read: `ratio` is our median over the reference's median in the same row, `pairwise` the median of the ratios of each
pair; the target is 1.15 or less. p95 is by nearest rank, so with ten runs it is the slowest. `exit` must stay below
5 s; a run that does not end in time is killed and counted under `stuck`. `--linger` waits between the answer and
closing stdin, so that exit meets a server that is importing (0.3), or one that has its pool open and its download
running (5).

Exit status: 1 if a process was stuck. The ratio is for a person to judge.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

import anyio
from rich.console import Console
from rich.progress import Progress

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.memory.memory import Memory
from tests.benchmarks import report

TARGET_RATIO = 1.15
PROTOCOL_VERSION = "2025-11-25"
ANSWER_TIMEOUT_S = 60.0
EXIT_TIMEOUT_S = 5.0
WARM_EXPERIENCES = 200
PER_TRAJECTORY = 5

REFERENCE = '''\
from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


server.run("stdio")
'''


class StalledHub(BaseHTTPRequestHandler):
    """A model hub that gives a sign of life and nothing else until `released`."""

    released = threading.Event()

    def do_HEAD(self) -> None:
        if self.path == "/":
            self.send_response(200)
            self.end_headers()
        else:
            self.do_GET()

    def do_GET(self) -> None:
        self.released.wait()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def stalled_hub() -> Iterator[str]:
    """Run a `StalledHub` and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), StalledHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            StalledHub.released.set()
            server.shutdown()


@dataclass(frozen=True, slots=True)
class Run:
    """One process: seconds to the answer, seconds from closing stdin to exit (`None`: it had to be killed)."""

    answer_s: float
    exit_s: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of home: our runs, and the reference's runs before each of them."""

    name: str
    ours: list[Run]
    reference: list[Run]

    @property
    def ratio_of_medians(self) -> float:
        return median(run.answer_s for run in self.ours) / median(run.answer_s for run in self.reference)

    @property
    def median_of_ratios(self) -> float:
        return median(ours.answer_s / other.answer_s for ours, other in zip(self.ours, self.reference, strict=True))

    @property
    def stuck(self) -> int:
        return sum(run.exit_s is None for run in (*self.ours, *self.reference))


def run_once(command: Sequence[str], environ: Mapping[str, str], folder: Path, *, linger_s: float) -> Run:
    """Start one server in `folder`, ask for its tools, close its stdin and wait until it has exited.

    Raises:
        RuntimeError: It ended, or took a minute, without an answer; the text ends with what it wrote to stderr.
    """
    with (folder / "stderr.txt").open("w+", encoding="utf-8") as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=folder, env=dict(environ)
        )
        overdue = threading.Timer(ANSWER_TIMEOUT_S, process.kill)
        overdue.start()
        try:
            with process:
                answered = _ask_for_tools(process)
                overdue.cancel()
                time.sleep(linger_s)
                return Run(answered - started, _exit_time(process))
        except (EOFError, BrokenPipeError) as exc:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} gave no answer; stderr:\n{log.read()[-2000:]}") from exc
        finally:
            overdue.cancel()


def _ask_for_tools(process: subprocess.Popen[bytes]) -> float:
    """Do the handshake and return when the answer to `tools/list` was there."""
    hello = {
        "protocolVersion": PROTOCOL_VERSION,
        "capabilities": {},
        "clientInfo": {"name": "startup-benchmark", "version": "1"},
    }
    _send(process, {"id": 1, "method": "initialize", "params": hello})
    _await_answer(process, 1)
    _send(process, {"method": "notifications/initialized"}, {"id": 2, "method": "tools/list"})
    line, at = _await_answer(process, 2)
    if not json.loads(line)["result"]["tools"]:
        raise RuntimeError("the server lists no tools")
    return at


def _send(process: subprocess.Popen[bytes], *messages: Mapping[str, object]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"".join(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n" for message in messages))
    process.stdin.flush()


def _await_answer(process: subprocess.Popen[bytes], request: int) -> tuple[bytes, float]:
    """Return the line that answers the request, and when it was read."""
    assert process.stdout is not None
    while line := process.stdout.readline():
        at = time.perf_counter()
        if json.loads(line).get("id") == request:
            return line, at
    raise EOFError


def _exit_time(process: subprocess.Popen[bytes]) -> float | None:
    """Close the server's stdin and return how long it took to go, or kill it and return `None`."""
    assert process.stdin is not None
    closed = time.perf_counter()
    process.stdin.close()
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return time.perf_counter() - closed


async def fill_home(home: Path) -> None:
    """Record `WARM_EXPERIENCES` experiences there."""
    settings = Settings(home=str(home), embedder=EmbedderSettings(provider="none"))
    async with Memory.open(settings) as memory:
        for start in range(0, WARM_EXPERIENCES, PER_TRAJECTORY):
            drafts = [
                {
                    "when_to_use": f"Before service number {number} is deployed for the first time",
                    "content": f"Run migration {number} first; the service reads its tables while it starts.",
                }
                for number in range(start, start + PER_TRAJECTORY)
            ]
            await memory.record(
                f"Deploy services {start} and up", outcome="success", experiences=drafts, source="benchmark"
            )
        held = sum((await memory.pool.stats()).experiences.values())
    if held != WARM_EXPERIENCES:
        raise RuntimeError(f"the warm home holds {held} experiences instead of {WARM_EXPERIENCES}")


def measure(folder: Path, *, runs: int, linger_s: float) -> list[Row]:
    """Run everything, row by row within each round, and return the rows."""
    script = folder / "reference.py"
    script.write_text(REFERENCE, encoding="utf-8")
    warm = folder / "warm"
    anyio.run(fill_home, warm)
    no_embedder = {"EMBEDDER_PROVIDER": "none"}
    with stalled_hub() as address:
        hub = {"HF_ENDPOINT": address}
        kinds: list[tuple[str, dict[str, str], dict[str, str]]] = [
            ("no embedder", no_embedder, {}),
            ("default embedder", {}, hub),
            (f"{WARM_EXPERIENCES} experiences", no_embedder | {"HOME": str(warm)}, {}),
        ]
        rows = [Row(name, [], []) for name, _, _ in kinds]
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("starting servers", total=2 * len(kinds) * (runs + 1))
            for turn in range(runs + 1):
                for row, (_, settings, variables) in zip(rows, kinds, strict=True):
                    for command, into in (((sys.executable, str(script)), row.reference), (report.SERVER, row.ours)):
                        with tempfile.TemporaryDirectory(dir=folder) as name:
                            cache = {"EMBEDDER_CACHE_DIR": str(Path(name, "models"))}
                            environ = report.server_environ(Path(name), cache | settings) | variables
                            run = run_once(command, environ, Path(name), linger_s=linger_s)
                        if turn:
                            into.append(run)
                        progress.advance(task)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__)
    parser.add_argument("--runs", type=int, default=10, help="pairs in each row (10)")
    parser.add_argument("--linger", type=float, default=0.0, metavar="S", help="seconds before stdin is closed (0)")
    arguments = parser.parse_args(argv)
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    with tempfile.TemporaryDirectory(prefix="reme-startup-") as folder:
        rows = measure(Path(folder), runs=arguments.runs, linger_s=arguments.linger)
    report.show(
        f"Spawn to tools/list, {arguments.runs} pairs a row; target: ratio {TARGET_RATIO} or less",
        ["home", "median ms", "p95", "reference ms", "p95", "ratio", "pairwise", "exit ms", "slowest", "stuck"],
        [_cells(row) for row in rows],
    )
    figures = [
        asdict(row) | {"ratio_of_medians": row.ratio_of_medians, "median_of_ratios": row.median_of_ratios}
        for row in rows
    ]
    report.write(arguments.json, {"target_ratio": TARGET_RATIO, "linger_s": arguments.linger, "rows": figures})
    return 1 if any(row.stuck for row in rows) else 0


def _cells(row: Row) -> list[str]:
    cells = [row.name]
    for runs in (row.ours, row.reference):
        seconds = [run.answer_s for run in runs]
        cells += [f"{median(seconds) * 1000:.0f}", f"{report.percentile(seconds, 95) * 1000:.0f}"]
    exits = [run.exit_s for run in row.ours if run.exit_s is not None]
    cells += [f"{row.ratio_of_medians:.2f}", f"{row.median_of_ratios:.2f}"]
    cells += [f"{report.percentile(exits, percent) * 1000:.0f}" if exits else "" for percent in (50, 100)]
    return [*cells, str(row.stuck)]


if __name__ == "__main__":
    sys.exit(main())
