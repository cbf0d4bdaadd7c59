"""What was recorded and has taught nothing yet: `attempts` lists it, `distill --by-hand` walks a person through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reme_mcp.cli.output import SOURCE, as_json_option, examples, short, to_json, with_memory
from reme_mcp.cli.screen import say, show_below
from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Trajectory

SHOWN_TOKENS = 1_500
COLUMNS = ("id", "outcome", "created_at", "source", "waits_for", "task")


@click.command(
    epilog=examples("reme-mcp attempts", "reme-mcp show t-bm7md6j3db          its steps", "reme-mcp distill --by-hand")
)
@as_json_option
@click.pass_obj
def attempts(settings: Settings, as_json: bool) -> None:
    """List the attempts that have taught nothing yet, oldest first, and what each waits for."""

    async def run(memory: Memory) -> list[tuple[Trajectory, str]]:
        awaiting = [(one, "lessons") for one in await memory.awaiting()]
        return sorted(
            [*awaiting, *((one, "the model") for one in await memory.queued())], key=lambda pair: pair[0].created_at
        )

    found = with_memory(settings, run)
    if as_json:
        fields = [(one.id, one.outcome, one.created_at, one.source, waits_for, one.task) for one, waits_for in found]
        click.echo(to_json([dict(zip(COLUMNS, row, strict=True)) for row in fields]))
        return
    rows = [
        (one.id, one.outcome, f"{one.created_at:%Y-%m-%d %H:%M}", one.source, waits_for, short(one.task))
        for one, waits_for in found
    ]
    shown = [(*row[:4], f"waits for {row[4]}", row[5]) for row in rows]
    show_below(shown, piped=rows, empty="Nothing waits: every attempt has been learned from.")
    if any(waits_for == "lessons" for _, waits_for in found):
        say(
            "Lessons are written by the next sessions that have the plugin, an attempt each, or by you: "
            "reme-mcp distill --by-hand.",
            err=True,
        )


def by_hand(settings: Settings) -> None:
    """Show each attempt that waits for lessons, ask for them, and store what is said."""

    async def waiting(memory: Memory) -> list[Trajectory]:
        return await memory.awaiting()

    found = with_memory(settings, waiting)
    if not found:
        say("Nothing waits for lessons.")
    for number, attempt in enumerate(found, start=1):
        say(f"\n{number} of {len(found)}: {attempt.id}, {attempt.outcome}, {attempt.created_at:%Y-%m-%d}")
        say(f"task: {attempt.task}\n\n{steps_of(attempt, SHOWN_TOKENS)}\n")
        lessons = _asked(attempt)
        if lessons is not None:
            _store(settings, attempt, lessons)


def steps_of(attempt: Trajectory, max_tokens: int) -> str:
    """Return the steps of an attempt as text, those in the middle left out where they are too many."""
    from reme_mcp.transcripts.excerpt import fit
    from reme_mcp.transcripts.transcript import from_json

    return fit(from_json(attempt.transcript), max_tokens) if attempt.transcript else "(no steps were recorded)"


def _asked(attempt: Trajectory) -> list[dict[str, object]] | None:
    """Return the lessons that a person writes; none where there is nothing to learn, `None` to leave it for later."""
    kind = click.prompt(
        "(w)rite a lesson, (n)othing to learn, (l)ater", type=click.Choice(["w", "n", "l"]), show_choices=False
    )
    if kind != "w":
        return [] if kind == "n" else None
    lessons: list[dict[str, object]] = []
    while True:
        when = click.prompt("When does it apply (the situation, without names and numbers)")
        content = click.prompt("What to do then")
        keywords = click.prompt("Keywords, with commas between", default="", show_default=False)
        lessons.append(
            {
                "when_to_use": when,
                "content": content,
                "keywords": [word.strip() for word in keywords.split(",") if word.strip()],
                "kind": attempt.outcome,
            }
        )
        if not click.confirm("Another one"):
            return lessons


def _store(settings: Settings, attempt: Trajectory, lessons: list[dict[str, object]]) -> None:
    async def run(memory: Memory) -> str:
        await memory.warm_up(download=False, work=False)
        try:
            result = await memory.record(attempt.task, trajectory_id=attempt.id, experiences=lessons, source=SOURCE)
        except InvalidInput as exc:
            return f"Not stored: {exc}. The attempt still waits."
        if not lessons:
            return "Nothing to learn from it; it waits no longer."
        refused = "".join(f" Not stored: {one.reason}." for one in result.rejected)
        merged = "".join(f" Already known as {one.id}." for one in result.merged)
        return f"Learned: {', '.join(result.added) or 'nothing new'}.{merged}{refused}"

    say(with_memory(settings, run))
