"""The home and files with a key are private, or somebody is told; and nothing talks to anybody."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reme_mcp.cli.main import cli
from reme_mcp.cli.permissions import exposed
from reme_mcp.config.settings import AuthSettings, LLMSettings, Settings
from reme_mcp.errors import StoreError
from reme_mcp.memory.memory import Memory
from reme_mcp.store import backup
from reme_mcp.store.store import Store
from tests.fakes import draft

pytestmark = pytest.mark.skipif(os.name == "nt", reason="files have no such modes")

DEADLINE_S = 120
NOBODY = 65_534

Run = Callable[..., Result]


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("REME_MCP_HOME", str(home))
    monkeypatch.setenv("REME_MCP_EMBEDDER_PROVIDER", "none")
    return lambda *arguments: CliRunner().invoke(cli, arguments)


@pytest.fixture
def easy_umask() -> Iterator[None]:
    before = os.umask(0o000)
    yield
    os.umask(before)


def written(file: Path, text: str, mode: int) -> Path:
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)
    return file


def folder(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("before", "after"), [(None, 0o700), (0o755, 0o700), (0o750, 0o700), (0o770, 0o700), (0o2777, 0o2700)]
)
async def test_a_new_home_is_private_even_in_a_folder_that_was_there(
    settings: Settings, home: Path, easy_umask: None, before: int | None, after: int
) -> None:
    if before is not None:
        folder(home, before)
    async with Memory.open(settings) as memory:
        await memory.record("t", outcome="success", experiences=[draft()], source="test")
        made = await memory.pool.backup(home.parent / "copy.zip")
    assert mode(home) == after
    assert mode(made.file) == 0o600
    assert exposed(settings, home / "config.toml") == []


@pytest.mark.anyio
async def test_a_home_that_is_one_already_is_left_as_its_owner_made_it(settings: Settings, home: Path) -> None:
    for _ in range(2):
        async with Memory.open(settings) as memory:
            await memory.recall("t", source="test")
        assert mode(home) in (0o700, 0o755)
        folder(home, 0o755)
    (found,) = exposed(settings, home / "config.toml")
    assert (found.path, found.do) == (home, f"chmod 700 {home}")
    folder(home, 0o770)
    assert [one.do for one in exposed(settings, home / "config.toml")] == [f"chmod 700 {home}"]


@pytest.mark.anyio
async def test_a_volume_that_was_mounted_for_a_group_is_left_to_it(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(home, 0o2775)
    somebody_else = os.geteuid() + 1
    monkeypatch.setattr("os.geteuid", lambda: somebody_else)
    async with Memory.open(settings) as memory:
        await memory.record("t", outcome="success", experiences=[draft()], source="test")
    assert mode(home) == 0o2775
    (found,) = exposed(settings, home / "config.toml")
    assert found.do == f"chmod o-rwx {home}"
    folder(home, 0o2770)
    assert exposed(settings, home / "config.toml") == []


@pytest.mark.anyio
@pytest.mark.parametrize(
    "use",
    [Store.open, backup.make, lambda home: backup.restore(home, "pool", force=True)],
    ids=["open", "back up", "restore"],
)
async def test_a_home_of_another_account_is_told_of_and_is_no_damage(
    settings: Settings, use: Callable[[Path], Awaitable[object]]
) -> None:
    # Not below the folder of the tests, which no other account may enter.
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        own = settings.model_copy(update={"home": f"{place}/home"})
        home = Path(own.home)
        (await Store.open(home)).close()
        with as_another_account(home):
            told = rf"can't use {home} as home: this account may not use {home}.*\(Permission denied\); a home is one"
            with pytest.raises(StoreError, match=told):
                await use(home)
            exposed(own, home / "config.toml")
        (await Store.open(home)).close()


@contextmanager
def as_another_account(home: Path) -> Iterator[None]:
    """Have a home be somebody else's; root may read anything, and has to become somebody else for it."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    else:
        home.chmod(0)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        else:
            home.chmod(0o700)


@pytest.mark.parametrize(("bits", "is_told"), [(0o600, False), (0o640, True), (0o604, True), (0o611, False)])
def test_a_settings_file_with_a_key_that_others_can_read_is_told_of(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, bits: int, is_told: bool
) -> None:
    file = written(tmp_path / "config.toml", '[llm]\napi_key = "sk-verysecret"\n', bits)
    assert run("--config", str(file), "list").exit_code == 0
    told = f"{file} holds llm.api_key, and other users can read it: chmod 600 {file}"
    assert caplog.messages == [told][: int(is_told)]


@pytest.mark.parametrize("text", ["", "[recall]\nlimit = 3\n", '[llm]\napi_key = ""\n'])
def test_a_settings_file_without_a_key_may_be_read(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    file = written(tmp_path / "config.toml", text, 0o644)
    assert run("--config", str(file), "list").exit_code == 0
    assert caplog.messages == []


@pytest.mark.parametrize(("bits", "number"), [(0o600, 0), (0o644, 2)])
def test_files_of_keys_and_tokens_are_looked_at_too(tmp_path: Path, bits: int, number: int) -> None:
    tmp_path.chmod(0o755)
    key, tokens = (written(tmp_path / name, "x", bits) for name in ("key", "tokens.json"))
    settings = Settings(
        home=str(tmp_path / "home"),
        llm=LLMSettings(base_url="http://127.0.0.1:1/v1", model="m", api_key_file=str(key)),
        auth=AuthSettings(tokens_file=str(tokens)),
    )
    found = exposed(settings, tmp_path / "config.toml")
    assert [one.do for one in found] == [f"chmod 600 {one}" for one in (key, tokens)][:number]
    # In a closed folder nobody else gets at them.
    tmp_path.chmod(0o700)
    assert exposed(settings, tmp_path / "config.toml") == []


def test_doctor_tells_of_it(run: Run, tmp_path: Path) -> None:
    file = written(tmp_path / "config.toml", '[llm]\napi_key = "sk-verysecret"\n', 0o644)
    done = run("--config", str(file), "doctor")
    assert f"note\tfiles\t{file} holds llm.api_key, and other users can read it\tchmod 600 {file}" in done.stdout
    file.chmod(0o600)
    assert "\tfiles\t" not in run("--config", str(file), "doctor").stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace shows every connection of every process")
def test_nothing_is_connected_to_while_the_loop_runs(tmp_path: Path) -> None:
    # The demo is a real client and a real server, from the first recall to the correction.
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=connect,execve", "-o", str(trace), sys.executable, "-m", "reme_mcp", "demo"]
    done = subprocess.run(command, capture_output=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    lines = trace.read_text().splitlines()
    assert any("execve" in line for line in lines)
    assert [line for line in lines if "AF_INET" in line] == []


def test_libraries_are_told_not_to_talk_of_their_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = (
        "from reme_mcp.config.settings import EmbedderSettings; from reme_mcp.models.embedder import load_embedder\n"
        "from reme_mcp.errors import EmbedderError\n"
        "try: load_embedder(EmbedderSettings(download=False), False)\n"
        "except EmbedderError: pass\n"
        "from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    )
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "True\n", done.stderr
    # Where onnxruntime keeps what it would send.
    assert [file for file in tmp_path.rglob("*") if "onnxruntime" in file.name.lower()] == []
