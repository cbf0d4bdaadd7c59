"""What works and what does not: the findings that `doctor` shows.

In:  what was chosen on the command line, the environment, the machine.
Out: findings, in the order of what builds on what.
Does not know: terminals.

It looks and changes nothing: a home that is not there is not made, one of an older version is not upgraded.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Literal

import anyio
from pydantic import BaseModel, Field

from reme_mcp import __version__, entries, install, lasterror
from reme_mcp import home as homes
from reme_mcp.choice import Choice
from reme_mcp.clients import Machine
from reme_mcp.config import EmbedderSettings, LLMSettings
from reme_mcp.costs import Allowance, Spent
from reme_mcp.embed import load_embedder
from reme_mcp.errors import ConfigError, EmbedderError, EndpointError, StoreError
from reme_mcp.exposure import exposed
from reme_mcp.llm import EndpointLLM
from reme_mcp.schema import Status
from reme_mcp.site import Bucket, Folder, site_of
from reme_mcp.store import Store
from reme_mcp.upgrades import SCHEMA_VERSION
from reme_mcp.vectors import in_daemon_thread

# `off` was not asked for; a `note` is worth knowing, but nothing is broken.
State = Literal["ok", "off", "note", "broken"]

EMBEDDER_DEADLINE_S = 30.0
LLM_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the page.

    Attributes:
        what: What was looked at.
        state: How it is.
        says: What was found.
        do: What to do about it; empty where nothing.
    """

    what: str
    state: State
    says: str
    do: str = ""


class Greeting(BaseModel):
    """The smallest form that a model can fill in; small ones write on until they are stopped."""

    word: Annotated[str, Field(max_length=20)]


async def examine(
    choice: Choice, environ: Mapping[str, str], machine: Machine, project: Path, *, ask_model: bool
) -> AsyncIterator[Finding]:
    """Look at everything, and yield what was found.

    Args:
        choice: Of the command line.
        environ: The environment.
        machine: Whose clients are looked at.
        project: Whose clients' files are looked at as well.
        ask_model: Whether the model behind the server is asked one small question; that may cost something.
    """
    yield Finding("version", "ok", f"{__version__}, Python {platform.python_version()}, {sys.platform}")
    file = choice.file(environ)
    try:
        settings = choice.settings(environ)
    except ConfigError as exc:
        yield Finding("settings", "broken", str(exc), "correct it; nothing starts before that")
    else:
        yield Finding("settings", "ok", str(file) if file.exists() else f"the defaults ({file} is not there)")
        for one in exposed(settings, file):
            yield Finding("files", "note", f"{one.path} {one.why}, and other users can read it", one.do)
        site = site_of(settings.home, settings.storage)
        async for finding in _of_home(site.path) if isinstance(site, Folder) else _of_bucket(site):
            yield finding
        yield await _of_embedder(settings.embedder)
        async for finding in _of_llm(settings.llm, ask_model=ask_model):
            yield finding
        if (last := lasterror.read(settings.own_folder)) is not None:
            yield Finding("last error", "note", f"{last.at:%Y-%m-%d %H:%M} UTC, {last.level.lower()}: {last.message}")
    for finding in _of_clients(machine, project):
        yield finding


# --- the home and its tables ---


async def _of_home(home: Path) -> AsyncIterator[Finding]:
    try:
        if homes.is_free(home):
            yield Finding("home", "note", f"{home} holds no pool yet; the first start makes it")
            return
        mark = homes.read_mark(home, schema=SCHEMA_VERSION)
        said = f"{home}, {_size(home)}, {_backups(home)}"
        if os.access(home, os.W_OK):
            yield Finding("home", "ok", said)
        else:
            yield Finding("home", "note", f"{said}; it can't be written: recall works, nothing is recorded")
        if mark.schema < SCHEMA_VERSION:
            yield Finding(
                "pool",
                "note",
                f"its schema is {mark.schema}; the next start brings it to {SCHEMA_VERSION}, with a backup",
            )
            return
        if not (home / mark.pool).is_dir():
            yield Finding("pool", "note", "it has no tables yet; the first call makes them")
            return
        store = await Store.open(home)
    except StoreError as exc:
        yield Finding("home", "broken", str(exc), _way_back(home))
        return
    try:
        async for finding in _of_tables(store):
            yield finding
    except StoreError as exc:
        yield Finding("pool", "broken", str(exc), _way_back(home))
    finally:
        store.close()


async def _of_bucket(bucket: Bucket) -> AsyncIterator[Finding]:
    try:
        if await bucket.is_free():
            yield Finding("home", "note", f"{bucket} holds no pool yet; the first start makes it")
            return
        mark = await bucket.read_mark(schema=SCHEMA_VERSION)
        yield Finding("home", "ok", f"{bucket}, shared by all who have its address; no backups are made of it")
        if mark.schema < SCHEMA_VERSION:
            yield Finding("pool", "note", f"its schema is {mark.schema}; the next start brings it to {SCHEMA_VERSION}")
            return
        store = await Store.open(bucket)
    except StoreError as exc:
        yield Finding("home", "broken", str(exc))
        return
    try:
        async for finding in _of_tables(store):
            yield finding
    except StoreError as exc:
        yield Finding("pool", "broken", str(exc))
    finally:
        store.close()


async def _of_tables(store: Store) -> AsyncIterator[Finding]:
    names = await store.workspaces()
    for name in names:
        experiences = await store.count(name)
        trajectories = await store.count_trajectories(name)
        receipts = await store.receipts.count(name)
        # Reading some of it is the proof that it can be read.
        await store.page(name, statuses=None, offset=0, limit=100)
        yield Finding(
            "pool",
            "ok",
            f"workspace {name}: experiences: {_counted(experiences)}; "
            f"trajectories: {sum(trajectories.values())}; receipts: {sum(receipts.values())}",
        )
        if "quarantined" in experiences:
            yield Finding(
                "review",
                "note",
                f"workspace {name}: {experiences['quarantined']} held back until a person has read it",
                f"reme-mcp --workspace {name} review",
            )
    if not names:
        yield Finding("pool", "ok", "it can be read, and holds no experience yet")
    waiting = await store.queued()
    troubled = [one for one in waiting if one.trouble]
    if troubled:
        latest = max(troubled, key=lambda one: one.updated_at)
        yield Finding(
            "queue",
            "note",
            f"{len(waiting)} wait for the model; the latest trouble: {latest.trouble}",
            "reme-mcp queue",
        )
    elif waiting:
        yield Finding("queue", "ok", f"{len(waiting)} wait for the model")


def _counted(numbers: Mapping[Status, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in numbers.items() if count) or "none"


def _size(home: Path) -> str:
    size = 0
    for file in home.rglob("*"):
        # What a client at work has just compacted away is not there any more.
        with suppress(OSError):
            size += file.stat().st_size
    return f"{size / 1e6:.1f} MB"


def _backups(home: Path) -> str:
    number = len(list((home / homes.BACKUPS).glob("*.zip")))
    return f"{number} backup{'' if number == 1 else 's'}"


def _way_back(home: Path) -> str:
    newest = max((home / homes.BACKUPS).glob("*.zip"), key=lambda file: file.stat().st_mtime, default=None)
    return "" if newest is None else f"reme-mcp restore-backup --force {newest.name}"


# --- the models ---


async def _of_embedder(settings: EmbedderSettings) -> Finding:
    if settings.provider == "none":
        return Finding("embedder", "off", "none; recall goes by words")
    started = monotonic()

    def load() -> str:
        embedder = load_embedder(settings, False)
        assert embedder is not None
        dim = embedder.embed(["hello"]).shape[1]
        return f"{embedder.name}, {dim} dimensions, loaded in {monotonic() - started:.1f} s"

    try:
        with anyio.fail_after(EMBEDDER_DEADLINE_S):
            return Finding("embedder", "ok", await in_daemon_thread(load))
    except TimeoutError:
        return Finding("embedder", "note", f"{settings.model} is still loading after {EMBEDDER_DEADLINE_S:g} s")
    except EmbedderError as exc:
        if settings.provider == "fastembed" and not settings.path:
            return Finding("embedder", "note", f"recall goes by words: {exc}")
        return Finding("embedder", "broken", str(exc), "recall goes by words meanwhile")


async def _of_llm(settings: LLMSettings, *, ask_model: bool) -> AsyncIterator[Finding]:
    if not settings.base_url:
        yield Finding("model", "off", "none behind the server; the assistant writes the lessons itself")
        return
    spent: list[Spent] = []
    once = settings.model_copy(update={"max_attempts": 1, "max_retries": 0})
    llm = EndpointLLM(once, Allowance(0), spent.append)
    where = f"{settings.model} at {settings.base_url}"
    try:
        with anyio.fail_after(LLM_DEADLINE_S):
            names = await llm.listed()
        if names is None:
            yield Finding("model", "ok", f"{where}: the server is there; it lists no models")
        elif settings.model in names:
            yield Finding("model", "ok", f"{where}: the server is there and has it")
        else:
            has = f"it has {', '.join(names[:5])}{' and more' if len(names) > 5 else ''}" if names else "it has none"
            yield Finding("model", "note", f"{where}: the server is there, but does not list it; {has}")
        if ask_model:
            started = monotonic()
            said = await llm.answer("judge", "Answer with one word.", "Greet me.", Greeting)
            cost = spent[0].tokens_in + spent[0].tokens_out
            yield Finding("answer", "ok", f"{said.word!r} after {monotonic() - started:.1f} s, {cost} tokens")
    except TimeoutError:
        yield Finding("model", "broken", f"{where} did not answer within {LLM_DEADLINE_S:g} s", "see [llm]")
    except EndpointError as exc:
        yield Finding("model", "broken", str(exc), "see [llm] base_url, model and api_key")
    finally:
        await llm.close()


# --- the clients ---


def _of_clients(machine: Machine, project: Path) -> list[Finding]:
    found = install.find_all(machine, project)
    if not any(one.entry is not None for one in found):
        lonely = [Finding("client", "note", "none has the entry", "reme-mcp install CLIENT")]
    else:
        lonely = []
    return [
        Finding(
            one.client.name,
            # Whether a file that can't be read has the entry is not known.
            "note" if one.entry is None else "broken" if one.trouble else "ok",
            one.trouble if one.entry is None else f"{one.file}, {one.name}: {entries.typed(one.entry)}",
            "" if one.entry is None else one.trouble,
        )
        for one in found
    ] + lonely
