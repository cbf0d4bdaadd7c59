"""Unknown keys, bad values, secrets and folders in settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from reme_mcp.config.load import load_settings
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ConfigError
from tests.config.settings_cases import (
    EXAMPLE,
    NUMBERS,
    RANGES,
    TIMEOUTS,
    WHOLE_NUMBERS,
    as_variable,
    keys_of,
    problems,
    write,
)
from tests.config.settings_cases import user as user

SECRET = "sk-do-not-show-me"


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


def as_toml(key: str, value: object) -> str:
    section, _, name = key.rpartition(".")
    return (f"[{section}]\n" if section else "") + f"{name} = {value}\n"


def value_of(settings: Settings, key: str) -> object:
    """Look a dotted key up in the dump, as another reader of the settings would see it."""
    value: object = settings.model_dump()
    for part in key.split("."):
        assert isinstance(value, dict)
        value = value[part]
    return value


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
