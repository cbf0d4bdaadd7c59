"""`bundle` packs the one-click bundle of Claude Desktop; `server-json` prints the entry of the MCP registry."""

from __future__ import annotations

from pathlib import Path

import click

from reme_mcp.cli.output import as_json_option, examples, to_json
from reme_mcp.cli.screen import say
from reme_mcp.errors import InvalidInput


@click.command(
    epilog=examples(
        "reme-mcp bundle reme.mcpb",
        "npx @anthropic-ai/mcpb validate …      the format's own check, once it is unpacked",
    )
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json_option
def bundle(file: Path, as_json: bool) -> None:
    """Pack the one-click bundle for Claude Desktop into FILE.

    FILE must be new and should end in .mcpb. Claude Desktop installs it when it is opened, and brings Python and what
    else is needed by itself (that takes a minute the first time). `reme-mcp install claude-desktop` is quicker on a
    machine that has this program already; don't do both.
    """
    from reme_mcp.clients import bundle as bundles
    from reme_mcp.server.tools import TOOLS

    try:
        content = bundles.bundle({tool.name: tool.description for tool in TOOLS})
        with file.open("xb") as written:
            written.write(content)
    except InvalidInput as exc:
        raise click.ClickException(str(exc)) from exc
    except FileExistsError as exc:
        raise click.ClickException(f"{file} exists already; name another file, or remove it") from exc
    except OSError as exc:
        raise click.ClickException(f"can't write {file}: {exc.strerror or exc}") from exc
    if as_json:
        click.echo(to_json({"file": file, "bytes": len(content)}))
    else:
        say(f"{file}, {len(content) // 1000} kB.")


@click.command(
    "server-json",
    epilog=examples(
        "reme-mcp server-json --name io.github.you/reme-mcp > server.json",
        "reme-mcp server-json --name io.github.you/x --bundle x.mcpb --bundle-url URL",
    ),
)
@click.option("--name", required=True, metavar="NAME", help="In the registry: io.github.you/reme-mcp.")
@click.option("--repository", default="", metavar="URL", help="Where the sources are.")
@click.option(
    "--bundle",
    "bundle_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="A bundle that can be fetched, too; with --bundle-url.",
)
@click.option("--bundle-url", default="", metavar="URL", help="Where that bundle can be fetched.")
def server_json(name: str, repository: str, bundle_file: Path | None, bundle_url: str) -> None:
    """Print the server.json for the MCP registry.

    The registry takes it from `mcp-publisher publish`, once the package is on PyPI with a README that says
    `mcp-name: NAME`.
    """
    from reme_mcp.clients import bundle as bundles

    if (bundle_file is None) != (not bundle_url):
        raise click.UsageError(
            "--bundle and --bundle-url go together: the file for its checksum, the address for others"
        )
    content = b"" if bundle_file is None else bundle_file.read_bytes()
    try:
        text = bundles.server_json(name, repository=repository, bundle_url=bundle_url, bundle_bytes=content)
    except InvalidInput as exc:
        raise click.ClickException(str(exc)) from exc
    click.echo(text)
