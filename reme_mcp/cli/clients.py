"""The entry in a client's file, by hand: `install` puts it there, `uninstall` takes it away."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from reme_mcp.cli.options import Choice, left_behind
from reme_mcp.cli.output import PROGRAM, as_json_option, examples, to_json
from reme_mcp.cli.screen import say, show_below
from reme_mcp.clients import installer
from reme_mcp.clients.catalog import CLIENTS, Client, client_of, this_machine
from reme_mcp.clients.entry import Entry, alone, shape, typed
from reme_mcp.clients.installer import Change
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ConfigError, ReMeError

# What most clients that are not named here read.
ANY_OTHER = Client(
    name="",
    title="any other client",
    form="json",
    servers="mcpServers",
    has_type=False,
    user_file=lambda machine: machine.home,
    project_file="",
    source="modelcontextprotocol.io",
    then="Put it where the client keeps its MCP servers, over stdio; its own manual says where that is.",
)


def _complete_client(context: click.Context, argument: click.Parameter, begun: str) -> list[CompletionItem]:
    return [CompletionItem(one.name, help=one.title) for one in CLIENTS if one.name.startswith(begun)]


client_argument = click.argument("client_name", required=False, metavar="[CLIENT]", shell_complete=_complete_client)
project_option = click.option(
    "--project",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="For the project in this folder, instead of for all of your work.",
)
file_option = click.option(
    "--file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Another file than the usual one."
)
name_option = click.option(
    "--name", default=installer.NAME, show_default=True, help="Of the entry; another one for a second workspace."
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Only show the difference.")


@click.command(
    epilog=examples(
        "reme-mcp install claude-desktop",
        "reme-mcp install claude-code --project .             in this project's .mcp.json",
        "reme-mcp install vscode --dry-run                    show what would change",
        "reme-mcp install codex --workspace team --name team  a second entry, for another workspace",
        "reme-mcp install zed --print                         the entry, to paste by hand",
        "reme-mcp install --print                             the same for any other client",
    )
)
@client_argument
@project_option
@file_option
@name_option
@click.option("--print", "only_print", is_flag=True, help="Print the entry and where it goes; write nothing.")
@dry_run_option
@as_json_option
@click.pass_obj
def install(
    choice: Choice,
    client_name: str | None,
    project: Path | None,
    file: Path | None,
    name: str,
    only_print: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Tell CLIENT to start this server.

    Without CLIENT, the clients are listed with the entries that they have. CLIENT is claude-desktop, claude-code,
    cursor, vscode, windsurf, zed, gemini or codex.

    The entry names this very program by its absolute path, and --home, --workspace, --config and --set as they are
    given here. Everything else in the client's file stays as it is, comments too; what it held before is kept beside
    it, with the ending .before-reme-mcp. A file that can't be read is left alone. Doing it again changes nothing, or
    brings the entry up to date.
    """
    try:
        if client_name is None and not only_print:
            _show_clients(project, as_json=as_json)
            return
        client = ANY_OTHER if client_name is None else client_of(client_name)
        settings = _settings(choice)
        own = installer.own_command(sys.argv[0], sys.executable)
        entry = Entry(own.command, (*own.args, *choice.arguments(settings, os.environ)))
        if only_print:
            _print_entry(client, name, entry, as_json=as_json)
            return
        change = installer.add(client, _file(client, project, file), name, entry, dry_run=dry_run)
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc
    _show_change(change, client, name, dry_run=dry_run, as_json=as_json)
    if as_json:
        return
    if change.is_one and not dry_run:
        say(client.project_then if project is not None and client.project_then else client.then, err=True)
        if project is not None:
            say("Its path is this machine's: others who share the project need their own.", err=True)
    _warn(entry, choice)


@click.command(
    epilog=examples(
        "reme-mcp uninstall cursor",
        "reme-mcp uninstall claude-code --project . --dry-run",
    )
)
@client_argument
@project_option
@file_option
@name_option
@dry_run_option
@as_json_option
def uninstall(
    client_name: str | None,
    project: Path | None,
    file: Path | None,
    name: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take the entry out of CLIENT's file.

    Without CLIENT, the clients are listed with the entries that they have. If nothing else has changed in the file
    since `install`, it is afterwards as it was before, and the copy that `install` kept beside it is removed. Otherwise
    what it held is kept there. The memory stays.
    """
    try:
        if client_name is None:
            _show_clients(project, as_json=as_json)
            return
        client = client_of(client_name)
        change = installer.remove(client, _file(client, project, file), name, dry_run=dry_run)
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc
    _show_change(change, client, name, dry_run=dry_run, as_json=as_json)


def _settings(choice: Choice) -> Settings:
    """Return the settings that the server would start with."""
    try:
        return choice.settings(os.environ)
    except ConfigError as exc:
        raise ConfigError(f"{exc} (a server that a client starts would end with that: correct it first)") from exc


def _file(client: Client, project: Path | None, file: Path | None) -> Path:
    if file is not None:
        return Path(os.path.abspath(file))
    return client.file(this_machine(), None if project is None else Path(os.path.abspath(project)))


def _show_clients(project: Path | None, *, as_json: bool) -> None:
    machine = this_machine()
    folder = Path(os.path.abspath(project or Path.cwd()))
    found = installer.find_all(machine, folder)
    rows = []
    for client in CLIENTS:
        own = [one for one in found if one.client == client]
        for one in own:
            said = one.trouble or typed(one.entry)
            rows.append((client.name, "can't be read" if one.entry is None else one.name, str(one.file), said))
        if not own:
            rows.append((client.name, "", str(client.file(machine, None)), ""))
    if as_json:
        columns = ("client", "entry", "file", "says")
        click.echo(to_json([dict(zip(columns, row, strict=True)) for row in rows]))
        return
    shown = [(client, entry or "no entry", f"{file}\n{says}".strip()) for client, entry, file, says in rows]
    show_below(shown, piped=rows)


def _print_entry(client: Client, name: str, entry: Entry, *, as_json: bool) -> None:
    if as_json:
        click.echo(to_json({name: shape(client, entry)}))
        return
    click.echo(alone(client, name, entry), nl=False)
    if client is ANY_OTHER:
        say(client.then, err=True)
        return
    # On stderr, so that the entry alone goes into a pipe.
    lines = [f"\n{client.title} ({client.source})", f"  for all of your work  {client.file(this_machine(), None)}"]
    if client.project_file:
        lines.append(f"  for one project       {client.project_file} in its folder; --project DIR")
    lines.append(f"  then                  {client.then}")
    if client.project_then:
        lines.append(f"                        For a project: {client.project_then}")
    lines.append(
        f"  done for you          {PROGRAM} install {client.name}; undone by {PROGRAM} uninstall {client.name}"
    )
    say("\n".join(lines), err=True)


def _show_change(change: Change, client: Client, name: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        click.echo(
            to_json(
                {
                    "client": client.name,
                    "name": name,
                    "file": change.file,
                    "changed": change.is_one and not dry_run,
                    "backup": change.backup,
                    # Other entries in it may hold keys.
                    "diff": change.diff() if dry_run else "",
                }
            )
        )
    elif dry_run:
        click.echo(change.diff(), nl=False)
        say("Nothing was changed." if change.is_one else f"{change.file} would stay as it is.", err=True)
    elif not change.is_one:
        say(f"{change.file} is as it should be; nothing was changed.")
    elif change.is_undone and change.after is not None:
        say(f"{change.file} is as it was before `{PROGRAM} install`.")
    else:
        verb = "removed" if change.after is None else "changed" if change.before is not None else "written"
        kept = "" if change.backup is None else f"; what it held before is in {change.backup}"
        say(f"{change.file} is {verb}{kept}.")


def _warn(entry: Entry, choice: Choice) -> None:
    if installer.is_passing(entry.command):
        say(
            f"{entry.command} is a copy that is thrown away again; install {PROGRAM} for good, then run this again.",
            err=True,
        )
    if names := left_behind(os.environ):
        say(
            f"{', '.join(names)} is set in this shell only, and the client may not have it; "
            f"what should hold there belongs in {choice.file(os.environ)}.",
            err=True,
        )
