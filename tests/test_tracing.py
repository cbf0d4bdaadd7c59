"""Traces of a call, collected by the real SDK of OpenTelemetry: from the request to the store and the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mcp import Client
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from reme_mcp.config.settings import LLMSettings, Settings
from reme_mcp.distill.output_schemas import Verdict
from reme_mcp.errors import EndpointError
from reme_mcp.models.llm import EndpointLLM
from reme_mcp.models.usage import Allowance
from reme_mcp.schema import Spent
from reme_mcp.server.app import build_server
from reme_mcp.tracing import span
from tests.fakes import draft
from tests.http_server import Asked, Reply, reply, serving

pytestmark = pytest.mark.anyio
TASK = "Put my static blog online, secret-word"


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    # A process has one, for good; where nothing collects, it costs nothing.
    provider = TracerProvider()
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def collected(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


def named(collected: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in collected.get_finished_spans() if span.name == name]


async def test_a_call_leads_from_the_request_to_the_store(settings: Settings, collected: InMemorySpanExporter) -> None:
    async with Client(build_server(settings)) as one:
        learned = {"task": TASK, "outcome": "success", "experiences": [draft()]}
        assert not (await one.call_tool("record_trajectory", learned)).is_error
        assert not (await one.call_tool("recall_experiences", {"task": TASK})).is_error
    for tool, below in (
        ("record_trajectory", {"store: write"}),
        ("recall_experiences", {"store: match text", "store: add receipt"}),
    ):
        (request,) = [one for one in named(collected, f"tools/call {tool}") if one.kind is trace.SpanKind.SERVER]
        inside = {
            one.name
            for one in collected.get_finished_spans()
            if one.context.trace_id == request.context.trace_id and one.name.startswith("store: ")
        }
        assert below <= inside
    assert "secret-word" not in "".join(one.to_json() for one in collected.get_finished_spans())


async def test_a_question_to_the_model_is_a_span_with_its_tokens_and_not_its_words(
    collected: InMemorySpanExporter,
) -> None:
    def answer(_: Asked) -> Reply:
        return reply({"error": {"message": "secret-word is no model"}}, 404)

    with serving(answer) as server:
        spent: list[Spent] = []
        llm = EndpointLLM(LLMSettings(base_url=server.base_url, model="m"), Allowance(0), spent.append)
        with pytest.raises(EndpointError):
            await llm.answer("judge", "secret-word", "secret-word", Verdict)
        await llm.close()
    (one,) = named(collected, "llm: judge")
    assert dict(one.attributes or {}) == {
        "gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 0, "gen_ai.usage.output_tokens": 0,
        "error.type": "EndpointError",
    }  # fmt: skip
    assert one.status.status_code is trace.StatusCode.ERROR
    assert "secret-word" not in one.to_json()


def test_an_error_in_a_span_is_told_by_its_kind(collected: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="secret-word"), span("it", count=3):
        raise ValueError("secret-word")
    (one,) = named(collected, "it")
    assert dict(one.attributes or {}) == {"count": 3, "error.type": "ValueError"}
    assert "secret-word" not in one.to_json()
