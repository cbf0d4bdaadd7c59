"""`reme-mcp token`: who may use the server over HTTP.

In:  names of holders, their workspaces and roles.
Out: tokens, each shown once; a list of them; their end.
Does not know: how they are kept; `auth/tokens.py` does.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar, get_args

import anyio
import click

from reme_mcp.auth.access import Role
from reme_mcp.auth.tokens import Token, duration, tokens_of
from reme_mcp.cli.output import as_json_option, to_json
from reme_mcp.cli.screen import say, show_below
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ReMeError
from reme_mcp.schema import now

Result = TypeVar("Result")

COLUMNS = ("name", "role", "workspaces", "state", "created", "expires")


@click.group()
def token() -> None:
    """Make, list and revoke the tokens of the server over HTTP."""


@token.command()
@click.argument("name")
@click.option("--workspace", "workspaces", multiple=True, required=True, metavar="NAME", help="Where; more than once.")
@click.option("--role", type=click.Choice(get_args(Role)), default="write", show_default=True, help="What it allows.")
@click.option("--expires", metavar="SPAN", help="After 12h, 90d or 26w; without this it holds until it is revoked.")
@as_json_option
@click.pass_obj
def create(
    settings: Settings, name: str, workspaces: tuple[str, ...], role: Role, expires: str | None, as_json: bool
) -> None:
    """Make a token for NAME and print it, once: it is stored as a hash."""

    async def run() -> tuple[str, Token]:
        expires_in = None if expires is None else duration(expires)
        return await tokens_of(settings).create(name, workspaces, role, expires_in=expires_in)

    text, made = _run(run())
    if as_json:
        click.echo(to_json({"token": text} | _shown(made)))
        return
    say(f"{name} may {role} in {', '.join(made.workspaces)}. This is shown once:", err=True)
    click.echo(text)


@token.command("list")
@as_json_option
@click.pass_obj
def list_tokens(settings: Settings, as_json: bool) -> None:
    """List the tokens, the expired and revoked too; never their texts."""

    async def run() -> list[Token]:
        return sorted(tokens_of(settings).all(), key=lambda one: one.name)

    tokens = [_shown(one) for one in _run(run())]
    if as_json:
        click.echo(to_json(tokens))
    else:
        rows = [tuple(str(value) for value in one.values()) for one in tokens]
        show_below(rows, empty="There are no tokens yet: reme-mcp token create NAME --workspace NAME")


@token.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only show what would be revoked.")
@click.pass_obj
def revoke(settings: Settings, name: str, dry_run: bool) -> None:
    """Revoke the token of NAME; running servers refuse it at once, and end what it has open.

    A revoked token is never valid again, as others may know it; `create` gives the same name a new one.
    """

    async def look() -> Token:
        return tokens_of(settings).named(name)

    if dry_run:
        shown = _shown(_run(look()))
        say(f"{name} would be revoked: {shown['role']} in {shown['workspaces']}, {shown['state']}.")
        return
    _run(tokens_of(settings).revoke(name))
    say(f"{name} is revoked.")


def _run(work: Awaitable[Result]) -> Result:
    async def run() -> Result:
        return await work

    try:
        return anyio.run(run)
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc


def _shown(token: Token) -> dict[str, str]:
    return {
        "name": token.name,
        "role": token.role,
        "workspaces": ", ".join(token.workspaces),
        "state": token.state(now()),
        "created": f"{token.created_at:%Y-%m-%d}",
        "expires": "never" if token.expires_at is None else f"{token.expires_at:%Y-%m-%d %H:%M}",
    }
