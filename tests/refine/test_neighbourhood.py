"""What a lesson does among alike tasks, and from which of them it is withheld."""

from __future__ import annotations

from datetime import timedelta

import pytest

from reme_mcp.refine.holdout import MIN_TRIALS, PRUNING_Z, Evidence
from reme_mcp.refine.lift import Lift
from reme_mcp.refine.neighbourhood import (
    WITHHOLDING_Z,
    Neighbourhood,
    evidence_among,
    harms_everywhere,
    should_withhold,
)
from reme_mcp.schema import Arm, Noted, SettledBy
from reme_mcp.store.tried import Tried
from tests.fakes import LEARNED

# How far below 0 a mean with a spread of .1 has to be for an upper bound of 0.
ZERO = 0.1 * WITHHOLDING_Z


def tried(
    succeeded: bool, *, settled_by: SettledBy = "trajectory", arm: Arm = "", has_note: bool = True, days: int = 1
) -> Tried:
    at = LEARNED + timedelta(days=days)
    note = Noted("r-1", "e-a", "a task", at, settled_by, arm, 0.5 if arm else 0.0, "")
    return Tried("r-1", "a task", "", at, succeeded, {"e-a": note} if has_note else {})


def among(*alike: Tried) -> Evidence:
    return evidence_among(alike, "e-a", counted_since=LEARNED, base_rate=0.8)


def test_tasks_with_a_lesson_are_compared_with_alike_ones_without_it_by_hand() -> None:
    told = among(*[tried(False)] * 6, *[tried(True, has_note=False)] * 3, tried(False, has_note=False))

    # Without: (2 × .8 + 3) / (2 + 4); with: (2 × that + 0) / (2 + 6).
    base = 4.6 / 6
    assert (told.known, told.without, told.is_caused) == (6, 4, False)
    assert told.lift.mean == pytest.approx(2 * base / 8 - base)


def test_what_was_not_used_says_nothing_and_what_misled_is_a_failure() -> None:
    assert among(tried(True, settled_by="")).known == 0
    assert among(tried(True, settled_by="misled")).lift.mean == among(tried(False)).lift.mean
    # What a rater said of it has effects of its own.
    assert among(tried(False, settled_by="rating")).lift.mean == among(tried(False)).lift.mean


def test_what_had_it_before_it_was_restored_says_nothing() -> None:
    told = among(tried(True, days=-1), tried(True, has_note=False, days=-1))

    assert (told.known, told.without) == (0, 1)


def test_where_the_hold_out_has_drawn_enough_the_lift_is_caused() -> None:
    shown, withheld = tried(False, arm="shown"), tried(True, arm="withheld", settled_by="")

    few = among(*[shown] * MIN_TRIALS, *[withheld] * (MIN_TRIALS - 1))
    enough = among(*[shown] * MIN_TRIALS, *[withheld] * MIN_TRIALS)
    assert (few.is_caused, few.without) == (False, MIN_TRIALS - 1)
    assert (enough.is_caused, enough.known, enough.without) == (True, MIN_TRIALS, MIN_TRIALS)


@pytest.mark.parametrize(
    ("mean", "known", "is_withheld"),
    [
        (-0.1 * WITHHOLDING_Z - 0.001, 5, True),
        (-0.1 * WITHHOLDING_Z + 0.001, 5, False),
        (-0.9, 4, False),
        (0.2, 9, False),
    ],
)
def test_it_is_withheld_from_the_minimum_count_on_where_the_upper_bound_is_below_0(
    mean: float, known: int, is_withheld: bool
) -> None:
    assert should_withhold(Evidence(Lift(mean, 0.1), False, known, 9), min_frequency=5) is is_withheld


def test_a_lesson_is_removed_only_where_every_known_kind_of_tasks_goes_worse() -> None:
    def kind(mean: float) -> Neighbourhood:
        return Neighbourhood("r-a", Evidence(Lift(mean, 0.1), False, 9, 9))

    assert harms_everywhere([kind(-0.5), kind(-0.1 * PRUNING_Z - 0.001)])
    assert not harms_everywhere([kind(-0.5), kind(-0.1 * PRUNING_Z + 0.001)])
    # Where no kind is known, all tasks together decide.
    assert harms_everywhere([])
