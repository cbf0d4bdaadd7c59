"""The memory as a client has it: a running server over stdio, its three tools and its listing.

In:  the folder of a home, settings of the server.
Out: notes for a task; what was recorded.
Does not know: the package's inside.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult, TextContent, TextResourceContents

from tests.benchmarks import report


@dataclass(frozen=True, slots=True)
class Recalled:
    """The answer to a recall.

    Attributes:
        notes: What the model reads; empty where nothing fits.
        length: Characters of the lessons in it, without what stands around them.
        receipt: To settle it with.
    """

    notes: str
    length: int
    receipt: str


def _text(experience: Mapping[str, Any]) -> str:
    return f"When: {experience['when_to_use']}\nDo: {experience['content']}"


class Memory:
    """One client of one server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, settings: Mapping[str, str], server: Sequence[str]) -> AsyncIterator[Memory]:
        """Start a server whose home is in `folder`."""
        await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
        environ = report.server_environ(folder, settings)
        parameters = StdioServerParameters(command=server[0], args=list(server[1:]), env=environ, cwd=folder)
        async with Client(stdio_client(parameters), read_timeout_seconds=3_600) as client:
            yield cls(client)

    async def recall(self, task: str, workspace: str = "default") -> Recalled:
        """Return what a recall answers; no notes where nothing fits."""
        result = await self._called("recall_experiences", {"task": task, "workspace": workspace})
        answer = dict(result.structured_content or {})
        lessons = [_text(one) for one in answer["experiences"]]
        return Recalled(_said(result) if lessons else "", sum(map(len, lessons)), answer["receipt"])

    async def record(
        self,
        task: str,
        *,
        solved: bool,
        messages: Sequence[Mapping[str, Any]],
        lessons: Sequence[Mapping[str, object]] | None,
        receipt: str = "",
        workspace: str = "default",
    ) -> None:
        """Record an attempt; without lessons the server's model writes them."""
        arguments: dict[str, object] = {
            "task": task,
            "outcome": "success" if solved else "failure",
            "messages": list(messages),
            "workspace": workspace,
        }
        if lessons is not None:
            arguments["experiences"] = list(lessons)
        if receipt:
            arguments["receipt"] = receipt
        await self._call("record_trajectory", arguments)

    async def lessons(self) -> list[str]:
        """Return the text of every lesson in the pool."""
        found: list[str] = []
        page = 1
        while True:
            content = (await self._client.read_resource(f"reme://experiences?page={page}")).contents[0]
            assert isinstance(content, TextResourceContents)
            listed = json.loads(content.text)["experiences"]
            found += [_text(one) for one in listed]
            if not listed:
                return found
            page += 1

    async def _call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return dict((await self._called(name, arguments)).structured_content or {})

    async def _called(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        result = await self._client.call_tool(name, arguments)
        if result.is_error or result.structured_content is None:
            raise RuntimeError(f"{name} failed: {_said(result)}")
        return result


def _said(result: CallToolResult) -> str:
    return " ".join(one.text for one in result.content if isinstance(one, TextContent))


def random_notes(lessons: Sequence[str], length: int, draw: random.Random) -> str:
    """Return lessons drawn at random, as many as fill `length` characters: the control for any text at all."""
    chosen: list[str] = []
    for lesson in draw.sample(list(lessons), len(lessons)):
        if sum(map(len, chosen)) >= length:
            break
        chosen.append(lesson)
    return "\n\n".join(chosen)[:length]
