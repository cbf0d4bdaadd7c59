"""The three tools by hand: `recall`, `record`, `rate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO

import click

from reme_mcp.config import Settings
from reme_mcp.errors import InvalidInput
from reme_mcp.terminal import SOURCE, as_json_option, short, with_memory

if TYPE_CHECKING:
    from reme_mcp.memory import Memory


@click.command()
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
    from reme_mcp.vectors import BY_WORDS

    async def run(memory: Memory) -> None:
        await memory.warm_up(download=False, work=False)
        result = await memory.recall(task, context=context, tools=tools, limit=limit, source=SOURCE)
        if as_json:
            click.echo(result.model_dump_json(indent=1))
            return
        click.echo(result.guidance)
        if result.note:
            # Each command is a process of its own: the long reason would come with every one of them.
            missing = BY_WORDS + (await memory.pool.stats()).embedder
            click.echo(result.note.replace(missing, "Recall went by words only; `reme-mcp doctor` says why."), err=True)

    with_memory(settings, run)


@click.command()
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

    with_memory(settings, run)
    if failed:
        raise click.ClickException(f"{len(failed)} not recorded: line {', '.join(map(str, failed))}")


@click.command()
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

    result = with_memory(
        settings,
        lambda memory: memory.rate(experience_id, helpful=helpful, receipt=receipt, reason=reason, source=SOURCE),
    )
    click.echo(result.model_dump_json(indent=1) if as_json else rate_summary(result))


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
            raise click.ClickException(f"line {number} is {short(repr(value))}, not an object; nothing was recorded")
    return values
