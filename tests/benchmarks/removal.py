"""Which rule removes the right lessons, in hard work and in easy work?

    python -m tests.benchmarks.removal [--tasks 2000] [--seeds 10] [--bases 0.3 0.5 0.7 0.9] [--json FILE]

The simulation of `refine.py` with its numbers, on a pool in memory: rule, counters and track record are the product's,
search and store take no part. All of a family's lessons are found for each of its tasks, and each is as relevant to it
as a number from 0.8 to 1 that is drawn once; the five first by relevance and track record are handed out, and the
outcome settles them all. A rule looks at what an outcome settled.

    none          nothing is removed
    share         `[refine] removal = "share"`, the paper's: 5 known outcomes or more, half of them failures or more
    lift          `[refine] removal = "lift"`: 5 known outcomes or more, and all of the 95 % interval below 0; before
                  that it is withheld where a standard deviation of its lift within the family is (`neighbourhood.py`)
    lift, none withheld   the same without the second half

To read: means over the seeds, with half the width of the 95 % interval. `solved` is of all tasks, `2nd half` of the
second half of them. `good lost` are the good lessons that the pool had and has no more, `harmful kept` the harmful ones
that it has still, in percent of each; `active` is its size at the end. Archived lessons are not learned again.
"""

from __future__ import annotations

import math
import random
import sys
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from statistics import fmean, stdev

from reme_mcp.config.settings import RefineSettings
from reme_mcp.recall.ranking import WEIGHTS
from reme_mcp.refine import rules
from reme_mcp.refine.holdout import Evidence, evidence, evidence_of, should_prune_by_lift
from reme_mcp.refine.lift import Outcomes
from reme_mcp.refine.neighbourhood import should_withhold
from reme_mcp.schema import Experience, Outcome, Rater, Tally
from tests.benchmarks import report
from tests.benchmarks.refine import (
    EFFECT,
    FAMILIES,
    LEAST,
    LESSONS,
    MOST,
    PLANTED_OF_EACH,
    TAUGHT,
    TEACHES,
    VARIANTS,
    Worth,
    percent,
)
from tests.fakes import experience

HANDED_OUT = 5
LEAST_RELEVANCE = 0.8
NUMBERS = RefineSettings()
# Whether a rule removes what has this evidence.
RULES: dict[str, Callable[[Experience, Evidence], bool]] = {
    "none": lambda one, told: False,
    "share": lambda one, told: rules.should_prune(
        one.frequency,
        one.utility,
        min_frequency=NUMBERS.min_frequency,
        max_utility_ratio=NUMBERS.max_utility_ratio,
    ),
    "lift": lambda one, told: should_prune_by_lift(told, min_frequency=NUMBERS.min_frequency),
}
RULES |= {"lift, none withheld": RULES["lift"]}
# The one that also withholds.
WITHHOLDING = "lift"


@dataclass(frozen=True, slots=True)
class Ended:
    """How one pool fared; all but `active` in percent."""

    solved: float
    second_half: float
    good_lost: float
    harmful_kept: float
    active: float


@dataclass(slots=True)
class Lesson:
    """A lesson of one family, how relevant it is to each of its tasks, and what became of it."""

    worth: Worth
    relevance: Sequence[float]
    experience: Experience
    is_known: bool = False

    @property
    def is_active(self) -> bool:
        """Whether it can be handed out."""
        return self.is_known and self.experience.status == "active"


def play(name: str, *, base: float, seed: int, tasks: int) -> Ended:
    """Play tasks to a fresh pool, and return how it fared.

    Args:
        name: Of the rule.
        base: Success without lessons.
        seed: Of tasks, lessons and luck, which are the same for all rules.
        tasks: How many.
    """
    rule = RULES[name]
    families = _families(seed)
    solved: list[bool] = []
    of_family = [[0, 0] for _ in families]
    for number in range(tasks):
        chance = random.Random(f"{seed} task {number}")
        family, variant = chance.randrange(FAMILIES), chance.randrange(VARIANTS)
        lessons, ended = families[family], of_family[family]
        luck, teaches, what, which = (chance.random() for _ in range(4))
        usual = rules.base_rate(sum(solved), len(solved))
        due = sorted(
            (
                lesson
                for lesson in lessons
                if lesson.is_active and not (name == WITHHOLDING and _is_withheld(lesson, ended, usual))
            ),
            key=lambda lesson: (
                -lesson.relevance[variant] * (1 + WEIGHTS.track_record * rules.track_record(lesson.experience, usual))
            ),
        )[:HANDED_OUT]
        effect = sum(EFFECT[lesson.worth] for lesson in due)
        solved.append(luck < min(MOST, max(LEAST, base + effect)))
        ended[solved[-1]] += 1
        for lesson in due:
            _settle(lesson, rule, (sum(solved), len(solved)), succeeded=solved[-1])
        if teaches < TEACHES:
            _taught(lessons, "success" if solved[-1] else "failure", what, which).is_known = True
    known = [lesson for lessons in families for lesson in lessons if lesson.is_known]
    late = solved[tasks // 2 :]
    had, active = Counter(one.worth for one in known), Counter(one.worth for one in known if one.is_active)
    return Ended(
        solved=percent(sum(solved), len(solved)),
        second_half=percent(sum(late), len(late)),
        good_lost=percent(had["good"] - active["good"], had["good"]),
        harmful_kept=percent(active["harmful"], had["harmful"]),
        active=active.total(),
    )


def _families(seed: int) -> list[list[Lesson]]:
    chance = random.Random(f"{seed} lessons")
    families = []
    for family in range(FAMILIES):
        lessons = [
            Lesson(
                worth,
                [chance.uniform(LEAST_RELEVANCE, 1) for _ in range(VARIANTS)],
                experience(f"e-{family}-{worth}-{place}", frequency=0, utility=0),
                is_known=place < PLANTED_OF_EACH,
            )
            for worth, many in LESSONS.items()
            for place in range(many)
        ]
        families.append(lessons)
    return families


def _is_withheld(lesson: Lesson, ended: Sequence[int], usual: float) -> bool:
    """Return whether the family's tasks credibly go worse with it; they are all alike."""
    one, (failed, succeeded) = lesson.experience, ended
    own = Outcomes(one.utility, one.frequency - one.utility)
    others = Outcomes(succeeded - own.succeeded, failed - own.failed)
    told = evidence_of([], [], with_it=own, without=others, expected=usual)
    return should_withhold(told, min_frequency=NUMBERS.min_frequency)


def _settle(
    lesson: Lesson, rule: Callable[[Experience, Evidence], bool], attempts: tuple[int, int], *, succeeded: bool
) -> None:
    one = lesson.experience
    frequency, utility = one.frequency + 1, one.utility + succeeded
    tally = Tally(frequency, frequency, utility, voices=(Rater("", frequency, utility),))
    counted = rules.count(one, tally, at=one.updated_at)
    told = evidence([counted], [], succeeded=attempts[0], attempts=attempts[1])[one.id]
    lesson.experience = rules.archive(counted, "", at=one.updated_at) if rule(counted, told) else counted


def _taught(lessons: Sequence[Lesson], outcome: Outcome, what: float, which: float) -> Lesson:
    worths, shares = list(TAUGHT[outcome]), list(accumulate(TAUGHT[outcome].values()))
    worth = worths[bisect(shares, what, hi=len(worths) - 1)]
    of_worth = [lesson for lesson in lessons if lesson.worth == worth]
    return of_worth[int(which * len(of_worth))]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean, and half the width of its 95 % interval; 0 of one value."""
    return fmean(values), rules.Z_95 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__)
    parser.add_argument("--tasks", type=int, default=2_000, metavar="N")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="from 1 on (%(default)s)")
    parser.add_argument("--bases", type=float, nargs="+", default=[0.3, 0.5, 0.7, 0.9], metavar="P")
    options = parser.parse_args(argv)
    if options.tasks < 1 or options.seeds < 1:
        parser.error("--tasks and --seeds must be at least 1")
    seeds = range(1, options.seeds + 1)
    figures, rows = [], []
    for base in options.bases:
        for name in RULES:
            ended = [asdict(play(name, base=base, seed=seed, tasks=options.tasks)) for seed in seeds]
            found = {measure: interval([one[measure] for one in ended]) for measure in ended[0]}
            figures.append({"base": base, "rule": name, "runs": ended, "intervals": found})
            rows.append([f"{base:.1f} {name}", *(f"{mean:.1f} ± {half:.1f}" for mean, half in found.values())])
    columns = ["success without lessons, rule", *(measure.replace("_", " ") for measure in found)]
    report.show(f"After {options.tasks} tasks, {options.seeds} seeds", columns, rows)
    report.write(options.json, {"options": {"tasks": options.tasks, "seeds": options.seeds}, "figures": figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
