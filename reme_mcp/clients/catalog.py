"""The clients that people use: which file each reads its servers from, and in which form.

In:  a machine: its system, home folder and environment.
Out: `Client` values, the files of each.
Does not know: how an entry is written into such a file, or what is in it.

Each client's documentation is named with it, as read in November 2026. What a document leaves open is said there.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reme_mcp.errors import InvalidInput

Form = Literal["json", "jsonc", "toml"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a user's files are.

    Attributes:
        system: As `sys.platform` names it: `linux`, `darwin`, `win32`.
        home: The user's home folder.
        environ: The environment; some clients let a variable name their folder.
    """

    system: str
    home: Path
    environ: Mapping[str, str]

    @property
    def config(self) -> Path:
        """The folder for settings of programs that follow the system's custom."""
        match self.system:
            case "darwin":
                return self.home / "Library" / "Application Support"
            case "win32":
                return self.folder("APPDATA", self.home / "AppData" / "Roaming")
        return self.folder("XDG_CONFIG_HOME", self.home / ".config")

    def folder(self, variable: str, default: Path) -> Path:
        """Return the folder that a variable of the environment names, if it does."""
        return Path(self.environ.get(variable) or default)


@dataclass(frozen=True, slots=True)
class Client:
    """One client.

    Attributes:
        name: What a person types.
        title: What its makers call it.
        form: Of its file. `json` allows no comments (tried with Claude Code; Claude Desktop ignores such a file),
            `jsonc` does, or nobody says that it does not.
        servers: The key in the file under which servers stand.
        has_type: Whether an entry has to say that it is started over stdio.
        user_file: Its file for all of a user's work.
        project_file: Its file for one project, below the project's folder; empty where it has none.
        source: The page that says so.
        then: What is left to be done by hand.
        project_then: The same for a project's file.
    """

    name: str
    title: str
    form: Form
    servers: str
    has_type: bool
    user_file: Callable[[Machine], Path]
    project_file: str
    source: str
    then: str
    project_then: str = ""

    def file(self, machine: Machine, project: Path | None) -> Path:
        """Return the file for a user's work, or for one project's.

        Raises:
            InvalidInput: The client has no file for a project.
        """
        if project is None:
            return self.user_file(machine)
        if not self.project_file:
            raise InvalidInput(f"{self.title} has no settings for a project; leave --project out")
        return project / self.project_file


def _claude_desktop(machine: Machine) -> Path:
    name = "claude_desktop_config.json"
    if machine.system == "win32":
        # The installer of 2026 is an MSIX package, whose %APPDATA% is a folder of its own, while the app's own button
        # opens the usual one (github.com/anthropics/claude-code/issues/26073).
        local = machine.folder("LOCALAPPDATA", machine.home / "AppData" / "Local")
        for folder in sorted(local.glob("Packages/Claude_*/LocalCache/Roaming/Claude")):
            return folder / name
    return machine.config / "Claude" / name


def _claude_code(machine: Machine) -> Path:
    return machine.folder("CLAUDE_CONFIG_DIR", machine.home) / ".claude.json"


def _zed(machine: Machine) -> Path:
    # Like Linux on macOS; on Windows %APPDATA%\Zed.
    if machine.system == "win32":
        return machine.config / "Zed" / "settings.json"
    if machine.system == "darwin":
        return machine.home / ".config" / "zed" / "settings.json"
    return machine.config / "zed" / "settings.json"


CLIENTS = (
    Client(
        name="claude-desktop",
        title="Claude Desktop",
        form="json",
        servers="mcpServers",
        has_type=False,
        user_file=_claude_desktop,
        project_file="",
        # macOS and Windows; it names no file for Linux, where the app follows XDG.
        source="modelcontextprotocol.io/docs/develop/connect-local-servers",
        then="Quit Claude Desktop (closing its window is not enough) and start it again.",
    ),
    Client(
        name="claude-code",
        title="Claude Code",
        form="json",
        servers="mcpServers",
        has_type=True,
        user_file=_claude_code,
        project_file=".mcp.json",
        # "MCP installation scopes": user and project. CLAUDE_CONFIG_DIR as `claude mcp add` 2.1.197 takes it.
        source="code.claude.com/docs/en/mcp",
        then="`claude mcp list` says whether it connects; sessions that run already see it after /mcp or a restart.",
        project_then="Claude Code asks whether to trust it when it is started in that folder.",
    ),
    Client(
        name="cursor",
        title="Cursor",
        form="jsonc",
        servers="mcpServers",
        has_type=False,
        user_file=lambda machine: machine.home / ".cursor" / "mcp.json",
        project_file=".cursor/mcp.json",
        source="cursor.com/docs/mcp",
        then="Switch it on in Cursor's settings, under Tools & MCP.",
    ),
    Client(
        name="vscode",
        title="VS Code",
        form="jsonc",
        servers="servers",
        has_type=True,
        # The default profile; another profile's is opened by its command "MCP: Open User Configuration".
        user_file=lambda machine: machine.config / "Code" / "User" / "mcp.json",
        project_file=".vscode/mcp.json",
        source="code.visualstudio.com/docs/agents/reference/mcp-configuration",
        then="VS Code asks whether to trust it when it first starts it (command: MCP: List Servers).",
    ),
    Client(
        name="windsurf",
        title="Windsurf",
        form="jsonc",
        servers="mcpServers",
        has_type=False,
        user_file=lambda machine: machine.home / ".codeium" / "windsurf" / "mcp_config.json",
        project_file="",
        source="docs.windsurf.com/windsurf/cascade/mcp",
        then="Press the refresh button in Cascade's list of MCP servers.",
    ),
    Client(
        name="zed",
        title="Zed",
        form="jsonc",
        servers="context_servers",
        has_type=False,
        user_file=_zed,
        project_file=".zed/settings.json",
        # The form: "As Custom Servers"; the files: zed.dev/docs/configuring-zed, zed.dev/docs/worktree-trust.
        source="zed.dev/docs/ai/mcp",
        then="Zed starts it at once; Settings → AI → MCP Servers shows a green dot.",
        project_then="Zed starts it once the worktree is trusted.",
    ),
    Client(
        name="gemini",
        title="Gemini CLI",
        form="jsonc",
        servers="mcpServers",
        has_type=False,
        user_file=lambda machine: machine.home / ".gemini" / "settings.json",
        project_file=".gemini/settings.json",
        source="geminicli.com/docs/tools/mcp-server",
        then="Restart Gemini CLI; /mcp lists it.",
    ),
    Client(
        name="codex",
        title="Codex",
        form="toml",
        servers="mcp_servers",
        has_type=False,
        user_file=lambda machine: machine.folder("CODEX_HOME", machine.home / ".codex") / "config.toml",
        project_file=".codex/config.toml",
        source="developers.openai.com/codex/mcp",
        then="`codex mcp list` shows it; the IDE extension reads the same file.",
        project_then="Codex reads a project's file only where the project is trusted.",
    ),
)


def this_machine() -> Machine:
    """Return the machine that this runs on.

    Raises:
        InvalidInput: The user has no home folder, as in some containers.
    """
    try:
        return Machine(sys.platform, Path.home(), os.environ)
    except RuntimeError as exc:
        raise InvalidInput("the home folder of this user is not known; set HOME, or name the file with --file") from exc


def client_of(name: str) -> Client:
    """Return the client of that name.

    Raises:
        InvalidInput: There is none.
    """
    for client in CLIENTS:
        if client.name == name:
            return client
    names = [client.name for client in CLIENTS]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)};"
    raise InvalidInput(f"no client {name!r}; {hint} for any other, `reme-mcp install --print` shows the entry")
