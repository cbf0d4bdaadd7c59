"""The command line: `reme-mcp` serves; the other commands look after the pool by hand.

In:  arguments, settings from file, environment and options.
Out: a running server, or what the command prints.
Does not know: what a command does; each stands in the file that `COMMANDS` names, imported when it is called, because
               the server has to start fast.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import click

from reme_mcp import tracing
from reme_mcp.aio import import_for_good
from reme_mcp.cli.screen import say
from reme_mcp.config.load import with_overrides
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ReMeError
from reme_mcp.safety.redaction import redactor_of

if TYPE_CHECKING:
    from reme_mcp.http.app import Transport
    from reme_mcp.http.shared import Shared


@click.command()
@click.option("--http", is_flag=True, help="Serve many clients, at /mcp (Streamable HTTP) and /sse.")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http", "sse"]),
    default="stdio",
    help="http is --http; sse is /sse alone.",
)
@click.option("--host", help="Address to listen at, for http and sse. [http] host in the settings.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen at. [http] port in the settings.")
@click.option(
    "--workers", type=click.IntRange(1, 64), help="Processes that answer, for http. [http] workers in the settings."
)
@click.option("--without-auth", metavar="WORDS", help="Ask nobody for a token. [http] without_auth says which words.")
@click.pass_context
def serve(
    context: click.Context,
    http: bool = False,
    transport: str = "stdio",
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
    without_auth: str | None = None,
) -> None:
    """Serve MCP clients: one over stdin and stdout (the default), or many over HTTP."""
    given = {"http.host": host, "http.port": port, "http.workers": workers, "http.without_auth": without_auth}
    overrides = {key: str(value) for key, value in given.items() if value is not None}
    settings: Settings = context.obj
    if http and transport == "sse":
        raise click.UsageError("--http serves /sse as well; give one of --http and --transport sse")
    transport = "http" if http else transport
    _keep_errors(settings)
    try:
        if transport == "stdio":
            if overrides:
                raise click.UsageError("--host, --port, --workers and --without-auth go with --http or --transport sse")
            import_for_good("reme_mcp.server.app")
            from reme_mcp.server.app import serve_stdio

            if sys.stdin.isatty():
                say("reme-mcp waits for an MCP client on stdin; `reme-mcp --help` shows what else it does.", err=True)
            anyio.run(serve_stdio, settings)
        else:
            _serve_http(with_overrides(settings, overrides), ("http", "sse") if transport == "http" else ("sse",))
    except ReMeError as exc:
        raise click.ClickException(str(exc)) from exc
    except KeyboardInterrupt:
        # Ctrl-C is how a person ends a server; nothing acknowledged is lost.
        sys.exit(130)


def _serve_http(settings: Settings, transports: Sequence[Transport]) -> None:
    """Serve in this process, or in several that this one looks after."""
    import_for_good("reme_mcp.http.app")
    from reme_mcp.http.app import Host
    from reme_mcp.http.process import open_port, serve_at, serve_in_workers

    listener = open_port(settings, transports)
    if settings.http.workers == 1:
        anyio.run(serve_at, listener, settings, Host(settings, transports))
    else:
        sys.exit(serve_in_workers(listener, settings, partial(_Work, settings, transports)))


@dataclass(frozen=True, slots=True)
class _Work:
    """What one of several processes does."""

    settings: Settings
    transports: Sequence[Transport]
    shared: Shared

    def __call__(self, number: int, listener: socket.socket, on_started: Callable[[], None]) -> None:
        """Serve until the process is told to end, and end it as `main` does."""
        from reme_mcp.http.app import Host
        from reme_mcp.http.process import serve_at

        _keep_errors(self.settings)
        host = Host(self.settings, self.transports, shared=self.shared, worker=number)
        code: int | str | None = 0
        try:
            anyio.run(partial(serve_at, listener, self.settings, host, on_started=on_started))
        except SystemExit as exc:
            code = exc.code
        except KeyboardInterrupt:
            code = 130
        tracing.flush()
        os._exit(code if isinstance(code, int) else 0)


def _keep_errors(settings: Settings) -> None:
    from reme_mcp.cli.last_error import Keeper

    logging.getLogger("reme_mcp").addHandler(Keeper(settings.own_folder, redactor_of(settings.redaction)))


UNIT = """\
# /etc/systemd/system/reme-mcp.service
[Unit]
Description=reme-mcp, procedural memory for assistants
Wants=network-online.target
After=network-online.target

[Service]
User=reme-mcp
StateDirectory=reme-mcp
StateDirectoryMode=0700
CacheDirectory=reme-mcp
Environment=REME_MCP_EMBEDDER_CACHE_DIR=%C/reme-mcp
{environment}ExecStart={program} --home %S/reme-mcp serve --http
Restart=on-failure
TimeoutStopSec={stop_s}
LimitNOFILE={files}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes

[Install]
WantedBy=multi-user.target
"""

SITE = """\
# /etc/nginx/conf.d/reme-mcp.conf
server {{
    listen 443 ssl;
    server_name {name};
    ssl_certificate     /etc/ssl/{name}.crt;
    ssl_certificate_key /etc/ssl/{name}.key;
    client_max_body_size {body_bytes};

    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Connection "";
    proxy_set_header X-Request-ID $request_id;
    # Streams are passed on as they come, and stay open.
    proxy_buffering off;
    proxy_read_timeout 1h;

    location {prefix}/ {{
        proxy_pass http://127.0.0.1:{port};
    }}
{metadata}    location = {prefix}/metrics {{
        deny all;
    }}
}}
"""


# Where a client looks for the provider of a server below a path: at the root, RFC 9728.
METADATA = """\
    location /.well-known/oauth-protected-resource{prefix}/ {{
        proxy_pass http://127.0.0.1:{port};
    }}
"""


@click.group()
def deploy() -> None:
    """Print what runs the server for good: a systemd unit, an nginx site."""


@deploy.command()
@click.pass_obj
def systemd(settings: Settings) -> None:
    """Print a unit for systemd; it runs as the user reme-mcp, with its home in /var/lib/reme-mcp."""
    from reme_mcp.http.app import DRAIN_S
    from reme_mcp.http.process import MAX_CONNECTIONS

    http = settings.http
    plain = type(http)()
    set_here = {"PUBLIC_URL": http.public_url}
    set_here |= {"PORT": str(http.port)} if http.port != plain.port else {}
    set_here |= {"WORKERS": str(http.workers)} if http.workers != plain.workers else {}
    environment = "".join(f"Environment=REME_MCP_HTTP_{name}={value}\n" for name, value in set_here.items() if value)
    click.echo(
        UNIT.format(
            program=Path(sys.executable).parent / "reme-mcp",
            environment=environment,
            # Calls under way, then answers under way, get as long as the server lets them.
            stop_s=round(2 * DRAIN_S) + 5,
            files=MAX_CONNECTIONS + 512,
        ),
        nl=False,
    )


@deploy.command()
@click.pass_obj
def nginx(settings: Settings) -> None:
    """Print a site for nginx, for the address in [http] public_url."""
    name = urlsplit(settings.http.public_url).hostname
    if name is None:
        raise click.ClickException(
            "the site needs the address that clients use: --set http.public_url=https://memory.example.com"
        )
    from reme_mcp.http.addresses import path_prefix

    port, prefix = settings.http.port, path_prefix(settings.http)
    metadata = METADATA.format(port=port, prefix=prefix) if prefix else ""
    site = SITE.format(name=name, port=port, prefix=prefix, metadata=metadata, body_bytes=settings.http.max_body_bytes)
    click.echo(site, nl=False)
