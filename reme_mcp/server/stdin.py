"""What a client writes to stdin, read so that nobody has to wait for its next line.

In:  the process's stdin.
Out: its lines, as text; whoever is cancelled stops reading at once.
Does not know: what stands in them.

The SDK's own reader waits in a thread that nothing ends: Ctrl-C did nothing until the client wrote another line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

import anyio
import anyio.to_thread

STDIN = 0


class Lines(anyio.AsyncFile[str]):
    """A file whose lines nobody waits for who does not want them any more."""

    async def readline(self) -> str:
        """Return the next line; empty at the end. Where this is cancelled, the line is nobody's."""
        return await anyio.to_thread.run_sync(self.wrapped.readline, abandon_on_cancel=True)


@contextmanager
def lines_of_stdin() -> Iterator[Lines | None]:
    """Give the lines of stdin; everybody else in this process, and its children, find it empty meanwhile.

    `None` where the SDK does that better: on Windows, whose handles it knows, and where stdin is no file.
    """
    if sys.platform == "win32" or not _is_file():
        yield None
        return
    wire = os.dup(STDIN)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, STDIN)
    os.close(empty)
    try:
        # Its thread may still wait in it when this is over: it must not be closed under it.
        yield Lines(TextIOWrapper(os.fdopen(wire, "rb", closefd=False), encoding="utf-8", errors="replace"))
    finally:
        os.dup2(wire, STDIN)


def _is_file() -> bool:
    try:
        return sys.stdin.fileno() == STDIN
    except (AttributeError, OSError, ValueError):
        return False
