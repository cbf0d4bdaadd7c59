"""A home on object storage, on a real S3 protocol server: replicas lose nothing, and what one records others recall."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from reme_mcp.auth.tokens import tokens_of
from reme_mcp.cli.main import cli
from reme_mcp.config.load import load_settings
from reme_mcp.config.settings import AuthSettings, EmbedderSettings, Settings, StorageSettings
from reme_mcp.errors import ConfigError, InvalidInput, StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.store import location
from reme_mcp.store.location import Bucket, location_of
from reme_mcp.store.migrations import MIGRATIONS, new_column
from reme_mcp.store.object_store import Objects
from reme_mcp.store.store import Store
from tests.fakes import experience
from tests.s3_server import KEY, KEY_ID, s3_server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DEADLINE_S = 120
OPERATIONS = 2
TASKS_AT_ONCE = 3

# Says that it is ready, waits for a line, records and rates, several tasks at once, and says what was acknowledged.
REPLICA = """
import hashlib, json, os, sys
import anyio
from reme_mcp.config.load import load_settings
from reme_mcp.memory.memory import Memory

name, operations, tasks_at_once, shared = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]

def say(**what):
    print(json.dumps(what), flush=True)

def words(number, what):
    # Hashes, so that no lesson is taken for another one's twin.
    return hashlib.sha256(f"{name} {number} {what}".encode()).hexdigest()

async def work(memory, task):
    for number in range(operations):
        number = f"{task}-{number}"
        recorded = await memory.record(
            f"one shared task, {name} {number}",
            outcome="success",
            steps=words(number, "steps"),
            experiences=[
                {"when_to_use": words(number, "when"), "content": words(number, "what")},
                {"when_to_use": "Always and everywhere", "content": "What every replica learns each time."},
            ],
            source=f"{name}-{number}",
        )
        say(trajectory=recorded.trajectory_id, learned=[*recorded.added, *(one.id for one in recorded.merged)])
        # A source of its own: its rating replaces none.
        rated = await memory.rate(shared, helpful=True, source=f"{name}-{number}")
        say(rated=rated.experience_id)

async def main():
    async with Memory.open(load_settings(environ=os.environ)) as memory:
        await memory.warm_up(download=False)
        say(ready=name)
        sys.stdin.readline()
        async with anyio.create_task_group() as tasks:
            for task in range(tasks_at_once):
                tasks.start_soon(work, memory, task)

anyio.run(main)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture
def address(tmp_path: Path) -> str:
    """Return the address of a home that no other test uses."""
    return f"s3://team/{tmp_path.name.replace('[', '-').replace(']', '')}/home"


@pytest.fixture
def storage(server: str) -> StorageSettings:
    return StorageSettings(endpoint=server, region="us-east-1", access_key_id=KEY_ID, secret_access_key=SecretStr(KEY))


@pytest.fixture
def settings(address: str, storage: StorageSettings) -> Settings:
    return Settings(home=address, embedder=EmbedderSettings(provider="none"), storage=storage)


@pytest.fixture
def environ(settings: Settings) -> dict[str, str]:
    """Return an environment that says the same as the settings."""
    return {
        "REME_MCP_HOME": settings.home,
        "REME_MCP_EMBEDDER_PROVIDER": "none",
        "REME_MCP_STORAGE_ENDPOINT": settings.storage.endpoint,
        "REME_MCP_STORAGE_REGION": settings.storage.region,
        "REME_MCP_STORAGE_ACCESS_KEY_ID": KEY_ID,
        "REME_MCP_STORAGE_SECRET_ACCESS_KEY": KEY,
    }


def draft(what: str) -> dict[str, Any]:
    return {"when_to_use": f"When the matter at hand is {what}", "content": f"Look after the {what} before all else."}


def objects(settings: Settings) -> Objects:
    return Objects(settings.home, location.options(settings.home, settings.storage))


async def test_what_one_replica_records_the_other_recalls(settings: Settings) -> None:
    async with Memory.open(settings) as one, Memory.open(settings) as other:
        assert (await other.recall("deploy the blog", source="b")).experiences == []
        recorded = await one.record("deploy the blog", outcome="success", experiences=[draft("blog")], source="a")
        recalled = await other.recall("deploy the blog", source="b")
        assert [note.id for note in recalled.experiences] == recorded.added
        # And the other way round: the receipt is known where it was not given out.
        again = await one.record("deploy the blog", outcome="failure", receipt=recalled.receipt, source="b")
        assert [(line.id, line.helped, line.frequency) for line in again.settled] == [(recorded.added[0], False, 1)]
        note, tally = await other.pool.experience(recorded.added[0])
        assert (note.frequency, note.utility, tally.recalled) == (1, 0, 1)


async def test_the_same_call_at_two_replicas_is_stored_once(settings: Settings) -> None:
    answers = []
    async with Memory.open(settings) as one, Memory.open(settings) as other:

        async def record(memory: Memory) -> None:
            answers.append(
                await memory.record("deploy the blog", outcome="success", experiences=[draft("blog")], source="a")
            )

        async with anyio.create_task_group() as tasks:
            for memory in (one, other, one, other):
                tasks.start_soon(record, memory)
        assert len({answer.model_dump_json() for answer in answers}) == 1
        assert (await one.pool.stats()).trajectories["success"] == 1


async def test_a_receipt_that_two_replicas_settle_is_settled_once(settings: Settings) -> None:
    async with Memory.open(settings) as one, Memory.open(settings) as other:
        await one.record("deploy the blog", outcome="success", experiences=[draft("blog")], source="a")
        receipt = (await one.recall("deploy the blog", source="a")).receipt
        settled = []

        async def record(memory: Memory, steps: str) -> None:
            result = await memory.record(
                "deploy the blog", outcome="success", steps=steps, experiences=[], receipt=receipt, source="a"
            )
            settled.extend(result.settled)

        async with anyio.create_task_group() as tasks:
            for number, memory in enumerate((one, other, one, other)):
                tasks.start_soon(record, memory, f"in another way, {number}")
        assert [line.frequency for line in settled] == [1]


@pytest.mark.slow
async def test_replicas_that_record_and_rate_at_once_lose_no_update(
    settings: Settings, environ: dict[str, str]
) -> None:
    async with Memory.open(settings) as memory:
        first = await memory.record("deploy the blog", outcome="success", experiences=[draft("blog")], source="a")
    shared = first.added[0]
    said = run_replicas(environ, ["one", "two"], shared)
    made = 2 * TASKS_AT_ONCE * OPERATIONS
    assert len([line for line in said if "rated" in line]) == made
    async with Memory.open(settings) as memory:
        rated, tally = await memory.pool.experience(shared)
        assert (rated.frequency, rated.utility, tally.frequency) == (made, made, made)
        stats = await memory.pool.stats()
        assert stats.trajectories == {"success": made + 1, "failure": 0, "undistilled": 0}
        # Each its own lesson, and the one that all of them learned, once, with every trajectory that taught it.
        pool = {one.id: one for one in await memory.pool.page(limit=1000)}
        learned = Counter(id for line in said for id in line.get("learned", []))
        assert set(pool) == {shared, *learned}
        assert len(pool) == 1 + made + 1
        [(everywhere, times)] = [(id, times) for id, times in learned.items() if times > 1]
        trajectories = [line["trajectory"] for line in said if "trajectory" in line]
        assert times == made
        assert sorted(pool[everywhere].trajectory_ids) == sorted(trajectories)


def run_replicas(environ: dict[str, str], names: list[str], shared: str) -> list[dict[str, Any]]:
    """Run processes that begin at the same moment, and return what they said."""
    replicas = [
        subprocess.Popen(
            [sys.executable, "-c", REPLICA, name, str(OPERATIONS), str(TASKS_AT_ONCE), shared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environ,
        )
        for name in names
    ]
    said: list[dict[str, Any]] = []
    try:
        for replica in replicas:
            assert replica.stdout is not None
            assert "ready" in json.loads(replica.stdout.readline())
        for replica in replicas:
            assert replica.stdin is not None
            replica.stdin.write("\n")
            replica.stdin.flush()
        for replica in replicas:
            output, _ = replica.communicate(timeout=DEADLINE_S)
            said += [json.loads(line) for line in output.splitlines()]
            assert replica.returncode == 0
    finally:
        for replica in replicas:
            replica.kill()
            replica.wait()
    return said


async def test_a_replica_compacts_while_another_writes(settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        one, other = [await Store.open(location_of(settings.home, settings.storage)) for _ in range(2)]
        stack.callback(one.close)
        stack.callback(other.close)
        for number in range(21):
            async with one.writing() as writer:
                await writer.put_experiences([experience(f"e-{number}")], are_new=True)
        assert one.compaction.writes == 21

        async def write() -> None:
            for number in range(21, 27):
                async with other.writing() as writer:
                    await writer.put_experiences([experience(f"e-{number}")], are_new=True)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.compaction.run)
            tasks.start_soon(write)
        ids = [f"e-{number}" for number in range(27)]
        assert sorted(await other.experiences("default", ids)) == sorted(ids)


async def test_who_was_held_up_for_too_long_writes_nothing_more(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(location_of(settings.home, settings.storage))
    async with store.writing() as writer:
        await writer.put_experiences([experience("e-before")], are_new=True)
        # What a process finds that was stopped here and goes on.
        monkeypatch.setattr("reme_mcp.store.lease.HELD_S", 0.0)
        with pytest.raises(StoreError, match="held up for longer than its turn"):
            await writer.put_experiences([experience("e-new")], are_new=True)
        with pytest.raises(StoreError, match="held up for longer than its turn"):
            await writer.put_experiences([experience("e-before", pinned=True)], are_new=False)
        with pytest.raises(StoreError, match="held up for longer than its turn"):
            await writer.delete_experience("default", "e-before")
    found = await store.experiences("default", ["e-before", "e-new"])
    assert [(one.id, one.pinned) for one in found.values()] == [("e-before", False)]
    store.close()


async def test_a_bucket_that_holds_something_else_is_left_alone(settings: Settings) -> None:
    await objects(settings).create("holiday.jpg", b"a photograph")
    with pytest.raises(StoreError, match=r"is not empty and not a home of reme-mcp \(it holds 'holiday.jpg'\)"):
        await Store.open(location_of(settings.home, settings.storage))
    assert await objects(settings).names() == {"holiday.jpg"}


async def test_a_damaged_mark_is_an_error_that_shows_it(settings: Settings) -> None:
    await objects(settings).create("home.json", b"{]")
    with pytest.raises(StoreError, match=r"home\.json is no mark: '\{\]'; take back an older"):
        await Store.open(location_of(settings.home, settings.storage))


async def test_replicas_of_an_older_version_stop_when_a_newer_one_has_upgraded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "MARKER_AGE_S", 0.0)
    async with Memory.open(settings) as memory:
        added = (
            await memory.record("deploy the blog", outcome="success", experiences=[draft("blog")], source="a")
        ).added
        later = await Store.open(
            location_of(settings.home, settings.storage),
            migrations=[*MIGRATIONS, new_column("experiences", "mood", "'calm'")],
        )
        assert list(await later.experiences("default", added)) == added
        later.close()
        with pytest.raises(StoreError, match="use the version that wrote it"):
            await memory.recall("deploy the blog", source="a")


async def test_a_mark_that_was_just_read_is_good_enough_for_a_reader_but_not_for_a_writer(settings: Settings) -> None:
    bucket = Bucket(settings.home, settings.storage)
    store = await Store.open(bucket)
    mark = await bucket.read_marker(schema=99)
    await Bucket(settings.home, settings.storage).write_marker(dataclasses.replace(mark, pool="pool-20260101T000000Z"))
    assert await store.is_current()
    with pytest.raises(StoreError, match="upgraded or restored from a backup by another process"):
        async with store.writing():
            pytest.fail("these tables are not the home's any more")
    assert not await store.is_current()
    store.close()


async def test_backups_are_refused_and_say_what_to_do(settings: Settings, tmp_path: Path) -> None:
    async with Memory.open(settings) as memory:
        with pytest.raises(InvalidInput, match="backups are for a home in a folder; turn on versioning there"):
            await memory.pool.backup(tmp_path / "copy.zip")
        with pytest.raises(InvalidInput, match="backups are for a home in a folder"):
            await memory.pool.restore_backup("copy.zip")


def test_the_command_line_works_on_it(environ: dict[str, str], tmp_path: Path) -> None:
    attempt = tmp_path / "attempt.jsonl"
    line = {"task": "deploy the blog", "outcome": "success", "experiences": [draft("blog")]}
    attempt.write_text(json.dumps(line) + "\n", encoding="utf-8")
    recorded = CliRunner().invoke(cli, ["record", str(attempt)], env=environ)
    assert recorded.exit_code == 0, recorded.output
    listed = CliRunner().invoke(cli, ["list", "--json"], env=environ)
    assert "Look after the blog" in listed.output
    refused = CliRunner().invoke(cli, ["backup", str(tmp_path)], env=environ)
    assert refused.exit_code == 1
    assert "is on object storage" in refused.output


def test_its_tokens_are_in_a_file_of_the_machine(settings: Settings, tmp_path: Path) -> None:
    assert tokens_of(settings).path.is_relative_to(tmp_path / "machine")
    named = settings.model_copy(update={"auth": AuthSettings(tokens_file=str(tmp_path / "shared.json"))})
    assert tokens_of(named).path == tmp_path / "shared.json"
    assert tokens_of(Settings(home=str(tmp_path))).path == tmp_path / "tokens.json"


def test_the_key_is_shown_nowhere(environ: dict[str, str]) -> None:
    assert KEY not in repr(load_settings(environ=environ))
    with pytest.raises(ConfigError) as caught:
        load_settings(environ=environ | {"REME_MCP_STORAGE_SECRET_ACCESS_KEY": f"{KEY} with a space"})
    assert KEY not in str(caught.value)
    assert "storage_secret_access_key" in str(caught.value).lower()


def test_a_key_needs_its_name(environ: dict[str, str]) -> None:
    for name in ("REME_MCP_STORAGE_ACCESS_KEY_ID", "REME_MCP_STORAGE_SECRET_ACCESS_KEY"):
        with pytest.raises(ConfigError, match=r"needs storage\.secret_access_key, and the other way round"):
            load_settings(environ=environ | {name: ""})


@pytest.mark.parametrize(
    ("home", "kept"),
    [
        ("s3://team", "s3://team"),
        ("s3://team/", "s3://team"),
        ("s3://team/a/b=1/", "s3://team/a/b=1"),
        ("gs://team/a", "gs://team/a"),
        ("az://team/a", "az://team/a"),
    ],
)
def test_an_address_is_a_home(home: str, kept: str) -> None:
    assert load_settings(environ={"REME_MCP_HOME": home}).home == kept


@pytest.mark.parametrize(
    "home",
    [
        "s3://",
        "s3:///a",
        "s3://team//a",
        "s3://team/../a",
        "s3://team/a b",
        "s3://team/a?b",
        "db://team",
        "https://team/a",
    ],
)
def test_what_is_no_address_is_refused(home: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a folder, or like s3://bucket/path"):
        load_settings(environ={"REME_MCP_HOME": home})


def test_the_doctor_looks_at_it_and_makes_nothing(environ: dict[str, str], settings: Settings) -> None:
    before = CliRunner().invoke(cli, ["doctor"], env=environ)
    assert "holds no pool yet" in before.output
    assert anyio.run(objects(settings).names) == set()
    assert CliRunner().invoke(cli, ["stats"], env=environ).exit_code == 0
    after = CliRunner().invoke(cli, ["doctor"], env=environ)
    assert "shared by all who have its address" in after.output.replace("\n", " ")
    nowhere = CliRunner().invoke(cli, ["doctor"], env=environ | {"REME_MCP_HOME": "s3://nobodys/home"})
    assert "can't list s3://nobodys/home" in nowhere.output
