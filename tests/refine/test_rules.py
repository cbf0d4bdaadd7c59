"""What a known outcome does to receipts and counters, and when φ removes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.refine.rules import (
    archive,
    base_rate,
    count,
    is_objected_to,
    prune_reason,
    restore,
    settle_by_outcome,
    settle_by_rating,
    should_prune,
    should_prune_by_raters,
    track_record,
    with_prior,
)
from reme_mcp.schema import Outcome, Rater, ReceiptLine, Tally, Verdicts
from reme_mcp.sources import HOLDER_CHARS, may_speak_for, rater_of, source_of
from tests.fakes import LEARNED, experience, line

LATER = LEARNED + timedelta(days=1)


@pytest.mark.parametrize(
    ("frequency", "utility", "removed"),
    [
        (4, 0, False),  # below α, however useless
        (5, 0, True),  # at α
        (6, 0, True),  # above α
        (5, 2, True),  # at α, below β
        (5, 3, False),  # at α, above β
        (6, 2, True),  # above α, below β
        (6, 3, True),  # above α, at β: equality removes
        (6, 4, False),  # above α, above β
        (4, 2, False),  # below α, at β
        (1000, 500, True),
        (1001, 501, False),
        (0, 0, False),
    ],
)
def test_what_was_recalled_often_and_helped_in_at_most_half_is_removed(
    frequency: int, utility: int, removed: bool
) -> None:
    assert should_prune(frequency, utility, min_frequency=5, max_utility_ratio=0.5) is removed


@pytest.mark.parametrize(("ratio", "utility", "removed"), [(0.0, 0, True), (0.0, 1, False), (1.0, 10, True)])
def test_the_ends_of_beta_remove_the_never_helpful_and_everything(ratio: float, utility: int, removed: bool) -> None:
    assert should_prune(10, utility, min_frequency=1, max_utility_ratio=ratio) is removed


@given(alpha=st.integers(1, 1000), beta=st.floats(0, 1), frequency=st.integers(0, 999), utility_share=st.floats(0, 1))
def test_fewer_known_outcomes_than_alpha_never_remove(
    alpha: int, beta: float, frequency: int, utility_share: float
) -> None:
    frequency = min(frequency, alpha - 1)
    assert not should_prune(frequency, int(frequency * utility_share), min_frequency=alpha, max_utility_ratio=beta)


@given(beta=st.floats(0, 1), frequency=st.integers(1, 1000), utility=st.integers(0, 1000))
def test_one_more_success_never_turns_keeping_into_removing(beta: float, frequency: int, utility: int) -> None:
    utility = min(utility, frequency - 1)
    if not should_prune(frequency, utility, min_frequency=1, max_utility_ratio=beta):
        assert not should_prune(frequency, utility + 1, min_frequency=1, max_utility_ratio=beta)


@pytest.mark.parametrize("helped", [True, False])
def test_an_outcome_settles_the_lines_that_are_open(helped: bool) -> None:
    [settled] = settle_by_outcome([line()], "success" if helped else "failure", Verdicts(), at=LATER)
    assert settled == line(helped=helped, settled_by="trajectory", settled_at=LATER)


def test_an_outcome_leaves_lines_alone_that_are_settled_already() -> None:
    by_trajectory = line(helped=True, settled_by="trajectory", settled_at=LEARNED)
    by_rating = line(helped=False, settled_by="rating", settled_at=LEARNED, reason="wrong folder")
    open_line = line(experience_id="e-open")
    settled = settle_by_outcome([by_trajectory, open_line, by_rating], "failure", Verdicts(), at=LATER)
    assert [one.experience_id for one in settled] == ["e-open"]


def test_an_outcome_settles_nothing_on_an_empty_receipt() -> None:
    assert settle_by_outcome([line(experience_id="", rank=0)], "success", Verdicts(), at=LATER) == []


def verdicts_settle(lines: list[ReceiptLine], outcome: Outcome, **said: set[str]) -> dict[str, tuple[bool | None, str]]:
    """Return what became of each line, by its experience."""
    verdicts = Verdicts(**{name: frozenset(ids) for name, ids in said.items()})
    settled = {one.experience_id: one for one in settle_by_outcome(lines, outcome, verdicts, at=LATER)}
    after = [settled.get(one.experience_id, one) for one in lines]
    assert settle_by_outcome(after, outcome, verdicts, at=LATER) == []
    return {one.experience_id: (one.helped, one.settled_by) for one in after}


@pytest.mark.parametrize(("outcome", "helped"), [("success", True), ("failure", False)])
def test_a_used_note_has_the_outcome_and_the_others_stay_open(outcome: Outcome, helped: bool) -> None:
    lines = [line(experience_id="e-used"), line(experience_id="e-other")]
    settled = verdicts_settle(lines, outcome, used={"e-used"})
    assert settled == {"e-used": (helped, "used"), "e-other": (None, "")}


def test_a_note_that_misled_did_not_help_even_at_a_success_and_the_others_have_the_outcome() -> None:
    lines = [line(experience_id="e-bad"), line(experience_id="e-other")]
    settled = verdicts_settle(lines, "success", misled={"e-bad"})
    assert settled == {"e-bad": (False, "misled"), "e-other": (True, "trajectory")}


def test_that_none_was_used_settles_nothing() -> None:
    assert verdicts_settle([line(experience_id="e-other")], "failure", used=set()) == {"e-other": (None, "")}


def test_a_verdict_that_comes_later_takes_back_what_the_outcome_said_of_bystanders() -> None:
    lines = [
        line(experience_id="e-used", helped=True, settled_by="trajectory", settled_at=LEARNED),
        line(experience_id="e-other", helped=True, settled_by="trajectory", settled_at=LEARNED),
    ]
    settled = verdicts_settle(lines, "success", used={"e-used"})
    assert settled == {"e-used": (True, "used"), "e-other": (None, "")}


def test_a_rating_stays_whatever_the_verdict_says() -> None:
    rated = line(experience_id="e-rated", helped=False, settled_by="rating", settled_at=LEARNED)
    assert verdicts_settle([rated], "success", used={"e-rated"}) == {"e-rated": (False, "rating")}


def test_verdicts_are_kept_as_text() -> None:
    for verdicts in (Verdicts(), Verdicts(frozenset()), Verdicts(frozenset({"e-1"}), frozenset({"e-2"}))):
        assert Verdicts.from_json(verdicts.to_json()) == verdicts


@pytest.mark.parametrize("before", ["", "trajectory", "used", "misled", "rating"])
def test_a_rating_replaces_whatever_was_there(before: str) -> None:
    rated = settle_by_rating(line(helped=True, settled_by=before, reason="a"), helped=False, reason="b", at=LATER)
    assert rated == line(helped=False, settled_by="rating", settled_at=LATER, reason="b")


def test_counting_adds_the_receipts_to_what_was_there_before_them() -> None:
    one = experience(frequency=10, utility=4, prior_frequency=10, prior_utility=4)
    counted = count(one, Tally(recalled=9, frequency=3, utility=2), at=LATER)
    assert (counted.frequency, counted.utility, counted.updated_at) == (13, 6, LATER)
    assert (counted.prior_frequency, counted.prior_utility) == (10, 4)


def test_counting_without_news_changes_nothing() -> None:
    one = experience(frequency=3, utility=2)
    assert count(one, Tally(recalled=9, frequency=3, utility=2), at=LATER) is one


def test_archiving_keeps_everything_but_the_status() -> None:
    one = experience(frequency=6, utility=3)
    assert archive(one, "why", at=LATER) == experience(
        frequency=6, utility=3, status="archived", status_reason="why", updated_at=LATER
    )


def test_restoring_counts_anew() -> None:
    gone = experience(
        frequency=9, utility=3, prior_frequency=4, prior_utility=1, status="archived", status_reason="why", pinned=True
    )
    assert restore(gone, at=LATER) == experience(counted_since=LATER, updated_at=LATER, pinned=True)


def test_what_was_just_restored_is_not_removed_by_its_next_miss() -> None:
    gone = experience(frequency=9, utility=0, status="archived")
    back = count(restore(gone, at=LATER), Tally(recalled=1, frequency=1, utility=0), at=LATER)
    assert not should_prune(back.frequency, back.utility, min_frequency=5, max_utility_ratio=0.5)


def test_the_reason_names_both_counters() -> None:
    assert prune_reason(3, 6, [Rater("", 6, 3)]) == "succeeded with it 3 of 6"
    gather = prune_reason(3, 6, [Rater("", 5, 3), Rater("bob", 1, 0)])
    assert gather == "succeeded with it 3 of 6; 2 users were heard"


# --- several sources ---


def outvoted(*voices: tuple[int, int], alpha: int = 5, beta: float = 0.5, cap: int = 2) -> bool:
    """Return what φ says of sources that know (frequency, utility) each."""
    heard = [Rater(str(place), frequency, utility) for place, (frequency, utility) in enumerate(voices)]
    return should_prune_by_raters(heard, min_frequency=alpha, max_utility_ratio=beta, outcomes_per_source=cap)


@pytest.mark.parametrize(("frequency", "utility"), [(4, 0), (5, 0), (5, 2), (5, 3), (10, 5), (10, 6), (400, 200)])
def test_one_source_alone_decides_as_equation_1_does(frequency: int, utility: int) -> None:
    expected = should_prune(frequency, utility, min_frequency=5, max_utility_ratio=0.5)
    assert outvoted((frequency, utility)) is expected
    assert outvoted() is False


@pytest.mark.parametrize("attacker", [5, 50, 5_000])
@pytest.mark.parametrize("others", [((2, 2),), ((10, 10),), ((2, 2), (2, 1)), ((1, 1), (1, 1))])
def test_nobody_alone_has_removed_what_others_find_useful(attacker: int, others: tuple[tuple[int, int], ...]) -> None:
    assert not outvoted((attacker, 0), *others)
    assert outvoted((attacker, 0), *others, cap=0) is (sum(n for _, n in others) <= attacker)


@pytest.mark.parametrize("attacker", [5, 50, 5_000])
def test_nobody_alone_keeps_what_two_others_find_useless(attacker: int) -> None:
    assert outvoted((attacker, attacker), (2, 0), (2, 0))
    assert not outvoted((attacker, attacker), (2, 0), (2, 0), cap=0)


def test_one_weighs_no_more_than_all_others_together() -> None:
    assert not outvoted((20, 0), (1, 1))
    assert not outvoted((20, 20), (1, 0))
    assert not outvoted((20, 0), (2, 2))
    assert outvoted((20, 0), (3, 2))
    assert outvoted((20, 0), (1, 1), (1, 0))


@pytest.mark.parametrize(("voices", "removed"), [([(2, 0), (2, 0)], False), ([(3, 0), (2, 0)], True)])
def test_the_outcomes_of_all_sources_reach_alpha(voices: list[tuple[int, int]], removed: bool) -> None:
    assert outvoted(*voices) is removed


@pytest.mark.parametrize(("helped", "removed"), [(1, True), (2, False), (3, False)])
def test_equality_keeps_where_several_know(helped: int, removed: bool) -> None:
    # 2 of 2 weigh two, and so do the others together: 0.25 + helped / 4 against 0.5.
    assert outvoted((4, helped), (2, 1)) is removed


def test_the_counters_that_came_from_a_file_are_those_of_this_machine() -> None:
    bob, here = Rater("bob", 2, 2), Rater("", 3, 1)
    assert with_prior([bob], 40, 4) == (bob, Rater("", 40, 4))
    assert with_prior([here, bob], 40, 4) == (Rater("", 43, 5), bob)
    assert with_prior((bob,), 0, 0) == (bob,)


@pytest.mark.parametrize(
    ("source", "who"),
    [
        ("alice/cursor", "alice"), ("alice/a/b", "alice"), ("cursor", ""), ("cli", ""), ("", ""),
        ("mcp:@scope/client", ""), ("file:folder/pool.jsonl", ""),
    ],
)  # fmt: skip
def test_only_holders_of_tokens_are_told_apart(source: str, who: str) -> None:
    assert rater_of(source) == who


@pytest.mark.parametrize(
    ("source", "other", "may"),
    [("alice/x", "alice/y", True), ("alice/x", "bob/x", False), ("alice/x", "cli", False), ("cli", "bob/x", True)],
)
def test_a_holder_goes_on_with_its_own_only(source: str, other: str, may: bool) -> None:
    assert may_speak_for(source, other) is may


@pytest.mark.parametrize("name", ["evil/1", "alice/x", "@scope/x", "cli", "file:x/y", "mcp:a/x", "/", "a" * 90])
def test_a_client_without_a_token_is_this_machine_whatever_it_calls_itself(name: str) -> None:
    source = source_of(name, "")
    assert rater_of(source) == ""
    assert may_speak_for(source, source_of("another", ""))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://idp.example/u/7", "https://idp.example/u/8"),
        ("spiffe://corp/a", "spiffe://corp/b"),
        ("a/b", "a%2Fb"),
        ("mcp:a", "mcp:b"),
        *[("m" * n, "m" * (n - 1) + "n") for n in (HOLDER_CHARS - 1, HOLDER_CHARS, HOLDER_CHARS + 1, 300)],
    ],
)
def test_two_holders_are_two_voices_however_an_identity_provider_calls_them(one: str, other: str) -> None:
    sources = [source_of("claude", holder) for holder in (one, other)]
    assert "" not in map(rater_of, sources)
    assert not may_speak_for(*sources)
    assert may_speak_for(sources[0], source_of("cursor", one))


@pytest.mark.parametrize("base", [0.3, 0.5, 0.7, 0.9])
def test_a_track_record_is_neutral_untested_and_sinks_with_failures(base: float) -> None:
    def record(frequency: int, utility: int, rated_unhelpful: int = 0) -> float:
        one = experience(frequency=frequency, utility=utility, rated_unhelpful=rated_unhelpful)
        return track_record(one, base)

    assert record(0, 0) == 0
    assert record(3, 0) == pytest.approx(-0.6)
    assert -1 < record(20, 0) < record(3, 0) < record(1, 0) < 0 <= record(1, 1) <= record(200, 200) < 1
    assert record(200, 200) > 0
    # A rating weighs more than an outcome.
    assert record(1, 0, rated_unhelpful=1) < record(1, 0)


def test_an_objection_stands_until_as_many_say_that_it_helped() -> None:
    assert is_objected_to(experience(rated_unhelpful=1))
    assert not is_objected_to(experience(rated_unhelpful=1, rated_helpful=1))


@pytest.mark.parametrize(("succeeded", "attempts", "rate"), [(0, 0, 0.5), (8, 8, 0.9), (0, 8, 0.1)])
def test_the_base_rate_is_never_sure(succeeded: int, attempts: int, rate: float) -> None:
    assert base_rate(succeeded, attempts) == rate
