"""How far attackers get who may only record and rate: what of theirs is recalled, what stops it, how long it lives.

    python -m tests.benchmarks.poison [--data DIR] [--topics 24] [--seed 1] [--json FILE]

Honest experiences are recorded first, one for each topic: those of `tests/poison_cases.py`, or, with `--data DIR`, so
many of the published pools that `retrieval` reads, drawn by the seed. The attackers know the victim's task word for
word. Every attack is one call of `Memory.record` by a source of its own, as the holder of a token is one; nobody judges
(no model), words decide about recall (no embedder).

Attacks:
    injection     an order to the reader, as the whole lesson
    long          the same between the sentences of an honest lesson
    gradual       three lessons that are harmless one by one; it reaches the victim when all three do
    turned        a copy of the honest lesson with one thing turned: a negation, a number, an order
    bad advice    wrong in plain words

First table, by attack: `stopped` are held back for review, `merged` those that were taken for the honest lesson, whose
text stays as it was, `refused` those that the gate did not take; `reached` is the share of topics in which what was
sent stands among the notes that the victim gets. `honest` is the honest lessons themselves: what is stopped of them is
stopped wrongly.

Second table, what outcomes and ratings do, in a pool of honest lessons and one of bad advice. In 15 rounds three
honest holders take turns in doing each task; with bad advice among their notes they fail 7 times in 10, without it 2
times in 10; they record the outcome with their receipt, and after one failure in four rate the bad advice. After one or
six rounds a ring of attackers rates every honest lesson down and every bad one up: once each, which needs no recall,
or, as `often`, six times each with a recall of its own. `lost` is the share of honest lessons that was archived;
`lived` the median number of the holders' outcomes after which bad advice was, and `alive` the share that was not. Each
ring meets both rules: all outcomes weigh the same (eq. 1 alone), and `refine.outcomes_per_source`. Where honest lessons
are recalled beside bad advice, they get the blame for its failures as well: that is not in this table.

Third table: what the rules hold back of the texts in three languages in `tests/guard_cases.py`, by half.

What is simulated: who fails how often. How a model reads a note, and whether it obeys, is not measured.
"""

from __future__ import annotations

import random
import re
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import anyio

from reme_mcp.config.settings import EmbedderSettings, RefineSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.safety.quarantine import suspicions_of_text
from reme_mcp.schema import Outcome
from tests.benchmarks import report, retrieval
from tests.guard_cases import REPORTED, TUNED
from tests.poison_cases import BAD_ADVICE, GRADUAL, HONEST, INJECTIONS

HOLDERS = ("alice/claude", "bob/cursor", "carol/codex")
FAILS_POISONED, FAILS = 0.7, 0.2
RATES = 0.25
ROUNDS = 15
OFTEN = 6
# Accounts, whether they rate often, and after how many rounds.
RINGS = ((0, False, 1), (1, False, 1), (1, True, 1), (1, True, 6), (3, False, 6), (3, True, 6))


@dataclass(frozen=True, slots=True)
class Topic:
    """A task, and the honest lesson about it."""

    task: str
    when: str
    content: str

    def fill(self, text: str) -> str:
        """Return an attack on this topic."""
        return text.replace("{task}", self.task.rstrip(".")[:120])


@dataclass(slots=True)
class Row:
    """What became of one kind of attack."""

    attack: str
    sent: int = 0
    stopped: int = 0
    merged: int = 0
    refused: int = 0
    topics: int = 0
    reached: int = 0
    rules: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of bad advice, and of honest lessons, under one rule and one ring."""

    ring: int
    often: bool
    after: int
    outcomes_per_source: int
    lived: float | None
    alive: float
    lost: float


def settings(home: Path, *, outcomes_per_source: int = 2) -> Settings:
    """Return settings without any model."""
    return Settings(
        home=str(home),
        embedder=EmbedderSettings(provider="none"),
        refine=RefineSettings(outcomes_per_source=outcomes_per_source),
    )


def topics_of(data: Path | None, count: int, rng: random.Random) -> list[Topic]:
    """Return up to `count` topics, no task twice."""
    if data is None:
        found = [Topic(*one) for one in HONEST]
    else:
        by_task = {
            one.task or one.generalized_task: one for pool in retrieval.read_pools(data) for one in pool.experiences
        }
        found = [Topic(task, one.when_to_use, one.content) for task, one in sorted(by_task.items()) if task]
    rng.shuffle(found)
    return found[:count]


# --- what attackers send ---


def turned(topic: Topic, rng: random.Random) -> list[str]:
    """Return the lesson with one thing turned, in every way that its words allow."""
    text = topic.content
    copies = []
    if re.search(r"\bnever\b|\bnot\b", text, re.IGNORECASE):
        copies.append(re.sub(r"\bnever\b|\bnot\b", "always", text, count=1, flags=re.IGNORECASE))
    else:
        copies.append(f"Never {text[0].lower()}{text[1:]}")
    if number := re.search(r"\d+", text):
        copies.append(f"{text[: number.start()]}{int(number.group()) * 10 + rng.randrange(9)}{text[number.end() :]}")
    for one, other in (("before", "after"), ("first", "last"), ("then", "but only before that")):
        if re.search(rf"\b{one}\b", text):
            copies.append(re.sub(rf"\b{one}\b", other, text, count=1))
            break
    return copies


def attacks(kind: str, topic: Topic, place: int, rng: random.Random) -> list[list[tuple[str, str]]]:
    """Return the attacks of a kind on a topic, each the lessons (scenario, content) that have to reach together."""
    when = f"When somebody wants to {topic.task.rstrip('.')[:200]}"
    if kind == "injection":
        return [[(when, topic.fill(INJECTIONS[place % len(INJECTIONS)]))]]
    if kind == "long":
        order = topic.fill(INJECTIONS[(place + 5) % len(INJECTIONS)])
        return [
            [(topic.when, f"{topic.content} This has worked each time. {order} Then go on as before. {topic.content}")]
        ]
    if kind == "gradual":
        return [[(when, topic.fill(part)) for part in GRADUAL[place % len(GRADUAL)]]]
    if kind == "turned":
        return [[(topic.when, content)] for content in turned(topic, rng)]
    return [[(when, topic.fill(BAD_ADVICE[place % len(BAD_ADVICE)]))]]


KINDS = ("injection", "long", "gradual", "turned", "bad advice")


async def record(memory: Memory, topic: Topic, lessons: Sequence[tuple[str, str]], source: str, row: Row) -> list[str]:
    """Record an attempt with these lessons, count what became of them, and return the ids that were added."""
    drafts = [{"when_to_use": when[:500], "content": content[:2_000]} for when, content in lessons]
    done = await memory.record(topic.task, outcome="success", experiences=drafts, source=source)
    row.sent += len(lessons)
    row.stopped += len(done.quarantined)
    row.merged += len(done.merged)
    row.refused += len(done.rejected)
    for held in done.quarantined:
        for name in {reason.split(":")[0] for reason in held.reason.split("; ")}:
            row.rules[name] = row.rules.get(name, 0) + 1
    return done.added


async def reach(topics: Sequence[Topic], rng: random.Random) -> list[Row]:
    """Send every kind of attack to a pool of its own, and look at what the victims get."""
    rows: list[Row] = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            async with Memory.open(settings(Path(folder) / "home")) as memory:
                honest, row = Row("honest"), Row(kind)
                for topic in topics:
                    await record(memory, topic, [(topic.when, topic.content)], HOLDERS[0], honest)
                sent = [
                    (topic, [await record(memory, topic, attack, f"mallory-{place}/mcp", row)])
                    for place, topic in enumerate(topics)
                    for attack in attacks(kind, topic, place, rng)
                ]
                wanted = {topic.task: len(attacks(kind, topic, 0, rng)[0]) for topic in topics}
                hit: dict[str, bool] = {}
                for topic, added in sent:
                    shown = {one.id for one in (await memory.recall(topic.task, source=HOLDERS[1])).experiences}
                    ids = [id for part in added for id in part]
                    all_there = len(ids) == wanted[topic.task] and set(ids) <= shown
                    hit[topic.task] = hit.get(topic.task, False) or all_there
                row.topics, row.reached = len(hit), sum(hit.values())
        if not rows:
            rows.append(honest)
        rows.append(row)
    return rows


# --- what outcomes do ---


async def live(
    topics: Sequence[Topic], ring: int, often: bool, after: int, outcomes_per_source: int, seed: int
) -> Fate:
    """Let honest holders work and a ring rate, in both pools."""
    lost, _ = await live_on("honest", topics, ring, often, after, outcomes_per_source, seed)
    died, lived = await live_on("bad advice", topics, ring, often, after, outcomes_per_source, seed)
    return Fate(ring, often, after, outcomes_per_source, lived=lived, alive=1 - died, lost=lost)


async def live_on(
    kind: str, topics: Sequence[Topic], ring: int, often: bool, after: int, outcomes_per_source: int, seed: int
) -> tuple[float, float | None]:
    """Play one pool; return the share that was archived, and after how many of the holders' outcomes, in the median."""
    rng = random.Random(seed)
    bad = kind == "bad advice"
    with tempfile.TemporaryDirectory() as folder:
        async with Memory.open(settings(Path(folder) / "home", outcomes_per_source=outcomes_per_source)) as memory:
            planted: dict[str, str] = {}
            for place, topic in enumerate(topics):
                lesson = attacks(kind, topic, place, rng)[0] if bad else [(topic.when, topic.content)]
                added = await record(memory, topic, lesson, "mallory-0/mcp" if bad else HOLDERS[0], Row(kind))
                if added:
                    planted[topic.task] = added[0]
            died: dict[str, int] = {}
            known: Counter[str] = Counter()
            for number in range(ROUNDS):
                if number == after:
                    await rate_all(memory, ring, OFTEN if often else 1, planted, helpful=bad)
                for place, (task, id) in enumerate(planted.items()):
                    holder = HOLDERS[(number + place) % len(HOLDERS)]
                    known[id] += await work(memory, task, id, holder, rng, is_bad=bad)
                    if task not in died and (await memory.pool.experience(id))[0].status == "archived":
                        died[task] = known[id]
    return len(died) / len(planted), statistics.median(died.values()) if died else None


async def work(memory: Memory, task: str, id: str, holder: str, rng: random.Random, *, is_bad: bool) -> bool:
    """Do a task once with what is recalled, record how it went, and return whether the planted lesson was there."""
    recalled = await memory.recall(task, source=holder)
    is_there = id in {one.id for one in recalled.experiences}
    failed = rng.random() < (FAILS_POISONED if is_bad and is_there else FAILS)
    rates = rng.random() < RATES
    outcome: Outcome = "failure" if failed else "success"
    # Each attempt is another one.
    steps = f"attempt {rng.random()}"
    await memory.record(task, outcome=outcome, steps=steps, experiences=[], receipt=recalled.receipt, source=holder)
    if is_bad and is_there and failed and rates:
        await memory.rate(id, helpful=False, receipt=recalled.receipt, source=holder)
    return is_there


async def rate_all(memory: Memory, ring: int, times: int, planted: Mapping[str, str], *, helpful: bool) -> None:
    """Have every account of the ring rate every planted lesson that it can recall."""
    for account in range(ring):
        source = f"mallory-{account}/mcp"
        for task, id in planted.items():
            if times == 1:
                await memory.rate(id, helpful=helpful, source=source)
                continue
            for _ in range(times):
                recalled = await memory.recall(task, source=source)
                if id in {one.id for one in recalled.experiences}:
                    await memory.rate(id, helpful=helpful, receipt=recalled.receipt, source=source)


# --- telling it ---


def share(part: int, whole: int) -> str:
    """Return a share in per cent, or a dash where there is no whole."""
    return f"{part / whole:.0%}" if whole else "-"


COLUMNS = ("attack", "lessons", "stopped", "merged", "refused", "topics", "reached", "by rule")


def show(rows: Sequence[Row], fates: Sequence[Fate]) -> None:
    """Print both tables."""
    report.show(
        "What reaches a victim",
        COLUMNS,
        [
            (
                row.attack,
                str(row.sent),
                share(row.stopped, row.sent),
                share(row.merged, row.sent),
                share(row.refused, row.sent),
                str(row.topics or "-"),
                share(row.reached, row.topics),
                ", ".join(f"{name} {count}" for name, count in sorted(row.rules.items())),
            )
            for row in rows
        ],
    )
    cells = [
        (
            f"{fate.ring} account{'' if fate.ring == 1 else 's'}{', often' if fate.often else ''}, after {fate.after}",
            "all weigh the same" if fate.outcomes_per_source == 0 else f"{fate.outcomes_per_source} a source",
            f"{fate.lost:.0%}",
            "-" if fate.lived is None else f"{fate.lived:g}",
            f"{fate.alive:.0%}",
        )
        for fate in fates
    ]
    report.show(
        "What a ring does to honest lessons, and for bad advice",
        ("ring", "outcomes", "lost", "lived", "alive"),
        cells,
    )


def of_guards() -> dict[str, dict[str, int]]:
    """Return how many of the hostile and the honest texts of each half are held back."""
    halves = {"tuned on": TUNED, "reported": REPORTED}
    return {
        name: {
            kind: sum(bool(suspicions_of_text(text)) for text in getattr(half, kind)) for kind in ("hostile", "honest")
        }
        for name, half in halves.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = report.parser(__doc__)
    parser.add_argument("--data", type=Path, metavar="DIR", help="published pools with qrels.jsonl, as for retrieval")
    parser.add_argument("--topics", type=int, default=24, metavar="N", help="topics of the first table")
    parser.add_argument("--fates", type=int, default=8, metavar="N", help="topics of the second table")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(argv)
    rng = random.Random(chosen.seed)
    topics = topics_of(chosen.data, chosen.topics, rng)
    rows = anyio.run(reach, topics, rng)
    fates = [
        anyio.run(live, topics[: chosen.fates], ring, often, after, limit, chosen.seed)
        for ring, often, after in RINGS
        for limit in (0, RefineSettings().outcomes_per_source)
    ]
    show(rows, fates)
    held = of_guards()
    cells = [
        (name, f"{of['hostile']} of {len(TUNED.hostile)}", f"{of['honest']} of {len(TUNED.honest)}")
        for name, of in held.items()
    ]
    report.show("What is held back of texts in three languages", ("half", "hostile", "honest"), cells)
    figures = {"topics": len(topics), "seed": chosen.seed, "reach": [asdict(row) for row in rows], "held": held}
    report.write(chosen.json, figures | {"fates": [asdict(fate) for fate in fates]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
