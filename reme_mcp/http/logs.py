"""The log of a server for several clients: a JSON object a line, with the request that it is about.

In:  log records; which request is being served.
Out: lines that a machine reads. None holds what was said: of an exception, its kind and its place, not its text, unless
     the level is `debug`.
Does not know: HTTP, what is logged.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from reme_mcp.safety.redaction import Redact

# Of the request that is being served; empty outside of any.
request_id: ContextVar[str] = ContextVar("request_id", default="")
# The attribute of a record under which `extra` brings more fields.
FIELDS = "fields"


class JSONFormatter(logging.Formatter):
    """Writes a record as one JSON object."""

    def __init__(self, *, with_texts: bool, redact: Redact) -> None:
        super().__init__()
        self._with_texts = with_texts
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        line |= record.__dict__.get(FIELDS, {})
        kind, error, trace = record.exc_info or (None, None, None)
        if kind is not None:
            line["exception"] = kind.__name__
            line["at"] = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(trace)][-8:]
            if self._with_texts:
                line["trace"] = "".join(traceback.format_exception(error))
        # A mark has no sign in it that means something in JSON.
        return self._redact(json.dumps(line, ensure_ascii=False, default=str))


def log_in_json(level: str, *, requests: bool, redact: Redact) -> None:
    """Have everything from `level` on written to stderr so, and the lines about requests at any level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter(with_texts=level == "debug", redact=redact))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    if level != "debug":
        # Below that it names sessions, and who reads a log is not who opened them.
        logging.getLogger("mcp.server").setLevel(max(logging.WARNING, root.level))
    requests_logger().setLevel(logging.INFO if requests else logging.CRITICAL)


def requests_logger() -> logging.Logger:
    """Return the logger of the lines about requests."""
    return logging.getLogger("reme_mcp.requests")
