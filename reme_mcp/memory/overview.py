"""What a person wants to see of a whole pool: lessons filtered and in an order, five numbers, what removal takes.

In:  a workspace, filters, an order, other numbers for the removal rule.
Out: pages of experiences, counts, and what the rules would do; nothing is written, and no lock is taken.
Does not know: how it is shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from reme_mcp.aio import gather
from reme_mcp.config.settings import RefineSettings, Settings
from reme_mcp.errors import InvalidInput
from reme_mcp.import_export.skills import Skill, one_each
from reme_mcp.recall import exposure
from reme_mcp.recall.search import Search
from reme_mcp.refine import ledger
from reme_mcp.refine.rules import base_rate, is_proven, track_record
from reme_mcp.safety.passages import Finding, findings
from reme_mcp.schema import Experience, Kind, SettledBy, Status, Trajectory, now
from reme_mcp.sources import THIS_MACHINE, rater_of
from reme_mcp.store.store import Store
from reme_mcp.store.summaries import Names, Summaries
from reme_mcp.text import clean

if TYPE_CHECKING:
    from reme_mcp.store.summaries import Flags, Numbers

Order = Literal["most tried", "newest", "oldest", "helps most", "helps least"]
Standing = Literal["waiting", "helps", "early", "untried", "to be removed", "out of recall"]
STANDINGS: tuple[Standing, ...] = get_args(Standing)
IN_RECALL: tuple[Status, ...] = ("active", "provisional")
# As long as these are at the same versions, no lesson has changed, nor what is counted of it.
OF_LESSONS = ("experiences", "counters")
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
    """The last seven days in numbers, and the last thirty day by day.

    Attributes:
        known: Outcomes of what was handed out in these days, as far as they are known.
        helped: Those that were good.
        known_before: The same for the seven days before.
        helped_before: Likewise.
    """

    learned: int
    from_failures: int
    handed_out: int
    known: int
    helped: int
    known_before: int
    helped_before: int
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
    """What was read of one workspace, good for as long as the store is the same and at these versions."""

    store: Store
    versions: Mapping[str, int]
    lessons: Summaries
    removals: dict[tuple[int, float], Removal] = field(default_factory=dict)
    standings: Names | None = None
    facts: Facts | None = None
    week: tuple[datetime, Week] | None = None


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
        _, versions = await self._versions()
        return " ".join(f"{name}:{number}" for name, number in sorted(versions.items()))

    async def facts(self, *, workspace: str | None = None) -> Facts:
        """Return the workspace in numbers."""
        workspace = self._workspace(workspace)
        seen = await self._look(workspace)
        if seen.facts is None:
            lessons, standings = seen.lessons, await self._standings(workspace, seen)
            in_recall = lessons.status.are(*IN_RECALL)
            known, good = lessons.frequency[in_recall].tolist(), lessons.utility[in_recall].tolist()
            points = Counter(zip(known, good, strict=True))
            seen.facts = Facts(
                total=len(known),
                standings={one: standings.counts()[one] for one in STANDINGS if one in standings.counts()},
                helped=sum(good),
                known=sum(known),
                sources=list(lessons.source.counts()),
                points=Counter({point: count for point, count in points.items() if point[0]}),
            )
        return seen.facts

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
        import numpy as np

        workspace = self._workspace(workspace)
        store = await self._open_store()
        seen = await self._look(workspace)
        lessons = seen.lessons
        passing = await self._passing(workspace, seen, filters)
        first = np.array([], np.int64)
        if query := filters.query.strip():
            found, said = await gather(
                partial(self._search.find, store, workspace, query, limit=FOUND_FIRST),
                partial(store.ids_with_words, workspace, query),
            )
            first = lessons.places(item.experience.id for item in found)
            # One that was written since the look is not among its rows.
            first = first[first >= 0]
            first = first[passing[first]]
            passing &= lessons.rows_of(said)
            passing[first] = False
        rows = np.concatenate([first, _ordered(lessons, passing.nonzero()[0], order)])
        ids = [lessons.id[row] for row in rows[offset : offset + limit]]
        experiences = await store.experiences(workspace, ids)
        return Page([experiences[id] for id in ids if id in experiences], len(rows), offset)

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
            lessons = seen.lessons
            goes = await ledger.removals(store, workspace, lessons, rules)
            # One outcome more would bring these within the rule's reach.
            near = lessons.status.are(*IN_RECALL) & ~lessons.pinned & (lessons.frequency >= rules.min_frequency - 1)
            near &= lessons.utility <= rules.max_utility_ratio * (lessons.frequency + 1)
            near[lessons.places(goes)] = False
            after_one_more = int(near.sum())
            seen.removals[key] = Removal(*key, goes, after_one_more)
        return seen.removals[key]

    async def week(self, *, workspace: str | None = None) -> Week:
        """Return what happened in the last seven days, and in the last thirty day by day."""
        workspace = self._workspace(workspace)
        seen = await self._look(workspace)
        # By whole hours: what was counted stays true for one.
        hour = now().replace(minute=0, second=0, microsecond=0)
        if seen.week is None or seen.week[0] != hour:
            seen.week = hour, await self._week(workspace, seen.lessons, hour)
        return seen.week[1]

    async def proven_skills(self, *, workspace: str | None = None) -> list[Skill]:
        """Return the active lessons with which attempts succeed more often than others do, as skills, the best first.

        Their texts hold no counters: they change with the lessons alone.
        """
        workspace = self._workspace(workspace)
        store = await self._open_store()
        lessons = (await self._look(workspace)).lessons
        tried = [lessons.id[row] for row in (lessons.status.are("active") & (lessons.utility > 0)).nonzero()[0]]
        if not tried:
            return []
        usual = base_rate(*await store.successes.count(workspace))
        found = [one for one in (await store.experiences(workspace, tried)).values() if is_proven(one, usual)]
        credited = await store.receipts.credited(found)
        proven = [one for one in found if exposure.is_proven_to_others(one, credited)]
        best_first = sorted(proven, key=lambda one: (-track_record(one, usual), one.id))
        return one_each(best_first, with_counters=False)

    async def ids(self, *, workspace: str | None = None) -> list[str]:
        """Return the ids of all lessons of a workspace, newest first."""
        return list((await self._look(self._workspace(workspace))).lessons.id)

    async def holders(self, *, workspace: str | None = None) -> list[str]:
        """Return the holders of tokens who have brought lessons, in the order of their names."""
        lessons = (await self._look(self._workspace(workspace))).lessons
        return sorted({rater_of(source) for source in lessons.source.counts()} - {THIS_MACHINE})

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

    async def _versions(self) -> tuple[Store, dict[str, int]]:
        """Return the store and its versions; another one may have come as far."""
        store = await self._open_store()
        return store, {**await store.versions(), **await store.ledger_versions()}

    async def _look(self, workspace: str) -> _Seen:
        store, versions = await self._versions()
        before = self._seen[1] if self._seen is not None and self._seen[0] == workspace else None
        if before is not None and before.store is not store:
            before = None
        if before is not None and before.versions == versions:
            return before
        if before is not None and all(before.versions[name] == versions[name] for name in OF_LESSONS):
            seen = _Seen(store, versions, before.lessons)
            if self._settings.refine.removal == "share":
                # The other rule asks how all attempts ended, too.
                seen.removals, seen.standings, seen.facts = before.removals, before.standings, before.facts
        else:
            seen = _Seen(store, versions, await store.summaries(workspace))
        self._seen = workspace, seen
        return seen

    async def _week(self, workspace: str, lessons: Summaries, hour: datetime) -> Week:
        import numpy as np

        receipts = (await self._open_store()).receipts
        first, week = hour.replace(hour=0) - timedelta(days=SHOWN_DAYS - 1), timedelta(days=WEEK_DAYS)
        by_hour = await receipts.ended(workspace, since=first, every=timedelta(hours=1))
        days: Counter[tuple[int, bool | None]] = Counter()
        lately: Counter[tuple[bool | None, SettledBy]] = Counter()
        before: Counter[tuple[bool | None, SettledBy]] = Counter()
        for (period, helped, by), count in by_hour.items():
            at = first + timedelta(hours=period)
            days[(at - first).days, helped] += count
            if at >= hour - week:
                lately[helped, by] += count
            elif at >= hour - 2 * week:
                before[helped, by] += count
        new = lessons.created_at >= np.datetime64((hour - week).replace(tzinfo=None))
        return Week(
            learned=int(new.sum()),
            from_failures=int((new & lessons.kind.are("failure")).sum()),
            handed_out=lately.total(),
            known=sum(count for (helped, _), count in lately.items() if helped is not None),
            helped=sum(count for (helped, _), count in lately.items() if helped),
            known_before=sum(count for (helped, _), count in before.items() if helped is not None),
            helped_before=sum(count for (helped, _), count in before.items() if helped),
            rated=sum(count for (_, by), count in lately.items() if by == "rating"),
            held_back=int((new & lessons.status.are("quarantined")).sum()),
            days=[Day(first + timedelta(days=day), days[day, True], days[day, False]) for day in range(SHOWN_DAYS)],
        )

    def _rules(self, min_frequency: int | None, max_utility_ratio: float | None) -> RefineSettings:
        rules = self._settings.refine
        alpha = rules.min_frequency if min_frequency is None else min_frequency
        beta = rules.max_utility_ratio if max_utility_ratio is None else max_utility_ratio
        if not 1 <= alpha <= 1000 or not 0 <= beta <= 1:
            raise InvalidInput(f"min_frequency {alpha}, max_utility_ratio {beta}: from 1 to 1000, and from 0 to 1")
        return rules.model_copy(update={"min_frequency": alpha, "max_utility_ratio": beta})

    async def _standings(self, workspace: str, seen: _Seen) -> Names:
        if seen.standings is None:
            import numpy as np

            lessons, removal = seen.lessons, await self.removal(workspace=workspace)
            cases = {
                "waiting": lessons.status.are("quarantined"),
                "out of recall": lessons.status.are("archived"),
                "to be removed": lessons.rows_of(removal.reasons),
                "untried": lessons.frequency == 0,
                "helps": lessons.frequency >= self._settings.refine.min_frequency,
            }
            places = np.select(list(cases.values()), range(len(cases)), len(cases))
            seen.standings = Names([*cases, "early"], places)
        return seen.standings

    async def _passing(self, workspace: str, seen: _Seen, filters: Filters) -> Flags:
        """Return which rows pass the filters, without the query."""
        import numpy as np

        lessons = seen.lessons
        passing = np.ones(len(lessons), bool)
        if filters.status:
            passing &= lessons.status.are(filters.status)
        elif not filters.standing:
            passing &= lessons.status.are(*IN_RECALL)
        if filters.kind:
            passing &= lessons.kind.are(filters.kind)
        if filters.source:
            passing &= lessons.source.are(filters.source)
        if filters.standing:
            passing &= (await self._standings(workspace, seen)).are(filters.standing)
        return passing

    def _workspace(self, workspace: str | None) -> str:
        return clean.workspace(self._settings.workspace if workspace is None else workspace)


def _ordered(lessons: Summaries, rows: Numbers, order: Order) -> Numbers:
    """Return the rows in an order; those that are equal in it stay as they are, the newest first."""
    import numpy as np

    known, good = lessons.frequency[rows], lessons.utility[rows]
    ratio = good / np.maximum(known, 1)
    # The last key decides first.
    keys: dict[Order, tuple[Any, ...]] = {
        "most tried": (-known,),
        "newest": (),
        "oldest": (lessons.created_at[rows],),
        "helps most": (-known, -ratio),
        # Those that nobody has tried are no failures.
        "helps least": (-known, ratio, known == 0),
    }
    return rows[np.lexsort(keys[order])] if keys[order] else rows
