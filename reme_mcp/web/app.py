"""The page for people as an application: its addresses, its files, its errors, its live changes.

In:  an open memory, and what the caller of a request may do.
Out: an ASGI application, for loopback behind a key, or under `/ui` of the hosted server behind its gate.
Does not know: sockets, tokens, how a page looks.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qsl

import anyio
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from reme_mcp.errors import Forbidden, InvalidInput, NotFound, ReMeError
from reme_mcp.memory.memory import Memory
from reme_mcp.web import pages
from reme_mcp.web.actions import MAX_FORM_BYTES, act
from reme_mcp.web.guard import KEY_COOKIE, Guarded, cookie_of, is_same
from reme_mcp.web.render import FOLDER, render
from reme_mcp.web.state import AccessOf, Announce, View, workspace_of

logger = logging.getLogger(__name__)
# How often a page that is open asks whether the pool has changed; it costs a look at the versions of the tables.
LOOK_S = 1.0
# A proxy ends what is silent for a minute.
BEAT_S = 20.0

# Whether a token lets somebody in.
SignIn = Callable[[str], Awaitable[bool]]


class PageApp:
    """The page over one memory."""

    def __init__(
        self,
        memory: Callable[[], Memory],
        access_of: AccessOf,
        *,
        base: str = "",
        sign_in: SignIn | None = None,
        announce: Announce = lambda workspace, ids: None,
    ) -> None:
        self._memory = memory
        self._access_of = access_of
        self._base = base
        self._sign_in = sign_in
        self._announce = announce

    def app(self) -> ASGIApp:
        """Return the application, to be mounted at `base`."""
        shown = {
            "/": pages.lessons,
            "/lesson/{id}": pages.lesson,
            "/lesson/{id}/SKILL.md": pages.skill,
            "/review": pages.review,
            "/recall": pages.recall,
            "/removal": pages.removal,
            "/changes": pages.changes,
            "/attempts": pages.attempts,
            "/attempt/{id}": pages.attempt,
        }
        routes = [
            *(Route(path, self._shows(show), methods=["GET"]) for path, show in shown.items()),
            Route("/do/{verb}", self._acts, methods=["POST"]),
            Route("/events", self._events, methods=["GET"]),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
        ]
        if self._sign_in is not None:
            routes += [
                Route("/login", self._login, methods=["GET", "POST"]),
                Route("/logout", self._logout, methods=["POST"]),
            ]
        inner = Starlette(routes=routes, exception_handlers={404: self._not_found})
        # It would lead to this process by its own name and scheme, which a proxy hides.
        inner.router.redirect_slashes = False
        return Guarded(inner, path=self._base or "/")

    # --- pages and actions ---

    def _shows(self, show: Callable[[View], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await self._answered(request, show)

        return answer

    async def _acts(self, request: Request) -> Response:
        form = await _form(request)
        if form is None or not is_same(form.get("token", ""), request.scope["reme_form"]):
            return self._trouble(request, 403, "This form is not from this page, or is too old. Go back and try again.")

        async def run(view: View) -> Response:
            return await act(view, form)

        return await self._answered(request, run, named=form.get("workspace"))

    async def _answered(
        self, request: Request, run: Callable[[View], Awaitable[Response]], *, named: str | None = None
    ) -> Response:
        memory = self._memory()
        holder = ""
        try:
            access = self._access_of(request)
            holder = access.holder
            if named is not None:
                request.scope["query_string"] = str(QueryParams({**request.query_params, "workspace": named})).encode()
                request = Request(request.scope, request.receive)
            workspace = workspace_of(request, access, memory.settings.workspace)
            view = View(request, memory, access, workspace, self._base, self._announce, self._sign_in is not None)
            return await run(view)
        except NotFound as exc:
            return self._trouble(request, 404, str(exc))
        except Forbidden as exc:
            return self._trouble(request, 403, str(exc))
        except InvalidInput as exc:
            return self._trouble(request, 400, str(exc))
        except ReMeError as exc:
            logger.error("page %s: %s", request.url.path, exc)
            # It is about the machine, whose folders and addresses are nothing to its guests.
            words = "The server can't do it at the moment; its log says why. Try again later." if holder else str(exc)
            return self._trouble(request, 503, words)

    async def _not_found(self, request: Request, exc: Exception) -> Response:
        return self._trouble(request, 404, "There is no such page.")

    def _trouble(self, request: Request, status: int, words: str) -> Response:
        title = HTTPStatus(status).phrase
        return HTMLResponse(render("error.html", base=self._base, title=title, words=words), status)

    # --- live changes ---

    async def _events(self, request: Request) -> Response:
        """Say that the pool has changed, for as long as the page is open."""
        self._access_of(request)
        memory = self._memory()

        async def told() -> AsyncIterator[str]:
            seen, silent = await memory.overview.version(), 0.0
            yield "retry: 3000\n\n"
            while not await request.is_disconnected():
                await anyio.sleep(LOOK_S)
                silent += LOOK_S
                current = await memory.overview.version()
                if current != seen:
                    seen, silent = current, 0.0
                    yield "event: changed\ndata: \n\n"
                elif silent >= BEAT_S:
                    silent = 0.0
                    yield ": \n\n"

        return StreamingResponse(told(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    # --- tokens ---

    async def _login(self, request: Request) -> Response:
        assert self._sign_in is not None
        wrong = False
        if request.method == "POST":
            form = await _form(request)
            if form is None or not is_same(form.get("token", ""), request.scope["reme_form"]):
                return self._trouble(request, 403, "This form is too old. Go back and try again.")
            given = form.get("key", "").strip()
            if given.isascii() and given.isprintable() and ";" not in given and await self._sign_in(given):
                response = RedirectResponse(f"{self._base}/", 303)
                scheme = "https" if request.headers.get("x-forwarded-proto") == "https" else request.url.scheme
                response.headers.append("set-cookie", cookie_of(KEY_COOKIE, given, self._base, scheme))
                return response
            wrong = True
        html = render("login.html", base=self._base, wrong=wrong, form_token=request.scope["reme_form"])
        return HTMLResponse(html, 403 if wrong else 200)

    async def _logout(self, request: Request) -> Response:
        form = await _form(request)
        if form is None or not is_same(form.get("token", ""), request.scope["reme_form"]):
            return self._trouble(request, 403, "This form is too old. Go back and try again.")
        response = RedirectResponse(f"{self._base}/login", 303)
        response.headers.append("set-cookie", f"{cookie_of(KEY_COOKIE, '', self._base, request.url.scheme)}; Max-Age=0")
        return response


async def _form(request: Request) -> dict[str, str] | None:
    """Return the fields of a form, `None` where it is none or too long."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
        return None
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_FORM_BYTES:
                return None
    except ClientDisconnect:
        return None
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
