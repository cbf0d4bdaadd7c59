"""One OpenAI-compatible server: requests to it, and what its refusals mean. The only file that imports `openai`.

In:  the body of a request.
Out: the body of the answer, or an `EndpointError` that says why there is none and whether it may pass.
Does not know: what is asked.

Source: the OpenAI API reference, `POST /v1/embeddings` and `POST /v1/chat/completions`.
"""

from __future__ import annotations

import codecs
import ipaddress
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import ValidationError

from reme_mcp.errors import AnswerError, EndpointError
from reme_mcp.models.protocol import Completion, Turn, Vectors, retry_after_s, words_of
from reme_mcp.schema import one_line

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
    from openai.types.chat import ChatCompletionMessageParam

MAX_SAID_CHARS = 300
# A request that is wrong in itself, and statuses that pass; the others below 500 stay until somebody does something.
NOT_THIS_QUESTION = (400, 413, 422)
NO_SUCH_PATH = (404, 405, 501)
HEALS = (408, 409, 425, 429)
PROXY_VARIABLES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


# --- the server ---


class Endpoint:
    """One model behind one OpenAI-compatible server; as text it is `model at address`."""

    def __init__(self, base_url: str, model: str, api_key: str, timeout_s: float) -> None:
        self.base_url = base_url
        self.model = model
        self._api_key = api_key
        self._timeout_s = timeout_s

    def __str__(self) -> str:
        return f"{self.model} at {self.base_url}"

    def embeddings(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text, in order; blocks until the server has answered.

        Raises:
            EndpointError: The server can't be reached, refuses, or answers something else than one vector per text.
        """
        with self._failing("embed"):
            raw = self._client.embeddings.with_raw_response.create(
                model=self.model, input=list(texts), encoding_format="float"
            )
            content = raw.content
        try:
            data = Vectors.model_validate_json(content).data
        except ValidationError:
            raise self._nonsense("a list of vectors", content) from None
        vectors = [one.embedding for one in sorted(data, key=lambda one: one.index)]
        if len(vectors) != len(texts) or len({len(vector) for vector in vectors}) != 1:
            raise EndpointError(
                f"{self} answered {len(vectors)} vectors of lengths {sorted({len(v) for v in vectors})} "
                f"for {len(texts)} texts; is it an embedding model?"
            )
        return vectors

    async def chat(self, turns: Sequence[Turn], options: dict[str, object]) -> Completion:
        """Return what comes next in a conversation; it neither repeats a request nor gives up by itself.

        Raises:
            EndpointError: The server can't be reached, refuses, or answers something else.
        """
        with self._failing("answer"):
            raw = await self._async_client.chat.completions.with_raw_response.create(
                model=self.model, messages=[_message(turn) for turn in turns], extra_body=options
            )
            content = raw.content.removeprefix(codecs.BOM_UTF8)
        try:
            return Completion.model_validate_json(content)
        except ValidationError:
            raise self._nonsense("a chat completion", content) from None

    def models(self) -> list[str] | None:
        """Return the names of the models that the server has; `None` where it lists none. Blocks.

        Raises:
            EndpointError: The server can't be reached, or refuses.
        """
        try:
            with self._failing("list its models"):
                return [model.id for model in self._client.with_options(max_retries=0).models.list().data]
        except EndpointError as exc:
            if exc.status in NO_SUCH_PATH:
                return None
            raise

    def prepare(self) -> None:
        """Load what `chat` needs; blocks for half a second the first time.

        Raises:
            EndpointError: The address is none that the HTTP client takes.
        """
        with self._failing("answer"):
            _ = self._async_client

    async def close(self) -> None:
        """Close the connections that `chat` opened."""
        if "_async_client" in vars(self):
            await self._async_client.close()

    def timed_out(self, verb: str) -> EndpointError:
        """Return the error for a server that takes too long."""
        return EndpointError(f"{self} did not {verb} within {self._timeout_s:g} s")

    def masked(self, text: str) -> str:
        """Return words of a server or a model on one line, cut short, without the key."""
        return one_line(text.replace(self._api_key, "…") if self._api_key else text, MAX_SAID_CHARS)

    # Local servers take no key, but the client insists on one.

    @cached_property
    def _client(self) -> OpenAI:
        from openai import DefaultHttpxClient, OpenAI

        with self._reading_proxies():
            http = DefaultHttpxClient(trust_env=not self._is_local, timeout=self._timeout_s)
        key = self._api_key or "none"
        return OpenAI(base_url=self.base_url, api_key=key, timeout=self._timeout_s, max_retries=2, http_client=http)

    @cached_property
    def _async_client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        # Without timeout and retries: httpx2's timeouts begin anew with every byte, and openai waits for two minutes.
        with self._reading_proxies():
            http = DefaultAsyncHttpxClient(trust_env=not self._is_local, timeout=None)
        key = self._api_key or "none"
        return AsyncOpenAI(base_url=self.base_url, api_key=key, timeout=None, max_retries=0, http_client=http)

    @property
    def _is_local(self) -> bool:
        """Whether the server is on this machine: nothing between is to be asked for the way."""
        host = (urlsplit(self.base_url).hostname or "").rstrip(".")
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost" or host.endswith(".localhost")

    @contextmanager
    def _reading_proxies(self) -> Iterator[None]:
        try:
            yield
        except (ValueError, ImportError, TypeError) as exc:
            names = _proxy_variables()
            if self._is_local or not names:
                raise
            # Without the cause: a proxy's address may hold a password.
            raise EndpointError(
                f"{self} can't be asked: {' or '.join(names)} in the environment names no proxy that can be used "
                f"({type(exc).__name__}); allowed: http://, https://, socks5:// and socks5h://HOST:PORT",
                is_permanent=True,
            ) from None

    @contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - what openai does not expect it lets through: httpx2's, h11's, json's
            # Without the cause: it may quote the key, and a traceback masks nothing.
            raise self._failure(verb, exc) from None

    def _failure(self, verb: str, exc: Exception) -> EndpointError:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(exc, EndpointError):
            return exc
        if isinstance(exc, APITimeoutError):
            return self.timed_out(verb)
        said = f"{self} did not {verb}: "
        if isinstance(exc, APIConnectionError):
            names = [] if self._is_local else [name for name in _proxy_variables() if name.upper() != "NO_PROXY"]
            by = f"; {' and '.join(names)} may send it through a proxy" if names else ""
            return EndpointError(said + self.masked(f"no connection ({exc.__cause__ or exc})") + by)
        if not isinstance(exc, APIStatusError):
            return EndpointError(said + self.masked(f"{type(exc).__name__}: {exc}"), is_permanent=True)
        status = exc.status_code
        said += f"{status} {self.masked(words_of(exc.body) or exc.response.reason_phrase)}"
        if status in NOT_THIS_QUESTION:
            return AnswerError(said, status=status)
        return EndpointError(
            said,
            status=status,
            retry_after_s=retry_after_s(exc.response.headers.get("retry-after", "")),
            is_permanent=(status < 500 and status not in HEALS) or exc.code == "insufficient_quota",
        )

    def _nonsense(self, wanted: str, content: bytes) -> EndpointError:
        said = self.masked(content[: 20 * MAX_SAID_CHARS].decode(errors="replace")) or "nothing"
        return EndpointError(f"{self} answered something else than {wanted}: {said}")


def _message(turn: Turn) -> ChatCompletionMessageParam:
    if turn.role == "system":
        return {"role": "system", "content": turn.content}
    if turn.role == "user":
        return {"role": "user", "content": turn.content}
    return {"role": "assistant", "content": turn.content}


def _proxy_variables() -> list[str]:
    """Return the names of the variables of the environment that say something of proxies."""
    return sorted(name for name in os.environ if name.upper() in PROXY_VARIABLES and os.environ[name])
