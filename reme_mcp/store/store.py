"""The pool on disk: LanceDB tables and a ledger in one home, shared by any number of processes.

In:  values of `schema.py`, and vectors that somebody else made.
Out: the same values, and hits as `(id, number)` pairs in rank order.
Does not know: what makes a lesson good, how hits are fused, which model made a vector.

Tables of LanceDB:
    experiences         one row per experience; full-text index over `search_text`
    vectors_<embedder>  id → vectors, one table per embedder, so that two embedders never share a space, and a change of
                        embedder loses nothing

Kinds of values in the ledger (`ledger.py`):
    trajectories        what was recorded, whether worked off or not
    receipts            one per recalled experience, settled or not; what the counters are summed from
    counters            of each experience with a known outcome; they count, not what stands in its row
    costs               one per question to the model behind the server
    log                 one per change that somebody made; they are only ever added
    trash               experiences that a person deleted, as they were

Reading needs no lock. What concerns the ledger alone goes through `Store.settling()`, whose block has the ledger to
itself for as long as one transaction takes. Whatever goes into LanceDB's tables goes through `Store.writing()`, which
holds a lock across tasks and processes: LanceDB's own optimistic commits fail under contention. What its block writes
to the ledger is written at once: when the block ends, and before anything of it goes into LanceDB's tables, so that
what a crash leaves undone is known from the ledger. LanceDB is imported on `open`, in a thread.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from reme_mcp.aio import Batcher
from reme_mcp.errors import StoreError
from reme_mcp.schema import Counters, Experience, ReceiptLine, Status, Summary
from reme_mcp.store import cache
from reme_mcp.store.attempts import Attempts
from reme_mcp.store.cache import Directory
from reme_mcp.store.compaction import Compaction
from reme_mcp.store.feed import Announce, Note, Tell, packed
from reme_mcp.store.folder import HomeMarker
from reme_mcp.store.following import Following
from reme_mcp.store.ledger import TABLES, Ledger, Put
from reme_mcp.store.ledger_writer import LedgerWriter
from reme_mcp.store.loaded import LoadedExperiences
from reme_mcp.store.location import Commit, Folder, Location
from reme_mcp.store.log import ActivityLog
from reme_mcp.store.migrations import MIGRATIONS, migrate
from reme_mcp.store.open_tables import OpenTables
from reme_mcp.store.receipts import Receipts
from reme_mcp.store.space import Space
from reme_mcp.store.successes import Successes
from reme_mcp.store.summaries import Summaries, summaries_of
from reme_mcp.store.table_ledger import TableLedger
from reme_mcp.store.tables import (
    all_of,
    columns_of,
    equals,
    has_status,
    is_in,
    joined,
    mapped,
    read_rows,
    read_table,
    schemas,
    space_name,
    to_arrow,
    to_row,
    values_in,
    vector_schema,
)
from reme_mcp.store.tried import Tries
from reme_mcp.text.fields import search_text
from reme_mcp.text.words import is_spaced
from reme_mcp.tracing import span, timed

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from lancedb.expr import Expr

    from reme_mcp.store.migrations import Migration


if TYPE_CHECKING:
    Vectors = npt.NDArray[np.float32]

# What a person sees of an experience in a list, and looks for there.
FILTERED = (
    "when_to_use",
    "content",
    "task",
    "id",
    "array_to_string(keywords, ' ')",
    "array_to_string(tools_used, ' ')",
)
# So many rows are read at once of columns without texts, and of texts, which several threads look through.
NARROW_ROWS = 100_000
WIDE_ROWS = 8_192
# More searches at once than these are no faster, and each holds some megabytes while it lasts.
READS_AT_ONCE = 8
# The processor has one at a time; of more, each that has begun keeps what it has found in memory.
SEARCHES_AT_ONCE = 8
# A recall waits so long for whoever writes receipts, and then goes without one.
RECEIPT_WAIT_S = 2.0


class Store(Attempts, LoadedExperiences):
    """The open tables of one home. Reads are here; `writing()` hands out the `Writer`."""

    def __init__(
        self,
        location: Location,
        tables: OpenTables,
        ledger: Ledger | None,
    ) -> None:
        """Make one; `ledger` is `None` where it stands in LanceDB's tables, too."""
        self.location = location
        self._tables = tables
        self._spaces: dict[str, Space] = {}
        self._directory = Directory()
        self._pool_lock = location.lock("pool")
        receipts_lock = location.lock("pool-receipts")
        self.queue_lock = location.lock("pool-queue")
        self._reading = anyio.CapacityLimiter(READS_AT_ONCE)
        self._searching = anyio.CapacityLimiter(SEARCHES_AT_ONCE)
        self.compaction = Compaction(
            tables,
            turn=location.lock("pool-upkeep"),
            writing=self._pool_lock,
            receipts=receipts_lock,
            rows_without_index=cache.ROWS_IN_MEMORY,
        )
        self._ledger: Ledger = (
            TableLedger(tables, receipts=receipts_lock.within, wrote=self.compaction.wrote)
            if ledger is None
            else ledger
        )
        self._following = Following(
            tables["experiences"], self._ledger, take_in=self._take_in_rows, read=self._read_new
        )
        self._counters: dict[str, Counters] = {}
        self._counters_until = 0
        adding = anyio.Lock()
        self._new_lines = Batcher(lambda: adding, self._add_lines)
        self.activity_log = ActivityLog(self._ledger)
        self.receipts = Receipts(self._ledger)
        self.successes = Successes(self._ledger)
        self.tries = Tries(self._ledger)

    @classmethod
    async def open(cls, home: Path | Location, *, migrations: Sequence[Migration] = MIGRATIONS) -> Store:
        """Open the pool in `home`, making the folder (private, 0700) and the tables where they are not there yet.

        Tables of an older version are upgraded; a backup of them, `schema-<number>-<time>`, is in the home then. A home
        that needs none of this is only read.

        Args:
            home: The folder, or where else it is.
            migrations: What leads from schema 1 to 2, and so on to the one that is asked for.

        Raises:
            StoreError: The folder can't be made, read or written, or was written by a newer version.
        """
        location = Folder(home) if isinstance(home, Path) else home
        while True:
            mark = await cls._prepare(location, migrations)
            try:
                return await cls._open_marked(location, mark)
            except StoreError:
                # Whoever upgrades the home or restores a backup has put other tables in the place of these.
                if await location.read_marker(schema=1 + len(migrations)) == mark:
                    raise

    @staticmethod
    async def _prepare(location: Location, migrations: Sequence[Migration]) -> HomeMarker:
        """Return the mark of a home whose tables are of the newest schema."""
        newest = 1 + len(migrations)
        mark = await location.prepare(schema=newest)
        if mark.schema == newest:
            return mark
        try:
            return await migrate(location, migrations)
        except StoreError as exc:
            raise StoreError(f"can't upgrade {location} from schema {mark.schema} to {newest}: {exc}") from exc

    @classmethod
    async def _open_marked(cls, location: Location, mark: HomeMarker) -> Store:
        """Open the tables that a mark names; those that are missing are made, if it is the home's mark still."""
        with mapped(f"open the pool in {location}"):
            tables = OpenTables(location, mark, await location.connect(mark))
        ledger = None
        try:
            wanted = dict(schemas())
            if isinstance(location, Folder):
                for name in TABLES.values():
                    wanted.pop(name, None)
            missing = wanted.keys() - await tables.names()
            for name in wanted.keys() - missing:
                await tables.open(name)
            await tables.open_vectors()
            if missing:
                async with location.lock("pool"):
                    await tables.check_current()
                    if isinstance(location, Folder):
                        ledger = await location.ledger(mark, is_new="experiences" in missing)
                    await tables.make({name: wanted[name] for name in sorted(missing)})
            elif isinstance(location, Folder):
                ledger = await location.ledger(mark, is_new=False)
        except BaseException:
            if ledger is not None:
                ledger.close()
            tables.close()
            raise
        return cls(location, tables, ledger)

    def close(self) -> None:
        """Close the tables and the ledger."""
        self._ledger.close()
        self._tables.close()

    async def is_current(self) -> bool:
        """Return whether the home still has these tables: another process may have upgraded or replaced them.

        Raises:
            StoreError: The home is gone.
        """
        return await self._tables.is_current()

    # --- experiences ---

    @timed("store: read experiences")
    async def experiences(
        self, workspace: str, ids: Sequence[str], *, statuses: Sequence[Status] | None = None
    ) -> dict[str, Experience]:
        """Return the experiences of `workspace` among `ids`, by id; those of other statuses are left out."""
        if not ids:
            return {}
        places = await self._places()
        directory, changes = self._directory, self._directory.changes
        read = {id: directory.read[id] for id in ids if id in directory.read}
        fresh = _by_id(directory.shelf.rows([id for id in ids if id not in read]))
        missing = [id for id in ids if id in places and id not in fresh and id not in read]
        if any(places[id].row is None for id in missing):
            await self._following.place_all()
            fresh |= _by_id(directory.shelf.rows(missing))
        if wanted := [row for id in missing if id not in fresh and (row := directory.row(id)) is not None]:
            taken = await self._take(wanted)
            if directory.changes == changes:
                # Otherwise somebody has changed them meanwhile, maybe after they were read.
                for batch in taken:
                    directory.shelf.put(batch)
            fresh |= _by_id(taken)
        if directory.changes == changes:
            directory.keep_read(fresh)
        read |= fresh
        found = await self._counted([read[id] for id in ids if id in read])
        return {
            one.id: one for one in found if one.workspace == workspace and (statuses is None or one.status in statuses)
        }

    def search_turn(self) -> AbstractAsyncContextManager[object]:
        """Return what a search holds while it is on: where all is in memory, more at once find nothing sooner."""
        is_in_memory = self._directory.words is not None and self._ledger.has_feed
        return self._searching if is_in_memory else nullcontext()

    async def _stored(self, ids: Sequence[str]) -> list[Experience]:
        """Return the experiences among `ids`, whatever their workspace and status."""
        places = await self._places()
        of_workspace: dict[str, list[str]] = {}
        for id in ids:
            if id in places:
                of_workspace.setdefault(places[id].workspace, []).append(id)
        return [one for name, some in of_workspace.items() for one in (await self.experiences(name, some)).values()]

    @timed("store: read page")
    async def page(
        self, workspace: str, *, statuses: Sequence[Status] | None = None, offset: int = 0, limit: int = 50
    ) -> list[Experience]:
        """Return `limit` experiences of `workspace`, newest first, from `offset` on."""
        where = all_of(equals("workspace", workspace), has_status(statuses))
        return await self._rows(where, newest_first=True, offset=offset, limit=limit)

    @timed("store: read summaries")
    async def summaries(self, workspace: str) -> Summaries:
        """Return every experience of `workspace` without its texts, newest first."""
        with mapped("read experiences"):
            query = self._tables["experiences"].query().where(equals("workspace", workspace))
            rows = await read_table(query.select(columns_of(Summary)), batch_rows=NARROW_ROWS)
        return summaries_of(rows, await self._known_counters())

    async def ids_with_words(self, workspace: str, words: str) -> set[str]:
        """Return the ids of the experiences whose texts hold these very words, in capitals or not."""
        from lancedb import lit

        held = " OR ".join(f"contains(lower({column}), {lit(words.lower()).to_sql()})" for column in FILTERED)
        where = f"{equals('workspace', workspace).to_sql()} AND ({held})"
        with mapped("filter experiences"):
            query = self._tables["experiences"].query().where(where).select(["id"])
            found = await read_table(query, batch_rows=WIDE_ROWS)
        return set(found.column("id").to_pylist())

    async def count(self, workspace: str) -> dict[Status, int]:
        """Return how many experiences of each status `workspace` holds."""
        with mapped("count experiences"):
            query = self._tables["experiences"].query().where(equals("workspace", workspace)).select(["status"])
            counted = (await query.to_arrow()).column("status").value_counts().to_pylist()
        return {one["values"]: one["counts"] for one in sorted(counted, key=lambda one: one["values"])}

    async def sources(self, workspace: str, *, statuses: Sequence[Status]) -> list[str]:
        """Return the source of each experience of `workspace` that has one of these statuses."""
        where = all_of(equals("workspace", workspace), has_status(statuses))
        with mapped("read sources"):
            found = await self._tables["experiences"].query().where(where).select(["source"]).to_arrow()
        names: list[str] = found.column("source").to_pylist()
        return names

    async def workspaces(self) -> list[str]:
        """Return the names of all workspaces that hold an experience, sorted."""
        return sorted({place.workspace for place in (await self._places()).values()})

    async def has_provisional(self) -> bool:
        """Return whether any experience of any workspace is provisional; mostly none is, and this is quick."""
        await self._places()
        return bool(self._directory.provisional)

    async def provisional(self, workspace: str, trajectory_ids: Sequence[str]) -> list[Experience]:
        """Return the provisional experiences of `workspace` that were learned from any of these trajectories."""
        return await self.learned_from(workspace, trajectory_ids, statuses=["provisional"])

    async def learned_from(
        self, workspace: str, trajectory_ids: Sequence[str], *, statuses: Sequence[Status] | None = None
    ) -> list[Experience]:
        """Return the experiences of `workspace` that were learned from any of these trajectories."""
        if not trajectory_ids:
            return []
        from lancedb import lit

        # LanceDB's expressions know no lists, its SQL does.
        where = all_of(equals("workspace", workspace), has_status(statuses)).to_sql()
        listed = ", ".join(lit(id).to_sql() for id in trajectory_ids)
        return await self._rows(f"{where} AND array_has_any(trajectory_ids, [{listed}])")

    async def of_origins(self, workspace: str, origins: Sequence[str]) -> dict[str, Experience]:
        """Return what `workspace` has of some `origins`: by its own id, or by an id that it had where it came from."""
        if not origins:
            return {}
        from lancedb import lit

        listed = ", ".join(lit(id).to_sql() for id in origins)
        where = f"{equals('workspace', workspace).to_sql()} AND array_has_any(origins, [{listed}])"
        found = await self._rows(where)
        wanted = set(origins)
        known = {origin: one for one in found for origin in one.origins if origin in wanted}
        return known | await self.experiences(workspace, origins)

    @timed("store: match text")
    async def match_text(
        self, workspace: str, query: str, *, statuses: Sequence[Status], also: Sequence[str] = (), limit: int
    ) -> list[tuple[str, float]]:
        """Return up to `limit` `(id, BM25)` pairs, best first, for the words of `query`.

        Those of other statuses are not searched, but for the ids in `also`.
        """
        await self._places()
        words = self._directory.words
        if words is not None and is_spaced(query):
            return words.match(workspace, query, statuses=statuses, also=also, limit=limit)
        return await self._reach(partial(self._matching, query, self._of(workspace)), workspace, statuses, also, limit)

    def _of(self, workspace: str) -> Expr | None:
        """Return the condition of a workspace; none of the only one: what is found is filtered at less cost."""
        return None if self._directory.workspaces == {workspace} else equals("workspace", workspace)

    async def _matching(self, query: str, where: Expr | None, limit: int) -> list[tuple[str, float]]:
        with mapped("search the text"):
            search = self._tables["experiences"].query().nearest_to_text(query, columns="search_text")
            if where is not None:
                search = search.where(where)
            # The ids of a hundred rows would take as long to read as the search itself.
            search = search.select(["_score"]).with_row_id()
            async with self._reading:
                found = await search.limit(limit).to_arrow()
        values: list[float] = found.column("_score").to_pylist()
        await self._places()
        rows, ids = found.column("_rowid").to_pylist(), self._directory.ids
        if self._following.has_unplaced and not all(row in ids for row in rows):
            await self._following.place_all()
        return [(ids[row], value) for row, value in zip(rows, values, strict=True) if row in ids]

    async def _reach(
        self,
        search: Callable[[int], Awaitable[list[tuple[str, float]]]],
        workspace: str,
        statuses: Sequence[Status],
        also: Sequence[str],
        limit: int,
    ) -> list[tuple[str, float]]:
        """Return up to `limit` of a search's hits that have one of the statuses, or are in `also`."""
        reach = 2 * limit
        while True:
            hits = await search(reach)
            found = await self._with_status(workspace, hits, statuses, also)
            if len(found) >= limit or len(hits) < reach:
                return found[:limit]
            # What is archived stands in front of what is not.
            reach *= 4

    # --- vectors ---

    @timed("store: match vectors")
    async def match_vector(
        self,
        embedder: str,
        workspace: str,
        vector: Vectors,
        *,
        statuses: Sequence[Status] | None = None,
        also: Sequence[str] = (),
        limit: int,
    ) -> list[tuple[str, float]]:
        """Return up to `limit` `(id, cosine)` pairs, best first.

        Args:
            embedder: The name of the model that made `vector`.
            workspace: Whose experiences are searched.
            vector: (dim,) float32, unit norm.
            statuses: Which of them; all where `None`.
            also: Ids that are searched whatever their status.
            limit: How many.
        """
        if statuses is None:
            return await self._nearest(embedder, workspace, vector, limit)
        return await self._reach(partial(self._nearest, embedder, workspace, vector), workspace, statuses, also, limit)

    async def _nearest(self, embedder: str, workspace: str, vector: Vectors, limit: int) -> list[tuple[str, float]]:
        space = await self._space(embedder)
        if space is None:
            return []
        with mapped("search the vectors"):
            if (nearest := await space.nearest(workspace, vector, limit)) is not None:
                return nearest
            await self._places()
            query = space.table.query().nearest_to(vector).column("vector")
            if (where := self._of(workspace)) is not None:
                query = query.where(where)
            hits = await query.distance_type("cosine").select(["id", "_distance"]).limit(limit).to_list()
        return [(hit["id"], 1.0 - hit["_distance"]) for hit in hits]

    async def _with_status(
        self, workspace: str, hits: Sequence[tuple[str, float]], statuses: Sequence[Status], also: Sequence[str]
    ) -> list[tuple[str, float]]:
        places = await self._places()
        known = [(id, value) for id, value in hits if id in places and places[id].workspace == workspace]
        return [(id, value) for id, value in known if places[id].status in statuses or id in also]

    async def lesson_vectors(self, embedder: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """Return the lesson vectors, (dim,) float32, unit norm, of those among `ids` that have one, by id."""
        space = await self._space(embedder)
        if space is None or not ids:
            return {}
        with mapped("read the vectors"):
            return await space.lessons(ids)

    async def without_vector(self, embedder: str) -> list[str]:
        """Return the ids of all experiences, of every workspace, that `embedder` has not embedded yet."""
        space = await self._space(embedder)
        with mapped("look for missing vectors"):
            experiences = self._tables["experiences"]
            if space is not None and await space.table.count_rows() >= await experiences.count_rows():
                return []
            ids: list[str] = (await experiences.query().select(["id"]).to_arrow()).column("id").to_pylist()
            done: list[str] = (
                (await space.table.query().select(["id"]).to_arrow()).column("id").to_pylist()
                if space is not None
                else []
            )
        return sorted(set(ids) - set(done))

    async def experiences_to_embed(self, ids: Sequence[str]) -> list[Experience]:
        """Return the experiences among `ids`, whatever their workspace: the only read that crosses workspaces."""
        return await self._rows(is_in("id", ids))

    # --- writing ---

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Writer]:
        """Hold the pool for writing: nobody else, in this process or another, writes meanwhile.

        What happens inside is shielded from cancellation, because a cancelled write may still commit.
        """
        with span("store: write"):
            async with self._pool_lock:
                await self._tables.check_current()
                with anyio.CancelScope(shield=True), self._first():
                    if not self._tables.are_registered:
                        await self._tables.register()
                    writer = Writer(self)
                    await writer.find_unfinished()
                    try:
                        yield writer
                        await writer.finish()
                    except BaseException:
                        await writer.give_up()
                        raise

    @contextmanager
    def _first(self) -> Iterator[None]:
        """Let one search go on beside the block: each of its many steps would wait for a step of all of them."""
        self._searching.total_tokens = 1
        try:
            yield
        finally:
            self._searching.total_tokens = SEARCHES_AT_ONCE

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[LedgerWriter]:
        """Hold the ledger for writing, and not the pool: what is read of it in the block stays so until the block ends.

        All that the block puts is there when it ends, or nothing where it raises. Only what the ledger says should be
        read inside: others wait meanwhile.
        """
        if isinstance(self._ledger, TableLedger):
            # Tables know no transactions.
            async with self.writing() as writer:
                yield writer
            return
        with span("store: settle"):
            async with self._ledger.turn() as changes:
                yield LedgerWriter(changes)

    @timed("store: add receipt")
    async def add_receipt(self, lines: Sequence[ReceiptLine]) -> None:
        """Append the lines of one new receipt. It waits for other receipts only, not for the rest of the pool.

        Those that come while others are written are written together.
        """
        await self._new_lines.submit(lines)

    async def _add_lines(self, lines: list[ReceiptLine]) -> None:
        await self._tables.check_current()
        await self._ledger.write([Put(ReceiptLine, lines, are_new=True)], wait_s=RECEIPT_WAIT_S)

    async def versions(self) -> dict[str, int]:
        """Return the version of each table: as long as none changes, nobody writes into them."""
        return {name: await self._tables.version(name) for name in self._tables}

    async def ledger_versions(self) -> dict[str, int]:
        """Return the versions of the ledger and of its counters; where it stands in tables, theirs count, too."""
        await self._known_counters()
        return {"counters": self._counters_until, "ledger": await self._ledger.version()}

    async def purge_deleted(self) -> None:
        """Leave nothing in the files of any table, of all embedders' vectors too, that was deleted from it."""
        await self._tables.open_vectors()
        await self.compaction.purge_deleted(rewritten=self._forget_notes)
        await self._ledger.purge_deleted()

    async def _forget_notes(self) -> None:
        """Have everybody read the tables anew, and nobody what was told of them."""
        if self._ledger.has_feed:
            await self._ledger.write([Tell(await self._without_rows(), is_all=True)])

    async def _without_rows(self) -> list[Note]:
        """Return notes that say of every table no more than that it has to be read."""
        return [Note(name, version) for name, version in (await self.versions()).items()]

    async def _rows(
        self, where: Expr | str | None, *, newest_first: bool = False, offset: int = 0, limit: int | None = None
    ) -> list[Experience]:
        by = "created_at" if newest_first else None
        opened = self._tables["experiences"]
        found = await read_rows(opened, Experience, where, newest_by=by, offset=offset, limit=limit)
        return await self._counted(found)

    async def _counted(self, experiences: list[Experience]) -> list[Experience]:
        """Return experiences, as their rows say, with their counters."""
        known = await self._known_counters()
        return [known[one.id].on(one) if one.id in known else one for one in experiences]

    async def _known_counters(self) -> Mapping[str, Counters]:
        """Return the counters of all that have any, by experience id, as any process has left them."""
        self._counters_until, fresh = await self._ledger.counters(self._counters_until)
        self._counters |= {one.id: one for one in fresh}
        return self._counters

    async def _take(self, rows: Sequence[int]) -> list[pa.RecordBatch]:
        """Return the experiences in these places of their table; one that was deleted meanwhile is left out."""
        with mapped("read experiences"):
            async with self._reading:
                taken = self._tables["experiences"].take_row_ids(list(rows)).select(columns_of(Experience))
                batches: list[pa.RecordBatch] = (await taken.to_arrow()).to_batches()
        return batches

    async def _space(self, embedder: str) -> Space | None:
        """Return the vectors of `embedder`, or `None` while nobody has made any."""
        name = space_name(embedder)
        if name not in self._spaces:
            if name not in self._tables and name not in await self._tables.names():
                return None
            await self._tables.open(name)
        return self._space_of(name)

    def _space_of(self, name: str) -> Space:
        """Return the vectors of an open table."""
        if name not in self._spaces:
            self._spaces[name] = Space(self._tables[name], self._ledger, max_rows=cache.ROWS_IN_MEMORY)
        return self._spaces[name]


class Writer(LedgerWriter):
    """The right to write, held from `Store.writing()` until its block ends. What puts may be repeated safely."""

    def __init__(self, store: Store) -> None:
        super().__init__([])
        self._store = store
        self._is_announced = False
        self._notes: list[Note] = []

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[LedgerWriter]:
        """Hold the ledger, too, as `Store.settling` does; what was put before the block is written with it.

        What is put into the tables after it takes no turn of its own to be announced.
        """
        pending, is_announced = len(self._changes), self._is_announced
        async with self._store._ledger.turn(within=self._left()) as changes:
            changes += self._changes
            yield LedgerWriter(changes)
            if changes and self._store._ledger.has_feed and not is_announced:
                changes.append(Announce())
                is_announced = True
        # Where the block raises, none of it is written: it is still to be done.
        del self._changes[:pending]
        self._is_announced = is_announced

    async def put_experiences(self, experiences: Sequence[Experience], *, are_new: bool = False) -> None:
        """Insert the experiences, or replace those whose id is there already; `are_new`: none is, which is faster.

        The counters of one that is there stay as they are, whatever it says: they are the ledger's.
        """
        changed = experiences
        if not are_new:
            stored = {one.id: one for one in await self._store._stored([one.id for one in experiences])}
            changed = [one for one in experiences if one.id not in stored or _without_counters(one, stored[one.id])]
        if not changed:
            return
        await self.flush()
        values = [to_row(experience) | {"search_text": search_text(experience)} for experience in changed]
        rows = to_arrow(values, await self._store._tables.schema("experiences"))
        commit = await self._put("experiences", rows, are_new=are_new)
        await self._store._following.wrote(rows, before=commit.before, after=commit.after)

    async def put_vectors(
        self,
        embedder: str,
        experiences: Sequence[Experience],
        vectors: Vectors,
        lessons: Vectors,
        *,
        are_new: bool = False,
    ) -> None:
        """Store what `embedder` made of the experiences, in their order.

        Args:
            embedder: Its name.
            experiences: n of them.
            vectors: What search compares, (n, dim) float32, unit norm.
            lessons: What deduplication compares, the same shape.
            are_new: None of them has any yet, which is faster.
        """
        if not experiences:
            return
        await self.flush()
        name = space_name(embedder)
        if await self._store._space(embedder) is None:
            await self._store._tables.make({name: vector_schema(vectors.shape[1])})
        values = [
            {"id": experience.id, "workspace": experience.workspace, "vector": vector, "lesson": lesson}
            for experience, vector, lesson in zip(experiences, vectors, lessons, strict=True)
        ]
        space = self._store._space_of(name)
        rows = to_arrow(values, await self._store._tables.schema(name))
        commit = await self._put(name, rows, are_new=are_new)
        await space.wrote(rows, before=commit.before, after=commit.after)

    async def delete_experience(self, workspace: str, experience_id: str) -> None:
        """Remove one experience and its vectors; its receipts stay."""
        await self.flush()
        await self._delete("experiences", workspace, experience_id)
        await self.delete_vectors(workspace, experience_id)

    async def delete_vectors(self, workspace: str, experience_id: str) -> None:
        """Remove the vectors of one experience; those of its present text are filled in later."""
        for name in await self._store._tables.open_vectors():
            await self._delete(name, workspace, experience_id)

    async def flush(self) -> None:
        """Write what has come for the ledger so far, and come back when it is there for good.

        Raises:
            StoreError: It can't be written.
        """
        changes = self._changes[:]
        self._changes.clear()
        if changes:
            await self._store._ledger.write(changes, within=self._left())

    async def find_unfinished(self) -> None:
        """Have everybody read the tables if the one who announced a commit last has died over it."""
        if self._store._ledger.is_unfinished():
            await self._store._tables.open_vectors()
            await self._store._ledger.write([Tell(await self._store._without_rows())])

    async def finish(self) -> None:
        """Write what has come for the ledger, and tell of what was put into the tables."""
        if self._is_announced:
            self._changes.append(Tell(self._notes))
        await self.flush()

    async def give_up(self) -> None:
        """Have everybody look into the tables for what was put there before something failed."""
        self._changes.clear()
        if self._is_announced:
            # Where this fails, too, the next one who writes finds the announcement.
            with suppress(StoreError):
                await self._store._ledger.write([Tell(await self._store._without_rows())])

    @asynccontextmanager
    async def _committing(self, name: str) -> AsyncIterator[tuple[lancedb.AsyncTable, Commit]]:
        """Hand out a table to write into, once; when the block ends, what was written is on the disk."""
        async with self._store._tables.committing(name) as (table, commit):
            # Only now: nothing is written into a home that turns out to be damaged.
            if self._store._ledger.has_feed and not self._is_announced:
                await self._store._ledger.write([Announce()], within=self._left())
                self._is_announced = True
            yield table, commit
        self._store.compaction.wrote(name)

    async def _delete(self, name: str, workspace: str, experience_id: str) -> None:
        """Remove the row of an experience; others have to look into the table for that."""
        self._left()
        async with self._committing(name) as (table, commit):
            deleted = await table.delete(all_of(equals("workspace", workspace), equals("id", experience_id)))
            commit.after = deleted.version
        self._notes.append(Note(name, commit.after))

    def _left(self) -> timedelta | None:
        """Return how long a write may take, so that nothing is written once somebody else may; `None` for any time.

        Raises:
            StoreError: The turn to write is over already.
        """
        left = self._store._pool_lock.left()
        return None if left == math.inf else timedelta(seconds=left)

    async def _put(self, name: str, rows: pa.Table, *, are_new: bool) -> Commit:
        """Insert the rows, or replace those whose id is there already; `are_new`: none is."""
        left = self._left()
        async with self._committing(name) as (table, commit):
            if are_new:
                commit.after = (await table.add(rows)).version
            else:
                # Not through an index: one on the key would hide rows of other processes and double them.
                merge = table.merge_insert("id").use_index(False).when_matched_update_all()
                merged = await merge.when_not_matched_insert_all().execute(rows, timeout=left)
                commit.after = merged.version
        if self._store._ledger.has_feed:
            self._notes.append(Note(name, commit.after, packed(rows)))
        return commit


def _by_id(batches: Sequence[pa.RecordBatch]) -> dict[str, Experience]:
    return {one.id: one for one in values_in(Experience, joined(batches))} if batches else {}


def _without_counters(one: Experience, stored: Experience) -> bool:
    """Return whether an experience differs from what is stored in anything but its counters."""
    return Counters.of(stored).on(one) != replace(stored, updated_at=max(one.updated_at, stored.updated_at))
