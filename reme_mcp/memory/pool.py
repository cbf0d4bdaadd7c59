"""The pool as a person looks after it: prune, archive, restore, pin, delete, import, back up.

In:  the name of an experience or of a workspace, what is to be done with it, and who does it (`cli` where nobody says).
Out: experiences as they are afterwards, or as they were.
Does not know: how it is shown (`pool_reader.py`), recall, recording, the embedder's life, MCP, terminals.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread

from reme_mcp.distill import drafts
from reme_mcp.errors import InvalidInput, NotFound, StoreError
from reme_mcp.import_export import importer, jsonl, markdown
from reme_mcp.import_export.importer import Imported, Unusable
from reme_mcp.import_export.markdown import Page
from reme_mcp.import_export.record import make_draft, redacted
from reme_mcp.memory.pool_reader import PoolReader
from reme_mcp.refine import ledger
from reme_mcp.refine import rules as rules_
from reme_mcp.refine.rules import count
from reme_mcp.safety import quarantine
from reme_mcp.schema import (
    RECALLABLE,
    Deed,
    Entry,
    Experience,
    ExperienceDraft,
    Kind,
    new_id,
    now,
)
from reme_mcp.store import backup as backups
from reme_mcp.store import erasure, folder
from reme_mcp.store import log as logs
from reme_mcp.store.backup import Backup, Restored, make
from reme_mcp.store.erasure import Erasure
from reme_mcp.store.location import folder_of
from reme_mcp.store.log import BY_HAND, entries_of
from reme_mcp.store.migrations import SCHEMA_VERSION
from reme_mcp.store.store import Store
from reme_mcp.text import clean

logger = logging.getLogger(__name__)

HELD_BY_HAND = "by hand: a person wants it looked at again"


class Pool(PoolReader):
    """What `Memory.pool` offers: the care of the experiences, apart from the loop."""

    async def prune(
        self, *, workspace: str | None = None, source: str = BY_HAND, dry_run: bool = False
    ) -> list[Experience]:
        """Archive every experience that φ removes, and return them as they were; `dry_run` only returns them."""
        workspace = self._workspace(workspace)
        rules = self.settings.refine
        store = await self._open_store()
        async with store.writing() as writer:
            reasons = await ledger.removals(store, workspace, await store.summaries(workspace), rules)
            found = await store.experiences(workspace, list(reasons))
            if not dry_run:
                archived = [rules_.archive(found[id], reason, at=now()) for id, reason in reasons.items()]
                await writer.add_log(entries_of("pruned", archived, source=source))
                await writer.put_experiences(archived)
        return [found[id] for id in reasons]

    async def restore(
        self,
        experience_id: str,
        *,
        workspace: str | None = None,
        source: str = BY_HAND,
        keep_counters: bool = False,
        dry_run: bool = False,
    ) -> Experience:
        """Bring back an archived experience, whose counters start anew, or a deleted one, as it was.

        With `keep_counters` they go on, as if it had never been archived: the next known outcome may archive it again.

        What comes under a rule of the quarantine, and was not rejected by a person, who has seen it, waits for review.

        The counters of a deleted one have what became known of its recalls since.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It is neither archived nor deleted.
        """
        store = await self._open_store()
        deleted = await store.activity_log.deleted_experience(self._workspace(workspace), clean.label(experience_id))
        if deleted is not None and not await store.experiences(deleted.workspace, [deleted.id]):
            return await self._undelete(store, deleted, source=source, dry_run=dry_run)
        _, tally = await self.experience(experience_id, workspace=workspace)
        # After every recall so far, even if the clock was set back since: those must not count again.
        recalled = tally.last_recalled_at
        at = now() if recalled is None else max(now(), recalled + timedelta(microseconds=1))
        change = partial(_restored, at=at, keep_counters=keep_counters)
        return await self._change("restored", experience_id, workspace, change, source=source, dry_run=dry_run)

    async def archive(
        self,
        experience_id: str,
        reason: str,
        *,
        workspace: str | None = None,
        source: str = BY_HAND,
        dry_run: bool = False,
    ) -> Experience:
        """Take an experience out of recall; `restore` undoes it.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It is held back for review, or archived already.
        """
        reason = self._redact(clean.text("reason", reason))

        def archived(one: Experience) -> Experience:
            if one.status in ("quarantined", "archived"):
                instead = "reject it in `review`" if one.status == "quarantined" else "it is out of recall"
                raise InvalidInput(f"{one.id} is {one.status}: {instead}")
            return rules_.archive(one, reason, at=now())

        return await self._change("archived", experience_id, workspace, archived, source=source, dry_run=dry_run)

    async def review(
        self, *, workspace: str | None = None, source: str = BY_HAND, dry_run: bool = False
    ) -> list[Experience]:
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
            while page := await store.page(workspace, statuses=RECALLABLE, offset=offset, limit=1000):
                for one in page:
                    held = quarantine.hold(one, quarantine.suspicions(one))
                    if held is not one and not quarantine.is_approved(one):
                        found.append(replace(held, updated_at=now()))
                offset += len(page)
            if not dry_run:
                await writer.add_log(entries_of("quarantined", found, source=source))
                await writer.put_experiences(found)
        return found

    async def approve(self, experience_id: str, *, workspace: str | None = None, source: str = BY_HAND) -> Experience:
        """Let a quarantined experience into recall: a person has read it.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It is not quarantined.
        """

        def approved(one: Experience) -> Experience:
            return quarantine.approve(_quarantined(one), one.status_reason, at=now())

        return await self._change("approved", experience_id, workspace, approved, source=source)

    async def reject(
        self, experience_id: str, *, workspace: str | None = None, source: str = BY_HAND, dry_run: bool = False
    ) -> Experience:
        """Archive a quarantined experience; whatever says the same is not stored any more. `restore` undoes it.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It is not quarantined.
        """

        def rejected(one: Experience) -> Experience:
            return quarantine.reject(_quarantined(one), at=now())

        return await self._change("rejected", experience_id, workspace, rejected, source=source, dry_run=dry_run)

    async def hold_back(self, experience_id: str, *, workspace: str | None = None, source: str = BY_HAND) -> Experience:
        """Put an experience before review, again or for the first time; `approve` and `reject` decide.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: It waits for review already.
        """

        def held(one: Experience) -> Experience:
            if one.status == "quarantined":
                raise InvalidInput(f"{one.id} waits for review already")
            reasons = quarantine.suspicions(one, one.source) or [HELD_BY_HAND]
            return replace(quarantine.hold(one, reasons), updated_at=now())

        return await self._change("quarantined", experience_id, workspace, held, source=source)

    async def edit(
        self,
        experience_id: str,
        changes: Mapping[str, object],
        *,
        workspace: str | None = None,
        source: str = BY_HAND,
        dry_run: bool = False,
    ) -> tuple[Experience, Experience]:
        """Give an experience another wording; id and counters stay, the older wording is archived under a new id.

        What comes under a rule of the quarantine in its new wording waits for review.

        Args:
            experience_id: Which one.
            changes: Fields of `ExperienceDraft` by name, as they shall be; the others stay.
            workspace: Whose; the settings' where `None`.
            source: Who edits it.
            dry_run: Only return what would be.

        Returns:
            The experience as it is now, and the older wording, whose `status_reason` names the experience.

        Raises:
            NotFound: No such experience in this workspace.
            InvalidInput: A field is not as it has to be, nothing is changed, or it is withheld.
        """
        workspace = self._workspace(workspace)
        experience_id = clean.label(experience_id)
        store = await self._open_store()
        async with store.writing() as writer:
            before = (await store.experiences(workspace, [experience_id])).get(experience_id)
            if before is None:
                raise NotFound(clean.unknown("experience", experience_id, workspace))
            if quarantine.is_withheld(before):
                raise InvalidInput(f"{before.id} is held back; decide on it in `review` before you edit it")
            lesson = drafts.draft_of(before)
            draft = make_draft(lesson.model_dump() | dict(changes))
            edited = redacted(replace(before, **_fields(draft), updated_at=now()), self._redact)
            if drafts.draft_of(edited) == lesson:
                raise InvalidInput(f"{before.id} says so already; nothing is changed")
            older = rules_.archive(
                replace(before, id=new_id("e"), pinned=False), f"older wording of {before.id}", at=now()
            )
            after = quarantine.hold(edited, quarantine.suspicions(edited, edited.source))
            held = entries_of("quarantined", [after] if after is not edited else [], source=source)
            did = logs.entry(
                "edited", after.id, workspace=workspace, source=source, reason=f"older wording: {older.id}"
            )
            if not dry_run:
                await writer.add_log([did, *held])
                # They are those of the older wording.
                await writer.delete_vectors(workspace, experience_id)
                await writer.put_experiences([after, older])
        return after, older

    async def pin(
        self, experience_id: str, *, pinned: bool, workspace: str | None = None, source: str = BY_HAND
    ) -> Experience:
        """Exempt an experience from pruning, or subject it to it again.

        Raises:
            NotFound: No such experience in this workspace.
        """

        def changed(one: Experience) -> Experience:
            return replace(one, pinned=pinned, updated_at=now())

        return await self._change("pinned" if pinned else "unpinned", experience_id, workspace, changed, source=source)

    async def delete(self, experience_id: str, *, workspace: str | None = None, source: str = BY_HAND) -> Experience:
        """Take an experience out of the pool and return it as it was; it is kept aside, and `restore` undoes it.

        Unlike an archived one it does not stop the same from being learned again from another attempt.

        Raises:
            NotFound: No such experience in this workspace.
        """
        experience, _ = await self.experience(experience_id, workspace=workspace)
        store = await self._open_store()
        async with store.writing() as writer:
            # It may have changed meanwhile.
            current = (await store.experiences(experience.workspace, [experience.id])).get(experience.id)
            if current is None:
                raise NotFound(clean.unknown("experience", experience.id, experience.workspace))
            await writer.add_log(entries_of("deleted", [current], source=source))
            await writer.put_deleted(current)
            await writer.delete_experience(current.workspace, current.id)
        return current

    async def erase(
        self, id: str, *, workspace: str | None = None, source: str = BY_HAND, dry_run: bool = False
    ) -> Erasure:
        """Erase an experience or an attempt for good, from the files of the tables, too; `dry_run` says what would go.

        Backups that were made before hold it still.

        Args:
            id: Of an experience, in the pool or deleted, or of a trajectory.
            workspace: Where; the settings' where `None`.
            source: Who wants it.
            dry_run: Only look.

        Raises:
            NotFound: No such experience or trajectory in this workspace.
        """
        store = await self._open_store()
        found = await erasure.plan(store, self._workspace(workspace), clean.label(id))
        if not dry_run:
            await erasure.carry_out(store, found, source=source)
        return found

    async def import_file(
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
        source = clean.label(f"file:{file}")
        read = partial(jsonl.read, data, workspace=workspace, source=source, kind=kind, redact=self._redact, at=now())
        found = await anyio.to_thread.run_sync(read)
        tell(0, len(found))
        return await importer.import_file(
            file,
            found,
            workspace,
            await self._open_store(),
            self._vectors,
            self.settings,
            dry_run=dry_run,
            tell=lambda done: tell(done, len(found)),
        )

    async def import_pages(
        self,
        folder: str,
        pages: Sequence[Page],
        *,
        workspace: str | None = None,
        dry_run: bool = False,
        tell: Callable[[int, int], None] = lambda done, of: None,
    ) -> Imported:
        """Take lessons that a person wrote or edited as Markdown into a workspace; counters are never theirs to say.

        Args:
            folder: Its name, which new lessons will have as their source.
            pages: Its files.
            workspace: Whose they will be; the settings' where `None`.
            dry_run: Write nothing.
            tell: Told how many more pages are done, and of how many.

        Raises:
            StoreError: The pool can't be read or written; what is counted as done is stored.
        """
        workspace = self._workspace(workspace)
        source = clean.label(f"file:{folder}")
        store = await self._open_store()
        # A page of another workspace, or of another pool, is that of the lesson that it was taken in as.
        held = await store.of_origins(workspace, markdown.ids_in(pages))
        plan = markdown.plan(pages, held, workspace=workspace, source=source, redact=self._redact, at=now())
        tell(plan.known, len(pages))
        rejected: list[Unusable] = []
        after: list[Experience] = []
        for name, said in plan.edits.items():
            try:
                edited = await self.edit(
                    held[said.id].id, said.changes, workspace=workspace, source=source, dry_run=dry_run
                )
                after.append(edited[0])
            except InvalidInput as exc:
                rejected.append(Unusable(name, str(exc)))
            tell(1, len(pages))
        done = await importer.import_file(
            folder,
            plan.records,
            workspace,
            store,
            self._vectors,
            self.settings,
            dry_run=dry_run,
            tell=lambda done: tell(done, len(pages)),
        )
        return replace(
            done,
            read=len(pages),
            edited=len(after),
            quarantined=done.quarantined + sum(one.status == "quarantined" for one in after),
            known=done.known + plan.known,
            rejected=(*rejected, *done.rejected),
        )

    async def backup(self, target: Path | None = None, *, source: str = BY_HAND) -> Backup:
        """Write a copy of the whole pool, of every workspace, into one file; others go on working meanwhile.

        Args:
            target: A new file, or a folder for one; the home's own `backups` where `None`.
            source: Who wants it.

        Raises:
            StoreError: The home can't be read, or the file not be written; nothing is left of it.
        """
        home = folder_of(self.settings.home)
        made = await make(home, target)
        if made.schema == SCHEMA_VERSION:
            # To enter it must not upgrade what was only to be copied.
            await self._enter([logs.entry("backup made", made.file.name, workspace="", source=source)])
        return made

    async def restore_backup(
        self, what: str, *, source: str = BY_HAND, force: bool = False, dry_run: bool = False
    ) -> Restored:
        """Put a backup in the place of the pool; whoever has it open, this one too, goes on with it at the next call.

        The log goes on: what was entered since the backup was made is taken over, if it can be read.

        Args:
            what: A file, or the name of one of the home's own backups.
            source: Who wants it.
            force: Whether a pool that holds something may be replaced; a backup of it is kept.
            dry_run: Only look.

        Raises:
            InvalidInput: There is no such backup, it is damaged, or the pool holds something and `force` is off.
            StoreError: It is of a newer version, or there is no room for it; the pool is as it was.
        """
        home = folder_of(self.settings.home)
        if dry_run:
            return await backups.restore(home, what, force=force, dry_run=True)
        entries = await self._log_before(home)
        done = await backups.restore(home, what, force=force)
        undo = "" if done.undo is None else f"what was there is in {done.undo.name}"
        before = "" if entries is not None else "the log before it could not be read"
        reason = "; ".join(part for part in (undo, before) if part)
        entry = logs.entry("backup restored", done.file.name, workspace="", source=source, reason=reason)
        await self._enter([*(entries or []), entry])
        return done

    # --- inside ---

    async def _log_before(self, home: Path) -> list[Entry] | None:
        """Return all of the log of a home that is about to be replaced, `None` where it can't be read."""
        try:
            if folder.is_free(home):
                return []
            if folder.read_marker(home, schema=SCHEMA_VERSION).schema < SCHEMA_VERSION:
                return None
            return await (await self._open_store()).activity_log.every_entry()
        except folder.DamagedHome:
            # What is wrong with it is about to be mended.
            logger.warning("the log of the damaged home can't be read; that of the backup goes on")
            return None
        except StoreError as exc:
            logger.warning("the log can't be taken over: %s", exc)
            return None

    async def _enter(self, entries: Sequence[Entry]) -> None:
        """Enter what is done already; it stays done where that fails."""
        try:
            async with (await self._open_store()).settling() as writer:
                await writer.add_log(entries, are_new=False)
        except StoreError as exc:
            logger.warning("it is done, but not entered in the log: %s", exc)

    async def _undelete(self, store: Store, deleted: Experience, *, source: str, dry_run: bool) -> Experience:
        async with store.writing() as pool:
            async with pool.settling() as writer:
                tally = (await store.receipts.tally([deleted]))[deleted.id]
                counted = count(deleted, tally, at=now())
                if not dry_run:
                    await writer.add_log(entries_of("restored", [counted], source=source))
                    await writer.put_counters([counted])
            if not dry_run:
                await pool.put_experiences([counted])
                await pool.drop_deleted(counted.workspace, counted.id)
        return counted

    async def _change(
        self,
        did: Deed,
        experience_id: str,
        workspace: str | None,
        change: Callable[[Experience], Experience],
        *,
        source: str,
        dry_run: bool = False,
    ) -> Experience:
        """Apply `change` to one experience under the lock, and store it; `dry_run` only returns it."""
        workspace = self._workspace(workspace)
        experience_id = clean.label(experience_id)
        store = await self._open_store()
        async with store.writing() as pool:
            async with pool.settling() as writer:
                experience = (await store.experiences(workspace, [experience_id])).get(experience_id)
                if experience is None:
                    raise NotFound(clean.unknown("experience", experience_id, workspace))
                changed = change(experience)
                if not dry_run:
                    await writer.add_log(entries_of(did, [changed], source=source))
                    await writer.put_counters([changed])
            if not dry_run:
                await pool.put_experiences([changed])
        return changed


def _fields(draft: ExperienceDraft) -> dict[str, Any]:
    """Return the fields of a draft as an experience holds them."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in draft.model_dump().items()}


def _quarantined(experience: Experience) -> Experience:
    if experience.status != "quarantined":
        raise InvalidInput(f"{experience.id} is {experience.status}, not quarantined; there is nothing to review")
    return experience


def _restored(experience: Experience, *, at: datetime, keep_counters: bool) -> Experience:
    if experience.status != "archived":
        raise InvalidInput(f"{experience.id} is {experience.status}, not archived; there is nothing to restore")
    restored = rules_.activate(experience, at=at) if keep_counters else rules_.restore(experience, at=at)
    if quarantine.is_rejected(experience):
        # Who takes back what was rejected in review has seen what is suspected of it.
        return quarantine.approve(restored, experience.status_reason, at=at)
    # An older version or a file may have archived what nobody has looked at.
    return quarantine.hold(restored, quarantine.suspicions(restored))
