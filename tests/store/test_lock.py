"""The lock: one holder at a time, and nobody kept out by somebody who gave up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.progress import on_wait
from reme_mcp.store.lock import ProcessLock
from tests.fakes import draft

pytestmark = pytest.mark.anyio


async def test_who_finds_it_held_is_told_and_does_not_wait(tmp_path: Path) -> None:
    lock, of_another_process = ProcessLock(tmp_path / "a.lock"), ProcessLock(tmp_path / "a.lock")
    told: list[bool] = []

    async def look(one: ProcessLock) -> None:
        async with one.unless_held() as ours:
            told.append(ours)

    async with lock.unless_held() as held, anyio.create_task_group() as tasks:
        assert held
        tasks.start_soon(look, lock)
        tasks.start_soon(look, of_another_process)
    assert told == [False, False]
    await look(of_another_process)
    assert told[-1]


async def test_who_gives_up_waiting_keeps_nobody_out(tmp_path: Path) -> None:
    lock, of_another_process = ProcessLock(tmp_path / "a.lock"), ProcessLock(tmp_path / "a.lock")
    given_up: list[bool] = []

    async def wait() -> None:
        with anyio.move_on_after(0.05) as scope:
            async with lock:
                pytest.fail("it was given up before")
        given_up.append(scope.cancelled_caught)

    async with of_another_process, anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
    assert given_up == [True]
    with anyio.fail_after(10):
        async with lock.unless_held() as ours:
            assert ours


async def test_who_gives_up_holding_it_keeps_nobody_out(tmp_path: Path) -> None:
    lock, of_another_process = ProcessLock(tmp_path / "a.lock"), ProcessLock(tmp_path / "a.lock")
    with anyio.CancelScope() as scope:
        async with lock.unless_held() as ours:
            assert ours
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with anyio.fail_after(10):
        async with of_another_process.unless_held() as ours:
            assert ours


async def test_a_place_without_a_folder_is_named(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "file" / "a.lock")
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        with pytest.raises(StoreError, match=r"can't lock .*a\.lock"):
            async with lock.unless_held():
                pytest.fail("it can't be held")


# Holds all locks of a home, and says so.
HOLDER = """
import sys, anyio
from pathlib import Path
from reme_mcp.store.location import Folder
from reme_mcp.store.migrations import exclusive

async def main():
    async with exclusive(Folder(Path(sys.argv[1]))):
        print("held", flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


@contextmanager
def stopped_holder(home: Path) -> Iterator[int]:
    """Give the process id of a process that is stopped while it holds every lock of the home."""
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(home)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        child.send_signal(signal.SIGSTOP)
        yield child.pid
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be stopped there")
async def test_waiting_again_for_a_stopped_process_costs_no_further_thread(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "a.lock", wait_s=0.05)
    async with ProcessLock(tmp_path / "a.lock"):
        threads: list[int] = []
        for _ in range(4):
            with pytest.raises(StoreError, match="nothing was stored"):
                await lock.__aenter__()
            threads.append(threading.active_count())
    assert len(set(threads)) == 1
    with anyio.fail_after(10):
        async with lock:
            pass


async def test_who_waits_for_a_stopped_process_says_so_and_then_gives_up_and_names_it(tmp_path: Path) -> None:
    told: list[str] = []

    async def tell(what: str) -> None:
        told.append(what)

    on_wait.set(tell)
    lock = ProcessLock(tmp_path / "pool.lock", wait_s=1.2)
    with stopped_holder(tmp_path) as pid:
        with pytest.raises(StoreError, match=rf"process {pid} \(reme-mcp\) has held pool\.lock for 1\.2 s.*try again"):
            async with lock:
                pytest.fail("it can't be held")
        assert told == [f"Waiting for process {pid} (reme-mcp), which holds pool.lock"]
        with pytest.raises(StoreError, match=rf"process {pid} .* for 0\.01 s"):
            async with lock.within(0.01):
                pytest.fail("it can't be held")
    # The operating system lets go of it for the dead.
    with anyio.fail_after(10):
        async with lock:
            assert lock.holder() == f"another call of this process ({os.getpid()})"


@pytest.mark.skipif(sys.platform == "win32", reason="no process can be stopped there")
async def test_a_recall_goes_without_a_receipt_where_a_stopped_process_holds_the_pool(home: Path) -> None:
    settings = Settings(home=str(home), embedder=EmbedderSettings(provider="none"))
    async with Memory.open(settings) as memory:
        added = (await memory.record("blog", outcome="success", experiences=[draft(0)], source="test")).added
    with stopped_holder(home):
        async with Memory.open(settings) as memory:
            recalled = await memory.recall("a static site has to go online", source="test")
    assert [one.id for one in recalled.experiences] == added
    assert recalled.receipt == ""
    assert "This recall is not counted (another process holds" in recalled.note
    assert "ledger.db" in recalled.note


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
async def test_the_file_of_a_lock_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with ProcessLock(tmp_path / "lock"):
            assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)
