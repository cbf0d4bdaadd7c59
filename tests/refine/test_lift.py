"""By how much a lesson raises the chance of success, and how sure that is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.refine.lift import Outcomes, lift

counts = st.integers(0, 500)


def test_the_lift_is_recomputable_by_hand() -> None:
    # Without: (1 + 4) / (2 + 8) = .5; with: (2 × .5 + 5) / (2 + 6) = .75.
    found = lift(Outcomes(5, 1), Outcomes(4, 4))

    assert found.mean == pytest.approx(0.25)
    assert found.spread == pytest.approx((0.75 * 0.25 / 9 + 0.5 * 0.5 / 11) ** 0.5)
    assert found.interval(1) == pytest.approx((0.25 - found.spread, 0.25 + found.spread))


@given(counts, counts)
def test_an_untested_lesson_lifts_nothing(succeeded: int, failed: int) -> None:
    found = lift(Outcomes(0, 0), Outcomes(succeeded, failed))

    low, high = found.interval()
    assert found.mean == pytest.approx(0)
    assert low < 0 < high


@given(counts, counts, counts, counts)
def test_one_more_success_raises_it_and_one_more_failure_lowers_it(s: int, f: int, alike_s: int, alike_f: int) -> None:
    without = Outcomes(alike_s, alike_f)
    now = lift(Outcomes(s, f), without).mean

    assert lift(Outcomes(s + 1, f), without).mean > now > lift(Outcomes(s, f + 1), without).mean


@given(counts, counts, counts, counts)
def test_its_interval_stays_within_what_a_difference_can_be(s: int, f: int, alike_s: int, alike_f: int) -> None:
    found = lift(Outcomes(s, f), Outcomes(alike_s, alike_f))

    low, high = found.interval(10)
    assert -1 <= low <= found.mean <= high <= 1


def test_the_same_share_of_more_outcomes_is_surer() -> None:
    few, many = lift(Outcomes(3, 1), Outcomes(2, 2)), lift(Outcomes(30, 10), Outcomes(20, 20))

    assert many.spread < few.spread
    assert few.interval()[0] < 0 < many.interval()[0]


def test_95_percent_of_the_intervals_hold_the_true_lift() -> None:
    chance = random.Random(1)

    def seen(share: float, total: int) -> Outcomes:
        succeeded = sum(chance.random() < share for _ in range(total))
        return Outcomes(succeeded, total - succeeded)

    def holds(true: float) -> bool:
        low, high = lift(seen(0.5 + true, 40), seen(0.5, 60)).interval()
        return low <= true <= high

    assert sum(holds(0.2) for _ in range(1_000)) >= 930


@pytest.mark.parametrize(("succeeded", "failed"), [(-1, 0), (0, -1)])
def test_a_negative_number_of_outcomes_is_refused(succeeded: int, failed: int) -> None:
    with pytest.raises(ValueError, match="neither can be negative"):
        Outcomes(succeeded, failed)
