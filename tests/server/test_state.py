"""The memory behind a server, which is opened after the handshake: what becomes of calls where that fails."""

from __future__ import annotations

import anyio
import pytest
from mcp import Client

from reme_mcp.config.settings import Settings
from reme_mcp.server.app import build_server

pytestmark = pytest.mark.anyio


async def test_a_server_whose_memory_can_not_be_opened_goes_on_and_tries_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed = anyio.Event()

    def fail(module: str) -> None:
        anyio.from_thread.run_sync(failed.set)
        raise ImportError(f"no {module} is here")

    monkeypatch.setattr("reme_mcp.server.state.import_for_good", fail)
    async with Client(build_server(settings)) as client:
        await client.list_tools()
        with anyio.fail_after(30):
            await failed.wait()
        answer = await client.call_tool("recall_experiences", {"task": "lock the car"})
        assert answer.is_error
        monkeypatch.undo()
        answer = await client.call_tool("recall_experiences", {"task": "lock the car"})
        assert not answer.is_error
    assert "no reme_mcp.memory.memory is here" in caplog.text
