"""What is counted of a server for several clients, in Prometheus' format. The owner of `prometheus_client`.

In:  requests and calls that have ended.
Out: one page of numbers; where several processes are one server, those of all of them. No label can be made up by a
     client: what is not known by name is `other`.
Does not know: who called, what was said.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

__all__ = ["CONTENT_TYPE", "FOLDER_VARIABLE", "Metrics", "forget_process"]

# The folder in which the processes of one server count; it has to be set before this module is imported in them.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._is_shared = FOLDER_VARIABLE in os.environ
        if not self._is_shared:
            ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "reme_http_requests", "Requests answered", ["path", "method", "status"], registry=self._registry
        )
        self.request_seconds = Histogram(
            "reme_http_request_seconds", "Until a request was answered, streams left out", ["path"],
            buckets=SECONDS, registry=self._registry,
        )  # fmt: skip
        self.open_requests = Gauge(
            "reme_http_open_requests", "Requests now open", ["path"],
            registry=self._registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.refused = Counter("reme_http_refused", "Requests refused at the door", ["reason"], registry=self._registry)
        self.calls = Counter(
            "reme_calls", "Calls of the protocol", ["method", "name", "outcome"], registry=self._registry
        )
        self.call_seconds = Histogram(
            "reme_call_seconds",
            "Until a call was answered",
            ["method", "name"],
            buckets=SECONDS,
            registry=self._registry,
        )
        # Set when they are asked for: they are those of the process that answers.
        self.pool_open = Gauge(
            "reme_pool_open", "1 if the pool is open", registry=self._registry, multiprocess_mode="livemostrecent"
        )
        self.embedder_ready = Gauge(
            "reme_embedder_ready", "1 if the embedding model is there",
            registry=self._registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip

    def page(self) -> bytes:
        """Return the numbers as they are now."""
        registry = self._registry
        if self._is_shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # it has no types
        return generate_latest(registry)


def forget_process(pid: int) -> None:
    """Count no longer what a process had open that has ended; what it has answered stays counted."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]  # it has no types
