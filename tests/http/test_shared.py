"""What the processes of one server count together, of each holder."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from reme_mcp.http import shared
from reme_mcp.http.shared import Limits, Shared, Turns


@dataclass
class Clock:
    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


def limits(
    common: Shared, worker: int = 0, *, clock: Clock | None = None, a_minute: int = 0, at_once: int = 9
) -> Limits:
    return Limits(common, worker, requests_per_minute=a_minute, max_open_requests=at_once, clock=clock or Clock())


def test_a_minute_brings_back_what_a_holder_has_used_and_no_more() -> None:
    clock = Clock()
    door = limits(Shared(), clock=clock, a_minute=3)
    assert [door.take("a") for _ in range(3)] == [0, 0, 0]
    assert door.take("a") == pytest.approx(20)
    assert door.take("b") == 0
    for seconds, is_let_in in ((19.9, False), (0.2, True), (0.0, False)):
        clock.at += seconds
        assert (door.take("a") == 0) is is_let_in
    # Those that were refused have not cost anything.
    clock.at += 600
    assert [door.take("a") == 0 for _ in range(4)] == [True, True, True, False]


def test_a_limit_of_none_limits_nobody() -> None:
    door = limits(Shared(), a_minute=0)
    assert all(door.take("a") == 0 for _ in range(10_000))


def test_two_processes_count_the_same() -> None:
    common, clock = Shared.among(2), Clock()
    first, second = (limits(common, worker, clock=clock, a_minute=3, at_once=2) for worker in range(2))
    assert [first.take("a"), second.take("a"), first.take("a")] == [0, 0, 0]
    assert (first.take("a") > 0, second.take("a") > 0) == (True, True)
    one, other = first.open("a"), second.open("a")
    assert one is not None
    assert other is not None
    assert (first.open("a"), second.open("a")) == (None, None)
    assert first.open("b") is not None
    second.close(other)
    assert first.open("a") is not None
    assert second.open("a") is None


def test_what_a_process_had_open_ends_with_it_and_only_that() -> None:
    common = Shared.among(2)
    first, second = (limits(common, worker, at_once=2) for worker in range(2))
    assert first.open("a") is not None
    assert second.open("a") is not None
    assert first.open("a") is None
    common.clear(1)
    assert first.open("a") is not None
    assert first.open("a") is None


def test_a_holder_who_comes_no_more_leaves_its_place_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "PLACES", 2)
    monkeypatch.setattr(shared, "NEAR", 2)
    clock = Clock()
    door = limits(Shared(), clock=clock, a_minute=2)
    assert [door.take("a"), door.take("a"), door.take("b")] == [0, 0, 0]
    clock.at += 31
    # What b had left is full again; a has had one back of two.
    assert door.take("c") == 0
    assert [door.take("a") == 0, door.take("a") == 0] == [True, False]


def test_the_process_with_the_fewest_connections_takes_the_next_and_one_that_is_gone_takes_none() -> None:
    common = Shared.among(3)
    first, second, third = turns = [Turns(common, worker) for worker in range(3)]
    first.tell(5)
    # The others are not there yet.
    assert [turn.is_mine() for turn in turns] == [True, False, False]
    second.tell(0)
    assert (first.is_mine(), second.is_mine()) == (False, True)
    third.tell(4)
    second.tell(4)
    assert [turn.is_mine() for turn in turns] == [True, True, True]
    first.tell(6)
    assert [turn.is_mine() for turn in turns] == [False, True, True]
    common.clear(1)
    common.clear(2)
    assert first.is_mine()


def test_the_key_of_the_apps_is_not_shown() -> None:
    shared = Shared()
    assert shared.app_key not in repr(shared)
