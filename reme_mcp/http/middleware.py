"""The gate of a server for several clients: who comes in, how much of it, how fast, and for how long.

In:  HTTP requests; the tokens; limits.
Out: requests with a checked caller and a whole body, for the application behind; a refusal for the others; a line in
     the log and numbers for each.
Does not know: the protocol, tools, the pool.

Source: RFC 6750 (bearer tokens), RFC 9728 (where a client learns of the identity provider), RFC 6585 (429); the
Fetch standard (CORS), by Starlette.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.routes import build_resource_metadata_url
from pydantic import AnyHttpUrl
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from reme_mcp.auth.access import Access
from reme_mcp.auth.bearer import Bearer, Verifier
from reme_mcp.config.settings import HTTPSettings
from reme_mcp.errors import IdentityError
from reme_mcp.http.addresses import Addresses, is_own_origin, path_prefix
from reme_mcp.http.logs import FIELDS, request_id, requests_logger
from reme_mcp.http.metrics import Metrics
from reme_mcp.http.sessions import SESSION_HEADER, Session, Sessions, may_have_session
from reme_mcp.http.shared import Limits
from reme_mcp.web.guard import with_bearer

# Asked by what looks after the server, by its address; they say nothing about anybody.
OPEN_PATHS = ("/healthz", "/readyz")
PAGE_PATH = "/ui"
# What a person sees who has not signed in to the page.
SIGN_IN_PATHS = (f"{PAGE_PATH}/login", f"{PAGE_PATH}/static/page.css", f"{PAGE_PATH}/static/icon.svg")
KNOWN_PATHS = (*OPEN_PATHS, "/metrics", "/mcp", "/sse", "/messages/", PAGE_PATH)
# With and without a slash at the end they are the same: a redirect would lead a client behind a proxy astray.
_SAME_PATHS = {"/mcp/": "/mcp", "/sse/": "/sse", "/messages": "/messages/"}
# What a page may read of an answer, besides its body.
EXPOSED_HEADERS = ("mcp-session-id", "www-authenticate", "retry-after", "x-request-id")
# How soon a stream ends after its token was revoked or is over.
RECHECK_S = 1.0
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
# In which the whole of a request has to be here.
BODY_DEADLINE_S = 30.0


@dataclass(slots=True, eq=False)
class _Open:
    """A request that is being answered.

    Attributes:
        bearer: Who asks; `None` where nobody is asked.
        session: In which it is; empty for none.
        is_stream: Whether its client only listens.
        scope: What it is answered in.
        waiting: What it waits in for the client to leave, if it does.
        has_ended: Whether it was told that the client has left.
        is_revoked: Whether that was because its token holds no more.
    """

    bearer: Bearer | None
    session: str
    is_stream: bool
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    waiting: anyio.CancelScope | None = None
    has_ended: bool = False
    is_revoked: bool = False

    def end(self) -> None:
        """Have it tidy up as if its client had left; cut it off the second time."""
        if self.has_ended:
            self.scope.cancel()
        self.has_ended = True
        if self.waiting is not None:
            self.waiting.cancel()

    async def receive(self, receive: Receive) -> Message:
        """Wait for the client to leave, or to be told that it has."""
        if not self.has_ended:
            with anyio.CancelScope() as self.waiting:
                return await receive()
        return {"type": "http.disconnect"}


@dataclass(slots=True)
class _Answer:
    """What was sent of an answer.

    Attributes:
        status: 0 while nothing was.
        is_whole: Whether its end was.
        session: That which it began.
        on_start: Called once status and session are known, before the client knows of them.
    """

    status: int = 0
    is_whole: bool = False
    session: str = ""
    on_start: Callable[[], None] | None = None

    def watch(self, send: Send) -> Send:
        """Return `send`, and keep in mind what goes through it."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.session = Headers(raw=message.get("headers", ())).get(SESSION_HEADER, "")
                if self.on_start is not None:
                    self.on_start()
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                self.is_whole = True
            await send(message)

        return watched


class _Cors(CORSMiddleware):
    """Tells browsers which pages may read the answers: those that the gate lets in."""

    def __init__(self, app: ASGIApp, is_origin: Callable[[str], bool]) -> None:
        super().__init__(
            app,
            allow_methods=("GET", "POST", "DELETE"),
            # Those of the protocol are not a closed list (mcp-param-…); whose page may come in is what is asked.
            allow_headers=("*",),
            expose_headers=EXPOSED_HEADERS,
        )
        self._is_origin = is_origin

    def is_allowed_origin(self, origin: str) -> bool:
        return self._is_origin(origin)


class Gate:
    """Stands before an ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        settings: HTTPSettings,
        *,
        verifier: Verifier,
        needs_token: Callable[[], bool],
        metrics: Metrics,
        resource_url: AnyHttpUrl | None,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._settings = settings
        self._verifier = verifier
        self._needs_token = needs_token
        self._metrics = metrics
        self._limits = limits
        self._clock = clock
        metadata_url = None if resource_url is None else build_resource_metadata_url(resource_url)
        self._bearer = BearerAuthBackend(verifier)
        self._unknown = RequireAuthMiddleware(app, [], metadata_url)
        self._addresses = Addresses(settings)
        self._prefix = path_prefix(settings)
        self._cors = _Cors(self._admit, self._addresses.is_origin)
        self._open: set[_Open] = set()
        self._sessions = Sessions(limit=settings.max_open_requests, clock=clock)
        self._is_closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": self._path(scope["path"])}
        given = Headers(scope=scope).get("x-request-id", "")
        id = given if REQUEST_ID_PATTERN.fullmatch(given) else secrets.token_hex(8)
        request_id.set(id)
        path = PAGE_PATH if _is_page(scope) else scope["path"]
        path = path if path in KNOWN_PATHS else "other"
        answer = _Answer()
        started = self._clock()

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", id.encode())]
            await send(message)

        self._metrics.open_requests.labels(path).inc()
        try:
            await self._serve(scope, receive, answer.watch(answering))
        finally:
            self._metrics.open_requests.labels(path).dec()
            self._metrics.requests.labels(path, _method(scope), answer.status).inc()
            seconds = self._clock() - started
            if scope["method"] == "POST":
                self._metrics.request_seconds.labels(path).observe(seconds)
            self._log(scope, path, answer.status, seconds)

    async def recheck(self) -> None:
        """End what is open for tokens that hold no more; returns never."""
        while True:
            await anyio.sleep(RECHECK_S)
            good: dict[str, bool] = {}
            for one in list(self._open):
                if one.bearer is None:
                    continue
                if one.bearer.token not in good:
                    good[one.bearer.token] = await self._still_holds(one.bearer)
                if not good[one.bearer.token]:
                    one.is_revoked = True
                    one.end()

    def close(self) -> None:
        """Let nobody in any more."""
        self._is_closing = True

    @property
    def is_closing(self) -> bool:
        """Whether nobody is let in any more."""
        return self._is_closing

    def end_streams(self) -> None:
        """End the streams that clients only listen to."""
        for one in self._open:
            if one.is_stream:
                one.end()

    # --- one request ---

    def _path(self, path: str) -> str:
        """Return the path as the routes have it; a proxy may have taken the prefix of `public_url` off, or not."""
        if self._prefix and path.startswith(f"{self._prefix}/"):
            path = path.removeprefix(self._prefix)
        return _SAME_PATHS.get(path, path)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in OPEN_PATHS and scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if self._is_closing:
            await self._refuse(send, 503, "closing", "the server is stopping; try again", retry_after_s=5)
            return
        headers = Headers(scope=scope)
        if not self._addresses.is_host(headers.get("host", ""), scope):
            await self._refuse(send, 421, "host", "this server is not called that; see [http] allowed_hosts")
            return
        if scope["path"].startswith("/.well-known/"):
            # Says only where to ask for a token, to any page.
            await self._app(scope, receive, send)
            return
        is_page = _is_page(scope)
        if is_page:
            scope = with_bearer(scope)
        if not self._addresses.is_origin(headers.get("origin")) and not (is_page and is_own_origin(headers)):
            await self._refuse(send, 403, "origin", "pages from there may not use this server")
            return
        await self._cors(scope, receive, send)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in with its caller; a browser asks before that, without one, whether it may."""
        answer = _Answer()
        send = answer.watch(send)
        headers = Headers(scope=scope)
        is_page = _is_page(scope)
        bearer: Bearer | None = None
        if self._needs_token():
            try:
                found = await self._bearer.authenticate(HTTPConnection(scope))
            except IdentityError:
                await self._refuse(send, 503, "provider", "the identity provider can't be asked", retry_after_s=30)
                return
            if found is not None and isinstance(found[1].access_token, Bearer):
                scope["auth"], scope["user"] = found
                bearer = found[1].access_token
            elif scope["path"] not in SIGN_IN_PATHS:
                self._metrics.refused.labels("token").inc()
                if is_page and scope["method"] in ("GET", "HEAD"):
                    # A person is asked for a token where a client is told that it has none.
                    await RedirectResponse(f"{self._prefix}{PAGE_PATH}/login", 303)(scope, receive, send)
                else:
                    await self._unknown(scope, receive, send)
                return
            wait_s = self._limits.take("" if bearer is None else _key(bearer))
            if wait_s > 0:
                what = f"more than {self._settings.requests_per_minute} requests a minute"
                await self._refuse(send, 429, "rate", what, retry_after_s=math.ceil(wait_s))
                return
        holder = "" if bearer is None else _key(bearer)
        has_sessions = self._settings.keeps_sessions and may_have_session(scope, headers)
        named = headers.get(SESSION_HEADER, "") if has_sessions else ""
        session = self._session(holder, named, bearer)
        if named and session is None:
            await self._refuse(send, 404, "session", "session not found; begin a new one")
            return
        if has_sessions and not named and self._sessions.has_all(holder):
            what = f"{self._settings.max_open_requests} sessions are open; end some (DELETE), or go on in one"
            await self._refuse(send, 429, "sessions", what, retry_after_s=60)
            return
        place = self._limits.open(holder)
        if place is None:
            what = f"{self._settings.max_open_requests} requests are open; end some first"
            await self._refuse(send, 429, "open", what, retry_after_s=5)
            return
        one = _Open(bearer, session=named, is_stream=scope["method"] == "GET")
        self._open.add(one)
        if session is not None:
            session.open_requests += 1
        # A client may go on in a session as soon as it has read its name, long before a streamed answer ends.
        answer.on_start = partial(self._keep_sessions, scope, holder, named, answer, bearer)
        try:
            with one.scope:
                await self._pass_on(one, scope, receive, send)
        finally:
            self._open.discard(one)
            if session is not None:
                session.open_requests -= 1
                session.used_at = self._clock()
            self._limits.close(place)
        if not answer.status and one.is_revoked:
            scope.pop("user")
            await self._unknown(scope, receive, send)
        elif answer.status and not answer.is_whole:
            # What was cut off ends as a stream does.
            with suppress(OSError):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _session(self, holder: str, named: str, bearer: Bearer | None) -> Session | None:
        session = self._sessions.get(holder, named)
        if session is not None and session.access != _access(bearer):
            # The holder was moved. What the session was promised to hear of is no longer its own.
            self._sessions.forget(holder, named)
            for one in list(self._open):
                if one.session == named:
                    one.end()
            return None
        return session

    def _keep_sessions(self, scope: Scope, holder: str, named: str, answer: _Answer, bearer: Bearer | None) -> None:
        """Know of a session that an answer began, and no more of one that it ended."""
        if answer.session and not named:
            self._sessions.begin(holder, answer.session, _access(bearer))
        elif named and (answer.status == 404 or (scope["method"] == "DELETE" and answer.status < 300)):
            self._sessions.forget(holder, named)

    async def _pass_on(self, one: _Open, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on once all of it is here."""
        limit = self._settings.max_body_bytes
        declared = Headers(scope=scope).get("content-length", "")
        body = bytearray()
        is_whole = False
        with anyio.move_on_after(BODY_DEADLINE_S):
            while not is_whole and len(body) <= limit and not (declared.isdecimal() and int(declared) > limit):
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                is_whole = not message.get("more_body", False)
            if not is_whole or len(body) > limit:
                what = f"the request is larger than {limit:,} bytes ([http] max_body_bytes)"
                await self._refuse(send, 413, "size", what)
                return
        if not is_whole:
            what = f"the request took longer than {BODY_DEADLINE_S:g} seconds to arrive"
            await self._refuse(send, 408, "slow", what)
            return
        # Nothing is kept for who comes again; a stream begins with what happens next.
        scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() != b"last-event-id"]
        left: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> Message:
            return left.pop() if left else await one.receive(receive)

        await self._app(scope, again, send)

    async def _still_holds(self, bearer: Bearer) -> bool:
        try:
            now = await self._verifier.verify_token(bearer.token)
        except IdentityError:
            # The keys were known when it was let in; that they can't be had now does not make it worse.
            return bearer.expires_at is None or time.time() < bearer.expires_at
        return now is not None and now.access == bearer.access

    async def _refuse(
        self, send: Send, status: int, reason: str, words: str, *, retry_after_s: int | None = None
    ) -> None:
        self._metrics.refused.labels(reason).inc()
        body = json.dumps({"error": reason, "error_description": words}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if retry_after_s is not None:
            headers.append((b"retry-after", str(retry_after_s).encode()))
        if status in (408, 413, 503):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _log(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        client = scope.get("client")
        user = scope.get("user")
        fields = {
            "method": _method(scope),
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "client": None if client is None else client[0],
        }
        if isinstance(user, AuthenticatedUser) and isinstance(user.access_token, Bearer):
            fields["holder"] = user.access_token.access.holder
        requests_logger().info("request", extra={FIELDS: fields})


def _is_page(scope: Scope) -> bool:
    path: str = scope["path"]
    return path == PAGE_PATH or path.startswith(f"{PAGE_PATH}/")


def _key(bearer: Bearer) -> str:
    return f"{bearer.client_id} {bearer.subject or ''}"


def _access(bearer: Bearer | None) -> Access | None:
    return None if bearer is None else bearer.access


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
