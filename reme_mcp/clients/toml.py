"""TOML, changed in one table: every other byte stays. The only file that imports `tomlkit`.

In:  a text, the keys that lead to a table in it, what the table is to hold.
Out: the text with that table, or without it.
Does not know: files, clients.

A new table goes to the end of the text and an unwanted one is cut out line by line, because `tomlkit` counts the
comment above the next table as part of the one before. What can't be done so (inline tables, dotted keys, a change
inside a table) it does. Whatever an edit does, its result is read again and compared with what was meant.

Source: TOML 1.0.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial

from reme_mcp.errors import InvalidInput

HEADER = re.compile(r"[ \t]*\[")


def read(text: str) -> dict[str, object]:
    """Return what a text holds.

    Raises:
        InvalidInput: It is no TOML; the message says where and why.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise InvalidInput(str(exc) or "it is nested too deeply") from exc


def put(text: str, path: Sequence[str], values: Mapping[str, object]) -> str:
    """Return the text with these values in the table at `path`; what else the table holds stays.

    Args:
        text: Without a byte order mark.
        path: Keys, the outermost first; at least one.
        values: Texts and lists of texts.

    Raises:
        InvalidInput: It can't be read, something on the way is not a table, or it can't be changed safely.
    """
    found = read(text)
    meant = deepcopy(found)
    inner = meant
    for key in path:
        inner = _table(inner.setdefault(key, {}), key)
    is_new = not inner
    inner.update(values)
    if meant == found:
        return text
    by_line = [partial(_appended, text, path, values)] if is_new else []
    return _first_that_means(meant, [*by_line, partial(_set, text, path, values)])


def remove(text: str, path: Sequence[str]) -> str:
    """Return the text without the table at `path`; as it is, if there is none.

    Raises:
        InvalidInput: It can't be read, something on the way is not a table, or it can't be changed safely.
    """
    meant = read(text)
    inner = meant
    for key in path[:-1]:
        if key not in inner:
            return text
        inner = _table(inner[key], key)
    if path[-1] not in inner:
        return text
    del inner[path[-1]]
    by_line = [partial(_without, *one) for one in _cuts(text, path)]
    return _first_that_means(meant, [*by_line, partial(_deleted, text, path)])


def _first_that_means(meant: Mapping[str, object], candidates: Sequence[Callable[[], str]]) -> str:
    from tomlkit.exceptions import TOMLKitError

    for candidate in candidates:
        try:
            changed = candidate()
            found = tomllib.loads(changed)
        except (tomllib.TOMLDecodeError, TOMLKitError):
            continue
        if _without_empty(found) == _without_empty(meant):
            return changed
    raise InvalidInput("it is written in a way that can't be changed safely; change it by hand")


def _without_empty(table: Mapping[str, object]) -> dict[str, object]:
    """Return the table without empty ones in it: the last table that goes may take the one around it along."""
    pairs = {key: _without_empty(value) if isinstance(value, dict) else value for key, value in table.items()}
    return {key: value for key, value in pairs.items() if value != {}}


def _table(value: object, key: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise InvalidInput(f'"{key}" is {value!r}, not a table')
    return value


# --- line by line ---


def _appended(text: str, path: Sequence[str], values: Mapping[str, object]) -> str:
    import tomlkit

    table = tomlkit.table()
    table.update(values)
    body = tomlkit.dumps(table)
    gap = "" if not text.strip() else "\n" if text.endswith("\n") else "\n\n"
    return text + _like(text, f"{gap}[{'.'.join(_key(key) for key in path)}]\n{body}")


def _cuts(text: str, path: Sequence[str]) -> list[tuple[list[str], list[tuple[int, int]]]]:
    """Return the lines, and which to cut: from the table's header to its last value, and those of tables in it.

    What looks like a header may be part of a text over several lines, so some of them are left out, too.
    """
    lines = text.splitlines(keepends=True)
    runs: list[tuple[int, int]] = []
    inside = False
    for number, line in enumerate(lines):
        if HEADER.match(line):
            inside = _leads_to(line, path)
            if inside:
                # With the empty line above it, as `_appended` wrote it.
                start = number - 1 if number and not lines[number - 1].strip() else number
                runs.append((start, number + 1))
        if inside and line.strip() and not line.lstrip().startswith("#"):
            runs[-1] = (runs[-1][0], number + 1)
    spans = [(start, end) for start in range(len(runs)) for end in range(len(runs), start, -1)]
    return [(lines, runs[start:end]) for start, end in spans]


def _without(lines: Sequence[str], runs: Sequence[tuple[int, int]]) -> str:
    cut = {number for start, end in runs for number in range(start, end)}
    return "".join(line for number, line in enumerate(lines) if number not in cut)


def _leads_to(line: str, path: Sequence[str]) -> bool:
    """Return whether a header is that of the table at `path` or of one inside it."""
    try:
        found: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return False
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return False
        found = found[key]
    return True


# --- with tomlkit ---


def _set(text: str, path: Sequence[str], values: Mapping[str, object]) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    inner = document
    for key in path:
        inner = inner.setdefault(key, {})
    for key, value in values.items():
        if inner.get(key) != value:
            inner[key] = value
    return _like(text, tomlkit.dumps(document))


def _deleted(text: str, path: Sequence[str]) -> str:
    import tomlkit

    document = tomlkit.parse(text)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return _like(text, tomlkit.dumps(document))


def _key(name: str) -> str:
    import tomlkit

    return tomlkit.key(name).as_string()


def _like(text: str, changed: str) -> str:
    """Return what was changed with the line ends that the text has."""
    return re.sub(r"\r?\n", "\r\n", changed) if "\r\n" in text else changed
