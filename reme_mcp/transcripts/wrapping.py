"""What a client puts around the words of its user, told from those words.

In:  the text of one block of a user's message.
Out: the user's words in it; the command that a tagged block names.
Does not know: which client wrote it, or the other blocks.

The names that clients use age, so the rules look at the form:

    one tag       A block that is one tag from end to end is the client's, whatever the tag is called.
    around        So are tags at the start or the end of a block whose name has two words (`ide_selection`,
                  `system-reminder`); nobody opens a sentence with one. `<div>` stays: people paste that.
    marker        Under a heading such as "# Context from my IDE setup:", what follows the last heading that announces
                  the request ("## My request for Codex:") is the user's. Without that heading nothing is.
    continuation  A text that says that it continues an earlier conversation is a summary which the client wrote.
"""

from __future__ import annotations

import re

_OPEN = re.compile(r"<([A-Za-z][\w.:-]*)(?:\s[^<>]*?)?(/?)>")
_CLOSE = re.compile(r"</([A-Za-z][\w.:-]*)[^<>]*>")
_LONE_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_REMINDER = re.compile(r"<system-reminder>.*?</system-reminder>", re.DOTALL)
_CONTEXT = re.compile(
    r"#{1,6}[ \t]+(?:(?:Context|Selections?|Diagnostics|Open (?:files|tabs)) (?:from|in|of) (?:my|the|your)\b"
    r"|Files mentioned by the user\b|\S+\.md instructions\b)[^\n]*",
    re.IGNORECASE,
)
_ANY_HEADING = re.compile(r"#{1,6}[ \t]+\S[^\n]*")
_MARKER = re.compile(
    r"^#{1,6}[ \t]+(?:my|(?:the )?user(?:'s|’s)?|the) (?:actual |current )?(?:request|prompt|question|message|task)\b"
    r"[^\n:]*:?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_CONTINUED = re.compile(
    r"\W*(?:this (?:session|conversation|chat) is (?:being )?(?:a )?continu"
    r"|(?:below is |here is |this is )?(?:a |the )?summary of (?:the |our |this )?"
    r"(?:previous|earlier|prior|conversation so far|session so far)"
    r"|(?:caveat|note): the messages below were generated"
    r"|another (?:language )?model (?:has )?(?:already )?started)",
    re.IGNORECASE,
)
_INTERRUPTED = re.compile(
    r"\[Request (?:interrupted|cancell?ed|aborted)|<\w*(?:abort|interrupt|cancel)\w*>", re.IGNORECASE
)
# More blocks than this around a prompt were put there to keep a reader busy.
MAX_TAGS = 50
_COMMAND = re.compile(r"<command-(name|args)>(.*?)</command-\1>", re.DOTALL)


def words_of(text: str) -> str:
    """Return the user's words in a block; empty where it is all the client's."""
    text = _without_tags(_REMINDER.sub("", text).strip())
    if not text or _LONE_TAG.fullmatch(text) or _CONTINUED.match(text):
        return ""
    if _ANY_HEADING.match(text):
        markers = list(_MARKER.finditer(text))
        if markers and markers[-1].start() > 0:
            return _without_tags(text[markers[-1].end() :].strip())
        if _CONTEXT.match(text) or (not _without_tags(text.partition("\n")[2].strip()) and "<" in text):
            return ""
    return text


def request_in(text: str) -> str:
    """Return what a block that is all the client's asks for: a command with its arguments, or what one plain tag holds.

    A client writes no tag of one word around what it says itself, but people wrap a request so.
    """
    found = {name: value.strip() for name, value in _COMMAND.findall(text)}
    if found.get("name"):
        return f"{found['name']} {found.get('args', '')}".strip()
    text = text.strip()
    opened = _OPEN.match(text)
    if opened is None or _is_compound(opened[1]) or opened[1].isupper() or not _is_one_tag(text, opened[1]):
        return ""
    return text[opened.end() : text.rindex("</")].strip()


def is_interruption(text: str) -> bool:
    """Say whether a block notes that the user stopped the assistant."""
    return _INTERRUPTED.match(text.lstrip()) is not None


def _without_tags(text: str) -> str:
    """Return a stripped text without the client's tags at its start and its end."""
    for _ in range(MAX_TAGS):
        opened = _OPEN.match(text)
        if opened is None:
            break
        name = opened[1]
        if not opened[2] and _is_one_tag(text, name):
            return ""
        if not _is_compound(name):
            break
        # A tag that is never closed was cut, with whatever followed it.
        text = text[opened.end() if opened[2] else _end_of(text, name) :].strip()
    for _ in range(MAX_TAGS):
        closed = _CLOSE.fullmatch(text, text.rfind("</")) if text.endswith(">") else None
        if closed is None:
            break
        name = closed[1]
        starts = [place.start() for place in re.finditer(rf"^<{re.escape(name)}[\s>]", text, re.MULTILINE)]
        if not starts or not _is_compound(name):
            break
        text = text[: starts[-1]].strip()
    return text


def _is_compound(name: str) -> bool:
    return "_" in name or "-" in name


def _is_one_tag(text: str, name: str) -> bool:
    """Say whether a text is one element; what it quotes may close the tag once more, but not open another."""
    closed = _CLOSE.fullmatch(text, text.rfind("</"))
    if closed is None or closed[1] != name:
        return False
    return len(re.findall(rf"<{re.escape(name)}[\s>]", text)) == 1 or _end_of(text, name) == len(text)


def _end_of(text: str, name: str) -> int:
    """Return where the element that opens a text ends."""
    depth = 0
    last = len(text)
    for tag in re.finditer(rf"<(/?){re.escape(name)}(?:\s[^<>]*)?>", text):
        depth += -1 if tag[1] else 1
        last = tag.end()
        if depth == 0:
            return last
    return len(text) if depth > 0 else last
