"""What is held back for a person to see: `review`, and its `show`, `approve`, `reject`, `scan`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from reme_mcp.cli.output import as_json_option, plain, short, show_experiences, to_json, with_memory
from reme_mcp.cli.screen import say, show_below, show_beside
from reme_mcp.config.settings import Settings

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Experience

PAGE = 1000
# What a person needs to decide, in this order.
SHOWN = (
    "id", "status_reason", "when_to_use", "content", "keywords", "tools_used", "generalized_task", "task", "source",
    "author", "trajectory_ids", "created_at",
)  # fmt: skip


@click.group(invoke_without_command=True)
@as_json_option
@click.pass_context
def review(context: click.Context, as_json: bool) -> None:
    """List what is held back until you have read it, newest first.

    An experience is held back where it does more than tell what was learned: the reason says what. `approve` lets it
    into recall, which is for you to do and not for an assistant; `reject` archives it, and whatever says the same is
    not stored any more.
    """
    if context.invoked_subcommand is not None:
        return
    _show_held(with_memory(context.obj, _held), as_json=as_json, empty="Nothing is held back.")


@review.command("show")
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def show(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Show the experience ID whole; characters that can't be seen are spelled out."""
    experience, _ = with_memory(settings, lambda memory: memory.pool.experience(experience_id))
    fields = dataclasses.asdict(experience)
    if as_json:
        click.echo(to_json(fields))
    else:
        show_beside([(name, _seen(plain(fields[name]))) for name in SHOWN])


@review.command("scan")
@click.option("--dry-run", is_flag=True, help="Only show what would be held back.")
@as_json_option
@click.pass_obj
def scan(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Look through what is in recall already, and hold back what comes under a rule.

    What comes in is looked at when it comes; this is for what an older version or an import brought.
    """
    found = with_memory(settings, lambda memory: memory.pool.review(dry_run=dry_run))
    _show_held(found, as_json=as_json)
    if not as_json:
        say(f"{len(found)} {'would be ' if dry_run else ''}held back.", err=True)


@review.command("approve")
@click.argument("experience_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Don't ask.")
@as_json_option
@click.pass_obj
def approve(settings: Settings, experience_id: str, yes: bool, as_json: bool) -> None:
    """Let the experience ID into recall. It is shown first, and you are asked."""
    if not yes:
        experience, _ = with_memory(settings, lambda memory: memory.pool.experience(experience_id))
        say(_told(experience), err=True)
        click.confirm("Let it into recall?", abort=True, err=True)
    show_experiences([with_memory(settings, lambda memory: memory.pool.approve(experience_id))], as_json=as_json)


@review.command("reject")
@click.argument("experience_ids", metavar="ID…", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only show what would be archived.")
@as_json_option
@click.pass_obj
def reject(settings: Settings, experience_ids: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Archive the experiences; `reme-mcp restore` undoes it."""

    async def run(memory: Memory) -> list[Experience]:
        # All of them are looked at before one is changed.
        looked_at = [await memory.pool.reject(id, dry_run=True) for id in experience_ids]
        return looked_at if dry_run else [await memory.pool.reject(id) for id in experience_ids]

    show_experiences(with_memory(settings, run), as_json=as_json)


def _show_held(held: Sequence[Experience], *, as_json: bool, empty: str = "") -> None:
    if as_json:
        click.echo(to_json([dataclasses.asdict(one) for one in held]))
        return
    rows = [
        (
            one.id,
            f"{one.created_at:%Y-%m-%d %H:%M}",
            short(_seen(one.source)),
            _names(one.status_reason),
            short(_seen(one.when_to_use)),
        )
        for one in held
    ]
    show_below(rows, empty=empty)


def _told(experience: Experience) -> str:
    fields = dataclasses.asdict(experience)
    return "\n".join(f"{name}: {_seen(plain(fields[name]))}" for name in SHOWN)


async def _held(memory: Memory) -> list[Experience]:
    held: list[Experience] = []
    while page := await memory.pool.page(statuses=["quarantined"], offset=len(held), limit=PAGE):
        held += page
    return held


def _names(reason: str) -> str:
    """Return the names of the rules in a reason."""
    return ", ".join(part.partition(":")[0] for part in reason.split("; ") if ":" in part)


def _seen(text: str) -> str:
    from reme_mcp.safety.unicode import visible

    return visible(text)
