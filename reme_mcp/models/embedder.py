"""Embedding models: text in, unit vectors out. The only file that imports `fastembed`.

In:  the `[embedder]` settings.
Out: an `Embedder`, or an `EmbedderError` that says what to do.
Does not know: what is embedded or where vectors go.

A model that is not on this machine is fetched from its hub. Without a network `fastembed` tries for most of a minute
before it gives up, so the hub is asked for a sign of life first.
"""

from __future__ import annotations

import difflib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from reme_mcp.config.settings import EmbedderSettings
from reme_mcp.errors import EmbedderError, EndpointError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from fastembed import TextEmbedding

    from reme_mcp.models.endpoint import Endpoint


if TYPE_CHECKING:
    Vectors = npt.NDArray[np.float32]

HUB = "https://huggingface.co"
HUB_TIMEOUT_S = 5.0
ENDPOINT_TIMEOUT_S = 30.0
# Texts embedded at once.
BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Unrelated:
    """The cosines that a model finds between tasks and lessons that have nothing to do with each other."""

    mean: float
    spread: float


@dataclass(frozen=True, slots=True)
class Profile:
    """What has to be known of a model to use it well.

    Attributes:
        query_prefix: What its makers put before a query, but not before what is searched.
        english_only: It maps other scripts to one unknown token: unrelated Chinese texts have cosine .99.
        unrelated: What `measure_unrelated` finds, where it is known before.
        min_word_similarity: The cosine from which on two single words are synonyms; 0 where nobody has measured it.
    """

    query_prefix: str = ""
    english_only: bool = False
    unrelated: Unrelated | None = None
    min_word_similarity: float = 0.0


# Source of the prefix: the model cards of BAAI/bge-*-en-v1.5.
BGE_QUERY_PREFIX = "Represent this sentence for searching relevant passages: "
PROFILES = {
    "BAAI/bge-small-en-v1.5": Profile(BGE_QUERY_PREFIX, True, Unrelated(0.4906, 0.0486), 0.88),
    "BAAI/bge-base-en-v1.5": Profile(BGE_QUERY_PREFIX, english_only=True),
    "BAAI/bge-large-en-v1.5": Profile(BGE_QUERY_PREFIX, english_only=True),
    "sentence-transformers/all-MiniLM-L6-v2": Profile(english_only=True),
}


def profile_of(model: str) -> Profile:
    """Return what is known of a model; fastembed takes its name in any case."""
    return next((profile for name, profile in PROFILES.items() if name.lower() == model.lower()), Profile())


class Embedder(Protocol):
    """What turns text into vectors."""

    @property
    def name(self) -> str:
        """The vector space's name: two embedders of one name make comparable vectors."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32, unit norm. Blocks; call it in a thread.

        Raises:
            EmbedderError: The model failed.
        """
        ...


def load_embedder(settings: EmbedderSettings, download: bool) -> Embedder | None:
    """Load the embedder that the settings name; blocks for as long as that takes.

    Args:
        settings: The `[embedder]` section.
        download: Whether a model that is not on this machine may be fetched now.

    Returns:
        `None` for provider `none`.

    Raises:
        EmbedderError: It can't be had; the message says why and what to do.
    """
    if settings.provider == "none":
        return None
    if settings.provider == "endpoint":
        from reme_mcp.models.endpoint import Endpoint

        return EndpointEmbedder(
            Endpoint(settings.base_url, settings.model, settings.api_key.get_secret_value(), ENDPOINT_TIMEOUT_S)
        )
    return LocalEmbedder(_load_embedding(settings, download=download and settings.download), settings.model)


class LocalEmbedder:
    """A model that runs in this process through `fastembed`."""

    def __init__(self, model: TextEmbedding, name: str) -> None:
        self.name = name
        self._model = model

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32, unit norm.

        Raises:
            EmbedderError: The model failed.
        """
        import numpy as np

        try:
            vectors = list(self._model.embed(list(texts), batch_size=BATCH_SIZE))
        except Exception as exc:  # onnxruntime and the tokenizer raise kinds of their own
            raise EmbedderError(f"{self.name} can't embed: {exc}") from exc
        return unit(np.asarray(vectors, dtype=np.float32))


class EndpointEmbedder:
    """A model behind an OpenAI-compatible server."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = f"{endpoint.model} at {endpoint.base_url}"
        self._endpoint = endpoint

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Return (n, dim) float32, unit norm.

        Raises:
            EmbedderError: The server failed.
        """
        import numpy as np

        vectors: list[list[float]] = []
        try:
            for start in range(0, len(texts), BATCH_SIZE):
                vectors += self._endpoint.embeddings(texts[start : start + BATCH_SIZE])
        except EndpointError as exc:
            raise EmbedderError(f"{exc}; check [embedder] base_url, model and api_key") from exc
        return unit(np.asarray(vectors, dtype=np.float32))


def unit(vectors: Vectors) -> Vectors:
    """Return the vectors, (n, dim) float32, with unit norm.

    Raises:
        EmbedderError: One of them has no direction.
    """
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise EmbedderError("the model made a vector without a direction; choose another [embedder] model")
    unit: Vectors = vectors / lengths
    return unit


def _load_embedding(settings: EmbedderSettings, *, download: bool) -> TextEmbedding:
    """Load a model of fastembed, from its cache or a folder, or fetch it where that is allowed."""
    # Nothing is said of their use, before they are imported.
    for name in ("HF_HUB_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    from fastembed import TextEmbedding
    from loguru import logger as fastembed_log

    # It reports every cache lookup; what matters comes as an exception.
    fastembed_log.disable("fastembed")
    name = settings.model
    known = [model["model"].lower() for model in TextEmbedding.list_supported_models()]
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.3)
        raise EmbedderError(
            f"fastembed knows no model {name!r}; near ones are {', '.join(near) or 'none'}. "
            "Set [embedder] model to one of its names, or provider to endpoint or none"
        )
    load = partial(
        TextEmbedding,
        name,
        cache_dir=settings.cache_dir,
        threads=settings.threads,
        cuda=False,
        specific_model_path=settings.path or None,
    )
    instead = "set [embedder] path to a local copy, or provider to endpoint or none"
    try:
        return load(local_files_only=True)
    except Exception as exc:  # fastembed and onnxruntime raise a dozen kinds, and none of their own
        if settings.path:
            raise EmbedderError(f"can't load {name} from {settings.path}: {exc}") from exc
        if not download:
            raise EmbedderError(
                f"{name} is not in {settings.cache_dir}; start the server once with a network, or {instead}"
            ) from exc
    _ask_hub(name, instead)
    try:
        return load()
    except Exception as exc:
        raise EmbedderError(f"can't fetch {name}: {exc}; it is tried again at the next start") from exc


def _ask_hub(model: str, instead: str) -> None:
    """Raise `EmbedderError` unless the model hub answers at all."""
    hub = os.environ.get("HF_ENDPOINT", HUB)
    try:
        urllib.request.urlopen(urllib.request.Request(hub, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # An answer, whatever it says.
    except (OSError, ValueError) as exc:
        raise EmbedderError(
            f"{model} is not on this machine and {hub} can't be reached ({exc}); recall goes without it until it can. "
            f"{instead[0].upper()}{instead[1:]}"
        ) from exc
