"""`doctor`: one page that says what works and what does not."""

from __future__ import annotations

import dataclasses
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
import click
from pydantic import BaseModel, Field

from reme_mcp import __version__
from reme_mcp.aio import in_daemon_thread
from reme_mcp.cli import last_error
from reme_mcp.cli.options import Choice
from reme_mcp.cli.output import as_json_option, examples, to_json
from reme_mcp.cli.permissions import exposed
from reme_mcp.cli.screen import show_beside
from reme_mcp.clients import entry, installer
from reme_mcp.clients.catalog import Machine, this_machine
from reme_mcp.config.settings import EmbedderSettings, LLMSettings
from reme_mcp.errors import ConfigError, EmbedderError, EndpointError, InvalidInput, StoreError
from reme_mcp.models.embedder import load_embedder
from reme_mcp.models.llm import EndpointLLM
from reme_mcp.models.usage import Allowance
from reme_mcp.schema import Spent, Status
from reme_mcp.store import folder
from reme_mcp.store.location import Bucket, Folder, count_rows, location_of
from reme_mcp.store.migrations import SCHEMA_VERSION
from reme_mcp.store.store import Store
from reme_mcp.text.plural import many


@click.command(
    epilog=examples(
        "reme-mcp doctor",
        "reme-mcp doctor --ask-model                 ask the model behind the server for one word",
        "reme-mcp doctor --json | jq '.[].state'",
    )
)
@click.option("--ask-model", is_flag=True, help="Ask the model behind the server for one word, which it may charge.")
@as_json_option
@click.pass_obj
def doctor(choice: Choice, ask_model: bool, as_json: bool) -> None:
    """Say what works and what does not.

    Version, settings, files that others can read, home and pool, embedder, the model behind the server, the clients
    that have the entry, the last error: each is ok, off (not asked for), worth a note, or broken. Exit status 1 if
    anything is broken. Nothing is changed, made or fetched.
    """
    import anyio

    async def run() -> list[Finding]:
        return [one async for one in examine(choice, os.environ, this_machine(), Path.cwd(), ask_model=ask_model)]

    try:
        findings = anyio.run(run)
    except InvalidInput as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        click.echo(to_json([dataclasses.asdict(one) for one in findings]))
    else:
        shown = [(one.state, one.what, f"{one.says}\n{f'→ {one.do}' if one.do else ''}".strip()) for one in findings]
        show_beside(shown, piped=[(one.state, one.what, one.says, one.do) for one in findings])
    if any(one.state == "broken" for one in findings):
        sys.exit(1)


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
        location = location_of(settings.home, settings.storage)
        async for finding in _of_home(location.path) if isinstance(location, Folder) else _of_bucket(location):
            yield finding
        yield await _of_embedder(settings.embedder)
        async for finding in _of_llm(settings.llm, ask_model=ask_model):
            yield finding
        if (last := last_error.read(settings.own_folder)) is not None:
            yield Finding("last error", "note", f"{last.at:%Y-%m-%d %H:%M} UTC, {last.level.lower()}: {last.message}")
        if said := last_error.said_by_child(settings.own_folder):
            yield Finding("hook", "note", f"the last process that recorded a session said: {said}")
    for finding in _of_clients(machine, project):
        yield finding


# --- the home and its tables ---


async def _of_home(home: Path) -> AsyncIterator[Finding]:
    try:
        if folder.is_free(home):
            yield Finding("home", "note", f"{home} holds no pool yet; the first start makes it")
            return
        mark = folder.whole_marker(home, schema=SCHEMA_VERSION)
        said = f"{home}, {_size(home)}, {_backups(home)}"
        if os.access(home, os.W_OK):
            yield Finding("home", "ok", said)
        else:
            yield Finding("home", "note", f"{said}; it can't be written: recall works, nothing is recorded")
        for name in folder.pools(home):
            if name != mark.pool:
                yield Finding(
                    "other pool",
                    "note",
                    f"{name} holds tables, too, and is not in use; remove it, or take it",
                    f"reme-mcp restore-backup --force {name}",
                )
        if mark.schema < SCHEMA_VERSION:
            yield Finding(
                "pool",
                "note",
                f"its schema is {mark.schema}; the next start brings it to {SCHEMA_VERSION}, with a backup",
            )
            return
        if not folder.has_tables(home / mark.pool):
            yield Finding("pool", "note", "it has no tables yet; the first call makes them")
            return
        store = await Store.open(home)
    except StoreError as exc:
        # A backup is no way out of what is whole and can't be reached, or read by this version.
        yield Finding("home", "broken", str(exc), _way_back(home) if isinstance(exc, folder.DamagedHome) else "")
        return
    try:
        # To open it reads a part of each file; this reads all of them to the end.
        await count_rows(home / mark.pool)
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
        mark = await bucket.read_marker(schema=SCHEMA_VERSION)
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
            f"trajectories: {trajectories['success'] + trajectories['failure']}; receipts: {receipts['recalls']}",
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
    awaiting = await store.awaiting()
    if awaiting:
        yield Finding(
            "attempts",
            "note",
            f"{len(awaiting)} have taught nothing yet: without a model in [llm], an assistant or a person writes the "
            "lessons; with the plugin for Claude Code, each session is asked for those of one",
            "reme-mcp attempts",
        )
    waiting = await store.queued()
    troubled = [one for one in waiting if one.trouble]
    if troubled:
        latest = max(troubled, key=lambda one: one.updated_at)
        yield Finding(
            "queue",
            "note",
            f"waiting for the model: {many(len(waiting), 'attempt')}; the latest trouble: {latest.trouble}",
            "reme-mcp queue",
        )
    elif waiting:
        yield Finding("queue", "ok", f"waiting for the model: {many(len(waiting), 'attempt')}")


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
    number = len(list((home / folder.BACKUPS).glob("*.zip")))
    return many(number, "backup")


def _way_back(home: Path) -> str:
    newest = max((home / folder.BACKUPS).glob("*.zip"), key=lambda file: file.stat().st_mtime, default=None)
    return f"reme-mcp restore-backup --force {'FILE' if newest is None else newest.name}"


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
    llm = EndpointLLM(settings, Allowance(0), spent.append, patient=False)
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
    found = installer.find_all(machine, project)
    if not any(one.entry is not None for one in found):
        lonely = [Finding("client", "note", "none has the entry", "reme-mcp install CLIENT")]
    else:
        lonely = []
    return [
        Finding(
            one.client.name,
            # Whether a file that can't be read has the entry is not known.
            "note" if one.entry is None else "broken" if one.trouble else "ok",
            f"{one.file}: {one.trouble}" if one.entry is None else f"{one.file}, {one.name}: {entry.typed(one.entry)}",
            "" if one.entry is None else one.trouble,
        )
        for one in found
    ] + lonely
