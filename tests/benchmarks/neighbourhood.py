"""Is a lesson that helps one kind of tasks and harms another withheld from the other, and from no more?

    python -m tests.benchmarks.neighbourhood [--recalls 200 1000 5000] [--worlds 6] [--due 3] [--json FILE]

A simulation: tasks and lessons are planted, no model takes part. Which tasks are alike, what is known of a lesson among
them, what is withheld and what is removed, is the product's (`[refine] removal = "lift"`), on its ledger; search takes
no part.

What is planted:
    Tasks     6 kinds in 3 pairs, drawn evenly, of which 35 to 65 % succeed without notes. Tasks of a kind share three
              made-up words of six, those of a pair one.
    Lessons   4 for each pair, due for both of its kinds: one is two-faced, and raises the chance of success in one kind
              by 20 points and lowers it in the other by 20; one helps both by 15; two do nothing.
    Recalls   Each has `--due` of the 4, drawn at random, as far as they are neither removed nor withheld.

Compared:
    none            nothing is removed or withheld
    removal         lessons are removed as a whole, by their lift over all tasks
    withholding     they are withheld where they harm, and none is removed
    neighbourhoods  both, but only what harms every known kind is removed: the product's
    the same, with a hold-out of 0.3

To read, after so many recalls: `found` are the two-faced lessons that are withheld where they harm, or gone; `kept`
those that are still handed out where they help; `false alarms` the other lessons, each for each kind, that are withheld
or gone; `solved` the tasks solved since the number of recalls before, and `best` what would be with every two-faced
lesson withheld where it harms, and nothing else. All in percent, with half the width of the 95 % interval over worlds
for `solved`. The worlds are chosen, not measured.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from statistics import fmean

import anyio

from reme_mcp.config.settings import RefineSettings
from reme_mcp.refine import rules
from reme_mcp.refine.holdout import Draw, draw_withheld, evidence, should_prune_by_lift
from reme_mcp.refine.ledger import receipt_lines
from reme_mcp.refine.neighbourhood import evidence_among, harms_everywhere, neighbourhoods, should_withhold
from reme_mcp.schema import Experience, ReceiptLine, Tally, Trajectory, now
from reme_mcp.store.ledger import Put
from reme_mcp.store.sqlite_ledger import SqliteLedger
from reme_mcp.store.tried import Tried, TriedTasks
from tests.benchmarks import report
from tests.benchmarks.removal import interval
from tests.fakes import experience, trajectory

PAIRS = 3
# What a lesson adds to the chance of success in each of the two kinds of its pair.
TWO_FACED = (0.20, -0.20)
LESSONS = {"two-faced": TWO_FACED, "helps": (0.15, 0.15), "nothing": (0.0, 0.0), "nothing too": (0.0, 0.0)}
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprtvz" for vowel in "aeiou"]
NUMBERS = RefineSettings(removal="lift")
POLICIES = {
    "none": (False, False, 0.0),
    "removal": (True, False, 0.0),
    "withholding": (False, True, 0.0),
    "neighbourhoods": (True, True, 0.0),
    "neighbourhoods, hold-out 0.3": (True, True, 0.3),
}


@dataclass(slots=True)
class Lesson:
    """A planted lesson, due for both kinds of its pair."""

    pair: int
    name: str
    experience: Experience

    def effect(self, face: int) -> float:
        """Return what it adds to the chance of success in one of its two kinds."""
        return LESSONS[self.name][face]


@dataclass(frozen=True, slots=True)
class Reached:
    """How a world stands after some recalls; shares from 0 to 1."""

    found: float
    kept: float
    false_alarms: float
    solved: float
    best: float


class World:
    """One pool, its tasks and its luck."""

    def __init__(self, seed: int, policy: str, due: int, ledger: SqliteLedger) -> None:
        self._removes, self._withholds, self._holdout = POLICIES[policy]
        self._chance = random.Random(seed)
        self._due = due
        self._ledger = ledger
        self._tried = TriedTasks()
        self._solved = 0
        self._played = 0
        words = random.Random(f"{seed} words")
        shared = [_words(words, 1) for _ in range(PAIRS)]
        self._kinds = [(f"{shared[pair]} {_words(words, 3)}", pair, face) for pair in range(PAIRS) for face in (0, 1)]
        self._lessons = [
            Lesson(pair, name, experience(f"e-{pair}-{name.replace(' ', '-')}", frequency=0, utility=0))
            for pair in range(PAIRS)
            for name in LESSONS
        ]

    async def play(self, recalls: int) -> Reached:
        """Play as many tasks, and return how it stands."""
        solved, best = 0, 0.0
        for _ in range(recalls):
            succeeded, ideal = await self._one()
            solved += succeeded
            best += ideal
        await self._tried.read(self._ledger, "default")
        alike = {(pair, face): self._alike(f"{about} {_words(self._chance, 2)}") for about, pair, face in self._kinds}
        out = {(one.experience.id, face): self._is_out(one, alike[one.pair, face]) for one, face in self._cases()}
        two_faced = [(one, face) for one, face in self._cases() if one.name == "two-faced"]
        found = fmean(out[one.experience.id, face] for one, face in two_faced if one.effect(face) < 0)
        kept = fmean(not out[one.experience.id, face] for one, face in two_faced if one.effect(face) > 0)
        others = [out[one.experience.id, face] for one, face in self._cases() if one.name != "two-faced"]
        return Reached(found, kept, fmean(others), solved / recalls, best / recalls)

    def _cases(self) -> list[tuple[Lesson, int]]:
        return [(one, face) for one in self._lessons for face in (0, 1)]

    def _alike(self, task: str) -> Sequence[Tried]:
        return self._tried.alike(task, None) if self._withholds else ()

    async def _one(self) -> tuple[bool, float]:
        kind = self._chance.randrange(len(self._kinds))
        about, pair, face = self._kinds[kind]
        base = 0.35 + 0.3 * kind / (len(self._kinds) - 1)
        task = f"{about} {_words(self._chance, 2)}"
        await self._tried.read(self._ledger, "default")
        drawn = self._chance.sample([one for one in self._lessons if one.pair == pair], self._due)
        alike = self._alike(task)
        due = [one for one in drawn if not self._is_out(one, alike)]
        draws = draw_withheld(len(due), self._holdout, self._chance.random)
        shown = [one for one, draw in zip(due, draws, strict=True) if draw.arm != "withheld"]
        luck = self._chance.random()
        succeeded = luck < base + sum(one.effect(face) for one in shown)
        await self._record(task, due, draws, succeeded=succeeded)
        for one in shown:
            self._settle(one, succeeded=succeeded)
        return succeeded, base + sum(max(0.0, one.effect(face)) for one in drawn)

    async def _record(self, task: str, due: Sequence[Lesson], draws: Sequence[Draw], *, succeeded: bool) -> None:
        self._played += 1
        self._solved += succeeded
        at = now() + timedelta(hours=self._played)
        receipt = f"r-{self._played}"
        lines = receipt_lines(receipt, [one.experience for one in due], "default", task, "", draws=draws)
        settled = [
            replace(line, helped=succeeded, settled_by="trajectory") if line.is_handed_out else line for line in lines
        ]
        outcome = "success" if succeeded else "failure"
        ended = trajectory(
            f"t-{self._played}", task=task, receipt=receipt, outcome=outcome, created_at=at, updated_at=at
        )
        await self._ledger.write([Put(ReceiptLine, settled, are_new=True), Put(Trajectory, [ended], are_new=True)])

    def _is_out(self, one: Lesson, alike: Sequence[Tried]) -> bool:
        """Return whether a recall for a task goes without the lesson."""
        if one.experience.status != "active":
            return True
        if not self._withholds or one.experience.frequency < NUMBERS.min_frequency:
            return False
        told = evidence_among(
            alike,
            one.experience.id,
            counted_since=one.experience.counted_since,
            base_rate=rules.base_rate(self._solved, self._played),
        )
        return should_withhold(told, min_frequency=NUMBERS.min_frequency)

    def _settle(self, one: Lesson, *, succeeded: bool) -> None:
        before = one.experience
        tally = Tally(frequency=before.frequency + 1, utility=before.utility + succeeded)
        one.experience = rules.count(before, tally, at=before.updated_at)
        if not self._removes:
            return
        told = evidence([one.experience], [], succeeded=self._solved, attempts=self._played)[before.id]
        if not should_prune_by_lift(told, min_frequency=NUMBERS.min_frequency):
            return
        if self._withholds:
            usual = rules.base_rate(self._solved, self._played)
            kinds = neighbourhoods(
                self._tried,
                before.id,
                counted_since=before.counted_since,
                base_rate=usual,
                min_frequency=NUMBERS.min_frequency,
            )
            if not harms_everywhere(kinds):
                return
        one.experience = rules.archive(one.experience, "", at=before.updated_at)


def _words(chance: random.Random, count: int) -> str:
    return " ".join("".join(chance.choices(SYLLABLES, k=4)) for _ in range(count))


async def simulate(seed: int, policy: str, due: int, recalls: Sequence[int]) -> list[Reached]:
    """Return how one world stands after each number of recalls."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = SqliteLedger(Path(folder) / "ledger.db", check=lambda: None, wrote=lambda version: None)
        try:
            world = World(seed, policy, due, ledger)
            steps = [until - since for since, until in zip([0, *recalls], recalls, strict=False)]
            return [await world.play(step) for step in steps]
        finally:
            ledger.close()


def main() -> None:
    """Print the table, write the figures."""
    parser = report.parser(__doc__)
    parser.add_argument("--recalls", type=int, nargs="+", default=[200, 1_000, 5_000], help="rising")
    parser.add_argument("--worlds", type=int, default=6, help="for each policy")
    parser.add_argument("--due", type=int, default=3, choices=range(1, 5), help="of the 4 lessons of a pair")
    given = parser.parse_args()
    rows, figures = [], []
    for policy in POLICIES:
        worlds = [anyio.run(simulate, seed, policy, given.due, given.recalls) for seed in range(given.worlds)]
        for recalls, reached in zip(given.recalls, zip(*worlds, strict=True), strict=True):
            means = {
                name: 100 * fmean(getattr(one, name) for one in reached)
                for name in ("found", "kept", "false_alarms", "solved", "best")
            }
            half = 100 * interval([one.solved - one.best for one in reached])[1]
            figures.append({"policy": policy, "recalls": recalls, "half": half} | means)
            told = [f"{means[name]:.0f}" for name in ("found", "kept", "false_alarms")]
            rows.append((str(recalls), policy, *told, f"{means['solved']:.1f} ± {half:.1f}", f"{means['best']:.1f}"))
    columns = ("recalls", "policy", "found %", "kept %", "false alarms %", "solved %", "best %")
    report.show("two-faced lessons", columns, sorted(rows, key=lambda row: int(row[0])))
    report.write(given.json, {"figures": figures})


if __name__ == "__main__":
    main()
