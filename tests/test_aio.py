"""What is asked for by many at once is done once for all of them, and nobody is left out when something goes wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from reme_mcp.aio import BREATH_S, LONGEST_WAIT_S, Batcher, WorkerThread, let_others_go_first
from reme_mcp.errors import StoreError
from reme_mcp.store.ledger import Change, Put
from reme_mcp.store.sqlite_ledger import SqliteLedger
from reme_mcp.store.store import Store
from tests.fakes import line

pytestmark = pytest.mark.anyio

DEADLINE_S = 30


class Done:
    """What is done, as a list of the items that came together; fails or waits where it is told to."""

    def __init__(self) -> None:
        self.rounds: list[list[int]] = []
        self.turn = anyio.Lock()
        self.goes_on = anyio.Event()
        self.goes_on.set()
        self.failure: Exception | None = None
        self.gathering = Batcher[int](lambda: self.turn, self._do)

    async def _do(self, items: list[int]) -> None:
        self.rounds.append(items)
        await self.goes_on.wait()
        if self.failure is not None:
            raise self.failure


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while not condition():
            await checkpoint()


async def settled() -> None:
    """Let every task that can run do so."""
    for _ in range(20):
        await checkpoint()


async def test_one_that_comes_alone_is_served_at_once() -> None:
    done = Done()
    await done.gathering.submit([1])
    await done.gathering.submit([2])
    await done.gathering.submit()
    assert done.rounds == [[1], [2], []]


async def test_those_who_wait_for_the_same_turn_are_served_together() -> None:
    done = Done()
    async with anyio.create_task_group() as tasks, done.turn:
        for number in range(10):
            tasks.start_soon(done.gathering.submit, [number])
        await settled()
    assert done.rounds == [list(range(10))]


async def test_who_comes_when_it_has_begun_is_served_afterwards() -> None:
    done = Done()
    done.goes_on = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(done.gathering.submit, [1])
        await until(lambda: done.rounds == [[1]])
        tasks.start_soon(done.gathering.submit, [2])
        tasks.start_soon(done.gathering.submit, [3])
        await settled()
        assert done.rounds == [[1]]
        done.goes_on.set()
    assert done.rounds == [[1], [2, 3]]


async def test_a_failure_reaches_all_of_its_round_and_none_of_the_next() -> None:
    done = Done()
    done.failure = StoreError("the disk is full")
    failures: list[str] = []

    async def submit(number: int) -> None:
        try:
            await done.gathering.submit([number])
        except StoreError as exc:
            failures.append(str(exc))

    async with anyio.create_task_group() as tasks, done.turn:
        for number in range(3):
            tasks.start_soon(submit, number)
        await settled()
    assert failures == ["the disk is full"] * 3
    done.failure = None
    await done.gathering.submit([7])
    assert done.rounds == [[0, 1, 2], [7]]


@pytest.mark.parametrize("has_begun", [False, True])
async def test_the_others_go_on_when_the_one_that_was_to_do_it_is_cancelled(has_begun: bool) -> None:
    done = Done()
    done.goes_on = anyio.Event()
    cancelled = anyio.CancelScope()

    async def first() -> None:
        with cancelled:
            await done.gathering.submit([1])

    async with anyio.create_task_group() as tasks:
        await done.turn.acquire()
        tasks.start_soon(first)
        await settled()
        tasks.start_soon(done.gathering.submit, [2])
        tasks.start_soon(done.gathering.submit, [3])
        await settled()
        if has_begun:
            done.turn.release()
            await until(lambda: done.rounds == [[1, 2, 3]])
        cancelled.cancel()
        await settled()
        if not has_begun:
            done.turn.release()
        done.goes_on.set()
    assert done.rounds == ([[1, 2, 3], [2, 3]] if has_begun else [[2, 3]])


async def test_an_error_of_another_kind_is_for_who_met_it_and_the_others_try_themselves() -> None:
    done = Done()
    done.failure = ValueError("a bug")
    met: list[Exception] = []

    async def submit(number: int) -> None:
        try:
            await done.gathering.submit([number])
        except ValueError as exc:
            met.append(exc)
            done.failure = None

    async with anyio.create_task_group() as tasks, done.turn:
        for number in range(3):
            tasks.start_soon(submit, number)
        await settled()
    assert len(met) == 1
    assert done.rounds == [[0, 1, 2], [1, 2]]


async def test_receipts_of_recalls_at_the_same_time_are_few_writes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = SqliteLedger.write

    async def counted(self: SqliteLedger, changes: Sequence[Change], **how: Any) -> None:
        writes.append(sum(len(one.values) for one in changes if isinstance(one, Put)))
        await write(self, changes, **how)

    store = await Store.open(home)
    monkeypatch.setattr(SqliteLedger, "write", counted)
    with closing(sqlite3.connect(home / "pool" / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as tasks:
            for number in range(12):
                tasks.start_soon(store.add_receipt, [line(f"r-{number}")])
            await settled()
            assert await store.receipts.lines("default", "r-0") == []
            other.execute("ROLLBACK")
    # The first may be on its way before the others have come; those wait for it together.
    assert writes in ([12], [1, 11])
    assert [len(await store.receipts.lines("default", f"r-{number}")) for number in range(12)] == [1] * 12
    await store.add_receipt([line("r-alone")])
    assert writes[-1] == 1
    store.close()


LEFT_BEHIND = """
    import atexit, threading
    import anyio
    from reme_mcp.aio import in_daemon_thread

    def work():
        started.set()
        ends.wait()
        print("still there" if not is_over.wait(0.2) else "too late", flush=True)

    async def main():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(in_daemon_thread, work)
            await anyio.to_thread.run_sync(started.wait)
            tasks.cancel_scope.cancel()

    started, ends, is_over = threading.Event(), threading.Event(), threading.Event()
    # What is registered last is called first.
    atexit.register(is_over.set)
    anyio.run(main)
    atexit.register(ends.set)
"""


async def test_a_worker_thread_begins_at_once_and_does_one_thing_after_the_other() -> None:
    worker, began, done = WorkerThread(), threading.Event(), list[int]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(worker.run, began.set)
        for number in range(3):
            tasks.start_soon(worker.run, partial(done.append, number))
        await checkpoint()
        # Nobody in the loop has another turn meanwhile.
        assert began.wait(DEADLINE_S)
    assert done == [0, 1, 2]
    worker.close()


async def test_what_fails_in_a_worker_thread_is_told_to_who_waits_and_the_next_is_done() -> None:
    worker = WorkerThread()
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 1 // 1) == 1
    worker.close()


async def test_who_is_cancelled_waits_for_a_worker_thread() -> None:
    worker, goes_on, done = WorkerThread(), threading.Event(), list[bool]()

    async def wait_and_note() -> None:
        try:
            await worker.run(goes_on.wait)
        finally:
            done.append(goes_on.is_set())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait_and_note)
        await settled()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await settled()
        goes_on.set()
    assert done == [True]
    worker.close()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_that_asyncio_cancels_waits_for_a_worker_thread_and_is_cancelled(fails: bool) -> None:
    worker, began, goes_on = WorkerThread(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        goes_on.wait()
        if fails:
            raise StoreError("the disk is full")

    task = asyncio.create_task(worker.run(work))
    await until(began.is_set)
    # As Ctrl-C does, and again.
    for _ in range(2):
        task.cancel()
        await settled()
        assert not task.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    worker.close()


async def test_a_worker_thread_ends_when_it_is_closed() -> None:
    worker = WorkerThread()
    thread = await worker.run(threading.current_thread)
    assert thread.is_alive()
    worker.close()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


async def test_an_interpreter_waits_for_a_thread_that_is_left_behind() -> None:
    command = [sys.executable, "-c", textwrap.dedent(LEFT_BEHIND)]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=True)  # noqa: ASYNC221
    assert done.stdout == b"still there\n"


async def test_what_nobody_waits_for_stands_back_while_others_work_and_goes_on_all_the_same() -> None:
    is_over = False

    async def work() -> None:
        while not is_over:
            # As a page does that is being rendered.
            time.sleep(5 * BREATH_S)  # noqa: ASYNC251
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        started = time.monotonic()
        for _ in range(3):
            await let_others_go_first()
        assert time.monotonic() - started >= 3 * LONGEST_WAIT_S
        is_over = True
