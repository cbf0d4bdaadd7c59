"""`ui`: the page for people, on this machine only."""

from __future__ import annotations

import sys

import anyio
import click

from reme_mcp.config.settings import Settings
from reme_mcp.errors import ReMeError


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0 takes a free one.")
@click.option("--open/--no-open", "opens", default=True, help="Open it in the browser, or only print the address.")
@click.pass_obj
def ui(settings: Settings, port: int, opens: bool) -> None:
    """Open the pool as a page in your browser: see, search, review, try a recall, undo.

    It listens on 127.0.0.1 and lets in who has the key in the address that it prints. Ctrl-C ends it.
    """
    from reme_mcp.http.local import serve_page

    def tell(address: str) -> None:
        click.echo("The page is at this address, which has its key; Ctrl-C ends it.", err=True)
        click.echo(address)
        if opens:
            click.launch(address)

    try:
        anyio.run(serve_page, settings, port, tell)
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc
    except KeyboardInterrupt:
        sys.exit(130)
