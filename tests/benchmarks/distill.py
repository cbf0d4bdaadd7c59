"""What becomes of the queue when the server is killed, and of recall while it is worked on.

    python -m tests.benchmarks.distill [--kills 20] [--calls 60] [--json FILE]

The model is a real HTTP server on loopback that fills in every form with one lesson, no two of them the same; a server
process talks to it as to any other. It takes 10 to 100 ms in the first part, so that kills meet every step, and half a
second to a second in the second, as fast models do.

Kills: each round starts a server over stdio, records trajectories as fast as it answers, and kills it at a random
moment, between 50 and 2,000 ms after the first answer. At the end the queue is emptied. `lost` are acknowledged
trajectories that are not there or were never distilled, `twice` those with more than the one lesson; both must be 0.

Recall: the same call with an empty queue and while it is worked on, in turns; to read is the ratio (target ≤ 1.5).
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from threading import Timer

import anyio

from reme_mcp.config.load import load_settings
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import Trajectory
from tests.benchmarks import report
from tests.benchmarks.crash import Client
from tests.http_server import Asked, Reply, Server, reply, serving

AT_ONCE_S, LIKE_A_MODEL_S = (0.01, 0.1), (0.5, 1.0)
EARLIEST_KILL_S, LATEST_KILL_S = 0.05, 2.0
TURNS = 3
QUEUED_AT_ONCE = 15


class Model:
    """Fills in whatever form it is given; every lesson is another one.

    Attributes:
        takes_s: From how many seconds to how many it takes for an answer.
    """

    def __init__(self, seed: int) -> None:
        self.takes_s = AT_ONCE_S
        self._numbers = itertools.count(1)
        self._rng = random.Random(seed)

    def __call__(self, asked: Asked) -> Reply:
        """Answer a request after a moment."""
        time.sleep(self._rng.uniform(*self.takes_s))
        schema = asked.body["response_format"]["json_schema"]["schema"]
        properties = schema["properties"]
        if "overall" in properties:
            filled: dict[str, object] = dict.fromkeys(properties, "yes")
            filled |= {"overall": "good"} | {
                name: "Which screw to turn." for name in ("gist", "reason") if name in properties
            }
        else:
            number = next(self._numbers)
            lesson = {
                "when_to_use": f"When a machine of type {number} rattles",
                "content": f"Turn the screw with number {number} until the rattling stops, then note the angle.",
                "keywords": ["machine"],
                "tools_used": [],
                "confidence": "high",
            }
            filled = dict.fromkeys(properties, "A machine of some type rattles.") | {"experiences": [lesson]}
        message = {"role": "assistant", "content": json.dumps(filled), "refusal": None}
        return reply({"object": "chat.completion", "choices": [{"message": message, "finish_reason": "stop"}]})


def connect(folder: Path, model: Server) -> Client:
    """Start a server with the model and shake hands."""
    client = Client(folder, {"LLM_BASE_URL": model.base_url, "LLM_MODEL": "benchmark"})
    info = {"name": "distill", "version": "1"}
    client.request("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
    client.request("tools/list")
    client.tool("recall_experiences", task="warm up")
    return client


def record(client: Client, name: str) -> str | None:
    """Record one trajectory and return its id; `None` once the server is dead."""
    task = f"Quieten the machine {name}"
    steps = f"Listened to machine {name}, turned one screw after the other, and noted which one made it quiet."
    recorded = client.tool("record_trajectory", task=task, outcome="success", steps=steps)
    return None if recorded is None else str(recorded["trajectory_id"])


def kill_rounds(folder: Path, model: Server, rounds: int, rng: random.Random) -> list[str]:
    """Record until the server is killed, `rounds` times; return the ids that were acknowledged."""
    acknowledged: list[str] = []
    for number in range(rounds):
        client = connect(folder, model)
        killer = Timer(rng.uniform(EARLIEST_KILL_S, LATEST_KILL_S), client.process.kill)
        killer.start()
        try:
            for step in itertools.count():
                id = record(client, f"{number}-{step}")
                if id is None:
                    break
                acknowledged.append(id)
        finally:
            killer.join()
            client.process.communicate()
    return acknowledged


async def find(home: Path, model: Server, acknowledged: list[str]) -> dict[str, int]:
    """Empty the queue, and count what is missing and what was distilled twice."""
    overrides = {"home": str(home), "embedder.provider": "none", "llm.base_url": model.base_url, "llm.model": "b"}
    left: list[Trajectory] = []

    async def done(trajectory: Trajectory) -> None:
        if trajectory.status == "queued":
            left.append(trajectory)

    async with Memory.open(load_settings(environ={}, overrides=overrides)) as memory:
        waiting = len(await memory.queued())
        await memory.distill(done)
        lessons: Counter[str] = Counter()
        offset = 0
        while page := await memory.pool.page(offset=offset, limit=1000):
            lessons.update(id for experience in page for id in experience.trajectory_ids)
            offset += len(page)
    return {
        "queued after the last kill": waiting,
        "lost": sum(lessons[id] == 0 for id in acknowledged) + len(left),
        "twice": sum(count > 1 for count in lessons.values()),
    }


def recall_ms(client: Client, calls: int, is_on: Callable[[], bool] | None = None) -> list[float]:
    """Return how long recalls take in ms, for as long as `is_on`."""
    taken: list[float] = []
    while len(taken) < calls and (is_on is None or is_on()):
        started = time.perf_counter()
        client.tool("recall_experiences", task=f"A machine of type {len(taken)} rattles")
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def is_busy(client: Client) -> bool:
    """Return whether anything is queued."""
    result = client.request("resources/read", uri="reme://stats")
    assert result is not None
    contents = result["contents"]
    assert isinstance(contents, list)
    return int(json.loads(contents[0]["text"])["trajectories"]["undistilled"]) > 0


def recall_rounds(folder: Path, model: Server, calls: int) -> tuple[list[float], list[float]]:
    """Return recalls with an empty queue and while it is worked on, in turns."""
    client = connect(folder, model)
    idle: list[float] = []
    busy: list[float] = []
    for turn in range(TURNS):
        idle += recall_ms(client, calls // TURNS)
        for number in range(QUEUED_AT_ONCE):
            record(client, f"busy-{turn}-{number}")
        busy += recall_ms(client, calls // TURNS, partial(is_busy, client))
        while is_busy(client):
            time.sleep(0.1)
    client.process.communicate(timeout=30)
    return idle, busy


def main() -> None:
    """Play both parts, print the tables, exit 1 if anything was lost or distilled twice."""
    parser = report.parser(__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    answering = Model(options.seed)
    with serving(answering) as model, tempfile.TemporaryDirectory(prefix="reme-distill-") as folder:
        acknowledged = kill_rounds(Path(folder), model, options.kills, rng)
        found = anyio.run(find, Path(folder) / "pool", model, acknowledged)
        answering.takes_s = LIKE_A_MODEL_S
        idle, busy = recall_rounds(Path(folder), model, options.calls)
    kills = {"kills": options.kills, "acknowledged trajectories": len(acknowledged)} | found
    report.show("Killed between queue and pool", ["", "figure"], [[name, str(value)] for name, value in kills.items()])
    recalls = {
        "idle p50 ms": median(idle),
        "idle p95 ms": report.percentile(idle, 95),
        "busy p50 ms": median(busy),
        "busy p95 ms": report.percentile(busy, 95),
        "busy / idle p50": median(busy) / median(idle),
    }
    report.show(
        f"Recall, {len(idle)} with an empty queue and {len(busy)} while it is worked on",
        ["", "figure"],
        [[name, f"{value:.2f}"] for name, value in recalls.items()],
    )
    report.write(options.json, {"kills": kills, "recall": recalls})
    if found["lost"] or found["twice"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
