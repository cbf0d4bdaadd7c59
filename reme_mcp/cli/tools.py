"""The three tools by hand: `recall`, `record`, `rate`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO

import click

from reme_mcp.cli.kinds import wrong_kind
from reme_mcp.cli.output import SOURCE, as_json_option, examples, short, with_memory
from reme_mcp.cli.screen import say, show_errors
from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput
from reme_mcp.schema import OUTCOMES

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.results import RecordResult
    from reme_mcp.schema import Outcome
    from reme_mcp.transcripts.sessions import Format

FORMATS = ("claude-code", "codex")


@click.command(
    epilog=examples(
        'reme-mcp recall "deploy the blog"',
        'reme-mcp recall "deploy the blog" --tool bash --tool git --limit 3',
        'reme-mcp recall "deploy the blog" --workspace team --json',
        'reme-mcp recall "deploy the blog" --explain',
        'reme-mcp recall "deploy the blog" --explain --as alice',
    )
)
@click.argument("task")
@click.option("--context", default="", help="Project, files, error text.")
@click.option("--tool", "tools", multiple=True, help="A tool that the agent has; repeat for more.")
@click.option("--limit", type=int, help="How many, 1 to 20.")
@click.option("--explain", is_flag=True, help="All that was found, and why each was handed out or not.")
@click.option("--as", "reader", metavar="NAME", help="With --explain: as the holder of a token who brought lessons.")
@click.option("--receipt", "with_receipt", is_flag=True, help="Write a receipt, to record the outcome with.")
@as_json_option
@click.pass_obj
def recall(
    settings: Settings,
    task: str,
    context: str,
    tools: tuple[str, ...],
    limit: int | None,
    explain: bool,
    reader: str | None,
    with_receipt: bool,
    as_json: bool,
) -> None:
    """Show what earlier work says about TASK. It leaves no trace, unless --receipt is given."""
    if explain and with_receipt:
        raise click.UsageError("--explain only looks; leave --receipt out")
    if reader is not None and not explain:
        raise click.UsageError("--as goes with --explain: a recall is always one's own")
    from reme_mcp.models.service import BY_WORDS
    from reme_mcp.recall.explanation import explanation

    async def run(memory: Memory) -> None:
        await memory.warm_up(download=False, work=False)
        if explain:
            found = await memory.explain(task, context=context, tools=tools, limit=limit, source=SOURCE, reader=reader)
            if as_json:
                click.echo(found.model_dump_json(indent=1))
            else:
                say(explanation(found))
            return
        result = await memory.recall(
            task, context=context, tools=tools, limit=limit, source=SOURCE, with_receipt=with_receipt
        )
        if as_json:
            click.echo(result.model_dump_json(indent=1))
            return
        say(result.guidance)
        if result.note:
            # Each command is a process of its own: the long reason would come with every one of them.
            missing = BY_WORDS + (await memory.pool.stats()).embedder
            say(result.note.replace(missing, "Recall went by words only; `reme-mcp doctor` says why."), err=True)

    with_memory(settings, run)


@click.command(
    epilog=examples(
        "reme-mcp record attempts.jsonl",
        "reme-mcp record --format claude-code session.jsonl",
        "reme-mcp record --format codex --outcome failure rollout.jsonl",
    )
)
@click.argument("file", type=click.File("rb"))
@click.option("--format", type=click.Choice(FORMATS), help="FILE is a session file of this client.")
@click.option("--outcome", type=click.Choice(OUTCOMES), help="With --format: how the session ended.")
@click.option("--reward", type=float, help="With --format, instead of --outcome: 0 to 1; 1 is success.")
@as_json_option
@click.pass_obj
def record(
    settings: Settings,
    file: BinaryIO,
    format: Format | None,
    outcome: Outcome | None,
    reward: float | None,
    as_json: bool,
) -> None:
    """Record the trajectories in FILE (`-` is stdin).

    FILE is JSON Lines or one JSON object: task, outcome or reward, and any of steps, messages, experiences, receipt,
    used, misled, trajectory_id. A line that can't be recorded is reported, and the others are recorded all the same.
    Where a line is no JSON object, nothing is recorded.

    With --format, FILE is one session as Claude Code (~/.claude/projects) or Codex (~/.codex/sessions) keeps it. How it
    ended is what --outcome or --reward say, or else what the user's last words or the last run of tests say; where
    nothing says it, it is not recorded.
    """
    if format is not None:
        _record_session(settings, file.read(), format, outcome, reward, as_json=as_json)
        return
    if outcome is not None or reward is not None:
        raise click.UsageError("--outcome and --reward go with --format; without it each line says its own")
    from reme_mcp.server.arguments import RecordArguments

    data = file.read()
    if looks := wrong_kind(data, right="attempts"):
        # What to add is all that is missing of a command for a session.
        raise click.ClickException(f"{looks.replace('FILE', file.name)}; nothing was recorded")
    try:
        # Windows editors put a byte order mark at the start.
        lines = _json_objects(data.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise click.ClickException(f"it is not UTF-8 (byte {exc.start + 1}); nothing was recorded") from exc
    failed: list[tuple[str, str]] = []

    async def run(memory: Memory) -> None:
        await memory.warm_up(download=False, work=False)
        for number, line in lines:
            try:
                arguments = RecordArguments.read(line)
                if arguments.note:
                    say(f"line {number}: {arguments.note}", err=True)
                result = await arguments.run(memory, source=SOURCE)
            except InvalidInput as exc:
                failed.append((f"line {number}", str(exc)))
                continue
            _print(result, as_json=as_json)

    with_memory(settings, run)
    show_errors(failed)
    if failed:
        raise click.ClickException(f"{len(failed)} of {len(lines)} not recorded")


def _print(result: RecordResult, *, as_json: bool) -> None:
    if as_json:
        click.echo(result.model_dump_json())
    else:
        say(_told(result))


def _told(result: RecordResult) -> str:
    """Return what became of an attempt, for a person: the brief is for an assistant."""
    from reme_mcp.text.summaries import record_summary

    if result.status != "awaiting_experiences":
        return record_summary(result)
    return (
        f"{record_summary(result.model_copy(update={'brief': ''}))}\nIt has taught nothing yet. Its lessons are "
        "written by a later session that has the plugin, or by you: reme-mcp distill --by-hand."
    )


def _record_session(
    settings: Settings, data: bytes, format: Format, outcome: Outcome | None, reward: float | None, *, as_json: bool
) -> None:
    from reme_mcp.memory.capture import Captured, record_session

    async def run(memory: Memory) -> tuple[Captured, ...]:
        await memory.warm_up(download=False, work=False)
        return await record_session(memory, data, format, outcome=outcome, reward=reward)

    attempts = with_memory(settings, run)
    for kind, count in sorted(attempts[0].session.skipped.items()):
        say(f"left out: {count} {kind}", err=True)
    for done in attempts:
        if len(attempts) > 1:
            say(f"task: {short(done.session.task)}", err=True)
        if done.inferred is not None and done.inferred.outcome is not None:
            say(f"{done.inferred.outcome} by its {done.inferred.rule}: {done.inferred.evidence}", err=True)
        if done.result is not None:
            _print(done.result, as_json=as_json)
        elif len(attempts) > 1:
            say(f"not recorded: {done.reason}", err=True)
    if all(done.result is None for done in attempts):
        is_open = any(done.inferred for done in attempts)
        how = "; say it with --outcome success or failure" if is_open else ""
        raise click.ClickException(f"not recorded: {attempts[-1].reason}{how}")


@click.command(
    epilog=examples(
        "reme-mcp rate e-bm7md6j3db --helpful",
        'reme-mcp rate e-bm7md6j3db --unhelpful --reason "it is gone since 2.0"',
    )
)
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
    from reme_mcp.text.summaries import rate_summary

    result = with_memory(
        settings,
        lambda memory: memory.rate(experience_id, helpful=helpful, receipt=receipt, reason=reason, source=SOURCE),
    )
    if as_json:
        click.echo(result.model_dump_json(indent=1))
    else:
        say(rate_summary(result))


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
