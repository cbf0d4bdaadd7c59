"""The command line, as a person and as a script use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from reme_mcp.cli.main import cli

LESSON = {"when_to_use": "Before starting an engine", "content": "Lock all doors and press the brake first."}
RECORD = {"task": "Start the car", "outcome": "failure", "experiences": [LESSON]}
COMMANDS = sorted(cli.list_commands(click.Context(cli)))

Run = Callable[..., Result]


@pytest.fixture
def run(home: Path) -> Run:
    def run(*arguments: str, given: str | None = None) -> Result:
        options = ["--home", str(home), "--set", "embedder.provider=none"]
        return CliRunner().invoke(cli, [*options, *arguments], input=given)

    return run


def learned(run: Run, record: dict[str, Any] = RECORD) -> str:
    done = run("record", "-", "--json", given=json.dumps(record))
    assert done.exit_code == 0, done.output
    id: str = json.loads(done.stdout)["added"][0]
    return id


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    done = run(command, "--help")
    assert done.exit_code == 0
    assert done.stdout.startswith("Usage: ")


def test_what_is_recorded_can_be_recalled_rated_and_shown(run: Run) -> None:
    id = learned(run)
    assert "> Lock all doors" in run("recall", "starting an engine").stdout
    recalled = json.loads(run("recall", "starting an engine", "--receipt", "--json").stdout)
    assert [one["id"] for one in recalled["experiences"]] == [id]
    rated = json.loads(run("rate", id, "--helpful", "--receipt", recalled["receipt"], "--json").stdout)
    assert (rated["utility"], rated["frequency"]) == (1, 1)
    assert "not helpful" in run("rate", id, "--unhelpful").stdout
    shown = json.loads(run("show", id, "--json").stdout)
    assert (shown["task"], shown["source"], shown["recalled"]) == ("Start the car", "cli", 1)
    assert json.loads(run("stats", "--json").stdout)["experiences"] == {"active": 1}


def test_a_pipe_gets_plain_lines(run: Run) -> None:
    id = learned(run)
    assert run("list").stdout == f"{id}\tactive\tfailure\t0/0\tBefore starting an engine\n"


def test_a_command_that_is_not_there_is_told_which_is_like_it(run: Run) -> None:
    assert "There is no command 'lsit'. Did you mean list" in run("lsit").stderr
    assert run("xyzzy").stderr.endswith("There is no command 'xyzzy'.\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_eighty_columns(run: Run, command: str) -> None:
    assert [line for line in run(command, "--help").stdout.splitlines() if len(line) > 80] == []


def test_the_help_has_its_commands_in_groups(run: Run) -> None:
    text = run("--help").stdout
    places = [text.index(f"\n{title}:\n") for title in ("Use it", "Look after it", "Share it", "Connect it")]
    assert places == sorted(places)
    assert max(map(len, text.splitlines())) <= 80
    assert set(COMMANDS) <= set(re.findall(r"^  ([a-z-]+)  ", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("command", "given", "says"),
    [
        ("record", {"sessionId": "s", "type": "user", "uuid": "u"}, "--format claude-code"),
        ("record", {"type": "session_meta", "payload": {}}, "--format codex"),
        ("record", LESSON, "reme-mcp import"),
        ("import", RECORD, "reme-mcp record"),
        ("import", {"sessionId": "s", "type": "user", "uuid": "u"}, "--format claude-code"),
        ("import", {"track": "B1", "query": "a", "relevant": {"m1": 2}}, "qrels"),
        ("import", "q1 0 d17 1\nq2 0 d3 0", "qrels"),
    ],
)
def test_a_file_of_another_kind_is_recognised(run: Run, tmp_path: Path, command: str, given: object, says: str) -> None:
    file = tmp_path / "given.jsonl"
    file.write_text(given if isinstance(given, str) else json.dumps(given), encoding="utf-8")
    done = run(command, str(file))
    assert done.exit_code == 1
    assert "this looks like " in done.stderr
    assert says in done.stderr
    assert run("list").stdout == ""


def test_an_error_that_comes_again_and_again_is_told_three_times_and_counted(run: Run) -> None:
    done = run("record", "-", given="\n".join(json.dumps({"task": f"Do {number}"}) for number in range(7)))
    assert done.exit_code == 1
    assert done.stderr.count("neither outcome nor reward came") == 4
    assert "… and 4 more like it" in done.stderr
    assert "7 of 7 not recorded" in done.stderr


def test_what_waits_for_its_lessons_is_told_to_a_person_and_not_to_a_model(run: Run) -> None:
    done = run("record", "-", given=json.dumps({"task": "Start the car", "outcome": "success", "steps": "Started it."}))
    assert "record_trajectory" not in done.output
    assert "reme-mcp distill --by-hand" in done.stdout


@pytest.mark.parametrize("command", ["list", "log", "review", "queue", "attempts"])
def test_an_empty_list_says_so(run: Run, command: str) -> None:
    done = run(command)
    assert (done.exit_code, done.stdout) == (0, "")
    assert re.search(r"[Nn]othing", done.stderr)


def test_a_file_of_another_editor_is_taken_and_one_of_another_encoding_refused(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "attempts.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(RECORD).encode())
    assert run("record", str(file)).exit_code == 0
    file.write_bytes(json.dumps(RECORD | {"task": "caf\u00e9"}, ensure_ascii=False).encode("latin-1"))
    done = run("record", str(file))
    assert done.exit_code == 1
    assert "it is not UTF-8 (byte " in done.stderr


def test_one_bad_line_among_good_ones_is_reported_and_the_others_are_recorded(run: Run) -> None:
    lines = [json.dumps(RECORD), json.dumps({"task": "x"}), json.dumps(RECORD | {"task": "y", "steps": "z"})]
    done = run("record", "-", given="\n".join(lines))
    assert done.exit_code == 1
    assert "line 2: neither outcome nor reward came" in done.stderr
    assert json.loads(run("stats", "--json").stdout)["trajectories"]["failure"] == 2


@pytest.mark.parametrize(
    ("given", "says"), [("{", "not JSON"), ("7", "not an object"), ('{"task": "x"}\n[]', "line 2")]
)
def test_a_file_that_is_no_record_stores_nothing(run: Run, given: str, says: str) -> None:
    done = run("record", "-", given=given)
    assert done.exit_code == 1
    assert says in done.stderr
    assert json.loads(run("stats", "--json").stdout)["trajectories"]["failure"] == 0


def test_pruning_dry_changes_nothing_and_wet_archives_and_restoring_undoes_it(run: Run) -> None:
    id = learned(run)
    run("pin", id)
    for number in range(5):
        receipt = json.loads(run("recall", "starting an engine", "--receipt", "--json").stdout)["receipt"]
        run("rate", id, "--unhelpful", "--receipt", receipt, "--reason", str(number))
    assert json.loads(run("prune", "--json").stdout) == []
    run("unpin", id)
    for command, after in ((["prune", "--dry-run"], "active"), (["prune"], "archived"), (["restore", id], "active")):
        done = run(*command, "--json")
        assert [one["id"] for one in json.loads(done.stdout)] == [id]
        assert json.loads(run("show", id, "--json").stdout)["status"] == after
    done = run("restore", id)
    assert done.exit_code == 1
    assert "is active, not archived" in done.stderr
    assert run("list", "--status", "archived").stdout == ""


def test_deleting_takes_it_out(run: Run) -> None:
    id = learned(run)
    looked = run("delete", id, "--dry-run")
    assert looked.stdout.startswith(f"{id}\tactive\t")
    assert looked.stderr == f"{id} would be deleted.\n"
    assert json.loads(run("show", id, "--json").stdout)["id"] == id
    assert json.loads(run("delete", id, "--json").stdout)["id"] == id
    assert f"no experience '{id}'" in run("show", id).stderr


@pytest.mark.parametrize(
    "command", [["show"], ["rate", "--helpful"], ["restore"], ["pin"], ["unpin"], ["archive"], ["delete"]]
)
def test_an_unknown_id_is_one_clear_sentence(run: Run, command: list[str]) -> None:
    done = run(*command, "e-nothing")
    assert done.exit_code == 1
    assert (
        done.stderr == "Error: no experience 'e-nothing' in workspace 'default'; check the id, or name its workspace\n"
    )


def test_a_bad_setting_stops_the_start_with_its_place(run: Run, tmp_path: Path) -> None:
    done = run("--set", "recall.limit=0", "list")
    assert done.exit_code == 1
    assert "recall.limit = '0': must be from 1 to 20" in done.stderr
    file = tmp_path / "config.toml"
    file.write_text("[recall]\nlimt = 3\n", encoding="utf-8")
    assert f"{file}: recall.limt: unknown key" in run("--config", str(file), "list").stderr
    assert "is not KEY=VALUE" in run("--set", "limit", "list").stderr


def test_a_folder_of_something_else_is_refused_and_left_alone(run: Run, home: Path) -> None:
    home.mkdir()
    (home / "photo.jpg").write_bytes(b"x")
    done = run("list")
    assert done.exit_code == 1
    assert "not a home of reme-mcp" in done.stderr
    assert [entry.name for entry in home.iterdir()] == ["photo.jpg"]


def test_a_backup_is_made_put_back_and_undone(run: Run, home: Path, tmp_path: Path) -> None:
    first = learned(run)
    made = json.loads(run("backup", "--json").stdout)
    assert Path(made["file"]).parent == home / "backups"
    assert made["tables"]["experiences"] == 1
    assert f"file\t{tmp_path / 'mine.zip'}\n" in run("backup", str(tmp_path / "mine.zip")).stdout
    run("delete", first)
    second = learned(run, RECORD | {"experiences": [{"when_to_use": "Boiling an egg", "content": "Six minutes."}]})

    done = run("restore-backup", Path(made["file"]).name)
    assert done.exit_code == 1
    assert "a pool with 1 lesson; --force replaces that, and keeps a backup of it" in done.stderr
    done = run("restore-backup", Path(made["file"]).name, "--dry-run")
    assert "replaced: lessons\t1\n" in done.stdout
    assert "Nothing was changed." in done.stderr
    assert [one["id"] for one in json.loads(run("list", "--json").stdout)] == [second]

    done = run("restore-backup", str(tmp_path / "mine.zip"), "--force")
    assert "lessons\t1\n" in done.stdout
    assert [one["id"] for one in json.loads(run("list", "--json").stdout)] == [first]
    undo = done.stderr.split()[-1]
    undone = json.loads(run("restore-backup", "--force", undo, "--json").stdout)
    assert undone["replaced"]["experiences"] == 1
    assert [one["id"] for one in json.loads(run("list", "--json").stdout)] == [second]


@pytest.mark.parametrize(
    ("target", "is_folder"), [("usb", True), ("a/b/usb", True), ("v1.2/", True), ("mine.zip", False), ("v1.2", False)]
)
def test_a_backup_goes_into_a_folder_where_the_name_is_one(
    run: Run, tmp_path: Path, target: str, is_folder: bool
) -> None:
    learned(run)
    done = run("backup", f"{tmp_path}/{target}", "--json")
    made = Path(json.loads(done.stdout)["file"])
    assert made.is_file()
    assert (made.parent if is_folder else made) == tmp_path / target
    assert made.name.startswith("reme-mcp-") == is_folder


def test_a_backup_replaces_no_file_that_has_no_ending(run: Run, tmp_path: Path) -> None:
    learned(run)
    (tmp_path / "notes").write_text("mine", encoding="utf-8")
    assert "exists already" in run("backup", str(tmp_path / "notes")).stderr
    assert (tmp_path / "notes").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("command", [["backup"], ["restore-backup", "nothing"]])
def test_what_cant_be_backed_up_or_put_back_is_one_clear_sentence(run: Run, home: Path, command: list[str]) -> None:
    done = run(*command)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: ")
    assert str(home) in done.stderr
    assert done.stderr.count("\n") == 1
    assert not home.exists()


def test_the_option_wins_over_the_environment(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REME_MCP_HOME", str(tmp_path / "from-environment"))
    monkeypatch.setenv("REME_MCP_EMBEDDER_PROVIDER", "none")
    assert json.loads(CliRunner().invoke(cli, ["--home", str(home), "stats", "--json"]).stdout)["home"] == str(home)
    found = json.loads(CliRunner().invoke(cli, ["stats", "--json"]).stdout)["home"]
    assert found == str(tmp_path / "from-environment")


DEMO = [sys.executable, "-m", "reme_mcp", "demo"]


def with_stand_ins(text: str) -> list[str]:
    """Return the lines, with the first id as <1>, the second as <2>, and so on."""
    ids = list(dict.fromkeys(re.findall(r"e-[a-z0-9]{10}", text)))
    for number, id in enumerate(ids, start=1):
        text = text.replace(id, f"<{number}>")
    return text.splitlines()


def test_the_demo_plays_the_story_that_the_readme_shows(tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO, capture_output=True, text=True, encoding="utf-8", timeout=120, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    told = with_stand_ins(done.stdout)
    assert len(told) == 15
    assert max(map(len, told)) < 80
    assert "install claude-code" in told[-1]
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(Monday.*?)^```", readme, re.DOTALL | re.MULTILINE)
    shown_lines = with_stand_ins(shown)
    assert [line for line in told if line in shown_lines] == shown_lines
    assert len(shown_lines) == 12


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error there")
def test_the_demo_ends_quietly_where_nobody_reads_on(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            DEMO, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=120, cwd=tmp_path, check=False
        )
    assert (done.returncode, done.stderr) == (1, "")
