"""What a person chose on the command line: home, workspace, settings file, single settings.

In:  the options, before a command or after it; the environment.
Out: the settings; the same choice as arguments for a client that starts the server later, from somewhere else.
Does not know: commands.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reme_mcp.config import ENV_PREFIX, FILE_VARIABLE, Settings, is_secret, load_settings, settings_file
from reme_mcp.errors import ConfigError, InvalidInput


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
        found: list[str] = []
        if self.home is not None or environ.get(f"{ENV_PREFIX}HOME"):
            found += ["--home", settings.home]
        if self.workspace is not None or environ.get(f"{ENV_PREFIX}WORKSPACE"):
            found += ["--workspace", settings.workspace]
        if self.config_file is not None or environ.get(FILE_VARIABLE):
            found += ["--config", str(self.file(environ))]
        for text in self.overrides:
            key, value = _assignment(text)
            if is_secret(key):
                raise InvalidInput(
                    f"{key} is a secret, and would stand in the client's file; put it into {self.file({})}"
                )
            found += ["--set", f"{key}={value}"]
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
