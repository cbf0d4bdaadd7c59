"""The entry by which a client starts this server: text of its file in, text out.

In:  the text of a client's file, the client, the entry.
Out: the text with the entry, or without it; the entry that it holds.
Does not know: where the file is, or how it is read and written.

What else stands in an entry, such as a timeout or what its user has switched off, stays there.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from reme_mcp.clients import jsonc, toml
from reme_mcp.clients.catalog import Client
from reme_mcp.errors import InvalidInput

# Claude Code and Codex take no other; models see it in the names of tools.
NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")
PROGRAM = "reme-mcp"
MODULE = "reme_mcp"
# Of a server that is not started but reached over the network, under the names that clients have for it.
ADDRESS_KEYS = ("url", "serverUrl", "httpUrl")


@dataclass(frozen=True, slots=True)
class Entry:
    """How a client starts the server.

    Attributes:
        command: The program, as an absolute path.
        args: What it is given.
    """

    command: str
    args: tuple[str, ...] = ()


def find(text: str, client: Client, name: str) -> Entry | None:
    """Return the entry called `name`, `None` where there is none that starts a program.

    Raises:
        InvalidInput: The text can't be read.
    """
    found = _fields(text, client, name)
    if found is None or not isinstance(found.get("command"), str):
        return None
    args = found.get("args")
    return Entry(str(found["command"]), tuple(str(one) for one in args) if isinstance(args, list) else ())


def names(text: str, client: Client) -> list[str]:
    """Return what the servers in the text are called.

    Raises:
        InvalidInput: The text can't be read.
    """
    servers = _read(text, client).get(client.servers)
    return list(servers) if isinstance(servers, dict) else []


def add(text: str, client: Client, name: str, entry: Entry) -> str:
    """Return the text with the entry; the very same if it holds it already.

    Raises:
        InvalidInput: The text can't be read or changed, the name is none that every client takes, or an entry of that
            name is a server on the network.
    """
    if NAME_PATTERN.fullmatch(name) is None:
        raise InvalidInput(f"--name is {name!r}; it must be 1 to 64 of A-Z a-z 0-9 _ -")
    fields = _fields(text, client, name)
    if fields is not None and (key := next((key for key in ADDRESS_KEYS if key in fields), None)):
        raise InvalidInput(
            f'"{name}" is there already, with {key} {fields[key]!r}; remove it, or choose another --name'
        )
    if (there := find(text, client, name)) is not None and not is_ours(there):
        raise InvalidInput(f'"{name}" is there already, and starts {there.command}; choose another --name')
    values = shape(client, entry)
    if client.form == "toml":
        return toml.put(text, (client.servers, name), values)
    comments = client.form == "jsonc"
    if not text.strip():
        return json.dumps({client.servers: {name: values}}, indent=2, ensure_ascii=False) + "\n"
    if fields is None:
        return jsonc.put(text, (client.servers, name), values, comments=comments)
    for key, value in values.items():
        text = jsonc.put(text, (client.servers, name, key), value, comments=comments)
    return text


def drop(text: str, client: Client, name: str) -> str:
    """Return the text without the entry; the very same if it holds none.

    Raises:
        InvalidInput: The text can't be read or changed, or what is called so starts another program.
    """
    if not text.strip():
        return text
    if (there := find(text, client, name)) is not None and not is_ours(there):
        raise InvalidInput(f'"{name}" starts {there.command}, not this program; take it out by hand')
    if client.form == "toml":
        return toml.remove(text, (client.servers, name))
    return jsonc.remove(text, (client.servers, name), comments=client.form == "jsonc")


def is_ours(entry: Entry) -> bool:
    """Return whether an entry starts this program, wherever it is installed and whatever starts it."""
    return MODULE in entry.args or any(
        Path(word.replace("\\", "/")).stem == PROGRAM for word in (entry.command, *entry.args)
    )


def is_before(before: str, text: str, client: Client, name: str) -> bool:
    """Return whether adding an entry to `before` is all that has happened to it until it became `text`.

    Raises:
        InvalidInput: `text` can't be read.
    """
    entry = find(text, client, name)
    if entry is None or not is_ours(entry):
        return False
    try:
        return name not in names(before, client) and add(before, client, name, entry) == text
    except InvalidInput:
        return False


def shape(client: Client, entry: Entry) -> dict[str, object]:
    """Return the entry as the client writes it."""
    kind: dict[str, object] = {"type": "stdio"} if client.has_type else {}
    return kind | {"command": entry.command, "args": list(entry.args)}


def alone(client: Client, name: str, entry: Entry) -> str:
    """Return the text of a file that holds nothing but the entry."""
    return add("", client, name, entry)


def typed(entry: Entry | None) -> str:
    """Return how a person would type the command."""
    return "" if entry is None else shlex.join((entry.command, *entry.args))


def _read(text: str, client: Client) -> dict[str, object]:
    if client.form == "toml":
        return toml.read(text)
    return jsonc.read(text, comments=client.form == "jsonc") if text.strip() else {}


def _fields(text: str, client: Client, name: str) -> dict[str, object] | None:
    """Return what stands in the entry called `name`; `None` where there is none."""
    servers = _read(text, client).get(client.servers)
    found = servers.get(name) if isinstance(servers, dict) else None
    return found if isinstance(found, dict) else None
