"""The three tools: their descriptions and schemas, and how a call becomes an answer.

In:  `tools/list` and `tools/call` of either era (the handshake up to 2025-11-25, and 2026-07-28).
Out: structured results with a readable text each; our errors as tool errors that a model can act on.
Does not know: how anything is found, stored or judged; `memory.Memory` does.

Source: the MCP specification, revisions 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel

from reme_mcp.auth.access import Role
from reme_mcp.progress import on_wait
from reme_mcp.results import RateResult, RecallResult, RecordResult
from reme_mcp.server import apps
from reme_mcp.server.arguments import RateArguments, RecallArguments, RecordArguments
from reme_mcp.server.icons import Name, icons
from reme_mcp.server.resources import announce_change
from reme_mcp.server.state import Caller, Context, State, answer_to, caller_access, caller_source
from reme_mcp.text.summaries import rate_summary, record_summary


async def _recall(state: State, arguments: RecallArguments, caller: Caller) -> tuple[str, RecallResult]:
    result = await arguments.run(await state.memory(), source=caller.source)
    return "\n\n".join(part for part in (result.guidance, result.note) if part), result


async def _record(state: State, arguments: RecordArguments, caller: Caller) -> tuple[str, RecordResult]:
    result = await arguments.run(await state.memory(), source=caller.source, tell=caller.tell)
    held = [one.id for one in result.quarantined]
    changed = [*result.added, *held, *(one.id for one in result.merged), *(one.id for one in result.settled)]
    announce_change(state, arguments.workspace, changed, new=bool(result.added or held))
    return record_summary(result), result


async def _rate(state: State, arguments: RateArguments, caller: Caller) -> tuple[str, RateResult]:
    result = await arguments.run(await state.memory(), source=caller.source)
    announce_change(state, arguments.workspace, [result.experience_id], new=False)
    return rate_summary(result), result


@dataclass(frozen=True, slots=True, eq=False)
class _Tool:
    """One tool: what a client is told of it, and what runs."""

    name: str
    title: str
    description: str
    arguments: type[RecallArguments] | type[RecordArguments] | type[RateArguments]
    result: type[BaseModel]
    annotations: ToolAnnotations
    role: Role
    icon: Name
    run: Callable[[State, Any, Caller], Awaitable[tuple[str, BaseModel]]]

    @cache  # noqa: B019  there are three, and they stay
    def listing(self) -> Tool:
        """Return what `tools/list` shows."""
        schema = _compact(self.arguments.model_json_schema(), nulls=False)
        output = _compact(self.result.model_json_schema(mode="serialization"), nulls=True)
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=_without(schema, "description"),
            output_schema=_without(output, "description"),
            annotations=self.annotations,
            icons=icons(self.icon),
        )


TOOLS = (
    _Tool(
        name="recall_experiences",
        title="Recall experiences",
        description=(
            "Call before starting a task of several steps, and again when stuck or before a retry. Returns lessons "
            "from earlier, similar tasks (what worked, what failed) and a receipt for record_trajectory."
        ),
        arguments=RecallArguments,
        result=RecallResult,
        # It appends a receipt, which changes nothing that anybody recalls.
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
        role="read",
        icon="recall",
        run=_recall,
    ),
    _Tool(
        name="record_trajectory",
        title="Record a trajectory",
        description=(
            "Call when a task has succeeded or failed, with its outcome, the receipt of the recall, which of its notes "
            "you used and which misled you, and 1-3 experiences worth reusing. Without experiences it answers with a "
            "brief: call again with trajectory_id and experiences."
        ),
        arguments=RecordArguments,
        result=RecordResult,
        # A settled receipt may archive an experience that keeps not helping.
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
        role="write",
        icon="record",
        run=_record,
    ),
    _Tool(
        name="rate_experience",
        title="Rate an experience",
        description=(
            "Call when one recalled experience clearly helped or misled. It weighs more than outcomes do; rating again "
            "replaces it. Experiences that keep not helping are archived."
        ),
        arguments=RateArguments,
        result=RateResult,
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
        role="write",
        icon="rate",
        run=_rate,
    ),
)
_TOOL_BY_NAME = {tool.name: tool for tool in TOOLS}


def make_input_schema(name: str) -> dict[str, Any] | None:
    """Return what the headers of a call are checked against, without listing all tools for it."""
    tool = _TOOL_BY_NAME.get(name)
    return None if tool is None else tool.listing().input_schema


async def list_tools(context: Context, _: PaginatedRequestParams | None) -> ListToolsResult:
    """Answer `tools/list`."""
    state = context.lifespan_context
    access = caller_access(context)
    state.warm_up()
    tools = [tool.listing() for tool in TOOLS if access.allows(tool.role)]
    if apps.has_apps(context):
        tools = [*map(apps.bound, tools), *apps.own_tools()]
    return ListToolsResult(tools=tools)


async def call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
    """Answer `tools/call`."""
    state = context.lifespan_context
    tool = _TOOL_BY_NAME.get(params.name)
    if tool is None and not (params.name in apps.TOOLS and apps.has_apps(context)):
        raise MCPError(INVALID_PARAMS, f"no tool {params.name!r}; there are {', '.join(_TOOL_BY_NAME)}")
    access = caller_access(context)
    state.warm_up()
    try:
        if tool is None:
            caller = Caller(caller_source(context, access), access, partial(_tell, context))
            return await apps.call(state, params.name, params.arguments or {}, caller)
        access.demand(tool.role, tool.name)
        arguments = tool.arguments.read(params.arguments or {})
        arguments = arguments.model_copy(update={"workspace": access.workspace(arguments.workspace)})
        if not state.is_open:
            await context.session.report_progress(0, 1, "opening the pool")
        tell = partial(_tell, context)
        # Each call runs in a context of its own.
        on_wait.set(tell)
        caller = Caller(caller_source(context, access), access, tell)
        text, result = await tool.run(state, arguments, caller)
    except Exception as exc:  # noqa: BLE001  it is told in the words that fit its reader, and logged
        return _tool_error(answer_to(exc, params.name, access))
    text = "\n\n".join(part for part in (text, arguments.note) if part)
    return CallToolResult(
        content=[TextContent(type="text", text=text)], structured_content=result.model_dump(mode="json")
    )


async def _tell(context: Context, what: str) -> None:
    """Tell the client what is waited for, so that it does not take the server for dead."""
    await context.session.report_progress(0, 1, what)


def _tool_error(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


def _compact(schema: object, *, nulls: bool) -> Any:
    """Return a JSON schema without titles and empty defaults; with `nulls` off, also without null branches.

    An argument may be null but never needs to be, so that its null is left out; a result's null has to be declared.
    """
    if isinstance(schema, list):
        return [_compact(item, nulls=nulls) for item in schema]
    if not isinstance(schema, dict):
        return schema
    options = schema.get("anyOf", [])
    if {"type": "null"} in options and len(options) == 2:
        some = next(option for option in options if option != {"type": "null"})
        rest = {key: value for key, value in schema.items() if key not in ("anyOf", "default")}
        if nulls:
            some = some | {"type": [some["type"], "null"]}
        return _compact(some | rest, nulls=nulls)
    return {
        key: {name: _compact(item, nulls=nulls) for name, item in value.items()}
        if key in ("properties", "$defs")
        else _compact(value, nulls=nulls)
        for key, value in schema.items()
        if key != "title" and not (key == "default" and value in (None, "", []))
    }


def _without(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the schema without `key` at its root and in its definitions: docstrings are for readers of the code."""
    bare = {name: value for name, value in schema.items() if name != key}
    if "$defs" in bare:
        bare["$defs"] = {name: _without(value, key) for name, value in bare["$defs"].items()}
    return bare
