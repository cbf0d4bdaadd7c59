"""."""

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from reme_mcp.config.load import load_settings
from reme_mcp.config.settings import RETIRED, Settings
from tests.config.settings_cases import EXAMPLE, RANGES, as_variable, keys_of, problems, write
from tests.config.settings_cases import user as user

MACHINE_DEPENDENT = {"home", "embedder.cache_dir"}


# --- defaults and the example ---


def test_without_file_variables_and_overrides_the_defaults_hold(user: Path) -> None:
    settings = load_settings(environ={})

    assert settings == Settings()
    assert settings.workspace == "default"
    assert settings.embedder.provider == "fastembed"
    assert (settings.recall.limit, settings.refine.min_frequency, settings.refine.max_utility_ratio) == (5, 5, 0.5)
    assert settings.refine.add_from == "all"
    assert Path(settings.home).is_absolute()
    assert Path(settings.home).is_relative_to(user)
    assert settings.home.endswith("reme-mcp")
    assert Path(settings.embedder.cache_dir).is_relative_to(user)
    assert Path(settings.embedder.cache_dir).name == "models"


def test_what_was_a_setting_once_is_passed_over_and_told(user: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = write(user, "[recall]\nlimit = 3\nhalf_life_days = 30\n[dedup]\nmin_cosine = 2\n")

    settings = load_settings(config_file=old, environ={"REME_MCP_RECALL_CROSS_ENCODER": "some/model"})

    assert settings == Settings().model_copy(update={"recall": Settings().recall.model_copy(update={"limit": 3})})
    assert [message.partition(" is no setting")[0] for message in caplog.messages] == [
        f"{old}: recall.half_life_days:",
        f"{old}: dedup.min_cosine:",
        "environment REME_MCP_RECALL_CROSS_ENCODER:",
    ]


def test_no_setting_is_called_retired() -> None:
    assert not RETIRED & keys_of(Settings())


def test_the_example_loads_and_equals_the_defaults() -> None:
    assert load_settings(config_file=EXAMPLE, environ={}) == Settings()


def test_the_example_sets_every_key_but_those_that_depend_on_the_machine() -> None:
    in_example = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in tomllib.loads(EXAMPLE.read_text(encoding="utf-8")).items()
        for key in (value if isinstance(value, dict) else [""])
    }

    assert in_example == keys_of(Settings()) - MACHINE_DEPENDENT


def test_the_example_with_its_machine_dependent_lines_uncommented_loads_too(user: Path) -> None:
    text, uncommented = re.subn(r"(?m)^# (home|cache_dir) = ", r"\1 = ", EXAMPLE.read_text(encoding="utf-8"))

    settings = load_settings(config_file=write(user, text), environ={})

    assert uncommented == len(MACHINE_DEPENDENT)
    assert settings.home == str(user / "reme-mcp")
    assert settings.embedder.cache_dir == Settings().embedder.cache_dir


@pytest.mark.parametrize(("key", "low", "high"), RANGES)
def test_the_example_names_the_range_of_every_number(key: str, low: float, high: float) -> None:
    section, _, name = key.partition(".")
    of_section = EXAMPLE.read_text(encoding="utf-8").split(f"\n[{section}]\n")[1].split("\n[")[0]
    comment = of_section.split(f"\n{name} = ")[0].rsplit("\n\n", 1)[-1]

    wanted = f"More than {low:g}, at most {high:g}." if key.endswith("_s") else f"{low:.12g} to {high:.12g}"
    assert wanted in comment


def test_every_setting_has_an_environment_variable_of_its_own() -> None:
    keys = keys_of(Settings())
    assert len({as_variable(key) for key in keys} | {"REME_MCP_CONFIG"}) == len(keys) + 1


def test_settings_are_frozen_at_both_levels() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.workspace = "other"
    with pytest.raises(ValidationError, match="frozen"):
        settings.recall.limit = 3


# --- precedence ---


def test_the_file_wins_over_the_defaults(user: Path) -> None:
    settings = load_settings(config_file=write(user, "[recall]\nlimit = 7\n"), environ={})
    assert settings.recall.limit == 7
    assert settings.recall.token_budget == 1_000


def test_the_environment_wins_over_the_file_key_by_key(user: Path) -> None:
    path = write(user, 'workspace = "filed"\n[recall]\nlimit = 7\ntoken_budget = 700\n')
    settings = load_settings(config_file=path, environ={"REME_MCP_RECALL_LIMIT": "8"})
    assert (settings.workspace, settings.recall.limit, settings.recall.token_budget) == ("filed", 8, 700)


def test_the_command_line_wins_over_the_environment_key_by_key() -> None:
    environ = {
        "REME_MCP_RECALL_LIMIT": "8",
        "REME_MCP_RECALL_TOKEN_BUDGET": "800",
        "REME_MCP_WORKSPACE": "from-environ",
    }
    settings = load_settings(environ=environ, overrides={"recall.limit": "9", "workspace": "from-line"})
    assert (settings.workspace, settings.recall.limit, settings.recall.token_budget) == ("from-line", 9, 800)


def test_the_command_line_wins_over_the_file(user: Path) -> None:
    path = write(user, "[recall]\nlimit = 7\ntoken_budget = 700\n")
    settings = load_settings(config_file=path, environ={}, overrides={"recall.limit": "9"})
    assert (settings.recall.limit, settings.recall.token_budget) == (9, 700)


@pytest.mark.parametrize("winner", ["environment", "command line"])
def test_an_outvoted_bad_value_is_reported_all_the_same(user: Path, winner: str) -> None:
    path = write(user, "[recall]\nlimit = 0\n")
    environ = {"REME_MCP_RECALL_LIMIT": "3"} if winner == "environment" else {}
    overrides = {"recall.limit": "3"} if winner == "command line" else {}
    assert problems(path, environ, overrides) == [f"{path}: recall.limit = 0: must be from 1 to 20"]


def test_a_variable_of_another_program_is_ignored() -> None:
    assert load_settings(environ={"REME_HOME": "x", "RECALL_LIMIT": "0", "reme_mcp_workspace": "/"}) == Settings()


# --- which file ---


def test_the_argument_wins_over_the_variable_and_that_over_the_users_file(user: Path) -> None:
    def filed(name: str) -> Path:
        path = user / f"{name}.toml"
        path.write_text(f'workspace = "{name}"\n', encoding="utf-8")
        return path

    environ = {"REME_MCP_CONFIG": str(filed("variable"))}
    usual = user / "config" / "reme-mcp" / "config.toml" if sys.platform == "linux" else None
    if usual is not None:
        usual.parent.mkdir(parents=True)
        filed("usual").rename(usual)
        assert load_settings(environ={}).workspace == "usual"
        assert load_settings(environ={"REME_MCP_CONFIG": ""}).workspace == "usual"
    assert load_settings(environ=environ).workspace == "variable"
    assert load_settings(config_file=filed("argument"), environ=environ).workspace == "argument"


def test_the_variable_that_names_the_file_may_begin_with_a_tilde(user: Path) -> None:
    write(user, 'workspace = "filed"\n')
    assert load_settings(environ={"REME_MCP_CONFIG": "~/given.toml"}).workspace == "filed"


@pytest.mark.parametrize("by", ["argument", "variable"])
def test_a_named_file_that_is_missing_is_an_error(user: Path, by: str) -> None:
    path = user / "missing.toml"
    lines = problems(path) if by == "argument" else problems(environ={"REME_MCP_CONFIG": str(path)})
    assert lines == [f"{path}: can't be read: {os.strerror(2)}"]


def test_a_directory_is_not_a_file(user: Path) -> None:
    (line,) = problems(user)
    assert line.startswith(f"{user}: can't be read: ")


def test_a_file_that_cannot_be_read_is_an_error_even_where_none_was_named(user: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("the user's folder is set by an XDG variable here")
    usual = user / "config" / "reme-mcp" / "config.toml"
    usual.parent.mkdir(parents=True)
    usual.symlink_to(usual)  # a loop: unreadable for root too
    (line,) = problems()
    assert line.startswith(f"{usual}: can't be read: ")


def test_a_file_that_is_not_toml_is_reported_with_its_line(user: Path) -> None:
    path = write(user, "[recall]\nlimit = 3\ntoken_budget = = 4\n")
    (line,) = problems(path)
    assert line.startswith(f"{path}: is not TOML: ")
    assert "line 3" in line


def test_a_file_that_is_not_utf8_is_reported(user: Path) -> None:
    path = user / "latin.toml"
    path.write_bytes('workspace = "é"'.encode("latin-1"))
    assert problems(path) == [f"{path}: is not UTF-8 (byte 14); save it as UTF-8"]


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(user: Path) -> None:
    path = user / "windows.toml"
    path.write_bytes(b'\xef\xbb\xbfworkspace = "filed"\r\n[recall]\r\nlimit = 3\r\n')
    settings = load_settings(config_file=path, environ={})
    assert (settings.workspace, settings.recall.limit) == ("filed", 3)


@pytest.mark.parametrize("text", ["", "# nothing\n", "[recall]\n", "[recall]\n[log]\n"])
def test_a_file_that_sets_nothing_changes_nothing(user: Path, text: str) -> None:
    assert load_settings(config_file=write(user, text), environ={}) == Settings()
