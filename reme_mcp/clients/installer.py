"""Entries in the files of clients: add one, take it away, look for it.

In:  a client, its file, an entry.
Out: the file, changed in one step and with what it held before beside it; what was changed.
Does not know: how a file is written inside (`entries.py`), which file a client reads (`clients.py`), terminals.

A file is replaced whole or not at all. One that another program changes meanwhile is read again. A symbolic link is
followed: dotfiles often are links.
"""

from __future__ import annotations

import codecs
import difflib
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from reme_mcp import atomic
from reme_mcp.clients import entry as entrys
from reme_mcp.clients.catalog import CLIENTS, Client, Machine
from reme_mcp.clients.entry import MODULE, PROGRAM, Entry, drop, find, is_before, is_ours, names
from reme_mcp.errors import ClientFileError, InvalidInput

NAME = "reme"
BACKUP_ENDING = ".before-reme-mcp"
# How often a file that changes under our hands is read again.
MAX_TRIES = 5


class _Changed(Exception):
    """Another program has changed the file meanwhile."""


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to a file, or would be.

    Attributes:
        file: As the client names it.
        before: What it held; `None` where it was not there.
        after: What it holds now; `None` where it is gone.
        backup: What it held before is in this file, if it held anything that is not in it now.
        is_undone: It holds what it held before there was an entry.
    """

    file: Path
    before: str | None
    after: str | None
    backup: Path | None
    is_undone: bool = False

    @property
    def is_one(self) -> bool:
        """Whether anything is different."""
        return self.before != self.after

    def diff(self) -> str:
        """Return the difference as a unified diff."""
        lines = difflib.unified_diff(
            (self.before or "").splitlines(keepends=True),
            (self.after or "").splitlines(keepends=True),
            str(self.file) if self.before is not None else "(no file)",
            str(self.file) if self.after is not None else "(no file)",
        )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry in a client's file.

    Attributes:
        client: Whose.
        file: Which.
        name: Of the entry.
        entry: What it says; `None` where the file can't be read.
        trouble: What is wrong with it; empty where nothing is.
    """

    client: Client
    file: Path
    name: str
    entry: Entry | None
    trouble: str


def add(client: Client, file: Path, name: str, entry: Entry, *, dry_run: bool = False) -> Change:
    """Add the entry to a client's file, or bring the one that is there up to date.

    Raises:
        ClientFileError: The file can't be read, understood or written; it is as it was.
    """
    return _change(file, lambda text: entrys.add(text or "", client, name, entry), dry_run=dry_run)


def remove(client: Client, file: Path, name: str, *, dry_run: bool = False) -> Change:
    """Take the entry out of a client's file, so that it is as before `add` if nothing else has changed since.

    Raises:
        ClientFileError: The file can't be read, understood or written; it is as it was.
    """
    backup = _backup_of(file)
    is_undone = False

    def edit(text: str | None) -> str | None:
        nonlocal is_undone
        is_undone = text is not None
        if text is None:
            return None
        kept = _read(backup)
        if kept is not None and is_before(before := _decoded(backup, kept), text, client, name):
            return before
        if is_before("", text, client, name):
            return None
        is_undone = False
        return drop(text, client, name)

    change = _change(file, edit, dry_run=dry_run)
    if not change.is_one or dry_run or not is_undone:
        return change
    # The file itself has what was kept, and nothing but the entry is gone.
    with suppress(OSError):
        backup.unlink()
    return replace(change, backup=None, is_undone=True)


def find_all(machine: Machine, project: Path) -> list[Found]:
    """Return the entries of this server in the files of all clients, those of one project's folder as well."""
    found = []
    for client in CLIENTS:
        files = [client.file(machine, None)]
        if client.project_file and client.file(machine, project) not in files:
            files.append(client.file(machine, project))
        for file in files:
            found += _find(client, file)
    return found


def own_command(started_as: str, interpreter: str) -> Entry:
    """Return how to start this very installation, as absolute paths.

    Args:
        started_as: `sys.argv[0]`.
        interpreter: `sys.executable`.
    """
    if Path(started_as).stem == PROGRAM and (script := shutil.which(started_as)):
        return Entry(os.path.abspath(script))
    if script := shutil.which(PROGRAM, path=str(Path(interpreter).parent)):
        return Entry(os.path.abspath(script))
    # -P: a client starts it in the folder of a project, whose modules are not ours to run.
    return Entry(os.path.abspath(interpreter), ("-P", "-m", MODULE))


def is_passing(command: str) -> bool:
    """Return whether a program lies where `uvx` and `pipx run` put what they throw away again."""
    parts = Path(command).parts
    return "archive-v0" in parts or (".cache" in parts and "pipx" in parts)


def _find(client: Client, file: Path) -> list[Found]:
    try:
        content = _read(file)
        if content is None:
            return []
        text = _decoded(file, content)
        named = [(name, find(text, client, name)) for name in names(text, client)]
    except (InvalidInput, ClientFileError) as exc:
        return [Found(client, file, "", None, str(exc))]
    return [Found(client, file, name, one, _trouble(one)) for name, one in named if one is not None and is_ours(one)]


def _trouble(entry: Entry) -> str:
    if shutil.which(entry.command) is None:
        return f"{entry.command} is not there, or can't be run; `reme-mcp install` again puts it right"
    return ""


# --- files ---


def _change(file: Path, edit: Callable[[str | None], str | None], *, dry_run: bool) -> Change:
    """Replace what a file holds by what `edit` makes of it."""
    target = Path(os.path.realpath(file))
    for _ in range(MAX_TRIES):
        content = _read(target)
        before = None if content is None else _decoded(file, content)
        try:
            after = edit(before)
        except InvalidInput as exc:
            raise ClientFileError(f"can't change {file}: {exc}; it is left as it is") from exc
        if after == before or dry_run:
            return Change(file, before, after, None)
        try:
            backup = None if content is None else _keep(file, target, content)
            if _replace(target, content, after):
                return Change(file, before, after, backup)
        except OSError as exc:
            raise ClientFileError(f"can't write {file}: {exc.strerror or exc}; it is left as it is") from exc
    raise ClientFileError(f"can't change {file}: another program keeps changing it; close its client and try again")


def _replace(target: Path, content: bytes | None, after: str | None) -> bool:
    """Put `after` in the place of `content`, unless something else is there by now; return whether it was done."""
    if after is None:
        if _read(target) != content:
            return False
        target.unlink()
        return True
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = codecs.BOM_UTF8 if content is not None and content.startswith(codecs.BOM_UTF8) else b""
    try:
        with atomic.replacing(target) as part:
            atomic.create(part, mark + after.encode(), 0o666 if content is None else 0o600)
            atomic.sync(part)
            if content is not None:
                _like(target, part)
            if _read(target) != content:
                raise _Changed
    except _Changed:
        return False
    return True


def _keep(file: Path, target: Path, content: bytes) -> Path:
    """Write what the file held beside it, readable by the same people; the newest such copy is kept."""
    backup = _backup_of(file)
    with atomic.replacing(backup) as part:
        atomic.create(part, content)
        _like(target, part)
    return backup


def _like(target: Path, part: Path) -> None:
    """Give a file the mode of another, and its owner where that is allowed: `sudo` must not take a file away."""
    shutil.copymode(target, part)
    if sys.platform != "win32":
        with suppress(PermissionError):
            os.chown(part, target.stat().st_uid, target.stat().st_gid)


def _backup_of(file: Path) -> Path:
    target = Path(os.path.realpath(file))
    return target.with_name(target.name + BACKUP_ENDING)


def _read(file: Path) -> bytes | None:
    """Return what a file holds; `None` where there is none."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise ClientFileError(f"can't read {file}: {exc.strerror or exc}") from exc


def _decoded(file: Path, content: bytes) -> str:
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as exc:
        raise ClientFileError(f"can't read {file}: it is not UTF-8 (byte {exc.start + 1})") from exc
