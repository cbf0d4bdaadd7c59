"""The pool on disk: LanceDB tables in one home folder, shared by any number of processes.

In:  values of `schema.py`, and vectors that somebody else made.
Out: the same values, and hits as `(id, number)` pairs in rank order.
Does not know: what makes a lesson good, how hits are fused, which model made a vector.

Tables:
    experiences         one row per experience; full-text index over `search_text`
    trajectories        what was recorded, whether worked off or not
    receipts            one row per recalled experience, settled or not; the ledger that the counters are summed from
    vectors_<embedder>  id → vectors, one table per embedder, so that two embedders never share a space, a change of
                        embedder loses nothing, and a settled counter does not rewrite vectors

Reading needs no lock. All writing but appending a receipt goes through `Store.writing()`, which holds a lock across
tasks and processes: LanceDB's own optimistic commits fail under contention. Receipts have a lock of their own, so that
a recall never waits for somebody who records or compacts. LanceDB is imported on `open`, in a thread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import os
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from reme_mcp import home as homes
from reme_mcp.errors import StoreError
from reme_mcp.lock import ProcessLock
from reme_mcp.schema import Experience, ReceiptLine, Status, Trajectory
from reme_mcp.searchable import search_text
from reme_mcp.upgrades import UPGRADES
from reme_mcp.words import STOP_WORDS

if TYPE_CHECKING:
    import lancedb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    from lancedb.expr import Expr

    from reme_mcp.matrix import Matrix
    from reme_mcp.upgrades import Upgrade

    Vectors = npt.NDArray[np.float32]

UPKEEP_EVERY_WRITES = 20
# Readers in other processes hold a version for milliseconds; ten minutes are safe for any of them.
KEEP_VERSIONS = timedelta(minutes=10)
# Above this many vectors the matrix would outgrow the memory limit, and LanceDB's own search takes over.
MATRIX_ROWS = 100_000

Row = TypeVar("Row", Experience, Trajectory, ReceiptLine)


@dataclass(frozen=True, slots=True)
class Tally:
    """What the receipts say of one experience.

    Attributes:
        recalled: All recalls since `counted_since`, known outcome or not.
        frequency: Those with a known outcome.
        utility: Those that helped.
        last_recalled_at: `None` where it never was.
    """

    recalled: int = 0
    frequency: int = 0
    utility: int = 0
    last_recalled_at: datetime | None = None


@dataclass(slots=True)
class _Space:
    """The vector table of one embedder, and what of it is in memory: all rows up to `version` of the table."""

    table: lancedb.AsyncTable
    matrix: Matrix | None = None
    version: int = 0


class Store:
    """The open tables of one home. Reads are here; `writing()` hands out the `Writer`."""

    def __init__(
        self,
        home: Path,
        mark: homes.Mark,
        connection: lancedb.AsyncConnection,
        tables: dict[str, lancedb.AsyncTable],
    ) -> None:
        self.home = home
        self._mark = mark
        self._connection = connection
        self._tables = tables
        self._spaces: dict[str, _Space] = {}
        self._refreshing = anyio.Lock()
        self._pool_lock = ProcessLock(home / "pool.lock")
        self._receipts_lock = ProcessLock(home / "pool-receipts.lock")
        self._writes: Counter[str] = Counter()

    @classmethod
    async def open(cls, home: Path, *, upgrades: Sequence[Upgrade] = UPGRADES) -> Store:
        """Open the pool in `home`, making the folder (private, 0700) and the tables where they are not there yet.

        Tables of an older version are upgraded; a backup of them, `schema-<number>-<time>`, is in the home then. A home
        that needs none of this is only read.

        Args:
            home: The folder.
            upgrades: What leads from schema 1 to 2, and so on to the one that is asked for.

        Raises:
            StoreError: The folder can't be made, read or written, or was written by a newer version.
        """
        newest = 1 + len(upgrades)
        mark = homes.prepare(home, schema=newest)
        if mark.schema < newest:
            try:
                mark = await _upgrade(home, upgrades)
            except StoreError as exc:
                raise StoreError(f"can't upgrade {home} from schema {mark.schema} to {newest}: {exc}") from exc
        with _mapped(f"open the pool in {home}"):
            connection = await _connect(home / mark.pool)
            store = cls(home, mark, connection, {})
            schemas = _schemas()
            present = set((await connection.list_tables()).tables or [])
            if missing := [name for name in schemas if name not in present]:
                async with store._pool_lock:
                    for name in missing:
                        await _create_table(connection, name, schemas[name])
            for name in schemas:
                store._tables[name] = await connection.open_table(name)
        return store

    def close(self) -> None:
        """Close the tables and the connection."""
        for table in self._open_tables().values():
            table.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
        self._connection.close()  # type: ignore[no-untyped-call]  # likewise

    def is_current(self) -> bool:
        """Return whether the home still has these tables: another process may have upgraded or replaced them.

        Raises:
            StoreError: The home is gone.
        """
        return homes.read_mark(self.home, schema=sys.maxsize) == self._mark

    # --- experiences ---

    async def experiences(
        self, workspace: str, ids: Sequence[str], *, statuses: Sequence[Status] | None = None
    ) -> dict[str, Experience]:
        """Return the experiences of `workspace` among `ids`, by id; those of other statuses are left out."""
        if not ids:
            return {}
        where = _all(_equals("workspace", workspace), _among("id", ids), _of_status(statuses))
        rows = await self._rows("experiences", Experience, where)
        return {row.id: row for row in rows}

    async def page(
        self, workspace: str, *, statuses: Sequence[Status] | None = None, offset: int = 0, limit: int = 50
    ) -> list[Experience]:
        """Return `limit` experiences of `workspace`, newest first, from `offset` on."""
        where = _all(_equals("workspace", workspace), _of_status(statuses))
        return await self._rows("experiences", Experience, where, newest_first=True, offset=offset, limit=limit)

    async def count(self, workspace: str) -> dict[Status, int]:
        """Return how many experiences of each status `workspace` holds."""
        with _mapped("count experiences"):
            query = self._tables["experiences"].query().where(_equals("workspace", workspace)).select(["status"])
            statuses: list[Status] = (await query.to_arrow()).column("status").to_pylist()
        return {status: statuses.count(status) for status in sorted(set(statuses))}

    async def workspaces(self) -> list[str]:
        """Return the names of all workspaces that hold an experience, sorted."""
        with _mapped("list workspaces"):
            names = (await self._tables["experiences"].query().select(["workspace"]).to_arrow()).column("workspace")
            return sorted(names.unique().to_pylist())

    async def match_text(
        self, workspace: str, query: str, *, statuses: Sequence[Status], limit: int
    ) -> list[tuple[str, float]]:
        """Return up to `limit` `(id, BM25)` pairs, best first, for the words of `query`."""
        with _mapped("search the text"):
            rows = await (
                self._tables["experiences"]
                .query()
                .nearest_to_text(query, columns="search_text")
                .where(_all(_equals("workspace", workspace), _among("status", statuses)))
                .select(["id", "_score"])
                .limit(limit)
                .to_list()
            )
        return [(row["id"], row["_score"]) for row in rows]

    # --- vectors ---

    async def match_vector(
        self, embedder: str, workspace: str, vector: Vectors, *, statuses: Sequence[Status] | None = None, limit: int
    ) -> list[tuple[str, float]]:
        """Return up to `limit` `(id, cosine)` pairs, best first.

        Args:
            embedder: The name of the model that made `vector`.
            workspace: Whose experiences are searched.
            vector: (dim,) float32, unit norm.
            statuses: Which of them; all where `None`.
            limit: How many.
        """
        reach = limit if statuses is None else 2 * limit
        while True:
            hits = await self._nearest(embedder, workspace, vector, reach)
            found = hits if statuses is None else await self._with_status(workspace, hits, statuses)
            if len(found) >= limit or len(hits) < reach:
                return found[:limit]
            # What is archived stands in front of what is not.
            reach *= 4

    async def _nearest(self, embedder: str, workspace: str, vector: Vectors, limit: int) -> list[tuple[str, float]]:
        space = await self._space(embedder)
        if space is None:
            return []
        with _mapped("search the vectors"):
            rows = await space.table.count_rows()
            if rows > MATRIX_ROWS:
                query = space.table.query().where(_equals("workspace", workspace)).nearest_to(vector).column("vector")
                hits = await query.distance_type("cosine").select(["id", "_distance"]).limit(limit).to_list()
                return [(hit["id"], 1.0 - hit["_distance"]) for hit in hits]
            return (await self._matrix(space, rows)).nearest(workspace, vector, limit)

    async def _with_status(
        self, workspace: str, hits: Sequence[tuple[str, float]], statuses: Sequence[Status]
    ) -> list[tuple[str, float]]:
        if not hits:
            return []
        where = _all(_equals("workspace", workspace), _among("id", [id for id, _ in hits]), _of_status(statuses))
        with _mapped("search the vectors"):
            rows = await self._tables["experiences"].query().where(where).select(["id"]).to_arrow()
        ids = set(rows.column("id").to_pylist())
        return [(id, cosine) for id, cosine in hits if id in ids]

    async def lesson_vectors(self, embedder: str, ids: Sequence[str]) -> dict[str, Vectors]:
        """Return the lesson vectors, (dim,) float32, unit norm, of those among `ids` that have one, by id."""
        space = await self._space(embedder)
        if space is None or not ids:
            return {}
        with _mapped("read the vectors"):
            rows = await space.table.query().where(_among("id", ids)).select(["id", "lesson"]).to_arrow()
        lessons = rows.column("lesson").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return dict(zip(rows.column("id").to_pylist(), lessons.reshape(len(rows), -1), strict=True))

    async def without_vector(self, embedder: str) -> list[str]:
        """Return the ids of all experiences, of every workspace, that `embedder` has not embedded yet."""
        space = await self._space(embedder)
        with _mapped("look for missing vectors"):
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
        return await self._rows("experiences", Experience, _among("id", ids))

    # --- trajectories ---

    async def trajectory(self, workspace: str, trajectory_id: str) -> Trajectory | None:
        """Return one trajectory of `workspace`, or `None`."""
        where = _all(_equals("workspace", workspace), _equals("id", trajectory_id))
        return next(iter(await self._rows("trajectories", Trajectory, where)), None)

    async def trajectory_by_digest(self, workspace: str, digest: str) -> Trajectory | None:
        """Return the trajectory that was recorded from exactly the same call, or `None`."""
        where = _all(_equals("workspace", workspace), _equals("digest", digest))
        return next(iter(await self._rows("trajectories", Trajectory, where)), None)

    async def attempts(self, workspace: str, key: str, *, limit: int) -> list[Trajectory]:
        """Return the latest `limit` trajectories at the task with this `task_key`, newest first."""
        where = _all(_equals("workspace", workspace), _equals("task_key", key))
        return await self._rows("trajectories", Trajectory, where, newest_first=True, limit=limit)

    async def pending(self) -> list[Trajectory]:
        """Return the trajectories of all workspaces that were stored but not worked off: a process died in between."""
        return await self._rows("trajectories", Trajectory, _equals("status", "pending"))

    async def count_trajectories(self, workspace: str) -> dict[str, int]:
        """Return how many trajectories of each outcome, and how many not yet distilled, `workspace` holds."""
        with _mapped("count trajectories"):
            query = self._tables["trajectories"].query().where(_equals("workspace", workspace))
            rows = await query.select(["outcome", "status"]).to_list()
        undistilled = sum(row["status"] in ("pending", "awaiting_experiences") for row in rows)
        outcomes = [row["outcome"] for row in rows]
        return {"success": outcomes.count("success"), "failure": outcomes.count("failure"), "undistilled": undistilled}

    # --- receipts ---

    async def receipt(self, workspace: str, receipt: str) -> list[ReceiptLine]:
        """Return the lines of one receipt of `workspace` in rank order; empty where there is no such receipt."""
        where = _all(_equals("workspace", workspace), _equals("receipt", receipt))
        return sorted(await self._rows("receipts", ReceiptLine, where), key=lambda line: line.rank)

    async def latest_line(self, workspace: str, experience_id: str, source: str) -> ReceiptLine | None:
        """Return the newest receipt line that handed `experience_id` to `source`, or `None`."""
        where = _all(
            _equals("workspace", workspace), _equals("experience_id", experience_id), _equals("source", source)
        )
        return next(iter(await self._rows("receipts", ReceiptLine, where, newest_first=True, limit=1)), None)

    async def tally(self, experiences: Sequence[Experience]) -> dict[str, Tally]:
        """Return what the receipts since each experience's `counted_since` say, by experience id."""
        if not experiences:
            return {}
        with _mapped("count receipts"):
            lines = await (
                self._tables["receipts"]
                .query()
                .where(_among("experience_id", [experience.id for experience in experiences]))
                .select(["experience_id", "helped", "created_at"])
                .to_list()
            )
        tallies = {}
        for experience in experiences:
            own = [
                line
                for line in lines
                if line["experience_id"] == experience.id and line["created_at"] >= experience.counted_since
            ]
            tallies[experience.id] = Tally(
                recalled=len(own),
                frequency=sum(line["helped"] is not None for line in own),
                utility=sum(line["helped"] is True for line in own),
                last_recalled_at=max((line["created_at"] for line in own), default=None),
            )
        return tallies

    async def count_receipts(self, workspace: str) -> dict[str, int]:
        """Return how many recalls, recalled experiences and settled ones `workspace` has had."""
        with _mapped("count receipts"):
            query = self._tables["receipts"].query().where(_equals("workspace", workspace))
            rows = await query.select(["receipt", "experience_id", "helped"]).to_list()
        handed_out = [row for row in rows if row["experience_id"]]
        return {
            "recalls": len({row["receipt"] for row in rows}),
            "recalled": len(handed_out),
            "settled": sum(row["helped"] is not None for row in handed_out),
            "helped": sum(row["helped"] is True for row in handed_out),
        }

    # --- writing ---

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Writer]:
        """Hold the pool for writing: nobody else, in this process or another, writes meanwhile.

        What happens inside is shielded from cancellation, because a cancelled write may still commit.
        """
        async with self._pool_lock:
            self._check_mark()
            with anyio.CancelScope(shield=True):
                yield Writer(self)

    async def add_receipt(self, lines: Sequence[ReceiptLine]) -> None:
        """Append the lines of one new receipt. It waits for other receipts only, not for the rest of the pool."""
        rows = [dataclasses.asdict(line) for line in lines]
        table = self._tables["receipts"]
        async with self._receipts_lock:
            self._check_mark()
            with anyio.CancelScope(shield=True), _mapped("write the receipt"):
                await table.add(_arrow(rows, await table.schema()))
        self._writes["receipts"] += 1

    def writes_since_upkeep(self) -> int:
        """Return how many writes by this process the table that had most of them has had since it was compacted."""
        return max(self._writes.values(), default=0)

    async def count_leftovers(self) -> None:
        """Count what earlier processes left to compact: short ones never write often enough to do it themselves."""
        with anyio.CancelScope(shield=True), _mapped("look at the tables"):
            for name, table in self._open_tables().items():
                # Annotated as an object, it is a dictionary.
                stats: Any = await table.stats()
                self._writes[name] += stats["fragment_stats"]["num_small_fragments"]

    async def upkeep(self) -> None:
        """Compact the tables that were written often enough: merge small files, update indexes, drop old versions."""
        for name, table in self._open_tables().items():
            if self._writes[name] < UPKEEP_EVERY_WRITES:
                continue
            async with self._receipts_lock if name == "receipts" else self._pool_lock:
                self._check_mark()
                self._writes[name] = 0
                with anyio.CancelScope(shield=True), _mapped(f"compact {name}"):
                    await table.optimize(cleanup_older_than=KEEP_VERSIONS)

    def _check_mark(self) -> None:
        """Refuse to write into tables that are not the home's any more."""
        if not self.is_current():
            raise StoreError(f"{self.home} was upgraded or restored from a backup by another process; try again")

    def _open_tables(self) -> dict[str, lancedb.AsyncTable]:
        return self._tables | {name: space.table for name, space in self._spaces.items()}

    async def _rows(
        self,
        table: str,
        kind: type[Row],
        where: Expr,
        *,
        newest_first: bool = False,
        offset: int = 0,
        limit: int | None = None,
    ) -> list[Row]:
        from lancedb.query import ColumnOrdering

        columns = [field.name for field in dataclasses.fields(kind)]
        with _mapped(f"read {table}"):
            query = self._tables[table].query().where(where).select(columns)
            if newest_first:
                # The first column is an id: pages are stable even among rows of one moment.
                newest = ColumnOrdering(column_name="created_at", ascending=False)
                query = query.order_by([newest, ColumnOrdering(column_name=columns[0])])
            if limit is not None:
                query = query.limit(limit).offset(offset)
            rows = await query.to_list()
        return [_from_row(kind, row) for row in rows]

    async def _space(self, embedder: str) -> _Space | None:
        """Return the vectors of `embedder`, or `None` while nobody has made any."""
        name = space_name(embedder)
        if name not in self._spaces:
            with _mapped("open the vectors"):
                if name not in ((await self._connection.list_tables()).tables or []):
                    return None
                self._spaces[name] = _Space(await self._connection.open_table(name))
        return self._spaces[name]

    async def _matrix(self, space: _Space, rows: int) -> Matrix:
        """Return the matrix of a space of `rows` rows with all that any process has added since the last time."""
        from reme_mcp.matrix import Matrix

        async with self._refreshing:
            version = await space.table.version()
            if space.matrix is None or version != space.version:
                query = space.table.query().select(["id", "workspace", "vector"])
                if space.matrix is not None:
                    query = query.where(f"_row_last_updated_at_version > {space.version}")
                fresh = await query.to_arrow()
                dim = fresh.schema.field("vector").type.list_size
                vectors = fresh.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
                matrix = space.matrix or Matrix(dim)
                matrix.put(
                    fresh.column("id").to_pylist(), fresh.column("workspace").to_pylist(), vectors.reshape(-1, dim)
                )
                # Rows that are gone don't show up as fresh; then it is read anew at the next query.
                space.matrix = matrix if len(matrix) <= rows else None
                space.version = version
                return matrix
            return space.matrix


class Writer:
    """The right to write, held from `Store.writing()` until its block ends. What puts may be repeated safely."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def put_experiences(self, experiences: Sequence[Experience]) -> None:
        """Insert the experiences, or replace those whose id is there already."""
        rows = [dataclasses.asdict(experience) | {"search_text": search_text(experience)} for experience in experiences]
        await self._upsert("experiences", "id", rows)

    async def put_vectors(
        self, embedder: str, experiences: Sequence[Experience], vectors: Vectors, lessons: Vectors
    ) -> None:
        """Store what `embedder` made of the experiences, in their order.

        Args:
            embedder: Its name.
            experiences: n of them.
            vectors: What search compares, (n, dim) float32, unit norm.
            lessons: What deduplication compares, the same shape.
        """
        if not experiences:
            return
        name = space_name(embedder)
        if await self._store._space(embedder) is None:
            with _mapped("make the vectors"):
                table = await _create_table(self._store._connection, name, _vector_schema(vectors.shape[1]))
                self._store._spaces[name] = _Space(table)
        rows = [
            {"id": experience.id, "workspace": experience.workspace, "vector": vector, "lesson": lesson}
            for experience, vector, lesson in zip(experiences, vectors, lessons, strict=True)
        ]
        await self._upsert(name, "id", rows)

    async def delete_experience(self, workspace: str, experience_id: str) -> None:
        """Remove one experience and its vectors for good; its receipts stay."""
        where = _all(_equals("workspace", workspace), _equals("id", experience_id))
        with _mapped("delete the experience"):
            await self._store._tables["experiences"].delete(where)
            for name in (await self._store._connection.list_tables()).tables or []:
                if name.startswith("vectors_"):
                    await (await self._store._connection.open_table(name)).delete(where)
        self._store._writes["experiences"] += 1

    async def add_trajectory(self, trajectory: Trajectory) -> None:
        """Append a trajectory whose id is new."""
        table = self._store._tables["trajectories"]
        with _mapped("write trajectories"):
            await table.add(_arrow([dataclasses.asdict(trajectory)], await table.schema()))
        self._store._writes["trajectories"] += 1

    async def put_trajectory(self, trajectory: Trajectory) -> None:
        """Insert the trajectory, or replace the one with its id."""
        await self._upsert("trajectories", "id", [dataclasses.asdict(trajectory)])

    async def settle(self, lines: Sequence[ReceiptLine]) -> None:
        """Replace these lines, each found by its receipt and experience."""
        async with self._store._receipts_lock:
            await self._upsert("receipts", ["receipt", "experience_id"], [dataclasses.asdict(line) for line in lines])

    async def _upsert(self, table: str, on: str | list[str], rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        target = self._store._open_tables()[table]
        with _mapped(f"write {table}"):
            # Not through an index: one on the key would hide rows of other processes and double them.
            merge = target.merge_insert(on).use_index(False)
            merge = merge.when_matched_update_all().when_not_matched_insert_all()
            await merge.execute(_arrow(rows, await target.schema()))
        self._store._writes[table] += 1


def space_name(embedder: str) -> str:
    """Return the name of the vector table of `embedder`: readable, and one for each name."""
    digest = hashlib.sha256(embedder.encode()).hexdigest()[:8]
    return f"vectors_{re.sub(r'[^a-z0-9]+', '_', embedder.lower()).strip('_')[:48]}_{digest}"


# LanceDB's messages end with a place in its own source.
_SOURCE_PLACE = re.compile(r",? \S+\.rs:\d+:\d+")


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Turn LanceDB's and the system's errors into a `StoreError` that says what could not be done."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as exc:
        raise StoreError(f"can't {what}: {_SOURCE_PLACE.sub('', str(exc))}") from exc


async def count_rows(pool: Path) -> dict[str, int]:
    """Return how many rows each table in the folder `pool` has, having read all of them to the end.

    Raises:
        StoreError: One of them can't be read.
    """
    with _mapped(f"read the tables in {pool}"):
        connection = await _connect(pool)
        counts = {}
        for name in sorted((await connection.list_tables()).tables or []):
            table = await connection.open_table(name)
            counts[name] = 0
            async for batch in await table.query().to_batches():
                counts[name] += batch.num_rows
            table.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
        connection.close()  # type: ignore[no-untyped-call]  # likewise
    return counts


async def _connect(pool: Path) -> lancedb.AsyncConnection:
    os.environ.setdefault("LANCEDB_LOG", "error")
    await anyio.to_thread.run_sync(importlib.import_module, "lancedb", abandon_on_cancel=True)
    import lancedb

    return await lancedb.connect_async(
        str(pool),
        read_consistency_interval=timedelta(0),
        storage_options={"new_table_enable_stable_row_ids": "true"},
    )


@asynccontextmanager
async def all_still(home: Path) -> AsyncIterator[None]:
    """Hold both locks of the pool in `home`: nobody writes anything meanwhile."""
    async with ProcessLock(home / "pool.lock"), ProcessLock(home / "pool-receipts.lock"):
        yield


async def _upgrade(home: Path, upgrades: Sequence[Upgrade]) -> homes.Mark:
    """Bring the tables up to the newest schema, unless another process just has, and return the mark.

    The mark is rewritten last. It names the backup first, so that a repetition makes no second one.
    """
    newest = 1 + len(upgrades)
    async with all_still(home):
        mark = homes.read_mark(home, schema=newest)
        if mark.schema == newest:
            return mark
        backups = home / homes.BACKUPS
        with anyio.CancelScope(shield=True), _mapped("change its tables"):
            if not mark.backup or not (backups / mark.backup).exists():
                name = homes.new_name(backups, f"schema-{mark.schema}-", ".zip")
                tables = await count_rows(home / mark.pool)
                pack = partial(homes.pack, home / mark.pool, backups / name, schema=mark.schema, tables=tables)
                await anyio.to_thread.run_sync(pack)
                mark = dataclasses.replace(mark, backup=name)
                homes.write_mark(home, mark)
            connection = await _connect(home / mark.pool)
            for upgrade in upgrades[mark.schema - 1 :]:
                await upgrade(connection)
            connection.close()  # type: ignore[no-untyped-call]  # lancedb leaves it unannotated
            mark = dataclasses.replace(mark, schema=newest, backup="")
            homes.write_mark(home, mark)
    return mark


async def _create_table(connection: lancedb.AsyncConnection, name: str, schema: pa.Schema) -> lancedb.AsyncTable:
    from lancedb.index import FTS

    table = await connection.create_table(name, schema=schema, exist_ok=True)
    if "search_text" in schema.names and not await table.list_indices():
        # icu/split finds the words of Chinese and Japanese and the parts of get_stock_info; stems are English only.
        words = FTS(base_tokenizer="icu/split", custom_stop_words=list(STOP_WORDS))
        await table.create_index("search_text", config=words)
    return table


def _schemas() -> dict[str, pa.Schema]:
    import pyarrow as pa

    text = pa.string()
    texts = pa.list_(pa.string())
    time = pa.timestamp("us", tz="UTC")
    types: dict[str, pa.DataType] = {
        "str": text, "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "bool | None": pa.bool_(),
        "tuple[str, ...]": texts, "datetime": time, "datetime | None": time,
    }  # fmt: skip

    def columns(kind: type[Row]) -> list[pa.Field]:
        # Literal types are texts to the table.
        return [pa.field(field.name, types.get(str(field.type), text)) for field in dataclasses.fields(kind)]

    return {
        "experiences": pa.schema([*columns(Experience), pa.field("search_text", text)]),
        "trajectories": pa.schema(columns(Trajectory)),
        "receipts": pa.schema(columns(ReceiptLine)),
    }


def _vector_schema(dim: int) -> pa.Schema:
    import pyarrow as pa

    text, vector = pa.string(), pa.list_(pa.float32(), dim)
    return pa.schema({"id": text, "workspace": text, "vector": vector, "lesson": vector})


def _arrow(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)


def _from_row(kind: Callable[..., Row], row: dict[str, Any]) -> Row:
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})


def _equals(column: str, value: str) -> Expr:
    from lancedb import col, lit

    return col(column) == lit(value)


def _among(column: str, values: Sequence[str]) -> Expr:
    from lancedb import col

    return col(column).isin(list(values))


def _of_status(statuses: Sequence[Status] | None) -> Expr | None:
    return None if statuses is None else _among("status", statuses)


def _all(first: Expr, *rest: Expr | None) -> Expr:
    """Return the conjunction; `None` stands for no condition."""
    for condition in rest:
        if condition is not None:
            first = first & condition
    return first
