"""Backups by hand: `backup` makes one, `restore-backup` takes one back."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import click

from reme_mcp.config import Settings
from reme_mcp.terminal import as_json_option, examples, show_table, to_json, with_memory


@click.command(
    "backup", epilog=examples("reme-mcp backup", "reme-mcp backup /mnt/usb", "reme-mcp backup before-the-move.zip")
)
@click.argument("target", required=False, metavar="[FILE|DIR]")
@as_json_option
@click.pass_obj
def make_backup(settings: Settings, target: str | None, as_json: bool) -> None:
    """Copy the pool, all its workspaces, into one file; clients may go on working.

    FILE must be new and have an ending. A name without one is that of a DIR, which is made where it is missing; in it
    the file is named after the time. Without either it goes into the `backups` folder of the home, which helps against
    mistakes, but not against the loss of the disk. The copy is read back before it is named.
    """
    if target is not None and target.endswith(("/", os.sep)):
        try:
            Path(target).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise click.ClickException(f"can't make the folder {target}: {exc.strerror}") from exc
    made = with_memory(settings, lambda memory: memory.pool.backup(None if target is None else Path(target)))
    if as_json:
        click.echo(to_json(dataclasses.asdict(made)))
        return
    rows = [("file", str(made.file)), ("bytes", f"{made.size}"), *_counts(made.tables)]
    show_table(("what", "value"), rows)


@click.command(
    "restore-backup",
    epilog=examples(
        "reme-mcp restore-backup /mnt/usb/pool.zip --dry-run", "reme-mcp restore-backup pool-20261123T063100Z --force"
    ),
)
@click.argument("what", metavar="WHAT")
@click.option("--force", is_flag=True, help="Replace a pool that holds something; a backup of it is kept.")
@click.option("--dry-run", is_flag=True, help="Only show what would be replaced by what.")
@as_json_option
@click.pass_obj
def restore_backup(settings: Settings, what: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Put the backup WHAT, a file or its name in the home's `backups`, in the place of the pool.

    Running clients go on with it at their next call.
    """
    done = with_memory(settings, lambda memory: memory.pool.restore_backup(what, force=force, dry_run=dry_run))
    if as_json:
        click.echo(to_json(dataclasses.asdict(done)))
        return
    replaced = [("can't be read", "")] if done.replaced is None else _counts(done.replaced)
    rows = [
        ("file", str(done.file)),
        *_counts(done.tables),
        *((f"replaced: {name}", count) for name, count in replaced),
    ]
    show_table(("what", "value"), rows)
    if done.undo is not None:
        click.echo(f"To undo it: reme-mcp restore-backup --force {done.undo.name}", err=True)
    elif dry_run:
        click.echo("Nothing was changed.", err=True)


def _counts(tables: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, str(count)) for name, count in tables.items()]
