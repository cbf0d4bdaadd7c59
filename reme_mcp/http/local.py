"""The process of `reme-mcp ui`: the page for the person at this machine, on loopback, behind a key.

In:  settings, a port.
Out: a running server until it is told to stop; its address, with the key, told once.
Does not know: pages.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.applications import Starlette
from starlette.routing import Mount

from reme_mcp.auth.access import Access
from reme_mcp.config.settings import Settings
from reme_mcp.http.addresses import LOCAL_NAMES, host_name
from reme_mcp.http.process import listen
from reme_mcp.memory.memory import Memory
from reme_mcp.web.app import PageApp
from reme_mcp.web.guard import Keyed
from reme_mcp.web.render import compile_templates

LOOPBACK = "127.0.0.1"
STOP_TIMEOUT_S = 2


async def serve_page(settings: Settings, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page until the process is told to end.

    Args:
        settings: Whose pool.
        port: Where; 0 for a free one.
        tell: Told the address, when somebody listens there.

    Raises:
        ConfigError: Another program listens there.
        StoreError: The home can't be used.
    """
    listener = listen(LOOPBACK, port)
    key = secrets.token_urlsafe(32)
    async with Memory.open(settings) as memory:
        await memory.check()
        memory.start_warm_up()
        # Before somebody waits for the first page.
        compile_templates()
        await memory.overview.facts()
        server = make_page_process(memory, key)
        tell(f"http://{LOOPBACK}:{listener.getsockname()[1]}/?token={key}")
        await server.serve(sockets=[listener])


def make_page_process(memory: Memory, key: str) -> uvicorn.Server:
    """Return what serves the page of an open memory at a socket, to who has the key."""
    # Streams end when their browsers have gone, or after `STOP_TIMEOUT_S`.
    AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]  # it has no types
    access = Access.of_this_machine(memory.settings.workspace)
    page = PageApp(lambda: memory, lambda _: access).app()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield

    app = Keyed(
        Starlette(routes=[Mount("/", page)], lifespan=lifespan), key, host=lambda host: host_name(host) in LOCAL_NAMES
    )
    config = uvicorn.Config(
        app,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
    return uvicorn.Server(config)
