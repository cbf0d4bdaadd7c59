"""The command line: `reme-mcp` serves; the other commands look after the pool by hand.

In:  arguments, settings from file, environment and options.
Out: text for a person on a terminal, tab-separated lines in a pipe, JSON with `--json`; exit status 1 with one clear
     sentence on stderr where something is wrong.
Does not know: how anything is stored or ranked; every command is one call of `memory.Memory`.

Everything but `click` and the settings is imported by the command that needs it: the server has to start fast.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import click

from reme_mcp import __version__
from reme_mcp.config import Settings, load_settings
from reme_mcp.errors import ConfigError, InvalidInput, ReMeError

if TYPE_CHECKING:
    from reme_mcp.memory import Memory
    from reme_mcp.schema import Experience, Status, Trajectory

SOURCE = "cli"
SHOWN_CHARS = 70
STATUSES = ("active", "provisional", "quarantined", "archived")
QUEUE_COLUMNS = ("id", "task", "outcome", "created_at", "tries", "retry_at", "trouble")
EXPERIENCE_COLUMNS = ("id", "status", "kind", "helped", "when to use")

Result = TypeVar("Result")

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--home", metavar="DIR", help="Folder of the pool. [env: REME_MCP_HOME]")
@click.option("--workspace", metavar="NAME", help="Which pool in it. [env: REME_MCP_WORKSPACE]")
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="Settings file.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. recall.limit=3.")
@click.version_option(__version__, prog_name="reme-mcp")
@click.pass_context
def cli(
    context: click.Context,
    home: str | None,
    workspace: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
) -> None:
    """Procedural memory for any assistant, over MCP.

    Without a command it serves one MCP client over stdin and stdout.
    """
    chosen = dict(_assignment(text) for text in overrides)
    if home is not None:
        chosen["home"] = home
    if workspace is not None:
        chosen["workspace"] = workspace
    try:
        settings = load_settings(config_file=config_file, environ=os.environ, overrides=chosen)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc
    context.obj = settings
    logging.basicConfig(
        stream=sys.stderr, level=settings.log.level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    if context.invoked_subcommand is None:
        context.invoke(serve)


def main() -> None:
    """Run the command line; what the console script calls."""
    cli(prog_name="reme-mcp")


@cli.command()
@click.pass_obj
def serve(settings: Settings) -> None:
    """Serve one MCP client over stdin and stdout (the default)."""
    import anyio

    from reme_mcp.server import serve_stdio

    if sys.stdin.isatty():
        click.echo("reme-mcp waits for an MCP client on stdin; `reme-mcp --help` shows what else it does.", err=True)
    try:
        anyio.run(serve_stdio, settings)
    except KeyboardInterrupt:
        # Ctrl-C is how a person ends a server; nothing acknowledged is lost.
        sys.exit(130)


@cli.command()
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Play in this empty folder and keep it.")
def demo(keep: Path | None) -> None:
    """Play one story from failure to success against a real server, in a temporary home."""
    import anyio

    from reme_mcp.demo import StoryError, play

    try:
        anyio.run(play, keep)
    except* StoryError as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        click.echo(f"Error: the loop did not close: {failure}", err=True)
        sys.exit(1)


@cli.command()
@click.argument("task")
@click.option("--context", default="", help="Project, files, error text.")
@click.option("--tool", "tools", multiple=True, help="A tool that the agent has; repeat for more.")
@click.option("--limit", type=int, help="How many, 1 to 20.")
@as_json_option
@click.pass_obj
def recall(
    settings: Settings, task: str, context: str, tools: tuple[str, ...], limit: int | None, as_json: bool
) -> None:
    """Show what earlier work says about TASK."""

    async def run(memory: Memory) -> None:
        await memory.warm_up(download=False, work=False)
        result = await memory.recall(task, context=context, tools=tools, limit=limit, source=SOURCE)
        if as_json:
            click.echo(result.model_dump_json(indent=1))
            return
        click.echo(result.guidance)
        if result.note:
            click.echo(result.note, err=True)

    _with_memory(settings, run)


@cli.command()
@click.argument("file", type=click.File("rb"))
@as_json_option
@click.pass_obj
def record(settings: Settings, file: BinaryIO, as_json: bool) -> None:
    """Record the trajectories in FILE (`-` is stdin).

    FILE is JSON Lines or one JSON object: task, outcome or reward, and any of steps, messages, experiences, receipt,
    trajectory_id. A line that can't be recorded is reported, and the others are recorded all the same. Where a line is
    no JSON object, nothing is recorded.
    """
    from reme_mcp.arguments import RecordArguments
    from reme_mcp.guidance import record_summary

    try:
        # Windows editors put a byte order mark at the start.
        lines = _json_objects(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise click.ClickException(f"it is not UTF-8 (byte {exc.start + 1}); nothing was recorded") from exc
    failed: list[int] = []

    async def run(memory: Memory) -> None:
        await memory.warm_up(download=False, work=False)
        for number, line in lines:
            try:
                result = await RecordArguments.read(line).run(memory, source=SOURCE)
            except InvalidInput as exc:
                failed.append(number)
                click.echo(f"line {number}: {exc}", err=True)
                continue
            click.echo(result.model_dump_json() if as_json else record_summary(result))

    _with_memory(settings, run)
    if failed:
        raise click.ClickException(f"{len(failed)} not recorded: line {', '.join(map(str, failed))}")


@cli.command()
@click.argument("experience_id", metavar="ID")
@click.option("--helpful/--unhelpful", required=True, help="Whether it helped.")
@click.option("--receipt", help="Of the recall that handed it out.")
@click.option("--reason", default="", help="Why, in a sentence.")
@as_json_option
@click.pass_obj
def rate(
    settings: Settings, experience_id: str, helpful: bool, receipt: str | None, reason: str, as_json: bool
) -> None:
    """Say whether the experience ID helped."""
    from reme_mcp.guidance import rate_summary

    result = _with_memory(
        settings,
        lambda memory: memory.rate(experience_id, helpful=helpful, receipt=receipt, reason=reason, source=SOURCE),
    )
    click.echo(result.model_dump_json(indent=1) if as_json else rate_summary(result))


@cli.command("list")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Only these; repeat for more.")
@click.option("--limit", default=50, show_default=True, help="How many, 1 to 1000.")
@click.option("--offset", default=0, help="How many to skip.")
@as_json_option
@click.pass_obj
def list_pool(settings: Settings, statuses: tuple[Status, ...], limit: int, offset: int, as_json: bool) -> None:
    """List the experiences, newest first."""
    experiences = _with_memory(
        settings, lambda memory: memory.page(statuses=statuses or None, limit=limit, offset=offset)
    )
    _show_experiences(experiences, as_json=as_json)


@cli.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def show(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Show the experience ID with its provenance and its record."""
    experience, tally = _with_memory(settings, lambda memory: memory.experience(experience_id))
    fields = dataclasses.asdict(experience) | {
        "recalled": tally.recalled,
        "last_recalled_at": tally.last_recalled_at,
    }
    if as_json:
        click.echo(_dump(fields))
    else:
        _table(("field", "value"), [(name, _plain(value)) for name, value in fields.items()])


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@as_json_option
@click.pass_obj
def prune(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Archive what is recalled often and helps little; `restore` brings it back."""
    experiences = _with_memory(settings, lambda memory: memory.prune(dry_run=dry_run))
    _show_experiences(experiences, as_json=as_json)
    if not as_json:
        click.echo(f"{len(experiences)} {'would be' if dry_run else 'were'} archived.", err=True)


@cli.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def restore(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Bring the archived experience ID back into recall; its counters start anew."""
    _show_experiences([_with_memory(settings, lambda memory: memory.restore(experience_id))], as_json=as_json)


@cli.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def pin(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Keep the experience ID whatever its counters say."""
    _show_experiences([_with_memory(settings, lambda memory: memory.pin(experience_id, pinned=True))], as_json=as_json)


@cli.command()
@click.argument("experience_id", metavar="ID")
@as_json_option
@click.pass_obj
def unpin(settings: Settings, experience_id: str, as_json: bool) -> None:
    """Let the counters decide about the experience ID again."""
    _show_experiences([_with_memory(settings, lambda memory: memory.pin(experience_id, pinned=False))], as_json=as_json)


@cli.command()
@click.argument("experience_id", metavar="ID")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@as_json_option
@click.pass_obj
def delete(settings: Settings, experience_id: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove the experience ID for good. It is printed in full first."""
    experience, _ = _with_memory(settings, lambda memory: memory.experience(experience_id))
    click.echo(_dump(dataclasses.asdict(experience)))
    if dry_run:
        return
    if not yes:
        click.confirm("Remove it for good?", abort=True, err=True)
    _with_memory(settings, lambda memory: memory.delete(experience_id))
    if not as_json:
        click.echo(f"{experience_id} is gone.", err=True)


@cli.command()
@as_json_option
@click.pass_obj
def queue(settings: Settings, as_json: bool) -> None:
    """List what waits for the model behind the server, oldest first."""
    waiting = _with_memory(settings, lambda memory: memory.queued())
    if as_json:
        click.echo(_dump([{name: getattr(one, name) for name in QUEUE_COLUMNS} for one in waiting]))
        return
    rows = [
        (one.id, one.outcome, f"{one.created_at:%Y-%m-%d %H:%M}", str(one.tries), _next_try(one), _short(one.task))
        for one in waiting
    ]
    _table(("id", "outcome", "recorded", "tries", "next", "task"), rows)
    for one in waiting:
        if one.trouble:
            click.echo(f"{one.id}: {one.trouble}", err=True)


@cli.command("distill")
@as_json_option
@click.pass_obj
def distill_queue(settings: Settings, as_json: bool) -> None:
    """Let the model work on all that is queued, now; exit status 1 if anything is left."""
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

    worked_on = _with_memory(settings, run)
    if as_json:
        click.echo(_dump({"distilled": worked_on - len(left), "left": {one.id: one.trouble for one in left}}))
    else:
        click.echo(f"{worked_on - len(left)} distilled, {len(left)} left.")
        for one in left:
            click.echo(f"{one.id}: {one.trouble}", err=True)
    if left:
        sys.exit(1)


@cli.command()
@as_json_option
@click.pass_obj
def stats(settings: Settings, as_json: bool) -> None:
    """Show the state of the pool in numbers."""

    async def run(memory: Memory) -> dict[str, object]:
        await memory.warm_up(download=False, work=False)
        return dataclasses.asdict(await memory.stats())

    found = _with_memory(settings, run)
    if as_json:
        click.echo(_dump(found))
    else:
        _table(("what", "value"), [(name, _plain(value)) for name, value in found.items()])


@cli.command("backup")
@click.argument("target", required=False, type=click.Path(path_type=Path), metavar="[FILE|DIR]")
@as_json_option
@click.pass_obj
def make_backup(settings: Settings, target: Path | None, as_json: bool) -> None:
    """Copy the pool, all its workspaces, into one file; clients may go on working.

    FILE must be new; in DIR the file is named after the time. Without either it goes into the `backups` folder of the
    home, which helps against mistakes, but not against the loss of the disk. The copy is read back before it is named.
    """
    made = _with_memory(settings, lambda memory: memory.backup(target))
    if as_json:
        click.echo(_dump(dataclasses.asdict(made)))
        return
    rows = [("file", str(made.file)), ("bytes", f"{made.size}"), *_counts(made.tables)]
    _table(("what", "value"), rows)


@cli.command("restore-backup")
@click.argument("what", metavar="WHAT")
@click.option("--force", is_flag=True, help="Replace a pool that holds something; a backup of it is kept.")
@click.option("--dry-run", is_flag=True, help="Only show what would be replaced by what.")
@as_json_option
@click.pass_obj
def restore_backup(settings: Settings, what: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Put the backup WHAT, a file or its name in the home's `backups`, in the place of the pool.

    Running clients go on with it at their next call.
    """
    done = _with_memory(settings, lambda memory: memory.restore_backup(what, force=force, dry_run=dry_run))
    if as_json:
        click.echo(_dump(dataclasses.asdict(done)))
        return
    replaced = [("can't be read", "")] if done.replaced is None else _counts(done.replaced)
    rows = [
        ("file", str(done.file)),
        *_counts(done.tables),
        *((f"replaced: {name}", count) for name, count in replaced),
    ]
    _table(("what", "value"), rows)
    if done.undo is not None:
        click.echo(f"To undo it: reme-mcp restore-backup --force {done.undo.name}", err=True)
    elif dry_run:
        click.echo("Nothing was changed.", err=True)


# --- inside ---


def _counts(tables: Mapping[str, int]) -> list[tuple[str, str]]:
    return [(name, str(count)) for name, count in tables.items()]


def _with_memory(settings: Settings, run: Callable[[Memory], Awaitable[Result]]) -> Result:
    """Run one coroutine on an open memory, and turn our errors into the command line's."""
    import anyio

    from reme_mcp.memory import Memory

    async def opened() -> Result:
        async with Memory.open(settings) as memory:
            return await run(memory)

    try:
        return anyio.run(opened)
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key.strip(), value


def _json_objects(text: str) -> list[tuple[int, dict[str, object]]]:
    """Return the JSON objects of the text with their line numbers: one over several lines, or one on each line."""
    try:
        values = [(1, json.loads(text))]
    except ValueError:
        values = []
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    values.append((number, json.loads(line)))
                except ValueError as exc:
                    raise click.ClickException(f"line {number} is not JSON ({exc}); nothing was recorded") from exc
    for number, value in values:
        if not isinstance(value, dict):
            raise click.ClickException(f"line {number} is {_short(repr(value))}, not an object; nothing was recorded")
    return values


def _show_experiences(experiences: Sequence[Experience], *, as_json: bool) -> None:
    if as_json:
        click.echo(_dump([dataclasses.asdict(experience) for experience in experiences]))
        return
    rows = [
        (
            experience.id,
            f"{experience.status}{' (pinned)' if experience.pinned else ''}",
            experience.kind,
            f"{experience.utility}/{experience.frequency}",
            _short(experience.when_to_use),
        )
        for experience in experiences
    ]
    _table(EXPERIENCE_COLUMNS, rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on a terminal, and tab-separated lines anywhere else."""
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "none"
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    return "" if value is None else " ".join(str(value).split())


def _next_try(trajectory: Trajectory) -> str:
    if trajectory.retry_at is not None:
        return f"{trajectory.retry_at:%Y-%m-%d %H:%M}"
    return "when asked" if trajectory.tries else "now"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARS else f"{line[: SHOWN_CHARS - 1]}…"


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1, default=str)
