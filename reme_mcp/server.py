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
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import anyio
from mcp.server import NotificationOptions, Server, ServerRequestContext
from mcp.server.connection import Connection
from mcp.server.stdio import stdio_server
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
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel

from reme_mcp import __version__, checks, guidance, prompts, quarantine
from reme_mcp.access import Access, Role, source_of
from reme_mcp.arguments import RateArguments, RecallArguments, RecordArguments
from reme_mcp.config import Settings
from reme_mcp.embed import load_embedder
from reme_mcp.errors import Forbidden, InvalidInput, NotFound, ReMeError
from reme_mcp.memory import Memory, Tell
from reme_mcp.schema import Experience, RateResult, RecallResult, RecordResult
from reme_mcp.subscriptions import Subscriptions, Target
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
# What the caller of a request may do; raises `Forbidden` where that can't be told.
AccessOf = Callable[[Context], Access]


@dataclass(slots=True)
class State:
    """What one running server holds: the memory, who wants to hear of changes, and who is who.

    Attributes:
        memory: The open memory.
        subscriptions: Who wants to hear of changes.
        access_of: What the caller of a request may do.
        warm: Whether loading has begun.
    """

    memory: Memory
    subscriptions: Subscriptions
    access_of: AccessOf
    warm: bool = False

    def warm_up(self) -> None:
        """Start loading store and model in the background, once."""
        if not self.warm:
            self.warm = True
            self.memory.start_warm_up(delay_s=WARM_UP_DELAY_S)


# --- tools ---


@dataclass(frozen=True, slots=True)
class _Caller:
    """Who calls, and what they may do."""

    source: str
    access: Access
    tell: Tell


async def _recall(state: State, arguments: RecallArguments, caller: _Caller) -> tuple[str, RecallResult]:
    result = await arguments.run(state.memory, source=caller.source)
    return "\n\n".join(part for part in (result.guidance, result.note) if part), result


async def _record(state: State, arguments: RecordArguments, caller: _Caller) -> tuple[str, RecordResult]:
    result = await arguments.run(state.memory, source=caller.source, tell=caller.tell)
    held = [one.id for one in result.quarantined]
    changed = [*result.added, *held, *(one.id for one in result.merged), *(one.id for one in result.settled)]
    _announce(state, arguments.workspace, changed, new=bool(result.added or held))
    return guidance.record_summary(result), result


async def _rate(state: State, arguments: RateArguments, caller: _Caller) -> tuple[str, RateResult]:
    result = await arguments.run(state.memory, source=caller.source)
    _announce(state, arguments.workspace, [result.experience_id], new=False)
    return guidance.rate_summary(result), result


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
    run: Callable[[State, Any, _Caller], Awaitable[tuple[str, BaseModel]]]

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
        role="write",
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
        role="write",
        run=_rate,
    ),
)
_TOOL_BY_NAME = {tool.name: tool for tool in TOOLS}


def _input_schema(name: str) -> dict[str, Any] | None:
    """Return what the headers of a call are checked against, without listing all tools for it."""
    tool = _TOOL_BY_NAME.get(name)
    return None if tool is None else tool.listing().input_schema


async def _list_tools(context: Context, _: PaginatedRequestParams | None) -> ListToolsResult:
    state = context.lifespan_context
    access = _access(context)
    state.warm_up()
    return ListToolsResult(tools=[tool.listing() for tool in TOOLS if access.allows(tool.role)])


async def _call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
    state = context.lifespan_context
    tool = _TOOL_BY_NAME.get(params.name)
    if tool is None:
        raise MCPError(INVALID_PARAMS, f"no tool {params.name!r}; there are {', '.join(_TOOL_BY_NAME)}")
    access = _access(context)
    state.warm_up()
    try:
        access.demand(tool.role, tool.name)
        arguments = tool.arguments.read(params.arguments or {})
        arguments = arguments.model_copy(update={"workspace": access.workspace(arguments.workspace)})
        if not state.memory.is_open:
            await context.session.report_progress(0, 1, "opening the pool")
        caller = _Caller(_source(context, access), access, partial(_tell, context))
        text, result = await tool.run(state, arguments, caller)
    except ReMeError as exc:
        if access.holder and not isinstance(exc, InvalidInput):
            # It is about the machine, whose folders and addresses are nothing to its guests.
            logger.error("%s: %s", tool.name, exc)
            return _tool_error(f"{tool.name}: the server can't do it at the moment; its log says why. Try again later.")
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


def _source(context: Context, access: Access) -> str:
    """Return who calls; a record can't set it."""
    client = context.session.client_params
    name = client.client_info.name if client is not None else "mcp"
    return source_of(name, access.holder)


def _access(context: Context) -> Access:
    """Return what the caller may do.

    Raises:
        MCPError: It can't be told.
    """
    try:
        return context.lifespan_context.access_of(context)
    except Forbidden as exc:
        raise MCPError(INVALID_PARAMS, str(exc)) from exc


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
    access = _access(context)
    try:
        content = await _resource(context.lifespan_context.memory, _named(uri, access), access)
    except InvalidInput as exc:
        raise MCPError(INVALID_PARAMS, str(exc), {"uri": uri}) from exc
    text = json.dumps(content, ensure_ascii=False, indent=1, default=str)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type="application/json")])


@dataclass(frozen=True, slots=True)
class _Named:
    """What a `reme://` URI names."""

    workspace: str
    kind: Literal["pool", "experience", "stats"]
    id: str = ""
    page: int = 1

    @property
    def target(self) -> Target:
        """What a subscriber to it subscribes to."""
        path = {"pool": POOL_URI, "experience": f"{POOL_URI}/{self.id}", "stats": STATS_URI}[self.kind]
        return Target(self.workspace, path)


def _named(uri: str, access: Access) -> _Named:
    """Return what a URI names to a caller.

    Raises:
        NotFound: Nothing.
        InvalidInput: Its page is no number.
        Forbidden: It is in a workspace that the caller may not enter.
    """
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    named = query.pop("workspace", None)
    page = query.pop("page", "1") if not parts.path else "1"
    if parts.scheme != "reme" or query or parts.fragment:
        raise NotFound(_no_resource(uri))
    workspace = checks.workspace(access.workspace(named))
    if parts.netloc == "stats" and not parts.path:
        return _Named(workspace, "stats")
    if parts.netloc == "experiences" and not parts.path:
        if not page.isdecimal() or not 1 <= int(page) <= 1_000_000:
            raise InvalidInput(f"page is {page[:SHOWN_CHARS]!r}; it must be a whole number from 1")
        return _Named(workspace, "pool", page=int(page))
    if parts.netloc == "experiences" and parts.path.count("/") == 1:
        return _Named(workspace, "experience", id=parts.path[1:])
    raise NotFound(_no_resource(uri))


async def _resource(memory: Memory, named: _Named, access: Access) -> object:
    """Return what stands in a resource."""
    if named.kind == "stats":
        stats = asdict(await memory.pool.stats(workspace=named.workspace))
        if access.allows("admin"):
            return stats
        # Where the pool is, and what all workspaces together have cost, is not a workspace's own.
        return {name: value for name, value in stats.items() if name not in ("home", "llm")}
    if named.kind == "pool":
        return await _pool_page(memory, named)
    experience, tally = await memory.pool.experience(named.id, workspace=named.workspace)
    return asdict(_readable(experience)) | {"recalled": tally.recalled, "last_recalled_at": tally.last_recalled_at}


async def _pool_page(memory: Memory, named: _Named) -> object:
    experiences = await memory.pool.page(
        workspace=named.workspace, offset=(named.page - 1) * PAGE_SIZE, limit=PAGE_SIZE + 1
    )
    following = f"{POOL_URI}?workspace={named.workspace}&page={named.page + 1}"
    return {
        "workspace": named.workspace,
        "page": named.page,
        "next": following if len(experiences) > PAGE_SIZE else None,
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
        "workspace": experience.workspace,
        "source": experience.source,
        "author": experience.author,
        "trajectory_ids": experience.trajectory_ids,
        "created_at": experience.created_at,
    }


def _no_resource(uri: str) -> str:
    return f"no resource {uri[:SHOWN_CHARS]!r}; there are {POOL_URI}, {POOL_URI}/{{id}} and {STATS_URI}"


def _connection(context: Context) -> Connection:
    # A session is made anew for each request; the connection behind it is what ends one day.
    return context.session._connection


def _target(uri: str, access: Access) -> Target:
    try:
        return _named(uri, access).target
    except InvalidInput as exc:
        raise MCPError(INVALID_PARAMS, str(exc), {"uri": uri}) from exc


async def _subscribe(context: Context, params: SubscribeRequestParams) -> EmptyResult:
    uri = str(params.uri)
    context.lifespan_context.subscriptions.add(_connection(context), uri, _target(uri, _access(context)))
    return EmptyResult()


async def _unsubscribe(context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
    context.lifespan_context.subscriptions.remove(_connection(context), str(params.uri))
    return EmptyResult()


async def _listen(context: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
    access = _access(context)
    wanted: dict[Target, list[str]] = {}
    for uri in params.notifications.resource_subscriptions or ():
        wanted.setdefault(_target(str(uri), access), []).append(str(uri))
    return await context.lifespan_context.subscriptions.listen(context, params, access, wanted)


def _announce(state: State, workspace: str | None, ids: list[str], *, new: bool) -> None:
    """Tell subscribers of either era which resources are no longer what they read."""
    if ids and workspace is not None:
        paths = [POOL_URI, STATS_URI, *(f"{POOL_URI}/{id}" for id in ids)]
        state.subscriptions.announce(workspace, paths, new=new)


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
    access = _access(context)
    try:
        if not task.strip():
            raise InvalidInput("task is missing; give the task in your words")
        if params.name == "start_task":
            context.lifespan_context.warm_up()
            recalled = await context.lifespan_context.memory.recall(
                task, workspace=access.workspace(None), source=_source(context, access)
            )
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

    Whoever can talk to it may do everything: it is for one person's own client, and for tests, which run it in memory:
    `async with mcp.Client(build_server(settings)) as client`.
    """
    everything = Access.of_this_machine(settings.workspace)
    return make_server(partial(open_state, settings, lambda _: everything, load=load))


@asynccontextmanager
async def open_state(
    settings: Settings, access_of: AccessOf, *, load: LoadEmbedder = load_embedder
) -> AsyncIterator[State]:
    """Open the memory and what belongs to it for as long as a server runs."""
    async with Memory.open(settings, load=load) as memory, anyio.create_task_group() as background:
        yield State(memory, Subscriptions(background), access_of)
        background.cancel_scope.cancel()


def make_server(state: Callable[[], AbstractAsyncContextManager[State]]) -> Server[State]:
    """Return a server that runs on the state which `state` opens."""

    def lifespan(_: Server[State]) -> AbstractAsyncContextManager[State]:
        return state()

    return Server(
        "reme-mcp",
        version=__version__,
        title="ReMe",
        instructions=prompts.INSTRUCTIONS,
        lifespan=lifespan,
        get_tool_input_schema=_input_schema,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_resource_templates,
        on_read_resource=_read_resource,
        on_subscribe_resource=_subscribe,
        on_unsubscribe_resource=_unsubscribe,
        on_subscriptions_listen=_listen,
        on_list_prompts=_list_prompts,
        on_get_prompt=_get_prompt,
    )


async def serve_stdio(settings: Settings) -> None:
    """Serve one client over stdin and stdout until it closes them."""
    server = build_server(settings)
    options = server.create_initialization_options(NotificationOptions(resources_changed=True))
    async with stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, options)
