"""What a `kill -9` and a power cut cost: acknowledged against found, over many rounds on one home.

    python -m tests.benchmarks.crash [--rounds 15] [--json FILE]

Each round starts a server over stdio as a desktop client does, records and rates as fast as it answers, and kills it at
a random moment, between 50 and 1,500 ms after the first answer. What was acknowledged is written down by the client
before the next call. Then the power is cut: the server has written down which files it brought to the disk (its calls
of `os.fsync`; Linux only), and every file of LanceDB's tables that it did not, or has changed since, is emptied. SQLite
syncs by itself, where nobody counts. Afterwards the home is opened once more, and every acknowledged experience,
trajectory, receipt and rating is looked for.

To read: `lost` must be 0. What the kill cut off before its answer may be there or not, but whole or not at all: `torn`
counts the trajectories that are stored and never worked off; it must be 0, too.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Timer

import anyio

from reme_mcp.config.load import load_settings
from reme_mcp.errors import NotFound
from reme_mcp.memory.memory import Memory
from tests.benchmarks import report

# The server, which writes down each file that it brings to the disk, and of when its content is.
WITNESSED = """
import os, runpy, sys
log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
fsync = os.fsync
def witnessed(opened):
    changed = os.fstat(opened).st_mtime_ns
    fsync(opened)
    os.write(log, f"{changed} {os.readlink(f'/proc/self/fd/{opened}')}\\n".encode())
os.fsync = witnessed
runpy.run_module("reme_mcp", run_name="__main__", alter_sys=True)
"""
SYNCED = "synced.log"
LATEST_KILL_S = 1.5
EARLIEST_KILL_S = 0.05


class Client:
    """Talks to one server process line by line, and remembers what it acknowledged."""

    def __init__(self, folder: Path, settings: Mapping[str, str] = {}, command: Sequence[str] = report.SERVER) -> None:
        self.process = subprocess.Popen(
            command,
            env=report.server_environ(folder, {"EMBEDDER_PROVIDER": "none", **settings}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=tempfile.gettempdir(),
        )
        self._id = 0

    def request(self, method: str, **params: object) -> dict[str, object] | None:
        """Send one request and return its result; `None` once the server is dead."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._id += 1
        line = json.dumps({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        for answer in self.process.stdout:
            # A line that the kill cut off is no answer.
            if answer.endswith(b"\n") and (message := json.loads(answer)).get("id") == self._id:
                result: dict[str, object] = message["result"]
                return result
        return None

    def tool(self, name: str, **arguments: object) -> dict[str, object] | None:
        """Call a tool and return its structured result; `None` once the server is dead."""
        result = self.request("tools/call", name=name, arguments=arguments)
        if result is None:
            return None
        if result.get("isError"):
            raise RuntimeError(f"{name} failed: {result['content']}")
        structured = result["structuredContent"]
        assert isinstance(structured, dict)
        return structured


def play_round(folder: Path, number: int, moment_s: float, ledger: dict[str, list[str]]) -> None:
    """Record and rate until the server is killed; add what was acknowledged to `ledger`."""
    client = Client(folder, command=(sys.executable, "-c", WITNESSED, str(folder / SYNCED), "serve"))
    info = {"name": "crash", "version": "1"}
    client.request("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
    client.tool("recall_experiences", task="warm up")
    killer = Timer(moment_s, client.process.kill)
    killer.start()
    try:
        for step in range(10_000):
            lesson = {
                "when_to_use": f"When part {number}-{step} of the machine rattles",
                "content": f"Turn its screw number {number * 1000 + step} until it is quiet, and note the angle.",
            }
            task = f"Quieten part {number}-{step}"
            recorded = client.tool("record_trajectory", task=task, outcome="failure", experiences=[lesson])
            if recorded is None:
                break
            ledger["trajectories"].append(str(recorded["trajectory_id"]))
            added = recorded["added"]
            assert isinstance(added, list)
            ledger["experiences"] += added
            recalled = client.tool("recall_experiences", task=task, limit=1)
            if recalled is None:
                break
            ledger["receipts"].append(str(recalled["receipt"]))
            if added:
                rated = client.tool("rate_experience", experience_id=added[0], helpful=True)
                if rated is None:
                    break
                ledger["rated"].append(added[0])
    finally:
        killer.join()
        client.process.communicate()


def cut_power(folder: Path) -> int:
    """Empty each file of LanceDB's tables that is not on the disk as it is, and return how many that were."""
    lines = (line.split(" ", 1) for line in (folder / SYNCED).read_text().splitlines())
    synced = {path: int(changed) for changed, path in lines}
    files = [file for file in (folder / "pool").glob("pool*/*.lance/**/*") if file.is_file()]
    torn = [file for file in files if synced.get(str(file.resolve())) != file.stat().st_mtime_ns]
    for file in torn:
        # What was emptied stays so; it is nothing new.
        os.truncate(file, 0)
    return len(torn)


async def find(home: Path, ledger: dict[str, list[str]]) -> dict[str, int]:
    """Open the home once more and count what is missing and what is torn."""
    settings = load_settings(environ={}, overrides={"home": str(home), "embedder.provider": "none"})
    lost = dict.fromkeys(ledger, 0)
    async with Memory.open(settings) as memory:
        started = time.perf_counter()
        await memory.warm_up(download=False)
        opened_ms = round((time.perf_counter() - started) * 1000)
        # Every record came with its experiences, so that none is left to distil once the leftovers are worked off.
        torn = (await memory.pool.stats()).trajectories["undistilled"]
        for id in ledger["experiences"]:
            try:
                experience, _ = await memory.pool.experience(id)
            except NotFound:
                lost["experiences"] += 1
                continue
            if id in ledger["rated"] and experience.utility < 1:
                lost["rated"] += 1
        for trajectory_id in ledger["trajectories"]:
            try:
                await memory.record(trajectory_id=trajectory_id, experiences=[], source="crash")
            except NotFound:
                lost["trajectories"] += 1
        for receipt in ledger["receipts"]:
            try:
                await memory.record("settle", outcome="success", steps=receipt, receipt=receipt, source="crash")
            except NotFound:
                lost["receipts"] += 1
    return {f"lost {name}": count for name, count in lost.items()} | {"torn": torn, "last opening ms": opened_ms}


def main() -> None:
    """Play the rounds, print the table, exit 1 if anything acknowledged was lost."""
    parser = report.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    ledger: dict[str, list[str]] = {"trajectories": [], "experiences": [], "receipts": [], "rated": []}
    with tempfile.TemporaryDirectory(prefix="reme-crash-") as folder:
        emptied = 0
        for number in range(options.rounds):
            play_round(Path(folder), number, rng.uniform(EARLIEST_KILL_S, LATEST_KILL_S), ledger)
            emptied += cut_power(Path(folder))
        synced = len((Path(folder) / SYNCED).read_text().splitlines())
        found = anyio.run(find, Path(folder) / "pool", ledger)
    calls = {"fsync calls but SQLite's": synced, "files emptied": emptied}
    figures = (
        {"kills and power cuts": options.rounds}
        | calls
        | {f"acknowledged {name}": len(ids) for name, ids in ledger.items()}
        | found
    )
    report.show("Killed in the middle", ["", "figure"], [[name, str(value)] for name, value in figures.items()])
    report.write(options.json, figures)
    if any(value for name, value in found.items() if name.startswith("lost") or name == "torn"):
        sys.exit(1)


if __name__ == "__main__":
    main()
