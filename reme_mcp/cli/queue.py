"""The queue by hand: `queue` lists what waits for the model behind the server, `distill` works on it now."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from reme_mcp.cli.attempts import by_hand
from reme_mcp.cli.output import as_json_option, short, to_json, with_memory
from reme_mcp.cli.screen import say, show_below, show_errors
from reme_mcp.config.settings import Settings

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Trajectory

ATTEMPTS = "What waits for a person or an assistant: reme-mcp attempts."
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
    shown = [(*row[:3], f"tried {row[3]} times, next {row[4]}", f"{row[5]}\n{row[6]}".strip()) for row in rows]
    show_below(shown, piped=rows, empty=f"Nothing waits for the model. {ATTEMPTS}")


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
        number = len(await memory.queued())
        is_shown = number > 0 and sys.stderr.isatty()
        with Progress(console=Console(stderr=True), disable=not is_shown) as progress:
            bar = progress.add_task("distilling", total=number)

            async def done(trajectory: Trajectory) -> None:
                progress.advance(bar)
                if trajectory.status == "queued":
                    left.append(trajectory)

            return await memory.distill(done)

    worked_on = with_memory(settings, run)
    if as_json:
        click.echo(to_json({"distilled": worked_on - len(left), "left": {one.id: one.trouble for one in left}}))
    elif not worked_on:
        say(f"Nothing waits for the model. {ATTEMPTS}")
    else:
        say(f"{worked_on - len(left)} distilled, {len(left)} left.")
        show_errors([(one.id, one.trouble) for one in left])
    if left:
        sys.exit(1)


def _next_try(trajectory: Trajectory) -> str:
    if trajectory.retry_at is not None:
        return f"{trajectory.retry_at:%Y-%m-%d %H:%M}"
    return "when asked" if trajectory.tries else "now"
