"""What the tests of llm share."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import anyio
import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from reme_mcp.config.settings import LLMSettings
from reme_mcp.errors import EndpointError
from reme_mcp.models import llm as llm_module
from reme_mcp.models.llm import EndpointLLM
from reme_mcp.models.usage import Allowance
from reme_mcp.schema import Spent
from tests.http_server import Asked, Reply, Server, reply, serving
from tests.weights import language_model as language_model
from tests.weights import llama_server as llama_server

KEY = "sk-test-0123456789"


SYSTEM = "You judge notes."


USER = "Is this one true? The door must be shut first."


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=60)]
    grade: Literal["low", "middle", "high"]
    words: Annotated[list[Annotated[str, Field(max_length=20)]], Field(max_length=3)]


GOOD = {"reason": "It says what to do.", "grade": "high", "words": ["door"]}


VERDICT = Verdict(reason="It says what to do.", grade="high", words=["door"])


def said(text: str | None, *, finish: str = "stop", refusal: str | None = None, usage: object = (7, 5)) -> Reply:
    """Return a chat completion that says this."""
    message = {"role": "assistant", "content": text, "refusal": refusal}
    body: dict[str, object] = {"object": "chat.completion", "choices": [{"message": message, "finish_reason": finish}]}
    if isinstance(usage, tuple):
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return reply(body)


def refused(status: int, message: str, **headers: str) -> Reply:
    return reply({"error": {"message": message, "type": "error", "param": None, "code": None}}, status, **headers)


class Chat:
    """Answers from a script, in order, and fails the test on a request that the script does not know."""

    def __init__(self) -> None:
        self.script: list[Reply | Callable[[Asked], Reply]] = []

    def __call__(self, asked: Asked) -> Reply:
        assert asked.path == "/v1/chat/completions"
        if not self.script:
            return refused(400, "the script has ended")
        step = self.script.pop(0)
        return step if isinstance(step, Reply) else step(asked)


@pytest.fixture
def chat() -> Chat:
    return Chat()


@pytest.fixture
def server(chat: Chat) -> Iterator[Server]:
    with serving(chat) as server:
        yield server


@pytest.fixture(autouse=True)
def each_request_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_module, "MAX_RETRIES", 0)


def at(base_url: str, **changes: Any) -> LLMSettings:
    given: dict[str, Any] = {"model": "m", "api_key": SecretStr(KEY), "timeout_s": 30.0, **changes}
    return LLMSettings(base_url=base_url, **given)


@asynccontextmanager
async def opened(
    settings: LLMSettings, spent: list[Spent] | None = None, allowance: Allowance | None = None
) -> AsyncIterator[EndpointLLM]:
    llm = EndpointLLM(
        settings, allowance or Allowance(settings.tokens_per_day), ([] if spent is None else spent).append
    )
    try:
        yield llm
    finally:
        with anyio.CancelScope(shield=True):
            await llm.close()


async def asked_once(settings: LLMSettings, spent: list[Spent] | None = None) -> Verdict:
    async with opened(settings, spent) as llm:
        return await llm.answer("judge", SYSTEM, USER, Verdict)


async def failure(settings: LLMSettings, spent: list[Spent] | None = None) -> EndpointError:
    """Return the error of a question, having looked at what it shows."""
    with pytest.raises(EndpointError) as caught:
        await asked_once(settings, spent)
    assert settings.base_url in str(caught.value)
    assert "m at http" in str(caught.value)
    # As a log would show it, with what led to it.
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value
