"""How long a call takes, and what the pool weighs, as it grows.

    python -m tests.benchmarks.latency [--sizes 1000 10000 100000] [--calls 200] [--vectors hashed|none]
        [--data DIR] [--json FILE]

Every size gets a home of its own, filled through the store as use would have left it (`pools`), and is then played by
processes of its own, through `Memory`:

    recall             the pool as it is, nobody writes
    recall in a loop   the recall of: recall, record with its receipt and one experience, rate the first one recalled
    record, rate       the other two of that loop

The texts are made up; `--data DIR` takes the pools that `retrieval` reads instead. Queries are tasks of the pool with
half their words. The embedder is a stand-in that takes microseconds, and sees texts with common words as similar, so
that the floor works (one query in ten was made from no task; the words let most of those pass): the embedding of the
query is in no figure. `--vectors none` measures full-text search alone.

Each call is timed next to its references, on the same rows and queries, in turns that change their order:

    numpy scan         all vectors times the query, and the best five: what memory bandwidth allows
    LanceDB            its hybrid query (flat vector search, full text, its RRF reranker), no filter, five rows
    LanceDB, IVF_FLAT  the same through a vector index with its defaults
    LanceDB, add       for record: one row of text and vector, no index on it, compacted now and then
    LanceDB, update    for rate: one number of one row of the same table
    ours, processor    what the call takes of the processor, on all threads: the figure to compare on a busy machine

To read: `ratio` is our median over the reference's, `pairwise` the median of the ratios of each pair. The targets are
p95 ≤ 18 ms for recall at 10,000, ≤ 45 ms at 100,000 and ≤ 150 ms at 300,000, ≤ 70 ms for record and ≤ 15 ms for rate
at 10,000, growth from one size to the next less than that of the size, and ≤ 250 MB at 10,000. Resident memory is read
from /proc (Linux) in processes that play nothing but recalls, ours and then LanceDB's: once open, after the ten calls
of the warm-up, after all calls; `peak` is the highest ever, `vectors` what they alone take. Disk is our home before and
after all calls, as they leave it (with two vectors a row, and the versions of the last minute, as no reader may lose
its own), and LanceDB's table as filled, without old versions.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import numpy.typing as npt

from reme_mcp.config.settings import Settings
from reme_mcp.models.embedder import Embedder
from reme_mcp.schema import new_id
from reme_mcp.text.fields import search_text
from reme_mcp.text.words import STOP_WORDS
from tests.benchmarks import pools, report

if TYPE_CHECKING:
    import lancedb

Vectors = npt.NDArray[np.float32]
# Milliseconds of every measured call, by who answered it; ours is there under `OURS`.
Timings = dict[str, list[float]]

OURS = "ours"
PROCESSOR = "ours, processor"
WARM_UP = 10
# Fewer rows than these are no ground for a vector index.
INDEX_ROWS = 1_000
REFERENCE_UPKEEP_EVERY = 50
# So many rows are added to it at once.
REFERENCE_PORTION = 10_000

# Nobody else reads the reference's tables.
KEEP_VERSIONS = timedelta(milliseconds=1)


# --- what is played ---


async def fill(folder: Path, size: int, calls: int, data: Path | None, *, embedder: Embedder | None) -> dict[str, Any]:
    """Make in `folder` a home of `size` experiences, the tables of the reference, and the queries.

    Returns:
        The seconds that filling the home took, with its upkeep.
    """
    experiences = list(pools.write_experiences(size, pools.read_texts(data)))
    queries = pools.write_queries(experiences, 2 * (WARM_UP + calls))
    (folder / "queries.json").write_text(json.dumps(queries), encoding="utf-8")
    seconds = await pools.fill(folder / "home", experiences, embedder=embedder)
    bare = await _connect(folder / "bare")
    for start in range(0, size, REFERENCE_PORTION):
        some = experiences[start : start + REFERENCE_PORTION]
        rows = [asdict(one) | {"search_text": search_text(one)} for one in some]
        if embedder is not None:
            vectors, _ = pools.embed(embedder, some)
            rows = [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)]
        for table in ("searched", "written"):
            await _append(bare, table, rows)
    await _index(bare, size, with_vectors=embedder is not None)
    return {"fill_s": round(seconds, 1)}


async def _connect(folder: Path) -> lancedb.AsyncConnection:
    import lancedb

    return await lancedb.connect_async(str(folder))


async def _append(connection: lancedb.AsyncConnection, table: str, rows: list[dict[str, Any]]) -> None:
    """Append the rows to a table; one that is not there is made after our own of experiences, with its vectors."""
    import pyarrow as pa

    if table in ((await connection.list_tables()).tables or []):
        target = await connection.open_table(table)
        await target.add(pa.Table.from_pylist(rows, schema=await target.schema()))
        return
    schema = pa.Table.from_pylist([{name: row[name] for name in row if name != "vector"} for row in rows]).schema
    if "vector" in rows[0]:
        schema = schema.append(pa.field("vector", pa.list_(pa.float32(), pools.DIM)))
    await connection.create_table(table, pa.Table.from_pylist(rows, schema=schema))


async def _index(bare: lancedb.AsyncConnection, size: int, *, with_vectors: bool) -> None:
    """Compact the reference's tables; give the searched one the index of words that ours has, and one of vectors."""
    from lancedb.index import FTS, IvfFlat

    for name in ("searched", "written"):
        table = await bare.open_table(name)
        await table.optimize(cleanup_older_than=KEEP_VERSIONS)
        if name == "searched":
            words = FTS(base_tokenizer="icu/split", custom_stop_words=list(STOP_WORDS))
            await table.create_index("search_text", config=words)
            if with_vectors and size >= INDEX_ROWS:
                await table.create_index("vector", config=IvfFlat(distance_type="cosine"))


# --- what is measured ---


class Bare:
    """The reference: LanceDB's own queries and writes on a table of the same rows."""

    def __init__(self, searched: lancedb.AsyncTable, written: lancedb.AsyncTable, limit: int) -> None:
        self._searched = searched
        self._written = written
        self._limit = limit
        self._writes = 0

    @classmethod
    async def open(cls, folder: Path) -> Bare:
        """Open the tables that `fill` made."""
        connection = await _connect(folder / "bare")
        tables = [await connection.open_table(name) for name in ("searched", "written")]
        return cls(tables[0], tables[1], Settings().recall.limit)

    async def search(self, query: str, vector: Vectors | None, *, indexed: bool = False) -> None:
        """Run the hybrid query, or the one for words where there is no vector."""
        from lancedb.rerankers import RRFReranker

        if vector is None:
            words = self._searched.query().nearest_to_text(query, columns="search_text")
            await words.select(["id", "when_to_use", "content"]).limit(self._limit).to_list()
            return
        nearest = self._searched.query().nearest_to(vector).column("vector").distance_type("cosine")
        if not indexed:
            nearest = nearest.bypass_vector_index()
        hybrid = nearest.nearest_to_text(query, columns="search_text").rerank(RRFReranker())
        await hybrid.select(["id", "when_to_use", "content"]).limit(self._limit).to_list()

    async def add(self, row: dict[str, Any]) -> None:
        """Append one row."""
        await self._written.add([row])

    async def update(self, id: str, utility: int) -> None:
        """Set one number of one row."""
        await self._written.update({"utility": utility}, where=f"id = '{id}'")

    async def look_after(self) -> None:
        """Compact the written table, now and then."""
        self._writes += 1
        if self._writes % REFERENCE_UPKEEP_EVERY == 0:
            await self._written.optimize(cleanup_older_than=KEEP_VERSIONS)

    async def vectors(self) -> Vectors:
        """Return all vectors, (n, `pools.DIM`)."""
        column = (await self._searched.query().select(["vector"]).to_arrow()).column("vector").combine_chunks()
        matrix: Vectors = column.flatten().to_numpy().reshape(-1, pools.DIM)
        return np.ascontiguousarray(matrix)


async def measure(folder: Path, size: int, calls: int, *, embedder: Embedder | None) -> dict[str, Any]:
    """Time every call next to its references.

    Returns:
        `timings`: by call, by who answered, milliseconds; `answered`: the share of recalls that got something; disk.
    """
    queries: list[str] = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
    bare = await Bare.open(folder)
    matrix = None if embedder is None else await bare.vectors()
    writing = pools.Writing(size + 2)
    timings: dict[str, Timings] = {}
    answered = 0
    _, before = pools.weigh(folder / "home")

    async def scan(vector: Vectors) -> None:
        assert matrix is not None
        cosines = np.vecdot(matrix, vector)
        top = np.argpartition(-cosines, 5)[:5]
        top[np.argsort(-cosines[top])]

    def contestants(query: str) -> dict[str, Callable[[], Awaitable[Any]]]:
        if embedder is None:
            return {"LanceDB": partial(bare.search, query, None)}
        vector = embedder.embed([query])[0]
        those: dict[str, Callable[[], Awaitable[Any]]] = {
            "numpy scan": partial(scan, vector),
            "LanceDB": partial(bare.search, query, vector),
        }
        if size >= INDEX_ROWS:
            those["LanceDB, IVF_FLAT"] = partial(bare.search, query, vector, indexed=True)
        return those

    async with pools.open_memory(folder / "home", embedder) as memory:
        await memory.warm_up(download=False)
        for number, query in enumerate(queries):
            in_loop = number >= len(queries) // 2
            warm = number % (len(queries) // 2) >= WARM_UP
            recalling = partial(memory.recall, query, source=pools.SOURCE)
            recalled = await _race(
                timings.setdefault("recall in a loop" if in_loop else "recall", {}) if warm else {},
                {OURS: recalling} | contestants(query),
                backwards=number % 2 == 1,
            )
            answered += bool(recalled.experiences)
            if not in_loop:
                continue
            task, when_to_use, content = writing.text(20), writing.text(12), writing.text(40)
            recording = partial(
                memory.record,
                task,
                outcome="success",
                receipt=recalled.receipt,
                steps=writing.text(60),
                experiences=[{"when_to_use": when_to_use, "content": content}],
                source=pools.SOURCE,
            )
            row: dict[str, Any] = {"id": new_id("e"), "task": task, "when_to_use": when_to_use, "content": content}
            if embedder is not None:
                row["vector"] = embedder.embed([content])[0]
            recorded = await _race(
                timings.setdefault("record", {}) if warm else {},
                {OURS: recording, "LanceDB, add": partial(bare.add, row)},
                backwards=number % 2 == 1,
            )
            await bare.look_after()
            rated = recalled.experiences[0].id if recalled.experiences else recorded.added[0]
            rating = partial(memory.rate, rated, helpful=True, source=pools.SOURCE)
            await _race(
                timings.setdefault("rate", {}) if warm else {},
                {OURS: rating, "LanceDB, update": partial(bare.update, rated, number)},
                backwards=number % 2 == 1,
            )
            await bare.look_after()
    return {
        "timings": timings,
        "answered": answered / len(queries),
        "disk_before_mb": before,
        "disk_after_mb": pools.weigh(folder / "home")[1],
        "disk_lancedb_mb": pools.weigh(folder / "bare" / "searched.lance")[1],
    }


async def _race(timings: Timings, racers: Mapping[str, Callable[[], Awaitable[Any]]], *, backwards: bool) -> Any:
    """Run all, one after the other, keep how long each took, and return what ours answered."""
    answer = None
    for name in (*racers, PROCESSOR):
        timings.setdefault(name, [])
    for name in sorted(racers, key=list(racers).index, reverse=backwards):
        started, busy = time.perf_counter(), time.process_time()
        result = await racers[name]()
        timings[name].append((time.perf_counter() - started) * 1000)
        if name == OURS:
            timings[PROCESSOR].append((time.process_time() - busy) * 1000)
            answer = result
    return answer


async def weigh(folder: Path, *, embedder: Embedder | None) -> dict[str, float]:
    """Return the resident memory of a process that does nothing but recall, in MB."""
    queries: list[str] = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
    # A copy, as receipts would be in the way of those who come later.
    home = shutil.copytree(folder / "home", folder / "weighed")
    async with pools.open_memory(home, embedder) as memory:
        await memory.warm_up(download=False)
        return await _weigh(queries, lambda query: memory.recall(query, source=pools.SOURCE))


async def weigh_reference(folder: Path, *, embedder: Embedder | None) -> dict[str, float]:
    """Return the same of a process that does nothing but LanceDB's own query."""
    queries: list[str] = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
    bare = await Bare.open(folder)

    def search(query: str) -> Awaitable[None]:
        return bare.search(query, None if embedder is None else embedder.embed([query])[0])

    return await _weigh(queries, search)


async def _weigh(queries: Sequence[str], recall: Callable[[str], Awaitable[object]]) -> dict[str, float]:
    opened = pools.resident_mb()
    for query in queries[:WARM_UP]:
        await recall(query)
    warm = pools.resident_mb()
    for query in queries[WARM_UP : len(queries) // 2]:
        await recall(query)
    after = pools.resident_mb()
    # Linux counts it in kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"opened_mb": opened, "warm_mb": warm, "after_mb": after, "growth_mb": after - warm, "peak_mb": peak}


# --- what is said ---


def _ratios(timings: Timings) -> dict[str, dict[str, float]]:
    """Return what each one's figures are, and how ours stand to them."""
    ours = timings[OURS]
    return {
        name: {
            "p50_ms": report.percentile(values, 50),
            "p95_ms": report.percentile(values, 95),
            "ratio": median(ours) / median(values),
            "pairwise": median(mine / other for mine, other in zip(ours, values, strict=True)),
        }
        for name, values in timings.items()
    }


def _show(rows: Sequence[Mapping[str, Any]], calls: int) -> None:
    cells = []
    for row in rows:
        for call, figures in row["calls"].items():
            own = figures[OURS]
            for name, other in figures.items():
                if name == OURS:
                    continue
                numbers = [own["p50_ms"], own["p95_ms"]], [other["p50_ms"], other["p95_ms"]]
                mine, theirs = ([f"{number:.1f}" for number in pair] for pair in numbers)
                relation = [f"{other['ratio']:.2f}", f"{other['pairwise']:.2f}"]
                cells.append([f"{row['size']:,}", call, *mine, name, *theirs, *relation])
    columns = ["experiences", "call", "p50 ms", "p95", "reference", "p50 ms", "p95", "ratio", "pairwise"]
    report.show(f"Latency, {calls} calls each, without the embedding of the query", columns, cells)
    cells = []
    for smaller, larger in pairwise(rows):
        for call, figures in larger["calls"].items():
            for name, own in figures.items():
                if earlier := smaller["calls"][call].get(name):
                    factors = [f"{own[key] / earlier[key]:.2f}" for key in ("p50_ms", "p95_ms")]
                    cells.append([f"{smaller['size']:,} to {larger['size']:,}", call, name, *factors])
    if cells:
        report.show("Growth from one size to the next", ["experiences", "call", "of", "p50 ×", "p95 ×"], cells)
    kinds = ("opened_mb", "warm_mb", "after_mb", "growth_mb", "peak_mb")
    columns = ["experiences", "of", "opened", "warm", f"{calls} calls later", "growth", "peak", "vectors"]
    cells = [
        [f"{row['size']:,}", of, *(f"{row[of][kind]:.0f}" for kind in kinds), f"{row['vectors_mb']:.1f}"]
        for row in rows
        for of in (OURS, "LanceDB")
    ]
    report.show("Resident memory in MB, no model", columns, cells)
    measured = ("disk_before_mb", "disk_after_mb", "disk_lancedb_mb", "fill_s")
    cells = [[f"{row['size']:,}", *(f"{row[name]:.1f}" for name in measured), f"{row['answered']:.0%}"] for row in rows]
    columns = ["experiences", "before", "after", "LanceDB", "filling s", "recalls answered"]
    report.show("Disk in MB", columns, cells)


def _in_child(phase: str, folder: Path, size: int, calls: int, vectors: str, data: Path | None) -> dict[str, Any]:
    """Run one phase in a process of its own and return what it found."""
    command = [sys.executable, "-m", "tests.benchmarks.latency", "--worker", phase, "--folder", str(folder)]
    command += ["--sizes", str(size), "--calls", str(calls), "--vectors", vectors]
    command += [] if data is None else ["--data", str(data)]
    # As `tables.connect` has it, which comes too late where numpy was imported for the stand-in: a second thread of
    # BLAS spins for milliseconds after each product, and takes the core from what is measured next.
    environ = os.environ | {"LANCEDB_LOG": "error", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environ, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_size(size: int, calls: int, vectors: str, data: Path | None) -> dict[str, Any]:
    """Fill a home, play it, and return its figures."""
    with tempfile.TemporaryDirectory(prefix="reme-latency-") as name:
        found: dict[str, dict[str, Any]] = {}
        for phase in PHASES:
            found[phase] = _in_child(phase, Path(name), size, calls, vectors, data)
    timings: dict[str, Timings] = found["measure"].pop("timings")
    return {
        "size": size,
        "vectors_mb": 0.0 if vectors == "none" else size * pools.DIM * 4 / pools.MEGABYTE,
        "calls": {call: _ratios(own) for call, own in timings.items()},
        OURS: found["weigh"],
        "LanceDB": found["weigh-reference"],
        **found["fill"],
        **found["measure"],
    }


PHASES = ("fill", "weigh", "weigh-reference", "measure")


async def _work(phase: str, folder: Path, size: int, calls: int, vectors: str, data: Path | None) -> dict[str, Any]:
    embedder = None if vectors == "none" else pools.HashingEmbedder()
    if phase == "fill":
        return await fill(folder, size, calls, data, embedder=embedder)
    if phase == "measure":
        return await measure(folder, size, calls, embedder=embedder)
    return await (weigh if phase == "weigh" else weigh_reference)(folder, embedder=embedder)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--calls", type=int, default=200, metavar="N", help="measured calls of each kind (200)")
    parser.add_argument("--vectors", choices=("hashed", "none"), default="hashed", help="none: words alone (hashed)")
    parser.add_argument("--data", type=Path, metavar="DIR", help="upstream's pools with qrels.jsonl, as for retrieval")
    parser.add_argument("--worker", choices=PHASES, help="be one of the processes, on --folder")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args(argv)
    if min(options.sizes) < 2 * pools.PER_TRAJECTORY or options.calls < 1:
        parser.error(f"--sizes must be at least {2 * pools.PER_TRAJECTORY}, --calls at least 1")
    if options.worker:
        task = partial(_work, options.worker, options.folder, options.sizes[0], options.calls, options.vectors)
        print(json.dumps(anyio.run(task, options.data)))
        return 0
    rows = [measure_size(size, options.calls, options.vectors, options.data) for size in sorted(options.sizes)]
    _show(rows, options.calls)
    report.write(options.json, {"calls": options.calls, "vectors": options.vectors, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
