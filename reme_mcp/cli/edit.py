"""`edit`: one lesson as a page in the editor, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from reme_mcp.cli.output import PROGRAM, as_json_option, examples, to_json, with_memory
from reme_mcp.cli.screen import say
from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory
    from reme_mcp.schema import Experience


@click.command(
    epilog=examples(
        "reme-mcp edit e-bm7md6j3db",
        "EDITOR='code --wait' reme-mcp edit e-bm7md6j3db",
        "reme-mcp edit e-bm7md6j3db --as e-h2k9xq4twn    its older wording again",
    )
)
@click.argument("experience_id", metavar="ID")
@click.option("--as", "other_id", metavar="ID", help="Give it the wording of this one, such as its older one.")
@as_json_option
@click.pass_obj
def edit(settings: Settings, experience_id: str, other_id: str | None, as_json: bool) -> None:
    """Open the lesson ID in your editor ($VISUAL or $EDITOR), and store what you make of it.

    Above the line --- is what it is about, below it the lesson. Its id and counters stay, and the older wording is
    kept: the answer says how it comes back. Where your text can't be taken, you are told why and may go on with it.
    """
    from reme_mcp.distill.drafts import draft_of
    from reme_mcp.import_export.markdown import to_text

    async def look(memory: Memory) -> Experience:
        return (await memory.pool.experience(experience_id if other_id is None else other_id))[0]

    found = with_memory(settings, look)
    if other_id is not None:
        done = with_memory(settings, lambda memory: memory.pool.edit(experience_id, draft_of(found).model_dump()))
    else:
        stored = _in_editor(settings, found, to_text(found))
        if stored is None:
            say("Nothing was changed.", err=True)
            return
        done = stored
    after, older = done
    if as_json:
        click.echo(to_json({"experience": dataclasses.asdict(after), "older": older.id}))
        return
    say(f"{after.id} is changed. To undo it: {PROGRAM} edit {after.id} --as {older.id}")
    if after.status == "quarantined":
        say(f"Held back until you have read it again: {PROGRAM} review show {after.id}", err=True)


def _in_editor(settings: Settings, before: Experience, text: str) -> tuple[Experience, Experience] | None:
    """Return the experience as it is stored after editing, and its older wording; `None` where nothing was changed."""
    while True:
        edited = click.edit(text, extension=".md")
        if edited is None or edited == text:
            return None
        try:
            changes = _changes(before, edited)

            async def store(memory: Memory, changes: Mapping[str, object] = changes) -> tuple[Experience, Experience]:
                return await memory.pool.edit(before.id, changes)

            return with_memory(settings, store)
        except (InvalidInput, click.ClickException) as exc:
            say(f"It can't be taken: {exc}", err=True)
            if not click.confirm("Go on editing", default=True, err=True):
                return None
            text = edited


def _changes(before: Experience, text: str) -> Mapping[str, object]:
    from reme_mcp.import_export.markdown import read_page

    said = read_page(text)
    if said.id not in ("", before.id):
        raise InvalidInput(f"its line id says {said.id}; this is {before.id}")
    return said.changes
