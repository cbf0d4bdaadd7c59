"""An OpenAI-compatible server, local or hosted. The only file that imports `openai`.

In:  texts.
Out: what the server made of them, checked.
Does not know: what the texts are for.

Source: the OpenAI API reference, `POST /v1/embeddings`.
"""

from __future__ import annotations

from collections.abc import Sequence

from reme_mcp.errors import EndpointError


class Endpoint:
    """One model behind one OpenAI-compatible server."""

    def __init__(self, base_url: str, model: str, api_key: str, timeout_s: float) -> None:
        from openai import OpenAI

        self.base_url = base_url
        self.model = model
        # Local servers take no key, but the client insists on one.
        self._client = OpenAI(base_url=base_url, api_key=api_key or "none", timeout=timeout_s, max_retries=2)

    def embeddings(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text, in order; blocks until the server has answered.

        Raises:
            EndpointError: The server can't be reached, refuses, or answers something else than one vector per text.
        """
        from openai import OpenAIError

        try:
            answer = self._client.embeddings.create(model=self.model, input=list(texts), encoding_format="float")
        except OpenAIError as exc:
            raise EndpointError(f"{self.base_url} did not embed with {self.model}: {exc}") from exc
        vectors = [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
        if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) != 1:
            raise EndpointError(
                f"{self.base_url} answered {len(vectors)} vectors of lengths {sorted({len(v) for v in vectors})} "
                f"for {len(texts)} texts; is {self.model} an embedding model?"
            )
        return vectors
