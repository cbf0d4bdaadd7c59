"""What a caller may do: in which workspaces, reading or writing.

In:  what a token says.
Out: the workspace that a call is about, or `Forbidden`. Nothing is guessed: what can't be matched is refused.
Does not know: how a token is read, stored or checked; protocols.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

from reme_mcp.errors import Forbidden

# Each may do what those before it may: read recalls, write records and rates, admin sees how the server is doing.
Role = Literal["read", "write", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
SHOWN_CHARS = 80
# Of the holder in a source: what comes after the first slash is a client's.
HOLDER_CHARS = 60
DIGEST_CHARS = 16
# What the pool calls those who are no client, see `audit.py`.
NO_CLIENTS = ("cli", "refine", "upkeep")


def source_of(name: str, holder: str) -> str:
    """Return who calls, as the pool has it from then on.

    What a client calls itself can't pass for the command line, a rule, a file, or the holder of a token.

    Args:
        name: Of the client, by itself.
        holder: Of the token; empty where there is none.
    """
    if holder:
        return f"{_written(holder)}/{name}"[:SHOWN_CHARS]
    plain = name.strip().casefold()
    if plain in NO_CLIENTS or plain.startswith("file:") or "/" in plain:
        name = f"mcp:{name}"
    return name[:SHOWN_CHARS]


def _written(holder: str) -> str:
    """Return the holder without a slash or a colon, so short that the slash after it stays, and like no other's.

    An identity provider may call its users by addresses, and one of these could be cut to that of another.
    """
    for char in "%/:~":
        holder = holder.replace(char, f"%{ord(char):02X}")
    if len(holder) <= HOLDER_CHARS:
        return holder
    digest = hashlib.sha256(holder.encode(errors="replace")).hexdigest()[:DIGEST_CHARS]
    return f"{holder[: HOLDER_CHARS - DIGEST_CHARS - 1]}~{digest}"


# All that come without a token: what they call themselves nobody can check.
THIS_MACHINE = ""


def voice_of(source: str) -> str:
    """Return who speaks through a source: the holder of a token, through whatever client, or `THIS_MACHINE`."""
    holder, slash, _ = source.partition("/")
    # No holder has a colon; what a client without a token calls itself may have a slash, and so may a file.
    return holder if slash and ":" not in holder else THIS_MACHINE


def may_speak_for(source: str, other: str) -> bool:
    """Return whether a source may go on with what another one has begun: the holder of a token with its own only."""
    return voice_of(source) in (THIS_MACHINE, voice_of(other))


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
