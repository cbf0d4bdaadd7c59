"""JSON, with or without comments, changed in one place: every other byte stays.

In:  a text, the keys that lead to a place in it, a value.
Out: the text with that value there, or without it.
Does not know: files, clients.

Comments and trailing commas are blanked out first; what is left is read by `json`, which also says where each value
ends. Whatever an edit does, its result is read again and compared with what was meant. (The libraries on PyPI that
keep comments parse a text into a tree of their own and print that, or are alpha; none leaves the rest untouched.)

Source: RFC 8259; the dialect of VS Code's `jsonc-parser`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from reme_mcp.errors import InvalidInput

STRING = r'"(?:[^"\\\n]|\\.)*"'
COMMENT = re.compile(rf"({STRING})|//[^\n]*|/\*.*?\*/", re.DOTALL)
TRAILING_COMMA = re.compile(rf"({STRING})|(?<=[^\s,\[{{:])(\s*),(?=\s*[}}\]])")
LINE_END = re.compile(r"[ \t]*\r?\n")
NOT_BLANK = re.compile(r"[^\n\r\t ]")


@dataclass(frozen=True, slots=True)
class _Member:
    """Where a member of an object stands: its key begins at `start`, its value at `value`, and both end at `end`."""

    key: str
    start: int
    value: int
    end: int


def read(text: str, *, comments: bool) -> dict[str, object]:
    """Return the object that a text holds.

    Args:
        text: Without a byte order mark.
        comments: Whether comments and trailing commas are allowed.

    Raises:
        InvalidInput: It is no such text; the message says where and why.
    """
    try:
        found = json.loads(_plain(text, comments), object_pairs_hook=_without_doubles, parse_constant=_no_number)
    except json.JSONDecodeError as exc:
        more = "" if comments else " (comments and trailing commas are not allowed in this file)"
        raise InvalidInput(f"line {exc.lineno}, column {exc.colno}: {exc.msg}{more}") from exc
    except RecursionError as exc:
        raise InvalidInput("it is nested too deeply") from exc
    if not isinstance(found, dict):
        raise InvalidInput(f"it holds {_kind(found)}, not an object")
    return found


def put(text: str, path: Sequence[str], value: object, *, comments: bool) -> str:
    """Return the text with `value` at `path`; objects on the way that are missing are made.

    Args:
        text: As for `read`.
        path: Keys, the outermost first; at least one.
        value: Anything that JSON can hold.
        comments: As for `read`.

    Raises:
        InvalidInput: It can't be read, or something on the way is not an object.
    """
    meant = read(text, comments=comments)
    inner = meant
    for key in path[:-1]:
        inner = _object(inner.setdefault(key, {}), key)
    if path[-1] in inner and inner[path[-1]] == value:
        return text
    inner[path[-1]] = value
    plain = _plain(text, comments)
    start = end = _skip(plain, 0)
    for depth, key in enumerate(path):
        members, close = _members(plain, start)
        place = next(((one.value, one.end) for one in members if one.key == key), None)
        if place is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _checked(_inserted(text, comments, start, members, close, key, value), meant, comments)
        start, end = place
    indent = _indent(text, start) if "\n" in text[start:end] else None
    return _checked(text[:start] + _rendered(text, value, indent) + text[end:], meant, comments)


def remove(text: str, path: Sequence[str], *, comments: bool) -> str:
    """Return the text without the value at `path`; as it is, if there is none.

    Raises:
        InvalidInput: It can't be read, or something on the way is not an object.
    """
    meant = read(text, comments=comments)
    inner = meant
    plain = _plain(text, comments)
    start = _skip(plain, 0)
    for key in path[:-1]:
        if key not in inner:
            return text
        inner = _object(inner[key], key)
        start = next(one.value for one in _members(plain, start)[0] if one.key == key)
    if path[-1] not in inner:
        return text
    del inner[path[-1]]
    members, close = _members(plain, start)
    return _checked(_cut(text, comments, start, members, close, path[-1]), meant, comments)


# --- where things stand ---


def _plain(text: str, comments: bool) -> str:
    """Return the text as plain JSON of the same length."""
    return TRAILING_COMMA.sub(lambda found: found[1] or f"{found[2]} ", _bare(text)) if comments else text


def _bare(text: str) -> str:
    """Return the text with its comments blanked out."""
    return COMMENT.sub(lambda found: found[1] or NOT_BLANK.sub(" ", found[0]), text)


def _skip(plain: str, at: int) -> int:
    found = NOT_BLANK.search(plain, at)
    return found.start() if found else len(plain)


def _members(plain: str, start: int) -> tuple[list[_Member], int]:
    """Return the members of the object that begins at `start`, and where its brace is closed."""
    decoder = json.JSONDecoder()
    members: list[_Member] = []
    at = _skip(plain, start + 1)
    while plain[at] != "}":
        key, after = decoder.raw_decode(plain, at)
        value = _skip(plain, _skip(plain, after) + 1)
        _, end = decoder.raw_decode(plain, value)
        members.append(_Member(key, at, value, end))
        at = _skip(plain, end)
        if plain[at] == ",":
            at = _skip(plain, at + 1)
    return members, at


def _indent(text: str, at: int) -> str:
    """Return the blanks that the line of `at` begins with."""
    line = text[text.rfind("\n", 0, at) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _starts_line(text: str, at: int) -> bool:
    return not text[text.rfind("\n", 0, at) + 1 : at].strip()


def _unit(text: str) -> str:
    """Return one step of indentation, as the text has it."""
    found = re.search(r"\n([ \t]+)\S", text)
    return found[1] if found else "  "


# --- edits ---


def _inserted(
    text: str, comments: bool, start: int, members: Sequence[_Member], close: int, key: str, value: object
) -> str:
    """Return the text with a new last member in the object from `start` to `close`, in the style of the others."""
    bare = _bare(text) if comments else text
    end = start + 1 + len(text[start + 1 : close].rstrip())
    has_trailing_comma = bool(members) and "," in bare[members[-1].end : close]
    if "\n" in text[start:close] or (not members and ("\n" in text or text[:start].strip() == "")):
        newline = "\r\n" if "\r\n" in text else "\n"
        outer = _indent(text, start)
        on_own_line = bool(members) and _starts_line(text, members[0].start)
        indent = _indent(text, members[0].start) if on_own_line else outer + _unit(text)
        piece = newline + indent + f"{json.dumps(key, ensure_ascii=False)}: {_rendered(text, value, indent)}"
        tail = "" if "\n" in text[end:close] else newline + outer
    else:
        piece = (" " if members else "") + f"{json.dumps(key, ensure_ascii=False)}: {_rendered(text, value, None)}"
        tail = ""
    if not members:
        return text[:end] + piece + tail + text[end if tail == "" else close :]
    comma = "" if has_trailing_comma else ","
    after = "," if has_trailing_comma else ""
    last = members[-1].end
    return text[:last] + comma + text[last:end] + piece + after + tail + text[end if tail == "" else close :]


def _cut(text: str, comments: bool, start: int, members: Sequence[_Member], close: int, key: str) -> str:
    """Return the text without one member, its comma, and the blanks that only it needed."""
    bare = _bare(text) if comments else text
    place = next(number for number, one in enumerate(members) if one.key == key)
    member = members[place]
    if place + 1 < len(members):
        after = bare.index(",", member.end) + 1
        line_end = LINE_END.match(text, after)
        if line_end and _starts_line(text, member.start):
            return text[: text.rfind("\n", 0, member.start) + 1] + text[line_end.end() :]
        return text[: member.start] + text[_skip(text, after) :]
    end = member.end
    if "," in bare[member.end : close]:
        end = bare.index(",", member.end) + 1
    before = len(text[: member.start].rstrip())
    if bare[before - 1].isspace() and not LINE_END.match(text, end):
        # A comment ends there, and may need the end of its line.
        before = member.start
    if place and end == member.end:
        comma = bare.index(",", members[place - 1].end)
        return text[:comma] + text[comma + 1 : before] + text[end:]
    if not place and not (text[start + 1 : before] + text[end:close]).strip():
        return text[: start + 1] + text[close:]
    return text[:before] + text[end:]


def _rendered(text: str, value: object, indent: str | None) -> str:
    """Return a value as JSON, over several lines in the style of the text unless `indent` is `None`."""
    if indent is None:
        return json.dumps(value, ensure_ascii=False)
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = json.dumps(value, ensure_ascii=False, indent=_unit(text)).split("\n")
    return f"{newline}{indent}".join(lines)


def _checked(changed: str, meant: dict[str, object], comments: bool) -> str:
    if read(changed, comments=comments) != meant:
        raise InvalidInput("it is written in a way that can't be changed safely; change it by hand")
    return changed


# --- what is no JSON ---


def _object(value: object, key: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f'"{key}" is {_kind(value)}, not an object')
    return value


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise InvalidInput(f'"{double}" stands twice in one object')
    return found


def _no_number(name: str) -> NoReturn:
    raise InvalidInput(f"{name} is no JSON")


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case list():
            return "a list"
        case str():
            return "text"
    return "a number"
