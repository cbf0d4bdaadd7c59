"""The command line: `reme-mcp` serves; the other commands look after the pool by hand.

In:  arguments, settings from file, environment and options.
Out: a running server, or what the command prints.
Does not know: what a command does; each stands in the file that `COMMANDS` names, imported when it is called, because
               the server has to start fast.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click

from reme_mcp import __version__
from reme_mcp.choice import Choice
from reme_mcp.config import Settings, with_overrides
from reme_mcp.errors import ConfigError, ReMeError
from reme_mcp.exposure import exposed
from reme_mcp.redaction import DiscreetFormatter, Redact, redactor

logger = logging.getLogger(__name__)

# Which file each command is in, and its function there; `--help` lists them in this order.
COMMANDS = {
    "recall": ("commands_loop", "recall"),
    "record": ("commands_loop", "record"),
    "rate": ("commands_loop", "rate"),
    "list": ("commands_pool", "list_pool"),
    "show": ("commands_pool", "show"),
    "stats": ("commands_pool", "stats"),
    "prune": ("commands_pool", "prune"),
    "archive": ("commands_pool", "archive"),
    "restore": ("commands_pool", "restore"),
    "pin": ("commands_pool", "pin"),
    "unpin": ("commands_pool", "unpin"),
    "delete": ("commands_pool", "delete"),
    "review": ("commands_review", "review"),
    "log": ("commands_log", "log"),
    "queue": ("commands_queue", "queue"),
    "distill": ("commands_queue", "distill_queue"),
    "import": ("commands_files", "import_files"),
    "export": ("commands_files", "export"),
    "token": ("commands_token", "token"),
    "deploy": ("commands_deploy", "deploy"),
    "backup": ("commands_backup", "make_backup"),
    "restore-backup": ("commands_backup", "restore_backup"),
    "install": ("commands_clients", "install"),
    "uninstall": ("commands_clients", "uninstall"),
    "plugin": ("commands_capture", "plugin"),
    "hook": ("commands_capture", "hook"),
    "doctor": ("commands_doctor", "doctor"),
    "bundle": ("commands_publish", "bundle"),
    "server-json": ("commands_publish", "server_json"),
    "completion": ("commands_completion", "completion"),
}
# They get the `Choice` and read the settings themselves, to say what is wrong with them or what of them is chosen.
WITH_CHOICE = ("plugin", "hook", "install", "doctor")
# They have nothing to do with a pool.
WITHOUT_POOL = ("demo", "uninstall", "bundle", "server-json", "completion")
CHOICE = "reme_mcp.choice"
EXAMPLES = """\b
Examples:
  reme-mcp install claude-code            tell Claude Code to start it, in all projects
  reme-mcp install cursor --project .     tell Cursor, in this project only
  reme-mcp recall "deploy the blog"       what the pool says about a task
  reme-mcp list --workspace team --json   the experiences of another workspace
"""


class Commands(click.Group):
    """A group whose commands are imported when they are called, and take its options as well."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, those of this file first."""
        return [*self.commands, *COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or `None`."""
        if cmd_name in COMMANDS:
            module, function = COMMANDS[cmd_name]
            command = getattr(import_module(f"reme_mcp.{module}"), function)
            assert isinstance(command, click.Command)
        else:
            found = super().get_command(ctx, cmd_name)
            if found is None:
                return None
            command = found
        if cmd_name in WITHOUT_POOL:
            return command
        return _with_options(command, with_settings=cmd_name not in WITH_CHOICE)


def _with_options(command: click.Command, *, with_settings: bool) -> click.Command:
    """Return the command, and those inside it, so that it takes the options of this program as well."""
    command = copy.copy(command)
    taken = {name for parameter in command.params for name in parameter.opts}
    command.params = [*command.params, *(one for one in _options() if taken.isdisjoint(one.opts))]
    if isinstance(command, click.Group):
        inside = {name: _with_options(one, with_settings=with_settings) for name, one in command.commands.items()}
        command.commands = inside
    if command.callback is not None and (not isinstance(command, click.Group) or command.invoke_without_command):
        command.callback = _prepared(command.callback, with_settings=with_settings)
    return command


def _options() -> list[click.Option]:
    """Return the options that may stand before a command or after it; the later one wins."""

    def choose(context: click.Context, option: click.Parameter, value: object) -> None:
        if value not in (None, ()):
            choice = Choice(**{str(option.name): value})  # type: ignore[arg-type]  # click has seen to its type
            context.meta[CHOICE] = context.meta.get(CHOICE, Choice()).then(choice)

    make = functools.partial(click.Option, expose_value=False, callback=choose)
    return [
        make(["--home"], metavar="DIR", help="Folder of the pool. [env: REME_MCP_HOME]"),
        make(["--workspace"], metavar="NAME", help="Which pool in it. [env: REME_MCP_WORKSPACE]"),
        make(
            ["--config", "config_file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Settings file. [env: REME_MCP_CONFIG]",
        ),
        make(["--set", "overrides"], multiple=True, metavar="KEY=VALUE", help="Any setting, e.g. recall.limit=3."),
    ]


def _prepared(callback: Callable[..., object], *, with_settings: bool) -> Callable[..., object]:
    """Return a command's function so that it finds the settings, or the choice, as the context's object."""

    @functools.wraps(callback)
    def run(*args: object, **options: object) -> object:
        context = click.get_current_context()
        choice = context.meta.get(CHOICE, Choice())
        context.obj = _settings(choice) if with_settings else choice
        return callback(*args, **options)

    return run


def _settings(choice: Choice) -> Settings:
    try:
        settings = choice.settings(os.environ)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(DiscreetFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", _redactor(settings)))
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler])
    for one in exposed(settings, choice.file(os.environ)):
        logger.warning("%s %s, and other users can read it: %s", one.path, one.why, one.do)
    return settings


@click.group(
    cls=Commands,
    params=_options(),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXAMPLES,
)
@click.version_option(__version__, prog_name="reme-mcp")
@click.pass_context
def cli(context: click.Context) -> None:
    """Procedural memory for any assistant, over MCP.

    Without a command it serves one MCP client over stdin and stdout. `reme-mcp install CLIENT` tells a client to start
    it; `reme-mcp doctor` says what works and what does not.
    """
    if context.invoked_subcommand is None:
        context.obj = _settings(context.meta.get(CHOICE, Choice()))
        context.invoke(serve)


def main() -> None:
    """Run the command line; what the console script calls."""
    cli(prog_name="reme-mcp")


@cli.command()
@click.option("--http", is_flag=True, help="Serve many clients, at /mcp (Streamable HTTP) and /sse.")
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
    http: bool = False,
    transport: str = "stdio",
    host: str | None = None,
    port: int | None = None,
    without_auth: str | None = None,
) -> None:
    """Serve MCP clients: one over stdin and stdout (the default), or many over HTTP."""
    import anyio

    from reme_mcp.lasterror import Keeper

    given = {"http.host": host, "http.port": port, "http.without_auth": without_auth}
    overrides = {key: str(value) for key, value in given.items() if value is not None}
    settings: Settings = context.obj
    if http and transport == "sse":
        raise click.UsageError("--http serves /sse as well; give one of --http and --transport sse")
    transport = "http" if http else transport
    logging.getLogger("reme_mcp").addHandler(Keeper(settings.own_folder, _redactor(settings)))
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


def _redactor(settings: Settings) -> Redact:
    return redactor(settings.redaction.also, enabled=settings.redaction.enabled)
