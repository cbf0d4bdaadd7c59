"""The lock: one holder at a time, and nobody kept out by somebody who gave up."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from reme_mcp.errors import StoreError
from reme_mcp.store.lock import ProcessLock

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
