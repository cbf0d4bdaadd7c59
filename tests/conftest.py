"""What every test stands on: no network but loopback, no real home folder, no setting from outside.

Async tests say `pytestmark = pytest.mark.anyio`.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reme_mcp.cli.main import cli
from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.memory.memory import Memory
from tests.fakes import Run


@pytest.fixture(autouse=True)
def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the test off the network and out of the user's folders and environment."""
    machine = tmp_path / "machine"
    machine.mkdir()
    for name in list(os.environ):
        if name.startswith("REME_MCP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(machine))
    for name in ("DATA", "CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(machine / name.lower()))
    for connect in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, connect, _only_loopback(getattr(socket.socket, connect)))


def _only_loopback(connect: Callable[[socket.socket, object], object]) -> Callable[[socket.socket, object], object]:
    def guarded(self: socket.socket, address: object) -> object:
        if isinstance(address, tuple) and not _is_loopback(str(address[0])):
            # Not an OSError: code that takes those for a missing network must not pass its test by it.
            pytest.fail(f"a test tried to reach {address}")
        return connect(self, address)

    return guarded


def _is_loopback(host: str) -> bool:
    if host in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio only: LanceDB knows no other loop."""
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for a pool; nobody has made it yet."""
    return tmp_path / "pool-home"


@pytest.fixture
def settings(home: Path) -> Settings:
    """The defaults, with a pool of the test's own and no embedder."""
    return Settings(home=str(home), embedder=EmbedderSettings(provider="none"))


@pytest.fixture
async def memory(settings: Settings) -> AsyncIterator[Memory]:
    """An open memory without any model."""
    async with Memory.open(settings) as memory:
        yield memory


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, on the home of the test and without any model."""
    monkeypatch.setenv("REME_MCP_HOME", str(home))
    monkeypatch.setenv("REME_MCP_EMBEDDER_PROVIDER", "none")

    def invoke(*arguments: str, given: str | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=given)

    return invoke


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return how many workers `-n auto` is: a third of the time, a test waits for something."""
    processors = os.cpu_count() or 1
    return processors + processors // 2
