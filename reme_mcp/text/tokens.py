"""What a text costs a model, and how to cut it to what there is.

In:  text, a number of tokens.
Out: a number of tokens; text that fits.
"""

from __future__ import annotations

import math

BYTES_PER_TOKEN = 4
ELLIPSIS = " …"


def tokens(text: str) -> int:
    """Return what `text` costs a model, roughly: a token is four bytes of UTF-8."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)


def shorten(text: str, max_tokens: int) -> str:
    """Return `text`, cut at a word and marked if it is longer than `max_tokens`."""
    if tokens(text) <= max_tokens:
        return text
    room = max(0, max_tokens * BYTES_PER_TOKEN - len(ELLIPSIS.encode()))
    cut = text.encode()[:room].decode(errors="ignore")
    return (cut.rsplit(" ", 1)[0] if " " in cut[len(cut) // 2 :] else cut).rstrip() + ELLIPSIS
