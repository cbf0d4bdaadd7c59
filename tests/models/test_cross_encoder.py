"""The second look of a recall: its order, its numbers, and that nothing breaks where the model is away.

No cross-encoder's weights can be had from the package index, so the real part is fastembed and onnxruntime with a model
of two nodes that is written here: its number for a text is the highest token id in it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import EmbedderError
from reme_mcp.memory.memory import Memory
from reme_mcp.models.cross_encoder import CrossEncoder, LoadCrossEncoder, load_cross_encoder
from reme_mcp.recall.ranking import Hits, rank, reread
from tests.fakes import LEARNED, draft, experience

pytestmark = pytest.mark.anyio
NAME = "Xenova/ms-marco-MiniLM-L-6-v2"
TOKENS = {"[PAD]": 0, "[UNK]": 1, "hay": 5, "zebra": 9}


class FakeCrossEncoder:
    """A cross-encoder that likes the texts best which have the latest of `words` in them, and fails while broken."""

    name = "fake"

    def __init__(self, *words: str) -> None:
        self.broken = ""
        self.read: list[tuple[str, str]] = []
        self._words = words

    def compare(self, query: str, texts: Sequence[str]) -> list[float]:
        if self.broken:
            raise EmbedderError(self.broken)
        self.read += [(query, text) for text in texts]
        return [
            float(max((place for place, word in enumerate(self._words) if word in text), default=-9)) for text in texts
        ]


def loads(model: CrossEncoder | str) -> LoadCrossEncoder:
    def load(name: str, settings: EmbedderSettings, download: bool) -> CrossEncoder:
        if isinstance(model, str):
            raise EmbedderError(model)
        return model

    return load


@pytest.fixture
def named(settings: Settings) -> Settings:
    """Return settings that name a cross-encoder."""
    return settings.model_copy(update={"recall": settings.recall.model_copy(update={"cross_encoder": NAME})})


async def learn_three(memory: Memory) -> None:
    for number, place in enumerate(("Ghent", "Lille", "Turin")):
        lesson = draft(number, when_to_use=f"Publish a site in {place}")
        await memory.record(f"publish a site {number}", outcome="success", experiences=[lesson], source="test")


def places(when_to_use: Sequence[str]) -> list[str]:
    return [text.split()[-1] for text in when_to_use]


# --- the order ---


def test_the_cross_encoder_s_order_takes_the_place_of_the_relevance_and_the_corrections_stay() -> None:
    experiences = [experience("e-a"), experience("e-b"), experience("e-c", tools_used=("kubectl",))]
    text = Hits.of_text([("e-a", 3.0), ("e-b", 2.0), ("e-c", 1.0)], reach=50)
    settings = Settings().recall
    ranked = rank(experiences, text, None, tools=["ssh"], settings=settings, base_rate=0.5, at=LEARNED)
    again = reread(ranked, [-4.0, -2.0, 0.0], settings=settings)
    assert {item.experience.id: item.reread_relevance for item in again} == {"e-a": 0, "e-b": 0.5, "e-c": 1}
    assert [item.relevance for item in again] == [item.reread_relevance for item in again]
    before = {item.experience.id: item.ranking / item.relevance for item in ranked}
    assert [item.ranking for item in again] == pytest.approx(
        [item.relevance * before[item.experience.id] for item in again]
    )
    # Half of the best one's is gone, as it needs a tool that is missing.
    assert [item.experience.id for item in again] == ["e-b", "e-c", "e-a"]
    assert reread([], [], settings=settings) == []


async def test_with_a_cross_encoder_the_recall_is_in_its_order_and_shows_its_number(named: Settings) -> None:
    model = FakeCrossEncoder("Ghent", "Turin", "Lille")
    async with Memory.open(named, load_cross=loads(model)) as memory:
        await memory.warm_up(download=False)
        await learn_three(memory)
        recalled = await memory.recall("publish a site", source="test")
        assert recalled.search == ["text", "cross_encoder"]
        assert places([one.when_to_use for one in recalled.experiences]) == ["Lille", "Turin", "Ghent"]
        assert [one.numbers.reread_relevance for one in recalled.experiences] == [1, 0.5, 0]
        assert {query for query, _ in model.read} == {"publish a site"}
        assert recalled.note == ""


async def test_without_a_name_none_is_loaded(settings: Settings) -> None:
    async with Memory.open(settings, load_cross=loads("must not be asked for")) as memory:
        await memory.warm_up(download=False)
        await learn_three(memory)
        recalled = await memory.recall("publish a site", source="test")
        assert recalled.search == ["text"]
        assert {one.numbers.reread_relevance for one in recalled.experiences} == {None}
        assert recalled.note == ""


async def test_a_cross_encoder_that_can_t_be_had_is_told_once_and_the_order_is_that_of_search(named: Settings) -> None:
    async with Memory.open(named, load_cross=loads("it is not there")) as memory:
        await memory.warm_up(download=False)
        await learn_three(memory)
        first = await memory.recall("publish a site", source="test")
        assert first.note == "The order is that of search alone: it is not there"
        assert first.search == ["text"]
        assert len(first.experiences) == 3
        assert (await memory.recall("publish a site", source="test")).note == ""


async def test_a_cross_encoder_that_fails_on_a_query_is_asked_again_at_the_next(named: Settings) -> None:
    model = FakeCrossEncoder("Turin")
    async with Memory.open(named, load_cross=loads(model)) as memory:
        await memory.warm_up(download=False)
        await learn_three(memory)
        model.broken = "out of memory"
        failed = await memory.recall("publish a site", source="test")
        assert (failed.search, len(failed.experiences)) == (["text"], 3)
        assert "out of memory" in failed.note
        model.broken = ""
        recalled = await memory.recall("publish a site", source="test")
        assert recalled.search == ["text", "cross_encoder"]
        assert places([recalled.experiences[0].when_to_use]) == ["Turin"]


async def test_a_model_for_english_reads_no_other_script(named: Settings) -> None:
    model = FakeCrossEncoder("发动机")
    async with Memory.open(named, load_cross=loads(model)) as memory:
        await memory.warm_up(download=False)
        lesson = {"when_to_use": "启动发动机之前", "content": "先锁好所有车门并踩住刹车。"}
        await memory.record("启动发动机", outcome="success", experiences=[lesson], source="test")
        assert (await memory.recall("怎样启动发动机", source="test")).search == ["text"]
        assert model.read == []


# --- fastembed ---


def test_a_real_cross_encoder_numbers_the_texts_in_their_order(tmp_path: Path) -> None:
    write_model(tmp_path)
    model = load_cross_encoder(NAME, EmbedderSettings(cache_dir=str(tmp_path)), False)
    assert model.name == NAME
    assert model.compare("feed", ["some hay", "the zebra", "eggs"]) == [5, 9, 1]


def test_a_cross_encoder_that_is_not_on_this_machine_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        EmbedderError, match=r"is not in .*; start the server once .*, or set \[recall\] cross_encoder to"
    ):
        load_cross_encoder(NAME, EmbedderSettings(cache_dir=str(tmp_path)), False)
    with pytest.raises(
        EmbedderError, match=r"knows no model 'ms-marco'; near ones are .*Set \[recall\] cross_encoder to"
    ):
        load_cross_encoder("ms-marco", EmbedderSettings(cache_dir=str(tmp_path)), False)


def write_model(cache_dir: Path) -> None:
    """Write the model of `NAME` into a cache folder: a tokenizer of four words, and a graph of two nodes."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    repository = cache_dir / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / "1"
    (snapshot / "onnx").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    (snapshot / "onnx" / "model.onnx").write_bytes(onnx_model())
    tokenizer = Tokenizer(models.WordLevel(TOKENS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(snapshot / "tokenizer.json"))
    for name, content in (
        ("config.json", {"pad_token_id": 0}),
        ("tokenizer_config.json", {"model_max_length": 64, "pad_token": "[PAD]"}),
        ("special_tokens_map.json", {}),
    ):
        (snapshot / name).write_text(json.dumps(content))


def onnx_model() -> bytes:
    """Return `logits = ReduceMax(Cast(input_ids))`, in the wire format of onnx.proto (field numbers are its own)."""
    int64, floats = 7, 1
    to_float = part(5, part(1, b"to") + number(3, floats) + number(20, 2))
    over_tokens = part(5, part(1, b"axes") + number(8, 1) + number(20, 7))
    cast = part(1, b"input_ids") + part(2, b"ids") + part(4, b"Cast") + to_float
    largest = part(1, b"ids") + part(2, b"logits") + part(4, b"ReduceMax") + over_tokens
    taken = part(1, b"input_ids") + tensor_type(int64, part(2, b"pairs"), part(2, b"tokens"))
    given = part(1, b"logits") + tensor_type(floats, part(2, b"pairs"), number(1, 1))
    graph = part(1, cast) + part(1, largest) + part(2, b"tiny") + part(11, taken) + part(12, given)
    return number(1, 7) + part(7, graph) + part(8, part(1, b"") + number(2, 11))


def tensor_type(kind: int, *sizes: bytes) -> bytes:
    shape = b"".join(part(1, size) for size in sizes)
    return part(2, part(1, number(1, kind) + part(2, shape)))


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def part(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    low = b""
    while value > 127:
        low += bytes([value & 127 | 128])
        value >>= 7
    return low + bytes([value])
