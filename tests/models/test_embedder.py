"""A real model, a real OpenAI-compatible server, and what happens where neither can be had."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import anyio
import numpy as np
import numpy.typing as npt
import pytest
from pydantic import SecretStr

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import EmbedderError
from reme_mcp.memory.memory import Memory
from reme_mcp.models.calibration import measure_unrelated
from reme_mcp.models.embedder import BATCH_SIZE, load_embedder, profile_of
from reme_mcp.models.service import EMBEDDED_TOGETHER, KEPT_QUERIES, Vectors
from tests.fakes import FakeEmbedder, FakeLoader
from tests.http_server import Asked, Reply, Server, reply, serving
from tests.weights import model_folder as model_folder

pytestmark = pytest.mark.anyio
KEY = "sk-test-0123456789"
# A model of which nothing has to be measured first.
KNOWN = "BAAI/bge-small-en-v1.5"
DEADLINE_S = 30
PROCESSORS = os.cpu_count() or 1
ALL = 100


# --- the real model ---


def test_the_default_model_makes_unit_vectors_that_know_a_paraphrase(bge_cache_dir: str) -> None:
    embedder = load_embedder(EmbedderSettings(cache_dir=bge_cache_dir), False)
    assert embedder is not None
    texts = ["Start the engine of the car", "Turn the ignition of the vehicle", "Bake a cake with three eggs"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_a_folder_is_as_good_as_a_cache(bge_cache_dir: str) -> None:
    folder = next(Path(bge_cache_dir).glob("**/model_optimized.onnx")).parent
    embedder = load_embedder(EmbedderSettings(path=str(folder)), False)
    assert embedder is not None
    assert embedder.embed(["anything"]).shape == (1, 384)


async def test_a_lesson_is_recalled_by_its_meaning(home: Path, bge_cache_dir: str) -> None:
    settings = Settings(home=str(home), embedder=EmbedderSettings(cache_dir=bge_cache_dir))
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        lesson = {"when_to_use": "Before turning on the motor of an automobile", "content": "Shut all doors."}
        answer = await memory.record("Get the vehicle going", outcome="failure", experiences=[lesson], source="test")
        recalled = await memory.recall("How do I start a car engine?", source="test")
        assert recalled.search == ["text", "vector"]
        assert [one.id for one in recalled.experiences] == answer.added
        assert recalled.experiences[0].numbers.text_relevance == 0
        assert (await memory.recall("Who wrote the ninth symphony?", source="test")).experiences == []


async def test_chinese_is_left_to_the_words_where_the_model_knows_english_only(home: Path, bge_cache_dir: str) -> None:
    settings = Settings(home=str(home), embedder=EmbedderSettings(cache_dir=bge_cache_dir))
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        for when, content in (
            ("启动汽车发动机之前", "先锁好所有车门并踩住刹车，再调用 startEngine。"),
            ("预订航班需要付款的时候", "先查询信用卡的余额，再确认订单的总价。"),
        ):
            lesson = {"when_to_use": when, "content": content}
            answer = await memory.record(when, outcome="success", experiences=[lesson], source="test")
            assert len(answer.added) == 1
        recalled = await memory.recall("怎样启动发动机", source="test")
        assert recalled.search == ["text"]
        assert [one.when_to_use for one in recalled.experiences] == ["启动汽车发动机之前"]


async def test_the_case_of_a_model_name_changes_nothing(home: Path, bge_cache_dir: str) -> None:
    # The message about an unknown model writes its suggestions in lower case.
    embedder = EmbedderSettings(cache_dir=bge_cache_dir, model="baai/bge-small-en-v1.5")
    async with Memory.open(Settings(home=str(home), embedder=embedder)) as memory:
        await memory.warm_up(download=False)
        lesson = {"when_to_use": "Before turning on the motor of an automobile", "content": "Shut all doors."}
        await memory.record("Get the vehicle going", outcome="failure", experiences=[lesson], source="test")
        assert (await memory.recall("Who wrote the ninth symphony?", source="test")).experiences == []


# --- what its cosines mean ---


def test_what_is_known_of_the_default_model_is_what_it_shows_on_unrelated_texts(bge_cache_dir: str) -> None:
    profile = profile_of(EmbedderSettings().model)
    embedder = load_embedder(EmbedderSettings(cache_dir=bge_cache_dir), False)
    assert embedder is not None
    measured = measure_unrelated(embedder.embed, profile.query_prefix)
    assert measured is not None
    assert profile.unrelated is not None
    assert (measured.mean, measured.spread) == pytest.approx(
        (profile.unrelated.mean, profile.unrelated.spread), abs=5e-4
    )


def test_a_model_that_cannot_tell_texts_apart_has_no_measure() -> None:
    assert measure_unrelated(FakeEmbedder({}).embed, "") is None


def test_a_model_that_nobody_knows_is_measured() -> None:
    measured = measure_unrelated(FakeEmbedder({"shop": (1,), "write": (0, 1)}).embed, "")
    assert measured is not None
    assert 0 < measured.mean < 1
    assert measured.spread > 0


async def test_a_model_that_is_away_is_measured_when_it_is_back() -> None:
    embedder = FakeEmbedder({"shop": (1,), "write": (0, 1)})
    embedder.broken = "the endpoint is away"
    vectors = Vectors(EmbedderSettings(model="fake"), FakeLoader(embedder))
    await vectors.load(download=False)
    assert (vectors.unrelated, vectors.state) == (None, "the endpoint is away")
    embedder.broken = ""
    assert await vectors.embed_query("a shop") is not None
    assert vectors.unrelated is not None


# --- queries that wait ---


class GatedEmbedder(FakeEmbedder):
    """Embeds when it is let to, and counts the texts of each call."""

    def __init__(self) -> None:
        super().__init__({"shop": (1,), "write": (0, 1)})
        self._passes = threading.Semaphore(0)
        self.calls: list[int] = []

    def let(self, calls: int) -> None:
        """Let so many calls go on."""
        self._passes.release(calls)

    async def until(self, calls: int) -> None:
        """Wait for so many calls."""
        with anyio.fail_after(DEADLINE_S):
            while len(self.calls) < calls:  # noqa: ASYNC110  # a thread tells nobody
                await anyio.sleep(0.005)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.calls.append(len(texts))
        assert self._passes.acquire(timeout=DEADLINE_S)
        return super().embed(texts)


@asynccontextmanager
async def busy(embedder: GatedEmbedder, provider: Literal["fastembed", "endpoint"]) -> AsyncIterator[Vectors]:
    """Hand out a service whose model is at work on other queries until they are let go on."""
    base_url = "http://127.0.0.1:9" if provider == "endpoint" else ""
    vectors = Vectors(EmbedderSettings(provider=provider, base_url=base_url, model=KNOWN), FakeLoader(embedder))
    await vectors.load(download=False)
    async with anyio.create_task_group() as tasks:
        for processor in range(PROCESSORS):
            tasks.start_soon(vectors.embed_query, f"for processor {processor}")
        await anyio.wait_all_tasks_blocked()
        yield vectors


@pytest.mark.parametrize(
    ("provider", "calls"), [("fastembed", [1, EMBEDDED_TOGETHER]), ("endpoint", [1] * (EMBEDDED_TOGETHER + 1))]
)
async def test_queries_that_wait_for_a_model_in_this_process_are_embedded_together(
    provider: Literal["fastembed", "endpoint"], calls: list[int]
) -> None:
    embedder = GatedEmbedder()
    found: dict[str, Any] = {}
    async with busy(embedder, provider) as vectors, anyio.create_task_group() as tasks:

        async def embed(query: str) -> None:
            found[query] = await vectors.embed_query(query)

        queries = [f"{'shop' if number % 2 else 'write'} {number}" for number in range(EMBEDDED_TOGETHER + 1)]
        for query in queries:
            tasks.start_soon(embed, query)
        await anyio.wait_all_tasks_blocked()
        embedder.let(ALL)

    assert sorted(embedder.calls[PROCESSORS:]) == calls
    for query in queries:
        assert found[query] == pytest.approx(FakeEmbedder({"shop": (1,), "write": (0, 1)}).embed([query])[0])


async def test_a_query_that_is_given_up_takes_no_other_with_it() -> None:
    embedder = GatedEmbedder()
    async with busy(embedder, "fastembed") as vectors, anyio.create_task_group() as tasks:
        given_up = anyio.CancelScope()
        found: list[Any] = []

        async def leave() -> None:
            with given_up:
                await vectors.embed_query("a shop")

        async def stay() -> None:
            found.append(await vectors.embed_query("write"))

        for task in (leave, stay):
            tasks.start_soon(task)
        await anyio.wait_all_tasks_blocked()
        given_up.cancel()
        await anyio.wait_all_tasks_blocked()
        embedder.let(ALL)

    assert embedder.calls[PROCESSORS:] == [1]
    assert found[0] is not None


async def test_who_was_taken_along_by_one_that_is_given_up_is_embedded_all_the_same() -> None:
    embedder = GatedEmbedder()
    found: list[Any] = []
    async with busy(embedder, "fastembed") as vectors, anyio.create_task_group() as tasks:
        first_of_them = anyio.CancelScope()

        async def lead() -> None:
            with first_of_them:
                await vectors.embed_query("a shop")

        async def follow() -> None:
            found.append(await vectors.embed_query("write"))

        for task in (lead, follow):
            tasks.start_soon(task)
        await anyio.wait_all_tasks_blocked()
        embedder.let(PROCESSORS)
        await embedder.until(PROCESSORS + 1)
        first_of_them.cancel()
        embedder.let(ALL)

    assert embedder.calls[PROCESSORS] == 2
    assert found[0] is not None


async def test_the_vector_of_a_query_is_remembered_and_a_failure_is_not() -> None:
    embedder = FakeEmbedder({"shop": (1,)})
    vectors = Vectors(EmbedderSettings(model=KNOWN), FakeLoader(embedder))
    await vectors.load(download=False)
    embedder.broken = "out of memory"
    assert await vectors.embed_query("a shop") is None
    embedder.broken = ""
    first = await vectors.embed_query("a shop")
    assert first is not None
    assert await vectors.embed_query("a shop") is first
    assert len(embedder.embedded) == 1
    for number in range(KEPT_QUERIES):
        await vectors.embed_query(f"shop {number}")
    assert await vectors.embed_query("a shop") is not first


# --- what can't be had ---


def test_an_unknown_model_is_answered_with_near_ones() -> None:
    with pytest.raises(EmbedderError, match=r"baai/bge-small-en-v1\.5"):
        load_embedder(EmbedderSettings(model="BAAI/bge-smal-en"), False)


async def test_without_a_hub_loading_fails_fast_and_recall_goes_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    settings = Settings(home=str(home), embedder=EmbedderSettings(cache_dir=str(tmp_path / "empty")))
    async with Memory.open(settings) as memory:
        started = time.monotonic()
        await memory.warm_up(download=True)
        assert time.monotonic() - started < 10
        first = await memory.recall("anything", source="test")
        assert first.search == ["text"]
        assert "can't be reached" in first.note
        assert (await memory.recall("anything", source="test")).note == ""


# --- an OpenAI-compatible server ---

# What answers 200 and is no list of vectors: kind and content.
NONSENSE = {
    "a web page": ("text/html", b"<html>Welcome</html>"),
    "an error as LM Studio writes it": ("application/json", b'{"error": "Unexpected endpoint or method."}'),
    "a list": ("application/json", b"[]"),
    "broken JSON": ("application/json", b'{"data": ['),
    "no vector": ("application/json", b'{"data": [{"index": 0, "embedding": null}]}'),
    "words for numbers": ("application/json", b'{"data": [{"index": 0, "embedding": ["a", "b"]}]}'),
}


class Embeddings:
    """Answers `POST /v1/embeddings`; `wrong` says how not to."""

    wrong = ""

    def __call__(self, asked: Asked) -> Reply:
        if self.wrong in NONSENSE:
            kind, content = NONSENSE[self.wrong]
            return Reply(content, kind=kind)
        if self.wrong == "refused":
            return reply({"error": {"message": "no such key"}}, 401)
        if self.wrong == "echo":
            return reply({"error": {"message": f"received {asked.key}"}}, 401)
        if self.wrong == "broken":
            return reply({"error": {"message": "out of memory"}}, 500)
        texts = asked.body["input"]
        data = [
            {"object": "embedding", "index": place, "embedding": [len(text), 1.0]} for place, text in enumerate(texts)
        ]
        if self.wrong == "short":
            data = data[1:]
        # In another order than they came in, as the protocol allows.
        return reply(
            {"object": "list", "data": data[::-1], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}
        )


@pytest.fixture
def embeddings() -> Embeddings:
    return Embeddings()


@pytest.fixture
def server(embeddings: Embeddings) -> Iterator[Server]:
    with serving(embeddings) as server:
        yield server


def at(port: int) -> EmbedderSettings:
    return EmbedderSettings(
        provider="endpoint", model="m", base_url=f"http://127.0.0.1:{port}/v1", api_key=SecretStr(KEY)
    )


def test_a_server_embeds_in_batches_and_gets_the_key(server: Server) -> None:
    embedder = load_embedder(at(server.server_port), False)
    assert embedder is not None
    vectors = embedder.embed(["a" * (number + 1) for number in range(BATCH_SIZE + 1)])
    assert np.allclose(vectors[:, 0] / vectors[:, 1], range(1, BATCH_SIZE + 2))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert [asked.key for asked in server.asked] == [f"Bearer {KEY}"] * 2
    assert [asked.body["model"] for asked in server.asked] == ["m"] * 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("refused", "no such key"),
        ("broken", "out of memory"),
        ("short", "answered 1 vectors .* for 2 texts"),
        ("echo", "401 received Bearer …"),
    ],
)
def test_a_server_that_fails_is_an_error_without_the_key(
    server: Server, embeddings: Embeddings, wrong: str, says: str
) -> None:
    embeddings.wrong = wrong
    embedder = load_embedder(at(server.server_port), False)
    assert embedder is not None
    with pytest.raises(EmbedderError, match=says) as caught:
        embedder.embed(["a", "b"])
    assert f"127.0.0.1:{server.server_port}" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("wrong", NONSENSE)
def test_a_server_that_answers_something_else_is_an_error(server: Server, embeddings: Embeddings, wrong: str) -> None:
    embeddings.wrong = wrong
    embedder = load_embedder(at(server.server_port), False)
    assert embedder is not None
    with pytest.raises(EmbedderError):
        embedder.embed(["a"])


@pytest.mark.parametrize("wrong", ["a web page", "an error as LM Studio writes it"])
async def test_recall_and_record_go_on_with_a_server_of_something_else(
    home: Path, server: Server, embeddings: Embeddings, wrong: str
) -> None:
    embeddings.wrong = wrong
    async with Memory.open(Settings(home=str(home), embedder=at(server.server_port))) as memory:
        await memory.warm_up(download=False)
        lesson = {"when_to_use": "Before turning on the motor of an automobile", "content": "Shut all doors."}
        answer = await memory.record("Start the motor", outcome="failure", experiences=[lesson], source="test")
        recalled = await memory.recall("turning on the motor", source="test")
        assert recalled.search == ["text"]
        assert [one.id for one in recalled.experiences] == answer.added
        assert recalled.note


async def test_recall_goes_on_while_a_server_refuses_and_says_so_once(
    home: Path, server: Server, embeddings: Embeddings
) -> None:
    embeddings.wrong = "refused"
    async with Memory.open(Settings(home=str(home), embedder=at(server.server_port))) as memory:
        await memory.warm_up(download=False)
        notes = [(await memory.recall("turning on the motor", source="test")).note for _ in range(2)]
    assert "no such key" in notes[0]
    assert notes[1] == ""


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reme_mcp.models.embedder.ENDPOINT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        embedder = load_embedder(at(deaf.getsockname()[1]), False)
        assert embedder is not None
        started = time.monotonic()
        with pytest.raises(EmbedderError, match="did not embed"):
            embedder.embed(["a"])
        assert time.monotonic() - started < 10


def test_a_server_that_is_not_there_is_an_error() -> None:
    embedder = load_embedder(at(9), False)
    assert embedder is not None
    with pytest.raises(EmbedderError, match="did not embed"):
        embedder.embed(["a"])
