"""What recalls handed out and how it went, as the table `receipts` of a store holds it: the ledger of all counters.

In:  the open tables of a store.
Out: lines of receipts, and the sums over them. `store.Writer` writes it.
Does not know: what a sum decides (`refine.py` does).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from reme_mcp.schema import EXPLICIT, Experience, Handout, Rater, ReceiptLine, Tally
from reme_mcp.sources import rater_of
from reme_mcp.store.tables import all_of, at_or_after, columns_of, equals, from_row, is_in, mapped, read_rows

if TYPE_CHECKING:
    import lancedb


class Receipts:
    """The receipts of one store."""

    def __init__(self, tables: Mapping[str, lancedb.AsyncTable]) -> None:
        self._tables = tables

    async def lines(self, workspace: str, receipt: str) -> list[ReceiptLine]:
        """Return the lines of one receipt of `workspace` in rank order; none where there is no such receipt."""
        if not receipt:
            return []
        where = all_of(equals("workspace", workspace), equals("receipt", receipt))
        return sorted(await read_rows(self._tables["receipts"], ReceiptLine, where), key=lambda line: line.rank)

    async def latest_line(self, workspace: str, experience_id: str, source: str) -> ReceiptLine | None:
        """Return the newest line that handed `experience_id` to `source`, or `None`."""
        where = all_of(equals("workspace", workspace), equals("experience_id", experience_id), equals("source", source))
        newest = await read_rows(self._tables["receipts"], ReceiptLine, where, newest_by="created_at", limit=1)
        return next(iter(newest), None)

    async def of_experience(
        self, workspace: str, experience_id: str, *, offset: int = 0, limit: int | None = None
    ) -> list[ReceiptLine]:
        """Return the recalls that handed out an experience, newest first; all of them where `limit` is `None`."""
        where = all_of(equals("workspace", workspace), equals("experience_id", experience_id))
        return await read_rows(
            self._tables["receipts"], ReceiptLine, where, newest_by="created_at", offset=offset, limit=limit
        )

    async def since(self, workspace: str, moment: datetime) -> list[Handout]:
        """Return what the recalls of `workspace` from a moment on handed out, without tasks and names."""
        where = all_of(equals("workspace", workspace), at_or_after("created_at", moment))
        return await read_rows(self._tables["receipts"], Handout, where)

    async def tally(
        self, experiences: Sequence[Experience], *, settled: Sequence[ReceiptLine] = ()
    ) -> dict[str, Tally]:
        """Return what the receipts since each experience's `counted_since` say, by experience id.

        Args:
            experiences: Which of them.
            settled: Lines that are about to be written, and count as if they were.
        """
        if not experiences:
            return {}
        with mapped("count receipts"):
            rows = await (
                self._tables["receipts"]
                .query()
                .where(is_in("experience_id", [experience.id for experience in experiences]))
                .select(columns_of(ReceiptLine))
                .to_list()
            )
        recalls: dict[str, dict[str, ReceiptLine]] = defaultdict(dict)
        for line in (*(from_row(ReceiptLine, row) for row in rows), *settled):
            recalls[line.experience_id][line.receipt] = line
        return {
            one.id: tally_of([line for line in recalls[one.id].values() if line.created_at >= one.counted_since])
            for one in experiences
        }

    async def count(self, workspace: str) -> dict[str, int]:
        """Return how many recalls, recalled experiences and settled ones `workspace` has had."""
        with mapped("count receipts"):
            query = self._tables["receipts"].query().where(equals("workspace", workspace))
            rows = await query.select(["receipt", "experience_id", "helped"]).to_list()
        handed_out = [row for row in rows if row["experience_id"]]
        return {
            "recalls": len({row["receipt"] for row in rows}),
            "recalled": len(handed_out),
            "settled": sum(row["helped"] is not None for row in handed_out),
            "succeeded": sum(row["helped"] is True for row in handed_out),
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
