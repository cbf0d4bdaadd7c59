"""What was tried and what it cost, as the ledger of a store holds it.

In:  the ledger of a store.
Out: trajectories, how they ended, what their distilling has cost. `store.Writer` writes it.
Does not know: experiences, receipts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from reme_mcp.schema import Attempt, Spent, Trajectory
from reme_mcp.store.ledger import Is, Ledger, Since
from reme_mcp.tracing import timed


class Attempts:
    """The trajectories and costs of one store, which is one of these."""

    _ledger: Ledger

    @timed("store: read trajectory")
    async def trajectory(self, workspace: str, trajectory_id: str) -> Trajectory | None:
        """Return one trajectory of `workspace`, or `None`."""
        return next(iter(await self.trajectories(workspace, [trajectory_id])), None)

    async def trajectories(self, workspace: str, ids: Sequence[str]) -> list[Trajectory]:
        """Return those of `workspace` among `ids`, newest first."""
        return await self._trajectories(Is("workspace", [workspace]), Is("id", ids)) if ids else []

    async def trajectory_by_digest(self, workspace: str, digest: str) -> Trajectory | None:
        """Return the trajectory that was recorded from exactly the same call, or `None`."""
        return next(iter(await self._trajectories(Is("workspace", [workspace]), Is("digest", [digest]))), None)

    async def attempts(self, workspace: str, key: str, *, limit: int) -> list[Trajectory]:
        """Return the latest `limit` trajectories at the task with this `task_key`, newest first."""
        return await self._trajectories(Is("workspace", [workspace]), Is("task_key", [key]), limit=limit)

    async def outcomes(self, workspace: str, key: str) -> list[Attempt]:
        """Return how all attempts at the task with this `task_key` ended, oldest first."""
        where = [Is("workspace", [workspace]), Is("task_key", [key])]
        return (await self._ledger.read(Attempt, where, newest_by="created_at"))[::-1]

    async def attempts_with(
        self, workspace: str, statuses: Sequence[str], *, offset: int, limit: int
    ) -> list[Trajectory]:
        """Return the trajectories of `workspace` in one of these states, newest first, from `offset` on."""
        where = [Is("workspace", [workspace]), Is("status", statuses)]
        return await self._ledger.read(Trajectory, where, newest_by="created_at", offset=offset, limit=limit)

    async def pending(self) -> list[Trajectory]:
        """Return the trajectories of all workspaces that were stored but not worked off: a process died in between."""
        return await self._trajectories(Is("status", ["pending"]))

    async def queued(self, workspace: str | None = None) -> list[Trajectory]:
        """Return what waits for the model behind the server, of one workspace or of all, oldest first."""
        return await self._of_status("queued", workspace)

    async def awaiting(self, workspace: str | None = None) -> list[Trajectory]:
        """Return what waits for somebody to write its lessons, of one workspace or of all, oldest first."""
        return await self._of_status("awaiting_experiences", workspace)

    async def _of_status(self, status: str, workspace: str | None) -> list[Trajectory]:
        of_workspace = [Is("workspace", [workspace])] if workspace is not None else []
        return (await self._trajectories(Is("status", [status]), *of_workspace))[::-1]

    async def tasks(self, workspace: str, *, limit: int) -> list[tuple[str, str]]:
        """Return `(trajectory id, task)` of the latest `limit` trajectories of `workspace`, newest first."""
        return [(one.id, one.task) for one in await self._trajectories(Is("workspace", [workspace]), limit=limit)]

    async def count_trajectories(self, workspace: str) -> dict[str, int]:
        """Return how many trajectories of each outcome, and how many not yet distilled, `workspace` holds."""
        found = await self._trajectories(Is("workspace", [workspace]))
        undistilled = sum(one.status in ("pending", "queued", "awaiting_experiences") for one in found)
        outcomes = [one.outcome for one in found]
        return {"success": outcomes.count("success"), "failure": outcomes.count("failure"), "undistilled": undistilled}

    async def _trajectories(self, *where: Is, limit: int | None = None) -> list[Trajectory]:
        return await self._ledger.read(Trajectory, where, newest_by="created_at", limit=limit)

    async def spent(self, since: datetime | None = None) -> list[Spent]:
        """Return what the questions to the model behind the server have cost, all or those since a moment."""
        return await self._ledger.read(Spent, [] if since is None else [Since("at", since)])
