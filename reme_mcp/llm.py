"""Models behind an OpenAI-compatible server, local or hosted. The only file that imports `openai`.

In:  texts; a prompt and the shape of its answer.
Out: vectors; a valid value of that shape, and what it cost. Or an `EndpointError` that says why not.
Does not know: what the texts and prompts are for.

Source: the OpenAI API reference, `POST /v1/embeddings` and `POST /v1/chat/completions`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ValidationError

from reme_mcp import answers, prompts
from reme_mcp.budget import shorten, tokens
from reme_mcp.config import API_KEY_PATTERN, LLMSettings
from reme_mcp.costs import Allowance, Bill, Purpose, Spent
from reme_mcp.errors import AnswerError, EndpointError
from reme_mcp.redaction import Redact
from reme_mcp.schema import now
from reme_mcp.wire import Choice, Completion, Manner, Usage, Vectors, retry_after_s, words_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI
    from openai.types.chat import ChatCompletionMessageParam

T = TypeVar("T", bound=BaseModel)

MAX_SAID_CHARS = 300
# A request that is wrong in itself, and statuses that pass; the others below 500 stay until somebody does something.
NOT_THIS_QUESTION = (400, 413, 422)
NO_SUCH_PATH = (404, 405, 501)
HEALS = (408, 409, 425, 429)
FIRST_PAUSE_S = 0.5
# Whoever is told to wait for longer than this comes back later; the caller knows what else there is to do.
LONGEST_PAUSE_S = 20.0
# What an answer that could not be used, and the words about it, add to the next attempt.
BAD_ANSWER_TOKENS = 300
COMPLAINT_TOKENS = 200


class LLM(Protocol):
    """A language model that fills in a form; close it in the end."""

    async def answer(self, purpose: Purpose, system: str, user: str, shape: type[T]) -> T:
        """Return a valid value of `shape`; the model is asked more than once if need be.

        Args:
            purpose: Under which the cost is entered.
            system: What the model is to do.
            user: What it is to do that with.
            shape: Of the answer. Its fields may have no defaults: a model has to fill in all of them.

        Raises:
            AnswerError: This question got no answer that can be used.
            EndpointError: The server can't be reached, refuses or fails, or the day's tokens are used up.
        """
        ...

    async def close(self) -> None:
        """Close what it holds open."""
        ...


class DiscreetLLM:
    """A model to which no secret is said, whatever stands in the pool: what an older version stored came as it was."""

    def __init__(self, llm: LLM, redact: Redact) -> None:
        self._llm = llm
        self._redact = redact

    async def answer(self, purpose: Purpose, system: str, user: str, shape: type[T]) -> T:
        """Ask the model; arguments and errors are those of `LLM.answer`."""
        return await self._llm.answer(purpose, system, self._redact(user), shape)

    async def close(self) -> None:
        """Close the model."""
        await self._llm.close()


def prompt_tokens(settings: LLMSettings, shape: type[BaseModel]) -> int:
    """Return how many tokens system and user prompt may have together.

    They leave room in the model's context for the form, for the answer, and for a second attempt.
    """
    form = 2 * tokens(_text_of(shape))
    taken = settings.max_tokens + form + BAD_ANSWER_TOKENS + COMPLAINT_TOKENS
    return max(0, settings.context_tokens - taken)


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

    async def chat(self, messages: list[ChatCompletionMessageParam], options: dict[str, object]) -> Completion:
        """Return what comes next in a conversation; it neither repeats a request nor gives up by itself.

        Raises:
            EndpointError: The server can't be reached, refuses, or answers something else.
        """
        with self._failing("answer"):
            raw = await self._async_client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, extra_body=options
            )
            content = raw.content
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
        text = " ".join((text.replace(self._api_key, "…") if self._api_key else text).split())
        return text if len(text) <= MAX_SAID_CHARS else text[:MAX_SAID_CHARS] + "…"

    # Local servers take no key, but the client insists on one.

    @cached_property
    def _client(self) -> OpenAI:
        from openai import OpenAI

        return OpenAI(base_url=self.base_url, api_key=self._api_key or "none", timeout=self._timeout_s, max_retries=2)

    @cached_property
    def _async_client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        # Without timeout and retries: httpx2's timeouts begin anew with every byte, and openai waits for two minutes.
        return AsyncOpenAI(base_url=self.base_url, api_key=self._api_key or "none", timeout=None, max_retries=0)

    @contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - what openai does not expect it lets through: httpx2's, h11's, json's
            # Without the cause: it may quote the key, and a traceback masks nothing.
            raise self._failure(verb, exc) from None

    def _failure(self, verb: str, exc: Exception) -> EndpointError:
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        if isinstance(exc, APITimeoutError):
            return self.timed_out(verb)
        said = f"{self} did not {verb}: "
        if isinstance(exc, APIConnectionError):
            return EndpointError(said + self.masked(f"no connection ({exc.__cause__ or exc})"))
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


# --- the model ---


class EndpointLLM:
    """The model that the `[llm]` settings name; close it in the end.

    Attributes:
        name: The model's name.
    """

    def __init__(self, settings: LLMSettings, allowance: Allowance, on_spent: Callable[[Spent], None]) -> None:
        """Make one; nothing is loaded, read or connected to before the first question.

        Args:
            settings: With a `base_url`.
            allowance: The day's tokens.
            on_spent: Gets what each question cost, also when it failed or was cancelled. It must not block.
        """
        self.name = settings.model
        self._settings = settings
        self._allowance = allowance
        self._on_spent = on_spent
        self._limiter = anyio.CapacityLimiter(settings.concurrency)
        self._opening = anyio.Lock()
        self._endpoint: Endpoint | None = None
        self._manner = Manner()

    async def close(self) -> None:
        """Close the connections."""
        if self._endpoint is not None:
            await self._endpoint.close()

    async def listed(self) -> list[str] | None:
        """Return the names of the models that the server has; `None` where it lists none.

        Raises:
            EndpointError: The server can't be reached, or refuses.
        """
        endpoint = await self._opened()
        return await anyio.to_thread.run_sync(endpoint.models, abandon_on_cancel=True)

    async def answer(self, purpose: Purpose, system: str, user: str, shape: type[T]) -> T:
        """Return a valid value of `shape`; the model is asked `max_attempts` times at most.

        Raises:
            AnswerError: This question got no answer that can be used.
            EndpointError: The server can't be reached, refuses or fails, or the day's tokens are used up.
        """
        bill = Bill()
        ok = False
        try:
            found = await self._ask(system, user, shape, bill)
            ok = True
            return found
        finally:
            if bill.attempts:
                self._on_spent(bill.total(purpose, self.name, ok=ok))

    async def _ask(self, system: str, user: str, shape: type[T], bill: Bill) -> T:
        """Ask until an answer fits."""
        endpoint = await self._opened()
        again: list[ChatCompletionMessageParam] = []
        problem = ""
        for _ in range(self._settings.max_attempts):
            choice = await self._accepted(endpoint, system, [{"role": "user", "content": user}, *again], shape, bill)
            text = choice.message.content or ""
            if choice.message.refusal or choice.finish_reason == "content_filter":
                words = endpoint.masked(choice.message.refusal or text) or "its content filter said no"
                raise AnswerError(f"{endpoint} refused: {words}")
            try:
                if choice.finish_reason == "length":
                    raise AnswerError(f"was cut off after {self._settings.max_tokens} tokens; be shorter")
                return answers.read(text, shape, f"{system}\n{user}")
            except AnswerError as exc:
                problem = shorten(str(exc), COMPLAINT_TOKENS)
            again = [{"role": "user", "content": prompts.ask_again(problem, _text_of(shape))}]
            if text.strip():
                again.insert(0, {"role": "assistant", "content": shorten(text, BAD_ANSWER_TOKENS)})
        raise AnswerError(
            f"{endpoint} gave no answer that can be used in {self._settings.max_attempts} attempts; "
            f"the last one {endpoint.masked(problem)}"
        )

    async def _opened(self) -> Endpoint:
        async with self._opening:
            if self._endpoint is None:
                # In a thread, and left behind when the caller gives up: importing the client takes half a second.
                self._endpoint = await anyio.to_thread.run_sync(_open, self._settings, abandon_on_cancel=True)
            return self._endpoint

    async def _accepted(
        self,
        endpoint: Endpoint,
        system: str,
        conversation: list[ChatCompletionMessageParam],
        shape: type[BaseModel],
        bill: Bill,
    ) -> Choice:
        """Ask in the manner that the server takes, and remember it."""
        manner = self._manner
        while True:
            # Only a server that takes the whole schema knows the form without being told in words.
            words = system if manner.form == "schema" else prompts.with_form(system, _text_of(shape))
            options = manner.options(
                shape, max_tokens=self._settings.max_tokens, temperature=self._settings.temperature
            )
            try:
                choice = await self._delivered(
                    endpoint, [{"role": "system", "content": words}, *conversation], options, bill
                )
            except EndpointError as exc:
                next_best = manner.after(exc)
                if next_best is None:
                    raise
                manner = next_best
            else:
                self._manner = manner
                return choice

    async def _delivered(
        self,
        endpoint: Endpoint,
        messages: list[ChatCompletionMessageParam],
        options: dict[str, object],
        bill: Bill,
    ) -> Choice:
        """Send a request, again if it can't be delivered or the server is busy."""
        pause_s = FIRST_PAUSE_S
        left = self._settings.max_retries
        while True:
            try:
                async with self._limiter:
                    return await self._sent(endpoint, messages, options, bill)
            except EndpointError as exc:
                wait_s = pause_s * random.uniform(0.75, 1) if exc.retry_after_s is None else exc.retry_after_s
                if not left or exc.is_permanent or isinstance(exc, AnswerError) or wait_s > LONGEST_PAUSE_S:
                    raise
            await anyio.sleep(wait_s)
            left -= 1
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _sent(
        self,
        endpoint: Endpoint,
        messages: list[ChatCompletionMessageParam],
        options: dict[str, object],
        bill: Bill,
    ) -> Choice:
        """Send one request, and enter what it cost."""
        self._allowance.check()
        bill.attempts += 1
        started = monotonic()
        # What a server that is given up on has read all the same.
        read, written, estimated = sum(tokens(str(message["content"])) for message in messages), 0, True
        try:
            with anyio.move_on_after(self._settings.timeout_s):
                completion = await endpoint.chat(messages, options)
                choice, usage = completion.choices[0], completion.usage or Usage()
                written = tokens(choice.message.content or "")
                if usage.prompt_tokens is not None and usage.completion_tokens is not None:
                    read, written, estimated = usage.prompt_tokens, usage.completion_tokens, False
                return choice
        except EndpointError:
            read, estimated = 0, False
            raise
        finally:
            bill.seconds += monotonic() - started
            bill.tokens_in += read
            bill.tokens_out += written
            bill.estimated |= estimated
            self._allowance.count(read + written, now())
        raise endpoint.timed_out("answer")


def _text_of(shape: type[BaseModel]) -> str:
    return json.dumps(answers.schema_of(shape))


def _open(settings: LLMSettings) -> Endpoint:
    """Return the endpoint, ready to be asked; blocks."""
    key = settings.api_key.get_secret_value()
    if settings.api_key_file:
        path = settings.api_key_file
        try:
            key = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise EndpointError(f"[llm] api_key_file {path} can't be read: {exc}", is_permanent=True) from exc
        if not key or API_KEY_PATTERN.fullmatch(key) is None:
            raise EndpointError(
                f"[llm] api_key_file {path} must hold one key, ASCII without spaces, and nothing else",
                is_permanent=True,
            )
    endpoint = Endpoint(settings.base_url, settings.model, key, settings.timeout_s)
    endpoint.prepare()
    return endpoint
