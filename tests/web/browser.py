"""The page of one open memory, served on loopback in this process, and a real browser that opens it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import httpx
import pytest
from playwright.async_api import Page, async_playwright

from reme_mcp.http.local import make_page_process
from reme_mcp.memory.memory import Memory

CHROMIUM = Path("/usr/bin/chromium")
KEY = "the-key-that-only-this-test-knows"
DEADLINE_S = 30

needs_browser = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not there: apt-get install chromium")


@dataclass(frozen=True)
class Served:
    """A page that is served."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def first(self) -> str:
        return f"{self.url}/?token={KEY}"

    def http(self, *, with_key: bool = True, **headers: str) -> httpx.AsyncClient:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        cookies = {"reme_ui": KEY} if with_key else {}
        return httpx.AsyncClient(base_url=self.url, headers=named, cookies=cookies, timeout=DEADLINE_S)


@asynccontextmanager
async def served(memory: Memory) -> AsyncIterator[Served]:
    """Serve the page while the block runs."""
    listener = socket.create_server(("127.0.0.1", 0))
    process = make_page_process(memory, KEY)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(process.serve, [listener])
        with anyio.fail_after(DEADLINE_S):
            while not process.started:  # noqa: ASYNC110  uvicorn has no event for it
                await anyio.sleep(0.01)
        try:
            yield Served(listener.getsockname()[1])
        finally:
            process.should_exit = True


@dataclass
class Seen:
    """A tab, and what it said and asked for.

    Attributes:
        said: What stands in its console.
        hosts: Where it sent requests.
    """

    tab: Page
    said: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)


@asynccontextmanager
async def browser(*, width: int = 1280, dark: bool = False, scripts: bool = True) -> AsyncIterator[Seen]:
    """Open a tab of a real browser."""
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        context = await chromium.new_context(
            viewport={"width": width, "height": 844},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        seen = Seen(await context.new_page())
        seen.tab.set_default_timeout(DEADLINE_S * 1000)
        seen.tab.on("console", lambda message: seen.said.append(message.text))
        seen.tab.on("pageerror", lambda error: seen.said.append(str(error)))
        seen.tab.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
        yield seen
        await chromium.close()
