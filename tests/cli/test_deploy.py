"""What runs the server for good: the unit and the site that are printed, read by the programs they are for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.server.test_stdio import environment

PUBLIC = "http.public_url=https://memory.example.com"


def printed(home: Path, what: str, *settings: str) -> subprocess.CompletedProcess[str]:
    options = [part for setting in settings for part in ("--set", setting)]
    return subprocess.run(
        [sys.executable, "-m", "reme_mcp", *options, "deploy", what],
        env=environment(home), capture_output=True, text=True,
    )  # fmt: skip


def test_the_unit_is_filled_in_from_the_settings(home: Path) -> None:
    plain = printed(home, "systemd").stdout
    assert "REME_MCP_HTTP_" not in plain
    assert "LimitNOFILE=4512\n" in plain
    assert "TimeoutStopSec=45\n" in plain
    unit = printed(home, "systemd", PUBLIC, "http.port=8405").stdout
    assert "Environment=REME_MCP_HTTP_PUBLIC_URL=https://memory.example.com\n" in unit
    assert "Environment=REME_MCP_HTTP_PORT=8405\n" in unit


def test_systemd_finds_nothing_wrong_with_the_unit(home: Path, tmp_path: Path) -> None:
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / "reme-mcp.service"
    # That the program is there is for the machine that it is installed on.
    unit.write_text(
        printed(home, "systemd", PUBLIC).stdout.replace(f"{Path(sys.executable).parent}/reme-mcp", "/bin/true")
    )
    done = subprocess.run([verify, "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, str(unit) in done.stderr) == (0, False), done.stderr


def test_nginx_finds_nothing_wrong_with_the_site(home: Path, tmp_path: Path) -> None:
    nginx, openssl = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"), shutil.which("openssl")
    if nginx is None or openssl is None:
        pytest.skip("there is no nginx, or no openssl to make it a certificate")
    key, certificate = str(tmp_path / "memory.example.com.key"), str(tmp_path / "memory.example.com.crt")
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=memory.example.com", "-days", "1"]
    subprocess.run([openssl, *request, "-keyout", key, "-out", certificate], capture_output=True, check=True)
    site = printed(home, "nginx", PUBLIC, "http.port=8405").stdout
    assert "proxy_pass http://127.0.0.1:8405;" in site
    (tmp_path / "site.conf").write_text(site.replace("/etc/ssl/", f"{tmp_path}/").replace("listen 443", "listen 8443"))
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include {tmp_path}/site.conf; }}"
    )
    done = subprocess.run([nginx, "-t", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_site_without_an_address_is_not_printed(home: Path) -> None:
    done = printed(home, "nginx")
    assert (done.returncode, done.stdout) == (1, "")
    assert "--set http.public_url=https://memory.example.com" in done.stderr
