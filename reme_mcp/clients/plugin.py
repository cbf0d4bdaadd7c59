"""A plugin for Claude Code: the server entry and the hooks, as a folder.

In:  the command that starts this program.
Out: the files of the folder, by their paths in it.
Does not know: the disk.

`SessionEnd` records the session, `UserPromptSubmit` adds notes to a prompt, `PreToolUse` to what a subagent is told;
all run `reme-mcp hook`. Exit status 2 of a hook would block the user's prompt, so whatever happens the command ends
with 0.

Source: https://code.claude.com/docs/en/plugins-reference (the files of the folder) and
https://code.claude.com/docs/en/hooks (events, input, output, exit status, timeouts).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from reme_mcp import __version__

# Claude Code ends a hook after so many seconds; the hook gives up earlier, see [capture] prompt_budget_s.
PROMPT_TIMEOUT_S = 30
END_TIMEOUT_S = 10


def files(command: Sequence[str]) -> dict[str, str]:
    """Return the text of each file of the plugin.

    Args:
        command: What starts this program, with its options.
    """
    # Claude Code runs it in a shell, on Windows that of Git; backslashes would be lost there.
    hook = f"{shlex.join([part.replace(chr(92), '/') for part in command])} hook || true"
    manifest = {
        "name": "reme",
        "version": __version__,
        "description": "Procedural memory: what worked and what failed in earlier sessions, at the right moment.",
        "author": {"name": "reme-mcp"},
        "license": "Apache-2.0",
        "keywords": ["memory", "mcp", "experience"],
    }
    hooks = {
        "description": "Record each session at its end, and add what earlier ones taught to prompts and subagents.",
        "hooks": {
            "UserPromptSubmit": [{"hooks": [{"type": "command", "command": hook, "timeout": PROMPT_TIMEOUT_S}]}],
            "PreToolUse": [
                {
                    "matcher": "Task|Agent",
                    "hooks": [{"type": "command", "command": hook, "timeout": PROMPT_TIMEOUT_S}],
                }
            ],
            "SessionEnd": [{"hooks": [{"type": "command", "command": hook, "timeout": END_TIMEOUT_S}]}],
        },
    }
    servers = {"mcpServers": {"reme": {"command": command[0], "args": list(command[1:])}}}
    return {
        ".claude-plugin/plugin.json": _json(manifest),
        "hooks/hooks.json": _json(hooks),
        ".mcp.json": _json(servers),
    }


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
