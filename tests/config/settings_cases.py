"""What the tests of settings share."""

from pathlib import Path

import pytest

from reme_mcp.config.load import load_settings
from reme_mcp.config.settings import Settings
from reme_mcp.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


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
    ("http.workers", 1, 64),
    ("http.requests_per_minute", 0, 1_000_000),
    ("http.max_open_requests", 1, 100_000),
    ("http.max_body_bytes", 10_000, 1_000_000_000),
    ("refine.min_frequency", 1, 1_000),
    ("refine.outcomes_per_source", 0, 1_000),
]


NUMBERS = [
    ("llm.temperature", 0.0, 2.0),
    ("recall.min_similarity", 0.0, 1.0),
    ("refine.max_utility_ratio", 0.0, 1.0),
    ("refine.holdout", 0.0, 0.5),
]


TIMEOUTS = [
    ("llm.timeout_s", 0.0, 3_600.0),
    ("capture.prompt_budget_s", 0.0, 25.0),
    ("http.call_timeout_s", 0.0, 3_600.0),
]


RANGES = [*WHOLE_NUMBERS, *NUMBERS, *TIMEOUTS]


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


def as_variable(key: str) -> str:
    return "REME_MCP_" + key.replace(".", "_").upper()


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
