"""Models behind an OpenAI-compatible server, local or hosted. The only file that imports `openai`.

In:  texts; a prompt and the shape of its answer.
Out: vectors; a valid value of that shape, and what it cost. Or an `EndpointError` that says why not.
Does not know: what the texts and prompts are for.

Source: the OpenAI API reference, `POST /v1/embeddings` and `POST /v1/chat/completions`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel

from reme_mcp.aio import off_loop_if_long
from reme_mcp.config.settings import API_KEY_PATTERN, LLMSettings
from reme_mcp.errors import AnswerError, EndpointError
from reme_mcp.models import structured
from reme_mcp.models.endpoint import Endpoint
from reme_mcp.models.protocol import Choice, Manner, Turn, Usage
from reme_mcp.models.usage import Allowance, Bill
from reme_mcp.safety.redaction import Redact
from reme_mcp.schema import Purpose, Spent, now
from reme_mcp.text.tokens import shorten, tokens
from reme_mcp.tracing import span

T = TypeVar("T", bound=BaseModel)
FIRST_PAUSE_S = 0.5
# Whoever is told to wait for longer than this comes back later; the caller knows what else there is to do.
LONGEST_PAUSE_S = 20.0
# What an answer that could not be used, and the words about it, add to the next attempt.
BAD_ANSWER_TOKENS = 300
COMPLAINT_TOKENS = 200
NO_ANSWER = "(no answer)"
# Of a request that could not be delivered, or that the server was too busy for.
MAX_RETRIES = 2
# Of a question whose answers can't be used; the model is told why.
MAX_ATTEMPTS = 3


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
        redacted = await off_loop_if_long(lambda: self._redact(user), len(user))
        return await self._llm.answer(purpose, system, redacted, shape)

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


# --- the model ---


class EndpointLLM:
    """The model that the `[llm]` settings name; close it in the end.

    Attributes:
        name: The model's name.
    """

    def __init__(
        self, settings: LLMSettings, allowance: Allowance, on_spent: Callable[[Spent], None], *, patient: bool = True
    ) -> None:
        """Make one; nothing is loaded, read or connected to before the first question.

        Args:
            settings: With a `base_url`.
            allowance: The day's tokens.
            on_spent: Gets what each question cost, also when it failed or was cancelled. It must not block.
            patient: Whether a busy server is tried again, and a model asked again whose answer can't be used.
        """
        self._retries = MAX_RETRIES if patient else 0
        self._attempts = MAX_ATTEMPTS if patient else 1
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
        """Return a valid value of `shape`; the model is asked `MAX_ATTEMPTS` times at most.

        Raises:
            AnswerError: This question got no answer that can be used.
            EndpointError: The server can't be reached, refuses or fails, or the day's tokens are used up.
        """
        bill = Bill()
        ok = False
        try:
            with span(f"llm: {purpose}", **{"gen_ai.request.model": self.name}) as one:
                try:
                    found = await self._ask(system, user, shape, bill)
                finally:
                    one.set_attribute("gen_ai.usage.input_tokens", bill.tokens_in)
                    one.set_attribute("gen_ai.usage.output_tokens", bill.tokens_out)
            ok = True
            return found
        finally:
            if bill.attempts:
                self._on_spent(bill.total(purpose, self.name, ok=ok))

    async def _ask(self, system: str, user: str, shape: type[T], bill: Bill) -> T:
        """Ask until an answer fits."""
        endpoint = await self._opened()
        turns = [Turn("user", user)]
        problem = ""
        for _ in range(self._attempts):
            choice = await self._accepted(endpoint, system, turns, shape, bill)
            text = choice.message.answer
            if choice.message.refusal or choice.finish_reason == "content_filter":
                words = endpoint.masked(choice.message.refusal or text) or "its content filter said no"
                raise AnswerError(f"{endpoint} refused: {words}")
            try:
                if choice.finish_reason == "length":
                    raise AnswerError(f"was cut off after {self._settings.max_tokens} tokens; be shorter")
                return structured.read(text, shape, f"{system}\n{user}")
            except AnswerError as exc:
                problem = shorten(str(exc), COMPLAINT_TOKENS)
            # Some models take no two turns of one side, and none that is empty.
            given = shorten(text, BAD_ANSWER_TOKENS) if text.strip() else NO_ANSWER
            again = structured.ask_again(problem, _text_of(shape))
            turns = [Turn("user", user), Turn("assistant", given), Turn("user", again)]
        raise AnswerError(
            f"{endpoint} gave no answer that can be used in {self._attempts} attempts; "
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
        turns: Sequence[Turn],
        shape: type[BaseModel],
        bill: Bill,
    ) -> Choice:
        """Ask in the manner that the server takes, and remember it."""
        manner = self._manner
        first: EndpointError | None = None
        while True:
            # Only a server that takes the whole schema knows the form without being told in words.
            words = system if manner.form == "schema" else structured.with_form(system, _text_of(shape))
            options = manner.options(
                shape, max_tokens=self._settings.max_tokens, temperature=self._settings.temperature
            )
            try:
                choice = await self._delivered(endpoint, manner.messages(words, turns), options, bill)
            except EndpointError as exc:
                next_best = manner.after(exc)
                if next_best is None:
                    raise first or exc from None
                # Where no form helps, what the server said before they were tried is what is wrong.
                if (next_best.form, next_best.system) != (manner.form, manner.system):
                    first = first or exc
                manner = next_best
            else:
                self._manner = manner
                return choice

    async def _delivered(
        self,
        endpoint: Endpoint,
        messages: list[Turn],
        options: dict[str, object],
        bill: Bill,
    ) -> Choice:
        """Send a request, again if it can't be delivered or the server is busy."""
        pause_s = FIRST_PAUSE_S
        left = self._retries
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
        messages: list[Turn],
        options: dict[str, object],
        bill: Bill,
    ) -> Choice:
        """Send one request, and enter what it cost."""
        self._allowance.check()
        bill.attempts += 1
        started = monotonic()
        # What a server that is given up on has read all the same.
        read, written, estimated = sum(tokens(turn.content) for turn in messages), 0, True
        try:
            with anyio.move_on_after(self._settings.timeout_s):
                completion = await endpoint.chat(messages, options)
                choice, usage = completion.choices[0], completion.usage or Usage()
                written = tokens(choice.message.reasoning + choice.message.content)
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
    return json.dumps(structured.schema_of(shape))


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
