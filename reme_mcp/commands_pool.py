"""The care of the pool by hand: `list`, `show`, `stats`, `prune`, `restore`, `pin`, `unpin`, `delete`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from reme_mcp.config import Settings
from reme_mcp.terminal import as_json_option, examples, plain, show_experiences, show_table, to_json, with_memory

if TYPE_CHECKING:
    from reme_mcp.memory import Memory
    from reme_mcp.schema import Status

STATUSES = ("active", "provisional", "quarantined", "archived")


@click.command(
    "list",
    epilog=examples(
        "reme-mcp list",
        "reme-mcp list --status archived --status quarantined",
        "reme-mcp list --workspace team --limit 1000 --json",
    ),
)
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeat for more.")
@click.option("--limit", default=50, show_default=True, help="How many, 1 to 1000.")
@click.option("--offset", default=0, help="How many to skip.")
@as_json_option
@click.pass_obj
def list_pool(settings: Settings, statuses: tuple[Status, ...], limit: int, offset: int, as_json: bool) -> None:
    """List the experiences, newest first."""
    experiences = with_memory(
        settings, lambda memory: memory.pool.page(statuses=statuses or None, limit=limit, offset=offset)
    )
    show_experiences(experiences, as_json=as_json)


@click.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def show(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Show the experience ID with its provenance and its record."""
    experience, tally = with_memory(settings, lambda memory: memory.pool.experience(experience_id))
    fields = dataclasses.asdict(experience) | {
        "recalled": tally.recalled,
        "last_recalled_at": tally.last_recalled_at,
    }
    if as_json:
        click.echo(to_json(fields))
    else:
        show_table(("field", "value"), [(name, plain(value)) for name, value in fields.items()])


@click.command()
@as_json_option
@click.pass_obj
def stats(settings: Settings, as_json: bool) -> None:
    """Show the state of the pool in numbers."""

    async def run(memory: Memory) -> dict[str, object]:
        await memory.warm_up(download=False, work=False)
        return dataclasses.asdict(await memory.pool.stats())

    found = with_memory(settings, run)
    if as_json:
        click.echo(to_json(found))
    else:
        show_table(("what", "value"), [(name, plain(value)) for name, value in found.items()])


@click.command(epilog=examples("reme-mcp prune --dry-run", "reme-mcp prune --set refine.min_frequency=3"))
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@as_json_option
@click.pass_obj
def prune(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Archive what is recalled often and helps little; `restore` brings it back."""
    experiences = with_memory(settings, lambda memory: memory.pool.prune(dry_run=dry_run))
    show_experiences(experiences, as_json=as_json)
    if not as_json:
        click.echo(f"{len(experiences)} {'would be' if dry_run else 'were'} archived.", err=True)


@click.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def restore(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Bring the archived experience ID back into recall; its counters start anew."""
    show_experiences([with_memory(settings, lambda memory: memory.pool.restore(experience_id))], as_json=as_json)


@click.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def pin(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Keep the experience ID whatever its counters say."""
    show_experiences(
        [with_memory(settings, lambda memory: memory.pool.pin(experience_id, pinned=True))], as_json=as_json
    )


@click.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def unpin(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Let the counters decide about the experience ID again."""
    show_experiences(
        [with_memory(settings, lambda memory: memory.pool.pin(experience_id, pinned=False))], as_json=as_json
    )


@click.command(
    epilog=examples("reme-mcp delete e-bm7md6j3db --dry-run", "reme-mcp delete e-bm7md6j3db --yes > removed.json")
)
@click.argument("experience_id", metavar="ID")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@as_json_option
@click.pass_obj
def delete(settings: Settings, experience_id: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove the experience ID for good. It is printed in full first."""
    experience, _ = with_memory(settings, lambda memory: memory.pool.experience(experience_id))
    click.echo(to_json(dataclasses.asdict(experience)))
    if dry_run:
        return
    if not yes:
        click.confirm("Remove it for good?", abort=True, err=True)
    with_memory(settings, lambda memory: memory.pool.delete(experience_id))
    if not as_json:
        click.echo(f"{experience_id} is gone.", err=True)
