"""What a person wants to see of a whole pool: lessons filtered and in an order, five numbers, what removal takes.

In:  a workspace, filters, an order, other numbers for the removal rule.
Out: pages of experiences, counts, and what the rules would do; nothing is written, and no lock is taken.
Does not know: how it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from reme_mcp.config.settings import RefineSettings, Settings
from reme_mcp.errors import InvalidInput
from reme_mcp.recall.search import Search
from reme_mcp.refine import ledger
from reme_mcp.refine.rules import base_rate, is_proven, track_record
from reme_mcp.safety.passages import Finding, findings
from reme_mcp.schema import Experience, Handout, Kind, Status, Summary, Trajectory, now
from reme_mcp.store.store import Store
from reme_mcp.text import clean

Order = Literal["most tried", "newest", "oldest", "helps most", "helps least"]
Standing = Literal["waiting", "helps", "early", "untried", "to be removed", "out of recall"]
IN_RECALL: tuple[Status, ...] = ("active", "provisional")
WAITING = ("queued", "awaiting_experiences")
MAX_QUERY_CHARS = 8_000
SHOWN_DAYS = 30
WEEK_DAYS = 7
# Of what a query finds by meaning, so many stand before what has its very words.
FOUND_FIRST = 20
LATEST_LINES = 1_000


@dataclass(frozen=True, slots=True)
class Filters:
    """Which lessons; empty means any."""

    query: str = ""
    kind: Kind | Literal[""] = ""
    status: Status | Literal[""] = ""
    source: str = ""
    standing: Standing | Literal[""] = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the lessons that were asked for, in order, and how many there are of them."""

    experiences: list[Experience]
    total: int
    offset: int


@dataclass(frozen=True, slots=True)
class Day:
    """What the recalls of one day handed out, as far as it is known how that ended."""

    date: datetime
    helped: int
    failed: int


@dataclass(frozen=True, slots=True)
class Week:
    """The last seven days in numbers, and the last thirty day by day; shares are `None` where nothing is known."""

    learned: int
    from_failures: int
    handed_out: int
    helped_share: float | None
    helped_share_before: float | None
    rated: int
    held_back: int
    days: list[Day]


@dataclass(frozen=True, slots=True)
class Facts:
    """A workspace in numbers.

    Attributes:
        standings: How many lessons stand how.
        helped: Known outcomes of lessons in recall that were good.
        known: All known outcomes of lessons in recall.
        sources: Who brought lessons, those of the most first.
        points: For each (known outcomes, good ones), how many lessons in recall have them.
    """

    total: int
    standings: dict[Standing, int]
    helped: int
    known: int
    sources: list[str]
    points: Counter[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Removal:
    """What the removal rule would take with these numbers.

    Attributes:
        reasons: By the id of each lesson that goes, the worst first.
        near: How many more would go after one more failure.
    """

    min_frequency: int
    max_utility_ratio: float
    reasons: dict[str, str]
    near: int


@dataclass(frozen=True, slots=True)
class Held:
    """A lesson that waits for a person, what was found in it, and the lesson in recall that is most like it."""

    experience: Experience
    findings: list[Finding]
    closest: Experience | None


@dataclass(slots=True)
class _Seen:
    """What was read of one workspace, good for as long as the tables are at these versions."""

    versions: tuple[tuple[str, int], ...]
    summaries: list[Summary]
    removals: dict[tuple[int, float], Removal] = field(default_factory=dict)
    handouts: list[Handout] | None = None


class Overview:
    """What `Memory.overview` offers: a pool as a person looks at it."""

    def __init__(self, settings: Settings, search: Search, open_store: Callable[[], Awaitable[Store]]) -> None:
        self._settings = settings
        self._search = search
        self._open_store = open_store
        # Of one workspace only: it is mostly the same, and may be large.
        self._seen: tuple[str, _Seen] | None = None

    async def version(self) -> str:
        """Return a text that is another one after every change of the pool, by whichever process."""
        versions = await (await self._open_store()).versions()
        return " ".join(f"{name}:{number}" for name, number in sorted(versions.items()))

    async def facts(self, *, workspace: str | None = None) -> Facts:
        """Return the workspace in numbers."""
        workspace = self._workspace(workspace)
        seen = await self._look(workspace)
        removal = await self.removal(workspace=workspace)
        in_recall = [one for one in seen.summaries if one.status in IN_RECALL]
        standings = Counter(self._standing(one, removal) for one in seen.summaries)
        return Facts(
            total=len(in_recall),
            standings=dict(standings),
            helped=sum(one.utility for one in in_recall),
            known=sum(one.frequency for one in in_recall),
            sources=[name for name, _ in Counter(one.source for one in seen.summaries).most_common()],
            points=Counter((one.frequency, one.utility) for one in in_recall if one.frequency),
        )

    async def lessons(
        self,
        filters: Filters,
        *,
        order: Order = "most tried",
        workspace: str | None = None,
        offset: int = 0,
        limit: int = 40,
    ) -> Page:
        """Return some of the lessons that pass the filters.

        A query is answered by recall's own search first, then by the very words of the texts. Archived lessons and
        those that wait are there only where a filter asks for them.

        Raises:
            InvalidInput: The query is too long, or `offset` or `limit` out of range.
        """
        if offset < 0 or not 1 <= limit <= 1000:
            raise InvalidInput(f"offset {offset}, limit {limit}: the offset starts at 0, the limit is from 1 to 1000")
        if len(filters.query) > MAX_QUERY_CHARS:
            raise InvalidInput(f"the query has {len(filters.query)} characters; at most {MAX_QUERY_CHARS} are taken")
        workspace = self._workspace(workspace)
        store = await self._open_store()
        seen = await self._look(workspace)
        removal = await self.removal(workspace=workspace)
        passing = [one for one in seen.summaries if self._passes(one, filters, removal)]
        passing.sort(key=_KEYS[order])
        if query := filters.query.strip():
            found = await self._search.find(store, workspace, query, limit=FOUND_FIRST)
            first = {item.experience.id: place for place, item in enumerate(found)}
            said = await store.ids_with_words(workspace, query)
            passing = [one for one in passing if one.id in first or one.id in said]
            passing.sort(key=lambda one: first.get(one.id, len(first)))
        ids = [one.id for one in passing[offset : offset + limit]]
        experiences = await store.experiences(workspace, ids)
        return Page([experiences[id] for id in ids if id in experiences], len(passing), offset)

    async def removal(
        self,
        *,
        workspace: str | None = None,
        min_frequency: int | None = None,
        max_utility_ratio: float | None = None,
    ) -> Removal:
        """Return what the removal rule would archive now; with other numbers than the settings' where they are given.

        Raises:
            InvalidInput: A number is out of its range.
        """
        workspace = self._workspace(workspace)
        rules = self._rules(min_frequency, max_utility_ratio)
        seen = await self._look(workspace)
        key = rules.min_frequency, rules.max_utility_ratio
        if key not in seen.removals:
            store = await self._open_store()
            # One outcome more would bring these within the rule's reach.
            near = [
                one
                for one in seen.summaries
                if one.status in IN_RECALL and not one.pinned and one.frequency >= rules.min_frequency - 1
            ]
            tried = [one for one in near if one.frequency >= rules.min_frequency]
            experiences = list((await store.experiences(workspace, [one.id for one in tried])).values())
            tallies = await store.receipts.tally(experiences)
            reasons = await ledger.reasons_to_prune(store, experiences, tallies, rules)
            worst = sorted(experiences, key=lambda one: (one.utility / one.frequency, -one.frequency, one.id))
            goes = {one.id: reasons[one.id] for one in worst if reasons[one.id]}
            after_one_more = sum(
                one.id not in goes and one.utility <= rules.max_utility_ratio * (one.frequency + 1) for one in near
            )
            seen.removals[key] = Removal(*key, goes, after_one_more)
        return seen.removals[key]

    async def week(self, *, workspace: str | None = None) -> Week:
        """Return what happened in the last seven days, and in the last thirty day by day."""
        workspace = self._workspace(workspace)
        seen = await self._look(workspace)
        midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
        first, week = midnight - timedelta(days=SHOWN_DAYS - 1), now() - timedelta(days=WEEK_DAYS)
        before = week - timedelta(days=WEEK_DAYS)
        if seen.handouts is None:
            seen.handouts = await (await self._open_store()).receipts.since(workspace, first)
        handouts = [one for one in seen.handouts if one.experience_id and one.arm != "withheld"]
        helped: Counter[int] = Counter()
        failed: Counter[int] = Counter()
        for one in handouts:
            if one.helped is not None:
                (helped if one.helped else failed)[(one.created_at - first).days] += 1
        new = [one for one in seen.summaries if one.created_at >= week]
        lately = [one for one in handouts if one.created_at >= week]
        return Week(
            learned=len(new),
            from_failures=sum(one.kind == "failure" for one in new),
            handed_out=len(lately),
            helped_share=_share(lately),
            helped_share_before=_share([one for one in handouts if before <= one.created_at < week]),
            rated=sum(one.settled_by == "rating" for one in lately),
            held_back=sum(one.status == "quarantined" for one in new),
            days=[Day(first + timedelta(days=day), helped[day], failed[day]) for day in range(SHOWN_DAYS)],
        )

    async def proven(self, *, workspace: str | None = None) -> list[Experience]:
        """Return the active lessons with which attempts succeed more often than others do, the best first."""
        workspace = self._workspace(workspace)
        store = await self._open_store()
        tried = [one.id for one in (await self._look(workspace)).summaries if one.status == "active" and one.utility]
        if not tried:
            return []
        usual = base_rate(*await store.successes.count(workspace))
        proven = [one for one in (await store.experiences(workspace, tried)).values() if is_proven(one, usual)]
        return sorted(proven, key=lambda one: (-track_record(one, usual), one.id))

    async def ids(self, *, workspace: str | None = None) -> list[str]:
        """Return the ids of all lessons of a workspace, newest first."""
        return [one.id for one in (await self._look(self._workspace(workspace))).summaries]

    async def receipts(self, *, workspace: str | None = None, source: str | None = None) -> list[str]:
        """Return the ids of the latest recalls, newest first; where `source` is given, of those that are its own."""
        store = await self._open_store()
        lines = await store.receipts.latest(self._workspace(workspace), limit=LATEST_LINES)
        own = [line.receipt for line in lines if source is None or ledger.is_own([line], source)]
        return list(dict.fromkeys(own))

    async def held(self, *, workspace: str | None = None, offset: int = 0, limit: int = 20) -> list[Held]:
        """Return lessons that wait for a person, newest first, with what was found in them and the closest lesson."""
        workspace = self._workspace(workspace)
        store = await self._open_store()
        waiting = await store.page(workspace, statuses=["quarantined"], offset=offset, limit=limit)
        return [Held(one, findings(one), await self._closest(store, one)) for one in waiting]

    async def alike(self, experience: Experience, *, limit: int = 4) -> list[Experience]:
        """Return the lessons in recall that are most like one, best first."""
        found = await self._search.alike(await self._open_store(), experience.workspace, experience, limit=limit)
        return [item.experience for item in found]

    async def attempts(self, *, workspace: str | None = None, offset: int = 0, limit: int = 50) -> list[Trajectory]:
        """Return attempts that wait for their lessons, newest first."""
        store = await self._open_store()
        return await store.attempts_with(self._workspace(workspace), WAITING, offset=offset, limit=limit)

    # --- inside ---

    async def _closest(self, store: Store, experience: Experience) -> Experience | None:
        found = await self._search.alike(store, experience.workspace, experience, limit=1)
        return found[0].experience if found else None

    async def _look(self, workspace: str) -> _Seen:
        store = await self._open_store()
        versions = tuple(sorted((await store.versions()).items()))
        if self._seen is None or self._seen[0] != workspace or self._seen[1].versions != versions:
            self._seen = workspace, _Seen(versions, await store.summaries(workspace))
        return self._seen[1]

    def _rules(self, min_frequency: int | None, max_utility_ratio: float | None) -> RefineSettings:
        rules = self._settings.refine
        alpha = rules.min_frequency if min_frequency is None else min_frequency
        beta = rules.max_utility_ratio if max_utility_ratio is None else max_utility_ratio
        if not 1 <= alpha <= 1000 or not 0 <= beta <= 1:
            raise InvalidInput(f"min_frequency {alpha}, max_utility_ratio {beta}: from 1 to 1000, and from 0 to 1")
        return rules.model_copy(update={"min_frequency": alpha, "max_utility_ratio": beta})

    def _standing(self, one: Summary, removal: Removal) -> Standing:
        if one.status == "quarantined":
            return "waiting"
        if one.status == "archived":
            return "out of recall"
        if one.id in removal.reasons:
            return "to be removed"
        if not one.frequency:
            return "untried"
        return "helps" if one.frequency >= self._settings.refine.min_frequency else "early"

    def _passes(self, one: Summary, filters: Filters, removal: Removal) -> bool:
        if filters.status:
            if one.status != filters.status:
                return False
        elif not filters.standing and one.status not in IN_RECALL:
            return False
        return (
            filters.kind in ("", one.kind)
            and filters.source in ("", one.source)
            and filters.standing in ("", self._standing(one, removal))
        )

    def _workspace(self, workspace: str | None) -> str:
        return clean.workspace(self._settings.workspace if workspace is None else workspace)


def _ratio(one: Summary) -> float:
    return one.utility / one.frequency if one.frequency else 0.0


_KEYS: dict[Order, Callable[[Summary], tuple[float, ...]]] = {
    "most tried": lambda one: (-one.frequency, -one.created_at.timestamp()),
    "newest": lambda one: (-one.created_at.timestamp(),),
    "oldest": lambda one: (one.created_at.timestamp(),),
    "helps most": lambda one: (-_ratio(one), -one.frequency),
    # Those that nobody has tried are no failures.
    "helps least": lambda one: (not one.frequency, _ratio(one), -one.frequency),
}


def _share(handouts: Sequence[Handout]) -> float | None:
    known = [one.helped for one in handouts if one.helped is not None]
    return sum(known) / len(known) if known else None
