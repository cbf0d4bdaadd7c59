"""From a TOML file, the environment and the command line to `Settings`; the later one wins.

In:  a file, environment variables `REME_MCP_…` and dotted keys from the command line.
Out: `Settings`, or one `ConfigError` that lists every problem, a line each, with secrets masked.
Does not know: whether a folder exists, a model loads or an endpoint answers.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import platformdirs
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from reme_mcp.config.settings import RETIRED, Section, Settings, machine_folder
from reme_mcp.errors import ConfigError

logger = logging.getLogger(__name__)

ENV_PREFIX = "REME_MCP_"
FILE_VARIABLE = "REME_MCP_CONFIG"
MAX_SHOWN_CHARS = 80


# --- loading ---

# pydantic's error types in plain words, after "must"; the rest keep pydantic's own message.
PLAIN_WORDS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size"), "be a whole number {allowed}"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "be a number {allowed}"),
    **dict.fromkeys(("greater_than", "greater_than_equal", "less_than_equal"), "be {allowed}"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "be true or false"),
    "string_type": "be text",
    "string_unicode": "be valid Unicode",
    "string_too_short": "not be empty",
    "literal_error": "be {expected}",
}


@dataclass(frozen=True, slots=True)
class _Given:
    """A value, and how a message names it with its source (`environment REME_MCP_RECALL_LIMIT = '0'`)."""

    value: object
    label: str


def load_settings(
    *, config_file: Path | None = None, environ: Mapping[str, str], overrides: Mapping[str, str] = {}
) -> Settings:
    """Return the settings: defaults < TOML file < environment < command line.

    Args:
        config_file: The TOML file; without it the one that `REME_MCP_CONFIG` names, else `config.toml` in the user's
            configuration folder if there is one.
        environ: Read for `REME_MCP_HOME`, `REME_MCP_<SECTION>_<KEY>` and so on; names without the prefix are ignored.
        overrides: Dotted keys and their values, `{"recall.limit": "3"}`.

    Raises:
        ConfigError: A named file can't be read, a key is unknown, or a value is bad. It has a line for every problem.
    """
    fields = _fields()
    keys = {key: key for key in fields}
    variables = {_variable(key): key for key in fields}
    retired = {*RETIRED, *map(_variable, RETIRED)}.__contains__
    in_environ = {name: value for name, value in environ.items() if name.startswith(ENV_PREFIX)}
    named_file = in_environ.pop(FILE_VARIABLE, "")
    variables[FILE_VARIABLE] = ""  # no setting, but a name to suggest
    problems: list[str] = []
    path = settings_file(config_file, environ)
    try:
        in_file = _read_toml(path, required=config_file is not None or named_file != "")
    except ConfigError as exc:
        in_file = {}
        problems.append(str(exc))

    merged: dict[str, _Given] = {}
    # The file is read strictly, as TOML has numbers of its own; the other two can give nothing but text.
    for source, names, values, strict in (
        (f"{path}: ", keys, in_file, True),
        ("environment ", variables, in_environ, False),
        ("command line --set ", keys, overrides, False),
    ):
        for name in values:
            if retired(name):
                logger.warning("%s%s: is no setting any more and changes nothing; take it out", source, name)
            elif name not in names:
                problems.append(f"{source}{name}: {_unknown(name, names)}")
        layer = {
            names[name]: _Given(value, f"{source}{name}{_shown(value, fields[names[name]])}")
            for name, value in values.items()
            if name in names
        }
        problems += [f"{layer[key].label}: {words}" for key, words in _complaints(layer, strict=strict) if key in layer]
        merged |= layer
    # Every value is judged. Left are rules over several keys, and defaults that this machine can't have.
    for where, words in _complaints(merged, strict=False):
        if where not in merged:
            key, words = (where, words) if where in fields else words.split(" ", 1)
            problems.append(f"{merged[key].label if key in merged else f'default {key}'}: {words}")
    if problems:
        raise ConfigError("\n".join(problems))
    return Settings.model_validate(_tree(merged))


def with_overrides(settings: Settings, overrides: Mapping[str, str]) -> Settings:
    """Return the settings with these in the place of theirs, as a command's own options give them.

    Raises:
        ConfigError: A value is bad.
    """
    try:
        tree = settings.model_dump()
        for dotted, value in overrides.items():
            section, _, key = dotted.rpartition(".")
            tree[section][key] = value
        return Settings.model_validate(tree)
    except ValidationError as exc:
        raise ConfigError("\n".join(error["msg"].removeprefix("Value error, ") for error in exc.errors())) from exc


def _read_toml(path: Path, *, required: bool) -> dict[str, object]:
    """Return the file's values under dotted keys, none where it doesn't exist and needn't."""
    try:
        # Windows editors put a byte order mark at the start.
        tables: dict[str, object] = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as exc:
        if not required and isinstance(exc, (FileNotFoundError, NotADirectoryError)):
            return {}
        raise ConfigError(f"{path}: can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 (byte {exc.start + 1}); save it as UTF-8") from exc
    except ValueError as exc:
        raise ConfigError(f"{path}: is not TOML: {exc}") from exc
    sections = {*_sections(), *(key.split(".")[0] for key in RETIRED)}
    values: dict[str, object] = {}
    for name, value in tables.items():
        if isinstance(value, dict) and (value or name in sections):
            values |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            values[name] = value
    return values


def _sections() -> dict[str, type[Section]]:
    fields = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, Section)}


def settings_file(config_file: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the file that settings are read from, whether or not it is there; the arguments as for `load_settings`."""
    default_file = machine_folder(platformdirs.user_config_path, "config.toml")
    return config_file or Path(os.path.expanduser(environ.get(FILE_VARIABLE, "")) or default_file)


def secrets_in(file: Path) -> list[str]:
    """Return the dotted keys of the secrets that a settings file holds; none where it can't be read."""
    try:
        return [key for key, value in _read_toml(file, required=False).items() if value and is_secret(key)]
    except ConfigError:
        return []


def is_secret(key: str) -> bool:
    """Return whether a dotted key names a setting that must not be shown or written anywhere else."""
    field = _fields().get(key)
    return field is not None and field.annotation is SecretStr


def _fields() -> dict[str, FieldInfo]:
    """Return every setting under its dotted key."""
    sections = _sections()
    fields = {name: field for name, field in Settings.model_fields.items() if name not in sections}
    for name, section in sections.items():
        fields |= {f"{name}.{key}": field for key, field in section.model_fields.items()}
    return fields


def _variable(key: str) -> str:
    """Return the environment variable of a dotted key."""
    return ENV_PREFIX + key.replace(".", "_").upper()


def _tree(given: Mapping[str, _Given]) -> dict[str, object]:
    """Return the values in the shape of `Settings`, with every section, so that errors in defaults name theirs."""
    tree: dict[str, object] = {key: one.value for key, one in given.items() if "." not in key}
    sections: dict[str, dict[str, object]] = {name: {} for name in _sections()}
    for dotted, one in given.items():
        section, _, key = dotted.rpartition(".")
        if section:
            sections[section][key] = one.value
    return tree | sections


def _complaints(given: Mapping[str, _Given], *, strict: bool) -> Iterator[tuple[str, str]]:
    """Yield key and plain words for every error in these values; the key of a rule over several is its section."""
    try:
        Settings.model_validate(_tree(given), strict=strict)
    except ValidationError as exc:
        fields = _fields()
        for error in exc.errors():
            key = ".".join(str(part) for part in error["loc"])
            if error["type"] in PLAIN_WORDS:
                allowed = fields[key].description or ""
                expected = error.get("ctx", {}).get("expected")
                words = "must " + PLAIN_WORDS[error["type"]].format(allowed=allowed, expected=expected)
            else:
                words = error["msg"].removeprefix("Value error, ")
            yield key, words


def _shown(value: object, field: FieldInfo) -> str:
    """Return ` = value` for a message, on one line; nothing of a secret and nothing from inside a table."""
    if field.annotation is SecretStr:
        return ""
    match value:
        case dict():
            return " = {…}"
        case list():
            return " = […]"
        case bool():
            return f" = {str(value).lower()}"
    # A password in an address is a secret as well.
    text = re.sub(r"//[^/]*@", "//…@", repr(value))
    return f" = {text}" if len(text) <= MAX_SHOWN_CHARS else f" = {text[:MAX_SHOWN_CHARS]}…"


def _unknown(name: str, known: Mapping[str, str]) -> str:
    nearest = get_close_matches(name, known, n=1, cutoff=0.85) or get_close_matches(name, known, n=3, cutoff=0.5)
    return f"unknown key; did you mean {' or '.join(nearest) or 'one of those in config.example.toml'}?"
