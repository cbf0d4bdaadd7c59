"""The queue by hand: `queue` lists what waits for the model behind the server, `distill` works on it now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from reme_mcp.cli.attempts import by_hand
from reme_mcp.cli.output import as_json_option, short, show_table, to_json, with_memory
from reme_mcp.config.settings import Settings

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Trajectory

QUEUE_COLUMNS = ("id", "task", "outcome", "created_at", "tries", "retry_at", "trouble")


@click.command()
@as_json_option
@click.pass_obj
def queue(settings: Settings, as_json: bool) -> None:
    """List what waits for the model behind the server, oldest first."""
    waiting = with_memory(settings, lambda memory: memory.queued())
    if as_json:
        click.echo(to_json([{name: getattr(one, name) for name in QUEUE_COLUMNS} for one in waiting]))
        return
    rows = [
        (
            *(one.id, one.outcome, f"{one.created_at:%Y-%m-%d %H:%M}", str(one.tries), _next_try(one)),
            *(short(one.task), one.trouble),
        )
        for one in waiting
    ]
    show_table(("id", "outcome", "recorded", "tries", "next", "task", "trouble"), rows)


@click.command("distill")
@click.option("--by-hand", "is_by_hand", is_flag=True, help="Write the lessons yourself, attempt by attempt.")
@as_json_option
@click.pass_obj
def distill_queue(settings: Settings, is_by_hand: bool, as_json: bool) -> None:
    """Let the model work on all that is queued, now; exit status 1 if anything is left.

    With --by-hand, each attempt that waits for its lessons is shown, and you write them.
    """
    if is_by_hand:
        if as_json:
            raise click.UsageError("--by-hand asks questions; it does not go with --json")
        by_hand(settings)
        return
    from rich.console import Console
    from rich.progress import Progress

    left: list[Trajectory] = []

    async def run(memory: Memory) -> int:
        with Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("distilling", total=len(await memory.queued()))

            async def done(trajectory: Trajectory) -> None:
                progress.advance(bar)
                if trajectory.status == "queued":
                    left.append(trajectory)

            return await memory.distill(done)

    worked_on = with_memory(settings, run)
    if as_json:
        click.echo(to_json({"distilled": worked_on - len(left), "left": {one.id: one.trouble for one in left}}))
    else:
        click.echo(f"{worked_on - len(left)} distilled, {len(left)} left.")
        for one in left:
            click.echo(f"{one.id}: {one.trouble}", err=True)
    if left:
        sys.exit(1)


def _next_try(trajectory: Trajectory) -> str:
    if trajectory.retry_at is not None:
        return f"{trajectory.retry_at:%Y-%m-%d %H:%M}"
    return "when asked" if trajectory.tries else "now"
