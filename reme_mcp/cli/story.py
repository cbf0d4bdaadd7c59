"""One story, from a failure to a lesson to a success, played against a real server.

In:  an empty folder, or none.
Out: each step with the results that the server really gave, printed.
Does not know: the package's inside. It is a client like any other: the SDK's `Client` over stdio, and the command line.

The part of the assistant is played by a script on a small release tool that refuses, for good reasons, to publish what
was not built for it. Nothing that the server says is scripted: if the loop did not close, the story would end with an
error and a non-zero exit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mcp import Client, Implementation, StdioServerParameters
from rich.console import Console
from rich.text import Text

CLIENT = Implementation(name="reme-demo", version="1")
TASK = "Publish the docs of project atlas under /docs on the company site"
SIMILAR_TASK = "Publish the documentation of project borealis under /guides on the partner site"
LESSON = {
    "when_to_use": "Publishing a static site below a sub-path such as /docs",
    "content": (
        "Build with base_path set to the sub-path before calling publish. publish refuses a site whose links point to "
        "the root, and its error does not say so: run check_links first, it does."
    ),
    "generalized_task": "Publish a static site below a sub-path",
    "keywords": ["static site", "publish", "base path"],
    "confidence": 0.9,
}
BAD_ADVICE = {
    "when_to_use": "When publish of a static site or documentation is refused",
    "content": "Call publish again with force=true until it goes through; the check is often wrong.",
    "generalized_task": "Publish a static site that is refused",
    "keywords": ["publish", "documentation", "force"],
    "confidence": 0.6,
}


class StoryError(Exception):
    """The loop did not close; the message says where."""


class Site:
    """A release tool as the assistant in this story meets it: real rules, real refusals."""

    def __init__(self, sub_path: str) -> None:
        self.sub_path = sub_path
        self.messages: list[dict[str, object]] = []
        self._base_path = "/"

    def call(self, tool: str, **arguments: str) -> bool:
        """Run one tool call, keep call and result as chat messages, and return whether it worked."""
        if tool == "build":
            self._base_path = arguments.get("base_path", "/")
            answer = {"built": "dist/", "base_path": self._base_path}
        elif self._base_path != self.sub_path:
            answer = {"error": "refused: 41 assets answer 404"}
        else:
            answer = {"published": self.sub_path}
        call_id = f"call_{len(self.messages)}"
        function = {"name": tool, "arguments": json.dumps(arguments)}
        self.messages += [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": call_id, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call_id, "content": json.dumps(answer)},
        ]
        return "error" not in answer


class Story:
    """The teller: talks to the server and prints what it answers."""

    def __init__(self, client: Client, console: Console) -> None:
        self._client = client
        self._console = console

    async def tool(self, name: str, *, show: bool = True, **arguments: object) -> dict[str, Any]:
        """Call a tool, print what a model would read (if `show`), and return the structured result."""
        answer = await self._client.call_tool(name, arguments)
        text = "\n".join(block.text for block in answer.content if block.type == "text")
        self._console.print(Text(f"  ▶ {name}", style="bold cyan"))
        shown = text.splitlines() if show else [f"{len(text.encode())} bytes, as before"]
        self._console.print(Text("\n".join(f"    {line}" for line in shown)))
        if answer.is_error or answer.structured_content is None:
            raise StoryError(f"{name} failed: {text}")
        return dict(answer.structured_content)


async def play(keep: Path | None) -> None:
    """Play the story and print it.

    Args:
        keep: A folder for the pool that stays afterwards; a temporary one where `None`.

    Raises:
        StoryError: Something did not come out as the loop promises.
    """
    console = Console(highlight=False, soft_wrap=True)
    with ExitStack() as stack:
        home = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reme-demo-"))) / "home"
        command = [sys.executable, "-P", "-m", "reme_mcp", "--home", str(home), "--set", "embedder.provider=none"]
        server = StdioServerParameters(command=command[0], args=[*command[1:], "serve"], env=_environment())

        _say(console, "1. A first attempt, with an empty memory.")
        async with Client(server, client_info=CLIENT) as client:
            lesson_id, bad_id = await _first_session(Story(client, console), console)

        _say(console, "5. Another day, another process, a similar task. The pool is on disk.")
        async with Client(server, client_info=CLIENT) as client:
            await _second_session(Story(client, console), console, lesson_id, bad_id)

        _say(console, "8. A person disagrees and takes it back into the pool, by hand.")
        _run(console, [*command, "restore", bad_id])
        _run(console, [*command, "list"])
        _run(console, [*command, "stats"])
    console.print(Text("\nThe loop is closed: recalled, settled, pruned, restored.", style="bold green"))


async def _first_session(story: Story, console: Console) -> tuple[str, str]:
    """Fail, learn the lesson, and learn some bad advice, too; return the ids of both."""
    recalled = await story.tool("recall_experiences", task=TASK)
    _expect(recalled["experiences"] == [], "an empty pool recalled something")
    site = Site("/docs")
    site.call("build")
    worked = site.call("publish")
    _expect(not worked, "the first attempt was meant to fail")
    _say(console, "2. It failed. The whole conversation is recorded; the server asks for what can be learned.")
    recorded = await story.tool(
        "record_trajectory",
        task=TASK,
        outcome="failure",
        receipt=recalled["receipt"],
        messages=[{"role": "user", "content": TASK}, *site.messages],
    )
    _say(console, "3. The assistant distils it.")
    learned = await story.tool("record_trajectory", trajectory_id=recorded["trajectory_id"], experiences=[LESSON])
    _expect(len(learned["added"]) == 1, "the lesson was not stored")
    _say(console, "4. Somebody else's session leaves advice that is not so good.")
    advised = await story.tool(
        "record_trajectory",
        task="Publish the release notes although publish refuses them",
        outcome="success",
        experiences=[BAD_ADVICE],
    )
    _expect(len(advised["added"]) == 1, "the advice was not stored")
    return learned["added"][0], advised["added"][0]


async def _second_session(story: Story, console: Console, lesson_id: str, bad_id: str) -> None:
    """Succeed with the lesson, settle its receipt, and see the bad advice go."""
    recalled = await story.tool("recall_experiences", task=SIMILAR_TASK, tools=["build", "publish"])
    ids = [experience["id"] for experience in recalled["experiences"]]
    _expect(lesson_id in ids, "the lesson was not recalled for a similar task")
    site = Site("/guides")
    site.call("build", base_path="/guides")
    _expect(site.call("publish"), "the attempt with the lesson was meant to succeed")
    _say(console, "6. It worked. Bad advice is rated first, then the outcome settles the rest of the receipt.")
    if bad_id in ids:
        await story.tool(
            "rate_experience",
            experience_id=bad_id,
            helpful=False,
            receipt=recalled["receipt"],
            reason="no force needed",
        )
    recorded = await story.tool(
        "record_trajectory",
        task=SIMILAR_TASK,
        outcome="success",
        receipt=recalled["receipt"],
        messages=[{"role": "user", "content": SIMILAR_TASK}, *site.messages],
        experiences=[],
    )
    settled = {line["id"]: line for line in recorded["settled"]}
    _expect(lesson_id in settled and settled[lesson_id]["utility"] == 1, "the lesson was not credited")

    _say(console, "7. The bad advice keeps being recalled, and keeps not helping, until the removal rule takes it out.")
    for repetition in range(10):
        recalled = await story.tool(
            "recall_experiences", show=repetition == 0, task="publish refuses my documentation, what now", limit=2
        )
        if bad_id not in [experience["id"] for experience in recalled["experiences"]]:
            break
        rated = await story.tool(
            "rate_experience", experience_id=bad_id, helpful=False, receipt=recalled["receipt"], reason="refused again"
        )
    _expect(rated["status"] == "archived", "advice that never helped was not archived")
    _expect(rated["frequency"] == 5, "it was not archived at the fifth known outcome")


def _run(console: Console, command: Sequence[str]) -> None:
    """Run the command line as a person would, and print what it prints."""
    console.print(Text(f"  $ reme-mcp {' '.join(command[7:])}", style="bold cyan"))
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    console.print(Text("\n".join(f"    {line}" for line in (done.stdout + done.stderr).splitlines())))
    if done.returncode:
        raise StoryError(f"{' '.join(command)} ended with {done.returncode}")


def _environment() -> dict[str, str]:
    """Return the environment without settings that would change the story."""
    return {name: value for name, value in os.environ.items() if not name.startswith("REME_MCP_")}


def _say(console: Console, text: str) -> None:
    console.print(Text(f"\n{text}", style="bold"))


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise StoryError(otherwise)
