"""Sources: who wrote a record, and for whom a caller may speak.

In:  the name of a client and the holder of a token, as the server knows them; never what a record says of itself.
Out: the text that is stored as `source`, and what can be told from it: the rater, the holder.
Does not know: tokens, roles, the pool.
"""

from __future__ import annotations

import hashlib

SHOWN_CHARS = 80
# Of the holder in a source: what comes after the first slash is a client's.
HOLDER_CHARS = 60
DIGEST_CHARS = 16
# What the pool calls those who are no client, see `audit.py`.
NO_CLIENTS = ("cli", "page", "refine", "upkeep")


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


def rater_of(source: str) -> str:
    """Return who speaks through a source: the holder of a token, through whatever client, or `THIS_MACHINE`."""
    holder, slash, _ = source.partition("/")
    # No holder has a colon; what a client without a token calls itself may have a slash, and so may a file.
    return holder if slash and ":" not in holder else THIS_MACHINE


def may_speak_for(source: str, other: str) -> bool:
    """Return whether a source may go on with what another one has begun: the holder of a token with its own only."""
    return rater_of(source) in (THIS_MACHINE, rater_of(other))
