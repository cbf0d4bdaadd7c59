"""What is held back for a person to see: `review`, and `review show`, `review approve`, `review reject`."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click

from reme_mcp.config import Settings
from reme_mcp.terminal import as_json_option, plain, short, show_experiences, show_table, to_json, with_memory

if TYPE_CHECKING:
    from reme_mcp.memory import Memory
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
    into recall; `reject` archives it, and whatever says the same is not stored any more.
    """
    if context.invoked_subcommand is not None:
        return
    held = with_memory(context.obj, _held)
    if as_json:
        click.echo(to_json([dataclasses.asdict(one) for one in held]))
        return
    show_table(
        ("id", "recorded", "by", "why", "when to use"),
        [
            (
                one.id,
                f"{one.created_at:%Y-%m-%d %H:%M}",
                short(_seen(one.source)),
                _names(one.status_reason),
                short(_seen(one.when_to_use)),
            )
            for one in held
        ],
    )


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
        show_table(("field", "value"), [(name, _seen(plain(fields[name]))) for name in SHOWN])


@review.command("approve")
@click.argument("experience_ids", metavar="ID…", nargs=-1, required=True)
@as_json_option
@click.pass_obj
def approve(settings: Settings, experience_ids: tuple[str, ...], as_json: bool) -> None:
    """Let the experiences into recall."""
    _decide(settings, experience_ids, as_json, lambda memory, id: memory.pool.approve(id))


@review.command("reject")
@click.argument("experience_ids", metavar="ID…", nargs=-1, required=True)
@as_json_option
@click.pass_obj
def reject(settings: Settings, experience_ids: tuple[str, ...], as_json: bool) -> None:
    """Archive the experiences; `reme-mcp restore` undoes it."""
    _decide(settings, experience_ids, as_json, lambda memory, id: memory.pool.reject(id))


def _decide(
    settings: Settings,
    experience_ids: tuple[str, ...],
    as_json: bool,
    decide: Callable[[Memory, str], Awaitable[Experience]],
) -> None:
    async def run(memory: Memory) -> list[Experience]:
        return [await decide(memory, id) for id in experience_ids]

    show_experiences(with_memory(settings, run), as_json=as_json)


async def _held(memory: Memory) -> list[Experience]:
    held: list[Experience] = []
    while page := await memory.pool.page(statuses=["quarantined"], offset=len(held), limit=PAGE):
        held += page
    return held


def _names(reason: str) -> str:
    """Return the names of the rules in a reason."""
    return ", ".join(part.partition(":")[0] for part in reason.split("; ") if ":" in part)


def _seen(text: str) -> str:
    from reme_mcp.quarantine import visible

    return visible(text)
