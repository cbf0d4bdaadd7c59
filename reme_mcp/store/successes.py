"""How many attempts of a workspace succeeded, as the table `trajectories` of a store holds them.

In:  the open tables of a store.
Out: two numbers, counted anew only where somebody has written since: every recall asks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reme_mcp.store.tables import all_of, equals, mapped

if TYPE_CHECKING:
    import lancedb


class Successes:
    """The successes of one store."""

    def __init__(self, tables: Mapping[str, lancedb.AsyncTable]) -> None:
        self._tables = tables
        # By workspace: the version of the table, and what was counted in it.
        self._known: dict[str, tuple[int, int, int]] = {}

    async def count(self, workspace: str) -> tuple[int, int]:
        """Return how many attempts of `workspace` succeeded, and how many there are."""
        table = self._tables["trajectories"]
        with mapped("count trajectories"):
            version = await table.version()
            known = self._known.get(workspace)
            if known is None or known[0] != version:
                of_workspace = equals("workspace", workspace)
                succeeded = await table.count_rows(all_of(of_workspace, equals("outcome", "success")).to_sql())
                known = version, succeeded, await table.count_rows(of_workspace.to_sql())
                self._known[workspace] = known
        return known[1], known[2]
