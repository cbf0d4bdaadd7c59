"""What the model behind the server costs, and how many tokens a day may take.

In:  what each question cost.
Out: that as a value to store, and an `EndpointError` once the day's tokens are used up.
Does not know: prices, or where costs are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from reme_mcp.errors import EndpointError
from reme_mcp.schema import Purpose, Spent, now


@dataclass(frozen=True, slots=True)
class Cost:
    """What all questions of one purpose have cost.

    Attributes:
        questions: How many were asked.
        failed: How many of them got no answer that could be used.
        tokens_in: Read by models.
        tokens_out: Written by them.
        seconds: That the requests took.
    """

    questions: int
    failed: int
    tokens_in: int
    tokens_out: int
    seconds: float


def total(spent: Iterable[Spent]) -> dict[str, Cost]:
    """Return what was spent by purpose."""
    by_purpose: dict[str, list[Spent]] = {}
    for one in spent:
        by_purpose.setdefault(one.purpose, []).append(one)
    return {
        purpose: Cost(
            questions=len(every),
            failed=sum(not one.ok for one in every),
            tokens_in=sum(one.tokens_in for one in every),
            tokens_out=sum(one.tokens_out for one in every),
            seconds=round(sum(one.seconds for one in every), 1),
        )
        for purpose, every in sorted(by_purpose.items())
    }


@dataclass(slots=True)
class Bill:
    """What one question has cost so far."""

    attempts: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    estimated: bool = False
    seconds: float = 0.0

    def total(self, purpose: Purpose, model: str, *, ok: bool) -> Spent:
        """Return the whole cost of the question, which has just ended."""
        return Spent(
            purpose=purpose,
            model=model,
            at=now(),
            attempts=self.attempts,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            estimated=self.estimated,
            seconds=self.seconds,
            ok=ok,
        )


class Allowance:
    """The tokens that questions may take in a day (UTC)."""

    def __init__(self, tokens_per_day: int, clock: Callable[[], datetime] = now) -> None:
        """Begin with a whole day's tokens; `count` what was spent of them before.

        Args:
            tokens_per_day: 0 for no limit.
            clock: Says what time it is, with a time zone.
        """
        self._tokens_per_day = tokens_per_day
        self._clock = clock
        self._day = clock().astimezone(UTC).date()
        self._spent = 0

    def count(self, tokens: int, at: datetime) -> None:
        """Take tokens, read or written, that were spent at a time; those of another day than today don't matter."""
        today = self._clock().astimezone(UTC).date()
        if today != self._day:
            self._day, self._spent = today, 0
        if at.astimezone(UTC).date() == today:
            self._spent += tokens

    def recount(self, spent: Iterable[Spent]) -> None:
        """Take in what all processes have spent: what they have stored, and what this one has not stored yet."""
        today = self._clock().astimezone(UTC).date()
        self.count(0, self._clock())
        total = sum(one.tokens_in + one.tokens_out for one in spent if one.at.astimezone(UTC).date() == today)
        # What questions have cost that this one is still asking is not in there.
        self._spent = max(self._spent, total)

    def check(self) -> None:
        """Do nothing while there are tokens left.

        Raises:
            EndpointError: The day's tokens are used up.
        """
        at = self._clock().astimezone(UTC)
        self.count(0, at)
        if not self._tokens_per_day or self._spent < self._tokens_per_day:
            return
        anew = datetime.combine(at.date() + timedelta(days=1), time(), UTC)
        raise EndpointError(
            f"the day's budget is used up: {self._spent} of [llm] tokens_per_day = {self._tokens_per_day}; "
            f"it starts anew at {anew:%Y-%m-%d %H:%M} UTC",
            retry_after_s=(anew - at).total_seconds(),
        )
