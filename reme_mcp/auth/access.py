"""What a caller may do: in which workspaces, reading or writing.

In:  what a token says.
Out: the workspace that a call is about, or `Forbidden`. Nothing is guessed: what can't be matched is refused.
Does not know: how a token is read, stored or checked; protocols.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from reme_mcp.errors import Forbidden
from reme_mcp.sources import SHOWN_CHARS

# Each may do what those before it may: read recalls, write records and rates, admin sees how the server is doing.
Role = Literal["read", "write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Access:
    """What one caller may do.

    Attributes:
        holder: Whose token it is; empty for the person at this machine, who has none.
        workspaces: Those that it may enter; `None` for all of them.
        role: What it may do there.
        home_workspace: The one that a call is about that names none, where all may be entered.
    """

    holder: str
    workspaces: tuple[str, ...] | None
    role: Role
    home_workspace: str = ""

    @classmethod
    def of_this_machine(cls, workspace: str) -> Access:
        """Return the access of whoever starts the server, and of everybody where it asks for no token."""
        return cls(holder="", workspaces=None, role="admin", home_workspace=workspace)

    def allows(self, role: Role) -> bool:
        """Return whether what takes `role` is allowed."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def demand(self, role: Role, what: str) -> None:
        """Let pass who may do `what`.

        Raises:
            Forbidden: The role does not reach.
        """
        if not self.allows(role):
            raise Forbidden(f"{what} needs a token with the role {role}; this one may only {self.role}")

    def enters(self, workspace: str) -> bool:
        """Return whether a workspace may be entered."""
        return self.workspaces is None or workspace in self.workspaces

    def workspace(self, named: str | None) -> str:
        """Return the workspace that a call is about which names this one, or none.

        Raises:
            Forbidden: It is not one of its own, or several are and none was named.
        """
        if named is not None and self.enters(named):
            return named
        if named is None and self.workspaces is None:
            return self.home_workspace
        if named is None and self.workspaces is not None and len(self.workspaces) == 1:
            return self.workspaces[0]
        own = ", ".join(self.workspaces or ())
        if named is None:
            raise Forbidden(f"this token is for several workspaces; name one of {own}")
        raise Forbidden(f"workspace is {named[:SHOWN_CHARS]!r}; this token is for {own}")
