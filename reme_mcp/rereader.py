"""The second look at what search found: a cross-encoder that reads the task and each lesson together.

In:  a task and texts.
Out: a number for each text, or `None` where there is no model; a sentence about it for the user.
Does not know: what the texts are, or what is made of the numbers.

It is off unless `[recall] cross_encoder` names a model. A model that loads, fails or is away is no error to a caller:
the order stays that of search.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import anyio.to_thread

from reme_mcp.config import EmbedderSettings, Settings
from reme_mcp.embed import CrossEncoder
from reme_mcp.errors import EmbedderError
from reme_mcp.vectors import in_daemon_thread
from reme_mcp.words import mostly_latin

logger = logging.getLogger(__name__)

# Those of fastembed's models that know English only; source: their model cards.
ENGLISH_ONLY = ("xenova/ms-marco-", "jinaai/jina-reranker-v1-")

# Loads the model of a name; blocks. The seam at which a test puts its own.
LoadCrossEncoder = Callable[[str, EmbedderSettings, bool], CrossEncoder]


class Rereader:
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
