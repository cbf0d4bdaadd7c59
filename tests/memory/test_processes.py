"""Several real processes on one home: nothing is lost, whether they write together or die in the middle."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory

pytestmark = pytest.mark.anyio

OPERATIONS = 20
DEADLINE_S = 60
KILLING_S = 6.0
ROUNDS = 6

# Says that it is ready, waits for a line, then works and says on a line of its own what was acknowledged.
CHILD = """
import hashlib, json, sys
import anyio
from reme_mcp.config.settings import EmbedderSettings, RefineSettings, Settings
from reme_mcp.memory.memory import Memory

home, name, operations = sys.argv[1], sys.argv[2], int(sys.argv[3])

def say(**what):
    print(json.dumps(what), flush=True)

def words(number, what):
    # Hashes, so that no lesson is taken for another one's twin.
    return hashlib.sha256(f"{name} {number} {what}".encode()).hexdigest()

async def main():
    settings = Settings(
        home=home, embedder=EmbedderSettings(provider="none"), refine=RefineSettings(min_frequency=1000)
    )
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        say(ready=name)
        sys.stdin.readline()
        for number in range(operations):
            recalled = await memory.recall("one shared task", source=name)
            recorded = await memory.record(
                f"one shared task, {name} {number}",
                outcome="success" if number % 2 else "failure",
                steps=words(number, "steps"),
                experiences=[
                    {"when_to_use": words(number, "when"), "content": words(number, "what")},
                    {"when_to_use": "Always and everywhere", "content": "What every process learns each time."},
                ],
                receipt=recalled.receipt,
                source=name,
            )
            say(
                recalled=[one.id for one in recalled.experiences],
                receipt=recalled.receipt,
                trajectory=recorded.trajectory_id,
                learned=[*recorded.added, *(one.id for one in recorded.merged)],
                settled=[one.id for one in recorded.settled],
            )
            rated = await memory.rate(recorded.added[0], helpful=True, source=name)
            say(rated=rated.experience_id, frequency=rated.frequency)

anyio.run(main)
"""


class Child:
    """A process that works on a home until it is done or killed."""

    def __init__(self, home: Path, name: str, operations: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(home), name, str(operations)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """Leave nothing behind, however the test ended."""
        self._process.kill()
        self._process.communicate()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said, self._process.communicate()[1]
        heard: dict[str, Any] = json.loads(said)
        return heard

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def finish(self) -> list[dict[str, Any]]:
        """Wait for the end, which must be a good one without a word on stderr; return everything it said."""
        said, errors = self._process.communicate(timeout=DEADLINE_S)
        assert (self._process.returncode, errors) == (0, "")
        return [json.loads(one) for one in said.splitlines()]

    def kill(self, *, after_s: float) -> list[dict[str, Any]]:
        """Kill it, if it is still there after this time; return what it said and nobody had heard."""
        try:
            self._process.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        said, errors = self._process.communicate(timeout=DEADLINE_S)
        assert errors == ""
        # The last line may be cut off: that was not acknowledged.
        return [json.loads(one) for one in said.splitlines(keepends=True) if one.endswith("\n")]


@pytest.fixture
def start(home: Path) -> Iterator[Callable[[str, int], Child]]:
    """Return what starts a child with this name and number of operations on the test's home."""
    children: list[Child] = []

    def start_child(name: str, operations: int) -> Child:
        children.append(Child(home, name, operations))
        return children[-1]

    yield start_child
    for child in children:
        child.close()


async def check(settings: Settings, acknowledged: list[dict[str, Any]]) -> None:
    """Open the pool as the next process would, and look for everything that was acknowledged."""
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        pool = {one.id: one for one in await memory.pool.page(limit=1_000)}
        frequencies = Counter(id for said in acknowledged for id in said.get("settled", []))
        frequencies.update(said["rated"] for said in acknowledged if "rated" in said)
        for said in acknowledged:
            for id in said.get("learned", []):
                assert said["trajectory"] in pool[id].trajectory_ids
        for id, frequency in frequencies.items():
            assert pool[id].frequency >= frequency
        stats = await memory.pool.stats()
        assert stats.trajectories["undistilled"] == 0
        recorded = [said for said in acknowledged if "trajectory" in said]
        assert stats.trajectories["success"] + stats.trajectories["failure"] >= len(recorded)
        assert stats.receipts["recalls"] >= len(recorded)
        # Nothing was stored twice either.
        texts = Counter(one.content for one in pool.values())
        assert max(texts.values(), default=1) == 1
        for one in pool.values():
            tally = (await memory.pool.experience(one.id))[1]
            # Whoever dies between its receipt and the counters has not acknowledged; the next to count puts it right.
            assert one.frequency <= tally.frequency
            assert one.utility <= tally.utility


@pytest.mark.slow
async def test_two_processes_record_and_rate_at_once_and_nothing_is_lost(
    start: Callable[[str, int], Child], settings: Settings
) -> None:
    children = [start(name, OPERATIONS) for name in ("ann", "bob")]
    for child in children:
        child.hear()
    for child in children:
        child.go()
    acknowledged = [said for child in children for said in child.finish()]
    await check(settings, acknowledged)

    recorded = [said for said in acknowledged if "trajectory" in said]
    rated = {said["rated"] for said in acknowledged if "rated" in said}
    assert len(rated) == len(recorded) == 2 * OPERATIONS
    # One lesson of its own for each attempt, and one for all of them.
    learned = Counter(id for said in recorded for id in said["learned"])
    assert sorted(learned.values()) == [1] * (2 * OPERATIONS) + [2 * OPERATIONS]
    async with Memory.open(settings) as memory:
        stats = await memory.pool.stats()
        assert sum(stats.experiences.values()) == 2 * OPERATIONS + 1
        assert stats.trajectories == {"success": OPERATIONS, "failure": OPERATIONS, "undistilled": 0}
        handed_out = sum(len(said["recalled"]) for said in recorded)
        assert sum(len(said["settled"]) for said in recorded) == handed_out > 0
        # A rating takes the place of a recall by the same source, or stands for itself.
        assert handed_out <= stats.receipts["settled"] <= handed_out + len(rated)
        assert stats.receipts["settled"] == stats.receipts["recalled"]
        for one in await memory.pool.page(limit=1_000):
            tally = (await memory.pool.experience(one.id))[1]
            assert (one.frequency, one.utility) == (tally.frequency, tally.utility)


@pytest.mark.slow
async def test_a_killed_process_loses_nothing_that_it_acknowledged(
    start: Callable[[str, int], Child], settings: Settings
) -> None:
    moment = random.Random(2512)
    started = time.monotonic()
    acknowledged: list[dict[str, Any]] = []
    rounds = 0
    # On a slow machine twice, whatever it takes.
    while rounds < 2 or (rounds < ROUNDS and time.monotonic() - started < KILLING_S):
        child = start(f"round{rounds}", 1_000)
        child.hear()
        child.go()
        acknowledged += [child.hear() for _ in range(moment.randint(1, 6))]
        acknowledged += child.kill(after_s=moment.uniform(0, 0.05))
        await check(settings, acknowledged)
        rounds += 1
    assert any("trajectory" in said for said in acknowledged)
    # The next process finds nothing in its way.
    last = start("last", 2)
    last.hear()
    last.go()
    await check(settings, acknowledged + last.finish())
