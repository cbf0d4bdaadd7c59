"""Numbers with their nouns.

In:  a count, the singular of a noun.
Out: words for a person.
Does not know: nouns whose plural takes more than an s.
"""

from __future__ import annotations


def many(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
