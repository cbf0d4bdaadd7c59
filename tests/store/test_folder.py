"""The home as a folder: older and newer versions, backups, places where nothing can be written, clocks that jump."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.schema import now
from reme_mcp.store import backup
from reme_mcp.store.migrations import MIGRATIONS
from tests.fakes import experience, line

if TYPE_CHECKING:
    pass

from tests.store.folder_cases import DEADLINE_S, ids, lay, opened
from tests.store.folder_cases import old_home as old_home
from tests.store.folder_cases import other as other
from tests.store.folder_cases import settings as settings

pytestmark = pytest.mark.anyio

# Each runs where only it sees what is mounted: its own user and mount namespace.
MOUNTED = """
import subprocess, sys
import anyio
from pathlib import Path
from reme_mcp.config.settings import EmbedderSettings, Settings
from reme_mcp.errors import StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.store.store import Store
from reme_mcp.store.migrations import MIGRATIONS, new_column
from tests.fakes import draft, experience

home, place = sys.argv[1:]
settings = Settings(home=home, embedder=EmbedderSettings(provider="none"))

def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)

async def refused(says, work):
    try:
        await work
    except StoreError as exc:
        assert says in str(exc), exc
    else:
        raise AssertionError("it must not work")
"""


READ_ONLY = """
async def main():
    mount("--bind", home, home)
    mount("-o", "remount,ro,bind", home)
    async with Memory.open(settings) as memory:
        await memory.warm_up(download=False)
        recalled = await memory.recall("deploy a static site", source="test")
        assert [one.id for one in recalled.experiences], recalled
        assert recalled.receipt == "", recalled
        assert "not counted" in recalled.note and "Read-only file system" in recalled.note, recalled.note
        assert "has no receipt" in recalled.guidance and "receipt=" not in recalled.guidance, recalled.guidance
        assert len(await memory.pool.page()) == 2
        assert (await memory.pool.experience("e-a"))[0].id == "e-a"
        assert (await memory.pool.stats()).experiences == {"active": 2}
        record = memory.record("deploy", outcome="success", receipt=recalled.receipt, source="test")
        await refused("Read-only file system", record)
        await refused("Read-only file system", memory.rate("e-a", helpful=True, source="test"))
        later = Store.open(Path(home), migrations=[*MIGRATIONS, new_column("experiences", "mood", "'calm'")])
        newest = 1 + len(MIGRATIONS)
        await refused(f"can't upgrade {home} from schema {newest} to {newest + 1}: can't lock", later)
        await refused("Read-only file system", memory.pool.backup(Path(place) / "b.zip"))
    print("done")
anyio.run(main)
"""


FULL = """
async def main():
    mount("-t", "tmpfs", "-o", "size=1536k", "tmpfs", place)
    own = settings.model_copy(update={"home": place + "/home"})
    async with Memory.open(own) as memory:
        await memory.record("deploy a static site", outcome="success", experiences=[draft()], source="test")
        full = Path(place, "full")
        with full.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        for _ in range(3):
            recalled = await memory.recall("a static site has to go online", source="test")
            assert len(recalled.experiences) == 1, recalled
            assert recalled.receipt == "" and "not counted" in recalled.note, recalled
            record = memory.record("boil eggs", outcome="success", experiences=[draft(1)], source="test")
            await refused("No space left", record)
            await refused("", memory.rate(recalled.experiences[0].id, helpful=True, source="test"))
        await refused("no room", memory.pool.backup())
        assert not list(Path(place).rglob("*.part")) and not list(Path(place).rglob("*.zip"))
        full.unlink()
        recalled = await memory.recall("a static site has to go online", source="test")
        assert recalled.receipt and not recalled.note, recalled
        recorded = await memory.record(
            "boil eggs", outcome="success", experiences=[draft(1)], receipt=recalled.receipt, source="test"
        )
        assert len(recorded.added) == len(recorded.settled) == 1, recorded
    async with Memory.open(own) as memory:
        await memory.warm_up(download=False)
        assert (await memory.pool.stats()).experiences == {"active": 2}
        assert (await memory.pool.stats()).receipts["settled"] == 1
        made = await memory.pool.backup()
    # No room for what is to be put back, either: all stays as it is.
    with Path(place, "full").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    async with Memory.open(own) as memory:
        await refused("no room", memory.pool.restore_backup(str(made.file), force=True))
        assert not list(Path(place, "home").glob("pool-2*"))
        assert (await memory.pool.stats()).experiences == {"active": 2}
    print("done")
anyio.run(main)
"""


def mounted(script: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", MOUNTED + script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def may_mount() -> bool:
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


# --- where nothing can be written ---


@pytest.mark.parametrize("script", [READ_ONLY, FULL], ids=["read-only", "full"])
async def test_a_place_that_cant_be_written_is_read_and_says_so(old_home: Path, tmp_path: Path, script: str) -> None:
    if not may_mount():
        pytest.skip("mounting in a namespace of its own is not permitted here")
    lay(tmp_path / "place", "note", "here something is mounted")
    async with opened(old_home, MIGRATIONS):
        pass
    done = mounted(script, old_home, tmp_path / "place")
    assert done.stdout == "done\n", done.stderr


@pytest.mark.parametrize("name", [".home.json.4711.part", "tokens.json.4711.part", ".tokens.json.4711.part"])
async def test_a_file_that_another_process_was_writing_is_nobodys_home(tmp_path: Path, name: str) -> None:
    lay(tmp_path / "home", name, "{")
    async with opened(tmp_path / "home") as store:
        assert await store.count("default") == {}


# --- clocks that jump ---


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=1), timedelta(days=10_000)])
async def test_what_was_learned_under_a_clock_ahead_is_recalled_and_counted(
    settings: Settings, ahead: timedelta
) -> None:
    learned = now() + ahead
    async with opened(Path(settings.home)) as store, store.writing() as writer:
        await writer.put_experiences(
            [experience("e-a", created_at=learned, updated_at=learned, counted_since=learned, frequency=0)]
        )
    async with Memory.open(settings) as memory:
        recalled = await memory.recall("a static site has to go online", source="test")
        assert recalled.experiences[0].numbers.age_days == 0
        recorded = await memory.record("blog", outcome="success", receipt=recalled.receipt, source="test")
        assert [(one.frequency, one.utility) for one in recorded.settled] == [(1, 1)]
        rated = await memory.rate("e-a", helpful=False, source="test")
        assert (rated.receipt, rated.frequency, rated.utility) == (recalled.receipt, 1, 0)
        # A rating that stands for itself counts, too.
        rated = await memory.rate("e-a", helpful=True, source="somebody else")
        assert (rated.frequency, rated.utility) == (2, 1)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=1)])
async def test_what_was_counted_under_a_clock_ahead_does_not_count_again_once_restored(
    settings: Settings, ahead: timedelta
) -> None:
    before = now() + ahead
    old = line("r-old", experience_id="e-a", created_at=before, helped=False, settled_by="rating", settled_at=before)
    async with opened(Path(settings.home)) as store:
        async with store.writing() as writer:
            await writer.put_experiences([experience("e-a", status="archived", frequency=1)])
        await store.add_receipt([old])
    async with Memory.open(settings) as memory:
        assert (await memory.pool.experience("e-a"))[1].frequency == 1
        await memory.pool.restore("e-a")
        assert (await memory.pool.experience("e-a"))[1].frequency == 0
        recalled = await memory.recall("a static site has to go online", source="test")
        recorded = await memory.record("blog", outcome="success", receipt=recalled.receipt, source="test")
        assert [(one.frequency, one.utility) for one in recorded.settled] == [(1, 1)]


async def test_a_file_from_before_the_time_that_a_zip_knows_is_backed_up(old_home: Path, other: Path) -> None:
    for file in (old_home / "pool").rglob("*"):
        os.utime(file, (1, 1))
    made = await backup.make(old_home)
    await backup.restore(other, str(made.file))
    assert await ids(other) == {"e-a", "e-b"}
