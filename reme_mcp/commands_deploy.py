"""What runs the server for good: a unit for systemd and a site for nginx, filled in from the settings."""

from __future__ import annotations

import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from reme_mcp.config import Settings

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

    location / {{
        proxy_pass http://127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Connection "";
        proxy_set_header X-Request-ID $request_id;
        # Streams are passed on as they come, and stay open.
        proxy_buffering off;
        proxy_read_timeout 1h;
    }}
    location = /metrics {{
        deny all;
    }}
}}
"""


@click.group()
def deploy() -> None:
    """Print what runs the server for good: a systemd unit, an nginx site."""


@deploy.command()
@click.pass_obj
def systemd(settings: Settings) -> None:
    """Print a unit for systemd; it runs as the user reme-mcp, with its home in /var/lib/reme-mcp."""
    http = settings.http
    set_here = {"PUBLIC_URL": http.public_url, "PORT": "" if http.port == type(http)().port else str(http.port)}
    environment = "".join(f"Environment=REME_MCP_HTTP_{name}={value}\n" for name, value in set_here.items() if value)
    click.echo(
        UNIT.format(
            program=Path(sys.executable).parent / "reme-mcp",
            environment=environment,
            # Calls under way, then answers under way, get as long as the settings say.
            stop_s=round(2 * http.stop_timeout_s) + 5,
            files=http.max_connections + 512,
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
    click.echo(SITE.format(name=name, port=settings.http.port, body_bytes=settings.http.max_body_bytes), nl=False)
