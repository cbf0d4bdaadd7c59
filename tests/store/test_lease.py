"""One holder at a time across machines, on a real S3 protocol server: the living keep it, the dead lose it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from reme_mcp.errors import StoreError
from reme_mcp.store import lease as leases
from reme_mcp.store.lease import Lease
from reme_mcp.store.object_store import Objects, Version
from tests.s3_server import KEY, KEY_ID, s3_server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DEADLINE_S = 60

# Holds the lease and says so; then says at each line that it is sent whether it may still write.
HOLDER = """
import sys
import anyio, anyio.to_thread
from reme_mcp.store import lease as leases
from reme_mcp.errors import StoreError
from reme_mcp.store.object_store import Objects
from tests.store.test_lease import hasten, options

async def main():
    lease = leases.Lease(Objects(sys.argv[2], options(sys.argv[1])), "pool")
    async with lease:
        print("held", flush=True)
        while await anyio.to_thread.run_sync(sys.stdin.readline):
            try:
                print("may write" if lease.left() > 0 else "?", flush=True)
            except StoreError as exc:
                print(exc, flush=True)

hasten(leases)
anyio.run(main)
"""


def options(server: str) -> dict[str, str]:
    return {
        "aws_endpoint": server,
        "aws_region": "us-east-1",
        "aws_access_key_id": KEY_ID,
        "aws_secret_access_key": KEY,
        "allow_http": "true",
    }


def hasten(module: object) -> None:
    """Let a lease end after two seconds, so that tests need not wait for long."""
    for name, seconds in (("LEASE_S", 2.0), ("HELD_S", 1.2), ("RENEW_EVERY_S", 0.3)):
        setattr(module, name, seconds)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an address that no other test uses."""
    return f"s3://team/{tmp_path_factory.mktemp('lease').name}"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEASE_S", "HELD_S", "RENEW_EVERY_S"):
        monkeypatch.setattr(leases, name, getattr(leases, name))
    hasten(leases)


def lease(server: str, place: str) -> Lease:
    return Lease(Objects(place, options(server)), "pool")


@contextmanager
def holder(server: str, place: str) -> Iterator[subprocess.Popen[str]]:
    """Run another process that holds the lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, server, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.stdin.close()
        process.wait(DEADLINE_S)
        process.stdout.close()


def ask(process: subprocess.Popen[str]) -> str:
    """Return whether the other process may still write, as it says itself."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


async def taken_after(lease: Lease) -> float:
    """Take the lease as soon as nobody holds it, and return after how many seconds that was."""
    began = time.monotonic()
    while time.monotonic() < began + DEADLINE_S:
        async with lease.unless_held() as ours:
            if ours:
                return time.monotonic() - began
    pytest.fail("it is held for ever")


async def test_one_task_of_all_replicas_holds_it_at_a_time(server: str, place: str) -> None:
    inside: list[int] = []
    most = 0
    done = 0

    async def work(lease: Lease) -> None:
        nonlocal most, done
        async with lease:
            inside.append(1)
            most = max(most, len(inside))
            await Objects(place, options(server)).names()
            inside.pop()
            done += 1

    replicas = [lease(server, place) for _ in range(3)]
    with anyio.fail_after(DEADLINE_S):
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(work, replicas[number % 3])
    assert (done, most) == (30, 1)


async def test_without_it_several_are_inside_at_once(server: str, place: str) -> None:
    """The sibling: the test above can see a lease that does not work."""
    inside: list[int] = []
    most = 0

    async def work() -> None:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        await Objects(place, options(server)).names()
        inside.pop()

    async with anyio.create_task_group() as tasks:
        for _ in range(30):
            tasks.start_soon(work)
    assert most > 1


async def test_who_does_not_want_to_wait_is_told_at_once(server: str, place: str) -> None:
    first, second = lease(server, place), lease(server, place)
    async with first, second.unless_held() as ours:
        assert not ours
    async with second.unless_held() as ours:
        assert ours
    async with first.unless_held() as ours:
        assert ours


@pytest.mark.usefixtures("quick")
async def test_the_lease_of_a_killed_process_is_taken_over_once_it_is_old(server: str, place: str) -> None:
    with holder(server, place) as process:
        process.kill()
        process.wait(DEADLINE_S)
        assert await taken_after(lease(server, place)) >= leases.LEASE_S


@pytest.mark.usefixtures("quick")
async def test_a_process_that_lives_keeps_it_for_as_long_as_it_wants(server: str, place: str) -> None:
    other = lease(server, place)
    with holder(server, place) as process:
        until = time.monotonic() + 2 * leases.LEASE_S
        while time.monotonic() < until:
            async with other.unless_held() as ours:
                assert not ours
        assert ask(process) == "may write"


@pytest.mark.usefixtures("quick")
async def test_a_process_that_was_stopped_for_too_long_may_not_write_any_more(server: str, place: str) -> None:
    with holder(server, place) as process:
        process.send_signal(signal.SIGSTOP)
        assert await taken_after(lease(server, place)) > 0
        process.send_signal(signal.SIGCONT)
        assert ask(process) == (
            f"this process was held up for longer than its turn at {place} lasts, and wrote nothing more; try again"
        )


@pytest.mark.usefixtures("quick")
async def test_a_process_that_was_stopped_for_a_moment_goes_on(server: str, place: str) -> None:
    with holder(server, place) as process:
        process.send_signal(signal.SIGSTOP)
        async with lease(server, place).unless_held() as ours:
            assert not ours
        process.send_signal(signal.SIGCONT)
        assert ask(process) == "may write"


async def test_whoever_holds_nothing_may_not_write(server: str, place: str) -> None:
    one = lease(server, place)
    with pytest.raises(StoreError, match="held up"):
        one.left()
    async with one:
        assert 0 < one.left() <= leases.HELD_S < leases.LEASE_S
    with pytest.raises(StoreError, match="held up"):
        one.left()


async def test_a_waiter_that_gives_up_keeps_nobody_out(server: str, place: str) -> None:
    first, second = lease(server, place), lease(server, place)
    async with first:
        with anyio.move_on_after(0.3) as scope:
            async with second:
                pytest.fail("two hold it")
        assert scope.cancelled_caught
    with anyio.fail_after(DEADLINE_S):
        async with second:
            pass


async def test_an_error_inside_lets_go_of_it_and_stays_what_it_is(server: str, place: str) -> None:
    first, second = lease(server, place), lease(server, place)
    with pytest.raises(KeyError, match="of the block"):
        async with first:
            raise KeyError("of the block")
    async with second.unless_held() as ours:
        assert ours


@pytest.mark.usefixtures("quick")
async def test_what_cannot_be_read_is_held_by_somebody_until_it_is_old(server: str, place: str) -> None:
    assert await Objects(place, options(server)).create("locks/pool.json", b"\xff no JSON") is not None
    assert await taken_after(lease(server, place)) >= leases.LEASE_S


async def test_of_two_that_replace_the_same_version_one_is_refused(server: str, place: str) -> None:
    objects = Objects(place, options(server))
    first = await objects.create("a.json", b"1")
    assert isinstance(first, Version)
    assert await objects.create("a.json", b"2") is None
    second = await objects.replace("a.json", b"3", first)
    assert isinstance(second, Version)
    assert await objects.replace("a.json", b"4", first) is None
    assert await objects.read("a.json") == (b"3", second)
    assert await objects.read("b.json") is None
    assert await objects.names() == {"a.json"}


async def test_a_storage_that_refuses_is_an_error_that_says_where(server: str) -> None:
    with pytest.raises(StoreError, match=r"can't write s3://nobodys/home/locks/pool\.json: .*rights and network"):
        async with lease(server, "s3://nobodys/home"):
            pytest.fail("there is no such bucket")


def test_the_holder_gives_up_before_others_take_over() -> None:
    assert leases.RENEW_EVERY_S * 2 < leases.HELD_S
    assert leases.LEASE_S - leases.HELD_S >= 5
