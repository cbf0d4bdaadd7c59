"""What others install this server from: the one-click bundle of Claude Desktop, and the entry of the MCP registry.

In:  this installation: its files, version and requirements.
Out: a bundle (.mcpb) as bytes, the text of a `server.json`.
Does not know: where they go.

The bundle holds the sources and a list of requirements. Its host brings Python and the requirements with `uv`, for
whatever system it is on; half of them are compiled, so a bundle with all of them inside would fit one system only.

Source: MCPB manifest 0.4 (github.com/modelcontextprotocol/mcpb, MANIFEST.md, "UV Runtime"); server.json 2025-12-11
(github.com/modelcontextprotocol/registry, docs/reference/server-json).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import reme_mcp
from reme_mcp import __version__
from reme_mcp.errors import InvalidInput

PACKAGE = "reme-mcp"
PYTHON = ">=3.11"
DESCRIPTION = "Procedural memory for any assistant: it learns from what worked and what failed"
MANIFEST_VERSION = "0.4"
REGISTRY_SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
REGISTRY_NAME = re.compile(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+")
MAX_NAME_CHARS = 200
# Zip files know no time before this; with one time for all, the same sources make the same bundle.
LONG_AGO = (1980, 1, 1, 0, 0, 0)

# What a person fills in: variable of the environment, form of the field, title, what it is for.
FIELDS = (
    (
        "REME_MCP_HOME",
        "directory",
        "Folder of the memory",
        "Leave it empty to share the memory with your other clients.",
    ),
    ("REME_MCP_WORKSPACE", "string", "Workspace", "Which memory in that folder; empty is the usual one."),
    (
        "REME_MCP_LLM_BASE_URL",
        "string",
        "Address of a language model",
        "Any OpenAI-compatible server, such as http://localhost:11434/v1. Without one, the assistant does its work.",
    ),
    ("REME_MCP_LLM_MODEL", "string", "Name of that model", "As its server knows it."),
    ("REME_MCP_LLM_API_KEY", "string", "Its key", "Empty for a server that wants none."),
)
SECRETS = ("REME_MCP_LLM_API_KEY",)

MAIN = '''"""Start the server from the unpacked bundle."""

import os

# A field that was left empty is no choice: a settings file may have made one.
for name in {names}:
    if os.environ.get(name, "").startswith("${{") or not os.environ.get(name):
        os.environ.pop(name, None)

from reme_mcp.cli.main import main

main()
'''


def manifest(tools: Mapping[str, str]) -> dict[str, object]:
    """Return the bundle's `manifest.json`."""
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": PACKAGE,
        "display_name": "ReMe memory",
        "version": __version__,
        "description": DESCRIPTION,
        "author": {"name": "The authors of reme-mcp"},
        "license": "Apache-2.0",
        "keywords": ["memory", "experience", "learning"],
        "server": {
            "type": "uv",
            "entry_point": "server/main.py",
            "mcp_config": {
                "command": "uv",
                "args": ["run", "--directory", "${__dirname}", "server/main.py"],
                "env": {variable: f"${{user_config.{_field(variable)}}}" for variable, *_ in FIELDS},
            },
        },
        "tools": [{"name": name, "description": text} for name, text in tools.items()],
        "prompts_generated": True,
        "compatibility": {"platforms": ["darwin", "linux", "win32"], "runtimes": {"python": PYTHON}},
        "user_config": {
            _field(variable): {"type": kind, "title": title, "description": about, "required": False}
            | ({"sensitive": True} if variable in SECRETS else {})
            for variable, kind, title, about in FIELDS
        },
    }


def bundle(tools: Mapping[str, str]) -> bytes:
    """Return the bundle, a zip file; the same sources make the same bytes.

    Raises:
        InvalidInput: This program was not installed as a package, so that its requirements are not known.
    """
    folder = Path(reme_mcp.__file__).parent
    parts = {
        "manifest.json": json.dumps(manifest(tools), indent=2, ensure_ascii=False).encode(),
        "pyproject.toml": _project().encode(),
        "server/main.py": MAIN.format(names=tuple(variable for variable, *_ in FIELDS)).encode(),
    }
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.parent.name != "__pycache__":
            parts[f"server/{folder.name}/{file.relative_to(folder).as_posix()}"] = file.read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            member = zipfile.ZipInfo(name, LONG_AGO)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return packed.getvalue()


def server_json(name: str, *, repository: str = "", bundle_url: str = "", bundle_bytes: bytes = b"") -> str:
    """Return the text of the registry's `server.json`.

    Args:
        name: In the registry, such as `io.github.you/reme-mcp`; the README on PyPI has to say it, too.
        repository: Address of the sources; empty to leave it out.
        bundle_url: Where `bundle_bytes` can be fetched; empty to leave it out.
        bundle_bytes: The bundle itself, for its checksum.

    Raises:
        InvalidInput: The name is none that the registry takes.
    """
    if REGISTRY_NAME.fullmatch(name) is None or len(name) > MAX_NAME_CHARS:
        raise InvalidInput(f"name is {name!r}; it must be like io.github.you/reme-mcp")
    variables = [
        {"name": variable, "description": f"{title}. {about}", "isRequired": False, "isSecret": variable in SECRETS}
        for variable, _, title, about in FIELDS
    ]
    stdio = {"type": "stdio"}
    packages: list[dict[str, object]] = [
        {
            "registryType": "pypi",
            "identifier": PACKAGE,
            "version": __version__,
            "runtimeHint": "uvx",
            "transport": stdio,
            "environmentVariables": variables,
        }
    ]
    if bundle_url:
        digest = hashlib.sha256(bundle_bytes).hexdigest()
        packages.append({"registryType": "mcpb", "identifier": bundle_url, "fileSha256": digest, "transport": stdio})
    said: dict[str, object] = {
        "$schema": REGISTRY_SCHEMA,
        "name": name,
        "title": "ReMe memory",
        "description": DESCRIPTION,
        "version": __version__,
    }
    if repository:
        host = urlsplit(repository).hostname or ""
        said["repository"] = {"url": repository, "source": host.removesuffix(".com")}
    return json.dumps(said | {"packages": packages}, indent=2, ensure_ascii=False)


def _field(variable: str) -> str:
    return variable.removeprefix("REME_MCP_").lower()


def _project() -> str:
    """Return the `pyproject.toml` by which `uv` knows what to bring."""
    try:
        wanted = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError as exc:
        raise InvalidInput(f"{PACKAGE} is not installed as a package here; pip install it, then try again") from exc
    lines = "".join(f"    {json.dumps(one)},\n" for one in wanted if "extra ==" not in one)
    return (
        f'[project]\nname = "{PACKAGE}-bundle"\nversion = "{__version__}"\nrequires-python = "{PYTHON}"\n'
        f"dependencies = [\n{lines}]\n\n[tool.uv]\npackage = false\n"
    )
