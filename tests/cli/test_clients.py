"""`install`, `uninstall` and `completion`, and the options that may stand before a command or after it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from reme_mcp.cli.main import cli
from reme_mcp.clients.catalog import CLIENTS, Client, client_of, this_machine

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder, with files of clients below the test's own."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(cli, list(arguments))


def args_in(file: Path) -> list[str]:
    """Return what the entry in a Cursor file gives to the program."""
    args: list[str] = json.loads(file.read_bytes())["mcpServers"]["reme"]["args"]
    return args[3:] if args[:3] == ["-P", "-m", "reme_mcp"] else args


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_each_client_gets_an_entry_that_starts_this_program_and_loses_it_again(run: Run, client: Client) -> None:
    name = client.name
    file = client.file(this_machine(), None)
    done = run("install", name)
    assert done.exit_code == 0, done.output
    assert f"{file} is written." in done.stdout
    assert client.then in done.stderr
    listed = {one["client"]: one for one in json.loads(run("install", "--json").stdout)}
    assert listed[name]["entry"] == "reme"
    command = listed[name]["says"].split()[0]
    assert os.path.isabs(command)
    assert shutil.which(command)
    assert "nothing was changed" in run("install", name).stdout
    assert run("uninstall", name).exit_code == 0
    assert not file.exists()
    assert all(one["entry"] == "" for one in json.loads(run("uninstall", "--json").stdout))


def test_settings_that_nothing_would_start_with_are_told_before_a_client_meets_them(run: Run, tmp_path: Path) -> None:
    broken = tmp_path / "project" / "broken.toml"
    broken.write_text("limit = = 3", encoding="utf-8")
    done = run("--config", str(broken), "install", "cursor", "--dry-run")
    assert done.exit_code == 1
    assert f"{broken}: is not TOML" in done.stderr
    assert "a server that a client starts would end with that: correct it first" in done.stderr
    # To take the entry away, or to look for it, needs no settings.
    for command in (["uninstall", "cursor"], ["install"]):
        assert run("--config", str(broken), *command).exit_code == 0


def test_what_install_kept_goes_with_the_entry_or_is_named(run: Run) -> None:
    file = client_of("cursor").file(this_machine(), None)
    file.parent.mkdir(parents=True)
    file.write_text('{"mcpServers": {}}', encoding="utf-8")
    kept = f"{file}.before-reme-mcp"
    assert f"what it held before is in {kept}." in run("install", "cursor").stdout
    assert f"{file} is as it was before `reme-mcp install`." in run("uninstall", "cursor").stdout
    assert [*file.parent.iterdir()] == [file]
    run("install", "cursor")
    file.write_text(file.read_text(encoding="utf-8").replace("{", '{"mine": 1, ', 1), encoding="utf-8")
    assert f"{file} is changed; what it held before is in {kept}." in run("uninstall", "cursor").stdout


def test_the_entry_says_what_was_chosen_here_by_option_and_by_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = client_of("cursor").file(this_machine(), None)
    assert run("install", "cursor").exit_code == 0
    assert args_in(file) == []
    (tmp_path / "project" / "mine.toml").write_text("", encoding="utf-8")
    chosen = ["--home", "memory", "--workspace", "team", "--config", "mine.toml", "--set", "recall.limit=3"]
    assert run(*chosen, "install", "cursor").exit_code == 0
    absolute = [
        *("--home", str(tmp_path / "project" / "memory"), "--workspace", "team"),
        *("--config", str(tmp_path / "project" / "mine.toml"), "--set", "recall.limit=3"),
    ]
    assert args_in(file) == absolute
    repeated = ["--set", "home=a", "--set", "recall.limit=3", "--set", "recall.limit=4", "--set", "embedder.path=model"]
    assert run("install", "cursor", *repeated).exit_code == 0
    project = tmp_path / "project"
    set_here = ["--set", "recall.limit=4", "--set", f"embedder.path={project / 'model'}"]
    assert args_in(file) == ["--home", str(project / "a"), *set_here]
    monkeypatch.setenv("REME_MCP_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("REME_MCP_RECALL_LIMIT", "3")
    done = run("install", "cursor")
    assert args_in(file) == ["--home", str(tmp_path / "elsewhere")]
    assert "REME_MCP_RECALL_LIMIT is set in this shell only" in done.stderr


def test_a_secret_and_a_bad_setting_never_reach_a_clients_file(run: Run) -> None:
    file = client_of("cursor").file(this_machine(), None)
    done = run("install", "cursor", "--set", "llm.api_key=sk-123")
    assert done.exit_code == 1
    assert "llm.api_key is a secret" in done.stderr
    assert "sk-123" not in done.output
    done = run("install", "cursor", "--set", "recall.limit=0")
    assert done.exit_code == 1
    assert "must be from 1 to 20" in done.stderr
    assert not file.exists()


def test_a_project_and_any_other_file_can_be_named(run: Run, tmp_path: Path) -> None:
    done = run("install", "claude-code", "--project", ".")
    assert "Claude Code asks whether to trust it" in done.stderr
    assert (tmp_path / "project" / ".mcp.json").exists()
    assert run("install", "vscode", "--file", "insiders.json", "--name", "memory").exit_code == 0
    assert "memory" in json.loads((tmp_path / "project" / "insiders.json").read_bytes())["servers"]
    assert run("uninstall", "vscode", "--file", "insiders.json", "--name", "memory").exit_code == 0
    assert run("uninstall", "claude-code", "--project", ".").exit_code == 0
    assert [entry.name for entry in (tmp_path / "project").iterdir() if not entry.name.endswith("-mcp")] == []
    done = run("install", "windsurf", "--project", ".")
    assert done.exit_code == 1
    assert "has no settings for a project" in done.stderr


def test_printing_and_dry_runs_write_nothing(run: Run, tmp_path: Path) -> None:
    done = run("install", "codex", "--print")
    assert done.stdout.startswith("[mcp_servers.reme]\ncommand = ")
    assert str(client_of("codex").file(this_machine(), None)) in done.stderr
    assert list(json.loads(run("install", "--print").stdout)["mcpServers"]) == ["reme"]
    assert "type" in json.loads(run("install", "vscode", "--print", "--json").stdout)["reme"]
    dry = run("install", "zed", "--dry-run")
    assert '+  "context_servers": {' in dry.stdout
    assert "Nothing was changed." in dry.stderr
    assert json.loads(run("install", "zed", "--dry-run", "--json").stdout)["changed"] is False
    assert [entry.name for entry in tmp_path.rglob("*") if entry.is_file()] == []


def test_what_goes_wrong_is_one_clear_sentence(run: Run) -> None:
    file = client_of("cursor").file(this_machine(), None)
    file.parent.mkdir()
    file.write_text('{"mcpServers": ', encoding="utf-8")
    for command in ("install", "uninstall"):
        done = run(command, "cursor")
        assert done.exit_code == 1
        assert done.stderr.startswith(f"Error: can't change {file}: line 1, column 16")
        assert done.stderr.count("\n") == 1
        assert run(command, "emacs").stderr.startswith("Error: no client 'emacs'; known are claude-desktop, ")
    assert "can't be read" in run("install").stdout


def test_a_user_without_a_home_folder_names_the_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    for command in (["install", "cursor"], ["install"], ["doctor", "--set", "embedder.provider=none"]):
        done = run(*command)
        assert done.exit_code == 1
        assert "set HOME, or name the file with --file" in done.stderr
    assert run("install", "cursor", "--file", str(tmp_path / "mcp.json")).exit_code == 0


# --- options before and after a command ---


def test_options_may_stand_before_a_command_or_after_it_and_the_later_one_wins(run: Run, tmp_path: Path) -> None:
    quiet = ["--set", "embedder.provider=none"]
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    for line, home, workspace in (
        (["--home", first, *quiet, "stats", "--json"], first, "default"),
        (["stats", "--json", "--home", first, "--workspace", "team", *quiet], first, "team"),
        (["--home", first, "--workspace", "a", "stats", "--json", "--home", second, *quiet], second, "a"),
    ):
        done = run(*line)
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert (found["home"], found["workspace"]) == (home, workspace)


def test_options_may_stand_after_a_command_inside_a_command(run: Run, tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    # Its own --workspace says for which the token is.
    assert run("token", "create", "ci", "--workspace", "team", "--home", second).exit_code == 0
    for line, names in (
        (["--home", first, "token", "list"], []),
        (["token", "--home", second, "list"], ["ci"]),
        (["--home", first, "token", "list", "--home", second], ["ci"]),
    ):
        assert [one["name"] for one in json.loads(run(*line, "--json").stdout)] == names
    assert run("token", "list", "--help", "--set", "recall.limit=0").exit_code == 0
    done = run("token", "list", "--set", "recall.limit=0")
    assert "must be from 1 to 20" in done.stderr


def test_a_command_explains_itself_even_where_the_settings_are_bad(run: Run) -> None:
    assert run("--set", "recall.limit=0", "list", "--help").exit_code == 0
    done = run("--set", "recall.limit=0", "list")
    assert done.exit_code == 1
    assert "must be from 1 to 20" in done.stderr
    assert "is not KEY=VALUE" in run("list", "--set", "recall.limit").stderr


# --- completion ---


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(run: Run, shell: str) -> None:
    done = run("completion", shell)
    assert done.exit_code == 0
    assert "_REME_MCP_COMPLETE" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash_completes_commands_options_and_clients(tmp_path: Path) -> None:
    program = tmp_path / "reme-mcp"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m reme_mcp "$@"\n', encoding="utf-8")
    program.chmod(0o700)

    def completed(*words: str) -> list[str]:
        line = f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _reme_mcp_completion reme-mcp"
        stubs = "complete() { :; }; compopt() { :; }"
        script = f'{stubs}; eval "$(reme-mcp completion bash)"; {line}; echo "${{COMPREPLY[@]}}"'
        environ = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout.split()

    assert completed("reme-mcp", "inst") == ["install"]
    assert completed("reme-mcp", "install", "claude") == ["claude-desktop", "claude-code"]
    assert completed("reme-mcp", "list", "--work") == ["--workspace"]
