"""Every setting with its default and its range: `Settings`, frozen and valid.

In:  plain values, by section and name.
Out: `Settings`.
Does not know: where the values came from; `load.py` does. Nothing is read or created here.

`config.example.toml` tells people what each key does; a test holds the two together.

Source: K, α and β are those of ReMe (arXiv 2512.10696, §3.2 and §3.3).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic.fields import FieldInfo

from reme_mcp.schema import WORKSPACE_PATTERN

APP_NAME = "reme-mcp"
BASE_URL_PATTERN = re.compile(r"https?://[^\s/@]+(/\S*)?", re.IGNORECASE)
REMOTE_HOME_PATTERN = re.compile(r"(s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._=+-]+)*/?")
API_KEY_PATTERN = re.compile(r"[!-~]*")
LOOPBACK_OR_TLS = re.compile(r"https://|http://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?(/|$)", re.IGNORECASE)
# What has to be said, word by word, for a server that others can reach and that asks nobody who they are.
WITHOUT_AUTH = "anyone who can reach it may read and write"


# --- what a value may be; a field's description is what its messages say is allowed ---


def _between(low: float, high: float) -> FieldInfo:
    bounds: FieldInfo = Field(ge=low, le=high, description=f"from {low} to {high}")
    return bounds


def machine_folder(find: Callable[..., Path], *inside: str) -> str:
    """Return a folder of this user for this program; below `~` where the system names none."""
    try:
        return str(find(APP_NAME, appauthor=False).joinpath(*inside))
    except RuntimeError:  # a user without a home folder, as in a container
        return os.path.join("~", APP_NAME, *inside)


def _absolute(path: str) -> str:
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError("must be an absolute path: the home folder behind ~ is not known")
    if "\0" in expanded:
        raise ValueError("must not hold a NUL character")
    return os.path.abspath(expanded)


def _home(path: str) -> str:
    if not path:
        raise ValueError("must not be empty")
    if not is_remote(path):
        return _absolute(path)
    if REMOTE_HOME_PATTERN.fullmatch(path) is None or "/." in path:
        raise ValueError(
            "must be a folder, or like s3://bucket/path, gs://… or az://…, in letters, digits and . _ - + ="
        )
    return path.rstrip("/")


def is_remote(home: str) -> bool:
    """Return whether a home is the address of a place elsewhere, and no folder of this machine."""
    return "://" in home


def _optional_path(path: str) -> str:
    return _absolute(path) if path else ""


def _cache_folder(path: str) -> str:
    return _absolute(path or machine_folder(platformdirs.user_cache_path, "models"))


def _workspace(name: str) -> str:
    if WORKSPACE_PATTERN.fullmatch(name) is None:
        raise ValueError("must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or a digit")
    return name


def _base_url(url: str) -> str:
    if url and BASE_URL_PATTERN.fullmatch(url) is None:
        raise ValueError("must be like https://host/v1, with no name or password in it")
    return url


def _api_key(key: SecretStr) -> SecretStr:
    # It becomes an HTTP header; the HTTP client's own error for a bad header would show it.
    if API_KEY_PATTERN.fullmatch(key.get_secret_value()) is None:
        raise ValueError("must be ASCII without spaces or line breaks")
    return key


def _pattern(pattern: str) -> str:
    try:
        matches_nothing = re.compile(pattern).match("") is not None
    except re.error as exc:
        raise ValueError(f"must be a regular expression: {exc}") from exc
    if pattern and matches_nothing:
        raise ValueError("must not match the empty text, as that stands everywhere")
    return pattern


# Keys that were settings once: each is a named constant beside its formula now. They are passed over, and told.
RETIRED = frozenset(
    {
        "embedder.batch_size",
        "embedder.timeout_s",
        "llm.max_retries",
        "llm.max_attempts",
        "recall.candidates",
        "recall.cross_encoder",
        "recall.vector_weight",
        "recall.neighbour_weight",
        "recall.helpfulness_weight",
        "recall.confidence_weight",
        "recall.freshness_weight",
        "recall.half_life_days",
        "recall.llm_deadline_s",
        "record.max_experiences",
        "record.max_transcript_chars",
        "judge.min_verdict",
        "dedup.min_cosine",
        "dedup.min_text_overlap",
        "dedup.min_agreement",
        "dedup.min_task_cosine",
        "dedup.min_task_overlap",
        "refine.max_failed_retries",
        "capture.limit",
        "http.max_connections",
        "http.body_timeout_s",
        "http.stop_timeout_s",
    }
)


# --- the settings ---


class Section(BaseModel):
    """A section of the settings: frozen, without unknown keys; a message never shows a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class EmbedderSettings(Section):
    """Where vectors come from; units and meaning of each key are in `config.example.toml`."""

    provider: Literal["fastembed", "endpoint", "none"] = "fastembed"
    model: Annotated[str, Field(min_length=1)] = "BAAI/bge-small-en-v1.5"
    path: Annotated[str, AfterValidator(_optional_path)] = ""
    cache_dir: Annotated[str, AfterValidator(_cache_folder), Field(validate_default=True)] = ""
    download: bool = True
    threads: Annotated[int, _between(1, 64)] = 1
    base_url: Annotated[str, AfterValidator(_base_url)] = ""
    api_key: Annotated[SecretStr, AfterValidator(_api_key)] = SecretStr("")

    @model_validator(mode="after")
    def _endpoint_has_an_address(self) -> Self:
        # A rule over several keys: its message begins with the key that it is reported under.
        if self.provider == "endpoint" and not self.base_url:
            raise ValueError("embedder.provider needs embedder.base_url, the address of an OpenAI-compatible server")
        return self


class LLMSettings(Section):
    """The model that distils and judges, behind an OpenAI-compatible server; none without `base_url`."""

    base_url: Annotated[str, AfterValidator(_base_url)] = ""
    model: str = ""
    api_key: Annotated[SecretStr, AfterValidator(_api_key)] = SecretStr("")
    api_key_file: Annotated[str, AfterValidator(_optional_path)] = ""
    timeout_s: Annotated[float, Field(gt=0, le=3_600, description="more than 0 and at most 3600")] = 120.0
    concurrency: Annotated[int, _between(1, 64)] = 2
    temperature: Annotated[float, _between(0, 2)] = 0.2
    max_tokens: Annotated[int, _between(64, 100_000)] = 2_000
    context_tokens: Annotated[int, _between(1_000, 10_000_000)] = 8_000
    tokens_per_day: Annotated[int, _between(0, 10_000_000_000)] = 0
    wait: bool = False

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        # As above: each message begins with the key that it is reported under.
        if self.base_url and not self.model:
            raise ValueError("llm.base_url needs llm.model, the name of a model there")
        if self.api_key_file and self.api_key.get_secret_value():
            raise ValueError("llm.api_key_file needs llm.api_key to be empty: the key comes from one of the two")
        if self.max_tokens >= self.context_tokens:
            raise ValueError("llm.max_tokens must be less than llm.context_tokens: the prompt needs room as well")
        return self


class RecallSettings(Section):
    """How much a recall hands out, and what a model behind the server does with it."""

    limit: Annotated[int, _between(1, 20)] = 5
    token_budget: Annotated[int, _between(100, 20_000)] = 1_000
    floor: bool = True
    min_similarity: Annotated[float, _between(0, 1)] = 0.0
    rerank: bool = False
    rewrite: bool = False


class RefineSettings(Section):
    """When an experience is pruned (`frequency ≥ α` and `utility / frequency ≤ β`), and which is on trial at first."""

    min_frequency: Annotated[int, _between(1, 1_000)] = 5
    max_utility_ratio: Annotated[float, _between(0, 1)] = 0.5
    add_from: Literal["all", "success"] = "all"
    outcomes_per_source: Annotated[int, _between(0, 1_000)] = 2
    removal: Literal["share", "lift"] = "share"
    holdout: Annotated[float, _between(0, 0.5)] = 0.0


class CaptureSettings(Section):
    """What the hooks of Claude Code do, see `reme-mcp plugin`."""

    at_prompt: bool = True
    at_end: bool = True
    offer: bool = True
    prompt_budget_s: Annotated[float, Field(gt=0, le=25, description="more than 0 and at most 25")] = 5.0


class StorageSettings(Section):
    """How a home on S3 is reached; what stands nowhere here comes from the environment."""

    endpoint: Annotated[str, AfterValidator(_base_url)] = ""
    region: str = ""
    access_key_id: str = ""
    secret_access_key: Annotated[SecretStr, AfterValidator(_api_key)] = SecretStr("")

    @model_validator(mode="after")
    def _keys_come_together(self) -> Self:
        if bool(self.access_key_id) != bool(self.secret_access_key.get_secret_value()):
            raise ValueError("storage.access_key_id needs storage.secret_access_key, and the other way round")
        return self


class HTTPSettings(Section):
    """Where `serve --http` listens, and how much it takes from one client."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, _between(0, 65_535)] = 8_365
    public_url: Annotated[str, AfterValidator(_base_url)] = ""
    allowed_hosts: str = ""
    allowed_origins: str = ""
    without_auth: str = ""
    workers: Annotated[int, _between(1, 64)] = 1
    sessions: bool = True
    requests_per_minute: Annotated[int, _between(0, 1_000_000)] = 600
    max_open_requests: Annotated[int, _between(1, 100_000)] = 1_000
    max_body_bytes: Annotated[int, _between(10_000, 1_000_000_000)] = 8_000_000
    call_timeout_s: Annotated[float, Field(gt=0, le=3_600, description="more than 0 and at most 3600")] = 300.0
    log_requests: bool = True
    page: bool = True

    @property
    def keeps_sessions(self) -> bool:
        """Whether sessions are kept: the requests of one would reach any of several processes."""
        return self.sessions and self.workers == 1

    @model_validator(mode="after")
    def _words_are_the_words(self) -> Self:
        if self.without_auth not in ("", WITHOUT_AUTH):
            raise ValueError(f"http.without_auth must be empty, or be the words {WITHOUT_AUTH!r}")
        return self


class AuthSettings(Section):
    """Who may use the server over HTTP: holders of its own tokens, and whoever an identity provider vouches for."""

    tokens_file: Annotated[str, AfterValidator(_optional_path)] = ""
    issuer: Annotated[str, AfterValidator(_base_url)] = ""
    audience: str = ""
    workspace_claim: Annotated[str, Field(min_length=1)] = "workspace"
    role_claim: Annotated[str, Field(min_length=1)] = "scope"
    jwks_url: Annotated[str, AfterValidator(_base_url)] = ""

    @model_validator(mode="after")
    def _issuer_is_whole(self) -> Self:
        if self.issuer and not self.audience:
            raise ValueError("auth.issuer needs auth.audience: a token that was made for another server is refused")
        for key, url in (("issuer", self.issuer), ("jwks_url", self.jwks_url)):
            if url and LOOPBACK_OR_TLS.match(url) is None:
                raise ValueError(f"auth.{key} must begin with https://, or be on this machine")
        return self


class RedactionSettings(Section):
    """What is cut out of every text that comes in, before anything is done with it."""

    enabled: bool = True
    also: Annotated[str, AfterValidator(_pattern)] = ""


class LogSettings(Section):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "warning"


class Settings(Section):
    """All settings. `Settings()` holds the defaults of this machine; folders in it are absolute."""

    home: Annotated[str, AfterValidator(_home), Field(validate_default=True)] = Field(
        default_factory=lambda: machine_folder(platformdirs.user_data_path)
    )
    workspace: Annotated[str, AfterValidator(_workspace)] = "default"
    embedder: EmbedderSettings = Field(default_factory=EmbedderSettings)
    llm: LLMSettings = Field(default_factory=LLMSettings)
    recall: RecallSettings = Field(default_factory=RecallSettings)
    refine: RefineSettings = Field(default_factory=RefineSettings)
    capture: CaptureSettings = Field(default_factory=CaptureSettings)
    storage: StorageSettings = Field(default_factory=StorageSettings)
    http: HTTPSettings = Field(default_factory=HTTPSettings)
    auth: AuthSettings = Field(default_factory=AuthSettings)
    redaction: RedactionSettings = Field(default_factory=RedactionSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @property
    def own_folder(self) -> Path:
        """The folder of this machine for what is not in the pool: the home, or where that would be by default."""
        return Path(machine_folder(platformdirs.user_data_path) if is_remote(self.home) else self.home)
