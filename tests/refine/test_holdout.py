"""Which note the hold-out withholds, and what is known of a lift by it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from reme_mcp.refine.holdout import MIN_TRIALS, Draw, Trial, draw_withheld, evidence, should_prune_by_lift, signs
from tests.benchmarks.holdout import simulate
from tests.fakes import experience


def trials(id: str, arm: str, succeeded: int, failed: int, chance: float = 0.25) -> list[Trial]:
    draw = Draw("shown" if arm == "shown" else "withheld", chance)
    return [Trial(id, draw, True)] * succeeded + [Trial(id, draw, False)] * failed


def test_one_note_is_withheld_in_the_share_of_recalls_each_as_often_as_the_others() -> None:
    chance = random.Random(1)
    drawn = [[draw.arm for draw in draw_withheld(4, 0.3, chance.random)] for _ in range(4_000)]

    kept = ["shown"] * 4
    withheld = Counter(arms.index("withheld") for arms in drawn if arms != kept)
    assert all(sorted(arms) == ["", "", "", "withheld"] for arms in drawn if arms != kept)
    assert sum(withheld.values()) == pytest.approx(1_200, abs=100)
    assert [withheld[place] for place in range(4)] == pytest.approx([300] * 4, abs=60)


@pytest.mark.parametrize(("drawn", "arm"), [(0.0, "withheld"), (0.2999, "withheld"), (0.3, "shown"), (0.9999, "shown")])
def test_an_only_note_is_withheld_below_the_share(drawn: float, arm: str) -> None:
    (draw,) = draw_withheld(1, 0.3, lambda: drawn)

    assert draw == Draw("withheld", 0.3) if arm == "withheld" else draw == Draw("shown", 0.7)


@pytest.mark.parametrize(("notes", "share"), [(3, 0.0), (0, 0.5)])
def test_without_a_share_or_notes_nothing_is_drawn(notes: int, share: float) -> None:
    def draw() -> float:
        raise AssertionError("nothing is to be drawn")

    assert draw_withheld(notes, share, draw) == [Draw()] * notes


def test_the_lift_is_caused_from_five_outcomes_of_each_arm_on() -> None:
    lesson = experience("e-a", frequency=10, utility=8)
    shown = trials("e-a", "shown", 8, 2, 0.75)

    def told(withheld: int) -> tuple[object, ...]:
        drawn = [*shown, *trials("e-a", "withheld", 0, withheld)]
        (one,) = evidence([lesson], drawn, succeeded=20, attempts=40).values()
        return one.is_caused, one.known, one.without, one.lift.mean

    # Without enough, it is against the other 30 attempts: (1 + 12) / 32, then (2 × .40625 + 8) / 12.
    assert told(MIN_TRIALS - 1) == (False, 10, 30, pytest.approx((2 * 13 / 32 + 8) / 12 - 13 / 32))
    # With it: (1 + 0) / 7, then (2 / 7 + 8) / 12.
    assert told(MIN_TRIALS) == (True, 10, 5, pytest.approx((2 / 7 + 8) / 12 - 1 / 7))


def test_an_outcome_that_was_drawn_more_rarely_weighs_more() -> None:
    rare = [*trials("e-a", "withheld", 5, 0, 0.1), *trials("e-a", "withheld", 0, 5, 0.5)]
    even = trials("e-a", "withheld", 5, 5)
    shown = trials("e-a", "shown", 10, 10, 0.5)

    def lift(withheld: list[Trial]) -> float:
        return evidence([experience("e-a")], [*shown, *withheld], succeeded=0, attempts=0)["e-a"].lift.mean

    assert lift(even) == pytest.approx(0)
    # The chance without it is 50 of 60, worth 60² / (5 × 10² + 5 × 2²) = 6.9 outcomes.
    worth = 3600 / 520
    base = (1 + worth * 50 / 60) / (2 + worth)
    assert lift(rare) == pytest.approx((2 * base + 10) / 22 - base)


def test_what_is_said_tells_cause_from_company() -> None:
    drawn = [*trials("e-a", "shown", 30, 10, 0.5), *trials("e-a", "withheld", 10, 30)]
    lessons = [
        experience("e-a", frequency=40, utility=30),
        experience("e-b", frequency=2, utility=2),
        experience("e-c"),
    ]
    told = evidence(lessons, drawn, succeeded=40, attempts=80)

    assert told["e-a"].in_words.endswith("caused: 40 tasks with it, 40 from which it was withheld at random")
    assert told["e-a"].in_words.startswith("+46 points (+28 to +65)")
    assert told["e-b"].in_words.endswith("not shown to be caused: 2 tasks with it, 78 other tasks")
    assert told["e-c"].in_words == "no outcome is known"
    assert signs(told) == {"raises": 1, "lowers": 0, "not_sure": 1}


def test_imported_counters_are_no_attempts_of_this_workspace() -> None:
    (one,) = evidence([experience("e-a", frequency=90, utility=60)], [], succeeded=3, attempts=5).values()

    assert (one.known, one.without) == (90, 0)


def test_the_caused_estimate_is_unbiased_and_its_intervals_hold_the_truth_where_company_misleads() -> None:
    # Kinds of tasks differ by 40 points in how many succeed, which is what u / f takes for the worth of their lessons.
    worlds = [simulate(4_000, 0.5, seed) for seed in range(5)]
    told = [(world.told[id], effect) for world in worlds for id, effect in world.effects.items()]

    assert all(one.is_caused for one, _ in told)
    assert sum(one.lift.mean - true for one, true in told) / len(told) == pytest.approx(0, abs=0.015)
    held = [low <= true <= high for one, true in told for low, high in [one.lift.interval()]]
    assert sum(held) / len(held) >= 0.9


@pytest.mark.parametrize(
    ("failed", "min_frequency", "is_removed"),
    [(40, 40, True), (40, 41, False), (20, 1, False), (22, 1, False), (34, 1, True)],
)
def test_a_lift_removes_what_is_credibly_worse_and_known_often_enough(
    failed: int, min_frequency: int, is_removed: bool
) -> None:
    drawn = [*trials("e-a", "shown", 40 - failed, failed, 0.5), *trials("e-a", "withheld", 20, 20)]
    (one,) = evidence([experience("e-a")], drawn, succeeded=0, attempts=0).values()

    assert should_prune_by_lift(one, min_frequency=min_frequency) is is_removed
