"""How much a server over HTTP takes: recall, and recall mixed with record and rate, from many clients at once.

    python -m tests.benchmarks.load [--clients 1 8 64 256] [--seconds 10] [--size 10000] [--soak SECONDS]
        [--workers N] [--models DIR] [--data DIR] [--json FILE]

A home of 10,000 experiences is filled (`pools`; `--data DIR` as for `latency`), and served by a process of its
own, as `reme-mcp serve --http` does, without the limits of calls a minute and without a token. The embedder is
a stand-in: the embedding of the query is in no figure, but with `--models`, where the default model embeds
the pool, which takes a minute or two for 10,000, and every query. With `--workers N` it is N processes at one port; the
clients take part of a core, too. A further process serves the reference: a bare `MCPServer` of the `mcp` package with
one tool, over its own Streamable HTTP, stateless, whose answer is one text as large as the whole answer to a recall is
on average.

Each client is one connection that sends its next call (revision 2026-07-28) when the last is answered. They speak HTTP
by hand, in a third process: the SDK's client takes more processor time than the server, and would hide it.

    reference      calls of the reference's tool
    recall         nothing but recalls, each with a receipt that is written
    mixed          8 recalls, a record with the receipt and one experience, a rating of a recalled one, in any order

The three take turns, twice, so that what else the machine does hits all of them. An error is any answer but a result
that is none. Memory is the server's resident set, from /proc (Linux), after each; of several processes it is the sum,
in which what they share counts in each. `--soak 600` then goes on with the mixed calls of 64 clients for ten minutes,
and plots calls, memory, files and disk of every tenth of it.

The targets are, at 64 clients, recalls a second ≥ 0.2 × the reference's calls a second, 200 mixed calls a second with a
record p95 ≤ 500 ms; no error; memory that stays flat.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from reme_mcp.config.settings import EmbedderSettings, HTTPSettings, RecallSettings, Settings
from reme_mcp.http.shared import Shared
from reme_mcp.models.embedder import Embedder, load_embedder
from tests.benchmarks import pools, report

Kind = Literal["reference", "recall", "mixed"]
KINDS: tuple[Kind, ...] = ("reference", "recall", "mixed")
PROTOCOL = "2026-07-28"
ROUNDS = 2
SOAK_CLIENTS = 64
SOAK_PARTS = 10
PLOT_WIDTH = 60
STARTUP_S = 60
WARM_UP_S = 3.0
MAX_HEAD_BYTES = 65_536
TARGET_CLIENTS = 64
# Out of so many mixed calls one records and one rates.
MIXED_CALLS = 10


# --- the two servers, each in a process of its own ---


def embedder_of(models: Path | None) -> EmbedderSettings:
    """Return which embedder is served: the default model from a cache folder, or the stand-in."""
    if models is None:
        return EmbedderSettings(model=pools.HashingEmbedder.name)
    return EmbedderSettings(cache_dir=str(models), download=False)


@dataclass(frozen=True, slots=True)
class Ours:
    """What a process of our server does."""

    settings: Settings
    models: Path | None
    shared: Shared

    def __call__(self, number: int, listener: socket.socket, on_started: Callable[[], None] = lambda: None) -> None:
        """Serve until the process is told to end."""
        from reme_mcp.http.app import Host
        from reme_mcp.http.process import serve_at

        load = load_embedder if self.models else lambda *_: pools.HashingEmbedder()
        host = Host(self.settings, ("http",), load=load, shared=self.shared, worker=number)
        anyio.run(partial(serve_at, listener, self.settings, host, on_started=on_started))


def serve_ours(home: Path, models: Path | None, workers: int) -> None:
    """Serve the pool in `home`, with the default model where it is in `models`, and print the port."""
    from reme_mcp.http.process import serve_in_workers

    settings = Settings(
        home=str(home),
        embedder=embedder_of(models),
        recall=RecallSettings() if models else RecallSettings(min_similarity=pools.MIN_SIMILARITY),
        http=HTTPSettings(requests_per_minute=0, max_open_requests=100_000, log_requests=False, workers=workers),
    )
    listener = _listen()
    if workers == 1:
        Ours(settings, models, Shared())(0, listener)
    else:
        serve_in_workers(listener, settings, partial(Ours, settings, models))


async def serve_reference(size: int) -> None:
    """Serve one tool that answers with a text of `size` bytes, and print the port."""
    import uvicorn
    from mcp.server import MCPServer

    server = MCPServer("bare", log_level="ERROR")
    text = "x" * size

    @server.tool(structured_output=False)
    def recall_experiences(task: str) -> str:
        """Return a text."""
        return text

    listener = _listen()
    app = server.streamable_http_app(stateless_http=True, json_response=True)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on")
    await uvicorn.Server(config).serve(sockets=[listener])


def _listen() -> socket.socket:
    """Return a socket that listens at a free port, and print the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    # What is accepted inherits it. Without it the end of an answer waits 40 ms for the client to confirm its beginning.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listener.getsockname()[1], flush=True)
    return listener


@contextmanager
def server(
    role: str, folder: Path, size: int, models: Path | None = None, *, workers: int = 1
) -> Iterator[tuple[int, int]]:
    """Run one of the two servers; gives its process id and its port."""
    command = [sys.executable, "-m", "tests.benchmarks.load", "--role", role, "--workers", str(workers)]
    command += ["--folder", str(folder), "--size", str(size), *(["--models", str(models)] if models else [])]
    # As `tables.connect` has it, which comes too late for a process that has imported numpy for its stand-in.
    environ = os.environ | {"LANCEDB_LOG": "error", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environ)
    assert process.stdout is not None
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(STARTUP_S)
        process.stdout.close()


# --- the clients ---


class Note(TypedDict):
    """What is read of a recalled experience."""

    id: str


class Structured(TypedDict, total=False):
    """What is read of the results of our tools."""

    receipt: str
    experiences: list[Note]


class Result(TypedDict, total=False):
    """What is read of a result."""

    isError: bool
    structuredContent: Structured


class Answer(TypedDict, total=False):
    """A JSON-RPC answer; one with an error has no result."""

    result: Result


@dataclass(slots=True)
class Figures:
    """What the calls of one kind took, in milliseconds by tool, and what went wrong."""

    seconds: float = 0.0
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    received_bytes: int = 0

    def add(self, other: Figures) -> None:
        """Take in what was measured later."""
        self.seconds += other.seconds
        self.received_bytes += other.received_bytes
        self.errors += other.errors
        for tool, values in other.milliseconds.items():
            self.milliseconds.setdefault(tool, []).extend(values)


class Connection:
    """One client: a connection, and a call at a time on it."""

    def __init__(self, stream: SocketStream, port: int, figures: Figures) -> None:
        self._stream = stream
        self._host = f"127.0.0.1:{port}"
        self._received = BufferedByteReceiveStream(stream)
        self._figures = figures
        self._calls = 0

    async def call(self, tool: str, arguments: Mapping[str, object]) -> Structured:
        """Call a tool, keep how long it took, and return its structured result; empty where it failed."""
        self._calls += 1
        meta = {
            "io.modelcontextprotocol/protocolVersion": PROTOCOL,
            "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"name": tool, "arguments": arguments, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": self._calls, "method": "tools/call", "params": params}).encode()
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: {self._host}\r\nAccept: application/json, text/event-stream\r\n"
            f"Content-Type: application/json\r\nMCP-Protocol-Version: {PROTOCOL}\r\nMcp-Method: tools/call\r\n"
            f"Mcp-Name: {tool}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        started = time.perf_counter()
        await self._stream.send(head.encode() + body)
        status, content = await self._answer()
        self._figures.milliseconds.setdefault(tool, []).append((time.perf_counter() - started) * 1000)
        self._figures.received_bytes += len(content)
        answer: Answer = json.loads(content) if status == 200 else {}
        result = answer.get("result", {})
        if not result or result.get("isError"):
            self._figures.errors.append(f"{tool}: {status} {content[:200].decode(errors='replace')}")
        return result.get("structuredContent", {})

    async def _answer(self) -> tuple[int, bytes]:
        """Return status and message; what takes longer comes in pieces, as an event of a stream."""
        lines = (await self._received.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES)).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        content = bytearray()
        if headers.get("transfer-encoding") == "chunked":
            while length := int(await self._received.receive_until(b"\r\n", MAX_HEAD_BYTES), 16):
                content += (await self._received.receive_exactly(length + 2))[:-2]
            await self._received.receive_until(b"\r\n", MAX_HEAD_BYTES)
        elif length := int(headers.get("content-length", "0")):
            content += await self._received.receive_exactly(length)
        if headers.get("content-type", "").startswith("text/event-stream"):
            return int(lines[0].split()[1]), message_of(bytes(content))
        return int(lines[0].split()[1]), bytes(content)


def message_of(stream: bytes) -> bytes:
    """Return the answer among the events of a stream: the last one; progress comes before it."""
    events = [line.removeprefix(b"data:").strip() for line in stream.splitlines() if line.startswith(b"data:")]
    return next((event for event in reversed(events) if event), b"")


async def play(port: int, kind: Kind, clients: int, seconds: float, queries: Sequence[str], seed: int) -> Figures:
    """Let so many clients call for so long, and return what they saw."""
    figures = Figures()
    streams = [await anyio.connect_tcp("127.0.0.1", port) for _ in range(clients)]
    started = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number, stream in enumerate(streams):
            writing = pools.Writing(seed + number)
            tasks.start_soon(_play_one, Connection(stream, port, figures), kind, started + seconds, queries, writing)
    figures.seconds = time.perf_counter() - started
    for stream in streams:
        await stream.aclose()
    return figures


async def _play_one(
    connection: Connection, kind: Kind, until: float, queries: Sequence[str], writing: pools.Writing
) -> None:
    recalled: Structured = {}
    while time.perf_counter() < until:
        number = writing.chance.randrange(MIXED_CALLS) if kind == "mixed" and recalled else MIXED_CALLS
        notes = recalled.get("experiences", [])
        if number == 0:
            lesson = {"when_to_use": writing.text(12), "content": writing.text(40)}
            arguments = {"task": writing.text(20), "outcome": "success", "steps": writing.text(60)}
            given: dict[str, object] = {**arguments, "receipt": recalled.get("receipt", ""), "experiences": [lesson]}
            await connection.call("record_trajectory", given)
        elif number == 1 and notes:
            id = writing.chance.choice(notes)["id"]
            await connection.call("rate_experience", {"experience_id": id, "helpful": writing.chance.random() < 0.8})
        else:
            recalled = await connection.call("recall_experiences", {"task": writing.chance.choice(queries)})


# --- what is measured ---


def in_child(port: int, kind: Kind, clients: int, seconds: float, folder: Path) -> Figures:
    """Play in a process of its own, and return what it saw."""
    command = [sys.executable, "-m", "tests.benchmarks.load", "--role", "clients", "--folder", str(folder)]
    command += ["--port", str(port), "--kind", kind, "--clients", str(clients), "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return Figures(**json.loads(done.stdout))


def served_mb(pid: int) -> float:
    """Return the resident memory of a server, and of the processes that it has started, in MB."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return pools.resident_mb(pid) + sum(map(pools.resident_mb, map(int, children)))


def measure(folder: Path, options: Options) -> dict[str, Any]:
    """Fill a home, serve it, play, and return the figures."""
    embedder: Embedder | None = pools.HashingEmbedder()
    if options.models is not None and (embedder := load_embedder(embedder_of(options.models), False)) is None:
        raise SystemExit(f"the default model is not in {options.models}")
    experiences = list(pools.write_experiences(options.size, pools.read_texts(options.data)))
    queries = pools.write_queries(experiences, 2 * options.size)
    (folder / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    anyio.run(partial(pools.fill, folder / "home", experiences, embedder=embedder))
    rows: list[dict[str, Any]] = []
    soak: list[dict[str, Any]] = []
    with server("ours", folder, options.size, options.models, workers=options.workers) as (pid, port):
        warm = in_child(port, "recall", 1, WARM_UP_S, folder)
        answer_bytes = warm.received_bytes // len(warm.milliseconds["recall_experiences"])
        opened = served_mb(pid)
        with server("reference", folder, answer_bytes) as (_, reference_port):
            ports: dict[Kind, int] = {"reference": reference_port, "recall": port, "mixed": port}
            for clients in options.clients:
                found: dict[Kind, Figures] = {kind: Figures() for kind in KINDS}
                memory: dict[str, float] = {}
                for _ in range(ROUNDS):
                    for kind in KINDS:
                        found[kind].add(in_child(ports[kind], kind, clients, options.seconds / ROUNDS, folder))
                        memory[kind] = served_mb(pid)
                rows += [_row(clients, kind, found[kind], memory[kind]) for kind in KINDS]
                _show(rows[-len(KINDS) :])
        for _ in range(SOAK_PARTS if options.soak else 0):
            figures = in_child(port, "mixed", SOAK_CLIENTS, options.soak / SOAK_PARTS, folder)
            weighs = dict(zip(("files", "disk_mb"), pools.weigh(folder / "home"), strict=True))
            soak.append(_row(SOAK_CLIENTS, "mixed", figures, served_mb(pid)) | weighs)
    return {"opened_mb": opened, "answer_bytes": answer_bytes, "rows": rows, "soak": soak}


def _row(clients: int, kind: Kind, figures: Figures, memory_mb: float) -> dict[str, Any]:
    every = [value for values in figures.milliseconds.values() for value in values]
    return {
        "clients": clients,
        "kind": kind,
        "calls": len(every),
        "calls_per_s": len(every) / figures.seconds,
        "errors": len(figures.errors),
        "first_error": next(iter(figures.errors), ""),
        "memory_mb": memory_mb,
        "tools": {
            tool: {f"p{percent}_ms": report.percentile(values, percent) for percent in (50, 95, 99)}
            for tool, values in figures.milliseconds.items()
        },
    }


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    cells = []
    for row in rows:
        reference = next((one for one in rows if one["kind"] == "reference"), row)
        for tool, times in row["tools"].items():
            cells.append(
                [
                    f"{row['clients']}",
                    row["kind"],
                    f"{row['calls_per_s']:.0f}",
                    f"{row['calls_per_s'] / reference['calls_per_s']:.2f}",
                    tool,
                    *(f"{times[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
                    f"{row['errors']}",
                    f"{row['memory_mb']:.0f}" if row["kind"] != "reference" else "",
                ]
            )
        if row["first_error"]:
            print(row["first_error"], file=sys.stderr)
    columns = ["clients", "calls", "per s", "of reference", "tool", "p50 ms", "p95", "p99", "errors", "server MB"]
    report.show("Load over HTTP", columns, cells)


def _show_soak(parts: Sequence[Mapping[str, Any]]) -> None:
    """Plot what is to stay flat: a line each time, as long as its share of the most that there was."""
    for name in ("calls_per_s", "memory_mb", "files", "disk_mb"):
        most = max(part[name] for part in parts)
        print(f"{name}, over time")
        for part in parts:
            print(f"{part[name]:10.0f}  {'#' * round(PLOT_WIDTH * part[name] / most)}")
    errors = sum(part["errors"] for part in parts)
    print(f"{errors} errors" if errors else "no error")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    clients: tuple[int, ...]
    seconds: float
    size: int
    soak: float
    data: Path | None
    models: Path | None
    workers: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64, 256], metavar="N")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each kind of calls (10)")
    parser.add_argument("--size", type=int, default=10_000, metavar="N", help="experiences in the pool (10,000)")
    parser.add_argument("--soak", type=float, default=0.0, metavar="SECONDS", help="go on for so long (0)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="upstream's pools with qrels.jsonl, as for retrieval")
    parser.add_argument("--models", type=Path, metavar="DIR", help="fastembed's cache: the default model embeds")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes of our server (1)")
    parser.add_argument("--role", choices=("ours", "reference", "clients"), help="be one of the processes")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS, default="recall")
    options = parser.parse_args(argv)
    if min(options.clients) < 1 or options.seconds <= 0 or options.soak < 0:
        parser.error("--clients must be at least 1, --seconds more than 0, --soak not negative")
    if not 1 <= options.workers <= 64:
        parser.error("--workers must be from 1 to 64")
    if options.role == "ours":
        serve_ours(options.folder / "home", options.models, options.workers)
    elif options.role == "reference":
        anyio.run(serve_reference, options.size)
    elif options.role == "clients":
        queries = json.loads((options.folder / "queries.json").read_text(encoding="utf-8"))
        seed = random.randrange(2**32)
        figures = anyio.run(play, options.port, options.kind, options.clients[0], options.seconds, queries, seed)
        print(json.dumps(asdict(figures)))
    else:
        asked = Options(
            tuple(options.clients),
            options.seconds,
            options.size,
            options.soak,
            options.data,
            options.models,
            options.workers,
        )
        with tempfile.TemporaryDirectory(prefix="reme-load-") as name:
            found = measure(Path(name), asked)
        if found["soak"]:
            _show_soak(found["soak"])
        report.write(
            options.json, asdict(asked) | {"data": str(options.data or ""), "models": str(options.models or "")} | found
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
