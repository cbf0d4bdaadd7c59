"""The MCP surface: three tools, the pool as resources, two prompts. The owner of `mcp` on the server's side.

In:  protocol requests of either era (the handshake up to 2025-11-25, and 2026-07-28).
Out: structured results with a readable text each; our errors as tool errors that a model can act on.
Does not know: how anything is found, stored or judged; `memory.Memory` does.

The low-level `Server` is used because the input schemas are ours to keep small, an argument that doesn't exist must be
named to the model, and subscriptions have to work in both eras. Nothing heavy is imported before `tools/list` has been
answered.

Source: the MCP specification, revisions 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
from mcp.server import NotificationOptions, Server, ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel

from reme_mcp import __version__, guidance, prompts, quarantine
from reme_mcp.arguments import Arguments, RateArguments, RecallArguments, RecordArguments
from reme_mcp.config import Settings
from reme_mcp.embed import load_embedder
from reme_mcp.errors import InvalidInput, NotFound, ReMeError
from reme_mcp.memory import Memory, Tell
from reme_mcp.schema import Experience, RateResult, RecallResult, RecordResult
from reme_mcp.vectors import LoadEmbedder

logger = logging.getLogger(__name__)

POOL_URI = "reme://experiences"
STATS_URI = "reme://stats"
PAGE_SIZE = 50
# Long enough for the answer to `tools/list` to be on the wire before imports take the processor.
WARM_UP_DELAY_S = 0.05
SHOWN_CHARS = 60
HELD_BACK = "held back until a person has approved it"

Context = ServerRequestContext["State", Any]


@dataclass(slots=True)
class State:
    """What one running server holds: the memory, and who wants to hear of changes."""

    memory: Memory
    bus: InMemorySubscriptionBus
    subscribers: dict[str, list[ServerSession]] = field(default_factory=dict)
    warm: bool = False

    def warm_up(self) -> None:
        """Start loading store and model in the background, once."""
        if not self.warm:
            self.warm = True
            self.memory.start_warm_up(delay_s=WARM_UP_DELAY_S)


# --- tools ---


async def _recall(state: State, arguments: RecallArguments, source: str, _: Tell) -> tuple[str, RecallResult]:
    result = await arguments.run(state.memory, source=source)
    return "\n\n".join(part for part in (result.guidance, result.note) if part), result


async def _record(state: State, arguments: RecordArguments, source: str, tell: Tell) -> tuple[str, RecordResult]:
    result = await arguments.run(state.memory, source=source, tell=tell)
    held = [one.id for one in result.quarantined]
    changed = [*result.added, *held, *(one.id for one in result.merged), *(one.id for one in result.settled)]
    await _announce(state, changed, new=bool(result.added or held))
    return guidance.record_summary(result), result


async def _rate(state: State, arguments: RateArguments, source: str, _: Tell) -> tuple[str, RateResult]:
    result = await arguments.run(state.memory, source=source)
    await _announce(state, [result.experience_id], new=False)
    return guidance.rate_summary(result), result


@dataclass(frozen=True, slots=True)
class _Tool:
    """One tool: what a client is told of it, and what runs."""

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    result: type[BaseModel]
    annotations: ToolAnnotations
    run: Callable[[State, Any, str, Tell], Awaitable[tuple[str, BaseModel]]]

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
        run=_recall,
    ),
    _Tool(
        name="record_trajectory",
        title="Record a trajectory",
        description=(
            "Call when a task has succeeded or failed, with its outcome, the receipt of the recall, and 1-3 "
            "experiences worth reusing. Without experiences it answers with a brief: call again with trajectory_id "
            "and experiences."
        ),
        arguments=RecordArguments,
        result=RecordResult,
        # A settled receipt may archive an experience that keeps not helping.
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
        run=_record,
    ),
    _Tool(
        name="rate_experience",
        title="Rate an experience",
        description=(
            "Call when one recalled experience clearly helped or misled. Rating again replaces the rating. "
            "Experiences that keep not helping are archived."
        ),
        arguments=RateArguments,
        result=RateResult,
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
        run=_rate,
    ),
)
_TOOL_BY_NAME = {tool.name: tool for tool in TOOLS}


async def _list_tools(context: Context, _: PaginatedRequestParams | None) -> ListToolsResult:
    context.lifespan_context.warm_up()
    return ListToolsResult(tools=[tool.listing() for tool in TOOLS])


async def _call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
    state = context.lifespan_context
    tool = _TOOL_BY_NAME.get(params.name)
    if tool is None:
        raise MCPError(INVALID_PARAMS, f"no tool {params.name!r}; there are {', '.join(_TOOL_BY_NAME)}")
    state.warm_up()
    try:
        arguments = tool.arguments.read(params.arguments or {})
        if not state.memory.is_open:
            await context.session.report_progress(0, 1, "opening the pool")
        text, result = await tool.run(state, arguments, _source(context), partial(_tell, context))
    except ReMeError as exc:
        return _tool_error(f"{tool.name}: {exc}")
    except Exception:
        logger.exception("%s failed", tool.name)
        return _tool_error(
            f"{tool.name} failed inside the server; its log (stderr) says why. Nothing else is affected."
        )
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


def _source(context: Context) -> str:
    """Return who calls: the client's own name. A record can't set it."""
    client = context.session.client_params
    return client.client_info.name[:80] if client is not None else "mcp"


# --- resources ---


async def _list_resources(context: Context, _: PaginatedRequestParams | None) -> ListResourcesResult:
    return ListResourcesResult(
        resources=[
            Resource(
                uri=POOL_URI,
                name="experiences",
                title="Experience pool",
                description="All experiences of the configured workspace, newest first, in pages",
                mime_type="application/json",
            ),
            Resource(
                uri=STATS_URI,
                name="stats",
                title="Pool statistics",
                description="Counts of experiences, trajectories and receipts, and the state of the search",
                mime_type="application/json",
            ),
        ]
    )


async def _list_resource_templates(context: Context, _: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    return ListResourceTemplatesResult(
        resource_templates=[
            ResourceTemplate(
                uri_template=f"{POOL_URI}{{?workspace,page}}",
                name="experiences-page",
                title="Experience pool, one page",
                mime_type="application/json",
            ),
            ResourceTemplate(
                uri_template=f"{POOL_URI}/{{id}}{{?workspace}}",
                name="experience",
                title="One experience with its provenance",
                mime_type="application/json",
            ),
            ResourceTemplate(
                uri_template=f"{STATS_URI}{{?workspace}}",
                name="stats-of-workspace",
                title="Statistics of one workspace",
                mime_type="application/json",
            ),
        ]
    )


async def _read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    uri = str(params.uri)
    try:
        content = await _resource(context.lifespan_context.memory, uri)
    except InvalidInput as exc:
        raise MCPError(INVALID_PARAMS, str(exc), {"uri": uri}) from exc
    text = json.dumps(content, ensure_ascii=False, indent=1, default=str)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type="application/json")])


async def _resource(memory: Memory, uri: str) -> object:
    """Return what a `reme://` URI names."""
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    workspace = query.pop("workspace", None)
    page = query.pop("page", "1") if not parts.path else "1"
    if parts.scheme != "reme" or query or parts.fragment:
        raise NotFound(_no_resource(uri))
    if parts.netloc == "stats" and not parts.path:
        return asdict(await memory.pool.stats(workspace=workspace))
    if parts.netloc == "experiences" and not parts.path:
        if not page.isdecimal() or not 1 <= int(page) <= 1_000_000:
            raise InvalidInput(f"page is {page[:SHOWN_CHARS]!r}; it must be a whole number from 1")
        return await _pool_page(memory, workspace, int(page))
    if parts.netloc == "experiences" and parts.path.count("/") == 1:
        experience, tally = await memory.pool.experience(parts.path[1:], workspace=workspace)
        return asdict(_readable(experience)) | {"recalled": tally.recalled, "last_recalled_at": tally.last_recalled_at}
    raise NotFound(_no_resource(uri))


async def _pool_page(memory: Memory, workspace: str | None, page: int) -> object:
    experiences = await memory.pool.page(workspace=workspace, offset=(page - 1) * PAGE_SIZE, limit=PAGE_SIZE + 1)
    of_workspace = f"workspace={workspace}&" if workspace else ""
    return {
        "workspace": workspace or memory.settings.workspace,
        "page": page,
        "next": f"{POOL_URI}?{of_workspace}page={page + 1}" if len(experiences) > PAGE_SIZE else None,
        "experiences": [_listed(_readable(experience)) for experience in experiences[:PAGE_SIZE]],
    }


def _readable(experience: Experience) -> Experience:
    """Return the experience, without its texts if they are withheld: who reads a resource may be a model."""
    if not quarantine.is_withheld(experience):
        return experience
    return replace(
        experience,
        when_to_use=HELD_BACK,
        content=HELD_BACK,
        keywords=(),
        tools_used=(),
        task=HELD_BACK,
        generalized_task="",
        source=guidance.name(experience.source),
    )


def _listed(experience: Experience) -> dict[str, object]:
    """Return what the pool listing shows of one experience; its own resource shows the rest."""
    return {
        "id": experience.id,
        "when_to_use": experience.when_to_use,
        "content": experience.content,
        "kind": experience.kind,
        "status": experience.status,
        "frequency": experience.frequency,
        "utility": experience.utility,
        "pinned": experience.pinned,
        "source": experience.source,
        "created_at": experience.created_at,
    }


def _no_resource(uri: str) -> str:
    return f"no resource {uri[:SHOWN_CHARS]!r}; there are {POOL_URI}, {POOL_URI}/{{id}} and {STATS_URI}"


async def _subscribe(context: Context, params: SubscribeRequestParams) -> EmptyResult:
    context.lifespan_context.subscribers.setdefault(str(params.uri), []).append(context.session)
    return EmptyResult()


async def _unsubscribe(context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
    context.lifespan_context.subscribers.pop(str(params.uri), None)
    return EmptyResult()


async def _announce(state: State, ids: list[str], *, new: bool) -> None:
    """Tell subscribers of either era which resources are no longer what they read."""
    if not ids:
        return
    uris = [POOL_URI, STATS_URI, *(f"{POOL_URI}/{id}" for id in ids)]
    for uri in uris:
        await state.bus.publish(ResourceUpdated(uri=uri))
        for session in list(state.subscribers.get(uri, ())):
            try:
                await session.send_resource_updated(uri)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                # The subscriber has left.
                state.subscribers[uri].remove(session)
    if new:
        await state.bus.publish(ResourcesListChanged())


# --- prompts ---

_TASK_ARGUMENT = PromptArgument(name="task", description="The task, in your words", required=True)
PROMPTS = (
    Prompt(
        name="start_task",
        title="Start a task with memory",
        description="The task with what earlier work says about it",
        arguments=[_TASK_ARGUMENT],
    ),
    Prompt(
        name="reflect",
        title="Reflect on a finished task",
        description="Look back on this conversation and record what can be learned from it",
        arguments=[_TASK_ARGUMENT],
    ),
)


async def _list_prompts(context: Context, _: PaginatedRequestParams | None) -> ListPromptsResult:
    return ListPromptsResult(prompts=list(PROMPTS))


async def _get_prompt(context: Context, params: GetPromptRequestParams) -> GetPromptResult:
    task = (params.arguments or {}).get("task", "")
    try:
        if not task.strip():
            raise InvalidInput("task is missing; give the task in your words")
        if params.name == "start_task":
            context.lifespan_context.warm_up()
            recalled = await context.lifespan_context.memory.recall(task, source=_source(context))
            text = prompts.start_task(task, recalled.guidance)
        elif params.name == "reflect":
            text = prompts.reflect(task)
        else:
            raise NotFound(f"no prompt {params.name!r}; there are {', '.join(prompt.name for prompt in PROMPTS)}")
    except InvalidInput as exc:
        raise MCPError(INVALID_PARAMS, str(exc)) from exc
    return GetPromptResult(messages=[PromptMessage(role="user", content=TextContent(type="text", text=text))])


# --- the server ---


def build_server(settings: Settings, *, load: LoadEmbedder = load_embedder) -> Server[State]:
    """Return the server for these settings; it opens its memory when it is run. `load` loads the embedder.

    Tests run it in memory: `async with mcp.Client(build_server(settings)) as client`.
    """
    bus = InMemorySubscriptionBus()

    @asynccontextmanager
    async def lifespan(_: Server[State]) -> AsyncIterator[State]:
        async with Memory.open(settings, load=load) as memory:
            yield State(memory, bus)

    return Server(
        "reme-mcp",
        version=__version__,
        title="ReMe",
        instructions=prompts.INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_resource_templates,
        on_read_resource=_read_resource,
        on_subscribe_resource=_subscribe,
        on_unsubscribe_resource=_unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
    )


async def serve_stdio(settings: Settings) -> None:
    """Serve one client over stdin and stdout until it closes them."""
    server = build_server(settings)
    options = server.create_initialization_options(NotificationOptions(resources_changed=True))
    async with stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, options)
