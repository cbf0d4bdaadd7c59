"""Whether recall finds the right lesson, on pools whose relevance somebody has judged.

    python -m tests.benchmarks.retrieval --models DIR [--month FILE] [--before FILE] [--show N] [--json FILE]
    python -m tests.benchmarks.retrieval --data DIR --models DIR [--distractors 2000]
        [--tuned-on bfcl_qwen3_8b] [--pools NAME ...] [--tracks B3 B4] [--systems hybrid+task ...] [--json FILE]

Without --data two months of mixed work are played, those of `month.py`, or another one in their format: how many of
the notes that are handed out are about something else, with the defaults, by words (`lexical`) and with a model
(`hybrid`). `kept` is the share of the right notes that the ranking without a floor hands out, or an earlier run did,
its --json given by --before, that are handed out. --show prints the last recalls of half B as text, without the floor
and with it.

Read: DIR/*.jsonl, pools in upstream's format, one experience a line with its extras flat in `metadata`; and
DIR/qrels.jsonl, one `{"track", "pool", "query", "relevant": {memory_id: gain}}` a line. Every pool becomes a temporary
home, written by the package's own store and embedded by the memory itself, and every query goes through
`Memory.recall`, receipt and all, with limit 10 and a token budget that cuts nothing. Systems:

    paper         the vector of `when_to_use` alone, plain cosine, no prefix; the only code of our own
    lexical       provider none
    hybrid        the defaults; needs --models, a cache of fastembed's. Nothing is downloaded
    …+task        with the task that the lesson was learned from; without `+task` it is imported as if it were not known

Measured: R@5, MRR@10 and nDCG@10 per track and pool, the latter with the plain gain (the headline, with a bootstrap
95 % interval over queries) and with 2^gain-1; each with the floor, and nDCG without it, for which everything is asked
again. False recalls are off-topic questions that get anything. Times are those of a recall less what it took to embed:
a text is embedded once, however many systems ask for it. `--distractors N` plays with up to N experiences of the other
pools among those of each, which is a run of its own.
The last table is a small check of languages without spaces between their words.

To read: `mean` is over the pools, but for those named by `--tuned-on`. A track is marked `verbatim` and is in no mean
where, in some pool, a tenth of its queries stand word for word in the task of a relevant experience. Lessons are judged
relevant to the task that they came from, so absolute values are lower bounds, the more so with distractors: other pools
may hold the same lesson in other words. BM25 counts words over the whole home; as each pool has a home of its own, one
pool's figures don't depend on which others are played. Queries of one conversation depend on each other; the interval
is rather too narrow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import anyio
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track as progress

from reme_mcp.config.settings import EmbedderSettings, RecallSettings, Settings
from reme_mcp.errors import EmbedderError
from reme_mcp.memory.memory import Memory
from reme_mcp.models.embedder import Embedder, load_embedder
from reme_mcp.schema import MAX_TASK_CHARS, Experience, Kind, now, task_key
from reme_mcp.store.compaction import EVERY_WRITES
from reme_mcp.store.store import Store
from tests.benchmarks import month, report
from tests.benchmarks.questions import LONG_OFF_TOPIC, NOTES, SHORT_OFF_TOPIC, Note

Floats = npt.NDArray[np.float64]

QRELS = "qrels.jsonl"
DEPTH = 10
TOKEN_BUDGET = 20_000
RESAMPLES = 2_000
MEASURES = ("recall_at_5", "mrr_at_10", "ndcg_at_10", "ndcg_at_10_exp")
PLAIN_NDCG = MEASURES.index("ndcg_at_10")
# On upstream's pools it is .31 to .50 for the track whose queries are source tasks, and .002 for the others.
VERBATIM_SHARE = 0.1
OFF_TOPIC = {"short": SHORT_OFF_TOPIC, "long": LONG_OFF_TOPIC}


@dataclass(frozen=True, slots=True)
class System:
    """A way to search.

    Attributes:
        uses_model: Whether it needs an embedder.
        with_task: Whether the task that a lesson was learned from is known to it.
    """

    name: str
    uses_model: bool
    with_task: bool


PAPER = System("paper", uses_model=True, with_task=False)
PRODUCTS = (
    System("lexical", uses_model=False, with_task=False),
    System("hybrid", uses_model=True, with_task=False),
    System("lexical+task", uses_model=False, with_task=True),
    System("hybrid+task", uses_model=True, with_task=True),
)
SYSTEMS = {system.name: system for system in (PAPER, *PRODUCTS)}


# --- what is played ---


@dataclass(frozen=True, slots=True)
class Query:
    """A query with the gain of every experience that is relevant to it, by id."""

    track: str
    text: str
    relevant: dict[str, float]


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool with its queries; ids are unique across pools, and the workspace is named like the pool's place."""

    name: str
    experiences: list[Experience]
    queries: list[Query]

    def tracks(self) -> list[str]:
        """Return the names of its tracks, sorted."""
        return sorted({query.track for query in self.queries})

    def of_track(self, track: str) -> list[Query]:
        """Return the queries of one track."""
        return [query for query in self.queries if query.track == track]

    def is_verbatim(self, track: str) -> bool:
        """Return whether this track's queries stand word for word in the tasks of what is relevant to them."""
        tasks = {one.id: task_key(one.task) for one in self.experiences}
        queries = self.of_track(track)
        found = [any(task_key(query.text) in tasks.get(id, "") for id in query.relevant) for query in queries]
        return sum(found) >= VERBATIM_SHARE * len(found)


def read_pools(folder: Path, *, names: Sequence[str] = (), tracks: Sequence[str] = ()) -> list[Pool]:
    """Return the pools of `folder`, of these names and with the queries of these tracks; empty means all.

    Raises:
        ValueError: There is none, one has no query, or a line is not what it should be; the text says where.
    """
    paths = [path for path in sorted(folder.glob("*.jsonl")) if path.name != QRELS]
    if unknown := set(names) - {path.stem for path in paths}:
        raise ValueError(f"no pool {', '.join(sorted(unknown))} in {folder}")
    paths = [path for path in paths if not names or path.stem in names]
    judged: dict[str, list[Query]] = {path.stem: [] for path in paths}
    for pool, query in _read_lines(folder / QRELS, _query):
        if pool in judged and (not tracks or query.track in tracks):
            judged[pool].append(query)
    if not any(judged.values()):
        raise ValueError(f"{folder / QRELS} has no query for the pools {', '.join(judged) or '(there is none)'}")
    pools = []
    for place, path in enumerate(paths):
        experiences = {one.id: one for one in _read_lines(path, partial(_experience, workspace=f"pool-{place}"))}
        queries = [
            replace(query, relevant={_own_id(f"pool-{place}", id): gain for id, gain in query.relevant.items()})
            for query in judged[path.stem]
        ]
        pools.append(Pool(path.stem, list(experiences.values()), queries))
    return pools


def _read_lines(path: Path, parse: Any) -> Iterator[Any]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield parse(json.loads(line))
                except (ValueError, TypeError, KeyError, AttributeError) as exc:
                    raise ValueError(f"{path}, line {number}: {exc!r}") from exc


def _query(line: dict[str, Any]) -> tuple[str, Query]:
    relevant = {id: float(gain) for id, gain in line["relevant"].items() if gain > 0}
    if not relevant:
        raise ValueError("nothing is relevant")
    return line["pool"], Query(line["track"], line["query"][:MAX_TASK_CHARS], relevant)


def _experience(line: dict[str, Any], *, workspace: str) -> Experience:
    """Return upstream's record as an experience of this package."""
    extras = line["metadata"]
    frequency = int(extras.get("freq") or 0)
    utility = min(int(extras.get("utility") or 0), frequency)
    created_at = _time(line.get("time_created"))
    return Experience(
        id=_own_id(workspace, line["memory_id"]),
        workspace=workspace,
        when_to_use=line["when_to_use"],
        content=line["content"],
        keywords=_texts(extras.get("tags")),
        confidence=float(extras.get("confidence") or 0.5),
        tools_used=_texts(extras.get("tools_used")),
        kind=extras["category"] if extras.get("category") in get_args(Kind) else "success",
        task=extras.get("task_query") or "",
        generalized_task=extras.get("generalized_query") or "",
        frequency=frequency,
        utility=utility,
        prior_frequency=frequency,
        prior_utility=utility,
        source="benchmark",
        author=line.get("author") or "",
        trajectory_ids=(),
        created_at=created_at,
        updated_at=created_at,
        counted_since=created_at,
        status="active",
        status_reason="",
        pinned=False,
    )


def _own_id(workspace: str, id: str) -> str:
    # With distractors one home holds several pools, and an id has to be unique in it.
    return f"{workspace}-{id}"


def _texts(listed: str | list[str] | None) -> tuple[str, ...]:
    parts = listed.split(",") if isinstance(listed, str) else listed or []
    return tuple(part.strip() for part in parts if part.strip())


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC) if text else now()


def with_distractors(pools: Sequence[Pool], most: int) -> list[Pool]:
    """Return the pools with up to `most` experiences of the other pools in each, drawn evenly and always the same."""
    crowded = []
    for place, pool in enumerate(pools):
        others = [one for other in pools if other is not pool for one in other.experiences]
        chosen = np.random.default_rng(0).permutation(len(others))[:most]
        workspace = f"pool-{place}"
        strangers = [
            replace(others[row], id=_own_id(workspace, others[row].id), workspace=workspace) for row in sorted(chosen)
        ]
        crowded.append(replace(pool, experiences=[*pool.experiences, *strangers]))
    return crowded


# --- what is measured ---


@dataclass(frozen=True, slots=True)
class Played:
    """How a system did on one track of a pool.

    Attributes:
        floor: `None` for a system that has none.
        distractors: How many experiences of other pools were in the way.
        measures: (n queries, `MEASURES`), each 0 to 1.
        unanswered: Queries that got nothing.
    """

    system: str
    floor: bool | None
    distractors: int
    track: str
    pool: str
    verbatim: bool
    measures: Floats
    unanswered: int


@dataclass(frozen=True, slots=True)
class OffTopic:
    """How many of the off-topic questions got something, with the floor on."""

    system: str
    distractors: int
    pool: str
    length: str
    questions: int
    answered: int


@dataclass(frozen=True, slots=True)
class Found:
    """How many of the questions in one language found their note first, or among the first three."""

    system: str
    language: str
    questions: int
    first: int
    in_three: int


@dataclass(slots=True)
class Figures:
    """What the benchmark finds; seconds are of every recall with the floor on, by system and distractors."""

    played: list[Played] = field(default_factory=list)
    off_topic: list[OffTopic] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    seconds: dict[tuple[str, int], list[float]] = field(default_factory=dict)


def judge(ids: Sequence[str], relevant: Mapping[str, float]) -> list[float]:
    """Return the `MEASURES` of one ranking, best first."""
    gains = [relevant.get(id, 0.0) for id in ids[:DEPTH]]
    best = sorted(relevant.values(), reverse=True)[:DEPTH]
    first = next((place for place, gain in enumerate(gains, start=1) if gain), 0)
    return [
        sum(gain > 0 for gain in gains[:5]) / len(relevant),
        1 / first if first else 0.0,
        _discounted(gains) / _discounted(best),
        _discounted([2**gain - 1 for gain in gains]) / _discounted([2**gain - 1 for gain in best]),
    ]


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / float(np.log2(place + 1)) for place, gain in enumerate(gains, start=1))


def interval(pools: Sequence[Floats]) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the mean over pools, each (n,) values of its queries."""
    chance = np.random.default_rng(0)
    means = [one[chance.integers(len(one), size=(RESAMPLES, len(one)))].mean(axis=1) for one in pools]
    low, high = np.quantile(np.mean(means, axis=0), (0.025, 0.975))
    return float(low), float(high)


# --- the benchmark ---


class Remembering:
    """An embedder that embeds a text once, however often it is asked for.

    Attributes:
        name: Of the vector space.
        seconds: Spent on embedding so far.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.name = embedder.name
        self.seconds = 0.0
        self._embedder = embedder
        self._vectors: dict[str, npt.NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, dim) float32, unit norm."""
        started = time.perf_counter()
        if new := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            self._vectors.update(zip(new, self._embedder.embed(new), strict=True))
        self.seconds += time.perf_counter() - started
        return np.stack([self._vectors[text] for text in texts])


class Bench:
    """Plays pools to the memory and to the paper's method, and keeps what it finds."""

    def __init__(self, folder: Path, settings: EmbedderSettings, embedder: Embedder | None) -> None:
        """Make one.

        Args:
            folder: Exists and is empty; homes are made in there.
            settings: Of the embedder; its provider is that of the systems which use a model.
            embedder: What they name, loaded; `None` where no system uses one.
        """
        self.figures = Figures()
        self._verbatim: set[str] = set()
        self._folder = folder
        self._settings = settings
        self._embedder = None if embedder is None else Remembering(embedder)

    async def play(self, pools: Sequence[Pool], systems: Sequence[System], *, distractors: int) -> None:
        """Play every query of the pools to every system.

        Args:
            pools: With distractors if there shall be any.
            systems: Which ones.
            distractors: How many there are, at most, in a pool.
        """
        # Of one pool is enough: a mean of the others would not be that of the track.
        self._verbatim = {track for pool in pools for track in pool.tracks() if pool.is_verbatim(track)}
        if PAPER in systems:
            for pool in pools:
                self._play_paper(pool, distractors)
        for with_task in (False, True):
            chosen = [system for system in systems if system is not PAPER and system.with_task == with_task]
            if not chosen:
                continue
            for pool in pools:
                home = self._folder / f"{pool.name}-{distractors}-{'with' if with_task else 'without'}-task"
                await fill(home, [one if with_task else replace(one, task="") for one in pool.experiences])
                with_model = [system for system in chosen if system.uses_model]
                if with_model:
                    async with self._open(home, with_model[0], floor=True):
                        pass  # Now the vectors are there.
                for system in chosen:
                    await self._play_product(home, pool, system, distractors=distractors)

    async def play_languages(self, notes: Sequence[Note], systems: Sequence[System]) -> None:
        """Ask the questions of the notes, all in one workspace; their source task is not known to any system."""
        home = self._folder / "languages"
        plain = _experience({"memory_id": "", "when_to_use": "", "content": "", "metadata": {}}, workspace="languages")
        experiences = [
            replace(plain, id=f"note-{place}", when_to_use=note.when_to_use, content=note.content)
            for place, note in enumerate(notes)
        ]
        await fill(home, experiences)
        for system in systems:
            async with self._open(home, system, floor=True) as memory:
                places: dict[str, list[int]] = {}
                for wanted, note in zip(experiences, notes, strict=True):
                    for question in note.questions:
                        ids, _ = await self._recall(memory, question, "languages")
                        place = ids.index(wanted.id) if wanted.id in ids else DEPTH
                        places.setdefault(note.language, []).append(place)
            for language, seen in places.items():
                first, in_three = sum(place < 1 for place in seen), sum(place < 3 for place in seen)
                self.figures.found.append(Found(system.name, language, len(seen), first, in_three))

    def _play_paper(self, pool: Pool, distractors: int) -> None:
        assert self._embedder is not None
        ids = [one.id for one in pool.experiences]
        keys = self._embedder.embed([one.when_to_use for one in pool.experiences])
        for track in pool.tracks():
            queries = pool.of_track(track)
            cosines = self._embedder.embed([query.text for query in queries]) @ keys.T
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :DEPTH]
            rankings = [[ids[row] for row in rows] for rows in order]
            # It does not see the task.
            self._keep(PAPER, None, distractors, pool.name, track, queries, rankings, verbatim=False)

    async def _play_product(self, filled: Path, pool: Pool, system: System, *, distractors: int) -> None:
        # A copy, as receipts of thousands of recalls in a few minutes would slow down those that come later.
        home = Path(tempfile.mkdtemp(dir=self._folder)) / "home"
        shutil.copytree(filled, home)
        workspace = pool.experiences[0].workspace
        rankings: dict[str, list[list[str]]] = {}
        async with self._open(home, system, floor=True) as memory:
            for track in pool.tracks():
                rankings[track] = []
                for query in _shown(pool.of_track(track), f"{system.name}, {pool.name}, {track}"):
                    ids, took = await self._recall(memory, query.text, workspace)
                    rankings[track].append(ids)
                    self.figures.seconds.setdefault((system.name, distractors), []).append(took)
            for length, questions in OFF_TOPIC.items():
                answered = [bool((await self._recall(memory, question, workspace))[0]) for question in questions]
                self.figures.off_topic.append(
                    OffTopic(system.name, distractors, pool.name, length, len(questions), sum(answered))
                )
        async with self._open(home, system, floor=False) as memory:
            for track, floored in rankings.items():
                queries = pool.of_track(track)
                free = [(await self._recall(memory, query.text, workspace))[0] for query in queries]
                verbatim = system.with_task and track in self._verbatim
                for floor, found in ((True, floored), (False, free)):
                    self._keep(system, floor, distractors, pool.name, track, queries, found, verbatim=verbatim)
        shutil.rmtree(home)

    def _keep(
        self,
        system: System,
        floor: bool | None,
        distractors: int,
        pool: str,
        track: str,
        queries: Sequence[Query],
        rankings: Sequence[Sequence[str]],
        *,
        verbatim: bool,
    ) -> None:
        measures = [judge(ids, query.relevant) for ids, query in zip(rankings, queries, strict=True)]
        unanswered = sum(not ids for ids in rankings)
        self.figures.played.append(
            Played(system.name, floor, distractors, track, pool, verbatim, np.array(measures), unanswered)
        )

    async def _recall(self, memory: Memory, query: str, workspace: str) -> tuple[list[str], float]:
        """Return the ids that the query gets, best first, and the seconds that it took, less the embedding."""
        started, embedding = time.perf_counter(), self._embedding_seconds()
        result = await memory.recall(query, workspace=workspace, source="benchmark")
        took = time.perf_counter() - started - (self._embedding_seconds() - embedding)
        return [one.id for one in result.experiences], took

    def _embedding_seconds(self) -> float:
        return 0.0 if self._embedder is None else self._embedder.seconds

    @asynccontextmanager
    async def _open(self, home: Path, system: System, *, floor: bool) -> AsyncIterator[Memory]:
        settings = Settings(
            home=str(home),
            embedder=self._settings if system.uses_model else EmbedderSettings(provider="none"),
            recall=RecallSettings(limit=DEPTH, token_budget=TOKEN_BUDGET, floor=floor),
        )
        async with Memory.open(settings, load=self._load) as memory:
            await memory.warm_up(download=False)
            yield memory

    def _load(self, settings: EmbedderSettings, download: bool) -> Embedder | None:
        return None if settings.provider == "none" else self._embedder


async def fill(home: Path, experiences: Sequence[Experience]) -> None:
    """Write the experiences to a new home, in so many writes that the index is brought up to date as in a used one."""
    chunk = max(1, len(experiences) // EVERY_WRITES)
    store = await Store.open(home)
    async with store.writing() as writer:
        for start in range(0, len(experiences), chunk):
            await writer.put_experiences(experiences[start : start + chunk])
    await store.compaction.run()
    store.close()


def _shown(queries: Sequence[Query], title: str) -> Iterable[Query]:
    return progress(queries, title, console=Console(stderr=True), transient=True)


# --- what is said ---


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the result: a system on one track, on one pool or as the mean over pools.

    Attributes:
        pool: Its name, or `mean`.
        distractors: How many there were, at most.
        verbatim: The queries stand in the tasks that were searched: the line says nothing.
        in_mean: Whether the pool counts in the mean.
        ndcg_at_10_interval: Bootstrap, 95 %.
        lost_to_floor: Share of the nDCG@10 without the floor that is lost by it; `None` but for lines with the floor.
    """

    system: str
    floor: bool | None
    distractors: int
    track: str
    pool: str
    queries: int
    verbatim: bool
    in_mean: bool
    recall_at_5: float
    mrr_at_10: float
    ndcg_at_10: float
    ndcg_at_10_interval: tuple[float, float]
    ndcg_at_10_exp: float
    unanswered: int
    lost_to_floor: float | None


def lines_of(played: Sequence[Played], *, tuned_on: Sequence[str] = ()) -> list[Line]:
    """Return a line for everything that was played, and after the pools of a track their mean."""
    groups: dict[tuple[str, str, int, bool | None], list[Played]] = {}
    for one in played:
        groups.setdefault((one.track, one.system, one.distractors, one.floor), []).append(one)
    lines = []
    for (track, system, distractors, floor), group in groups.items():
        without = groups.get((track, system, distractors, False), []) if floor else []
        for place, one in enumerate(group):
            counts = not one.verbatim and one.pool not in tuned_on
            lines.append(_line(one.pool, [one], without[place : place + 1], in_mean=counts))
        kept = [place for place, line in enumerate(lines[-len(group) :]) if line.in_mean]
        if kept:
            mean = _line("mean", [group[place] for place in kept], [without[place] for place in kept if without])
            lines.append(mean)
    return sorted(lines, key=lambda line: (line.track, line.distractors))


def _line(pool: str, group: Sequence[Played], without: Sequence[Played], *, in_mean: bool = False) -> Line:
    one = group[0]
    values = np.mean([member.measures.mean(axis=0) for member in group], axis=0)
    lost = None
    if without:
        free = float(np.mean([member.measures.mean(axis=0) for member in without], axis=0)[PLAIN_NDCG])
        lost = 1 - float(values[PLAIN_NDCG]) / free if free else 0.0
    return Line(
        system=one.system,
        floor=one.floor,
        distractors=one.distractors,
        track=one.track,
        pool=pool,
        queries=sum(len(member.measures) for member in group),
        verbatim=one.verbatim,
        in_mean=in_mean,
        ndcg_at_10_interval=interval([member.measures[:, PLAIN_NDCG] for member in group]),
        unanswered=sum(member.unanswered for member in group),
        lost_to_floor=lost,
        **dict(zip(MEASURES, map(float, values), strict=True)),
    )


def _show(lines: Sequence[Line], figures: Figures, milliseconds: Sequence[Mapping[str, Any]]) -> None:
    columns = ("system", "pool", "queries", "R@5", "MRR@10", "nDCG@10", "95 %", "2^gain-1", "no floor", "lost to it")
    floorless = {
        (line.track, line.distractors, line.system, line.pool): line.ndcg_at_10 for line in lines if line.floor is False
    }
    for track, distractors in dict.fromkeys((line.track, line.distractors) for line in lines):
        rows = []
        for line in lines:
            if (line.track, line.distractors) != (track, distractors) or line.floor is False:
                continue
            low, high = line.ndcg_at_10_interval
            row = [line.system + (" (verbatim)" if line.verbatim else ""), line.pool, str(line.queries)]
            row += [f"{value:.3f}" for value in (line.recall_at_5, line.mrr_at_10, line.ndcg_at_10)]
            row += [f"{low:.3f}-{high:.3f}", f"{line.ndcg_at_10_exp:.3f}"]
            if line.floor is None or line.lost_to_floor is None:
                row += ["", ""]
            else:
                row += [f"{floorless[track, distractors, line.system, line.pool]:.3f}", f"{line.lost_to_floor:.1%}"]
            rows.append(row)
        report.show(f"{track}, up to {distractors} distractors" if distractors else track, columns, rows)
    _show_rest(figures, milliseconds)


def _show_rest(figures: Figures, milliseconds: Sequence[Mapping[str, Any]]) -> None:
    rows = []
    for times in milliseconds:
        system, distractors = times["system"], times["distractors"]
        row = [system, str(distractors)]
        for length in OFF_TOPIC:
            here = [
                one
                for one in figures.off_topic
                if (one.system, one.distractors, one.length) == (system, distractors, length)
            ]
            row.append(" ".join(f"{one.answered}/{one.questions}" for one in here))
        rows.append([*row, f"{times['p50']:.1f} / {times['p95']:.1f}"])
    columns = (
        "system",
        "distractors",
        *(f"{length} off-topic, by pool" for length in OFF_TOPIC),
        "recall ms p50 / p95, less embedding",
    )
    report.show("False recalls and times, with the floor", columns, rows)
    columns = ("language", "system", "questions", "recall@1", "recall@3")
    rows = [
        [
            one.language,
            one.system,
            str(one.questions),
            f"{one.first / one.questions:.2f}",
            f"{one.in_three / one.questions:.2f}",
        ]
        for one in sorted(figures.found, key=lambda one: one.language)
    ]
    report.show("Languages, with the floor", columns, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__, data="folder with the pools, *.jsonl, and qrels.jsonl", needs_data=False)
    parser.add_argument("--month", type=Path, metavar="FILE", help="a month of tasks; without --data, two of ours")
    parser.add_argument("--before", type=Path, metavar="FILE", help="of an earlier run of the month")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print N recalls of the month")
    parser.add_argument("--models", type=Path, metavar="DIR", help="fastembed's cache folder; without it only words")
    parser.add_argument(
        "--model", default=EmbedderSettings().model, metavar="NAME", help="of the embedder (%(default)s)"
    )
    parser.add_argument("--pools", nargs="+", default=[], metavar="NAME", help="only these (all)")
    parser.add_argument("--tracks", nargs="+", default=[], metavar="NAME", help="only these (all)")
    parser.add_argument("--tuned-on", nargs="+", default=[], metavar="NAME", help="pools that are in no mean")
    parser.add_argument("--distractors", type=int, default=0, metavar="N", help="put N of the others into each pool")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME", help="(all)")
    arguments = parser.parse_args(argv)
    systems = [SYSTEMS[name] for name in arguments.systems if arguments.models or not SYSTEMS[name].uses_model]
    if len(systems) < len(arguments.systems):
        print("Without --models no system that needs vectors runs: words only.")
    settings = EmbedderSettings(model=arguments.model, cache_dir=str(arguments.models or ""), download=False)
    if arguments.data is None:
        return _play_month(arguments, settings)
    if arguments.month or arguments.before or arguments.show:
        parser.error("--month, --before and --show go without --data")
    try:
        pools = read_pools(arguments.data, names=arguments.pools, tracks=arguments.tracks)
        embedder = load_embedder(settings, False) if any(system.uses_model for system in systems) else None
    except (OSError, ValueError, EmbedderError) as exc:
        print(exc, file=sys.stderr)
        return 1
    crowded = with_distractors(pools, arguments.distractors)
    strangers = {
        pool.name: len(crowd.experiences) - len(pool.experiences) for pool, crowd in zip(pools, crowded, strict=True)
    }
    for pool in pools:
        print(f"{pool.name}: {len(pool.experiences)} experiences, {len(pool.queries)} queries", end="")
        print(f", {strangers[pool.name]} distractors" if arguments.distractors else "")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), settings, embedder)
        anyio.run(_play_all, bench, crowded, systems, max(strangers.values()))
    figures = bench.figures
    lines = lines_of(figures.played, tuned_on=arguments.tuned_on)
    milliseconds = [
        {"system": system, "distractors": distractors, "recalls": len(seconds)}
        | {f"p{percent}": round(report.percentile(seconds, percent) * 1000, 2) for percent in (50, 95)}
        for (system, distractors), seconds in figures.seconds.items()
    ]
    _show(lines, figures, milliseconds)
    options = {name: getattr(arguments, name) for name in ("tracks", "tuned_on", "distractors", "model")}
    report.write(
        arguments.json,
        {
            "options": options | {"systems": [system.name for system in systems]},
            "pools": {
                pool.name: {"experiences": len(pool.experiences), "distractors": strangers[pool.name]}
                | {"queries": {track: len(pool.of_track(track)) for track in pool.tracks()}}
                for pool in pools
            },
            "results": [asdict(line) for line in lines],
            "off_topic": [asdict(one) for one in figures.off_topic],
            "languages": [asdict(one) for one in figures.found],
            "milliseconds": milliseconds,
        },
    )
    return 0


def _play_month(arguments: argparse.Namespace, settings: EmbedderSettings) -> int:
    systems = {"lexical": EmbedderSettings(provider="none")} | ({"hybrid": settings} if arguments.models else {})
    files = [arguments.month] if arguments.month else [month.BUILT_IN, month.HARD]
    figures: dict[str, Any] = {"halves": [], "off_topic": {}, "answered": {}, "handed": {}}
    try:
        before = json.loads(arguments.before.read_text(encoding="utf-8"))["handed"] if arguments.before else {}
        with tempfile.TemporaryDirectory() as folder:
            for file in files:
                played = month.read_month(file)
                play = partial(month.measure, name=file.stem, show=arguments.show)
                found = anyio.run(play, played, Path(folder), systems, load_embedder, before)
                figures["halves"] += found["halves"]
                figures["off_topic"] |= found["off_topic"]
                for system in systems:
                    figures["answered"].setdefault(system, {}).update(found["answered"][system])
                    figures["handed"].setdefault(system, {}).update(found["handed"][system])
    except (OSError, ValueError, KeyError, EmbedderError) as exc:
        print(exc, file=sys.stderr)
        return 1
    report.write(arguments.json, figures)
    return 0


async def _play_all(bench: Bench, pools: Sequence[Pool], systems: Sequence[System], distractors: int) -> None:
    await bench.play(pools, systems, distractors=distractors)
    # One of each kind: the notes have no source task.
    kinds = {system.uses_model: system for system in reversed(systems) if system is not PAPER}
    await bench.play_languages(NOTES, list(kinds.values()))


if __name__ == "__main__":
    sys.exit(main())
