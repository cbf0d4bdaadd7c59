"""What stays of changes: the log, and experiences that a person deleted.

In:  the open tables of a store.
Out: entries of the log, with the trajectories among them; deleted experiences as they were.
Does not know: who may see it. `store.Writer` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from reme_mcp.audit import Entry, Recorded, newest, recorded
from reme_mcp.schema import Experience, Trajectory
from reme_mcp.tables import among, at_or_after, contains, equals, every, read_rows

if TYPE_CHECKING:
    import lancedb


class Trail:
    """The tables `log` and `trash` of one store, and what `trajectories` say of who recorded what."""

    def __init__(self, tables: Mapping[str, lancedb.AsyncTable]) -> None:
        self._tables = tables

    async def entries(self, workspace: str, *, since: datetime | None, about: str, limit: int) -> list[Entry]:
        """Return the latest entries of a workspace and of what concerns all of the home, newest first.

        Args:
            workspace: Whose.
            since: None from before; `None` for all.
            about: Only those about this id; empty for all.
            limit: How many.
        """
        later = None if since is None else at_or_after("created_at", since)
        where = every(among("workspace", [workspace, ""]), later, equals("about", about) if about else None)
        found = await read_rows(self._tables["log"], Entry, where, newest_by="created_at", limit=limit)
        later = None if since is None else at_or_after("updated_at", since)
        named = equals("id", about) | contains("answer", about) if about else None
        where = every(equals("workspace", workspace), later, named)
        attempts = await read_rows(self._tables["trajectories"], Recorded, where, newest_by="updated_at", limit=limit)
        found += [one for attempt in attempts for one in recorded(attempt)]
        return newest([one for one in found if _is_wanted(one, since, about)], limit=limit)

    async def every_entry(self) -> list[Entry]:
        """Return all that stands in the log, of every workspace."""
        return await read_rows(self._tables["log"], Entry, None)

    async def deleted(self, workspace: str, *, offset: int, limit: int) -> list[Experience]:
        """Return deleted experiences of a workspace as they were, newest first, from `offset` on."""
        where = equals("workspace", workspace)
        trash = self._tables["trash"]
        return await read_rows(trash, Experience, where, newest_by="created_at", offset=offset, limit=limit)

    async def attempts_about(self, workspace: str, experience_id: str, ids: Sequence[str]) -> list[Trajectory]:
        """Return the trajectories among `ids`, and those with a draft that was refused because of an experience."""
        refused = contains("rejected", experience_id)
        where = every(equals("workspace", workspace), refused | among("id", ids) if ids else refused)
        return await read_rows(self._tables["trajectories"], Trajectory, where)

    async def deleted_experience(self, workspace: str, experience_id: str) -> Experience | None:
        """Return the deleted experience of a workspace with this id as it was, or `None`."""
        where = every(equals("workspace", workspace), equals("id", experience_id))
        return next(iter(await read_rows(self._tables["trash"], Experience, where)), None)


def _is_wanted(entry: Entry, since: datetime | None, about: str) -> bool:
    return (since is None or entry.created_at >= since) and about in ("", entry.about)
