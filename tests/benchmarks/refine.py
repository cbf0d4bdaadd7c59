"""How a pool fares over thousands of tasks: success rate, size and share of harmful lessons, with and without φ.

    python -m tests.benchmarks.refine [--tasks 2000] [--seed 1] [--seeds 1] [--workers 2] [--base 0.5] [--json FILE]

A simulation: agent and lessons are planted, no model takes part. The memory is the product: every attempt is one
`Memory.recall` and one `Memory.record` with the receipt, by words only, on a home of its own. 2,000 tasks in four
settings are some 9,000 of both, 80 to 100 ms of processor time each; `TMPDIR=/dev/shm` spares the disk. To save more,
only four attempts in ten teach anything.

What is planted:
    Tasks     20 families of 10 tasks. A family's tasks share four made-up words that no other family has, so that a
              search by words finds lessons of the family alone. Tasks are drawn evenly: each comes up about ten times.
    Lessons   40 per family: 8 good, 16 useless, 16 harmful; two of each are in the pool from the start. Their texts
              tell nothing of their worth. A lesson learned twice comes in the same words.
    Learning  An attempt teaches one lesson with probability 0.4. From a success it is good, useless or harmful with
              0.50, 0.45, 0.05; from a failure with 0.30, 0.40, 0.30.
    Success   With probability `base` + 0.08 for each good, - 0.12 for each harmful lesson that was handed out, within
              0.05 and 0.95. Useless ones do nothing. Nobody rates; the outcome settles all lessons of a receipt alike.
    Retry     Where there is one, a failed task is tried once more at once, with a recall of its own and the lessons
              that the failure was answered with.

Not in it: lessons in other words, lessons that fit some tasks of a family only, tasks that change, agents that see
through a bad lesson. The probabilities are chosen, not measured: the figures say how the rules act on each other,
not how much better a real agent gets.

To read: `solved` counts first attempts, so that a retry is no advantage in itself, and `2nd half` those of the second
half of the tasks; `retry` counts the retry in. `harmful` is the share among the active lessons, `handed` the same among
those on the receipts of first attempts; `on trial` are the provisional lessons, and those with a minus the archived
ones. All settings of one seed have the same tasks and the same luck. That is all that a seed settles: the product's ids
are random and decide between equals in its ranking, and it merges its index when there is time, so that two runs of
one seed drift apart, as two seeds do.
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Literal

import anyio

from reme_mcp.config.load import load_settings
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import Experience, Outcome
from tests.benchmarks import report

Worth = Literal["good", "useless", "harmful"]

FAMILIES = 20
VARIANTS = 10
LESSONS: Mapping[Worth, int] = {"good": 8, "useless": 16, "harmful": 16}
PLANTED_OF_EACH = 2
TEACHES = 0.4
TAUGHT: Mapping[Outcome, Mapping[Worth, float]] = {
    "success": {"good": 0.50, "useless": 0.45, "harmful": 0.05},
    "failure": {"good": 0.30, "useless": 0.40, "harmful": 0.30},
}
EFFECT: Mapping[Worth, float] = {"good": 0.08, "useless": 0.0, "harmful": -0.12}
LEAST, MOST = 0.05, 0.95
BLOCKS = 10
BARS = "▁▂▃▄▅▆▇█"
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprtvz" for vowel in "aeiou"]
SOURCE = "simulation"


@dataclass(frozen=True, slots=True)
class System:
    """One setting of the rules, and whether a failed task is tried again."""

    name: str
    settings: Mapping[str, str]
    retries: bool = False


# As far off as the settings let it be: a lesson would have to fail a thousand times and never help.
NO_PRUNING = {"refine.min_frequency": "1000", "refine.max_utility_ratio": "0"}
SELECTIVE = {"refine.add_from": "success"}
SYSTEMS = {
    "full": System("full, no φ", NO_PRUNING),
    "full-phi": System("full, φ", {}),
    "full-phi-retry": System("full, φ, retry", {}, retries=True),
    "selective-phi": System("selective, φ", SELECTIVE),
    "selective-phi-retry": System("selective, φ, retry", SELECTIVE, retries=True),
}
DEFAULT_SYSTEMS = ["full", "full-phi", "selective-phi", "selective-phi-retry"]


class World:
    """Tasks and lessons, the same for every setting of one seed."""

    def __init__(self, seed: int) -> None:
        chance = random.Random(f"{seed} words")
        self._used: set[str] = set()
        self.tasks: list[list[str]] = []
        self.lessons: list[dict[Worth, list[dict[str, object]]]] = []
        self.worth: dict[str, Worth] = {}
        for _ in range(FAMILIES):
            about = self._words(chance, 4)
            self.tasks.append([f"{about} {self._words(chance, 2)}" for _ in range(VARIANTS)])
            # Of different lengths, as the search would take those of one length for equals.
            lengths = list(range(8, 8 + sum(LESSONS.values())))
            chance.shuffle(lengths)
            self.lessons.append(
                {
                    worth: [self._lesson(chance, about, worth, lengths.pop()) for _ in range(many)]
                    for worth, many in LESSONS.items()
                }
            )

    def _words(self, chance: random.Random, many: int) -> str:
        """Return made-up words that were never used before."""
        words: list[str] = []
        while len(words) < many:
            word = "".join(chance.choices(SYLLABLES, k=4))
            if word not in self._used:
                self._used.add(word)
                words.append(word)
        return " ".join(words)

    def _lesson(self, chance: random.Random, about: str, worth: Worth, length: int) -> dict[str, object]:
        content = self._words(chance, length)
        self.worth[content] = worth
        return {"when_to_use": about, "content": content}


@dataclass(frozen=True, slots=True)
class Block:
    """What was seen over some tasks, and the pool at their end.

    Attributes:
        tasks: How many.
        solved: Of these at the first attempt.
        solved_in_the_end: At the first attempt or the retry.
        handed_out: Lessons on first attempts' receipts, by worth.
        pool: Lessons by status and worth, such as `active good`.
    """

    tasks: int
    solved: int
    solved_in_the_end: int
    handed_out: dict[str, int]
    pool: dict[str, int]

    def active(self) -> int:
        """Return how many lessons every task can get."""
        return sum(self.pool.get(f"active {worth}", 0) for worth in LESSONS)

    def harmful_handed_out(self) -> float:
        """Return the share of harmful lessons on the receipts, in percent."""
        return percent(self.handed_out.get("harmful", 0), sum(self.handed_out.values()))


@dataclass(frozen=True, slots=True)
class Played:
    """One setting with one seed."""

    system: str
    seed: int
    blocks: list[Block]
    seconds: float


class Agent:
    """Attempts tasks with what the memory hands out; its luck depends on the seed and the task's number alone."""

    def __init__(self, memory: Memory, world: World, seed: int, base: float) -> None:
        self._memory = memory
        self._world = world
        self._seed = seed
        self._base = base

    async def plant(self) -> None:
        """Put the lessons of the start into the pool, a family at a time."""
        for family, lessons in enumerate(self._world.lessons):
            drafts = [draft for of_worth in lessons.values() for draft in of_worth[:PLANTED_OF_EACH]]
            task = f"{drafts[0]['when_to_use']} family {family}"
            await self._memory.record(task, outcome="success", experiences=drafts, source=SOURCE)

    async def solve(self, number: int, *, retries: bool) -> tuple[list[Outcome], Counter[str]]:
        """Attempt the task with this number; return how the attempts ended and what the first was handed out."""
        chance = random.Random(f"{self._seed} task {number}")
        family, variant = chance.randrange(FAMILIES), chance.randrange(VARIANTS)
        task = self._world.tasks[family][variant]
        outcome, handed_out, lessons = await self._attempt(task, family, f"{number}", [])
        outcomes = [outcome]
        if outcome == "failure" and retries:
            outcome, _, _ = await self._attempt(task, family, f"{number} retry", lessons)
            outcomes.append(outcome)
        return outcomes, handed_out

    async def _attempt(
        self, task: str, family: int, name: str, lessons: Sequence[str]
    ) -> tuple[Outcome, Counter[str], list[str]]:
        chance = random.Random(f"{self._seed} attempt {name}")
        luck, teaches, what, which = (chance.random() for _ in range(4))
        recalled = await self._memory.recall(task, source=SOURCE)
        read = {one.content for one in recalled.experiences}
        handed_out: Counter[str] = Counter(self._world.worth[content] for content in read)
        effect = sum(EFFECT[self._world.worth[content]] for content in read.union(lessons))
        outcome: Outcome = "success" if luck < min(MOST, max(LEAST, self._base + effect)) else "failure"
        drafts = [self._taught(family, outcome, what, which)] if teaches < TEACHES else []
        answer = await self._memory.record(
            task,
            outcome=outcome,
            steps=f"attempt {name}",
            experiences=drafts,
            receipt=recalled.receipt,
            source=SOURCE,
        )
        return outcome, handed_out, answer.lessons

    def _taught(self, family: int, outcome: Outcome, what: float, which: float) -> dict[str, object]:
        worths, shares = list(TAUGHT[outcome]), list(accumulate(TAUGHT[outcome].values()))
        lessons = self._world.lessons[family][worths[bisect(shares, what, hi=len(worths) - 1)]]
        return lessons[int(which * len(lessons))]


async def play(system: System, *, tasks: int, seed: int, base: float) -> Played:
    """Play `tasks` tasks on a fresh home."""
    started = time.perf_counter()
    world = World(seed)
    blocks: list[Block] = []
    with tempfile.TemporaryDirectory(prefix="reme-refine-") as folder:
        overrides = {"home": str(Path(folder) / "home"), "embedder.provider": "none", **system.settings}
        async with Memory.open(load_settings(environ={}, overrides=overrides)) as memory:
            agent = Agent(memory, world, seed, base)
            await agent.plant()
            size = max(1, tasks // BLOCKS)
            for start in range(0, tasks, size):
                block = range(start, min(start + size, tasks))
                solved, in_the_end, handed_out = 0, 0, Counter[str]()
                for number in block:
                    outcomes, handed = await agent.solve(number, retries=system.retries)
                    solved += outcomes[0] == "success"
                    in_the_end += "success" in outcomes
                    handed_out += handed
                pool = await _pool(memory, world)
                blocks.append(Block(len(block), solved, in_the_end, dict(handed_out), pool))
                done = f"{block.stop} of {tasks} tasks, {percent(solved, len(block)):.0f} % solved lately"
                print(f"{system.name}, seed {seed}: {done}", file=sys.stderr, flush=True)
    return Played(system.name, seed, blocks, time.perf_counter() - started)


async def _pool(memory: Memory, world: World) -> dict[str, int]:
    """Return how many lessons there are of each status and worth."""
    found: list[Experience] = []
    while page := await memory.pool.page(offset=len(found), limit=1000):
        found += page
    return dict(sorted(Counter(f"{one.status} {world.worth[one.content]}" for one in found).items()))


def run(system: System, seed: int, *, tasks: int, base: float) -> Played:
    """Play one setting with one seed, in this process."""
    return anyio.run(partial(play, system, tasks=tasks, seed=seed, base=base))


def bars(values: Sequence[float], most: float) -> str:
    """Return one bar per value, the highest for `most`."""
    return "".join(BARS[min(len(BARS) - 1, int(value / most * len(BARS)))] if most else BARS[0] for value in values)


def percent(part: float, whole: float) -> float:
    """Return the share in percent; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def summary(blocks: Sequence[Block]) -> dict[str, float]:
    """Return what a row of the table says of one setting with one seed."""
    tasks, late, last = sum(one.tasks for one in blocks), blocks[len(blocks) // 2 :], blocks[-1]
    handed_out = sum((Counter(one.handed_out) for one in blocks), Counter[str]())
    return {
        "solved %": percent(sum(one.solved for one in blocks), tasks),
        "2nd half %": percent(sum(one.solved for one in late), sum(one.tasks for one in late)),
        "retry %": percent(sum(one.solved_in_the_end for one in blocks), tasks),
        "active": last.active(),
        "harmful %": percent(last.pool.get("active harmful", 0), last.active()),
        "handed %": percent(handed_out["harmful"], handed_out.total()),
        "on trial": sum(last.pool.get(f"provisional {worth}", 0) for worth in LESSONS),
        **{f"- {worth}": last.pool.get(f"archived {worth}", 0) for worth in LESSONS},
    }


def show(runs: Sequence[Played]) -> None:
    """Draw how each setting went over time, and print where it ended; the mean of all seeds, and their spread."""
    by_system: dict[str, list[Played]] = {}
    for one in runs:
        by_system.setdefault(one.system, []).append(one)
    measures: tuple[tuple[str, Callable[[Block], float], float], ...] = (
        ("Solved at the first attempt, %", lambda one: percent(one.solved, one.tasks), 100.0),
        ("Active lessons", Block.active, 0.0),
        ("Harmful among the active, %", lambda one: percent(one.pool.get("active harmful", 0), one.active()), 0.0),
        ("Harmful among the handed out, %", Block.harmful_handed_out, 0.0),
    )
    ends, total = [], 0
    for block in runs[0].blocks:
        total += block.tasks
        ends.append(str(total))
    for title, measure, most in measures:
        series = {
            name: [sum(map(measure, at)) / len(at) for at in zip(*(one.blocks for one in group), strict=True)]
            for name, group in by_system.items()
        }
        highest = most or max(value for values in series.values() for value in values)
        rows = [[name, bars(values, highest), *(f"{value:.0f}" for value in values)] for name, values in series.items()]
        report.show(f"{title}, by tasks played", ["", "", *ends], rows)
    rows = []
    for name, group in by_system.items():
        summaries = [summary(one.blocks) for one in group]
        rows.append([name, *(_mean_and_spread([one[key] for one in summaries]) for key in summaries[0])])
    report.show(f"After {total} tasks", ["", *summary(runs[0].blocks)], rows)


def _mean_and_spread(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.0f}-{max(values):.0f})"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__)
    parser.add_argument("--tasks", type=int, default=2_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="as many, from --seed on (%(default)s)")
    parser.add_argument("--base", type=float, default=0.5, metavar="P", help="success without lessons (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes; 1 plays in this (%(default)s)")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=DEFAULT_SYSTEMS, metavar="NAME")
    options = parser.parse_args(argv)
    if options.tasks < 1 or options.seeds < 1 or options.workers < 1:
        parser.error("--tasks, --seeds and --workers must be at least 1")
    jobs = [
        (SYSTEMS[name], seed) for seed in range(options.seed, options.seed + options.seeds) for name in options.systems
    ]
    one_run = partial(run, tasks=options.tasks, base=options.base)
    if options.workers == 1:
        runs = [one_run(system, seed) for system, seed in jobs]
    else:
        # Spawned, not forked: LanceDB's threads don't survive a fork.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
            runs = list(pool.map(one_run, *zip(*jobs, strict=True)))
    print(
        f"{options.tasks} tasks, {options.seeds} seed(s) from {options.seed}; without any lesson "
        f"{100 * options.base:.0f} % succeed. " + ", ".join(f"{one.system}: {one.seconds:.0f} s" for one in runs)
    )
    show(runs)
    arguments = {name: getattr(options, name) for name in ("tasks", "seed", "seeds", "base", "systems")}
    report.write(
        options.json,
        {"options": arguments, "runs": [asdict(one) | {"summary": summary(one.blocks)} for one in runs]},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
