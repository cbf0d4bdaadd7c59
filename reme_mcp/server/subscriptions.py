"""Who wants to hear of changes, in either protocol era, and only of those that they may know of.

In:  subscriptions to `reme://` URIs, each with the workspace that its caller may enter; changes, each of one workspace.
Out: a notification per URI that is no longer what its reader has read, spelt as the subscriber spelt it.
Does not know: what changed, tokens.

Telling is done behind the call that made the change: whoever does not read what was subscribed to keeps nobody waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup
from mcp.server import ServerRequestContext
from mcp.server.connection import Connection
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.types import SubscriptionsListenRequestParams, SubscriptionsListenResult

from reme_mcp.auth.access import Access

logger = logging.getLogger(__name__)

# A subscriber that takes longer to read a line is not reading.
TELLING_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Target:
    """What can be subscribed to: a resource of one workspace, `path` its URI without scheme and query."""

    workspace: str
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class _Stream:
    """One `subscriptions/listen` of the 2026-07-28 era."""

    access: Access
    wanted: Mapping[Target, list[str]]
    bus: InMemorySubscriptionBus
    handler: ListenHandler


class Subscriptions:
    """Everybody who has subscribed to something at this server."""

    def __init__(self, background: TaskGroup) -> None:
        self._background = background
        self._streams: set[_Stream] = set()
        self._connections: dict[Connection, dict[str, Target]] = {}

    def add(self, connection: Connection, uri: str, target: Target) -> None:
        """Tell a connection of the handshake era of changes to `target`, until it ends."""
        if connection not in self._connections:
            self._connections[connection] = {}
            connection.exit_stack.callback(self._connections.pop, connection, None)
        self._connections[connection][uri] = target

    def remove(self, connection: Connection, uri: str) -> None:
        """Tell it no more; the others who have subscribed to the same hear of it as before."""
        self._connections.get(connection, {}).pop(uri, None)

    async def listen(
        self,
        context: ServerRequestContext[Any, Any],
        params: SubscriptionsListenRequestParams,
        access: Access,
        wanted: Mapping[Target, list[str]],
    ) -> SubscriptionsListenResult:
        """Tell the caller of changes to what it wants, until it leaves or the server stops."""
        bus = InMemorySubscriptionBus()
        stream = _Stream(access, wanted, bus, ListenHandler(bus))
        self._streams.add(stream)
        try:
            return await stream.handler(context, params)
        finally:
            self._streams.discard(stream)

    def announce(self, workspace: str, paths: Iterable[str], *, new: bool) -> None:
        """Tell those who wanted to know, in the background; `new` says that there are more resources than before."""
        targets = [Target(workspace, path) for path in paths]
        if targets and (self._streams or self._connections):
            self._background.start_soon(self._tell, workspace, targets, new)

    def close(self) -> None:
        """End every stream of the 2026-07-28 era as its protocol wants it."""
        for stream in self._streams:
            stream.handler.close()

    async def _tell(self, workspace: str, targets: list[Target], new: bool) -> None:
        for stream in list(self._streams):
            for uri in (uri for target in targets for uri in stream.wanted.get(target, ())):
                await stream.bus.publish(ResourceUpdated(uri=uri))
            if new and stream.access.enters(workspace):
                await stream.bus.publish(ResourcesListChanged())
        for connection, subscribed in list(self._connections.items()):
            uris = [uri for uri, target in subscribed.items() if target in targets]
            if uris:
                self._background.start_soon(partial(self._tell_connection, connection, uris))

    async def _tell_connection(self, connection: Connection, uris: list[str]) -> None:
        with anyio.move_on_after(TELLING_DEADLINE_S) as scope:
            for uri in uris:
                await connection.send_resource_updated(uri)
        if scope.cancelled_caught:
            logger.warning("a subscriber does not read; it is told of nothing more")
            self._connections.pop(connection, None)
