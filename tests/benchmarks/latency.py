"""How long a call takes, and what the pool weighs, as it grows.

    python -m tests.benchmarks.latency [--sizes 1000 10000 100000] [--calls 200] [--vectors hashed|none]
        [--data DIR] [--json FILE]

Every size gets a home of its own, filled through the store (per five experiences: a trajectory, and a receipt of five
lines of which every other is settled), compacted once, and then played by processes of its own, through `Memory`:

    recall             the pool as it is, nobody writes
    recall in a loop   the recall of: recall, record with its receipt and one experience, rate the first one recalled
    record, rate       the other two of that loop

The texts come from a seeded generator whose words are spread as Zipf says; `--data DIR` takes the pools that
`retrieval` reads instead, repeated with some words exchanged. Queries are tasks of the pool with half their words. The
embedder is a stand-in that takes microseconds, and sees texts with common words as similar, so that the floor works
(one query in ten was made from no task; the words let most of those pass): the embedding of the query is in no figure.
`--vectors none` measures full-text search alone.

Each call is timed next to its references, on the same rows and queries, in turns that change their order:

    numpy scan         all vectors times the query, and the best five: what memory bandwidth allows
    LanceDB            its hybrid query (flat vector search, full text, its RRF reranker), no filter, five rows
    LanceDB, IVF_FLAT  the same through a vector index with its defaults
    LanceDB, add       for record: one row of text and vector, no index on it, compacted now and then
    LanceDB, update    for rate: one number of one row of the same table
    ours, processor    what the call takes of the processor, on all threads: the figure to compare on a busy machine

To read: `ratio` is our median over the reference's, `pairwise` the median of the ratios of each pair. The targets are
p95 ≤ 30 ms for recall at 10,000 and ≤ 50 ms at 100,000, ≤ 100 ms for record and rate at 10,000, recall at 100,000
within 3 × LanceDB, and growth from one size to the next less than that of the size. Record is one call but several
writes to four tables. Resident memory is read from /proc (Linux) in processes that play nothing but recalls, ours and
then LanceDB's: once open, after the ten calls of the warm-up, after all calls; `peak` is the highest ever, `vectors`
what they alone take. Disk is our home before and after all calls, as they leave it (with two vectors a row, and the
versions of the last minute, as no reader may lose its own), and LanceDB's table as filled, without old versions.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, replace
from datetime import timedelta
from functools import cache, partial
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np
import numpy.typing as npt

from reme_mcp.config.settings import EmbedderSettings, RecallSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.models.embedder import Embedder, unit
from reme_mcp.schema import Experience, ReceiptLine, Trajectory, new_id, now, task_key
from reme_mcp.store.compaction import EVERY_WRITES
from reme_mcp.store.store import Store
from reme_mcp.text.fields import lesson_text, request_text, search_text
from reme_mcp.text.words import STOP_WORDS
from tests.benchmarks import report, retrieval

if TYPE_CHECKING:
    import lancedb

Vectors = npt.NDArray[np.float32]
# Milliseconds of every measured call, by who answered it; ours is there under `OURS`.
Timings = dict[str, list[float]]

SOURCE = "benchmark"
WORKSPACE = "default"
OURS = "ours"
PROCESSOR = "ours, processor"
WARM_UP = 10
PER_TRAJECTORY = 5
# Fewer rows than these are no ground for a vector index.
INDEX_ROWS = 1_000
REFERENCE_UPKEEP_EVERY = 50
MEGABYTE = 1024 * 1024

DIM = 384
HASHED_WORDS = 2_048
VOCABULARY = 20_000
# Function words are not in the vocabulary, so that it begins where the curve of a language is less steep.
ZIPF_OFFSET = 20
# Of the stand-in: a query has it with the experience that it was made from, and with few others.
MIN_SIMILARITY = 0.35
OFF_TOPIC_EVERY = 10
# Nobody else reads the reference's tables.
KEEP_VERSIONS = timedelta(milliseconds=1)


# --- what is played ---


class HashingEmbedder:
    """An embedder that takes no time: each word is one of `HASHED_WORDS` directions, a text is their sum."""

    name = "hashing"

    def __init__(self) -> None:
        self._directions = np.random.default_rng(0).standard_normal((HASHED_WORDS, DIM)).astype(np.float32)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return (n, DIM) float32, unit norm."""
        words = [[zlib.crc32(word.encode()) % HASHED_WORDS for word in text.split()] for text in texts]
        return unit(np.stack([self._directions[rows].sum(axis=0) for rows in words]))


class Writing:
    """A seeded author: texts of made-up words, few of them frequent, most of them rare."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def text(self, words: int) -> str:
        """Return a text of so many words."""
        vocabulary, weights = _vocabulary()
        return " ".join(self.chance.choices(vocabulary, cum_weights=weights, k=words))

    def shortened(self, text: str) -> str:
        """Return half the words of `text`, in their order."""
        words = text.split()
        kept = sorted(self.chance.sample(range(len(words)), (len(words) + 1) // 2))
        return " ".join(words[place] for place in kept)

    def varied(self, text: str) -> str:
        """Return `text` with one word in five exchanged."""
        return re.sub(r"\w+", lambda word: word[0] if self.chance.random() > 0.2 else self.text(1), text)


@cache
def _vocabulary() -> tuple[list[str], list[float]]:
    """Return distinct words and their cumulative weights, the most frequent first."""
    chance = random.Random(0)
    words: dict[str, None] = {}
    while len(words) < VOCABULARY:
        syllables = [chance.choice("bdfgklmnprstvz") + chance.choice("aeiou") for _ in range(chance.randint(2, 4))]
        words["".join(syllables)] = None
    return list(words), list(accumulate(1 / (ZIPF_OFFSET + place) for place in range(VOCABULARY)))


def write_experiences(size: int, pools: Sequence[Experience]) -> Iterator[Experience]:
    """Yield `size` experiences of an age of up to half a year, made up or varied from `pools`."""
    writing = Writing(size)
    at = now()
    for number in range(size):
        born = at - timedelta(days=180 * writing.chance.random())
        settled = number // PER_TRAJECTORY % 2
        if pools:
            base = pools[number % len(pools)]
            if number >= len(pools):
                base = replace(
                    base,
                    when_to_use=writing.varied(base.when_to_use),
                    content=writing.varied(base.content),
                    task=writing.varied(base.task),
                )
        else:
            base = Experience(
                id="",
                workspace=WORKSPACE,
                when_to_use=writing.text(12),
                content=writing.text(40),
                keywords=tuple(writing.text(3).split()),
                confidence=round(writing.chance.random(), 2),
                tools_used=(writing.text(1),),
                kind="success",
                task=writing.text(20),
                generalized_task=writing.text(8),
                frequency=0,
                utility=0,
                prior_frequency=0,
                prior_utility=0,
                source=SOURCE,
                author="assistant",
                trajectory_ids=(),
                created_at=born,
                updated_at=born,
                counted_since=born,
                status="active",
                status_reason="",
                pinned=False,
            )
        yield replace(
            base,
            id=new_id("e"),
            workspace=WORKSPACE,
            frequency=settled,
            utility=settled,
            prior_frequency=0,
            prior_utility=0,
            created_at=born,
            updated_at=born,
            counted_since=born,
        )


def _past(experiences: Sequence[Experience], writing: Writing) -> tuple[Trajectory, list[ReceiptLine]]:
    """Return the trajectory that these were learned from, and a receipt that handed them out."""
    first = experiences[0]
    task = first.task or first.when_to_use
    trajectory = Trajectory(
        id=new_id("t"),
        workspace=WORKSPACE,
        task=task,
        task_key=task_key(task),
        outcome="success",
        reward=1.0,
        transcript=json.dumps([{"role": "assistant", "text": writing.text(60)}]),
        digest=new_id("t"),
        drafts_digest=new_id("t"),
        receipt="",
        source=SOURCE,
        created_at=first.created_at,
        updated_at=first.created_at,
        status="distilled",
        drafts="[]",
        rejected="[]",
        answer=json.dumps({"trajectory_id": "", "added": [one.id for one in experiences]}),
    )
    receipt, at = new_id("r"), now()
    lines = [
        ReceiptLine(
            receipt=receipt,
            experience_id=one.id,
            workspace=WORKSPACE,
            task=task,
            rank=rank,
            source=SOURCE,
            created_at=at,
            helped=True if one.utility else None,
            settled_by="rating" if one.utility else "",
            settled_at=at if one.utility else None,
            reason="",
        )
        for rank, one in enumerate(experiences, start=1)
    ]
    return trajectory, lines


async def fill(folder: Path, size: int, calls: int, data: Path | None, *, embedder: Embedder | None) -> dict[str, Any]:
    """Make in `folder` a home of `size` experiences, the tables of the reference, and the queries.

    Returns:
        The seconds that filling the home took, with its upkeep.
    """
    pools = [] if data is None else [one for pool in retrieval.read_pools(data) for one in pool.experiences]
    experiences = list(write_experiences(size, pools))
    writing = Writing(size + 1)
    queries = []
    for number in range(2 * (WARM_UP + calls)):
        chosen = writing.chance.choice(experiences)
        strange = number % OFF_TOPIC_EVERY == 0
        queries.append(writing.text(10) if strange else writing.shortened(chosen.task or chosen.when_to_use))
    (folder / "queries.json").write_text(json.dumps(queries), encoding="utf-8")

    seconds = 0.0
    store = await Store.open(folder / "home")
    bare = await _connect(folder / "bare")
    home = await _connect(folder / "home" / "pool")
    # So many writes that the indexes are brought up to date as in a used home.
    portion = max(1, size // EVERY_WRITES)
    for start in range(0, size, portion):
        some = experiences[start : start + portion]
        past = [_past(some[at : at + PER_TRAJECTORY], writing) for at in range(0, len(some), PER_TRAJECTORY)]
        vectors = lessons = None
        if embedder is not None:
            lessons = embedder.embed([lesson_text(one) for one in some])
            vectors = unit(lessons + embedder.embed([request_text(one) for one in some]))
        started = time.perf_counter()
        async with store.writing() as writer:
            # One by one, as the store writes them, they would take minutes.
            await _append(home, "trajectories", [asdict(trajectory) for trajectory, _ in past])
            await writer.put_experiences(some)
            if embedder is not None and vectors is not None and lessons is not None:
                await writer.put_vectors(embedder.name, some, vectors, lessons)
        await store.add_receipt([line for _, lines in past for line in lines])
        seconds += time.perf_counter() - started
        rows = [asdict(one) | {"search_text": search_text(one)} for one in some]
        if vectors is not None:
            rows = [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)]
        for table in ("searched", "written"):
            await _append(bare, table, rows)
    started = time.perf_counter()
    await store.compaction.run()
    seconds += time.perf_counter() - started
    store.close()
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
        schema = schema.append(pa.field("vector", pa.list_(pa.float32(), DIM)))
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


def open_memory(home: Path, embedder: Embedder | None) -> AbstractAsyncContextManager[Memory]:
    """Open the memory of `home` with the default settings, but for the embedder; `None` is provider `none`."""
    settings = Settings(
        home=str(home),
        # A model that nobody knows: no prefix and no least similarity of its own.
        embedder=EmbedderSettings(provider="none") if embedder is None else EmbedderSettings(model=embedder.name),
        recall=RecallSettings(min_similarity=MIN_SIMILARITY),
    )
    return Memory.open(settings, load=lambda _settings, _download: embedder)


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
        """Return all vectors, (n, DIM)."""
        column = (await self._searched.query().select(["vector"]).to_arrow()).column("vector").combine_chunks()
        matrix: Vectors = column.flatten().to_numpy().reshape(-1, DIM)
        return np.ascontiguousarray(matrix)


async def measure(folder: Path, size: int, calls: int, *, embedder: Embedder | None) -> dict[str, Any]:
    """Time every call next to its references.

    Returns:
        `timings`: by call, by who answered, milliseconds; `answered`: the share of recalls that got something; disk.
    """
    queries: list[str] = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
    bare = await Bare.open(folder)
    matrix = None if embedder is None else await bare.vectors()
    writing = Writing(size + 2)
    timings: dict[str, Timings] = {}
    answered = 0
    before = _megabytes(folder / "home")

    async def scan(vector: Vectors) -> None:
        assert matrix is not None
        cosines = matrix @ vector
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

    async with open_memory(folder / "home", embedder) as memory:
        await memory.warm_up(download=False)
        for number, query in enumerate(queries):
            in_loop = number >= len(queries) // 2
            warm = number % (len(queries) // 2) >= WARM_UP
            recalling = partial(memory.recall, query, source=SOURCE)
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
                source=SOURCE,
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
            rating = partial(memory.rate, rated, helpful=True, source=SOURCE)
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
        "disk_after_mb": _megabytes(folder / "home"),
        "disk_lancedb_mb": _megabytes(folder / "bare" / "searched.lance"),
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
    async with open_memory(home, embedder) as memory:
        await memory.warm_up(download=False)
        return await _weigh(queries, lambda query: memory.recall(query, source=SOURCE))


async def weigh_reference(folder: Path, *, embedder: Embedder | None) -> dict[str, float]:
    """Return the same of a process that does nothing but LanceDB's own query."""
    queries: list[str] = json.loads((folder / "queries.json").read_text(encoding="utf-8"))
    bare = await Bare.open(folder)

    def search(query: str) -> Awaitable[None]:
        return bare.search(query, None if embedder is None else embedder.embed([query])[0])

    return await _weigh(queries, search)


async def _weigh(queries: Sequence[str], recall: Callable[[str], Awaitable[object]]) -> dict[str, float]:
    opened = _resident()
    for query in queries[:WARM_UP]:
        await recall(query)
    warm = _resident()
    for query in queries[WARM_UP : len(queries) // 2]:
        await recall(query)
    after = _resident()
    # Linux counts it in kilobytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"opened_mb": opened, "warm_mb": warm, "after_mb": after, "growth_mb": after - warm, "peak_mb": peak}


def _resident() -> float:
    """Return the resident memory of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MEGABYTE


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
        "vectors_mb": 0.0 if vectors == "none" else size * DIM * 4 / MEGABYTE,
        "calls": {call: _ratios(own) for call, own in timings.items()},
        OURS: found["weigh"],
        "LanceDB": found["weigh-reference"],
        **found["fill"],
        **found["measure"],
    }


PHASES = ("fill", "weigh", "weigh-reference", "measure")


async def _work(phase: str, folder: Path, size: int, calls: int, vectors: str, data: Path | None) -> dict[str, Any]:
    embedder = None if vectors == "none" else HashingEmbedder()
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
    if min(options.sizes) < 2 * PER_TRAJECTORY or options.calls < 1:
        parser.error(f"--sizes must be at least {2 * PER_TRAJECTORY}, --calls at least 1")
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
