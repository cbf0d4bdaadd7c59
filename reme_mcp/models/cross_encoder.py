"""Cross-encoders: a model that reads a task and a note together and says how well they fit.

In:  the name of a model; a task and the notes found for it.
Out: a number for each note, or an `EmbedderError` that says what to do.
Does not know: how the notes were found.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

import anyio.to_thread

from reme_mcp.aio import in_daemon_thread
from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import EmbedderError
from reme_mcp.models.embedder import check_known, ignore_progress, load_local
from reme_mcp.text.words import mostly_latin

if TYPE_CHECKING:
    from fastembed.rerank.cross_encoder import TextCrossEncoder

logger = logging.getLogger(__name__)


class CrossEncoder(Protocol):
    """What reads a query and a text together and says how well they fit."""

    @property
    def name(self) -> str:
        """The model's name."""
        ...

    def compare(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return a number for each text, the higher the better it fits the query. Blocks; call it in a thread.

        Raises:
            EmbedderError: The model failed.
        """
        ...


def load_cross_encoder(name: str, settings: EmbedderSettings, download: bool) -> CrossEncoder:
    """Load the cross-encoder of this name; blocks for as long as that takes.

    Args:
        name: As fastembed knows it.
        settings: The `[embedder]` section: cache folder, threads, and whether anything may be fetched.
        download: Whether a model that is not on this machine may be fetched now.

    Raises:
        EmbedderError: It can't be had; the message says why and what to do.
    """
    ignore_progress()
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    known = [model["model"] for model in TextCrossEncoder.list_supported_models()]
    check_known(name, known, "Set [recall] cross_encoder to one of its names, or to nothing")
    load = partial(TextCrossEncoder, name, cache_dir=settings.cache_dir, threads=settings.threads, cuda=False)
    may_fetch = download and settings.download
    model = load_local(load, name, settings, download=may_fetch, instead="set [recall] cross_encoder to nothing")
    return LocalCrossEncoder(model, name, settings.batch_size)


class LocalCrossEncoder:
    """A cross-encoder that runs in this process through `fastembed`."""

    def __init__(self, model: TextCrossEncoder, name: str, batch_size: int) -> None:
        self.name = name
        self._model = model
        self._batch_size = batch_size

    def compare(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return a number for each text, the higher the better it fits the query.

        Raises:
            EmbedderError: The model failed.
        """
        try:
            numbers = list(self._model.rerank(query, list(texts), batch_size=self._batch_size))
        except Exception as exc:  # onnxruntime and the tokenizer raise kinds of their own
            raise EmbedderError(f"{self.name} can't compare: {exc}") from exc
        if not all(math.isfinite(number) for number in numbers):
            raise EmbedderError(f"{self.name} answered {numbers[:3]}…; choose another [recall] cross_encoder")
        return numbers


# Those of fastembed's models that know English only; source: their model cards.
ENGLISH_ONLY = ("xenova/ms-marco-", "jinaai/jina-reranker-v1-")

# Loads the model of a name; blocks. The seam at which a test puts its own.
LoadCrossEncoder = Callable[[str, EmbedderSettings, bool], CrossEncoder]


class CrossEncoderModel:
    """One cross-encoder, from the moment that it is asked for."""

    def __init__(self, settings: Settings, load: LoadCrossEncoder) -> None:
        self._name = settings.recall.cross_encoder
        self._settings = settings.embedder
        self._load = load
        self._model: CrossEncoder | None = None
        self._problem = ""

    async def load(self, *, download: bool) -> None:
        """Load the model, if one is named, in a thread; one that can't be had leaves its reason for the user."""
        if not self._name:
            return
        try:
            self._model = await in_daemon_thread(lambda: self._load(self._name, self._settings, download))
        except EmbedderError as exc:
            self._fail(exc)

    async def compare(self, query: str, texts: Iterable[str]) -> list[float] | None:
        """Return a number for each text, the higher the better it fits; `None` where there is no model for it."""
        model = self._model
        if model is None or not (texts := list(texts)):
            return None
        if self._name.lower().startswith(ENGLISH_ONLY) and not mostly_latin(query):
            return None
        try:
            return await anyio.to_thread.run_sync(model.compare, query, texts, abandon_on_cancel=True)
        except EmbedderError as exc:
            # It may be this one query; the next one tries again.
            self._fail(exc)
            return None

    def tell_once(self) -> str:
        """Return what the user should know about the model, the first time that there is something to know."""
        problem, self._problem = self._problem, ""
        return f"The order is that of search alone: {problem}" if problem else ""

    def _fail(self, exc: EmbedderError) -> None:
        logger.info("%s", exc)
        self._problem = str(exc)
