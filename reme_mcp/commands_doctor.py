"""`doctor`: one page that says what works and what does not."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import click

from reme_mcp.choice import Choice
from reme_mcp.clients import this_machine
from reme_mcp.errors import InvalidInput
from reme_mcp.terminal import as_json_option, examples, show_table, to_json


@click.command(
    epilog=examples(
        "reme-mcp doctor",
        "reme-mcp doctor --ask-model                 ask the model behind the server for one word",
        "reme-mcp doctor --json | jq '.[].state'",
    )
)
@click.option("--ask-model", is_flag=True, help="Ask the model behind the server for one word, which it may charge.")
@as_json_option
@click.pass_obj
def doctor(choice: Choice, ask_model: bool, as_json: bool) -> None:
    """Say what works and what does not.

    Version, settings, files that others can read, home and pool, embedder, the model behind the server, the clients
    that have the entry, the last error: each is ok, off (not asked for), worth a note, or broken. Exit status 1 if
    anything is broken. Nothing is changed, made or fetched.
    """
    import anyio

    from reme_mcp.health import Finding, examine

    async def run() -> list[Finding]:
        return [one async for one in examine(choice, os.environ, this_machine(), Path.cwd(), ask_model=ask_model)]

    try:
        findings = anyio.run(run)
    except InvalidInput as exc:
        raise click.ClickException(str(exc)) from exc
    if as_json:
        click.echo(to_json([dataclasses.asdict(one) for one in findings]))
    else:
        show_table(("", "what", "found", "do"), [(one.state, one.what, one.says, one.do) for one in findings])
    if any(one.state == "broken" for one in findings):
        sys.exit(1)
