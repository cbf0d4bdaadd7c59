"""The entry in each client's file: which file, what is written, what stays, and what is refused."""

from __future__ import annotations

import json
import os
import stat
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from reme_mcp.clients import installer
from reme_mcp.clients.catalog import CLIENTS, Client, Machine, client_of
from reme_mcp.clients.entry import Entry, alone, find, is_ours
from reme_mcp.errors import ClientFileError, InvalidInput

ENTRY = Entry("/opt/reme/bin/reme-mcp", ("--home", "/m"))
NAMES = [client.name for client in CLIENTS]
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")


def parsed(client: Client, text: str) -> dict[str, object]:
    if client.form == "toml":
        return tomllib.loads(text)
    found: dict[str, object] = json.loads(text)
    return found


# --- which file ---

LINUX = {
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "claude-code": ".claude.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
    "windsurf": ".codeium/windsurf/mcp_config.json",
    "zed": ".config/zed/settings.json",
    "gemini": ".gemini/settings.json",
    "codex": ".codex/config.toml",
}
MACOS = LINUX | {
    "claude-desktop": "Library/Application Support/Claude/claude_desktop_config.json",
    "vscode": "Library/Application Support/Code/User/mcp.json",
}
WINDOWS = LINUX | {
    "claude-desktop": "AppData/Roaming/Claude/claude_desktop_config.json",
    "vscode": "AppData/Roaming/Code/User/mcp.json",
    "zed": "AppData/Roaming/Zed/settings.json",
}


@pytest.mark.parametrize(("system", "files"), [("linux", LINUX), ("darwin", MACOS), ("win32", WINDOWS)])
def test_each_client_reads_its_own_file_on_each_system(system: str, files: dict[str, str]) -> None:
    machine = Machine(system, Path("/u"), {})
    assert {client.name: client.file(machine, None) for client in CLIENTS} == {
        name: Path("/u") / file for name, file in files.items()
    }


def test_the_environment_moves_the_files_that_clients_let_it_move() -> None:
    linux = Machine(
        "linux", Path("/u"), {"XDG_CONFIG_HOME": "/x", "CODEX_HOME": "/c", "CLAUDE_CONFIG_DIR": "/d", "APPDATA": "/no"}
    )
    assert client_of("vscode").file(linux, None) == Path("/x/Code/User/mcp.json")
    assert client_of("codex").file(linux, None) == Path("/c/config.toml")
    assert client_of("claude-code").file(linux, None) == Path("/d/.claude.json")
    assert client_of("zed").file(Machine("win32", Path("/u"), {"APPDATA": "/a"}), None) == Path("/a/Zed/settings.json")


def test_claude_desktop_from_the_windows_store_has_a_folder_of_its_own(tmp_path: Path) -> None:
    windows = Machine(
        "win32", tmp_path, {"LOCALAPPDATA": str(tmp_path / "local"), "APPDATA": str(tmp_path / "roaming")}
    )
    client = client_of("claude-desktop")
    assert client.file(windows, None) == tmp_path / "roaming" / "Claude" / "claude_desktop_config.json"
    packaged = tmp_path / "local" / "Packages" / "Claude_pzs8" / "LocalCache" / "Roaming" / "Claude"
    packaged.mkdir(parents=True)
    assert client.file(windows, None) == packaged / "claude_desktop_config.json"


def test_a_project_has_a_file_of_its_own_where_the_client_has_one() -> None:
    machine, project = Machine("linux", Path("/u"), {}), Path("/p")
    files = {client.name: client.file(machine, project) for client in CLIENTS if client.project_file}
    assert files == {
        "claude-code": project / ".mcp.json",
        "cursor": project / ".cursor/mcp.json",
        "vscode": project / ".vscode/mcp.json",
        "zed": project / ".zed/settings.json",
        "gemini": project / ".gemini/settings.json",
        "codex": project / ".codex/config.toml",
    }
    with pytest.raises(InvalidInput, match="Windsurf has no settings for a project"):
        client_of("windsurf").file(machine, project)


def test_an_unknown_client_is_named_with_what_it_may_have_been() -> None:
    with pytest.raises(InvalidInput, match="no client 'vs-code'; did you mean vscode"):
        client_of("vs-code")
    with pytest.raises(InvalidInput, match=r"known are claude-desktop, .*codex; for any other"):
        client_of("emacs")


# --- what is written ---

JSON_ENTRY = {"command": ENTRY.command, "args": ["--home", "/m"]}
WRITTEN = {
    "claude-desktop": {"mcpServers": {"reme": JSON_ENTRY}},
    "claude-code": {"mcpServers": {"reme": {"type": "stdio"} | JSON_ENTRY}},
    "cursor": {"mcpServers": {"reme": JSON_ENTRY}},
    "vscode": {"servers": {"reme": {"type": "stdio"} | JSON_ENTRY}},
    "windsurf": {"mcpServers": {"reme": JSON_ENTRY}},
    "zed": {"context_servers": {"reme": JSON_ENTRY}},
    "gemini": {"mcpServers": {"reme": JSON_ENTRY}},
    "codex": {"mcp_servers": {"reme": JSON_ENTRY}},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_made_once_and_goes_again(name: str, tmp_path: Path) -> None:
    client, file = client_of(name), tmp_path / "not" / "yet" / "there"
    made = installer.add(client, file, "reme", ENTRY)
    assert (made.before, made.backup) == (None, None)
    assert parsed(client, file.read_text(encoding="utf-8")) == WRITTEN[name]
    assert not installer.add(client, file, "reme", ENTRY).is_one
    gone = installer.remove(client, file, "reme")
    assert (gone.after, gone.backup, gone.is_undone) == (None, None, True)
    assert list(file.parent.iterdir()) == []
    assert not installer.remove(client, file, "reme").is_one


@pytest.mark.parametrize("name", NAMES)
def test_adding_and_removing_leaves_every_byte_as_it_was(name: str, tmp_path: Path) -> None:
    client, file = client_of(name), tmp_path / "file"
    before = (
        b'model = "x"  # mine\r\n[mcp_servers.a]\r\ncommand = "b"' if client.form == "toml" else b'{"a":\t[1,\r\n2]}'
    )
    if client.form == "jsonc":
        before = b"// mine\n" + before
    before = b"\xef\xbb\xbf" + before
    file.write_bytes(before)
    change = installer.add(client, file, "reme", ENTRY)
    after = file.read_bytes()
    assert after.startswith(before.rstrip(b"}")[:-1])
    assert after.count(b"\xef\xbb\xbf") == 1
    assert change.backup is not None
    assert change.backup.read_bytes() == before
    assert not installer.add(client, file, "reme", ENTRY).is_one
    assert file.read_bytes() == after
    assert installer.remove(client, file, "reme", dry_run=True).is_one
    assert change.backup.read_bytes() == before
    undone = installer.remove(client, file, "reme")
    assert (undone.backup, undone.is_undone) == (None, True)
    assert file.read_bytes() == before
    # The copy has nothing that the file does not have.
    assert not change.backup.exists()


def test_what_others_changed_since_stays_when_the_entry_goes(tmp_path: Path) -> None:
    client, file = client_of("cursor"), tmp_path / "mcp.json"
    file.write_text("{}", encoding="utf-8")
    installer.add(client, file, "reme", ENTRY)
    other = installer.add(client, file, "other", Entry("npx"))
    assert other.backup is not None
    held = file.read_bytes()
    removed = installer.remove(client, file, "reme")
    assert removed.backup is not None
    assert (removed.backup.read_bytes(), removed.is_undone) == (held, False)
    assert json.loads(file.read_text(encoding="utf-8")) == {"mcpServers": {"other": {"command": "npx", "args": []}}}


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_brought_up_to_date_and_keeps_what_its_user_added(name: str, tmp_path: Path) -> None:
    client, file = client_of(name), tmp_path / "file"
    installer.add(client, file, "reme", Entry("/old/reme-mcp"))
    text = file.read_text(encoding="utf-8")
    text = f"{text}timeout = 5\n" if client.form == "toml" else text.replace('"args": []', '"args": [], "timeout": 5')
    file.write_text(text, encoding="utf-8")
    installer.add(client, file, "reme", ENTRY)
    servers = parsed(client, file.read_text(encoding="utf-8"))[client.servers]
    expected = WRITTEN[name][client.servers]["reme"]
    assert servers == {"reme": {**expected, "timeout": 5}}


def test_an_entry_for_a_server_on_the_network_is_not_turned_into_another(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text('{"mcpServers": {"reme": {"url": "https://memory.example"}}}', encoding="utf-8")
    with pytest.raises(ClientFileError, match=r"url 'https://memory.example'; remove it, or choose another --name"):
        installer.add(client_of("cursor"), file, "reme", ENTRY)
    assert installer.add(client_of("cursor"), file, "local", ENTRY).is_one


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_of_another_program_is_neither_changed_nor_removed(name: str, tmp_path: Path) -> None:
    client, file = client_of(name), tmp_path / "file"
    file.write_text(alone(client, "files", Entry("npx", ("server-filesystem",))), encoding="utf-8")
    with pytest.raises(ClientFileError, match=r'"files" is there already, and starts npx; choose another --name'):
        installer.add(client, file, "files", ENTRY)
    with pytest.raises(ClientFileError, match='"files" starts npx, not this program; take it out by hand'):
        installer.remove(client, file, "files")
    assert installer.add(client, file, "reme", ENTRY).is_one
    assert installer.remove(client, file, "reme").is_one


@pytest.mark.parametrize("name", ["", "re.me", "a b", "é", "a" * 65])
def test_a_name_that_not_every_client_takes_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ClientFileError, match="it must be 1 to 64 of A-Z a-z 0-9 _ -"):
        installer.add(client_of("codex"), tmp_path / "config.toml", name, ENTRY)
    assert installer.add(client_of("codex"), tmp_path / "config.toml", "a" * 64, ENTRY).is_one


def test_an_empty_file_counts_as_none(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_bytes(b"\n")
    installer.add(client_of("windsurf"), file, "reme", ENTRY)
    assert json.loads(file.read_bytes()) == WRITTEN["windsurf"]
    installer.remove(client_of("windsurf"), file, "reme")
    assert file.read_bytes() == b"\n"


# --- what is refused, and how files are replaced ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b'{"mcpServers": {', b"= =\n", b'{"a": "caf\xe9"}\n# \xe9\n'])
def test_a_broken_file_is_refused_and_left_alone(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    client = client_of(name)
    changes: list[Callable[[], object]] = [
        lambda: installer.add(client, file, "reme", ENTRY),
        lambda: installer.remove(client, file, "reme"),
    ]
    for change in changes:
        with pytest.raises(ClientFileError, match=str(file)):
            change()
    assert file.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("file")] == ["file"]


def test_comments_are_refused_where_the_client_itself_does_not_read_them(tmp_path: Path) -> None:
    file = tmp_path / "claude_desktop_config.json"
    file.write_text("{} // mine", encoding="utf-8")
    with pytest.raises(ClientFileError, match="comments and trailing commas are not allowed"):
        installer.add(client_of("claude-desktop"), file, "reme", ENTRY)


def test_a_dry_run_shows_the_difference_and_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text('{\n  "a": 1\n}', encoding="utf-8")
    change = installer.add(client_of("cursor"), file, "reme", ENTRY, dry_run=True)
    assert '-  "a": 1\n' in change.diff()
    assert '+      "command": "/opt/reme/bin/reme-mcp",\n' in change.diff()
    assert file.read_text(encoding="utf-8") == '{\n  "a": 1\n}'
    assert list(tmp_path.glob("mcp.json*")) == [file]


@posix_only
def test_a_link_is_followed_and_the_mode_is_kept(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "mcp.json", tmp_path / "mcp.json"
    real.parent.mkdir()
    real.write_text("{}", encoding="utf-8")
    real.chmod(0o640)
    link.symlink_to(real)
    change = installer.add(client_of("cursor"), link, "reme", ENTRY)
    assert link.is_symlink()
    assert json.loads(real.read_bytes()) == WRITTEN["cursor"]
    assert change.backup is not None
    assert [stat.S_IMODE(one.stat().st_mode) for one in (real, change.backup)] == [0o640, 0o640]
    installer.remove(client_of("cursor"), link, "reme")
    assert (link.is_symlink(), real.read_text(encoding="utf-8")) == (True, "{}")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom a mode can stop")
def test_a_file_that_cant_be_written_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text("{}", encoding="utf-8")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ClientFileError, match=r"can't write .*Permission denied"):
            installer.add(client_of("cursor"), file, "reme", ENTRY)
    finally:
        tmp_path.chmod(0o700)


def test_a_folder_in_the_files_place_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ClientFileError, match=r"can't read .*directory"):
        installer.add(client_of("cursor"), tmp_path, "reme", ENTRY)
    (tmp_path / "file").touch()
    with pytest.raises(ClientFileError, match=r"can't (read|write) "):
        installer.add(client_of("cursor"), tmp_path / "file" / "mcp.json", "reme", ENTRY)


def test_what_another_program_writes_meanwhile_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mcp.json"
    file.write_text('{"n": 0}', encoding="utf-8")
    fsync, times = os.fsync, 2

    def changed_meanwhile(number: int) -> None:
        nonlocal times
        if times:
            times -= 1
            file.write_text(json.dumps({"n": 2 - times}), encoding="utf-8")
        fsync(number)

    monkeypatch.setattr(os, "fsync", changed_meanwhile)
    installer.add(client_of("cursor"), file, "reme", ENTRY)
    assert json.loads(file.read_bytes()) == {"n": 2} | WRITTEN["cursor"]
    times = 1000
    with pytest.raises(ClientFileError, match="another program keeps changing it"):
        installer.add(client_of("cursor"), file, "other", ENTRY)
    assert "other" not in file.read_text(encoding="utf-8")


# --- this program, and its entries ---


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n", encoding="utf-8")
    path.chmod(0o700)
    return path


@posix_only
def test_the_command_is_absolute_however_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = executable(tmp_path / "bin" / "reme-mcp")
    python = executable(tmp_path / "bin" / "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for started_as in ("bin/reme-mcp", str(script), "reme-mcp", "/x/reme_mcp/__main__.py"):
        assert installer.own_command(started_as, str(python)) == Entry(str(script))
    script.unlink()
    assert installer.own_command("/x/reme_mcp/__main__.py", "bin/python") == Entry(
        str(python), ("-P", "-m", "reme_mcp")
    )


@pytest.mark.parametrize(
    ("command", "passing"),
    [
        ("/u/.cache/uv/archive-v0/x/bin/reme-mcp", True),
        ("/u/.local/bin/reme-mcp", False),
        ("/u/.cache/reme-mcp", False),
    ],
)
def test_a_copy_that_is_thrown_away_is_known(command: str, passing: bool) -> None:
    assert installer.is_passing(command) == passing


@posix_only
def test_entries_are_found_in_all_files_with_what_is_wrong_with_them(tmp_path: Path) -> None:
    machine, project = Machine("linux", tmp_path / "u", {}), tmp_path / "p"
    here = Entry(str(executable(tmp_path / "reme-mcp")))
    assert installer.find_all(machine, project) == []
    installer.add(client_of("zed"), client_of("zed").file(machine, None), "memory", here)
    installer.add(client_of("codex"), client_of("codex").file(machine, project), "reme", Entry("/gone/reme-mcp"))
    installer.add(client_of("cursor"), client_of("cursor").file(machine, None), "files", Entry("npx"))
    broken = client_of("gemini").file(machine, None)
    broken.parent.mkdir(parents=True)
    broken.write_text("{", encoding="utf-8")
    found = {one.client.name: one for one in installer.find_all(machine, project)}
    assert sorted(found) == ["codex", "gemini", "zed"]
    assert (found["zed"].name, found["zed"].entry, found["zed"].trouble) == ("memory", here, "")
    assert "/gone/reme-mcp is not there" in found["codex"].trouble
    assert found["gemini"].entry is None
    assert "line 1" in found["gemini"].trouble


def test_an_entry_is_known_on_every_system() -> None:
    for entry in (Entry("C:\\x\\reme-mcp.exe"), Entry("/a/reme-mcp"), Entry("/a/python3", ("-m", "reme_mcp", "serve"))):
        assert is_ours(entry)
    assert is_ours(Entry("uvx", ("reme-mcp", "--workspace", "team")))
    assert not is_ours(Entry("/a/python3", ("-m", "other")))


def test_an_entry_reads_back_as_it_was_written() -> None:
    for client in CLIENTS:
        assert find(alone(client, "reme", ENTRY), client, "reme") == ENTRY
        assert find(alone(client, "reme", ENTRY), client, "other") is None
