"""How much better tasks go with a lesson than without it.

In:  how many tasks succeeded and failed with the lesson, and how many alike ones without it.
Out: `Lift`: the mean of the difference between the two chances of success, and how sure it is. Pure functions.
Does not know: which tasks are alike, or what is done about a lesson.

Source: Beta posteriors of two binomials, and the variance of their difference (Gelman et al., Bayesian Data Analysis,
§2.4). The chance without the lesson starts at one half, or where the caller says, and weighs two outcomes; that with it
starts where the other one is, so that an untested lesson lifts nothing, and weighs as much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

# How many outcomes the prior of each chance weighs.
PRIOR_OUTCOMES = 2
# Of the normal distribution, 95 % lie within as many standard deviations.
Z_95 = 1.96


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How some tasks ended.

    Raises:
        ValueError: One of them is negative.
    """

    succeeded: float
    failed: float

    def __post_init__(self) -> None:
        if self.succeeded < 0 or self.failed < 0:
            raise ValueError(f"{self.succeeded} succeeded and {self.failed} failed: neither can be negative")

    @property
    def total(self) -> float:
        """How many there were."""
        return self.succeeded + self.failed


@dataclass(frozen=True, slots=True)
class Chance:
    """What is known of a chance of success: mean and standard deviation of its Beta posterior."""

    mean: float
    spread: float

    @classmethod
    def of(cls, outcomes: Outcomes, *, prior: float = 0.5) -> Self:
        """Return the posterior of a chance.

        Args:
            outcomes: What was seen.
            prior: Where it starts, more than 0 and less than 1.
        """
        weight = PRIOR_OUTCOMES + outcomes.total
        mean = (PRIOR_OUTCOMES * prior + outcomes.succeeded) / weight
        return cls(mean, math.sqrt(mean * (1 - mean) / (weight + 1)))


@dataclass(frozen=True, slots=True)
class Lift:
    """By how much a lesson raises the chance of success, -1 to 1; below 0 it lowers it.

    Attributes:
        mean: The best guess.
        spread: Its standard deviation.
    """

    mean: float
    spread: float

    def interval(self, z: float = Z_95) -> tuple[float, float]:
        """Return between which values it lies.

        Args:
            z: How many standard deviations to each side; the default holds 95 %.
        """
        return max(-1.0, self.mean - z * self.spread), min(1.0, self.mean + z * self.spread)


def lift(with_it: Outcomes, without: Outcomes, *, expected: float = 0.5) -> Lift:
    """Return by how much a lesson raises the chance of success.

    Args:
        with_it: Tasks that had the lesson.
        without: Alike tasks that did not have it.
        expected: Where the chance without it starts, more than 0 and less than 1.
    """
    base = Chance.of(without, prior=expected)
    own = Chance.of(with_it, prior=base.mean)
    return Lift(own.mean - base.mean, math.hypot(own.spread, base.spread))
