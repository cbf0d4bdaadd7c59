"""Who is told what a call waits for.

In:  what is waited for, in words.
Out: told to whoever asked, or to nobody.
Does not know: a protocol, a terminal.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

logger = logging.getLogger(__name__)

Tell = Callable[[str], Awaitable[None]]


async def ignore_progress(what: str) -> None:
    """Tell nobody."""


async def _log(what: str) -> None:
    logger.warning("%s", what)


# Who is told what is waited for; a command or a call that has somebody to tell sets its own.
on_wait: ContextVar[Tell] = ContextVar("on_wait", default=_log)
