"""What the loop does with real trajectories: every one is recalled for, recorded, learned from and rated.

    python -m tests.benchmarks.replay --data DIR [--limit N] [--passes 2]
        [--embedder none|fastembed] [--models DIR] [--json FILE]

Played: DIR/*.jsonl, one `{"id", "task", "outcome", "reward", "messages"}` a line, through one running stdio server and
the SDK's client. Tasks come in the order of the file, and of one task the failures before the successes, as an agent
would have met them. For each trajectory:

    recall_experiences(task, tools)  →  record_trajectory(task, messages, reward, receipt), which answers with a brief
    →  record_trajectory(trajectory_id, experiences)  →  rate_experience of the first note

A plain rule stands in for the assistant that writes experiences, one for each trajectory. Success: the calls that
worked, in their order. Failure: the first call that failed, its error and the calls before it; where none failed, the
calls made. The note is rated helpful if a tool that it names worked in this trajectory. The second and later passes
(`--passes`) recall for and record everything again, with an account as `steps` instead of the messages: the same
lessons have to merge with those of the first pass or be refused as archived, counters move, and φ prunes.

Measured: that nothing a client sends is lost or misread, and what the loop does, in counts; the times of the three
tools on the client's side, with its cost, once pool and model are loaded; and the bytes that a model has to read. There
is nothing to measure against but the limits of the design, which the table names. It says nothing about how good the
lessons are: the trajectories are fixed, so no recalled note can change how one ends.

To read: `understood` are messages that `reme_mcp.transcript` reads without an error, `marks` what it left out or found
odd. `settled` are counters moved by recorded outcomes, ratings come on top. `merged other kind` are lessons that went
into one from the other outcome, and `[other kind]` marks those that one from the other outcome kept out: a success's
lesson lost to a failure's, or the reverse. p95 is by nearest rank.

Exit status: 1 if a tool call failed, or if the pool at the end does not hold what the answers said.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import anyio
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import TextContent, TextResourceContents
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track

from reme_mcp.errors import InvalidInput
from reme_mcp.results import RateResult, RecordResult
from reme_mcp.schema import MAX_CONTENT_CHARS, MAX_TOOLS, MAX_WHEN_TO_USE_CHARS, Outcome, task_key
from reme_mcp.transcripts.messages import parse_messages
from reme_mcp.transcripts.transcript import Transcript, to_text
from tests.benchmarks import report

EmbedderName = Literal["none", "fastembed"]

MAX_LIST_BYTES, MAX_INPUT_BYTES, MAX_RECALL_BYTES = 9_000, 5_000, 4_800
MAX_RECALL_MS, MAX_RECORD_MS = 30, 100
MODEL_TIMEOUT_S = 60.0
MAX_ERROR_CHARS = 300
MAX_SCENARIO_CHARS = 200
MAX_CALLS = 20

EXPERIENCE_ID = re.compile(r"\be-\w+")
NUMBER = re.compile(r"\d+(\.\d+)?")
QUOTED = re.compile(r"(['\"])\S.*?\1(?!\w)")


# --- what is played ---


class Note(BaseModel):
    """A note of a recall, as far as it is of use here."""

    id: str
    content: str


class Recalled(BaseModel):
    """What stands beside the text of a recall."""

    experiences: list[Note]
    receipt: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One trajectory as it stands in the file."""

    id: str
    task: str
    outcome: Outcome
    reward: float
    messages: list[object]


def read_attempts(folder: Path) -> list[Attempt]:
    """Return the trajectories of every `*.jsonl` there, in playing order.

    Raises:
        ValueError: There are none, or a line is none; the text says where.
    """
    attempts: list[Attempt] = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    attempts.append(Attempt(**json.loads(line)))
                except (ValueError, TypeError) as exc:
                    raise ValueError(f"{path}, line {number}: {exc}") from exc
    if not attempts:
        raise ValueError(f"no trajectory in {folder / '*.jsonl'}")
    return playing_order(attempts)


def playing_order(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return attempts at one task together, failures first; tasks in the order in which they first came."""
    tasks: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        tasks.setdefault(task_key(attempt.task), []).append(attempt)
    return [one for group in tasks.values() for one in sorted(group, key=lambda attempt: attempt.outcome == "success")]


# --- the assistant's part ---


@dataclass(slots=True)
class Call:
    """A tool call with the names of its arguments; `error` is empty where it worked."""

    tool: str
    arguments: str
    error: str = ""

    def __str__(self) -> str:
        return f"{self.tool}({self.arguments})"


def calls_of(transcript: Transcript) -> list[Call]:
    """Return the calls in their order, each with its own result's error."""
    calls: list[Call] = []
    waiting: list[Call] = []
    for step in transcript.steps:
        if step.role == "call":
            call = Call(step.tool, _argument_names(step.text))
            calls.append(call)
            waiting.append(call)
        elif step.role == "result":
            for call in waiting:
                if call.tool == step.tool:
                    waiting.remove(call)
                    call.error = step.text[:MAX_ERROR_CHARS] if step.failed else ""
                    break
    return calls


def write_lesson(task: str, outcome: Outcome, calls: Sequence[Call]) -> dict[str, object]:
    """Return the experience that the plain rule makes of an attempt."""
    generalized = NUMBER.sub("n", QUOTED.sub("…", task))
    failed = next((place for place, call in enumerate(calls) if call.error), None)
    if outcome == "success":
        content = f"It worked with these calls, in this order: {_listed([call for call in calls if not call.error])}."
    elif failed is None:
        content = f"These calls raised no error and were not enough: {_listed(calls)}. Look for the step left out."
    else:
        content = (
            f"{calls[failed]} failed with {calls[failed].error} after {_listed(calls[:failed])}. "
            "Bring about what the error asks for before making that call."
        )
    return {
        "when_to_use": f"When the task is like this: {generalized[:MAX_SCENARIO_CHARS]}",
        "content": content[:MAX_CONTENT_CHARS],
        "tools_used": list(dict.fromkeys(call.tool for call in calls))[:MAX_TOOLS],
        "confidence": 0.8 if outcome == "success" else 0.6,
        "kind": outcome,
        "generalized_task": generalized[:MAX_WHEN_TO_USE_CHARS],
    }


def _argument_names(arguments: str) -> str:
    try:
        return ", ".join(json.loads(arguments))
    except (ValueError, TypeError):
        return "…"


def _listed(calls: Sequence[Call]) -> str:
    shown = ", then ".join(str(call) for call in calls[-MAX_CALLS:])
    return shown or "no call"


# --- what is counted ---


@dataclass(slots=True)
class Counts:
    """Everything that the replay counts, but for times and texts."""

    trajectories: int = 0
    messages_sent: int = 0
    messages_understood: int = 0
    marks: int = 0
    recorded: int = 0
    recalls: int = 0
    recalls_with_notes: int = 0
    recalls_with_nothing: int = 0
    added: int = 0
    merged: int = 0
    merged_other_kind: int = 0
    superseded: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    settled: int = 0
    rated: int = 0
    pruned: int = 0
    tool_errors: int = 0


@dataclass(slots=True)
class Figures:
    """What a replay finds: counts, seconds of every call by tool, sizes in bytes, the pool's statistics at the end."""

    counts: Counts = field(default_factory=Counts)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    recall_bytes: list[int] = field(default_factory=list)
    list_bytes: int = 0
    input_bytes: int = 0
    pool: dict[str, Any] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    logged: str = ""

    def problems(self) -> list[str]:
        """Return what must not be: failed calls, and answers that the pool contradicts."""
        statuses: dict[str, int] = self.pool["experiences"]
        found = [f"a tool call failed: {text}" for text in self.errors]
        if (held := sum(statuses.values())) != self.counts.added:
            found.append(f"{self.counts.added} experiences were added, the pool holds {held}")
        gone = self.counts.pruned + self.counts.superseded
        if (archived := statuses.get("archived", 0)) != gone:
            found.append(f"{gone} experiences were pruned or superseded, {archived} are archived")
        if (held := sum(self.pool["trajectories"].values())) != self.counts.recorded:
            found.append(f"{self.counts.recorded} trajectories were recorded, the pool holds {held}")
        return found


class Player:
    """Plays attempts to a server and counts what comes back."""

    def __init__(self, client: Client) -> None:
        self.figures = Figures()
        self._client = client
        self._kinds: dict[str, Outcome] = {}
        self._pruned: set[str] = set()
        self._superseded: set[str] = set()

    async def play(self, attempt: Attempt, turn: int) -> None:
        """Recall for one attempt, record it, write its lesson, rate the first note; `turn` counts passes from 1."""
        counts = self.figures.counts
        transcript = self._read(attempt.messages)
        calls = calls_of(transcript)
        account: dict[str, object] = {"messages": attempt.messages}
        if turn == 1:
            counts.trajectories += 1
            counts.messages_sent += len(attempt.messages)
            counts.messages_understood += transcript.messages
            counts.marks += len(transcript.marks)
        else:
            account = {"steps": f"Attempt {turn} at it.\n\n{to_text(transcript)}"}
        recalled = await self._recall(attempt.task, transcript.tools_used)
        if recalled is not None:
            account["receipt"] = recalled.receipt
        recorded = await self._record(attempt, task=attempt.task, reward=attempt.reward, **account)
        if recorded is None:
            return
        counts.recorded += 1
        if recorded.brief:
            lesson = write_lesson(attempt.task, attempt.outcome, calls)
            await self._record(attempt, trajectory_id=recorded.trajectory_id, experiences=[lesson])
        if recalled is not None and recalled.experiences:
            note = recalled.experiences[0]
            helpful = any(call.tool in note.content for call in calls if not call.error)
            await self._rate(note.id, helpful, recalled.receipt)

    async def read_stats(self) -> dict[str, Any]:
        """Return what `reme://stats` shows."""
        (content,) = (await self._client.read_resource("reme://stats")).contents
        assert isinstance(content, TextResourceContents)
        stats: dict[str, Any] = json.loads(content.text)
        return stats

    async def measure_listing(self) -> None:
        """Measure the answer to `tools/list`, and the part of it that goes into a model's context."""
        listing = (await self._client.list_tools()).model_dump(mode="json", by_alias=True, exclude_none=True)
        parts = [{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in listing["tools"]]
        self.figures.list_bytes = _size(listing)
        self.figures.input_bytes = _size(parts)

    def _read(self, messages: list[object]) -> Transcript:
        try:
            return parse_messages(messages)
        except InvalidInput:
            # The server is sent them all the same, and its refusal is counted.
            return Transcript((), 0, ())

    async def _recall(self, task: str, tools: Sequence[str]) -> Recalled | None:
        arguments: dict[str, object] = {"task": task} | ({"tools": list(tools)} if tools else {})
        answer = await self._call("recall_experiences", arguments)
        if answer is None:
            return None
        result = Recalled.model_validate(answer)
        self.figures.counts.recalls += 1
        if result.experiences:
            self.figures.counts.recalls_with_notes += 1
        else:
            self.figures.counts.recalls_with_nothing += 1
        return result

    async def _record(self, attempt: Attempt, **arguments: object) -> RecordResult | None:
        answer = await self._call("record_trajectory", arguments)
        if answer is None:
            return None
        result = RecordResult.model_validate(answer)
        counts = self.figures.counts
        # The second answer for a trajectory tells of the settling again only if it settled something more.
        counts.settled += len(result.settled)
        counts.added += len(result.added)
        counts.merged += len(result.merged)
        self._superseded |= {one.id for one in result.superseded}
        counts.superseded = len(self._superseded)
        counts.merged_other_kind += sum(self._kinds[one.id] != attempt.outcome for one in result.merged)
        for one in result.rejected:
            reason = self._reason(one.reason, attempt.outcome)
            counts.rejected[reason] = counts.rejected.get(reason, 0) + 1
        self._kinds |= dict.fromkeys(result.added, attempt.outcome)
        self._prune(result.pruned)
        return result

    def _reason(self, text: str, outcome: Outcome) -> str:
        """Return the reason without what differs from case to case, so that cases can be counted."""
        named = EXPERIENCE_ID.search(text)
        kind = self._kinds.get(named[0]) if named else None
        return NUMBER.sub("n", EXPERIENCE_ID.sub("e-…", text)) + (
            " [other kind]" if kind not in (None, outcome) else ""
        )

    async def _rate(self, experience_id: str, helpful: bool, receipt: str) -> None:
        arguments = {"experience_id": experience_id, "helpful": helpful, "receipt": receipt}
        answer = await self._call("rate_experience", arguments)
        if answer is not None:
            self.figures.counts.rated += 1
            # One that was corrected by the very attempt whose outcome it gets is archived, too, but not by the rule.
            if RateResult.model_validate(answer).status == "archived" and experience_id not in self._superseded:
                self._prune([experience_id])

    def _prune(self, ids: Iterable[str]) -> None:
        self._pruned |= set(ids)
        self.figures.counts.pruned = len(self._pruned)

    async def _call(self, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Call a tool and return its structured answer, or count the error and return `None`."""
        started = time.perf_counter()
        result = await self._client.call_tool(tool, arguments)
        self.figures.seconds.setdefault(tool, []).append(time.perf_counter() - started)
        text = "".join(part.text for part in result.content if isinstance(part, TextContent))
        if result.is_error:
            self.figures.counts.tool_errors += 1
            self.figures.errors.append(f"{tool}: {text}")
            return None
        if tool == "recall_experiences":
            self.figures.recall_bytes.append(len(text.encode()))
        assert isinstance(result.structured_content, dict)
        return result.structured_content


# --- the replay ---


async def replay(
    attempts: Sequence[Attempt],
    folder: Path,
    *,
    passes: int = 1,
    embedder: EmbedderName = "none",
    models: Path | None = None,
) -> Figures:
    """Play the attempts to a new server whose home is in `folder`.

    Args:
        attempts: In playing order.
        folder: Exists and is empty; everything that the server writes is in there.
        passes: How often everything is played.
        embedder: Its provider.
        models: The model cache, an absolute path; nothing is downloaded.

    Raises:
        RuntimeError: There is no model after a minute; the text has the server's reason.
    """
    settings = {"EMBEDDER_PROVIDER": embedder, "EMBEDDER_DOWNLOAD": "false"}
    if models is not None:
        settings["EMBEDDER_CACHE_DIR"] = str(models)
    log = folder / "stderr.txt"
    async with _player(report.server_environ(folder, settings), log) as player:
        await player.measure_listing()
        await _await_search(player, embedder)
        for turn in range(1, passes + 1):
            for attempt in _shown(attempts, f"pass {turn}"):
                await player.play(attempt, turn)
        player.figures.pool = await player.read_stats()
    player.figures.logged = log.read_text(encoding="utf-8")
    return player.figures


@asynccontextmanager
async def _player(environ: dict[str, str], log: Path) -> AsyncIterator[Player]:
    command, *arguments = report.SERVER
    parameters = StdioServerParameters(command=command, args=arguments, env=environ, cwd=log.parent)
    with log.open("w", encoding="utf-8") as errlog:
        # Without a cache: statistics are read more than once.
        async with Client(stdio_client(parameters, errlog=errlog), cache=None) as client:
            yield Player(client)


async def _await_search(player: Player, embedder: EmbedderName) -> None:
    """Wait until pool and embedder are loaded: what that takes is no recall's time, and until then words answer."""
    deadline = time.monotonic() + MODEL_TIMEOUT_S
    state = (await player.read_stats())["embedder"]
    while state == "loading" and time.monotonic() < deadline:
        await anyio.sleep(0.05)
        state = (await player.read_stats())["embedder"]
    if embedder != "none" and not state.endswith("is loaded"):
        raise RuntimeError(f"no model: {state}")


def _shown(attempts: Sequence[Attempt], title: str) -> Iterator[Attempt]:
    yield from track(attempts, title, console=Console(stderr=True), transient=True)


def _size(value: object) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its exit status."""
    parser = report.parser(__doc__, data="folder with the trajectories, *.jsonl")
    parser.add_argument("--limit", type=int, metavar="N", help="play the first N trajectories only")
    parser.add_argument("--passes", type=int, default=1, metavar="N", help="play everything N times (1)")
    parser.add_argument("--embedder", choices=("none", "fastembed"), default="none", help="provider (none)")
    parser.add_argument("--models", type=Path, metavar="DIR", help="fastembed's cache folder")
    arguments = parser.parse_args(argv)
    try:
        attempts = read_attempts(arguments.data)[: arguments.limit]
    except ValueError as exc:
        parser.error(str(exc))
    with tempfile.TemporaryDirectory(prefix="reme-replay-") as folder:
        figures = anyio.run(
            partial(
                replay,
                attempts,
                Path(folder),
                passes=arguments.passes,
                embedder=arguments.embedder,
                models=arguments.models and arguments.models.absolute(),
            )
        )
    title = f"Replay, {arguments.passes} pass{'es' if arguments.passes > 1 else ''}, embedder {arguments.embedder}"
    report.show(title, ["", "figure", "limit"], _rows(figures))
    problems = figures.problems()
    for line in problems:
        print(line, file=sys.stderr)
    if figures.logged:
        print(f"the server logged:\n{figures.logged}", file=sys.stderr)
    options = {"passes": arguments.passes, "embedder": arguments.embedder, "limit": arguments.limit}
    report.write(arguments.json, {"options": options, "problems": problems} | _summary(figures))
    return 1 if problems else 0


def _summary(figures: Figures) -> dict[str, Any]:
    """Return what goes into the file: counts, milliseconds, bytes, the pool."""
    milliseconds = {
        tool: {"calls": len(seconds)}
        | {f"p{percent}": round(report.percentile(seconds, percent) * 1000, 2) for percent in (50, 95)}
        for tool, seconds in figures.seconds.items()
    }
    sizes = {
        "tools_list": figures.list_bytes,
        "tools_list_input": figures.input_bytes,
        "recall_median": report.percentile(figures.recall_bytes, 50),
        "recall_max": report.percentile(figures.recall_bytes, 100),
    }
    return {"counts": asdict(figures.counts), "milliseconds": milliseconds, "bytes": sizes, "pool": figures.pool}


def _rows(figures: Figures) -> list[tuple[str, str, str]]:
    summary = _summary(figures)
    limits = {"tool_errors": "0"}
    rows = [
        (name.replace("_", " "), str(value), limits.get(name, ""))
        for name, value in summary["counts"].items()
        if name != "rejected"
    ]
    rows.append(("rejected", str(sum(figures.counts.rejected.values())), ""))
    rows += [(f"  {reason}", str(number), "") for reason, number in sorted(figures.counts.rejected.items())]
    rows += [
        (f"pool: {what}, {status}", str(number), "")
        for what in ("experiences", "trajectories", "receipts")
        for status, number in summary["pool"][what].items()
    ]
    most_ms = {"recall_experiences": f"p95 {MAX_RECALL_MS}", "record_trajectory": f"p95 {MAX_RECORD_MS}"}
    most_ms["rate_experience"] = most_ms["record_trajectory"]
    rows += [
        (f"{tool}, ms p50 / p95", f"{times['p50']:.1f} / {times['p95']:.1f}", most_ms[tool])
        for tool, times in summary["milliseconds"].items()
    ]
    most_bytes = {"tools_list": MAX_LIST_BYTES, "tools_list_input": MAX_INPUT_BYTES, "recall_max": MAX_RECALL_BYTES}
    rows += [
        (f"bytes: {name.replace('_', ' ')}", f"{size:,}", f"{most_bytes[name]:,}" if name in most_bytes else "")
        for name, size in summary["bytes"].items()
    ]
    return rows


if __name__ == "__main__":
    sys.exit(main())
