"""The values that travel through the package, and the models at its edges.

In:  nothing; this module knows no storage, no protocol and no model.
Out: frozen dataclasses for the inside (`Experience`, `Trajectory`, `ReceiptLine`) and pydantic models for what enters
     (`ExperienceDraft`) and leaves (`RecallResult`, `RecordResult`, `RateResult`).

Source: the experience is ⟨ω, e, κ, c, τ⟩ of ReMe (arXiv 2512.10696, §3.1); counters f and u are those of its §3.3.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Kind = Literal["success", "failure", "comparative"]
Outcome = Literal["success", "failure"]
SearchMode = Literal["text", "vector", "cross_encoder"]
# What decided about an experience that a recall found: it was handed out, or held back by one of the others.
Rule = Literal["handed_out", "floor", "limit", "token_budget"]
Status = Literal["active", "provisional", "quarantined", "archived"]
RecordStatus = Literal["queued", "awaiting_experiences", "distilled", "nothing_to_learn"]

# No vowels, no look-alikes (0/o, 1/l/i, 2/z, 5/s): an id can be read aloud and never spells a word.
ID_ALPHABET = "bcdfghjkmnpqrtvwxy346789"
ID_LENGTH = 10
MAX_TASK_CHARS = 8_000
MAX_WHEN_TO_USE_CHARS = 500
MAX_CONTENT_CHARS = 2_000
MAX_KEYWORDS = 12
MAX_TOOLS = 32
MAX_LABEL_CHARS = 80
WORKSPACE_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def new_id(prefix: Literal["e", "t", "r", "l"]) -> str:
    """Return a random id: `e-…` experience, `t-…` trajectory, `r-…` receipt, `l-…` entry of the log."""
    return f"{prefix}-" + "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


def now() -> datetime:
    """Return the current time, UTC, as every timestamp in this package is."""
    return datetime.now(UTC)


def clean_text(text: str) -> str:
    """Return `text` in NFC without what no store and no model can use; cleaning twice changes nothing more.

    Lone surrogates become U+FFFD, line ends become newlines, and control characters other than tab and newline are
    dropped: a terminal dump may hold all of them and is worth keeping all the same.
    """
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROL_CHARACTERS)
    return unicodedata.normalize("NFC", text).strip()


_CONTROL_CHARACTERS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}


@dataclass(frozen=True, slots=True)
class Experience:
    """One lesson of the pool, with what makes it findable and accountable.

    Attributes:
        id: Random, stable for life (`e-` and ten characters).
        workspace: The only workspace that sees it.
        when_to_use: ω, the usage scenario.
        content: e, the lesson.
        keywords: κ.
        confidence: c, 0 to 1, from whoever distilled it.
        tools_used: τ, tool names.
        kind: Whether it came from a success, a failure, or a comparison of both.
        task: The task that it was learned from, as the user said it.
        generalized_task: The same without names and numbers; empty where nobody wrote one.
        frequency: f, recalls whose outcome is known.
        utility: u, those of them that helped; 0 to `frequency`.
        prior_frequency: The part of `frequency` that this pool's receipts don't account for (imported).
        prior_utility: The same for `utility`.
        source: Who handed it in (client name, file, `cli`); set by the server, never by the record.
        author: Who wrote the text: `assistant`, a model's name, or a person.
        trajectory_ids: The trajectories that it was learned from, oldest first.
        counted_since: Receipts from before don't count any more (it was restored); mostly `created_at`.
        status: `active` is recalled; `provisional` for its own task only; `quarantined` and `archived` never.
        status_reason: Why, in a sentence; of an `active` one, what a person has let pass, mostly nothing.
        pinned: A person said keep: never pruned.
        origins: Ids that it, or what was merged into it, had where it was imported from.
    """

    id: str
    workspace: str
    when_to_use: str
    content: str
    keywords: tuple[str, ...]
    confidence: float
    tools_used: tuple[str, ...]
    kind: Kind
    task: str
    generalized_task: str
    frequency: int
    utility: int
    prior_frequency: int
    prior_utility: int
    source: str
    author: str
    trajectory_ids: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    counted_since: datetime
    status: Status
    status_reason: str
    pinned: bool
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """An experience without its texts: enough to count, filter and sort a whole pool; as in `Experience`."""

    id: str
    kind: Kind
    status: Status
    source: str
    frequency: int
    utility: int
    pinned: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Trajectory:
    """What an agent did on a task, and what became of it here.

    Attributes:
        task_key: `task` folded for comparison; attempts with one key are attempts at one task.
        digest: Of the call that recorded it; the same call gets the same answer again.
        drafts_digest: Of the experiences that came last; the same ones get the same answer again.
        reward: 0 to 1; 1 is success.
        transcript: The steps as JSON text, see `transcript.py`; empty when only task and outcome were sent.
        drafts: JSON list of the experiences that are not yet stored, with the ids that they will get.
        rejected: JSON list of the drafts that the gate refused, each with its reason.
        answer: JSON of the `RecordResult` that was given; empty while `status` is `pending`.
        status: `pending` is not yet worked off; `queued` waits for the model behind the server, `awaiting_experiences`
            for the assistant, to distil it; `distilled` is done; `nothing_to_learn` was said to hold no lesson.
        tries: How often the model failed on it.
        retry_at: Not before; `None` is at once, or, where it failed too often, when a person asks for it.
        trouble: Why it failed the last time.
    """

    id: str
    workspace: str
    task: str
    task_key: str
    outcome: Outcome
    reward: float
    transcript: str
    digest: str
    drafts_digest: str
    receipt: str
    source: str
    created_at: datetime
    updated_at: datetime
    status: RecordStatus | Literal["pending"]
    drafts: str
    rejected: str
    answer: str
    tries: int = 0
    retry_at: datetime | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One experience that one recall handed out, and how that was settled.

    Attributes:
        receipt: The receipt's id; a recall writes one line per experience, or one with no experience at all.
        experience_id: Empty where the recall found nothing.
        rank: 1 is the first; 0 on an empty receipt.
        helped: `None` until the outcome is known.
        settled_by: `trajectory` or `rating`; empty until settled. A rating outweighs a trajectory.
        reason: What the rater said; empty where nothing.
    """

    receipt: str
    experience_id: str
    workspace: str
    task: str
    rank: int
    source: str
    created_at: datetime
    helped: bool | None
    settled_by: Literal["", "trajectory", "rating"]
    settled_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class Handout:
    """A line of a receipt without task and names: enough to draw what recalls came to; as in `ReceiptLine`."""

    receipt: str
    experience_id: str
    created_at: datetime
    helped: bool | None
    settled_by: Literal["", "trajectory", "rating"]


@dataclass(frozen=True, slots=True)
class Rater:
    """In how many recalls of `who` the outcome of an experience is known, and how many of those helped."""

    who: str
    frequency: int
    utility: int


@dataclass(frozen=True, slots=True)
class Tally:
    """What the receipts say of one experience.

    Attributes:
        voices: The sources with a known outcome.
        recalled: All recalls since `counted_since`, known outcome or not.
        frequency: Those with a known outcome.
        utility: Those that helped.
        last_recalled_at: `None` where it never was.
    """

    recalled: int = 0
    frequency: int = 0
    utility: int = 0
    last_recalled_at: datetime | None = None
    voices: tuple[Rater, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one trajectory ended, without what was done in it."""

    id: str
    outcome: Outcome
    created_at: datetime


def task_key(task: str) -> str:
    """Return `task` folded for comparison: two texts with one key are the same task."""
    return " ".join(unicodedata.normalize("NFKC", task).casefold().split())


# --- edges: what enters ---


def _at_least(length: int) -> AfterValidator:
    """Refuse a text that says too little. Its bytes are counted: a Chinese character says as much as three letters."""

    def check(text: str) -> str:
        if len(text.encode()) < length:
            raise PydanticCustomError("string_too_short", f"String should have at least {length} characters")
        return text

    return AfterValidator(check)


Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS)]


class ExperienceDraft(BaseModel):
    """An experience as an assistant or a model wrote it, not yet validated against the pool."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    when_to_use: Annotated[str, Field(max_length=MAX_WHEN_TO_USE_CHARS), _at_least(8)]
    content: Annotated[str, Field(max_length=MAX_CONTENT_CHARS), _at_least(12)]
    keywords: Annotated[list[Label], Field(max_length=MAX_KEYWORDS)] = []
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    tools_used: Annotated[list[Label], Field(max_length=MAX_TOOLS)] = []
    kind: Kind | None = None
    generalized_task: Annotated[str, Field(max_length=MAX_WHEN_TO_USE_CHARS)] = ""


# --- edges: what leaves ---


class RecalledExperience(BaseModel):
    """One recalled experience with every number that its place in the ranking came from."""

    id: str
    when_to_use: str
    content: str
    kind: Kind
    ranking: float
    relevance: float
    text_relevance: float
    vector_relevance: float | None
    neighbour_relevance: float
    reread_relevance: float | None
    similarity: float | None
    confidence: float
    frequency: int
    utility: int
    age_days: int
    tools_used: list[str]
    missing_tools: list[str]
    source: str


class RecallResult(BaseModel):
    """The answer of `recall_experiences`; `receipt` is empty where it can't be written, and `note` says why."""

    guidance: str
    experiences: list[RecalledExperience]
    receipt: str
    search: list[SearchMode]
    note: str


class RankingNumbers(BaseModel):
    """What the place of an experience in a ranking came from; `recall.Ranked` tells what each is."""

    ranking: float
    relevance: float
    text_relevance: float
    vector_relevance: float | None
    neighbour_relevance: float
    reread_relevance: float | None
    similarity: float | None
    confidence: float
    frequency: int
    utility: int
    age_days: int
    missing_tools: list[str]


class ExplainedExperience(BaseModel):
    """One experience that a recall found, and what became of it.

    Attributes:
        rank: 1 is the first of the ranking; those that were handed out come first.
        rule: What decided: `handed_out`, or what held it back.
        why: The same in a sentence.
    """

    id: str
    rank: int
    rule: Rule
    why: str
    when_to_use: str
    content: str
    kind: Kind
    status: Status
    source: str
    tools_used: list[str]
    numbers: RankingNumbers


class ExplainResult(BaseModel):
    """The answer of `Memory.explain`.

    Attributes:
        guidance: What the assistant would read.
        tokens: What that costs it.
        experiences: All that the search found and looked at, those handed out first.
        search: Which searches answered.
        note: What the user should know about the models; empty where nothing.
    """

    guidance: str
    tokens: int
    experiences: list[ExplainedExperience]
    search: list[SearchMode]
    note: str


class Rejected(BaseModel):
    """A draft that was not stored, and why; `content` is there where a model wrote or judged it."""

    when_to_use: str
    reason: str
    content: str = ""


class Merged(BaseModel):
    """A draft that the pool already held: its trajectory was added to the older experience.

    Attributes:
        id: Of the older one; so are scenario and status.
        how: In what they were seen to say the same.
    """

    id: str
    when_to_use: str
    status: Status
    # Answers from before this was told stand in trajectories.
    how: str = ""


class Quarantined(BaseModel):
    """A draft that was stored, but is not recalled before a person has said so; why."""

    id: str
    when_to_use: str
    reason: str


class Settled(BaseModel):
    """An experience whose counters were brought up to date."""

    id: str
    helped: bool
    frequency: int
    utility: int


class RecordResult(BaseModel):
    """The answer of `record_trajectory`."""

    trajectory_id: str
    status: RecordStatus
    added: list[str]
    merged: list[Merged]
    rejected: list[Rejected]
    settled: list[Settled]
    pruned: list[str]
    lessons: list[str]
    brief: str
    # With a default: answers of before there was a quarantine are kept with their trajectories.
    quarantined: list[Quarantined] = []


class RateResult(BaseModel):
    """The answer of `rate_experience`."""

    experience_id: str
    helpful: bool
    receipt: str
    frequency: int
    utility: int
    status: Status
    status_reason: str


Deed = Literal[
    "added", "merged", "quarantined", "activated", "pruned", "rated", "archived", "restored", "approved", "rejected",
    "pinned", "unpinned", "edited", "deleted", "erased", "imported", "backup made", "backup restored", "recorded",
    "token created", "token revoked",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One change.

    Attributes:
        id: Random, or made of what it is about where the same change may be written again.
        workspace: Whose pool; empty for what concerns all of the home.
        source: Who did it: a client, the holder of a token, `cli`, a file, `refine`.
        did: What.
        about: The id of the experience or trajectory, the name of a file or token; empty where none.
        reason: In a few words, on one line.
        created_at: When.
    """

    id: str
    workspace: str
    source: str
    did: Deed
    about: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Recorded:
    """What of a trajectory the log follows from; as in `Trajectory`."""

    id: str
    workspace: str
    source: str
    outcome: Outcome
    answer: str
    created_at: datetime
    updated_at: datetime


Purpose = Literal["distill", "judge", "rerank", "rewrite"]


@dataclass(frozen=True, slots=True)
class Spent:
    """What one question cost, whether or not it got an answer.

    Attributes:
        purpose: What was asked for.
        model: That was asked.
        at: When it ended, UTC.
        attempts: Requests that were sent, at least 1.
        tokens_in: Read by the model, over all requests.
        tokens_out: Written by it.
        estimated: Some of the tokens are our own estimate, as the server did not say.
        seconds: That the requests took, without waiting for a turn.
        ok: Whether it got an answer that could be used.
    """

    purpose: Purpose
    model: str
    at: datetime
    attempts: int
    tokens_in: int
    tokens_out: int
    estimated: bool
    seconds: float
    ok: bool
