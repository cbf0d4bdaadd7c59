"""The pool as a person looks at it: experiences, attempts, receipts, the log, and all of it in numbers.

In:  the name of an experience, an attempt, a receipt or a workspace.
Out: what the pool holds of it, page by page.
Does not know: how it is changed (`pool.py`), recall, recording, MCP, terminals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.models.service import Vectors
from reme_mcp.models.usage import Cost, total
from reme_mcp.refine import ledger
from reme_mcp.refine.holdout import Evidence, signs
from reme_mcp.refine.neighbourhood import should_withhold
from reme_mcp.safety.redaction import Redact
from reme_mcp.schema import (
    RECALLABLE,
    Entry,
    Experience,
    ReceiptLine,
    Status,
    Summary,
    Tally,
    Trajectory,
)
from reme_mcp.store.store import Store
from reme_mcp.text import clean


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The state of one workspace in numbers, and of the search in words."""

    workspace: str
    home: str
    experiences: dict[Status, int]
    trajectories: dict[str, int]
    receipts: dict[str, int]
    lift: dict[str, int]
    embedder: str
    without_vector: int
    llm: dict[str, Cost]


@dataclass(frozen=True, slots=True)
class AmongTasks:
    """What a lesson does among tasks that are alike.

    Attributes:
        task: The latest of them.
        lift: By how much they go better with it, and how that is known.
        is_withheld: Whether a recall for such a task goes without it.
    """

    task: str
    lift: str
    is_withheld: bool


class PoolReader:
    """What `Memory.pool` shows."""

    def __init__(
        self, settings: Settings, vectors: Vectors, open_store: Callable[[], Awaitable[Store]], redact: Redact
    ) -> None:
        self.settings = settings
        self._redact = redact
        self._vectors = vectors
        self._open_store = open_store

    async def experience(self, experience_id: str, *, workspace: str | None = None) -> tuple[Experience, Tally]:
        """Return one experience with what the receipts say of it.

        Raises:
            NotFound: No such experience in this workspace.
        """
        workspace = self._workspace(workspace)
        experience_id = clean.label(experience_id)
        store = await self._open_store()
        experience = (await store.experiences(workspace, [experience_id])).get(experience_id)
        if experience is None:
            raise NotFound(clean.unknown("experience", experience_id, workspace))
        return experience, (await store.receipts.tally([experience]))[experience_id]

    async def lifts(
        self, lessons: Sequence[Experience | Summary], *, workspace: str | None = None
    ) -> Mapping[str, Evidence]:
        """Return by how much tasks go better with each of some lessons, by id, and how that is known."""
        workspace = self._workspace(workspace)
        return await ledger.lifts(await self._open_store(), workspace, lessons)

    async def among_tasks(self, experience: Experience, *, workspace: str | None = None) -> list[AmongTasks]:
        """Return what an experience does among each kind of tasks that had it often enough, the latest kind first."""
        workspace = self._workspace(workspace)
        rules = self.settings.refine
        store = await self._open_store()
        kinds = await ledger.kinds_of_tasks(store, workspace, [experience], min_frequency=rules.min_frequency)
        withholds = rules.removal == "lift" and not experience.pinned
        # As they stand on the disk: what was erased there is told no more.
        tasks = {one.receipt: await store.receipts.task(workspace, one.receipt) for one in kinds[experience.id]}
        return [
            AmongTasks(
                task=tasks[one.receipt],
                lift=one.evidence.in_words,
                is_withheld=withholds and should_withhold(one.evidence, min_frequency=rules.min_frequency),
            )
            for one in kinds[experience.id]
            if tasks[one.receipt]
        ]

    async def page(
        self,
        *,
        workspace: str | None = None,
        statuses: Sequence[Status] | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> list[Experience]:
        """Return experiences, newest first; `limit` is 1 to 1,000.

        Raises:
            InvalidInput: `offset` or `limit` is out of range.
        """
        _check_page(offset, limit)
        store = await self._open_store()
        return await store.page(self._workspace(workspace), statuses=statuses, offset=offset, limit=limit)

    async def experiences(self, ids: Sequence[str], *, workspace: str | None = None) -> list[Experience]:
        """Return those of `ids` that are in the workspace, in their order; a deleted one is left out."""
        store = await self._open_store()
        found = await store.experiences(self._workspace(workspace), list(dict.fromkeys(ids)))
        return [found[id] for id in dict.fromkeys(ids) if id in found]

    async def counts(self, *, workspace: str | None = None) -> dict[Status, int]:
        """Return how many experiences of each status the workspace holds."""
        return await (await self._open_store()).count(self._workspace(workspace))

    async def stats(self, *, workspace: str | None = None) -> PoolStats:
        """Return the state of one workspace."""
        workspace = self._workspace(workspace)
        store = await self._open_store()
        space = self._vectors.space
        lessons = await store.summaries(workspace)
        in_recall = lessons.at(lessons.status.are(*RECALLABLE).nonzero()[0])
        return PoolStats(
            workspace=workspace,
            home=str(store.location),
            experiences=await store.count(workspace),
            trajectories=await store.count_trajectories(workspace),
            receipts=await store.receipts.count(workspace),
            lift=signs(await self.lifts(in_recall, workspace=workspace)),
            embedder=self._vectors.state,
            without_vector=0 if space is None else len(await store.without_vector(space)),
            llm=total(await store.spent()),
        )

    async def workspaces(self) -> list[str]:
        """Return the names of the workspaces that hold experiences."""
        return await (await self._open_store()).workspaces()

    async def log(
        self, *, workspace: str | None = None, since: datetime | None = None, about: str = "", limit: int = 50
    ) -> list[Entry]:
        """Return who changed what, newest first: in this workspace, and what concerns all of the home.

        Args:
            workspace: Whose; the settings' where `None`.
            since: Nothing from before.
            about: Only what was done with this id; empty for all.
            limit: How many at most, 1 to 100,000.

        Raises:
            InvalidInput: `limit` is out of range.
        """
        if not 1 <= limit <= 100_000:
            raise InvalidInput(f"limit is {limit}; it must be from 1 to 100000")
        store = await self._open_store()
        about = clean.label(about) if about else ""
        return await store.activity_log.entries(self._workspace(workspace), since=since, about=about, limit=limit)

    async def trajectory(self, trajectory_id: str, *, workspace: str | None = None) -> Trajectory:
        """Return one trajectory.

        Raises:
            NotFound: No such trajectory in this workspace.
        """
        workspace = self._workspace(workspace)
        trajectory_id = clean.label(trajectory_id)
        trajectory = await (await self._open_store()).trajectory(workspace, trajectory_id)
        if trajectory is None:
            raise NotFound(clean.unknown("trajectory", trajectory_id, workspace))
        return trajectory

    async def trajectories(self, ids: Sequence[str], *, workspace: str | None = None) -> list[Trajectory]:
        """Return those trajectories among `ids` that are in the workspace."""
        return await (await self._open_store()).trajectories(self._workspace(workspace), ids) if ids else []

    async def learned_from(self, trajectory_id: str, *, workspace: str | None = None) -> list[Experience]:
        """Return the experiences that were learned from a trajectory, whatever their status."""
        store = await self._open_store()
        return await store.learned_from(self._workspace(workspace), [clean.label(trajectory_id)])

    async def receipt(
        self, receipt: str, *, workspace: str | None = None, source: str | None = None
    ) -> list[ReceiptLine]:
        """Return what one recall handed out, best first, with the numbers behind it and how it was settled.

        Args:
            receipt: Its id.
            workspace: Whose; the settings' where `None`.
            source: Who asks, and may see their own only; `None` for somebody who may see all.

        Raises:
            NotFound: No such receipt in this workspace, or it is somebody else's.
        """
        workspace = self._workspace(workspace)
        receipt = clean.label(receipt)
        lines = await (await self._open_store()).receipts.lines(workspace, receipt)
        if not lines or (source is not None and not ledger.is_own(lines, source)):
            raise NotFound(clean.unknown("receipt", receipt, workspace))
        return lines

    async def recalls(
        self, experience_id: str, *, workspace: str | None = None, offset: int = 0, limit: int = 50
    ) -> list[ReceiptLine]:
        """Return the recalls that handed out an experience, newest first, with how each went.

        Args:
            experience_id: Which one; one that is not there has no recalls.
            workspace: Whose; the settings' where `None`.
            offset: How many to leave out.
            limit: 1 to 1,000.

        Raises:
            InvalidInput: `offset` or `limit` is out of range.
        """
        _check_page(offset, limit)
        store = await self._open_store()
        return await store.receipts.of_experience(
            self._workspace(workspace), clean.label(experience_id), offset=offset, limit=limit
        )

    async def deleted(self, *, workspace: str | None = None, offset: int = 0, limit: int = 50) -> list[Experience]:
        """Return experiences that were deleted, as they were; `limit` is 1 to 1,000.

        Raises:
            InvalidInput: `offset` or `limit` is out of range.
        """
        _check_page(offset, limit)
        store = await self._open_store()
        return await store.activity_log.deleted(self._workspace(workspace), offset=offset, limit=limit)

    async def all_of(
        self, *, workspace: str | None = None, statuses: Sequence[Status] | None = None
    ) -> list[Experience]:
        """Return all experiences of a workspace, oldest first."""
        found: list[Experience] = []
        while page := await self.page(workspace=workspace, statuses=statuses, offset=len(found), limit=1000):
            found += page
        return found[::-1]

    def _workspace(self, workspace: str | None) -> str:
        return clean.workspace(self.settings.workspace if workspace is None else workspace)


def _check_page(offset: int, limit: int) -> None:
    if offset < 0 or not 1 <= limit <= 1000:
        raise InvalidInput(f"offset {offset}, limit {limit}: the offset starts at 0, the limit is from 1 to 1000")
