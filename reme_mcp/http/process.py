"""The process that serves several clients: its socket, its limits on slow clients, how it starts and stops.

In:  settings; the application.
Out: a running server until it is told to stop.
Does not know: what the application answers.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterable
from tempfile import TemporaryDirectory

import anyio
import uvicorn
from sse_starlette.sse import AppStatus
from uvicorn.protocols.http.h11_impl import H11Protocol

from reme_mcp.auth.tokens import tokens_of
from reme_mcp.config.settings import WITHOUT_AUTH, Settings
from reme_mcp.errors import ConfigError
from reme_mcp.http.addresses import may_start
from reme_mcp.http.app import DRAIN_S, PATHS, Host, Transport, offered
from reme_mcp.http.logs import log_in_json
from reme_mcp.http.metrics import FOLDER_VARIABLE, forget_process
from reme_mcp.http.shared import Shared, Turns
from reme_mcp.http.workers import Work, is_orphaned, supervise
from reme_mcp.safety.redaction import redactor_of
from reme_mcp.schema import now

logger = logging.getLogger(__name__)
# Sending the lines of a request takes no longer, and nobody who reads leaves an answer unread as long as this.
HEADERS_DEADLINE_S = 10.0
READING_DEADLINE_S = 60.0
MAX_CONNECTIONS = 4_000
# How long a process leaves a connection to those with fewer, and how long it takes none where there is no room.
GIVE_WAY_S = 0.005
NO_ROOM_S = 1.0


# --- the process ---


class _Protocol(H11Protocol):
    """A connection whose client has to send its headers, and to read its answers, in time."""

    _headers_timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._headers_timer, self._reading_timer):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading_timer = self.loop.call_later(READING_DEADLINE_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._reading_timer is not None:
            self._reading_timer.cancel()

    def _expect_headers(self) -> None:
        """Set the clock where a request has begun and is not all there; more of it does not set it back."""
        is_waiting = self.cycle is None or self.cycle.response_complete
        if is_waiting and self._headers_timer is None:
            self._headers_timer = self.loop.call_later(HEADERS_DEADLINE_S, self.transport.abort)
        elif not is_waiting and self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None


class _Server(uvicorn.Server):
    """A server that finishes what it has begun before it stops, and shares its connections out among several."""

    def __init__(self, config: uvicorn.Config, host: Host, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._host = host
        self._on_started = on_started
        self._accepting: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        turns = self._host.turns
        await super().startup(sockets if turns is None else [])
        if turns is not None:
            self._accepting = [asyncio.create_task(self._accept(one, turns)) for one in sockets or ()]
            for task in self._accepting:
                task.add_done_callback(self._end_unless_cancelled)
        self._on_started()

    async def on_tick(self, counter: int) -> bool:
        if self._host.turns is not None:
            self._host.turns.tell(len(self.server_state.connections))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        turns = self._host.turns
        if turns is not None:
            # From now on it would refuse what others can take, and keep the port from who starts the server anew.
            for task in self._accepting:
                task.cancel()
            await asyncio.gather(*self._accepting, return_exceptions=True)
            for one in sockets or ():
                one.close()
        await self._host.drain()
        await super().shutdown(sockets)
        if turns is not None and turns.leave() and is_orphaned():
            # The parent would have removed it.
            shutil.rmtree(os.environ[FOLDER_VARIABLE], ignore_errors=True)

    async def _accept(self, listener: socket.socket, turns: Turns) -> None:
        """Take the connections that come, letting those processes go first that have fewer."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            turns.tell(len(self.server_state.connections))
            await anyio.wait_readable(listener)
            if not turns.is_mine():
                await asyncio.sleep(GIVE_WAY_S)
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as exc:
                logger.error("can't take a connection: %s", exc)
                await asyncio.sleep(NO_ROOM_S)
                continue
            connection.setblocking(False)
            try:
                await loop.connect_accepted_socket(self._protocol, connection)
            except OSError:
                connection.close()

    def _end_unless_cancelled(self, task: asyncio.Task[None]) -> None:
        """End a process that would take no more connections, so that another takes its place."""
        if not task.cancelled():
            logger.error("no connections can be taken any more", exc_info=task.exception())
            self.should_exit = True

    def _protocol(self) -> asyncio.Protocol:
        return _Protocol(self.config, self.server_state, self.lifespan.state)


def open_port(settings: Settings, transports: Iterable[Transport]) -> socket.socket:
    """Return a socket that listens where the settings say, once it is sure that it may; tell where, and of what.

    Raises:
        ConfigError: Others could reach it and it would ask nobody for a token, or it can't listen there.
    """
    http = settings.http
    transports = offered(settings, transports)
    tokens = tokens_of(settings)
    has_tokens = any(token.holds(now()) for token in tokens.all())
    if not may_start(http, has_tokens=has_tokens, has_issuer=bool(settings.auth.issuer)):
        raise ConfigError(
            f"{http.public_url or http.host} can be reached by others, and nobody has a token: make one with "
            "`reme-mcp token create NAME --workspace W`, or name an identity provider in [auth] issuer. "
            f"To ask nobody who they are, set http.without_auth to {WITHOUT_AUTH!r}"
        )
    listener = listen(http.host, http.port)
    paths = " and ".join(PATHS[transport] for transport in transports)
    at = listener.getsockname()
    name = f"[{at[0]}]" if ":" in at[0] else at[0]
    several = f" in {http.workers} processes, without sessions," if http.workers > 1 else ""
    sys.stderr.write(f"reme-mcp serves {paths}{several} at http://{name}:{at[1]}\n")
    sys.stderr.flush()
    return listener


async def serve_at(
    listener: socket.socket, settings: Settings, host: Host, *, on_started: Callable[[], None] = lambda: None
) -> None:
    """Serve every client that comes to a socket, until the process is told to end."""
    _log(settings)
    _allow_connections(MAX_CONNECTIONS)
    await make_process(host, on_started=on_started).serve(sockets=[listener])


def serve_in_workers(listener: socket.socket, settings: Settings, work: Callable[[Shared], Work]) -> int:
    """Serve in as many processes as the settings say, until this one is told to end; return its exit status.

    Args:
        listener: Where.
        settings: Of the server.
        work: What each of them does, given what they have in common.
    """
    _log(settings)
    shared = Shared.among(settings.http.workers)

    def forget(number: int, pid: int) -> None:
        shared.clear(number)
        forget_process(pid)

    with TemporaryDirectory(prefix="reme-mcp-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER_VARIABLE] = folder
        # Calls under way, then answers under way, get as long as the server lets them.
        stop_timeout_s = 2 * DRAIN_S + 2
        return supervise(listener, settings.http.workers, work(shared), on_death=forget, stop_timeout_s=stop_timeout_s)


def _log(settings: Settings) -> None:
    redact = redactor_of(settings.redaction)
    log_in_json(settings.log.level, requests=settings.http.log_requests, redact=redact)


def make_process(host: Host, *, on_started: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """Return what serves a host at a socket until a signal, or its `should_exit`, ends it."""
    # Streams are ended by the host, when the calls in them are answered, not on the signal.
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # it has no types
    config = uvicorn.Config(
        host.gate,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=round(DRAIN_S),
    )
    return _Server(config, host, on_started)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        ConfigError: It can not.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
        # What is accepted inherits it. Without it the end of an answer waits 40 ms for the client to confirm its
        # beginning: asyncio sets it for sockets only that name their protocol.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as exc:
        words = "another program listens there" if exc.errno == errno.EADDRINUSE else exc.strerror
        raise ConfigError(f"can't listen at {host} port {port}: {words}") from exc


def _allow_connections(count: int) -> None:
    """Let the process have as many open files as the system lets it; each connection takes one."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 512
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < count + 256:
        logger.warning("the system allows %d open files; %d connections are let in", wanted, count)
