"""Clients that are not ours, from npm: they read what `install` wrote, and reach the server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from reme_mcp.cli.main import cli
from reme_mcp.clients.catalog import client_of, this_machine
from tests.npm import npm_program, run_npm


def test_claude_code_reports_the_server_connected_and_then_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claude = npm_program("claude", "@anthropic-ai/claude-code")
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    environ = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    file = client_of("claude-code").file(this_machine(), None)
    run_npm([claude, "mcp", "add", "--scope", "user", "other", "--", "/none"], tmp_path, environ)
    before = file.read_bytes()
    options = ["--home", str(tmp_path / "memory"), "--set", "embedder.provider=none"]
    assert CliRunner().invoke(cli, ["install", "claude-code", *options]).exit_code == 0
    listed = run_npm([claude, "mcp", "list"], tmp_path, environ).stdout
    line = next(line for line in listed.splitlines() if line.startswith("reme: "))
    assert line.endswith("Connected")
    assert "Failed" not in line
    assert CliRunner().invoke(cli, ["uninstall", "claude-code"]).exit_code == 0
    assert json.loads(file.read_bytes())["mcpServers"] == json.loads(before)["mcpServers"]


def test_the_inspector_lists_and_calls_the_tools_from_the_written_file(tmp_path: Path) -> None:
    inspector = npm_program("mcp-inspector", "@modelcontextprotocol/inspector")
    file = tmp_path / "mcp.json"
    options = ["--home", str(tmp_path / "memory"), "--set", "embedder.provider=none"]
    assert CliRunner().invoke(cli, ["install", "cursor", "--file", str(file), *options]).exit_code == 0
    command = [inspector, "--cli", "--config", str(file), "--server", "reme", "--method"]
    listed = run_npm([*command, "tools/list"], tmp_path, {})
    assert listed.returncode == 0, listed.stderr
    names = [tool["name"] for tool in json.loads(listed.stdout)["tools"]]
    assert names == ["recall_experiences", "record_trajectory", "rate_experience"]
    call = ["--tool-name", "recall_experiences", "--tool-arg", "task=deploy the blog"]
    called = run_npm([*command, "tools/call", *call], tmp_path, {})
    assert called.returncode == 0, called.stderr
    assert json.loads(called.stdout)["structuredContent"]["receipt"].startswith("r-")


def test_codex_reads_what_was_written_and_writes_around_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codex = npm_program("codex", "@openai/codex")
    monkeypatch.delenv("CODEX_HOME", raising=False)
    file = client_of("codex").file(this_machine(), None)
    file.parent.mkdir()
    file.write_text('[mcp_servers.files]\ncommand = "npx"\n\n# a profile\n[profiles.fast]\n', encoding="utf-8")
    assert CliRunner().invoke(cli, ["install", "codex", "--workspace", "team"]).exit_code == 0
    listed = {one["name"]: one for one in json.loads(run_npm([codex, "mcp", "list", "--json"], tmp_path, {}).stdout)}
    assert sorted(listed) == ["files", "reme"]
    assert listed["reme"]["enabled"]
    assert listed["reme"]["transport"]["args"][-2:] == ["--workspace", "team"]
    run_npm([codex, "mcp", "add", "other", "--", "/none"], tmp_path, {})
    assert CliRunner().invoke(cli, ["uninstall", "codex"]).exit_code == 0
    left = json.loads(run_npm([codex, "mcp", "list", "--json"], tmp_path, {}).stdout)
    assert [one["name"] for one in left] == ["files", "other"]
    assert "# a profile\n[profiles.fast]" in file.read_text(encoding="utf-8")


def test_gemini_reads_what_was_written_beside_a_comment_and_connects(tmp_path: Path) -> None:
    gemini = npm_program("gemini", "@google/gemini-cli")
    file = client_of("gemini").file(this_machine(), None)
    file.parent.mkdir()
    file.write_text('{\n  // mine\n  "mcpServers": {}\n}\n', encoding="utf-8")
    (file.parent / "trustedFolders.json").write_text(json.dumps({str(tmp_path): "TRUST_FOLDER"}), encoding="utf-8")
    options = ["--home", str(tmp_path / "memory"), "--set", "embedder.provider=none"]
    assert CliRunner().invoke(cli, ["install", "gemini", *options]).exit_code == 0
    done = run_npm([gemini, "mcp", "list"], tmp_path, {})
    line = next(line for line in (done.stdout + done.stderr).splitlines() if "reme: " in line)
    assert line.endswith("Connected")
