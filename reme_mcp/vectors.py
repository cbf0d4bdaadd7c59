"""The vector side of the pool: the model, how it is doing, and the vectors that are still missing.

In:  texts to embed, the store to fill.
Out: unit vectors, or `None` while there is no model; a sentence about it for the user.
Does not know: what is recalled or recorded.

A model may load slowly, fail, or be away for a while. None of that is an error to a caller: recall goes on by words,
experiences are stored without vectors, and the vectors follow when the model is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from reme_mcp.config import EmbedderSettings
from reme_mcp.embed import Embedder
from reme_mcp.errors import EmbedderError
from reme_mcp.searchable import vector_text
from reme_mcp.store import Store

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

logger = logging.getLogger(__name__)

CHUNK = 64

# Loads what the settings name, `None` for provider `none`; blocks. The seam at which a test puts its own embedder.
LoadEmbedder = Callable[[EmbedderSettings, bool], Embedder | None]


class Vectors:
    """One embedder, from the moment that it is asked for to the last vector that it owes."""

    def __init__(self, settings: EmbedderSettings, load: LoadEmbedder) -> None:
        self.state = "loading"
        self._settings = settings
        self._load = load
        self._embedder: Embedder | None = None
        self._told = False
        self._filling = anyio.Lock()
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
            embedder = await anyio.to_thread.run_sync(self._load, self._settings, download, abandon_on_cancel=True)
        except EmbedderError as exc:
            self._fail(exc)
            return
        if embedder is not None:
            self._embedder = embedder
            self.state = f"{embedder.name} is loaded"

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """Return (n, dim) float32, unit norm; `None` while there is no model, or if it fails."""
        if self._embedder is None:
            return None
        try:
            return await anyio.to_thread.run_sync(self._embedder.embed, texts, abandon_on_cancel=True)
        except EmbedderError as exc:
            self._fail(exc)
            return None

    async def fill(self, store: Store) -> None:
        """Give every experience that this embedder has not embedded yet its vector, a chunk at a time."""
        if self._embedder is None or self._filling.locked():
            return
        async with self._filling:
            missing = await store.without_vector(self._embedder.name)
            for start in range(0, len(missing), CHUNK):
                experiences = await store.experiences_to_embed(missing[start : start + CHUNK])
                vectors = await self.embed([vector_text(experience) for experience in experiences])
                if vectors is None:
                    return
                async with store.writing() as writer:
                    await writer.put_vectors(self._embedder.name, experiences, vectors)

    def tell_once(self) -> str:
        """Return what the user should know about the model, the first time that there is something to know."""
        if self._told or self._embedder is not None:
            return ""
        if self.state == "loading":
            return "The embedding model is still loading; this recall went by words only."
        self._told = True
        return f"Recall goes by words only: {self.state}"

    def _fail(self, exc: EmbedderError) -> None:
        # The user reads it in the next recall's note.
        logger.info("%s", exc)
        self.state = str(exc)
