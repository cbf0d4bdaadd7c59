import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from reme_mcp.config.load import load_settings
from reme_mcp.config.settings import RETIRED, Settings
from reme_mcp.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
MACHINE_DEPENDENT = {"home", "embedder.cache_dir"}
SECRET = "sk-do-not-show-me"

# Written out again on purpose: this is the promise, config.py is what keeps it. (key, low, high)
WHOLE_NUMBERS = [
    ("embedder.threads", 1, 64),
    ("llm.concurrency", 1, 64),
    ("llm.max_tokens", 64, 100_000),
    ("llm.context_tokens", 1_000, 10_000_000),
    ("llm.tokens_per_day", 0, 10_000_000_000),
    ("recall.limit", 1, 20),
    ("recall.token_budget", 100, 20_000),
    ("http.port", 0, 65_535),
    ("http.requests_per_minute", 0, 1_000_000),
    ("http.max_open_requests", 1, 100_000),
    ("http.max_body_bytes", 10_000, 1_000_000_000),
    ("refine.min_frequency", 1, 1_000),
    ("refine.outcomes_per_source", 0, 1_000),
]
NUMBERS = [
    ("llm.temperature", 0.0, 2.0),
    ("recall.min_similarity", 0.0, 1.0),
    ("judge.min_verdict", 0.0, 1.0),
    ("refine.max_utility_ratio", 0.0, 1.0),
    ("refine.holdout", 0.0, 0.5),
]
TIMEOUTS = [
    ("llm.timeout_s", 0.0, 3_600.0),
    ("capture.prompt_budget_s", 0.0, 25.0),
    ("http.call_timeout_s", 0.0, 3_600.0),
]
RANGES = [*WHOLE_NUMBERS, *NUMBERS, *TIMEOUTS]
EVERY_NUMBER = {key for key, *_ in RANGES}
# An answer has to fit into the model's context: what lets the one go to its bounds.
BESIDE = {"llm.max_tokens": {"llm.context_tokens": "10000000"}, "llm.context_tokens": {"llm.max_tokens": "64"}}
WITHIN = [
    *((key, value) for key, low, high in WHOLE_NUMBERS for value in (low, low + 1, high - 1, high)),
    *((key, value) for key, low, high in NUMBERS for value in (low, low + 0.01, high - 0.01, high)),
    *((key, value) for key, _, high in TIMEOUTS for value in (0.001, high - 0.1, high)),
]
BEYOND = [
    *((key, value, f"from {low} to {high}") for key, low, high in WHOLE_NUMBERS for value in (low - 1, high + 1)),
    *((key, value, f"from {low:g} to {high:g}") for key, low, high in NUMBERS for value in (low - 0.01, high + 0.01)),
    *(
        (key, value, f"more than 0 and at most {high:g}")
        for key, _, high in TIMEOUTS
        for value in (-0.001, 0.0, high + 0.1)
    ),
]


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give every test a user of its own, with an empty home folder, which is also the working folder."""
    home = tmp_path / "user"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, str(home))
    for name in ("DATA", "CONFIG", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    monkeypatch.chdir(home)
    return home


def write(folder: Path, text: str) -> Path:
    path = folder / "given.toml"
    path.write_text(text, encoding="utf-8")
    return path


def as_toml(key: str, value: object) -> str:
    section, _, name = key.rpartition(".")
    return (f"[{section}]\n" if section else "") + f"{name} = {value}\n"


def as_variable(key: str) -> str:
    return "REME_MCP_" + key.replace(".", "_").upper()


def value_of(settings: Settings, key: str) -> object:
    """Look a dotted key up in the dump, as another reader of the settings would see it."""
    value: object = settings.model_dump()
    for part in key.split("."):
        assert isinstance(value, dict)
        value = value[part]
    return value


def keys_of(settings: Settings) -> set[str]:
    return {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in settings.model_dump().items()
        for key in (value if isinstance(value, dict) else [""])
    }


def problems(
    config_file: Path | None = None, environ: dict[str, str] | None = None, overrides: dict[str, str] | None = None
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(config_file=config_file, environ=environ or {}, overrides=overrides or {})
    return str(caught.value).splitlines()


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


# --- unknown keys ---


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[recall]\nlimt = 3\n", "recall.limt: unknown key; did you mean recall.limit?"),
        ("[recal]\nlimit = 3\n", "recal.limit: unknown key; did you mean recall.limit?"),
        ('hom = "x"\n', "hom: unknown key; did you mean home?"),
        ("[zzzz]\n", "zzzz: unknown key; did you mean one of those in config.example.toml?"),
        ('log = "debug"\n', "log: unknown key; did you mean log.level?"),
    ],
)
def test_an_unknown_key_or_section_in_the_file_names_the_nearest(user: Path, text: str, problem: str) -> None:
    path = write(user, text)
    assert problems(path) == [f"{path}: {problem}"]


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("REME_MCP_RECALL_LIMT", "REME_MCP_RECALL_LIMIT"),
        ("REME_MCP_RECAL_LIMIT", "REME_MCP_RECALL_LIMIT"),
        ("REME_MCP_CONFG", "REME_MCP_CONFIG"),
    ],
)
def test_an_unknown_variable_names_the_nearest(name: str, suggested: str) -> None:
    assert problems(environ={name: "3"}) == [f"environment {name}: unknown key; did you mean {suggested}?"]


def test_an_unknown_variable_that_is_like_several_names_them() -> None:
    (line,) = problems(environ={"REME_MCP_LIMIT": "3"})
    assert line.startswith("environment REME_MCP_LIMIT: unknown key; did you mean REME_MCP_")
    assert " or REME_MCP_" in line
    assert "REME_MCP_RECALL_LIMIT" in line


@pytest.mark.parametrize("key", ["recal.limit", "recall.limt"])
def test_an_unknown_key_on_the_command_line_names_the_nearest(key: str) -> None:
    assert problems(overrides={key: "3"}) == [f"command line --set {key}: unknown key; did you mean recall.limit?"]


def test_a_section_is_no_key_on_the_command_line() -> None:
    (line,) = problems(overrides={"recall": "3"})
    assert line.startswith("command line --set recall: unknown key; did you mean recall.")


# --- bad values ---


@pytest.mark.parametrize(("key", "value"), WITHIN)
def test_a_number_within_its_bounds_is_taken_from_every_layer(user: Path, key: str, value: float) -> None:
    path = write(user, as_toml(key, value))
    beside = BESIDE.get(key, {})
    assert value_of(load_settings(config_file=path, environ={}, overrides=beside), key) == value
    assert value_of(load_settings(environ={as_variable(key): str(value)}, overrides=beside), key) == value
    assert value_of(load_settings(environ={}, overrides={key: str(value)} | beside), key) == value


@pytest.mark.parametrize(("key", "value", "allowed"), BEYOND)
def test_a_number_beyond_its_bounds_is_refused_from_every_layer(
    user: Path, key: str, value: float, allowed: str
) -> None:
    path = write(user, as_toml(key, value))
    assert problems(path) == [f"{path}: {key} = {value}: must be {allowed}"]
    variable = as_variable(key)
    assert problems(environ={variable: str(value)}) == [f"environment {variable} = '{value}': must be {allowed}"]
    assert problems(overrides={key: str(value)}) == [f"command line --set {key} = '{value}': must be {allowed}"]


@pytest.mark.parametrize("key", sorted(EVERY_NUMBER))
def test_every_number_of_the_settings_is_in_the_tables_above_and_refuses_text(key: str) -> None:
    (line,) = problems(overrides={key: "many"})
    kind = "whole number" if key in {key for key, *_ in WHOLE_NUMBERS} else "number"
    assert line.startswith(f"command line --set {key} = 'many': must be a {kind} ")


def test_no_number_is_missing_from_the_tables_above() -> None:
    defaults = Settings()
    numbers = {key for key in keys_of(defaults) if type(value_of(defaults, key)) in (int, float)}
    assert numbers == EVERY_NUMBER


@pytest.mark.parametrize(
    ("key", "toml", "problem"),
    [
        ("recall.limit", '"3"', "recall.limit = '3': must be a whole number from 1 to 20"),
        ("recall.limit", "3.0", "recall.limit = 3.0: must be a whole number from 1 to 20"),
        ("recall.limit", "true", "recall.limit = true: must be a whole number from 1 to 20"),
        ("recall.limit", "[3]", "recall.limit = […]: must be a whole number from 1 to 20"),
        ("recall.limit", "{ x = 3 }", "recall.limit = {…}: must be a whole number from 1 to 20"),
        ("recall.min_similarity", '"0.5"', "recall.min_similarity = '0.5': must be a number from 0 to 1"),
        ("recall.min_similarity", "nan", "recall.min_similarity = nan: must be a number from 0 to 1"),
        ("embedder.download", "1", "embedder.download = 1: must be true or false"),
        ("embedder.download", '"yes"', "embedder.download = 'yes': must be true or false"),
        ("embedder.model", '""', "embedder.model = '': must not be empty"),
        ("embedder.model", "3", "embedder.model = 3: must be text"),
        ("embedder.provider", '"openai"', "embedder.provider = 'openai': must be 'fastembed', 'endpoint' or 'none'"),
        ("log.level", '"WARNING"', "log.level = 'WARNING': must be 'debug', 'info', 'warning' or 'error'"),
        ("home", '""', "home = '': must not be empty"),
        ("home", "{}", "home = {…}: must be text"),
        ("home", '"a\\u0000b"', "home = 'a\\x00b': must not hold a NUL character"),
    ],
)
def test_a_bad_value_in_the_file_is_refused_in_plain_words(user: Path, key: str, toml: str, problem: str) -> None:
    path = write(user, as_toml(key, toml))
    assert problems(path) == [f"{path}: {problem}"]


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("recall.limit", "many", "must be a whole number from 1 to 20"),
        ("recall.limit", "", "must be a whole number from 1 to 20"),
        ("recall.limit", "2.5", "must be a whole number from 1 to 20"),
        ("recall.min_similarity", "0,5", "must be a number from 0 to 1"),
        ("recall.min_similarity", "nan", "must be a number from 0 to 1"),
        ("embedder.download", "maybe", "must be true or false"),
        ("embedder.path", "~nobody-of-that-name/x", "must be an absolute path: the home folder behind ~ is not known"),
        ("log.level", "\udcff", "must be valid Unicode"),
    ],
)
def test_a_bad_value_in_the_environment_or_command_line_is_refused_in_plain_words(
    key: str, text: str, words: str
) -> None:
    variable = as_variable(key)
    assert problems(environ={variable: text}) == [f"environment {variable} = {text!r}: {words}"]
    assert problems(overrides={key: text}) == [f"command line --set {key} = {text!r}: {words}"]


def test_a_number_too_long_to_read_is_refused_and_cut_short(user: Path) -> None:
    (line,) = problems(environ={"REME_MCP_RECALL_LIMIT": "9" * 5_000})
    assert line.endswith("9…: must be a whole number from 1 to 20")
    assert len(line) < 200
    path = write(user, f"[recall]\nlimit = {'9' * 5_000}\n")
    (line,) = problems(path)
    assert line.startswith(f"{path}: is not TOML: ")


@pytest.mark.parametrize("text", ["true", "1", "yes", "on", "True"])
def test_a_switch_in_the_environment_takes_the_usual_words(text: str) -> None:
    assert load_settings(environ={"REME_MCP_EMBEDDER_DOWNLOAD": text}).embedder.download
    assert not load_settings(environ={"REME_MCP_EMBEDDER_DOWNLOAD": "off"}).embedder.download


def test_a_whole_number_does_for_a_number_in_the_file(user: Path) -> None:
    assert (
        load_settings(config_file=write(user, "[recall]\nmin_similarity = 1\n"), environ={}).recall.min_similarity == 1
    )


@pytest.mark.parametrize("name", ["a", "Team-7_x.y", "7", "x" * 64])
def test_a_workspace_is_taken(name: str) -> None:
    assert load_settings(environ={"REME_MCP_WORKSPACE": name}).workspace == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "a/b", "a b", "ä", "a\n", "x" * 65])
def test_a_workspace_that_is_none_is_refused(name: str) -> None:
    (line,) = problems(environ={"REME_MCP_WORKSPACE": name})
    assert line.endswith(": must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or a digit")


@pytest.mark.parametrize("url", ["http://localhost:11434/v1", "https://host", "HTTPS://host/", "http://[::1]:8000/v1"])
def test_the_endpoint_takes_an_address(url: str) -> None:
    settings = load_settings(environ={"REME_MCP_EMBEDDER_PROVIDER": "endpoint", "REME_MCP_EMBEDDER_BASE_URL": url})
    assert settings.embedder.base_url == url


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://a b", "https://u:p@host/v1", " "])
def test_the_endpoint_refuses_what_is_no_address(url: str) -> None:
    (line,) = problems(overrides={"embedder.base_url": url})
    assert line.endswith(": must be like https://host/v1, with no name or password in it")


def test_an_endpoint_without_an_address_is_reported_where_it_was_chosen(user: Path) -> None:
    words = "needs embedder.base_url, the address of an OpenAI-compatible server"
    path = write(user, '[embedder]\nprovider = "endpoint"\n')
    assert problems(path) == [f"{path}: embedder.provider = 'endpoint': {words}"]
    assert problems(path, {"REME_MCP_EMBEDDER_PROVIDER": "endpoint"}) == [
        f"environment REME_MCP_EMBEDDER_PROVIDER = 'endpoint': {words}"
    ]
    with pytest.raises(ValidationError, match=r"needs embedder\.base_url"):
        Settings.model_validate({"embedder": {"provider": "endpoint"}})


def test_the_endpoint_and_its_address_may_come_from_different_layers(user: Path) -> None:
    path = write(user, '[embedder]\nprovider = "endpoint"\nbase_url = ""\n')
    settings = load_settings(config_file=path, environ={"REME_MCP_EMBEDDER_BASE_URL": "http://host/v1"})
    assert settings.embedder.provider == "endpoint"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"base_url": "http://host/v1"}, "base_url = 'http://host/v1': needs llm.model, the name of a model there"),
        (
            {"api_key": SECRET, "api_key_file": "/run/key"},
            "api_key_file = '/run/key': needs llm.api_key to be empty: the key comes from one of the two",
        ),
        (
            {"max_tokens": "3000", "context_tokens": "3000"},
            "max_tokens = '3000': must be less than llm.context_tokens: the prompt needs room as well",
        ),
    ],
)
def test_keys_of_the_llm_that_do_not_fit_together_are_reported(given: dict[str, str], problem: str) -> None:
    lines = problems(overrides={f"llm.{key}": value for key, value in given.items()})
    assert lines == [f"command line --set llm.{problem}"]


@pytest.mark.parametrize(
    "given",
    [
        {"base_url": "http://host/v1", "model": "m"},
        {"model": "m"},
        {"api_key_file": "/run/key"},
        {"max_tokens": "2999", "context_tokens": "3000"},
    ],
)
def test_keys_of_the_llm_that_fit_together_are_taken(given: dict[str, str]) -> None:
    settings = load_settings(environ={}, overrides={f"llm.{key}": value for key, value in given.items()})
    assert {key: str(value_of(settings, f"llm.{key}")) for key in given} == given


def test_no_model_is_asked_by_default() -> None:
    assert Settings().llm.base_url == ""


def test_all_problems_of_all_layers_are_reported_at_once(user: Path) -> None:
    path = write(user, "[recall]\nlimit = 0\nlimt = 1\n[refine]\nmin_frequency = 0\n")
    lines = problems(
        path,
        {"REME_MCP_RECALL_LIMIT": "many", "REME_MCP_HOMES": "x"},
        {"recal.limit": "3", "log.level": "loud", "embedder.provider": "endpoint"},
    )
    assert sorted(lines) == sorted(
        [
            f"{path}: recall.limit = 0: must be from 1 to 20",
            f"{path}: recall.limt: unknown key; did you mean recall.limit?",
            f"{path}: refine.min_frequency = 0: must be from 1 to 1000",
            "environment REME_MCP_RECALL_LIMIT = 'many': must be a whole number from 1 to 20",
            "environment REME_MCP_HOMES: unknown key; did you mean REME_MCP_HOME?",
            "command line --set recal.limit: unknown key; did you mean recall.limit?",
            "command line --set log.level = 'loud': must be 'debug', 'info', 'warning' or 'error'",
            "command line --set embedder.provider = 'endpoint': "
            "needs embedder.base_url, the address of an OpenAI-compatible server",
        ]
    )


def test_a_broken_file_does_not_hide_the_problems_of_the_other_layers(user: Path) -> None:
    path = write(user, "= 1")
    first, second = problems(path, {"REME_MCP_RECALL_LIMIT": "0"})
    assert first.startswith(f"{path}: is not TOML: ")
    assert second == "environment REME_MCP_RECALL_LIMIT = '0': must be from 1 to 20"


# --- secrets ---


def test_a_secret_is_read_and_masked_wherever_settings_are_shown() -> None:
    settings = load_settings(environ={"REME_MCP_EMBEDDER_API_KEY": SECRET})
    assert settings.embedder.api_key.get_secret_value() == SECRET
    for shown in (repr(settings), str(settings), repr(settings.embedder), settings.model_dump_json()):
        assert SECRET not in shown


def test_the_key_of_the_llm_is_masked_and_checked_too() -> None:
    assert SECRET not in repr(load_settings(environ={"REME_MCP_LLM_API_KEY": SECRET}))
    assert problems(environ={"REME_MCP_LLM_API_KEY": f"{SECRET} "}) == [
        "environment REME_MCP_LLM_API_KEY: must be ASCII without spaces or line breaks"
    ]


@pytest.mark.parametrize("bad", [f"{SECRET} ", f"{SECRET}\n", f"{SECRET}é", f"{SECRET}\udcff"])
def test_a_bad_secret_is_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"REME_MCP_EMBEDDER_API_KEY": bad}, overrides={"embedder.api_key": bad})
    assert str(caught.value).splitlines() == [
        "environment REME_MCP_EMBEDDER_API_KEY: must be ASCII without spaces or line breaks",
        "command line --set embedder.api_key: must be ASCII without spaces or line breaks",
    ]
    assert caught.value.__context__ is None  # pydantic's error would hold the value


@pytest.mark.parametrize(
    "text",
    [
        f"[embedder]\napi_key = ['{SECRET}']\n",
        f"[embedder.api_key]\nvalue = '{SECRET}'\n",
        f"[embedder.model]\napi_key = '{SECRET}'\n",
        f"[embedder]\napi_kye = '{SECRET}'\n",
        f"[embedder]\nbase_url = 'https://me:{SECRET}@host'\n",
        f"[embedder]\napi_key = '{SECRET}\n",
    ],
)
def test_a_misplaced_secret_in_the_file_is_not_shown(user: Path, text: str) -> None:
    assert SECRET not in "\n".join(problems(write(user, text)))


def test_a_bad_secret_is_not_shown_where_settings_are_made_by_hand() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"embedder": {"api_key": SecretStr(f"{SECRET} ")}, "workspace": "/"})
    assert SECRET not in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"embedder": {"api_key": [SECRET]}})
    assert SECRET not in str(caught.value)


# --- folders ---


@pytest.mark.parametrize("key", ["home", "embedder.path", "embedder.cache_dir", "llm.api_key_file"])
@pytest.mark.parametrize(
    ("given", "inside"),
    [("~/memory", "memory"), ("memory", "memory"), ("./a/../mémoire 记忆 x", "mémoire 记忆 x"), ("~", "")],
)
def test_a_folder_is_expanded_and_made_absolute(user: Path, key: str, given: str, inside: str) -> None:
    wanted = str(user / inside)
    assert value_of(load_settings(environ={as_variable(key): given}), key) == wanted
    assert value_of(load_settings(environ={}, overrides={key: given}), key) == wanted
    assert value_of(load_settings(config_file=write(user, as_toml(key, f"'{given}'")), environ={}), key) == wanted


def test_an_absolute_folder_stays_as_it_is(tmp_path: Path) -> None:
    folder = str(tmp_path / "with space" / "~x")
    assert load_settings(environ={"REME_MCP_HOME": folder}).home == folder


def test_an_empty_model_folder_is_none_and_an_empty_cache_folder_the_default() -> None:
    settings = load_settings(environ={"REME_MCP_EMBEDDER_PATH": "", "REME_MCP_EMBEDDER_CACHE_DIR": ""})
    assert settings == Settings()
    assert settings.embedder.path == ""
    assert settings.embedder.cache_dir != ""


def test_a_user_without_a_home_folder_is_told_which_folders_to_set() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can become a user that the system doesn't know")
    code = (
        "import os; from reme_mcp.config.load import load_settings; from reme_mcp.errors import ConfigError\n"
        "os.setuid(54321)\n"
        "try: load_settings(environ={})\n"
        "except ConfigError as exc: print(exc)\n"
        "print(load_settings(environ={'REME_MCP_HOME': '/x', 'REME_MCP_EMBEDDER_CACHE_DIR': '/y'}).home)"
    )
    unset = {"HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"}
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    environ["PYTHONPATH"] = str(EXAMPLE.parent)
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "default home: must be an absolute path: the home folder behind ~ is not known",
        "default embedder.cache_dir: must be an absolute path: the home folder behind ~ is not known",
        "/x",
    ]


# --- effects ---


def test_loading_creates_nothing(user: Path) -> None:
    load_settings(environ={"REME_MCP_HOME": "~/memory", "REME_MCP_EMBEDDER_CACHE_DIR": "~/models"})
    assert list(user.iterdir()) == []


def test_nothing_happens_at_import(user: Path) -> None:
    code = """
import sys
touched = []
sys.addaudithook(lambda event, args: touched.append((event, str(args[0]))) if event in ("open", "os.mkdir") else None)
import reme_mcp.config
home = sys.argv[1]
assert not [one for one in touched if one[1].startswith(home) or one[0] == "os.mkdir"], touched
heavy = {"pydantic_settings", "lancedb", "pyarrow", "mcp", "openai", "fastembed", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""
    environ = os.environ | {
        "PYTHONPATH": str(EXAMPLE.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "REME_MCP_NONSENSE": "1",
        "REME_MCP_CONFIG": str(user / "missing.toml"),
    }
    subprocess.run([sys.executable, "-c", code, str(user)], env=environ, check=True)
    assert list(user.iterdir()) == []
