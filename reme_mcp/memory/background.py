"""Work behind the calls: experiences get the vectors that they still lack.

In:  an open store, the embedding model.
Out: vectors in the store.
Does not know: when it is called, or how the model is doing.
"""

from __future__ import annotations

import anyio

from reme_mcp.models.service import Vectors
from reme_mcp.store.store import Store

# So many experiences are embedded at a time; the store is written after each.
CHUNK = 32


class MissingVectors:
    """Gives every experience that the embedder has not embedded yet its vectors. One task at a time does it."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors
        self._filling = anyio.Lock()

    async def fill(self, store: Store) -> None:
        """Embed what is missing, a chunk at a time; return at once while there is no model, or if it fails.

        Raises:
            StoreError: The pool can't be read or written.
        """
        space = self._vectors.space
        if space is None or self._filling.locked():
            return
        async with self._filling:
            missing = await store.without_vector(space)
            for start in range(0, len(missing), CHUNK):
                experiences = await store.experiences_to_embed(missing[start : start + CHUNK])
                embedded = await self._vectors.embed_experiences(experiences)
                if embedded is None:
                    return
                async with store.writing() as writer:
                    await writer.put_vectors(embedded.space, experiences, embedded.vectors, embedded.lessons)
