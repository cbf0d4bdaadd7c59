"""Secrets, cut out of a text before it is stored, logged or sent to a model.

In:  a text, or a value made of texts.
Out: the same with a mark in the place of each secret, which says what kind of thing stood there. Equal texts become
     equal texts, and a redacted text stays as it is.
Does not know: where the text comes from or goes.

There are two sorts of rules. Tokens that a provider gives a form of their own are known by it; passwords and keys that
look like anything are known by the name before them, and by not looking like a word, a variable or a placeholder. A
rule's pattern is compiled and run only where one of its needles stands in the text: two hundred thousand characters
without a secret take some milliseconds.

Sources: the providers' own descriptions of their tokens; ISO/IEC 7812 for card numbers; RFC 6265, 6750, 7519.

The rules are our own. Of the libraries, detect-secrets 1.5 (no release since May 2024) loads an HTTP client to ask
providers whether a token is live, reads line by line, and knows neither GitHub's newer tokens nor those of most model
providers; `tests/benchmarks/redaction.py` compares it with this on one list.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from reme_mcp.config.settings import RedactionSettings
from reme_mcp.safety.secret_rules import MARK, MARK_START, NAMED, OWNER, RULES, STEMS, Found, Rule, compiled, is_given
from reme_mcp.schema import clean_text

# No rule looks across it.
_BETWEEN = "\n\0\n"

Redact = Callable[[str], str]


def redactor(also: str = "", *, enabled: bool = True) -> Redact:
    """Return the function that redacts a text; its two arguments are the settings of that name.

    Args:
        also: A regular expression of what is secret besides; empty for nothing.
        enabled: Without it, texts are left as they are.
    """
    if not enabled:
        return _leave

    def redact(text: str) -> str:
        if not text:
            return text
        text = re.sub(also, MARK.format("configured pattern"), text) if also else text
        return _redacted(text)

    return redact


def redactor_of(settings: RedactionSettings) -> Redact:
    """Return the function that redacts a text as the settings say."""
    return redactor(settings.also, enabled=settings.enabled)


def redact_json(value: object, redact: Redact) -> object:
    """Return a JSON value with every text in it cleaned and redacted, the keys of its objects, too."""
    if isinstance(value, str):
        return redact(clean_text(value))
    if isinstance(value, list | tuple):
        return [redact_json(item, redact) for item in value]
    if isinstance(value, dict):
        return {redact_json(key, redact): redact_json(item, redact) for key, item in value.items()}
    return value


def redact_all(texts: Sequence[str], redact: Redact) -> list[str]:
    """Return texts redacted, in order; all at once, as a conversation of short ones takes ten times as long singly.

    Args:
        texts: Clean, so that none of them holds what they are joined with.
        redact: For one text.
    """
    redacted = redact(_BETWEEN.join(texts)).split(_BETWEEN)
    return redacted if len(redacted) == len(texts) else [redact(text) for text in texts]


def is_marked(text: str) -> bool:
    """Return whether something was cut out of a text."""
    return MARK_START in text


class DiscreetFormatter(logging.Formatter):
    """Writes a log record without the secrets in it; what was raised may hold any text."""

    def __init__(self, form: str, redact: Redact) -> None:
        super().__init__(form)
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return self._redact(super().format(record))


def _leave(text: str) -> str:
    return text


def _redacted(text: str) -> str:
    folded = _folded(text)
    for rule in RULES:
        if any(needle in folded for needle in rule.needles):
            text = compiled(rule.pattern).sub(partial(_cut, rule), text)
    return _without_named(text)


def _folded(text: str) -> str:
    """Return a text in lower case, each character in its place: some have two in lower case."""
    folded = text.lower()
    return folded if len(folded) == len(text) else "".join(char.lower()[0] for char in text)


def _cut(rule: Rule, found: Found) -> str:
    if not rule.inside and found.start() and found.string[found.start() - 1].isalnum():
        return found[0]
    if not rule.is_secret(found):
        return found[0]
    start, end = found.span("secret" if "secret" in found.re.groupindex else 0)
    return found.string[found.start() : start] + MARK.format(rule.kind) + found.string[end : found.end()]


def _without_named(text: str) -> str:
    """Return a text without what is a secret by the name before it.

    The names' stems are looked up one by one: a pattern that is tried at every character takes ten times as long.
    """
    folded = _folded(text)
    kept: list[str] = []
    done = 0
    for place in sorted({place for stem in STEMS for place in _places(stem, folded)}):
        found = compiled(NAMED).match(text, place)
        if place < done or found is None or not is_given(found):
            continue
        value = "quoted" if found["quoted"] is not None else "bare"
        start, end = found.span(value)
        if value == "bare":
            # The full stop of a sentence is none of it.
            end = start + len(found["bare"].rstrip(".:!?"))
        kept += [text[done:start], MARK.format(_kind(found))]
        done = end
    return "".join([*kept, text[done:]])


def _places(stem: str, folded: str) -> Iterator[int]:
    place = folded.find(stem)
    while place >= 0:
        yield place
        place = folded.find(stem, place + 1)


def _kind(found: Found) -> str:
    """Return the kind of what a name names: "api key" for OPENAI_APIKEY."""
    if found["password"]:
        return "password"
    owner = compiled(OWNER).search(found.string, max(0, found.start() - 12), found.start())
    parts = [owner[0] if owner else "", *re.split(r"(secret|access|key|base)", found["name"], flags=re.IGNORECASE)]
    return " ".join(part.strip("_-").lower() for part in parts if part.strip("_-"))
