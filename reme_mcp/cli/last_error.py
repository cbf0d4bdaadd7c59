"""The last warning or error of a server, kept in its home for `doctor`: a client shows nobody what it logs.

In:  log records.
Out: `last-error.json` in the home, replaced by each; what is in it.
Does not know: what went wrong.

A home that is not there yet is not made for it, and a folder that is none is left alone.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from reme_mcp import atomic
from reme_mcp.safety.redaction import Redact

MARK = "home.json"
FILE = "last-error.json"
CHILD_FILE = "last-error-hook.txt"
MAX_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class LastError:
    """What was logged last.

    Attributes:
        at: When, UTC.
        level: `WARNING` or graver.
        message: In one line; with what was raised, without its trace.
    """

    at: datetime
    level: str
    message: str


class Keeper(logging.Handler):
    """Writes each record of level `WARNING` or above into the home."""

    def __init__(self, home: Path, redact: Redact) -> None:
        super().__init__(logging.WARNING)
        self._home = home
        self._redact = redact

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; where that can't be done, stderr has it all the same."""
        raised = record.exc_info[1] if record.exc_info else None
        words = record.getMessage() + (f": {type(raised).__name__}: {raised}" if raised is not None else "")
        words = self._redact(words)
        at = datetime.fromtimestamp(record.created, UTC).isoformat()
        said = {"at": at, "level": record.levelname, "message": " ".join(words.split())[:MAX_CHARS]}
        with suppress(OSError):
            if (self._home / MARK).exists():
                # A hint for `doctor`: it is not worth waiting for the disk.
                atomic.write(self._home / FILE, json.dumps(said, ensure_ascii=False).encode(), lasting=False)


@contextmanager
def of_child(home: Path) -> Iterator[IO[bytes]]:
    """Yield what a process that nobody waits for may write its errors into; nothing where there is no home yet."""
    with open(home / CHILD_FILE, "wb") if (home / MARK).exists() else open(os.devnull, "wb") as file:
        yield file


def said_by_child(home: Path) -> str:
    """Return the last line that such a process wrote as it died; empty where it did not."""
    try:
        lines = (home / CHILD_FILE).read_bytes()[-MAX_CHARS:].decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def read(home: Path) -> LastError | None:
    """Return what was logged last by a server on this home; `None` where nothing was, or it can't be read."""
    try:
        said = json.loads((home / FILE).read_text(encoding="utf-8"))
        return LastError(datetime.fromisoformat(said["at"]), str(said["level"]), str(said["message"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
