"""Does the hold-out find which lessons help and which harm, and is its estimate of the lift right?

    python -m tests.benchmarks.holdout [--recalls 200 1000 5000] [--shares 0.1 0.3 0.5] [--worlds 40] [--json FILE]

A simulation: tasks and lessons are planted, the draw and the estimate are the product's, no model takes part.

What is planted:
    Tasks     5 kinds, drawn evenly, of which 30, 40, 50, 60 and 70 % succeed without notes.
    Lessons   4 for each kind: 1 raises the chance of success by 15 points, 1 lowers it by 15, 2 do nothing.
    Recalls   Each has 3 lessons of its task's kind, drawn at random, less the one that the hold-out withholds.

Compared as a sign of what harms, and of what helps:
    u / f      the share of successes with the lesson, as removal by φ takes it
    base rate  the lift against all other tasks, as it is shown without a hold-out
    hold-out   the lift that the hold-out caused, at a share of the recalls; where too little is known, the base rate

To read: `harmers` and `helpers` are the shares of them that are found where 5 % of all other lessons are taken for one
(the false alarms); 5 % are what chance finds. `off by` is the mean of estimate less truth, over the lessons of which
the hold-out says something (`told of`), and `holds` the share of its 95 % intervals that hold the truth. The prior
draws estimates from little towards none: `off by, harmers` is above 0 for it.

The worlds are chosen, not measured: the figures say what can be told from so many recalls, not how lessons are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from reme_mcp.refine.holdout import Evidence, Trial, draw_withheld, evidence
from reme_mcp.schema import Summary, now
from tests.benchmarks import report

KINDS = 5
OF_EACH_KIND: Mapping[float, int] = {0.15: 1, -0.15: 1, 0.0: 2}
DUE = 3
FALSE_ALARMS = 0.05


@dataclass(frozen=True, slots=True)
class World:
    """What is known of a pool of lessons after some recalls.

    Attributes:
        effects: The true lift of each lesson, by id.
        shares: The share of successes with each.
        told: What is known of the lift of each.
    """

    effects: Mapping[str, float]
    shares: Mapping[str, float]
    told: Mapping[str, Evidence]


def simulate(recalls: int, share: float, seed: int) -> World:
    """Return what is known after so many recalls, from a `share` of which the hold-out withheld a note."""
    chance = random.Random(seed)
    kinds = [
        (0.3 + 0.4 * kind / (KINDS - 1), [(f"e-{kind}-{n}", effect) for n, effect in enumerate(_effects())])
        for kind in range(KINDS)
    ]
    effects = {id: effect for _, lessons in kinds for id, effect in lessons}
    utility, frequency = dict.fromkeys(effects, 0), dict.fromkeys(effects, 0)
    trials: list[Trial] = []
    solved = 0
    for _ in range(recalls):
        base, lessons = chance.choice(kinds)
        due = chance.sample(lessons, DUE)
        draws = draw_withheld(len(due), share, chance.random)
        shown = [one for one, draw in zip(due, draws, strict=True) if draw.arm != "withheld"]
        succeeded = chance.random() < base + sum(effect for _, effect in shown)
        solved += succeeded
        for id, _ in shown:
            frequency[id] += 1
            utility[id] += succeeded
        trials += [Trial(id, draw, succeeded) for (id, _), draw in zip(due, draws, strict=True) if draw.arm]
    at = now()
    lessons_ = [Summary(id, "success", "active", "", frequency[id], utility[id], False, at, at) for id in effects]
    shares = {id: (utility[id] + 1) / (frequency[id] + 2) for id in effects}
    return World(effects, shares, evidence(lessons_, trials, succeeded=solved, attempts=recalls))


def _effects() -> list[float]:
    return [effect for effect, many in OF_EACH_KIND.items() for _ in range(many)]


def found(signs: Sequence[tuple[float, bool]]) -> float:
    """Return which share of those looked for have the largest signs, where 5 % of the others are taken for one.

    Args:
        signs: Of each lesson, with whether it is one of those looked for.
    """
    others = sorted((sign for sign, is_one in signs if not is_one), reverse=True)
    wanted = [sign for sign, is_one in signs if is_one]
    limit = others[int(FALSE_ALARMS * len(others))]
    return sum(sign > limit for sign in wanted) / len(wanted)


def measure(recalls: int, share: float, worlds: int) -> dict[str, float]:
    """Return the figures of one size and share, over some worlds."""
    seen = [simulate(recalls, share, seed) for seed in range(worlds)]

    def certainty(one: Evidence) -> float:
        return one.lift.mean / one.lift.spread

    # Over all worlds, so that 5 % of the others are enough to be counted.
    def recall(sign: int) -> tuple[float, float]:
        by_lift = [(sign * certainty(w.told[id]), sign * effect > 0) for w in seen for id, effect in w.effects.items()]
        by_share = [(sign * w.shares[id], sign * effect > 0) for w in seen for id, effect in w.effects.items()]
        return found(by_lift), found(by_share)

    harmers, harmers_by_share = recall(-1)
    helpers, helpers_by_share = recall(1)
    figures = {
        "harmers": harmers,
        "helpers": helpers,
        "harmers by u/f": harmers_by_share,
        "helpers by u/f": helpers_by_share,
    }
    told = [(w.told[id], effect) for w in seen for id, effect in w.effects.items() if w.told[id].is_caused]
    figures["told of"] = len(told) / sum(len(w.effects) for w in seen)
    if told:
        figures["off by"] = fmean(one.lift.mean - true for one, true in told)
        figures["holds"] = fmean(one.lift.interval()[0] <= true <= one.lift.interval()[1] for one, true in told)
        harms = [one.lift.mean - true for one, true in told if true < 0]
        figures["off by, harmers"] = fmean(harms) if harms else 0.0
    return figures


def main() -> None:
    """Print the table, write the figures."""
    parser = report.parser(__doc__)
    parser.add_argument("--recalls", type=int, nargs="+", default=[200, 1_000, 5_000])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.3, 0.5], help="more than 0, at most 0.5")
    parser.add_argument("--worlds", type=int, default=40, help="for each size and share")
    given = parser.parse_args()
    rows, figures = [], []
    for recalls in given.recalls:
        plain = measure(recalls, 0.0, given.worlds)
        rows.append(_row(recalls, "u / f", {"harmers": plain["harmers by u/f"], "helpers": plain["helpers by u/f"]}))
        rows.append(_row(recalls, "base rate", {"harmers": plain["harmers"], "helpers": plain["helpers"]}))
        figures.append({"recalls": recalls, "share": 0.0} | plain)
        for share in given.shares:
            caused = measure(recalls, share, given.worlds)
            rows.append(_row(recalls, f"hold-out {share:g}", caused))
            figures.append({"recalls": recalls, "share": share} | caused)
    columns = ("recalls", "by", "harmers %", "helpers %", "told of %", "off by", "off by, harmers", "holds %")
    report.show("planted lessons, found at 5 % false alarms", columns, rows)
    report.write(given.json, {"figures": figures})


def _row(recalls: int, by: str, of: Mapping[str, float]) -> tuple[str, ...]:
    def share(name: str) -> str:
        return f"{100 * of[name]:.0f}" if name in of else ""

    def points(name: str) -> str:
        return f"{100 * of[name]:+.1f}" if name in of else ""

    return (
        str(recalls),
        by,
        share("harmers"),
        share("helpers"),
        share("told of"),
        points("off by"),
        points("off by, harmers"),
        share("holds"),
    )


if __name__ == "__main__":
    main()
