"""The embedding model, from the moment that it is asked for: whether it is there, and what it makes of texts.

In:  texts to embed.
Out: unit vectors, or `None` while there is no model; a sentence about it for the user.
Does not know: what is recalled or recorded.

A model may load slowly, fail, or be away for a while. None of that is an error to a caller: recall goes on by words,
experiences are stored without vectors, and the vectors follow when the model is there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from reme_mcp.aio import in_daemon_thread
from reme_mcp.config.settings import EmbedderSettings
from reme_mcp.errors import EmbedderError
from reme_mcp.models.calibration import measure_unrelated
from reme_mcp.models.embedder import Embedder, Unrelated, profile_of, unit
from reme_mcp.schema import Experience
from reme_mcp.text.fields import lesson_text, request_text
from reme_mcp.text.words import mostly_latin, unquoted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

logger = logging.getLogger(__name__)


if TYPE_CHECKING:
    Matrix = npt.NDArray[np.float32]
BY_WORDS = "Recall goes by words only: "
# So many queries are embedded in one go: more are hardly less work each, and the first would wait for the last.
EMBEDDED_TOGETHER = 8
# Of so many queries the vectors are remembered, at 1.5 kB each: what failed is asked again.
KEPT_QUERIES = 256

# Loads what the settings name, `None` for provider `none`; blocks. The seam at which a test puts its own embedder.
LoadEmbedder = Callable[[EmbedderSettings, bool], Embedder | None]


@dataclass(frozen=True, slots=True)
class Embedded:
    """What one embedder made of n experiences.

    Attributes:
        space: The embedder's name.
        vectors: What search compares: the middle of lesson and request, (n, dim) float32, unit norm.
        lessons: What deduplication compares: the lessons alone, the same shape.
    """

    space: str
    vectors: Matrix
    lessons: Matrix


@dataclass(slots=True, eq=False)
class _Query:
    """Readings of a query that wait to be embedded, and what came of them.

    Attributes:
        over: Set when whoever took it along is through with it, or was cancelled; then it is not done.
    """

    readings: Sequence[str]
    over: anyio.Event = field(default_factory=anyio.Event)
    is_done: bool = False
    vector: Matrix | None = None


class Vectors:
    """One embedder, from the moment that it is asked for."""

    def __init__(self, settings: EmbedderSettings, load: LoadEmbedder) -> None:
        self.state = "loading"
        self._settings = settings
        self._profile = profile_of(settings.model)
        self._load = load
        self._embedder: Embedder | None = None
        self._told = False
        self._measured: Unrelated | None = None
        self._is_measured = False
        # Queries that nobody has taken, in the order in which they came; and who embeds some, a processor each.
        self._waiting: list[_Query] = []
        self._turns = anyio.Semaphore(os.cpu_count() or 1, fast_acquire=True)
        self._recent: dict[str, Matrix] = {}
        if settings.provider == "none":
            self.state = "none; recall goes by words"
            self._told = True

    @property
    def space(self) -> str | None:
        """The name of the embedder that answers now; `None` while there is none."""
        return None if self._embedder is None else self._embedder.name

    async def load(self, *, download: bool) -> None:
        """Load the embedder in a thread; one that can't be had leaves its reason in `state`."""
        try:
            embedder = await in_daemon_thread(lambda: self._load(self._settings, download))
        except EmbedderError as exc:
            self._fail(exc)
            return
        if embedder is not None:
            self._embedder = embedder
            self.state = self._loaded()
            await self._measure()

    @property
    def unrelated(self) -> Unrelated | None:
        """The cosines of texts that have nothing to do with each other; `None` where they are not known."""
        return self._profile.unrelated or self._measured

    def reads(self, text: str) -> bool:
        """Return whether the model knows the script that `text` is written in."""
        return not self._profile.english_only or mostly_latin(text)

    def reads_language(self, language: str) -> bool:
        """Return whether the model was made for a language, by the name that `text.words` has for it."""
        return not self._profile.english_only or language == "english"

    async def embed_query(self, query: str) -> Matrix | None:
        """Return (dim,) float32, unit norm; `None` while there is no model, if it fails, or can't read the query."""
        if not self.reads(query):
            return None
        await self._measure()
        if query not in self._recent:
            # Quoted literals say little about what kind of task it is, but not nothing: the middle of with and without.
            readings = dict.fromkeys((query, unquoted(query)))
            vector = await self._embed_waiting([self._profile.query_prefix + reading for reading in readings])
            if vector is None:
                return None
            self._recent[query] = vector
            if len(self._recent) > KEPT_QUERIES:
                del self._recent[next(iter(self._recent))]
        return self._recent[query]

    async def _embed_waiting(self, readings: Sequence[str]) -> Matrix | None:
        """Return the vector of a query, embedded together with others that wait for the processor."""
        query = _Query(readings)
        if self._settings.provider == "endpoint":
            # It is another machine's work, and what one query is refused for is no other's trouble.
            await self._embed_together([query])
            return query.vector
        while not query.is_done:
            query.over = anyio.Event()
            self._waiting.append(query)
            try:
                async with self._turns:
                    if query in self._waiting:
                        await self._embed_first(query)
            finally:
                self._leave([query])
            await query.over.wait()
        return query.vector

    async def _embed_first(self, query: _Query) -> None:
        """Embed a query that has waited, together with those that have waited longest."""
        others = [one for one in self._waiting if one is not query]
        some = [query, *others[: EMBEDDED_TOGETHER - 1]]
        self._leave(some)
        try:
            await self._embed_together(some)
        finally:
            for one in some:
                one.over.set()

    def _leave(self, queries: Sequence[_Query]) -> None:
        self._waiting = [one for one in self._waiting if one not in queries]

    async def _embed_together(self, queries: Sequence[_Query]) -> None:
        embedded = await self._embed([reading for query in queries for reading in query.readings])
        end = 0
        for query in queries:
            start, end = end, end + len(query.readings)
            query.is_done = True
            if embedded is not None:
                query.vector = unit(embedded[start:end].sum(axis=0, keepdims=True))[0]

    async def embed_tasks(self, tasks: Sequence[str]) -> Matrix | None:
        """Return (n, dim) float32, unit norm, to compare with each other; `None` while that can't be done."""
        return await self._embed(tasks) if all(self.reads(task) for task in tasks) else None

    async def synonyms(self, pairs: Collection[frozenset[str]]) -> frozenset[frozenset[str]]:
        """Return those pairs of words that are near enough in meaning; none where the model was not measured on it."""
        words = sorted({word for pair in pairs for word in pair if self.reads(word)})
        if not words or not self._profile.min_word_similarity:
            return frozenset()
        embedded = await self._embed(words)
        if embedded is None:
            return frozenset()
        vectors = dict(zip(words, embedded, strict=True))
        return frozenset(
            frozenset((one, other))
            for one, other in (sorted(pair) for pair in pairs if len(pair) == 2 and pair <= vectors.keys())
            if float(vectors[one] @ vectors[other]) >= self._profile.min_word_similarity
        )

    async def embed_experiences(self, experiences: Sequence[Experience]) -> Embedded | None:
        """Return the vectors of the experiences, in order; `None` while there is no model, or if it fails."""
        if not experiences:
            return None
        texts = [lesson_text(one) for one in experiences] + [request_text(one) for one in experiences]
        embedded = await self._embed(texts)
        if embedded is None or self._embedder is None:
            return None
        lessons, requests = embedded[: len(experiences)], embedded[len(experiences) :]
        return Embedded(self._embedder.name, unit(lessons + requests), lessons)

    async def _measure(self) -> None:
        """Find out once what the model's cosines mean; where it is away, the next query tries again."""
        if self._embedder is None or self._profile.unrelated is not None or self._is_measured:
            return
        self._is_measured = True
        measure = partial(measure_unrelated, self._embedder.embed, self._profile.query_prefix)
        try:
            self._measured = await anyio.to_thread.run_sync(measure, abandon_on_cancel=True)
        except EmbedderError as exc:
            self._is_measured = False
            self._fail(exc)

    async def _embed(self, texts: Sequence[str]) -> Matrix | None:
        if self._embedder is None:
            return None
        try:
            vectors = await anyio.to_thread.run_sync(self._embedder.embed, texts, abandon_on_cancel=True)
        except EmbedderError as exc:
            self._fail(exc)
            return None
        self.state = self._loaded()
        return vectors

    def tell_once(self) -> str:
        """Return what the user should know about the model, the first time that there is something to know."""
        if self._told or self.state == self._loaded():
            return ""
        if self.state == "loading":
            return "The embedding model is not there yet: it is loaded, or fetched. This recall went by words only."
        self._told = True
        return BY_WORDS + self.state

    def _loaded(self) -> str:
        return "" if self._embedder is None else f"{self._embedder.name} is loaded"

    def _fail(self, exc: EmbedderError) -> None:
        # The user reads it in the next recall's note.
        logger.info("%s", exc)
        self._told = self._told and self.state == str(exc)
        self.state = str(exc)
