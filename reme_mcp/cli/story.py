"""One story, from a failure to a lesson to a success, played against real servers.

In:  an empty folder, or none; where the lines go.
Out: some fifteen lines that say what the servers really answered.
Does not know: the package's inside. It is two clients like any others: the SDK's `Client` over stdio.

The part of the assistants is played by a script on a small release tool that refuses, for good reasons, to publish what
was not built for it. Nothing that a server says is scripted: if the loop did not close, the story would end with an
error and a non-zero exit.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, Implementation, StdioServerParameters
from mcp.types import TextResourceContents

TASK = "Publish the docs of project atlas under /docs"
SIMILAR_TASK = "Publish the documentation of project borealis under /guides"
LESSON = {
    "when_to_use": "Publishing a static site below a sub-path such as /docs",
    "content": "Build with base_path set to the sub-path.",
    "generalized_task": "Publish a static site below a sub-path",
    "keywords": ["static site", "publish", "base path"],
    "confidence": 0.9,
}
BAD_ADVICE = {
    "when_to_use": "Publishing documentation below a sub-path when publish refuses it",
    "content": "Call publish with force=true until it works.",
    "generalized_task": "Publish documentation that is refused",
    "keywords": ["publish", "documentation", "force"],
    "confidence": 0.6,
}
ADVISED_TASK = "Publish the documentation of project cassini, a static site, below the sub-path /manual"
CORRECTION = LESSON | {"content": "Build with site_root set to the sub-path."}
CHANGE = "base_path is gone; site_root does the same."
CHANGED_TASK = "Publish the docs of project daedalus under /docs with release tool 2"
WIDTH = 79


class StoryError(Exception):
    """The loop did not close; the message says where."""


class Site:
    """A release tool as the assistants in this story meet it: real rules, real refusals."""

    def __init__(self, sub_path: str) -> None:
        self.sub_path = sub_path
        self.messages: list[dict[str, object]] = []
        self._base_path = "/"

    def call(self, tool: str, **arguments: str) -> str:
        """Run one tool call, keep call and result as chat messages, and return what it answers."""
        if tool == "build":
            self._base_path = arguments.get("base_path", "/")
            answer = f"built for {self._base_path}"
        elif self._base_path != self.sub_path:
            answer = "refused: 41 assets answer 404"
        else:
            answer = f"published at {self.sub_path}"
        call_id = f"call_{len(self.messages)}"
        function = {"name": tool, "arguments": json.dumps(arguments)}
        self.messages += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call_id, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call_id, "content": answer},
        ]
        return answer


class Teller:
    """Prints the story, a line an event, wrapped between words."""

    def __init__(self, echo: Callable[[str], None]) -> None:
        self._echo = echo

    def scene(self, text: str) -> None:
        """Print where the story goes on."""
        self._echo(textwrap.fill(text, WIDTH, break_on_hyphens=False))

    def event(self, what: str, text: str) -> None:
        """Print what was done and what came of it."""
        line = f"  {what:<7}  {text}"
        self._echo(textwrap.fill(line, WIDTH, subsequent_indent=" " * 11, break_on_hyphens=False))


async def play(keep: Path | None, echo: Callable[[str], None]) -> None:
    """Play the story and print it.

    The two servers start at once, as a start is what takes the time; the second waits until the first has learned.

    Args:
        keep: A folder for the pool that stays afterwards; a temporary one where `None`.
        echo: Prints a line.

    Raises:
        StoryError: Something did not come out as the loop promises.
    """
    tell = Teller(echo)
    learned = anyio.Event()
    with ExitStack() as stack:
        home = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reme-demo-"))) / "home"
        async with anyio.create_task_group() as days:
            days.start_soon(partial(_monday, tell, home, learned))
            days.start_soon(partial(_tuesday, tell, home, learned))


async def _monday(tell: Teller, home: Path, learned: anyio.Event) -> None:
    """Fail at the task, and record it with a lesson."""
    async with _assistant(home, "claude-code") as client:
        tell.scene(f'Monday, Claude Code: "{TASK}"')
        recalled = await _call(client, "recall_experiences", task=TASK)
        _expect(recalled["experiences"] == [], "an empty pool hands out notes")
        site = Site("/docs")
        site.call("build")
        tell.event("publish", site.call("publish"))
        recorded = await _call(
            client,
            "record_trajectory",
            task=TASK,
            outcome="failure",
            messages=site.messages,
            receipt=recalled["receipt"],
            experiences=[LESSON],
        )
        tell.event("learn", f"{_added(recorded)}: {LESSON['content']}")
        learned.set()


async def _tuesday(tell: Teller, home: Path, learned: anyio.Event) -> None:
    """Do a like task with the lesson; then meet bad advice, and a change."""
    async with _assistant(home, "cursor") as client:
        await client.list_tools()
        await learned.wait()
        tell.scene(f'Tuesday, Cursor: "{SIMILAR_TASK}"')
        recalled = await _call(client, "recall_experiences", task=SIMILAR_TASK)
        (note,) = recalled["experiences"]
        _expect(note["content"] == LESSON["content"], f"the lesson should come; it was {note}")
        lesson = note["id"]
        tell.event("recall", f"one note, {lesson}: {note['content']}")
        site = Site("/guides")
        site.call("build", base_path="/guides")
        tell.event("publish", site.call("publish"))
        recorded = await _call(
            client,
            "record_trajectory",
            task=SIMILAR_TASK,
            outcome="success",
            messages=site.messages,
            receipt=recalled["receipt"],
            used=[lesson],
            experiences=[],
        )
        (settled,) = recorded["settled"]
        _expect((settled["frequency"], settled["utility"]) == (1, 1), f"the success was not credited: {recorded}")
        tell.event("record", f"{lesson} succeeded with it {settled['utility']} of {settled['frequency']}")
        await _reject_bad_advice(tell, client, lesson)
        await _correct(tell, client, lesson)
        (stats,) = (await client.read_resource("reme://stats")).contents
        assert isinstance(stats, TextResourceContents)
        counts = json.loads(stats.text)["experiences"]
        _expect(counts["active"] == 1, f"one note should be left; the pool has {counts}")
        notes = sum(counts.values())
        tell.scene(f"Gained: success at the first try, and of {notes} notes the {counts['active']} that is right.")
    tell.scene(f"Add it to your client: {_program()} install claude-code (or cursor, …)")


async def _reject_bad_advice(tell: Teller, client: Client, lesson: str) -> None:
    """Meet bad advice, say that it misled, and see it sink and leave."""
    recorded = await _call(
        client, "record_trajectory", task=ADVISED_TASK, outcome="success", steps="Forced it.", experiences=[BAD_ADVICE]
    )
    bad = _added(recorded)
    tell.scene(f'Somebody adds {bad}: "{BAD_ADVICE["content"]}"')
    recalled = await _call(client, "recall_experiences", task=ADVISED_TASK)
    ids = [one["id"] for one in recalled["experiences"]]
    _expect(ids[0] == bad, f"the advice should come first; it was {ids}")
    tell.event("recall", ", ".join(ids))
    rated = await _rate(client, bad, recalled)
    recalled = await _call(client, "recall_experiences", task=ADVISED_TASK)
    ids = [one["id"] for one in recalled["experiences"]]
    _expect(ids == [lesson, bad], f"after one rating the lesson should come first; it was {ids}")
    tell.event("rate", f"not helpful; recall now gives {', '.join(ids)}")
    while rated["status"] == "active":
        rated = await _rate(client, bad, await _call(client, "recall_experiences", task=ADVISED_TASK))
    _expect(rated["frequency"] == 5, f"five bad ratings should archive the advice: {rated}")
    tell.event("rate", f"not helpful, {rated['frequency']} times; {bad} is {rated['status']}")


async def _correct(tell: Teller, client: Client, lesson: str) -> None:
    """Learn that the lesson is stale."""
    tell.scene(f"The release tool changes: {CHANGE}")
    recorded = await _call(
        client, "record_trajectory", task=CHANGED_TASK, outcome="success", steps=CHANGE, experiences=[CORRECTION]
    )
    newest = _added(recorded)
    replaced = [one["id"] for one in recorded["superseded"]]
    _expect(replaced == [lesson], f"nothing was corrected: {recorded}")
    tell.event("learn", f"{newest} in place of {lesson}: use site_root")
    (note,) = (await _call(client, "recall_experiences", task=SIMILAR_TASK))["experiences"]
    _expect(note["id"] == newest, f"the newer note should come; it was {note}")


@asynccontextmanager
async def _assistant(home: Path, name: str) -> AsyncIterator[Client]:
    """Start a server as a client would; its home and its settings are the story's."""
    arguments = ["-P", "-m", "reme_mcp", "--home", str(home), "--set", "embedder.provider=none", "serve"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("REME_MCP_")}
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    async with Client(server, client_info=Implementation(name=name, version="1")) as client:
        yield client


async def _rate(client: Client, id: str, recalled: dict[str, Any]) -> dict[str, Any]:
    return await _call(
        client,
        "rate_experience",
        experience_id=id,
        helpful=False,
        receipt=recalled["receipt"],
        reason="it overwrote the old site",
    )


async def _call(client: Client, name: str, **arguments: object) -> dict[str, Any]:
    answer = await client.call_tool(name, arguments)
    if answer.is_error or answer.structured_content is None:
        said = "\n".join(block.text for block in answer.content if block.type == "text")
        raise StoryError(f"{name} failed: {said}")
    return dict(answer.structured_content)


def _added(recorded: dict[str, Any]) -> str:
    _expect(len(recorded["added"]) == 1, f"the lesson was not added: {recorded}")
    return str(recorded["added"][0])


def _program() -> str:
    """Return what a person types to run this program, who has just typed it."""
    typed = Path(sys.argv[0])
    return str(typed) if typed.stem == "reme-mcp" and shutil.which("reme-mcp") is None else "reme-mcp"


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StoryError(otherwise)
