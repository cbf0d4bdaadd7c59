"""What every request of the server needs: the open memory, the subscribers, and who asks.

In:  a request's context.
Out: the caller's access, and the source that is stored with what it writes.
Does not know: tools, resources.

The rest of the server knows `Memory` as a type only. What a memory consists of, four fifths of the package, is imported
here, in a thread, once `tools/list` has been answered or a request cannot be answered without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup, TaskStatus
from mcp.server import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS

from reme_mcp.aio import import_for_good
from reme_mcp.auth.access import Access
from reme_mcp.config.settings import Settings
from reme_mcp.errors import Forbidden, InvalidInput, ReMeError
from reme_mcp.progress import Tell
from reme_mcp.server.subscriptions import Subscriptions
from reme_mcp.sources import source_of

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.models.service import LoadEmbedder

logger = logging.getLogger(__name__)

# Long enough for the answer to `tools/list` to be on the wire before imports take the processor.
WARM_UP_DELAY_S = 0.05
SHOWN_CHARS = 60

Context = ServerRequestContext["State", Any]
# What the caller of a request may do; raises `Forbidden` where that can't be told.
AccessOf = Callable[[Context], Access]


@dataclass(slots=True)
class State:
    """What one running server holds: the memory, who wants to hear of changes, and who is who.

    Attributes:
        settings: Of the memory.
        background: Runs what outlasts a request; the memory stays open until it is cancelled.
        access_of: What the caller of a request may do.
        app_key: What an App's calls bring; it stands in the App's document.
        load: Loads the embedder; `None` for the one that the settings name.
        subscriptions: Who wants to hear of changes.
    """

    settings: Settings
    background: TaskGroup
    access_of: AccessOf
    app_key: str
    load: LoadEmbedder | None = None
    subscriptions: Subscriptions = field(init=False)
    _memory: Memory | None = None
    # Each call takes it: mostly it is free, and nobody else need have a turn for that.
    _opening: anyio.Lock = field(default_factory=partial(anyio.Lock, fast_acquire=True))
    _is_warm: bool = False

    def __post_init__(self) -> None:
        self.subscriptions = Subscriptions(self.background)

    @property
    def is_open(self) -> bool:
        """Whether a call meets an open pool; until then it takes a second or two longer."""
        return self._memory is not None and self._memory.is_open

    async def memory(self) -> Memory:
        """Return the memory; the first who asks waits for its import."""
        async with self._opening:
            if self._memory is None:
                opened: Memory = await self.background.start(self._keep_memory_open)
                self._memory = opened
            return self._memory

    async def _keep_memory_open(self, *, task_status: TaskStatus[Memory]) -> None:
        await anyio.to_thread.run_sync(import_for_good, "reme_mcp.memory.memory", abandon_on_cancel=True)
        from reme_mcp.memory.memory import Memory
        from reme_mcp.models.embedder import load_embedder

        async with Memory.open(self.settings, load=self.load or load_embedder) as memory:
            task_status.started(memory)
            await anyio.sleep_forever()

    def warm_up(self) -> None:
        """Start loading store and model in the background, once."""
        if not self._is_warm:
            self._is_warm = True
            self.background.start_soon(self._warm_up)

    async def _warm_up(self) -> None:
        await anyio.sleep(WARM_UP_DELAY_S)
        try:
            (await self.memory()).start_warm_up()
        except Exception:
            # The next call tries again, and tells whoever calls.
            logger.exception("can't warm up")


# --- tools ---


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and what they may do."""

    source: str
    access: Access
    tell: Tell


def caller_source(context: Context, access: Access) -> str:
    """Return who calls; a record can't set it."""
    client = context.session.client_params
    name = client.client_info.name if client is not None else "mcp"
    return source_of(name, access.holder)


def caller_access(context: Context) -> Access:
    """Return what the caller may do.

    Raises:
        MCPError: It can't be told.
    """
    try:
        return context.lifespan_context.access_of(context)
    except Forbidden as exc:
        raise MCPError(INVALID_PARAMS, str(exc)) from exc


def answer_to(exc: Exception, what: str, access: Access) -> str:
    """Return what a caller is told of an error, whatever door it came in by; the log has the rest.

    Args:
        exc: Ours, or one that nobody has foreseen.
        what: Was asked for.
        access: Of the caller. What is about the machine, its folders and addresses, is nothing to its guests.
    """
    if isinstance(exc, InvalidInput) or (isinstance(exc, ReMeError) and not access.holder):
        return f"{what}: {exc}"
    if isinstance(exc, ReMeError):
        logger.error("%s: %s", what, exc)
        return f"{what}: the server can't do it at the moment; its log says why. Try again later."
    logger.error("%s failed", what, exc_info=exc)
    return f"{what} failed inside the server; its log (stderr) says why. Nothing else is affected."


def protocol_error(exc: Exception, what: str, access: Access, **data: str) -> MCPError:
    """Return the same as an error of the protocol, for what is not a tool."""
    if isinstance(exc, MCPError):
        return exc
    if isinstance(exc, InvalidInput):
        return MCPError(INVALID_PARAMS, str(exc), data or None)
    return MCPError(INTERNAL_ERROR, answer_to(exc, what, access), data or None)
