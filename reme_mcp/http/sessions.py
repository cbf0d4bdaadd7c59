"""The sessions of the handshake era: whose each is, and how many one holder has.

In:  requests that name a session, answers that begin or end one.
Out: whether a request may go on in it; whether its holder may begin another.
Does not know: how a session is kept; the application does that, until it is deleted or idle for too long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import Scope

from reme_mcp.auth.access import Access

SESSION_HEADER = "mcp-session-id"
# The application ends a session in which nothing was asked for so long.
IDLE_S = 30 * 60.0


@dataclass(slots=True)
class Session:
    """A session, as long as the application has it.

    Attributes:
        access: What its holder may do; `None` where nobody is asked.
        used_at: When its last request began or ended.
        open_requests: How many are being answered.
    """

    access: Access | None
    used_at: float
    open_requests: int = 0


class Sessions:
    """All that are known, by holder and name."""

    def __init__(self, *, limit: int, clock: Callable[[], float]) -> None:
        """Know of none yet; `limit` is how many one holder may have at once."""
        self._limit = limit
        self._clock = clock
        self._of: dict[str, dict[str, Session]] = {}

    def get(self, holder: str, id: str) -> Session | None:
        """Return a holder's session; somebody else's is as unknown as none."""
        return self._of.get(holder, {}).get(id)

    def has_all(self, holder: str) -> bool:
        """Return whether a holder has as many as one may, having forgotten those that are over."""
        sessions = self._of.get(holder, {})
        if len(sessions) < self._limit:
            return False
        over = self._clock() - IDLE_S
        for id in [id for id, one in sessions.items() if not one.open_requests and one.used_at <= over]:
            self.forget(holder, id)
        return len(self._of.get(holder, {})) >= self._limit

    def begin(self, holder: str, id: str, access: Access | None) -> None:
        """Know of one more."""
        self._of.setdefault(holder, {})[id] = Session(access, self._clock())

    def forget(self, holder: str, id: str) -> None:
        """Know of one less."""
        sessions = self._of.get(holder, {})
        sessions.pop(id, None)
        if not sessions:
            self._of.pop(holder, None)


def may_have_session(scope: Scope, headers: Headers) -> bool:
    """Return whether a request is in a session or begins one: it is of the handshake era."""
    era = headers.get(MCP_PROTOCOL_VERSION_HEADER, HANDSHAKE_PROTOCOL_VERSIONS[0])
    return scope["path"] == "/mcp" and era in HANDSHAKE_PROTOCOL_VERSIONS
