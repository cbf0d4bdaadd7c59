"""Where in a held lesson the words stand that a rule found, for the person who decides on it.

In:  an experience with its texts.
Out: for every rule that applies, what it says and the shortest run of words for which it still does.
Does not know: how a rule looks; it is asked again and again, with less and less of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from reme_mcp.safety.quarantine import suspicions
from reme_mcp.schema import Experience

Place = Literal["when_to_use", "content", ""]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule found.

    Attributes:
        rule: Its name.
        says: What the lesson does, after "it".
        place: In which text; empty where the rule needs several of them, or another one.
        start: Of the passage, in characters.
        end: Behind it.
    """

    rule: str
    says: str
    place: Place = ""
    start: int = 0
    end: int = 0


def findings(experience: Experience) -> list[Finding]:
    """Return what every rule that applies found, and where."""
    found = suspicions(experience, experience.source)
    return [_located(experience, said) for said in found]


def _located(experience: Experience, said: str) -> Finding:
    rule, _, says = said.partition(": it ")
    bare = replace(
        experience, when_to_use="", content="", keywords=(), tools_used=(), generalized_task="", task="", source=""
    )
    by_text: dict[Place, Callable[[str], Experience]] = {
        "content": lambda text: replace(bare, content=text),
        "when_to_use": lambda text: replace(bare, when_to_use=text),
    }
    texts: dict[Place, str] = {"content": experience.content, "when_to_use": experience.when_to_use}
    for place, with_text in by_text.items():
        passage = _shortest(texts[place], lambda text, make=with_text: said in suspicions(make(text)))  # type: ignore[misc]  # a default binds it
        if passage is not None:
            return Finding(rule, says, place, *passage)
    return Finding(rule, says)


def _shortest(text: str, applies: Callable[[str], bool]) -> tuple[int, int] | None:
    """Return the start and end of a run of words of `text` for which a rule applies and which loses none of them."""
    if not applies(text):
        return None
    words = [found.span() for found in re.finditer(r"\S+", text)]
    if not words:
        return 0, len(text)
    last = _least(len(words), lambda count: applies(text[: words[count - 1][1]]))
    end = words[last - 1][1]
    kept = _least(last, lambda count: applies(text[words[last - count][0] : end]))
    return words[last - kept][0], end


def _least(most: int, is_enough: Callable[[int], bool]) -> int:
    """Return the least of 1 to `most` that is enough, where `most` is, and more than enough is enough, too."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle + 1
    return low if is_enough(low) else most
