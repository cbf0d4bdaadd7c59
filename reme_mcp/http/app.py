"""The server for several clients at once: Streamable HTTP at /mcp and SSE at /sse, in one process.

In:  settings; HTTP requests that the gate let through.
Out: what `server.py` answers, to every client from one open memory; /healthz, /readyz and /metrics.
Does not know: tools, resources, the pool; who may come in.

Both protocol eras are served at /mcp: the handshake up to 2025-11-25 in sessions, 2026-07-28 a request at a time.

Source: the MCP specification, revisions 2025-11-25 and 2026-07-28, basic/transports; SSE is that of 2024-11-05.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Literal

import anyio
from mcp.server import Server
from mcp.server.auth.routes import create_protected_resource_routes
from mcp.server.context import CallNext, HandlerResult
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp.types import INTERNAL_ERROR, CallToolResult
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from reme_mcp.auth.access import ROLES, Access
from reme_mcp.auth.bearer import Verifier, access_of
from reme_mcp.auth.oidc import Issuer
from reme_mcp.auth.tokens import tokens_of
from reme_mcp.config.settings import WITHOUT_AUTH, Settings
from reme_mcp.errors import ConfigError, Forbidden, IdentityError, StoreError
from reme_mcp.http.addresses import is_loopback, path_prefix
from reme_mcp.http.metrics import CONTENT_TYPE, Metrics
from reme_mcp.http.middleware import PAGE_PATH, Gate
from reme_mcp.http.sessions import IDLE_S
from reme_mcp.http.shared import Limits, Shared, Turns
from reme_mcp.memory.memory import Memory
from reme_mcp.models.service import LoadEmbedder
from reme_mcp.server.app import make_server, open_state
from reme_mcp.server.prompts import PROMPTS
from reme_mcp.server.resources import announce_change
from reme_mcp.server.state import Context, State
from reme_mcp.server.tools import TOOLS
from reme_mcp.web.app import PageApp

logger = logging.getLogger(__name__)

Transport = Literal["http", "sse"]
PATHS: dict[Transport, str] = {"http": "/mcp", "sse": "/sse"}

NAMES = frozenset((*(tool.name for tool in TOOLS), *(prompt.name for prompt in PROMPTS)))
READY_DEADLINE_S = 2.0
# How long a server that is told to stop waits for the calls under way.
DRAIN_S = 20.0
# Answers on their way through a stream get this long before it is ended.
STREAM_FLUSH_S = 0.2


class Host:
    """One open memory, served over HTTP."""

    def __init__(
        self,
        settings: Settings,
        transports: Iterable[Transport] = ("http", "sse"),
        *,
        load: LoadEmbedder | None = None,
        shared: Shared | None = None,
        worker: int = 0,
    ) -> None:
        """Make one, or one of several in processes that have `shared` in common; see `State` for `load`."""
        self.settings = settings
        shared = shared or Shared()
        self.turns = Turns(shared, worker) if shared.workers > 1 else None
        self._app_key = shared.app_key
        self.metrics = Metrics()
        self._load = load
        self._state: State | None = None
        self._memory: Memory | None = None
        self._tokens = tokens_of(settings)
        self._issuer = Issuer(settings.auth) if settings.auth.issuer else None
        self._asks_for_tokens = not is_loopback(settings.http.host) or bool(settings.http.public_url)
        self._verifier = Verifier(self._tokens, self._issuer)
        self._calls = 0
        self._all_answered = anyio.Event()
        self._all_answered.set()
        self._server: Server[State] = make_server(self._shared_state, subscriptions=settings.http.keeps_sessions)
        self._server.middleware.append(self._observe)
        self._options = self._server.create_initialization_options()
        # Larger than any body that the gate lets through: it is the gate that refuses, and counts what it refused.
        limit = settings.http.max_body_bytes + 1
        self._sessions = StreamableHTTPSessionManager(
            self._server,
            stateless=not settings.http.keeps_sessions,
            max_request_body_size=limit,
            session_idle_timeout=IDLE_S,
            # The gate limits them for each holder, so that none takes those of the others.
            max_sessions=None,
        )
        self._sse = SseServerTransport("/messages/", max_request_body_size=limit)
        self._page_base = path_prefix(settings.http) + PAGE_PATH
        resource_url = self._resource_url() if self._issuer is not None else None
        self.gate = Gate(
            Starlette(routes=[*self._routes(offered(settings, transports), resource_url)], lifespan=self._run),
            settings.http,
            verifier=self._verifier,
            needs_token=self._needs_token,
            metrics=self.metrics,
            resource_url=resource_url,
            limits=Limits(
                shared,
                worker,
                requests_per_minute=settings.http.requests_per_minute,
                max_open_requests=settings.http.max_open_requests,
            ),
        )

    async def drain(self) -> None:
        """Let nobody in any more, wait until the calls under way are answered, and end the streams."""
        self.gate.close()
        with anyio.move_on_after(DRAIN_S) as scope:
            await self._all_answered.wait()
        if scope.cancelled_caught:
            logger.warning("%d calls were not finished in time", self._calls)
        if self._state is not None:
            self._state.subscriptions.close()
        await anyio.sleep(STREAM_FLUSH_S)
        self.gate.end_streams()

    # --- routes ---

    def _routes(self, transports: tuple[Transport, ...], resource_url: AnyHttpUrl | None) -> Iterable[BaseRoute]:
        yield Route("/healthz", self._healthz)
        yield Route("/readyz", self._readyz)
        yield Route("/metrics", self._metrics)
        if "http" in transports:
            yield Route("/mcp", endpoint=StreamableHTTPASGIApp(self._sessions))
        if "sse" in transports:
            yield Route("/sse", endpoint=_Endpoint(self._serve_sse), methods=["GET"])
            yield Mount("/messages/", app=self._sse.handle_post_message)
        if self.settings.http.page:
            page = PageApp(
                self._open_memory,
                self._access_of_request,
                base=self._page_base,
                sign_in=self._lets_in,
                announce=self._announce,
            )
            yield Route(PAGE_PATH, self._to_page)
            yield Mount(PAGE_PATH, app=page.app())
        if resource_url is not None:
            yield from create_protected_resource_routes(
                resource_url,
                [AnyHttpUrl(self.settings.auth.issuer)],
                scopes_supported=[f"reme:{role}" for role in ROLES],
                resource_name="reme-mcp",
            )

    async def _to_page(self, _: Request) -> Response:
        return RedirectResponse(f"{self._page_base}/", 307)

    async def _healthz(self, _: Request) -> Response:
        return JSONResponse({"alive": True})

    async def _readyz(self, _: Request) -> Response:
        """Say whether calls would be answered; the embedder's state is told, and does not decide."""
        store = "opening"
        with anyio.move_on_after(READY_DEADLINE_S):
            store = await self._store_state()
        ready = store == "open" and not self.gate.is_closing
        embedder = self._embedder_state()
        return JSONResponse({"ready": ready, "store": store, "embedder": embedder}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        access = access_of(request.scope)
        if access is not None:
            try:
                access.demand("admin", "/metrics")
            except Forbidden as exc:
                return JSONResponse({"error": "insufficient_scope", "error_description": str(exc)}, 403)
        self.metrics.pool_open.set(self._memory is not None and self._memory.is_open)
        self.metrics.embedder_ready.set(self._embedder_state() == "ready")
        return Response(self.metrics.page(), media_type=CONTENT_TYPE)

    async def _store_state(self) -> str:
        if self._memory is None:
            return "closed"
        try:
            await self._memory.check()
        except StoreError as exc:
            logger.error("not ready: %s", exc)
            return "not usable"
        return "open"

    def _embedder_state(self) -> str:
        if self.settings.embedder.provider == "none":
            return "none"
        return "ready" if self._memory is not None and self._memory.has_embedder else "not there"

    async def _serve_sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        # What it announces for the messages is the path that the client has to take.
        scope = {**scope, "root_path": path_prefix(self.settings.http)}
        async with self._sse.connect_sse(scope, receive, send) as (read_stream, write_stream):
            await self._server.run(read_stream, write_stream, self._options)

    # --- the one state ---

    @asynccontextmanager
    async def _run(self, _: Starlette) -> AsyncIterator[None]:
        async with open_state(self.settings, self._access_of, app_key=self._app_key, load=self._load) as state:
            self._state, self._memory = state, await state.memory()
            state.warm_up()
            async with self._sessions.run(), anyio.create_task_group() as background:
                background.start_soon(self.gate.recheck)
                yield
                background.cancel_scope.cancel()

    @asynccontextmanager
    async def _shared_state(self) -> AsyncIterator[State]:
        """Yield the state that all connections share; it is opened and closed with the application."""
        assert self._state is not None
        yield self._state

    def _needs_token(self) -> bool:
        """Return whether a caller has to bring a token; once one has had to, all have to."""
        if self.settings.http.without_auth == WITHOUT_AUTH:
            return False
        self._asks_for_tokens = self._asks_for_tokens or self._issuer is not None or self._tokens.exist()
        return self._asks_for_tokens

    def _open_memory(self) -> Memory:
        assert self._memory is not None
        return self._memory

    async def _lets_in(self, token: str) -> bool:
        """Return whether a token that a person types in lets anybody in."""
        try:
            return await self._verifier.verify_token(token) is not None
        except IdentityError:
            return False

    def _announce(self, workspace: str, ids: list[str]) -> None:
        assert self._state is not None
        announce_change(self._state, workspace, ids, new=False)

    def _access_of(self, context: Context) -> Access:
        return self._access_of_request(context.request)

    def _access_of_request(self, request: object) -> Access:
        access = access_of(request.scope) if isinstance(request, Request) else None
        if access is not None:
            return access
        if self._needs_token():
            raise Forbidden("nobody knows whose request this is; bring a token")
        if is_loopback(self.settings.http.host) and not self.settings.http.public_url:
            return Access.of_this_machine(self.settings.workspace)
        return Access("", None, "write", self.settings.workspace)

    # --- calls ---

    async def _observe(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Count a call, time it, and give it up when it takes too long."""
        if ctx.request_id is None or ctx.method == "subscriptions/listen":
            return await call_next(ctx)
        given = (ctx.params or {}).get("name") if ctx.method in ("tools/call", "prompts/get") else ""
        name = given if given in NAMES or given == "" else "other"
        method = ctx.method if self._server.get_request_handler(ctx.method) is not None else "other"
        outcome, started = "error", time.perf_counter()
        if not self._calls:
            self._all_answered = anyio.Event()
        self._calls += 1
        try:
            with anyio.move_on_after(self.settings.http.call_timeout_s) as scope:
                result = await call_next(ctx)
                outcome = "refused" if _is_refusal(result) else "ok"
                return result
            if scope.cancelled_caught:
                outcome = "timeout"
            raise MCPError(
                INTERNAL_ERROR,
                f"it took longer than {self.settings.http.call_timeout_s:g} seconds and was given up; "
                "the same call may be sent again",
            )
        finally:
            self._calls -= 1
            if not self._calls:
                self._all_answered.set()
            self.metrics.calls.labels(method, name, outcome).inc()
            self.metrics.call_seconds.labels(method, name).observe(time.perf_counter() - started)

    def _resource_url(self) -> AnyHttpUrl:
        http = self.settings.http
        host = f"[{http.host}]" if ":" in http.host else http.host
        base = http.public_url.rstrip("/") or f"http://{host}:{http.port}"
        return AnyHttpUrl(f"{base}/mcp")


def offered(settings: Settings, transports: Iterable[Transport]) -> tuple[Transport, ...]:
    """Return the transports that can be served: SSE posts to the process that streams, which only sessions can tell.

    Raises:
        ConfigError: None of them.
    """
    asked = tuple(transports)
    can = tuple(one for one in asked if one != "sse" or settings.http.keeps_sessions)
    if not can:
        raise ConfigError(
            "SSE keeps a session in one process; set http.sessions = true and http.workers = 1, or serve --http"
        )
    return can


def _is_refusal(result: HandlerResult) -> bool:
    match result:
        case CallToolResult(is_error=True) | {"isError": True}:
            return True
    return False


class _Endpoint:
    """An ASGI application as the endpoint of a route, which would take a function for something else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
