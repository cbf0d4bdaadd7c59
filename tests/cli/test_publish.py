"""The one-click bundle and the registry's entry."""

from __future__ import annotations

import json
import os
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters

import reme_mcp
from reme_mcp import __version__
from reme_mcp.cli.main import cli
from reme_mcp.clients import bundle
from reme_mcp.errors import InvalidInput
from reme_mcp.server.tools import TOOLS
from tests.npm import npm_program, run_npm

DESCRIPTIONS = {tool.name: tool.description for tool in TOOLS}

NAME = "io.github.you/reme-mcp"
PACKAGE = Path(reme_mcp.__file__).parent
# Read before a test's guard cleans the environment.
REGISTRY_SCHEMA = os.environ.get("REME_TEST_REGISTRY_SCHEMA", "")


def packed(tmp_path: Path) -> Path:
    done = CliRunner().invoke(cli, ["bundle", str(tmp_path / "reme.mcpb")])
    assert done.exit_code == 0, done.output
    return tmp_path / "reme.mcpb"


def unpacked(tmp_path: Path) -> Path:
    with zipfile.ZipFile(packed(tmp_path)) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


# --- the bundle ---


def test_the_bundle_holds_every_source_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    sources = {
        f"server/reme_mcp/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and file.parent.name != "__pycache__"
    }
    assert "server/reme_mcp/server/tools.py" in sources
    assert files == sources | {"manifest.json", "pyproject.toml", "server/main.py"}
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = metadata.requires("reme-mcp") or []
    assert project["project"]["dependencies"] == [one for one in wanted if "extra" not in one]
    assert any(one.startswith("mcp") for one in wanted)
    assert project["project"]["requires-python"] == bundle.PYTHON


def test_the_same_sources_make_the_same_bundle_and_a_file_is_not_overwritten(tmp_path: Path) -> None:
    assert bundle.bundle(DESCRIPTIONS) == packed(tmp_path).read_bytes()
    done = CliRunner().invoke(cli, ["bundle", str(tmp_path / "reme.mcpb")])
    assert done.exit_code == 1
    assert "exists already; name another file" in done.stderr
    done = CliRunner().invoke(cli, ["bundle", str(tmp_path / "none" / "reme.mcpb")])
    assert done.exit_code == 1
    assert "can't write" in done.stderr


def test_each_field_that_a_person_fills_in_reaches_the_server_and_secrets_are_marked() -> None:
    manifest: Any = bundle.manifest(DESCRIPTIONS)
    fields = manifest["user_config"]
    assert manifest["server"]["mcp_config"]["env"] == {
        f"REME_MCP_{name.upper()}": f"${{user_config.{name}}}" for name in fields
    }
    assert [name for name, field in fields.items() if field.get("sensitive")] == ["llm_api_key"]
    assert not any(field["required"] for field in fields.values())
    assert [tool["name"] for tool in manifest["tools"]] == [
        "recall_experiences",
        "record_trajectory",
        "rate_experience",
    ]


@pytest.mark.anyio
async def test_the_unpacked_bundle_starts_and_takes_an_empty_field_for_no_choice(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    # Proof that these sources run, and not those of the tests.
    (folder / "server" / "reme_mcp" / "__init__.py").write_text('__version__ = "9.9.9"\n', encoding="utf-8")
    config: Any = bundle.manifest(DESCRIPTIONS)["server"]
    config = config["mcp_config"]
    program = config["args"][config["args"].index("${__dirname}") + 1]
    left_empty = {"REME_MCP_WORKSPACE": "", "REME_MCP_LLM_MODEL": "", "REME_MCP_LLM_BASE_URL": ""}
    environ = {**config["env"], **left_empty, "REME_MCP_EMBEDDER_PROVIDER": "none"}
    environ["REME_MCP_HOME"] = str(tmp_path / "memory")
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "SYSTEMROOT") if name in os.environ}
    # What the host's `uv run` does, with a Python that has the requirements already.
    server = StdioServerParameters(command=sys.executable, args=[program], env=kept | environ, cwd=folder)
    async with Client(server) as client:
        assert client.server_info is not None
        assert client.server_info.version == "9.9.9"
        answer = await client.call_tool("recall_experiences", {"task": "deploy the blog"})
        assert not answer.is_error
    assert (tmp_path / "memory" / "home.json").exists()


def test_the_formats_own_validator_accepts_the_bundle(tmp_path: Path) -> None:
    mcpb = npm_program("mcpb", "@anthropic-ai/mcpb")
    done = run_npm([mcpb, "unpack", str(packed(tmp_path)), str(tmp_path / "out")], tmp_path, {})
    assert done.returncode == 0, done.stderr
    done = run_npm([mcpb, "validate", str(tmp_path / "out" / "manifest.json")], tmp_path, {})
    assert done.returncode == 0, done.stdout + done.stderr
    broken = bundle.manifest(DESCRIPTIONS) | {"server": {"type": "snake"}}
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(broken), encoding="utf-8")
    assert run_npm([mcpb, "validate", str(tmp_path / "out" / "manifest.json")], tmp_path, {}).returncode == 1


def test_a_program_that_is_no_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    with pytest.raises(InvalidInput, match="not installed as a package here"):
        bundle.bundle(DESCRIPTIONS)


# --- the registry ---


def entry(*options: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["server-json", "--name", NAME, *options])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_registrys_entry_says_what_the_registry_asks_for(tmp_path: Path) -> None:
    said = entry()
    assert (said["name"], said["version"]) == (NAME, __version__)
    assert 1 <= len(said["description"]) <= 100
    assert [(one["registryType"], one["identifier"]) for one in said["packages"]] == [("pypi", "reme-mcp")]
    assert all(one["transport"] == {"type": "stdio"} for one in said["packages"])
    secrets = [one["name"] for one in said["packages"][0]["environmentVariables"] if one["isSecret"]]
    assert secrets == ["REME_MCP_LLM_API_KEY"]
    file = packed(tmp_path)
    said = entry(
        "--bundle",
        str(file),
        "--bundle-url",
        "https://example.org/reme.mcpb",
        "--repository",
        "https://github.com/you/r",
    )
    assert said["packages"][1]["identifier"] == "https://example.org/reme.mcpb"
    assert len(said["packages"][1]["fileSha256"]) == 64
    assert said["repository"] == {"url": "https://github.com/you/r", "source": "github"}


@pytest.mark.skipif(not REGISTRY_SCHEMA, reason="REME_TEST_REGISTRY_SCHEMA names no server.schema.json of 2025-12-11")
def test_the_registrys_schema_accepts_its_entry(tmp_path: Path) -> None:
    schema = json.loads(Path(REGISTRY_SCHEMA).read_text(encoding="utf-8"))
    file = packed(tmp_path)
    for options in (
        [],
        ["--bundle", str(file), "--bundle-url", "https://x.org/r.mcpb", "--repository", "https://x.org"],
    ):
        said = entry(*options)
        assert said["$schema"] == schema["$id"]
        jsonschema.validate(said, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(said | {"description": "x" * 101}, schema)


@pytest.mark.parametrize("name", ["reme-mcp", "a/b/c", "io.github.you/", f"a/{'b' * 199}", "io.github.you/re me"])
def test_a_name_that_the_registry_would_refuse_is_refused_here(name: str) -> None:
    done = CliRunner().invoke(cli, ["server-json", "--name", name])
    assert done.exit_code == 1
    assert "it must be like io.github.you/reme-mcp" in done.stderr
    assert json.loads(bundle.server_json(f"a/{'b' * 198}"))["name"] == f"a/{'b' * 198}"


def test_a_bundle_and_its_address_go_together(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["server-json", "--name", NAME, "--bundle-url", "https://x.org"])
    assert done.exit_code == 2
    assert "--bundle and --bundle-url go together" in done.stderr
