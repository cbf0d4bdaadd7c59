"""`completion` prints what makes a shell complete the commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from reme_mcp.terminal import PROGRAM, examples

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
