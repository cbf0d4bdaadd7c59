"""The service with an embedder that comes, goes and changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.models.calibration import PAIRS
from tests.fakes import FakeEmbedder, FakeLoader, draft, experience
from tests.memory.memory_cases import TASK, learn, put, until, warm
from tests.memory.memory_cases import memory as memory
from tests.memory.memory_cases import with_model as with_model

pytestmark = pytest.mark.anyio

# What a model that nobody has measured is given first: each task as a query and as a request, and each lesson.
CALIBRATION = 3 * len(PAIRS)


async def test_with_a_model_meaning_is_found_and_the_cosine_is_shown(with_model: Settings) -> None:
    async with warm(with_model, FakeEmbedder({"ship": (1,), "site": (0.6, 0.8)})) as memory:
        lesson_id = await learn(memory, task="a site")
        await learn(memory, 1, task="t")
        recalled = await memory.recall("ship it", source="test")
        assert recalled.search == ["text", "vector"]
        first = recalled.experiences[0]
        numbers = first.numbers
        assert first.id == lesson_id
        assert (numbers.similarity, numbers.vector_relevance, numbers.text_relevance) == (0.6, 1, 0)
        assert recalled.note == ""


@pytest.mark.parametrize("archived", [5, 6, 60])
async def test_archived_lessons_do_not_stand_in_the_way_of_active_ones(with_model: Settings, archived: int) -> None:
    gone = [
        experience(f"e-gone{number}", when_to_use="", generalized_task="", task="a boat", content=f"boat {number}")
        for number in range(archived)
    ]
    await put(with_model.home, *(replace(one, status="archived") for one in gone), experience("e-active"))
    async with warm(with_model, FakeEmbedder({"ship": (1,), "boat": (1,), "blog": (0.9, 0.1)})) as memory:
        recalled = await memory.recall("ship it", limit=1, source="test")
        assert [one.id for one in recalled.experiences] == ["e-active"]


async def test_without_a_model_words_are_found_and_nothing_is_said_of_it(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        await learn(memory)
        recalled = await memory.recall("static site", source="test")
        assert (recalled.search, recalled.note, len(recalled.experiences)) == (["text"], "", 1)
        assert recalled.experiences[0].numbers.similarity is None
        assert "none" in (await memory.pool.stats()).embedder


async def test_a_model_that_cannot_be_had_is_told_exactly_once(with_model: Settings) -> None:
    async with warm(with_model, "no model on this machine") as memory:
        await learn(memory)
        notes = []
        for _ in range(3):
            recalled = await memory.recall("static site", source="test")
            assert (recalled.search, len(recalled.experiences)) == (["text"], 1)
            notes.append(recalled.note)
        assert "no model on this machine" in notes[0]
        assert notes[1:] == ["", ""]
        assert "no model on this machine" in (await memory.pool.stats()).embedder


async def test_while_the_model_loads_recall_says_so(with_model: Settings) -> None:
    async with Memory.open(with_model, load=FakeLoader()) as memory:
        assert "is not there yet" in (await memory.recall(TASK, source="test")).note


async def test_a_model_that_arrives_later_fills_in_the_vectors(with_model: Settings) -> None:
    async with warm(with_model, "no network", FakeEmbedder({"ship": (1,), "static site": (1,)})) as memory:
        lesson_id = await learn(memory, task="t")
        await memory.record("t", outcome="success", experiences=[draft(1)], workspace="other", source="test")
        assert (await memory.recall("ship it", source="test")).experiences == []
        await memory.warm_up(download=False)
        assert (await memory.pool.stats()).without_vector == 0
        recalled = await memory.recall("ship it", source="test")
        assert [one.id for one in recalled.experiences] == [lesson_id]
        assert recalled.note == ""


async def test_more_experiences_than_one_chunk_are_filled_in(with_model: Settings) -> None:
    await put(with_model.home, *(experience(f"e-{number}") for number in range(150)))
    embedder = FakeEmbedder({"static site": (1,)})
    async with warm(with_model, embedder) as memory:
        assert (await memory.pool.stats()).without_vector == 0
        assert len(embedder.embedded) == CALIBRATION + 2 * 150


async def test_another_embedder_embeds_anew_and_leaves_the_old_vectors_alone(with_model: Settings) -> None:
    small = FakeEmbedder({"static site": (1,)}, dim=1, name="small")
    large = FakeEmbedder({"ship": (0, 1), "static site": (0, 1)}, dim=5, name="large")
    async with warm(with_model, small) as memory:
        lesson_id = await learn(memory, task="t")
    async with warm(with_model, large) as memory:
        assert [one.id for one in (await memory.recall("ship it", source="test")).experiences] == [lesson_id]
        await learn(memory, 1, task="t")
    again = FakeEmbedder({"static site": (1,)}, dim=1, name="small")
    async with warm(with_model, again) as memory:
        assert (await memory.pool.stats()).without_vector == 0
        assert len(again.embedded) == CALIBRATION + 2  # both texts of the one that it had not seen
        recalled = await memory.recall("about a static site", source="test")
        assert recalled.experiences[0].id == lesson_id
        assert len(recalled.experiences) == 2


async def test_a_model_that_fails_in_the_middle_stops_neither_recall_nor_record(with_model: Settings) -> None:
    embedder = FakeEmbedder({"static site": (1,)})
    async with warm(with_model, embedder) as memory:
        first = await learn(memory)
        embedder.broken = "out of memory"
        recalled = await memory.recall(TASK, source="test")
        assert (recalled.search, [one.id for one in recalled.experiences]) == (["text"], [first])
        second = await learn(memory, 1)
        assert {one.id for one in (await memory.recall(TASK, source="test")).experiences} == {first, second}
        assert "out of memory" in (await memory.pool.stats()).embedder
        assert (await memory.pool.stats()).without_vector == 1

        embedder.broken = ""
        recalled = await memory.recall(TASK, source="test")
        assert recalled.search == ["text", "vector"]

        async def filled_in() -> bool:
            return (await memory.pool.stats()).without_vector == 0

        await until(filled_in)


async def test_what_was_deleted_is_not_found_by_its_vector(with_model: Settings) -> None:
    async with warm(with_model, FakeEmbedder({"ship": (1,), "static site": (1,)})) as memory:
        lesson_id = await learn(memory, task="t")
        await memory.pool.delete(lesson_id)
        assert (await memory.recall("ship it", source="test")).experiences == []
        assert (await memory.pool.stats()).without_vector == 0
