"""The MCP server: tools, resources, prompts and subscriptions put together, and served over stdin and stdout.

In:  settings, or a state that is open already.
Out: a `Server` of the SDK.
Does not know: what a tool or resource answers.

The low-level `Server` is used because the input schemas are ours to keep small, an argument that doesn't exist must be
named to the model, and subscriptions have to work in both eras. Nothing heavy is imported before `tools/list` has been
answered.

Source: the MCP specification, revisions 2025-11-25 and 2026-07-28.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import anyio
from mcp.server import CacheHint, Server
from mcp.server.caching import CacheableMethod
from mcp.server.stdio import stdio_server
from mcp.types import PaginatedRequestParams

from reme_mcp import __version__
from reme_mcp.auth.access import Access
from reme_mcp.config.settings import Settings
from reme_mcp.server import apps, prompts, skills
from reme_mcp.server.apps import list_resources, read_resource
from reme_mcp.server.completion import complete
from reme_mcp.server.frames import Answers, answering_rubbish
from reme_mcp.server.icons import icons
from reme_mcp.server.prompts import get_prompt, list_prompts
from reme_mcp.server.resources import (
    list_resource_templates,
    listen_for_changes,
    subscribe,
    unsubscribe,
)
from reme_mcp.server.state import AccessOf, State
from reme_mcp.server.stdin import lines_of_stdin
from reme_mcp.server.tools import call_tool, list_tools, make_input_schema

if TYPE_CHECKING:
    from reme_mcp.models.service import LoadEmbedder

# How long a client may keep an answer: longer what is the same for everybody, shorter what depends on the caller.
# The pool's content has no hint: a client that wants to keep it subscribes.
_SAME_FOR_ALL, _FOR_ONE = CacheHint(3_600_000, "public"), CacheHint(300_000, "private")
CACHE_HINTS: dict[CacheableMethod, CacheHint] = {
    "server/discover": _SAME_FOR_ALL,
    "prompts/list": _SAME_FOR_ALL,
    "resources/templates/list": _SAME_FOR_ALL,
    "tools/list": _FOR_ONE,
    "resources/list": _FOR_ONE,
}

# --- the server ---


def build_server(settings: Settings) -> Server[State]:
    """Return the server for these settings; it opens its memory when it is run.

    Whoever can talk to it may do everything: it is for one person's own client, and for tests, which run it in memory:
    `async with mcp.Client(build_server(settings)) as client`.
    """
    everything = Access.of_this_machine(settings.workspace)
    return make_server(partial(open_state, settings, lambda _: everything))


@asynccontextmanager
async def open_state(
    settings: Settings, access_of: AccessOf, *, app_key: str = "", load: LoadEmbedder | None = None
) -> AsyncIterator[State]:
    """Yield what the requests of a server need, for as long as it runs; see `State` for the arguments."""
    async with anyio.create_task_group() as background:
        yield State(settings, background, access_of, app_key or secrets.token_urlsafe(32), load)
        background.cancel_scope.cancel()


def make_server(
    state: Callable[[], AbstractAsyncContextManager[State]], *, subscriptions: bool = True
) -> Server[State]:
    """Return a server that runs on the state which `state` opens.

    Args:
        state: Opens what it runs on.
        subscriptions: Promise to tell of changes. Without sessions a replica knows of its own changes only.
    """

    def lifespan(_: Server[State]) -> AbstractAsyncContextManager[State]:
        return state()

    server: Server[State] = Server(
        "reme-mcp",
        version=__version__,
        title="ReMe",
        description="Procedural memory: lessons from earlier tasks, with how often they helped",
        instructions=prompts.INSTRUCTIONS,
        icons=icons("server"),
        cache_hints=CACHE_HINTS,
        lifespan=lifespan,
        get_tool_input_schema=make_input_schema,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_resource_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe if subscriptions else None,
        on_unsubscribe_resource=unsubscribe if subscriptions else None,
        on_subscriptions_listen=listen_for_changes if subscriptions else None,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
    )
    # What a client has to have declared, too, before it is told of an App.
    server.extensions[apps.EXTENSION] = {}
    server.extensions[skills.EXTENSION] = {}
    server.add_request_handler("skills/list", PaginatedRequestParams, skills.list_skills)
    server.add_request_handler("skills/get", skills.GetSkillParams, skills.get_skill)
    return server


async def serve_stdio(settings: Settings) -> None:
    """Serve one client over stdin and stdout until it closes them, or this is cancelled."""
    server = build_server(settings)
    options = server.create_initialization_options()
    with lines_of_stdin() as lines:
        async with (
            stdio_server(lines) as (read_stream, write_stream),
            answering_rubbish(read_stream, answers := Answers(write_stream)) as messages,
        ):
            await server.run(messages, answers, options)
