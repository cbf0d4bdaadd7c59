"""What recalls handed out and how it went: what all counters are summed from.

In:  the ledger of a store.
Out: lines of receipts, and the sums over them. `store.Writer` writes it.
Does not know: what a sum decides (`refine.py` does).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from reme_mcp.schema import EXPLICIT, Ended, Experience, Handout, Rater, ReceiptLine, SettledBy, Summary, Tally
from reme_mcp.sources import rater_of
from reme_mcp.store.ledger import Condition, Filled, Is, Ledger, Since
from reme_mcp.store.summaries import Summaries

if TYPE_CHECKING:
    from reme_mcp.store.summaries import Flags

HANDED_OUT: tuple[Condition, ...] = (Is("arm", ["", "shown"]),)
MICROSECONDS = 10**6


class Receipts:
    """The receipts of one store."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        # Whether others have succeeded with an experience, by id, with the counters for which that is so.
        self._credited: dict[str, tuple[tuple[int, int, datetime], bool]] = {}

    async def lines(self, workspace: str, receipt: str) -> list[ReceiptLine]:
        """Return the lines of one receipt of `workspace` in rank order; none where there is no such receipt."""
        if not receipt:
            return []
        found = await self._ledger.read(ReceiptLine, [Is("workspace", [workspace]), Is("receipt", [receipt])])
        return sorted(found, key=lambda line: line.rank)

    async def latest_line(self, workspace: str, experience_id: str, source: str) -> ReceiptLine | None:
        """Return the newest line that handed `experience_id` to `source`, or `None`."""
        where = [
            Is("workspace", [workspace]),
            Is("experience_id", [experience_id]),
            Is("source", [source]),
            *HANDED_OUT,
        ]
        newest = await self._ledger.read(ReceiptLine, where, newest_by="created_at", limit=1)
        return next(iter(newest), None)

    async def of_experience(
        self, workspace: str, experience_id: str, *, offset: int = 0, limit: int | None = None
    ) -> list[ReceiptLine]:
        """Return the recalls that handed out an experience, newest first; all of them where `limit` is `None`."""
        where = [Is("workspace", [workspace]), Is("experience_id", [experience_id])]
        return await self._ledger.read(ReceiptLine, where, newest_by="created_at", offset=offset, limit=limit)

    async def task(self, workspace: str, receipt: str) -> str:
        """Return what a receipt was asked for; empty where that was erased."""
        return next((line.task for line in await self.lines(workspace, receipt)), "")

    async def latest(self, workspace: str, *, limit: int) -> list[ReceiptLine]:
        """Return the newest lines of `workspace`."""
        return await self._ledger.read(ReceiptLine, [Is("workspace", [workspace])], newest_by="created_at", limit=limit)

    async def ended(
        self, workspace: str, *, since: datetime, every: timedelta
    ) -> Counter[tuple[int, bool | None, SettledBy]]:
        """Return how many experiences the recalls of `workspace` handed out, by period, how it ended, and who said so.

        Args:
            workspace: Whose recalls.
            since: When the first period, number 0, begins.
            every: How long a period is.
        """
        where = [Is("workspace", [workspace]), *HANDED_OUT, Filled("experience_id"), Since("created_at", since)]
        at, helped, by = await self._ledger.columns(ReceiptLine, ("created_at", "helped", "settled_by"), where)
        first, period = round(since.timestamp() * MICROSECONDS), every // timedelta(microseconds=1)
        return Counter(zip([(moment - first) // period for moment in at], helped, by, strict=True))

    async def tally(
        self, experiences: Sequence[Experience | Summary], *, settled: Sequence[ReceiptLine] = ()
    ) -> dict[str, Tally]:
        """Return what the receipts since each experience's `counted_since` say, by experience id.

        Args:
            experiences: Which of them.
            settled: Lines that are about to be written, and count as if they were.
        """
        if not experiences:
            return {}
        stored = await self._ledger.read(ReceiptLine, [Is("experience_id", [one.id for one in experiences])])
        recalls: dict[str, dict[str, ReceiptLine]] = defaultdict(dict)
        for line in (*(line for line in stored if line.is_handed_out), *settled):
            recalls[line.experience_id][line.receipt] = line
        return {
            one.id: tally_of([line for line in recalls[one.id].values() if line.created_at >= one.counted_since])
            for one in experiences
        }

    async def voices(self, workspace: str, lessons: Summaries, asked: Flags) -> dict[int, list[Rater]]:
        """Return who knows outcomes of lessons, by their rows: what `tally` says of each, for many at once.

        Args:
            workspace: Whose lessons.
            lessons: All of them.
            asked: Which rows.
        """
        import numpy as np

        ids = [lessons.id[row] for row in asked.nonzero()[0]]
        if not ids:
            return {}
        # One by one they take six times as long as all that stand there in a row.
        of_which = Is("experience_id", ids) if 6 * len(ids) < len(lessons) else Is("workspace", [workspace])
        fields = ("experience_id", "source", "created_at", "helped")
        found = await self._ledger.columns(ReceiptLine, fields, [of_which, *HANDED_OUT, Filled("settled_by")])
        rows, sources, at, helped = lessons.places(found[0]), found[1], np.array(found[2], np.int64), np.array(found[3])
        raters = {source: rater_of(source) for source in set(sources)}
        names = sorted(set(raters.values()))
        number = {source: names.index(rater) for source, rater in raters.items()}
        counts = (
            (rows >= 0) & asked[rows] & (at >= lessons.counted_since.astype("datetime64[us]").astype(np.int64)[rows])
        )
        each = (rows * len(names) + np.array([number[source] for source in sources], np.int64))[counts]
        distinct, places = np.unique(each, return_inverse=True)
        known, good = np.bincount(places), np.bincount(places[helped[counts].astype(bool)], minlength=len(distinct))
        voices: dict[int, list[Rater]] = {}
        for one, frequency, utility in zip(distinct.tolist(), known.tolist(), good.tolist(), strict=True):
            row, rater = divmod(one, len(names))
            voices.setdefault(row, []).append(Rater(names[rater], frequency, utility))
        return voices

    async def trials(self, workspace: str) -> list[tuple[Handout, bool]]:
        """Return what the hold-out drew in `workspace`, and whether the attempt succeeded, where that is known."""
        drawn = await self._ledger.read(Handout, [Is("workspace", [workspace]), Is("arm", ["shown", "withheld"])])
        if not drawn:
            return []
        ended = await self._ledger.read(Ended, [Is("workspace", [workspace])], newest_by="created_at")
        # The first attempt is the one that the notes were handed to; it comes last.
        succeeded = {one.receipt: one.outcome == "success" for one in ended if one.receipt}
        return [(one, succeeded[one.receipt]) for one in drawn if one.receipt in succeeded]

    async def credited(self, experiences: Sequence[Experience]) -> set[str]:
        """Return the ids of those with which somebody has succeeded who did not bring them."""
        counters = {one.id: (one.frequency, one.utility, one.counted_since) for one in experiences if one.utility}
        changed = {
            one.id: one
            for one in experiences
            if one.id in counters and self._credited.get(one.id, (None,))[0] != counters[one.id]
        }
        if changed:
            lines = await self._ledger.read(Handout, [Is("experience_id", list(changed))])
            credited = {
                one.id
                for line in lines
                if line.helped
                and line.created_at >= (one := changed[line.experience_id]).counted_since
                and rater_of(line.source) != rater_of(one.source)
            }
            self._credited |= {id: (counters[id], id in credited) for id in changed}
        return {id for id in counters if self._credited[id][1]}

    async def count(self, workspace: str) -> dict[str, int]:
        """Return how many recalls, recalled experiences and settled ones `workspace` has had."""
        lines = await self._ledger.read(ReceiptLine, [Is("workspace", [workspace])])
        handed_out = [line for line in lines if line.is_handed_out]
        return {
            "recalls": len({line.receipt for line in lines}),
            "recalled": len(handed_out),
            "settled": sum(line.helped is not None for line in handed_out),
            "succeeded": sum(line.helped is True for line in handed_out),
        }


def tally_of(lines: Sequence[ReceiptLine]) -> Tally:
    """Return what the recalls of one experience come to; of what one rater said of it, the last word counts."""
    known: dict[str, list[bool]] = defaultdict(list)
    last_words: dict[str, ReceiptLine] = {}
    for line in sorted(lines, key=lambda line: (line.settled_at or line.created_at, line.receipt)):
        if line.helped is None:
            continue
        who = rater_of(line.source)
        known[who].append(line.helped)
        if line.settled_by in EXPLICIT:
            # The latest comes last.
            last_words.pop(who, None)
            last_words[who] = line
    voices = tuple(Rater(who, len(outcomes), sum(outcomes)) for who, outcomes in sorted(known.items()))
    objections = [line.reason for line in last_words.values() if not line.helped]
    return Tally(
        recalled=len(lines),
        frequency=sum(rater.frequency for rater in voices),
        utility=sum(rater.utility for rater in voices),
        last_recalled_at=max((line.created_at for line in lines), default=None),
        voices=voices,
        rated_helpful=sum(line.helped is True for line in last_words.values()),
        rated_unhelpful=len(objections),
        objection=next((reason for reason in reversed(objections) if reason), ""),
    )
