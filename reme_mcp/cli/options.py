"""What a person chose on the command line: home, workspace, settings file, single settings.

In:  the options, before a command or after it; the environment.
Out: the settings; the same choice as arguments for a client that starts the server later, from somewhere else.
Does not know: commands.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from reme_mcp.cli.permissions import exposed
from reme_mcp.config.load import ENV_PREFIX, FILE_VARIABLE, is_secret, load_settings, settings_file
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ConfigError, InvalidInput
from reme_mcp.safety.redaction import DiscreetFormatter, redactor_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """The four options; `None` and empty where they are not given.

    Attributes:
        home: Folder of the pool.
        workspace: Which pool in it.
        config_file: The settings file.
        overrides: Any setting, as `KEY=VALUE`.
    """

    home: str | None = None
    workspace: str | None = None
    config_file: Path | None = None
    overrides: tuple[str, ...] = ()

    def then(self, later: Choice) -> Choice:
        """Return this choice, but what `later` says as `later` says it."""
        return Choice(
            self.home if later.home is None else later.home,
            self.workspace if later.workspace is None else later.workspace,
            self.config_file if later.config_file is None else later.config_file,
            (*self.overrides, *later.overrides),
        )

    def settings(self, environ: Mapping[str, str]) -> Settings:
        """Return the settings that hold with this choice.

        Raises:
            ConfigError: One of them is bad.
        """
        chosen = dict(_assignment(text) for text in self.overrides)
        chosen |= {
            key: value for key, value in (("home", self.home), ("workspace", self.workspace)) if value is not None
        }
        return load_settings(config_file=self.config_file, environ=environ, overrides=chosen)

    def file(self, environ: Mapping[str, str]) -> Path:
        """Return the settings file that is read, whether or not it is there."""
        return Path(os.path.abspath(settings_file(self.config_file, environ)))

    def arguments(self, settings: Settings, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Return what the server has to be started with to have this choice, whoever starts it.

        A graphical client does not have the environment of this shell, so what that chooses is said, too.

        Raises:
            InvalidInput: A secret was chosen with `--set`; it would stand in the client's file.
        """
        chosen = dict(_assignment(text) for text in self.overrides)
        found: list[str] = []
        if self.home is not None or "home" in chosen or environ.get(f"{ENV_PREFIX}HOME"):
            found += ["--home", settings.home]
        if self.workspace is not None or "workspace" in chosen or environ.get(f"{ENV_PREFIX}WORKSPACE"):
            found += ["--workspace", settings.workspace]
        if self.config_file is not None or environ.get(FILE_VARIABLE):
            found += ["--config", str(self.file(environ))]
        sections = settings.model_dump()
        for key, text in chosen.items():
            if is_secret(key):
                file = self.file(environ)
                raise InvalidInput(f"{key} is a secret, and would stand in the client's file; put it into {file}")
            section, _, name = key.rpartition(".")
            if section:
                # A folder has become absolute in the settings; here it may count from where we are.
                value = sections[section][name]
                found += ["--set", f"{key}={value if isinstance(value, str) else text}"]
        return tuple(found)


def left_behind(environ: Mapping[str, str]) -> list[str]:
    """Return the variables of the environment that `Choice.arguments` does not say."""
    said = {f"{ENV_PREFIX}HOME", f"{ENV_PREFIX}WORKSPACE", FILE_VARIABLE}
    return sorted(name for name in environ if name.startswith(ENV_PREFIX) and name not in said)


def _assignment(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{text!r} is not KEY=VALUE; say for instance --set recall.limit=3")
    return key.strip(), value


def settings_of(choice: Choice) -> Settings:
    """Return the settings that were chosen, and set up the log; a bad one ends the command."""
    try:
        settings = choice.settings(os.environ)
    except ConfigError as exc:
        raise click.ClickException(str(exc)) from exc
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        DiscreetFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s", redactor_of(settings.redaction))
    )
    logging.basicConfig(level=settings.log.level.upper(), handlers=[handler])
    for one in exposed(settings, choice.file(os.environ)):
        logger.warning("%s %s, and other users can read it: %s", one.path, one.why, one.do)
    return settings
