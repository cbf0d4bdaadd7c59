"""Where the time of a call goes, for whoever collects traces. The owner of `opentelemetry`.

In:  the names of what is done, and numbers about it; never what was said.
Out: spans, children of the one that the SDK of MCP opens for each request; nothing, at no cost worth naming, unless the
     process was set up to collect them (`opentelemetry-instrument reme-mcp serve --http`).
Does not know: who collects them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# What a collector gets to answer when a process ends.
FLUSH_MS = 2_000

Given = ParamSpec("Given")
Result = TypeVar("Result")
AsyncFunction: TypeAlias = Callable[Given, Coroutine[Any, Any, Result]]


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[Span]:
    """Have the block timed under a name. An error in it is told by its kind: its text may quote somebody."""
    from opentelemetry.trace import (
        INVALID_SPAN,
        ProxyTracerProvider,
        SpanKind,
        StatusCode,
        get_tracer,
        get_tracer_provider,
    )

    if isinstance(get_tracer_provider(), ProxyTracerProvider):
        # Nobody collects them.
        yield INVALID_SPAN
        return
    tracer = get_tracer("reme_mcp")
    kind = SpanKind.CLIENT
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as one:
        try:
            yield one
        except BaseException as exc:
            one.set_attribute("error.type", type(exc).__name__)
            one.set_status(StatusCode.ERROR)
            raise


def timed(name: str) -> Callable[[AsyncFunction[Given, Result]], AsyncFunction[Given, Result]]:
    """Have each call of an async function timed under a name."""

    def decorate(function: AsyncFunction[Given, Result]) -> AsyncFunction[Given, Result]:
        @wraps(function)
        async def run(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            with span(name):
                return await function(*args, **kwargs)

        return run

    return decorate


def flush() -> None:
    """Send the spans that wait, where this process collects them: it may end without `atexit`."""
    if "opentelemetry.sdk.trace" in sys.modules:
        from opentelemetry import trace

        send = getattr(trace.get_tracer_provider(), "force_flush", None)
        if send is not None:
            send(FLUSH_MS)
