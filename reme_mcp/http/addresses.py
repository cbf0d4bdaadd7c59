"""What a server is called, and whose pages may use it: names, origins, the path before its own.

In:  settings; the `Host` and `Origin` of a request.
Out: whether they are this server's; whether others can reach it at all.
Does not know: requests that are under way, tokens.

The SDK compares whole values of both headers, with a port or with any. A server that is found by its address, behind a
proxy with a path, or by a page on this machine needs names and origins taken apart.

Source: the specification of MCP, 2025-11-25, basic/transports (Host and Origin against DNS rebinding).
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from reme_mcp.config.settings import WITHOUT_AUTH, HTTPSettings

LOCAL_NAMES = ("127.0.0.1", "localhost", "::1")
WILDCARDS = ("0.0.0.0", "::")


class Addresses:
    """The names and origins of one server."""

    def __init__(self, settings: HTTPSettings) -> None:
        self._settings = settings
        self._hosts = _names(settings.host, settings.public_url, *settings.allowed_hosts.split())
        self._origins = {origin.lower().rstrip("/") for origin in settings.allowed_origins.split()}
        if settings.public_url:
            self._origins.add(_origin(settings.public_url))
        self._is_local = is_loopback(settings.host)

    def is_host(self, host: str, scope: Scope) -> bool:
        """Return whether the `Host` of a request is a name of this server."""
        name = host_name(host)
        if name in self._hosts:
            return True
        # By the very address that it came in at: no name that leads a browser astray is one.
        server = scope.get("server")
        return bool(name) and server is not None and self._settings.host in WILDCARDS and name == server[0]

    def is_origin(self, origin: str | None) -> bool:
        """Return whether a page of this origin may use the server; what is no browser names none."""
        if origin is None or origin.lower().rstrip("/") in self._origins:
            return True
        if not self._is_local or self._settings.public_url:
            return False
        scheme, _, host = origin.partition("://")
        return scheme in ("http", "https") and host_name(host) in LOCAL_NAMES


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def may_start(settings: HTTPSettings, *, has_tokens: bool, has_issuer: bool) -> bool:
    """Return whether a server with these settings may be started: all can reach it, and it knows nobody."""
    is_private = is_loopback(settings.host) and not settings.public_url
    return is_private or has_tokens or has_issuer or settings.without_auth == WITHOUT_AUTH


def path_prefix(settings: HTTPSettings) -> str:
    """Return the path that clients put before ours, as `/memory`; empty where none."""
    return urlsplit(settings.public_url).path.rstrip("/")


def is_own_origin(headers: Headers) -> bool:
    """Return whether a page of this very server asks, by whatever name it was opened."""
    return urlsplit(headers.get("origin", "")).netloc == headers.get("host")


def _names(host: str, public_url: str, *more: str) -> set[str]:
    """Return the names that a server at `host` goes by."""
    names = {host_name(name) for name in more}
    if host not in WILDCARDS:
        names.add(host.lower())
    if is_loopback(host) or host in WILDCARDS:
        names.update(LOCAL_NAMES)
    if public_url:
        names.add(urlsplit(public_url).hostname or "")
    return names - {""}


def host_name(host: str) -> str:
    """Return the name in a `Host` header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if not set(host) & set("/@?#\\") else ""
    except ValueError:
        return ""


def _origin(url: str) -> str:
    parts = urlsplit(url.lower())
    return f"{parts.scheme}://{parts.netloc}"
