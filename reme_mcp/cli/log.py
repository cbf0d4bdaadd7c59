"""Who changed what: `log`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from reme_mcp.auth.tokens import Tokens, duration, tokens_of
from reme_mcp.cli.output import as_json_option, examples, short, to_json, with_memory
from reme_mcp.cli.screen import show_below
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ReMeError
from reme_mcp.schema import Entry, now
from reme_mcp.store.log import BY_HAND, newest

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory


@click.command(
    epilog=examples(
        "reme-mcp log",
        "reme-mcp log --since 7d --limit 500",
        "reme-mcp log --id e-bm7md6j3db                  all that was done with it",
        "reme-mcp log --workspace team --json",
    )
)
@click.option("--since", metavar="SPAN", help="Not older than 12h, 7d or 26w.")
@click.option("--id", "about", default="", metavar="ID", help="Only what was done with it.")
@click.option("--limit", default=50, show_default=True, help="How many, 1 to 100000.")
@as_json_option
@click.pass_obj
def log(settings: Settings, since: str | None, about: str, limit: int, as_json: bool) -> None:
    """List who changed what in the workspace, when and why, newest first.

    Who is a client (over HTTP with the holder of its token before it), `cli` for this command line, `file:NAME` for an
    import, `refine` for the rules that prune. Backups and tokens belong to all of the home, and stand in it for every
    workspace. The log is only ever added to; it holds ids and reasons, and no text of a lesson. What is recalled and
    exported is not in it.
    """
    try:
        after = None if since is None else now() - duration(since)
    except (ReMeError, OverflowError) as exc:
        raise click.ClickException(str(exc)) from exc

    async def run(memory: Memory) -> tuple[list[Entry], dict[str, str]]:
        found = await memory.pool.log(since=after, about=about, limit=limit)
        attempts = await memory.pool.trajectories([one.about for one in found if one.did == "recorded"])
        return found, {one.id: one.task for one in attempts}

    found, tasks = with_memory(settings, run)
    try:
        of_tokens = [
            one
            for one in _of_tokens(tokens_of(settings))
            if about in ("", one.about) and (after is None or one.created_at >= after)
        ]
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc
    entries = newest([*found, *of_tokens], limit=limit)
    if as_json:
        click.echo(to_json([dataclasses.asdict(one) for one in entries]))
        return
    rows = [(f"{one.created_at:%Y-%m-%d %H:%M:%S}", one.source, one.did, one.about, one.reason) for one in entries]
    # A person knows an attempt by its task, which the log itself does not hold.
    shown = [(*row[:4], f"{row[4]}: {short(tasks[row[3]])}" if row[3] in tasks else row[4]) for row in rows]
    show_below(
        shown,
        piped=rows,
        empty="Nothing was changed here yet." if after is None else f"Nothing was changed in {since}.",
    )


def _of_tokens(tokens: Tokens) -> Iterator[Entry]:
    """Yield what the file of tokens says of them: they are made and revoked by hand only."""
    for one in tokens.all():
        may = f"{one.role} in {', '.join(one.workspaces)}"
        yield Entry(f"{one.name} created", "", BY_HAND, "token created", one.name, may, one.created_at)
        if one.revoked_at is not None:
            yield Entry(f"{one.name} revoked", "", BY_HAND, "token revoked", one.name, "", one.revoked_at)
