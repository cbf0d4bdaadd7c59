"""`demo` plays one story against a real server; `story.py` tells it."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Play in this empty folder and keep it.")
def demo(keep: Path | None) -> None:
    """Play one story from failure to success against a real server, in a temporary home."""
    import anyio

    from reme_mcp.cli.story import StoryError, play

    try:
        anyio.run(play, keep, click.echo)
    except* StoryError as group:
        failure: BaseException = group
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        click.echo(f"Error: the loop did not close: {failure}", err=True)
        sys.exit(1)
