"""The command line: `reme-mcp` serves; the other commands look after the pool by hand.

In:  arguments, settings from file, environment and options.
Out: a running server, or what the command prints.
Does not know: what a command does; each stands in the file that `COMMANDS` names, imported when it is called, because
               the server has to start fast.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from pathlib import Path

import click

from reme_mcp import __version__
from reme_mcp.config import Settings, load_settings, with_overrides
from reme_mcp.errors import ConfigError, ReMeError

# Which file each command is in, and its function there; `--help` lists them in this order.
COMMANDS = {
    "recall": ("commands_loop", "recall"),
    "record": ("commands_loop", "record"),
    "rate": ("commands_loop", "rate"),
    "list": ("commands_pool", "list_pool"),
    "show": ("commands_pool", "show"),
    "stats": ("commands_pool", "stats"),
    "prune": ("commands_pool", "prune"),
    "restore": ("commands_pool", "restore"),
    "pin": ("commands_pool", "pin"),
    "unpin": ("commands_pool", "unpin"),
    "delete": ("commands_pool", "delete"),
    "queue": ("commands_queue", "queue"),
    "distill": ("commands_queue", "distill_queue"),
    "token": ("commands_token", "token"),
    "backup": ("commands_backup", "make_backup"),
    "restore-backup": ("commands_backup", "restore_backup"),
}


class Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, those of this file first."""
        return [*self.commands, *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or `None`."""
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, function = COMMANDS[cmd_name]
        command = getattr(import_module(f"reme_mcp.{module}"), function)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
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
@click.option("--http", "transport", flag_value="http", help="Serve many clients, at /mcp (Streamable HTTP) and /sse.")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse"]),
    default="stdio",
    help="http is --http; sse is /sse alone.",
)
@click.option("--host", help="Address to listen at, for http and sse. [http] host in the settings.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen at. [http] port in the settings.")
@click.option("--without-auth", metavar="WORDS", help="Ask nobody for a token. [http] without_auth says which words.")
@click.pass_context
def serve(
    context: click.Context,
    transport: str = "stdio",
    host: str | None = None,
    port: int | None = None,
    without_auth: str | None = None,
) -> None:
    """Serve MCP clients: one over stdin and stdout (the default), or many over HTTP."""
    import anyio

    given = {"http.host": host, "http.port": port, "http.without_auth": without_auth}
    overrides = {key: str(value) for key, value in given.items() if value is not None}
    settings: Settings = context.obj
    try:
        if transport == "stdio":
            if overrides:
                raise click.UsageError("--host, --port and --without-auth go with --http or --transport sse")
            from reme_mcp.server import serve_stdio

            if sys.stdin.isatty():
                click.echo(
                    "reme-mcp waits for an MCP client on stdin; `reme-mcp --help` shows what else it does.", err=True
                )
            anyio.run(serve_stdio, settings)
        else:
            from reme_mcp.hosting import serve_http

            changed = with_overrides(settings, overrides)
            anyio.run(serve_http, changed, ("http", "sse") if transport == "http" else ("sse",))
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc
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


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--set")
    return key.strip(), value
