"""The pool as a person looks after it: list, show, prune, archive, restore, pin, delete, import, back up.

In:  the name of an experience or of a workspace, and what is to be done with it.
Out: experiences as they are afterwards, or as they were.
Does not know: recall, recording, the embedder's life, MCP, terminals.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import anyio.to_thread

from reme_mcp import backup as backups
from reme_mcp import checks, imports, ledger, quarantine, records, refine
from reme_mcp.config import Settings
from reme_mcp.costs import Cost, total
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.imports import Imported
from reme_mcp.redaction import Redact
from reme_mcp.schema import Experience, Kind, Status, Tally, now
from reme_mcp.site import folder_of
from reme_mcp.store import Store
from reme_mcp.vectors import Vectors


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The state of one workspace in numbers, and of the search in words."""

    workspace: str
    home: str
    experiences: dict[Status, int]
    trajectories: dict[str, int]
    receipts: dict[str, int]
    embedder: str
    without_vector: int
    llm: dict[str, Cost]


class Pool:
    """What `Memory.pool` offers: the care of the experiences, apart from the loop."""

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
        experience_id = checks.label(experience_id)
        store = await self._open_store()
        experience = (await store.experiences(workspace, [experience_id])).get(experience_id)
        if experience is None:
            raise NotFound(checks.unknown("experience", experience_id, workspace))
        return experience, (await store.tally([experience]))[experience_id]

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
        if offset < 0 or not 1 <= limit <= 1000:
            raise InvalidInput(f"offset {offset}, limit {limit}: the offset starts at 0, the limit is from 1 to 1000")
        store = await self._open_store()
        return await store.page(self._workspace(workspace), statuses=statuses, offset=offset, limit=limit)

    async def stats(self, *, workspace: str | None = None) -> PoolStats:
        """Return the state of one workspace."""
        workspace = self._workspace(workspace)
        store = await self._open_store()
        space = self._vectors.space
        return PoolStats(
            workspace=workspace,
            home=str(store.site),
            experiences=await store.count(workspace),
            trajectories=await store.count_trajectories(workspace),
            receipts=await store.count_receipts(workspace),
            embedder=self._vectors.state,
            without_vector=0 if space is None else len(await store.without_vector(space)),
            llm=total(await store.spent()),
        )

    async def workspaces(self) -> list[str]:
        """Return the names of the workspaces that hold experiences."""
        return await (await self._open_store()).workspaces()

    async def prune(self, *, workspace: str | None = None, dry_run: bool = False) -> list[Experience]:
        """Archive every experience that φ removes, and return them as they were; `dry_run` only returns them."""
        workspace = self._workspace(workspace)
        store = await self._open_store()
        async with store.writing() as writer:
            found: list[Experience] = []
            offset = 0
            while page := await store.page(workspace, statuses=["active", "provisional"], offset=offset, limit=1000):
                found += [experience for experience in page if ledger.is_to_prune(experience, self.settings.refine)]
                offset += len(page)
            if not dry_run:
                archived = [refine.archive(one, refine.prune_reason(one), at=now()) for one in found]
                await writer.put_experiences(archived)
        return found

    async def restore(self, experience_id: str, *, workspace: str | None = None) -> Experience:
        """Bring an archived experience back into recall; its counters start anew.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It is not archived.
        """
        _, tally = await self.experience(experience_id, workspace=workspace)
        # After every recall so far, even if the clock was set back since: those must not count again.
        recalled = tally.last_recalled_at
        at = now() if recalled is None else max(now(), recalled + timedelta(microseconds=1))
        return await self._change(experience_id, workspace, partial(_restored, at=at))

    async def archive(self, experience_id: str, reason: str, *, workspace: str | None = None) -> Experience:
        """Take an experience out of recall; `restore` undoes it.

        Raises:
            NotFound: No such experience in this workspace.
        """
        reason = self._redact(checks.text("reason", reason))
        return await self._change(experience_id, workspace, lambda one: refine.archive(one, reason, at=now()))

    async def review(self, *, workspace: str | None = None, dry_run: bool = False) -> list[Experience]:
        """Hold back what is in recall and comes under a rule: what was there before the rule was, or was imported.

        What a person has approved stays. With `dry_run` nothing is changed.

        Returns:
            What was held back, with its reason; with `dry_run`, what would be.
        """
        workspace = self._workspace(workspace)
        store = await self._open_store()
        async with store.writing() as writer:
            found: list[Experience] = []
            offset = 0
            while page := await store.page(workspace, statuses=["active", "provisional"], offset=offset, limit=1000):
                for one in page:
                    held = quarantine.hold(one, quarantine.suspicions(one, one.source))
                    if held is not one and not quarantine.is_approved(one):
                        found.append(replace(held, updated_at=now()))
                offset += len(page)
            if not dry_run:
                await writer.put_experiences(found)
        return found

    async def approve(self, experience_id: str, *, workspace: str | None = None) -> Experience:
        """Let a quarantined experience into recall: a person has read it.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It is not quarantined.
        """
        return await self._change(
            experience_id, workspace, lambda one: quarantine.approve(_quarantined(one), one.status_reason, at=now())
        )

    async def reject(self, experience_id: str, *, workspace: str | None = None) -> Experience:
        """Archive a quarantined experience; whatever says the same is not stored any more. `restore` undoes it.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It is not quarantined.
        """
        return await self._change(
            experience_id,
            workspace,
            lambda one: quarantine.reject(_quarantined(one), at=now()),
        )

    async def pin(self, experience_id: str, *, pinned: bool, workspace: str | None = None) -> Experience:
        """Exempt an experience from pruning, or subject it to it again.

        Raises:
            NotFound: No such experience in this workspace.
        """
        return await self._change(experience_id, workspace, lambda one: replace(one, pinned=pinned, updated_at=now()))

    async def delete(self, experience_id: str, *, workspace: str | None = None) -> Experience:
        """Remove an experience for good and return it as it was. `archive` is the way back that this has not.

        Raises:
            NotFound: No such experience in this workspace.
        """
        experience, _ = await self.experience(experience_id, workspace=workspace)
        store = await self._open_store()
        async with store.writing() as writer:
            await writer.delete_experience(experience.workspace, experience.id)
        return experience

    async def bring_in(
        self,
        file: str,
        data: bytes,
        *,
        workspace: str | None = None,
        kind: Kind = "success",
        dry_run: bool = False,
        tell: Callable[[int, int], None] = lambda done, of: None,
    ) -> Imported:
        """Take the experiences of a file into a workspace; what they say of themselves is not believed.

        Args:
            file: Its name, which they will have as their source.
            data: Of the file: JSON Lines or a JSON array, of ours or of ReMe's.
            workspace: Whose they will be; the settings' where `None`.
            kind: Of records that don't say theirs, as those of ReMe's first formats.
            dry_run: Write nothing.
            tell: Told how many more records are done, and of how many.

        Raises:
            StoreError: The pool can't be read or written; what is counted as done is stored.
        """
        workspace = self._workspace(workspace)
        source = checks.label(f"file:{file}")
        read = partial(records.read, data, workspace=workspace, source=source, kind=kind, redact=self._redact, at=now())
        found = await anyio.to_thread.run_sync(read)
        tell(0, len(found))
        return await imports.bring_in(
            file,
            found,
            workspace,
            await self._open_store(),
            self._vectors,
            self.settings,
            dry_run=dry_run,
            tell=lambda done: tell(done, len(found)),
        )

    async def every(
        self, *, workspace: str | None = None, statuses: Sequence[Status] | None = None
    ) -> list[Experience]:
        """Return all experiences of a workspace, oldest first."""
        found: list[Experience] = []
        while page := await self.page(workspace=workspace, statuses=statuses, offset=len(found), limit=1000):
            found += page
        return found[::-1]

    async def backup(self, target: Path | None = None) -> backups.Backup:
        """Write a copy of the whole pool, of every workspace, into one file; others go on working meanwhile.

        Args:
            target: A new file, or a folder for one; the home's own `backups` where `None`.

        Raises:
            StoreError: The home can't be read, or the file not be written; nothing is left of it.
        """
        return await backups.make(folder_of(self.settings.home), target)

    async def restore_backup(self, what: str, *, force: bool = False, dry_run: bool = False) -> backups.Restored:
        """Put a backup in the place of the pool; whoever has it open, this one too, goes on with it at the next call.

        Args:
            what: A file, or the name of one of the home's own backups.
            force: Whether a pool that holds something may be replaced; a backup of it is kept.
            dry_run: Only look.

        Raises:
            InvalidInput: There is no such backup, it is damaged, or the pool holds something and `force` is off.
            StoreError: It is of a newer version, or there is no room for it; the pool is as it was.
        """
        return await backups.restore(folder_of(self.settings.home), what, force=force, dry_run=dry_run)

    # --- inside ---

    def _workspace(self, workspace: str | None) -> str:
        return checks.workspace(self.settings.workspace if workspace is None else workspace)

    async def _change(
        self, experience_id: str, workspace: str | None, change: Callable[[Experience], Experience]
    ) -> Experience:
        """Apply `change` to one experience under the lock, and store it."""
        workspace = self._workspace(workspace)
        experience_id = checks.label(experience_id)
        store = await self._open_store()
        async with store.writing() as writer:
            experience = (await store.experiences(workspace, [experience_id])).get(experience_id)
            if experience is None:
                raise NotFound(checks.unknown("experience", experience_id, workspace))
            changed = change(experience)
            await writer.put_experiences([changed])
        return changed


def _quarantined(experience: Experience) -> Experience:
    if experience.status != "quarantined":
        raise InvalidInput(f"{experience.id} is {experience.status}, not quarantined; there is nothing to review")
    return experience


def _restored(experience: Experience, *, at: datetime) -> Experience:
    if experience.status != "archived":
        raise InvalidInput(f"{experience.id} is {experience.status}, not archived; there is nothing to restore")
    restored = refine.restore(experience, at=at)
    # Who takes back what was rejected in review has seen what is suspected of it.
    return (
        quarantine.approve(restored, experience.status_reason, at=at)
        if quarantine.is_withheld(experience)
        else restored
    )
