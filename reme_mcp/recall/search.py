"""From a task to the notes about it: both searches, the floor, the ranking, and whatever else is asked for its order.

In:  a task, the pool; the models, as far as there are any.
Out: `Notes`: guidance within its budget, the experiences in it, and which searches answered.
Does not know: receipts.

A model that is away, or too slow, is no error: the notes are then those that were found without it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import anyio
from pydantic import BaseModel

from reme_mcp.aio import gather
from reme_mcp.config.settings import Settings
from reme_mcp.errors import EndpointError
from reme_mcp.models.question import Model, Question
from reme_mcp.models.service import Vectors
from reme_mcp.recall import exposure, ranking, rerank
from reme_mcp.recall.floor import Thresholds, verdicts
from reme_mcp.recall.notes import recall_guidance, with_advice
from reme_mcp.recall.ranking import Hits, Ranked
from reme_mcp.refine import ledger, rules
from reme_mcp.refine.holdout import WITHHELD, Draw, draw_withheld
from reme_mcp.refine.neighbourhood import evidence_among, should_withhold
from reme_mcp.schema import MAX_TASK_CHARS, RECALLABLE, Experience, Rule, SearchMode, Status, now
from reme_mcp.store.store import Store
from reme_mcp.store.tried import TaskVector, Tried
from reme_mcp.text.words import TextWords, spell_out, unquoted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vector = npt.NDArray[np.float32]

# How many notes the model behind the server chooses from, where it orders them.
RERANKED = 10
# Of what the model does with the notes; later, they are given as they were found.
LLM_DEADLINE_S = 4.0

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Decided:
    """An experience that was considered, and the rule that let it pass or held it back.

    Attributes:
        why: The rule in a sentence, with the numbers that it compared.
    """

    item: Ranked
    rule: Rule
    why: str


@dataclass(frozen=True, slots=True)
class _Ranking:
    """What both searches found, in order, before anything is held back.

    Attributes:
        ranked: Best first.
        vector: What the search by vectors found; `None` where it had no part.
        about: What the embedder made of the query; likewise.
        words: Those of each, by its id.
        base_rate: The success of all tasks of the workspace, which a note is measured by.
    """

    ranked: list[Ranked]
    vector: Hits | None
    about: TaskVector | None
    words: Mapping[str, TextWords]
    base_rate: float


@dataclass(frozen=True, slots=True)
class Notes:
    """What a recall hands out.

    Attributes:
        guidance: What a reader reads of it.
        decided: Everything that was considered, those in the guidance first, each with the rule that decided.
        modes: What their order comes from.
        trouble: Why the model behind the server had no part in it; empty where nothing is amiss.
        draws: What the hold-out drew for those that would be in the guidance without it, best first.
        task_vector: What the embedder made of the task, as its receipt keeps it.
    """

    guidance: str
    decided: Sequence[Decided]
    modes: Sequence[SearchMode]
    trouble: str
    draws: Sequence[Draw]
    task_vector: str

    @property
    def due(self) -> list[Ranked]:
        """Those that would be in the guidance without the hold-out, best first."""
        return [one.item for one in self.decided if one.rule in ("handed_out", "withheld")]

    @property
    def shown(self) -> list[Ranked]:
        """The experiences in the guidance, best first."""
        return [one.item for one in self.decided if one.rule == "handed_out"]


class Search:
    """The search of one pool, with the models that it may use."""

    def __init__(self, vectors: Vectors, model: Model | None, settings: Settings) -> None:
        self._vectors = vectors
        self._model = model
        self._settings = settings.recall
        self._refine = settings.refine

    async def notes(
        self,
        store: Store,
        workspace: str,
        task: str,
        *,
        context: str,
        tools: Sequence[str],
        limit: int,
        reader: str,
        holdout: float = 0.0,
    ) -> Notes:
        """Return the notes of a workspace about a task; the arguments are those of `Memory.recall`, checked.

        `reader` is the source of who asks. From a share `holdout` of the recalls one note is withheld, drawn at random.

        Raises:
            StoreError: The pool can't be read.
        """
        query = f"{task}\n{context}" if context else task
        # Those of this very task are searched like active ones.
        own = [one.id for one in await ledger.provisional_for(store, workspace, task)]
        found = await self._ranked(store, workspace, query, limit, tools=tools, own=own, statuses=RECALLABLE)
        ranked = found.ranked
        # A name says something only where several have written, or somebody else has.
        several = len({item.experience.source for item in ranked}) > 1
        shows_sources = several or any(exposure.is_of_another(item, reader) for item in ranked)
        ranked, below = self._above_floor(query, found)

        ranked, trouble = await self._reranked(task, ranked, max(limit, RERANKED))
        ranked, over = await self._exposed(store, ranked, reader, limit)
        ranked, harmful = await self._harmless(store, workspace, task, found.about, ranked, found.base_rate, limit)
        budget = self._settings.token_budget
        guidance, shown = recall_guidance(ranked[:limit], token_budget=budget, shows_sources=shows_sources)
        decided = [*self._handed_out(ranked, len(shown), limit), *harmful, *over, *below]
        draws = draw_withheld(len(shown), holdout, random.random)
        for place, drawn in enumerate(draws):
            if drawn.arm == "withheld":
                decided[place] = replace(decided[place], rule="withheld", why=WITHHELD)
                left = [*shown[:place], *shown[place + 1 :]]
                guidance, shown = recall_guidance(left, token_budget=budget, shows_sources=shows_sources)
                break
        guidance, more_trouble = await self._rewritten(task, guidance, shown)
        modes: list[SearchMode] = ["text"] if found.vector is None else ["text", "vector"]
        task_vector = "" if found.about is None else found.about.to_text()
        return Notes(guidance, decided, modes, trouble or more_trouble, draws, task_vector=task_vector)

    async def find(self, store: Store, workspace: str, query: str, *, limit: int) -> list[Ranked]:
        """Return the experiences in recall that are about a query, best first; no model is asked for an order."""
        found = await self._ranked(store, workspace, query, limit)
        return self._above_floor(query, found)[0][:limit]

    async def alike(self, store: Store, workspace: str, experience: Experience, *, limit: int) -> list[Ranked]:
        """Return the experiences in recall that are most like this one, best first, however little that is."""
        query = f"{experience.when_to_use}\n{experience.content}"[:MAX_TASK_CHARS]
        found = await self._ranked(store, workspace, query, limit + 1)
        return [item for item in found.ranked if item.experience.id != experience.id][:limit]

    async def _ranked(
        self,
        store: Store,
        workspace: str,
        query: str,
        limit: int,
        *,
        tools: Sequence[str] = (),
        own: Sequence[str] = (),
        statuses: Sequence[Status] = ("active",),
    ) -> _Ranking:
        # Before there is a turn: the model embeds together what waits for it.
        embedded = await self._vectors.embed_query(query)
        async with store.search_turn():
            text, (vector, about) = await gather(
                partial(self._by_words, store, workspace, query, own),
                partial(self._by_vectors, store, workspace, embedded, own),
            )
            ids = ranking.shortlist(text, vector, limit=limit)
            found = await store.experiences(workspace, ids, statuses=statuses)
            candidates = [found[id] for id in ids if id in found]
            words = {one.id: store.words_of(one) for one in candidates}
            base_rate = rules.base_rate(*await store.successes.count(workspace))
            ranked = ranking.rank(candidates, text, vector, words=words, tools=tools, base_rate=base_rate, at=now())
        return _Ranking(ranked, vector, about, words, base_rate)

    def tell_once(self) -> str:
        """Return what the user should know about the models, the first time that there is something to know."""
        return self._vectors.tell_once()

    def _above_floor(self, query: str, found: _Ranking) -> tuple[list[Ranked], list[Decided]]:
        """Return those that are about the query, and the others with the reason."""
        if not self._settings.floor:
            return found.ranked, []
        thresholds = Thresholds.of(self._vectors.unrelated, min_similarity=self._settings.min_similarity)
        reads = self._vectors.reads_language
        given = verdicts(query, found.ranked, found.vector, thresholds, words=found.words, reads=reads)
        pairs = list(zip(found.ranked, given, strict=True))
        return (
            [item for item, verdict in pairs if verdict.passes],
            [Decided(item, "floor", verdict.why) for item, verdict in pairs if not verdict.passes],
        )

    async def _exposed(
        self, store: Store, ranked: list[Ranked], reader: str, limit: int
    ) -> tuple[list[Ranked], list[Decided]]:
        """Return those that may be handed out, as they may follow each other, and the others with the reason."""
        of_others = [item.experience for item in ranked if exposure.is_of_another(item, reader)]
        unproven = exposure.unproven(ranked, reader, await store.receipts.credited(of_others))
        kept, over = exposure.within_share(exposure.in_order(ranked, unproven), unproven, limit=limit)
        why = (
            f"{exposure.share(limit)} of {limit} places at most go to lessons of one holder with which nobody else has "
            "succeeded yet"
        )
        return kept, [Decided(item, "exposure", why) for item in over]

    async def _harmless(
        self,
        store: Store,
        workspace: str,
        task: str,
        about: TaskVector | None,
        ranked: Sequence[Ranked],
        base_rate: float,
        limit: int,
    ) -> tuple[list[Ranked], list[Decided]]:
        """Return those of which nothing says that tasks like this one go worse with them, and the others with that.

        Only those are looked at that would have one of the `limit` places and are known well enough.
        """
        if self._refine.removal != "lift":
            return list(ranked), []
        alike: Sequence[Tried] | None = None
        kept: list[Ranked] = []
        harmful: list[Decided] = []
        for place, item in enumerate(ranked):
            if len(kept) == limit:
                kept += ranked[place:]
                break
            one = item.experience
            if not one.pinned and one.frequency >= self._refine.min_frequency:
                if alike is None:
                    alike = (await store.tries.of(workspace)).alike(task, about)
                told = evidence_among(alike, one.id, counted_since=one.counted_since, base_rate=base_rate)
                if should_withhold(told, min_frequency=self._refine.min_frequency):
                    harmful.append(
                        Decided(item, "harmful_here", f"tasks like this one go worse with it: {told.in_words}")
                    )
                    continue
            kept.append(item)
        return kept, harmful

    def _handed_out(self, ranked: Sequence[Ranked], shown: int, limit: int) -> list[Decided]:
        """Return what became of those above the floor, of which the first `shown` were handed out."""
        full = f"the notes before it fill the {self._settings.token_budget} tokens of [recall] token_budget"
        late = f"{limit} are handed out at most, and it is behind them"
        return [
            Decided(item, "handed_out", f"number {place} of those above the floor")
            if place <= shown
            else Decided(item, "token_budget", full)
            if place <= limit
            else Decided(item, "limit", late)
            for place, item in enumerate(ranked, start=1)
        ]

    async def _by_words(self, store: Store, workspace: str, query: str, also: Sequence[str]) -> Hits:
        words = spell_out(unquoted(query))
        hits = await store.match_text(workspace, words, statuses=["active"], also=also, limit=ranking.REACH)
        return Hits.of_text(hits, reach=ranking.REACH)

    async def _by_vectors(
        self, store: Store, workspace: str, embedded: Vector | None, also: Sequence[str]
    ) -> tuple[Hits | None, TaskVector | None]:
        """Return the hits, and the vector of the query where tasks can be compared by it."""
        if embedded is None or (space := self._vectors.space) is None:
            return None, None
        hits = await store.match_vector(space, workspace, embedded, statuses=["active"], also=also, limit=ranking.REACH)
        unrelated = self._vectors.unrelated
        return Hits.of_numbers(hits), None if unrelated is None else TaskVector(space, unrelated.mean, embedded)

    async def _reranked(self, task: str, ranked: list[Ranked], most: int) -> tuple[list[Ranked], str]:
        """Return the notes, the first `most` as the model behind the server orders them, or as they were and why."""
        if self._model is None or not self._settings.rerank or len(ranked) < 2:
            return ranked, ""
        notes = [item.experience for item in ranked[:most]]
        order, trouble = await self._asked(rerank.rerank(task, notes, self._model.room(rerank.Order)), self._model)
        if order is None:
            return ranked, trouble
        return [*(ranked[place] for place in rerank.ranks(order, len(notes))), *ranked[most:]], ""

    async def _rewritten(self, task: str, words: str, shown: Sequence[Ranked]) -> tuple[str, str]:
        """Return the guidance with the model's advice before it, or as it was and why."""
        if self._model is None or not self._settings.rewrite or not shown:
            return words, ""
        notes = [item.experience for item in shown]
        question = rerank.rewrite(task, notes, self._model.room(rerank.Rewriting))
        advice, trouble = await self._asked(question, self._model)
        return (words, trouble) if advice is None else (with_advice(advice.guidance, words), "")

    async def _asked(self, question: Question[Answer], model: Model) -> tuple[Answer | None, str]:
        """Return the model's answer; `None` and a sentence where it failed or took too long."""
        try:
            with anyio.move_on_after(LLM_DEADLINE_S):
                return await model.llm.answer(question.purpose, question.system, question.user, question.shape), ""
        except EndpointError as exc:
            return None, f"The notes are as they were found: {exc}"
        return None, f"The notes are as they were found: the model took longer than {LLM_DEADLINE_S:g} s."
