"""Homes to measure on: any number of experiences with a past, and an embedder that takes no time.

In:  a folder, how many experiences; upstream's pools where made-up texts are not wanted.
Out: a home as use would have left it, filled through the store, and `Memory` open on it.
Does not know: what is measured.

Per five experiences there are a trajectory, and a receipt of five lines, of which every other is settled. The texts
come from a seeded generator whose words are spread as Zipf says, or are those of upstream's pools, repeated with some
words exchanged.
"""

from __future__ import annotations

import json
import random
import re
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reme_mcp.config.settings import EmbedderSettings, RecallSettings, Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.models.embedder import Embedder, unit
from reme_mcp.results import RecordResult
from reme_mcp.schema import Experience, ReceiptLine, Trajectory, new_id, now, task_key
from reme_mcp.store.compaction import EVERY_WRITES
from reme_mcp.store.store import Store
from reme_mcp.text.fields import lesson_text, request_text
from tests.benchmarks import retrieval

Vectors = npt.NDArray[np.float32]

SOURCE = "benchmark"
WORKSPACE = "default"
PER_TRAJECTORY = 5
# Of queries that measure recall: one in so many is made from no task of the pool.
OFF_TOPIC_EVERY = 10
MEGABYTE = 1024 * 1024

DIM = 384
HASHED_WORDS = 2_048
VOCABULARY = 20_000
# Function words are not in the vocabulary, so that it begins where the curve of a language is less steep.
ZIPF_OFFSET = 20
# Of the stand-in: a query has it with the experience that it was made from, and with few others.
MIN_SIMILARITY = 0.35


@cache
def _direction(word: str) -> int:
    return zlib.crc32(word.encode()) % HASHED_WORDS


class HashingEmbedder:
    """An embedder that takes no time: each word is one of `HASHED_WORDS` directions, a text is their sum."""

    name = "hashing"

    def __init__(self) -> None:
        self._directions = np.random.default_rng(0).standard_normal((HASHED_WORDS, DIM)).astype(np.float32)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return (n, DIM) float32, unit norm."""
        words = [[_direction(word) for word in text.split()] for text in texts]
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


def read_texts(data: Path | None) -> list[Experience]:
    """Return the experiences of the pools in `data`; none for `None`."""
    return [] if data is None else [one for pool in retrieval.read_pools(data) for one in pool.experiences]


def write_experiences(size: int, texts: Sequence[Experience] = ()) -> Iterator[Experience]:
    """Yield `size` experiences of an age of up to half a year, made up or varied from those of `texts`."""
    writing = Writing(size)
    at = now()
    for number in range(size):
        born = at - timedelta(days=180 * writing.chance.random())
        settled = number // PER_TRAJECTORY % 2
        if texts:
            base = texts[number % len(texts)]
            if number >= len(texts):
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
    id = new_id("t")
    answer = RecordResult(
        trajectory_id=id,
        status="distilled",
        added=[one.id for one in experiences],
        merged=[],
        rejected=[],
        settled=[],
        pruned=[],
        lessons=[],
        brief="",
    )
    trajectory = Trajectory(
        id=id,
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
        answer=answer.model_dump_json(),
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


def write_queries(experiences: Sequence[Experience], count: int) -> list[str]:
    """Return tasks of experiences with half their words; one in ten is made from none."""
    writing = Writing(len(experiences) + 1)
    queries = []
    for number in range(count):
        chosen = writing.chance.choice(experiences)
        strange = number % OFF_TOPIC_EVERY == 0
        queries.append(writing.text(10) if strange else writing.shortened(chosen.task or chosen.when_to_use))
    return queries


def embed(embedder: Embedder, experiences: Sequence[Experience]) -> tuple[Vectors, Vectors]:
    """Return what search compares and what deduplication compares, (n, DIM) each, unit norm."""
    lessons = embedder.embed([lesson_text(one) for one in experiences])
    return unit(lessons + embedder.embed([request_text(one) for one in experiences])), lessons


async def fill(home: Path, experiences: Sequence[Experience], *, embedder: Embedder | None) -> float:
    """Make a home of these experiences and their past, all in one workspace, compacted once.

    Returns:
        The seconds that the store took.
    """
    seconds = 0.0
    writing = Writing(len(experiences) + 2)
    store = await Store.open(home)
    # So many writes that the indexes are brought up to date as in a used home.
    portion = max(1, len(experiences) // EVERY_WRITES)
    for start in range(0, len(experiences), portion):
        some = experiences[start : start + portion]
        past = [_past(some[at : at + PER_TRAJECTORY], writing) for at in range(0, len(some), PER_TRAJECTORY)]
        embedded = None if embedder is None else embed(embedder, some)
        started = time.perf_counter()
        async with store.writing() as writer:
            for trajectory, _ in past:
                await writer.add_trajectory(trajectory)
            await writer.put_counters([one for one in some if one.frequency])
            await writer.put_experiences(some, are_new=True)
            if embedder is not None and embedded is not None:
                await writer.put_vectors(embedder.name, some, *embedded, are_new=True)
        await store.add_receipt([line for _, lines in past for line in lines])
        seconds += time.perf_counter() - started
    started = time.perf_counter()
    await store.compaction.run()
    # Of a large home it is not due yet: each portion is one write.
    await store.compaction.index_experiences()
    store.close()
    return seconds + time.perf_counter() - started


def open_memory(home: Path, embedder: Embedder | None) -> AbstractAsyncContextManager[Memory]:
    """Open the memory of `home` with the default settings, but for the embedder; `None` is provider `none`."""
    settings = Settings(
        home=str(home),
        # A model that nobody knows: no prefix and no least similarity of its own.
        embedder=EmbedderSettings(provider="none") if embedder is None else EmbedderSettings(model=embedder.name),
        recall=RecallSettings(min_similarity=MIN_SIMILARITY),
    )
    return Memory.open(settings, load=lambda _settings, _download: embedder)


def weigh(folder: Path) -> tuple[int, float]:
    """Return how many files a folder has, and how many MB they take."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes) / MEGABYTE


def resident_mb(pid: int | str = "self") -> float:
    """Return the resident memory of a process, in MB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
