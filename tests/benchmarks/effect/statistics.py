"""What a set of paired trials says: rates with intervals, what was gained and harmed, what could be seen at all.

In:  whether each trial was solved, by arm, task and seed.
Out: numbers. Pure functions.

The bootstrap resamples tasks, not trials: trials at one task are not independent. Where all tasks say the same it has
no width; there the share of other tasks counts that n tasks without one leave possible, 1 - 0.025^(1/n) (Clopper and
Pearson 1934).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# At 80 % power and 5 % error, two-sided.
DETECTS_SIGMAS = 2.80
# The variance of a trial around its task's own rate: most tasks are solved always or never. Published runs of 150 tasks
# by 4 trials, which tell 5 points apart, have about this.
TRIAL_VARIANCE = 0.10
DRAWS = 2_000

Trials = Mapping[tuple[str, int], bool]


@dataclass(frozen=True, slots=True)
class Effect:
    """One arm against the arm without memory.

    Attributes:
        rate: Share of trials solved.
        low: Its interval at 95 %.
        high: Its interval at 95 %.
        difference: `rate` less that of the arm without memory, over the trials that both have.
        difference_low: Its interval at 95 %.
        difference_high: Its interval at 95 %.
        gained: Pairs that only this arm solved.
        harmed: Pairs that only the arm without memory solved.
        pairs: Trials that both have.
    """

    rate: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    gained: int
    harmed: int
    pairs: int


def detectable(tasks: int, trials: int) -> float:
    """Return the difference of two rates, in points, that so many paired trials can tell from none."""
    return 100 * DETECTS_SIGMAS * math.sqrt(2 * TRIAL_VARIANCE / (tasks * trials))


def compare(arm: Trials, baseline: Trials, *, seed: int = 0) -> Effect:
    """Return what an arm did, alone and against the baseline, pair by pair."""
    low, high = _interval(_by_task({key: float(value) for key, value in arm.items()}), seed, least=0)
    both = [key for key in arm if key in baseline]
    change = {key: float(arm[key]) - float(baseline[key]) for key in both}
    change_low, change_high = _interval(_by_task(change), seed, least=-1)
    return Effect(
        rate=_mean([float(value) for value in arm.values()]),
        low=low,
        high=high,
        difference=_mean(list(change.values())),
        difference_low=change_low,
        difference_high=change_high,
        gained=sum(value > 0 for value in change.values()),
        harmed=sum(value < 0 for value in change.values()),
        pairs=len(both),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _by_task(values: Mapping[tuple[str, int], float]) -> list[float]:
    tasks: dict[str, list[float]] = {}
    for (task, _), value in values.items():
        tasks.setdefault(task, []).append(value)
    return [_mean(one) for one in tasks.values()]


def _interval(means: Sequence[float], seed: int, *, least: float) -> tuple[float, float]:
    if not means:
        return math.nan, math.nan
    if min(means) == max(means):
        unseen = 1 - 0.025 ** (1 / len(means))
        return max(least, means[0] - unseen), min(1.0, means[0] + unseen)
    drawn = np.random.default_rng(seed).choice(np.asarray(means), size=(DRAWS, len(means))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
