"""The command line: `reme-mcp` serves; the other commands look after the pool by hand.

In:  arguments, settings from file, environment and options.
Out: a running server, or what the command prints.
Does not know: what a command does; each stands in the file that `COMMANDS` names, imported when it is called, because
               the server has to start fast.
"""

from __future__ import annotations

import copy
import difflib
import functools
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from reme_mcp import __version__, tracing
from reme_mcp.cli.options import Choice, settings_of
from reme_mcp.cli.output import PROGRAM, examples, make_writable
from reme_mcp.cli.screen import fitted

# Which file each command is in, and its function there; `--help` lists them in these groups and this order.
GROUPS = {
    "Use it": {
        "demo": ("demo", "demo"),
        "recall": ("tools", "recall"),
        "record": ("tools", "record"),
        "rate": ("tools", "rate"),
        "ui": ("ui", "ui"),
    },
    "Look after it": {
        "list": ("pool", "list_pool"),
        "show": ("pool", "show"),
        "edit": ("edit", "edit"),
        "review": ("review", "review"),
        "archive": ("pool", "archive"),
        "restore": ("pool", "restore"),
        "pin": ("pool", "pin"),
        "unpin": ("pool", "unpin"),
        "delete": ("pool", "delete"),
        "prune": ("pool", "prune"),
        "stats": ("pool", "stats"),
        "log": ("log", "log"),
        "backup": ("files", "make_backup"),
        "restore-backup": ("files", "restore_backup"),
    },
    "Share it": {
        "export": ("files", "export"),
        "import": ("files", "import_files"),
        "serve": ("serve", "serve"),
        "token": ("tokens", "token"),
        "deploy": ("serve", "deploy"),
        "bundle": ("publish", "bundle"),
        "server-json": ("publish", "server_json"),
    },
    "Connect it": {
        "install": ("clients", "install"),
        "uninstall": ("clients", "uninstall"),
        "plugin": ("claude_code", "plugin"),
        "hook": ("claude_code", "hook"),
        "doctor": ("doctor", "doctor"),
        "completion": ("main", "completion"),
    },
    "Let it learn, by a model or by hand": {
        "attempts": ("attempts", "attempts"),
        "queue": ("queue", "queue"),
        "distill": ("queue", "distill_queue"),
    },
}
COMMANDS = {name: place for group in GROUPS.values() for name, place in group.items()}
# They get the `Choice` and read the settings themselves, to say what is wrong with them or what of them is chosen.
WITH_CHOICE = ("plugin", "hook", "install", "doctor")
# They have nothing to do with a pool.
WITHOUT_POOL = ("demo", "uninstall", "bundle", "server-json", "completion")
CHOICE = "reme_mcp.cli.options"
EXAMPLES = """\b
Examples:
  reme-mcp install claude-code            tell Claude Code to start it
  reme-mcp install cursor --project .     the same for Cursor, in this project
  reme-mcp recall "deploy the blog"       what the pool says about a task
  reme-mcp list --workspace team --json   the experiences of another workspace
"""


class Commands(click.Group):
    """A group whose commands are imported when they are called, and take its options as well."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, those of this file first."""
        return [*self.commands, *COMMANDS]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands in groups."""
        for title, group in GROUPS.items():
            found = [(name, self.get_command(ctx, name)) for name in group]
            room = formatter.width - 6 - max(map(len, COMMANDS))
            rows = [(name, one.get_short_help_str(room)) for name, one in found if one is not None]
            with formatter.section(title):
                formatter.write_dl(rows, col_max=max(map(len, COMMANDS)) + 2)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named first, or say which name is like it."""
        name = args[0]
        if not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, COMMANDS, n=3, cutoff=0.5)
            say_near = f" Did you mean {' or '.join(near)}?" if near else ""
            ctx.fail(f"There is no command {name!r}.{say_near}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; what is wrong is told in lines that fit the terminal."""
        try:
            return super().invoke(ctx)
        except click.ClickException as exc:
            if sys.stderr.isatty():
                exc.message = fitted(exc.message, before=len("Error: "))  # type: ignore[misc]  # it is what `show` prints
            raise

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name, or `None`."""
        if cmd_name in COMMANDS:
            module, function = COMMANDS[cmd_name]
            command = getattr(import_module(f"reme_mcp.cli.{module}"), function)
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
        context.obj = settings_of(choice) if with_settings else choice
        return callback(*args, **options)

    return run


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
        context.obj = settings_of(context.meta.get(CHOICE, Choice()))
        from reme_mcp.cli.serve import serve

        context.invoke(serve)


def main() -> None:
    """Run the command line and end the process; what the console script calls."""
    for stream in (sys.stdout, sys.stderr):
        make_writable(stream)
    try:
        _run()
    except SystemExit as exc:
        # All that a command opened is closed by now. Taking the interpreter down would take time, and abort where a
        # thread that nobody waits for comes back out of an extension: one that loads a model.
        code = exc.code or 0
        if isinstance(code, int):
            tracing.flush()
            os._exit(code)
        raise


def _run() -> None:
    """Run the command line; ends in `SystemExit`, with all that was printed on its way."""
    try:
        try:
            cli(prog_name=PROGRAM)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except* BrokenPipeError:
        # Whoever reads has enough, as `head` does; click knows this error, but not inside a group.
        sys.exit(1)


SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog=examples(
        'eval "$(reme-mcp completion bash)"                                     in ~/.bashrc',
        'eval "$(reme-mcp completion zsh)"                                      in ~/.zshrc',
        "reme-mcp completion fish > ~/.config/fish/completions/reme-mcp.fish    once",
    )
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands and options."""
    found = get_completion_class(shell)
    assert found is not None
    variable = f"_{PROGRAM.replace('-', '_').upper()}_COMPLETE"
    click.echo(found(context.find_root().command, {}, PROGRAM, variable).source())
