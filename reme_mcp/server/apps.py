"""The pool inside the chat: two Apps, and the tools behind their buttons, for clients that render such.

In:  requests of a client that has declared the extension.
Out: `ui://reme/…` documents; HTML for what an App shows, and what its buttons do.
Does not know: how a fragment looks.

A model sees three tools, here as everywhere: the two of the Apps are listed for the App only, and want a key that
stands in its document, which the host reads and no model. A host in wide use renders no App of a tool that carries
annotations; the two tools that have one are listed without them to clients that have declared the extension.

Source: https://github.com/modelcontextprotocol/ext-apps (MCP Apps, 2026-01-26); SEP-2133.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mcp.types import (
    CallToolResult,
    ListResourcesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    TextContent,
    TextResourceContents,
    Tool,
)
from pydantic import Field

from reme_mcp.errors import Forbidden
from reme_mcp.schema import Experience
from reme_mcp.server import resources
from reme_mcp.server.arguments import Arguments
from reme_mcp.server.resources import announce_change
from reme_mcp.server.state import Caller, Context, State, caller_access

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory

EXTENSION = "io.modelcontextprotocol/ui"
MIME_TYPE = "text/html;profile=mcp-app"
App = Literal["notes", "review"]
URIS: dict[str, App] = {"ui://reme/notes": "notes", "ui://reme/review": "review"}
# Whose result an App shows.
BOUND = {"recall_experiences": "ui://reme/notes", "record_trajectory": "ui://reme/review"}
MAX_SHOWN = 20


class NotesArguments(Arguments):
    """What `reme_notes` takes: the notes of a recall, and the answer of a person about one of them."""

    key: str
    ids: list[str] = Field(default=[], max_length=MAX_SHOWN)
    receipt: str | None = None
    workspace: str | None = None
    id: str | None = None
    answer: Literal["yes", "no"] | None = None


class ReviewArguments(Arguments):
    """What `reme_review` takes: lessons that are held back, and the decision of a person about one of them."""

    key: str
    ids: list[str] = Field(default=[], max_length=MAX_SHOWN)
    workspace: str | None = None
    id: str | None = None
    answer: Literal["yes", "no"] | None = None


TOOLS: dict[str, type[NotesArguments] | type[ReviewArguments]] = {
    "reme_notes": NotesArguments,
    "reme_review": ReviewArguments,
}
Read = TypeVar("Read", NotesArguments, ReviewArguments)


def has_apps(context: Context) -> bool:
    """Return whether the client has declared that it renders Apps."""
    capabilities = context.session.client_capabilities
    declared = None if capabilities is None else (capabilities.extensions or {}).get(EXTENSION)
    return declared is not None and MIME_TYPE in declared.get("mimeTypes", ())


def bound(tool: Tool) -> Tool:
    """Return a tool as a client with Apps is told of it."""
    uri = BOUND.get(tool.name)
    return tool if uri is None else tool.model_copy(update={"annotations": None, "meta": {"ui": {"resourceUri": uri}}})


def own_tools() -> list[Tool]:
    """Return the tools that Apps call, and nobody else."""
    return [
        Tool(
            name=name,
            title=f"reme, for its own {name.removeprefix('reme_')} App",
            description="Called by the buttons of the App; it needs the App's key.",
            input_schema={"type": "object", "properties": {field: {} for field in arguments.model_fields}},
            _meta={"ui": {"visibility": ["app"]}},
        )
        for name, arguments in TOOLS.items()
    ]


async def list_resources(context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
    """Answer `resources/list`: the pool, and the Apps for who renders them."""
    listed = await resources.list_resources(context, params)
    if has_apps(context):
        listed.resources += [
            Resource(uri=uri, name=f"app-{app}", title=f"ReMe: {app}", mime_type=MIME_TYPE) for uri, app in URIS.items()
        ]
    return listed


async def read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    """Answer `resources/read`."""
    uri = str(params.uri)
    if uri not in URIS or not has_apps(context):
        return await resources.read_resource(context, params)
    from reme_mcp.web.fragments import shell

    caller_access(context)
    text = shell(URIS[uri], context.lifespan_context.app_key)
    meta: dict[str, Any] = {"ui": {"prefersBorder": True}}
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type=MIME_TYPE, _meta=meta)])


async def call(state: State, name: str, raw: dict[str, Any], caller: Caller) -> CallToolResult:
    """Do what a button says, and return what the App shows then.

    Raises:
        InvalidInput: An argument is wrong.
        Forbidden: The key is not the App's, or the caller's role does not reach.
    """
    html = await (_notes if name == "reme_notes" else _review)(state, raw, caller)
    return CallToolResult(content=[TextContent(type="text", text="shown")], structured_content={"html": html})


async def _notes(state: State, raw: dict[str, Any], caller: Caller) -> str:
    from reme_mcp.web.fragments import notes

    arguments = _checked(NotesArguments, state, raw)
    workspace = caller.access.workspace(arguments.workspace)
    memory = await state.memory()
    if arguments.id is not None and arguments.answer is not None:
        caller.access.demand("write", "to rate")
        await memory.rate(
            arguments.id,
            helpful=arguments.answer == "yes",
            receipt=arguments.receipt,
            workspace=workspace,
            source=caller.source,
        )
        announce_change(state, workspace, [arguments.id], new=False)
    found = await memory.pool.experiences(arguments.ids, workspace=workspace)
    shown = [one for one in found if one.status != "quarantined"]
    ratings = await _ratings(memory, shown, arguments.receipt, workspace)
    early = memory.settings.refine.min_frequency
    return notes(shown, ratings, early=early, may_rate=caller.access.allows("write"))


async def _ratings(memory: Memory, shown: list[Experience], receipt: str | None, workspace: str) -> dict[str, bool]:
    """Return what was said of the lessons of a receipt by hand."""
    said: dict[str, bool] = {}
    for one in shown if receipt else ():
        for line in await memory.pool.recalls(one.id, workspace=workspace):
            if line.receipt == receipt and line.settled_by == "rating" and line.helped is not None:
                said[one.id] = line.helped
    return said


async def _review(state: State, raw: dict[str, Any], caller: Caller) -> str:
    from reme_mcp.web.fragments import held

    arguments = _checked(ReviewArguments, state, raw)
    workspace = caller.access.workspace(arguments.workspace)
    memory, decided = await state.memory(), ""
    if arguments.id is not None and arguments.answer is not None:
        caller.access.demand("admin", "to decide")
        decide = memory.pool.approve if arguments.answer == "yes" else memory.pool.reject
        await decide(arguments.id, workspace=workspace, source=caller.source)
        announce_change(state, workspace, [arguments.id], new=False)
        decided = f"{arguments.id} is {'approved' if arguments.answer == 'yes' else 'rejected'}."
    waiting = [one for one in await memory.overview.held(workspace=workspace) if one.experience.id in arguments.ids]
    early = memory.settings.refine.min_frequency
    return held(waiting, decided, early=early, may_decide=caller.access.allows("admin"))


def _checked(arguments: type[Read], state: State, raw: dict[str, Any]) -> Read:
    """Return the arguments of an App of ours.

    Raises:
        InvalidInput: One is wrong.
        Forbidden: It is not an App of ours that calls.
    """
    taken = arguments.read(raw)
    if not hmac.compare_digest(taken.key.encode(errors="replace"), state.app_key.encode()):
        raise Forbidden("this tool is for the buttons of the App, not for an assistant")
    return taken
