"""Who may come in, and what a browser may do with what it gets.

In:  requests of browsers.
Out: the same with a form token; refusals; headers on every answer.
Does not know: pages, the pool.

Source: https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/fetch-metadata/.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORM_COOKIE = "reme_form"
KEY_COOKIE = "reme_ui"
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guarded:
    """An application whose answers carry the headers above, and that other sites can't use."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        request = Request(scope)
        cookie = request.cookies.get(FORM_COOKIE, "")
        fresh = "" if len(cookie) >= 32 else secrets.token_urlsafe(32)
        scope["reme_form"] = form_token(cookie or fresh)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if fresh:
                    headers.append("set-cookie", cookie_of(FORM_COOKIE, fresh, self._path, scope["scheme"]))
            await send(message)

        if not is_own(request):
            refusal = PlainTextResponse("Other sites may not use this page.", 403)
            await refusal(scope, receive, sending)
            return
        await self._app(scope, receive, sending)


class Keyed:
    """An application for whoever has its key: from the address that was printed, and from a cookie from then on."""

    def __init__(self, app: ASGIApp, key: str, *, host: Callable[[str], bool]) -> None:
        self._app = app
        self._key = key
        self._is_host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let in who has the key."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        response: Response
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not self._is_host(request.headers.get("host", "")):
            response = PlainTextResponse("This page is not called that.", 421)
        elif given and is_same(given, self._key) and request.method == "GET":
            rest = [pair for pair in request.query_params.multi_items() if pair[0] != "token"]
            response = RedirectResponse(f"{request.url.path}?{urlencode(rest)}" if rest else request.url.path, 303)
            response.headers.append("set-cookie", cookie_of(KEY_COOKIE, self._key, "/", "http"))
        elif not is_same(request.cookies.get(KEY_COOKIE, ""), self._key):
            words = "Open the address that `reme-mcp ui` printed: it has the key to this page."
            response = PlainTextResponse(words, 403)
        else:
            await self._app(scope, receive, send)
            return
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        await response(scope, receive, send)


def is_own(request: Request) -> bool:
    """Return whether a request comes from this page, or from a person who opens it."""
    site = request.headers.get("sec-fetch-site", "")
    if request.method in ("GET", "HEAD"):
        opens = request.headers.get("sec-fetch-mode") == "navigate" and request.headers.get("sec-fetch-dest") in (
            "document",
            "",
            None,
        )
        return site in ("", "same-origin", "none") or opens
    origin = request.headers.get("origin")
    if site:
        return site == "same-origin"
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def form_token(cookie: str) -> str:
    """Return what a form has to bring, besides the cookie that only this page has set."""
    return hmac.new(cookie.encode(), b"form", hashlib.sha256).hexdigest()


def is_same(given: str, known: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), known.encode())


def cookie_of(name: str, value: str, path: str, scheme: str) -> str:
    """Return a cookie that no script reads and no other site sends."""
    secure = "; Secure" if scheme == "https" else ""
    return f"{name}={value}; Path={path or '/'}; HttpOnly; SameSite=Strict{secure}"


def with_bearer(scope: Scope) -> Scope:
    """Return a request whose cookie brings a token as one that brings it as a header."""
    headers = Headers(scope=scope)
    if "authorization" in headers:
        return scope
    token = Request(scope).cookies.get(KEY_COOKIE, "")
    if not token:
        return scope
    bearer = (b"authorization", b"Bearer " + token.encode("latin-1", "replace"))
    return {**scope, "headers": [*scope["headers"], bearer]}
