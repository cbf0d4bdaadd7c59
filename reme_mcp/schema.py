"""The values that travel through the package.

In:  nothing; this module knows no storage, no protocol and no model.
Out: frozen dataclasses (`Experience`, `Trajectory`, `ReceiptLine`), and a pydantic model of what comes from outside
     (`ExperienceDraft`). What goes out is in `results.py`.

Source: the experience is ⟨ω, e, κ, c, τ⟩ of ReMe (arXiv 2512.10696, §3.1); counters f and u are those of its §3.3.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import secrets
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

Kind = Literal["success", "failure", "comparative"]
Outcome = Literal["success", "failure"]
SearchMode = Literal["text", "vector"]
# What decided about an experience that a recall found: it was handed out, or held back by one of the others.
Rule = Literal["handed_out", "floor", "exposure", "limit", "token_budget", "withheld", "harmful_here"]
Status = Literal["active", "provisional", "quarantined", "archived"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
STATUSES: tuple[Status, ...] = get_args(Status)
# What a recall may hand out; provisional lessons for their own task only.
RECALLABLE: tuple[Status, ...] = ("active", "provisional")
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


def one_line(text: str, max_chars: int) -> str:
    """Return the beginning of a text on one line, with an ellipsis where something was cut off."""
    line = " ".join(text.split())
    return line if len(line) <= max_chars else f"{line[: max_chars - 1]}…"


_CONTROL_CHARACTERS = {code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}


@dataclass(frozen=True, slots=True)
class Text:
    """A field holds what others wrote: it is redacted, screened, and withheld with the experience.

    Attributes:
        max_chars: Of the text, or of each where the field holds several.
        one_line: It is a name or an id; line ends become spaces.
        by_user: It is the user's own words, and may ask for what a lesson may not order. It holds a lesson back only
            where a file says it.
        stays: A reader sees it of a withheld experience, too, and learns who brought it and why it is held back.
    """

    max_chars: int
    one_line: bool = False
    by_user: bool = False
    stays: bool = False


@dataclass(frozen=True, slots=True)
class Name:
    """A field holds ids or words that this server made or checked."""


@dataclass(frozen=True, slots=True)
class Number:
    """A field holds a number, a time or a flag.

    Attributes:
        in_files: Whether it means anything outside of its own pool.
    """

    in_files: bool = True


ExperienceId = Annotated[str, Field(pattern=rf"^e-[{ID_ALPHABET}]{{{ID_LENGTH}}}$")]
# Of another experience, where there is one.
OtherExperienceId = Annotated[str, Field(pattern=rf"^(e-[{ID_ALPHABET}]{{{ID_LENGTH}}})?$")]
TrajectoryId = Annotated[str, Field(pattern=rf"^t-[{ID_ALPHABET}]{{{ID_LENGTH}}}$")]


@dataclass(frozen=True, slots=True)
class Experience:
    """One lesson of the pool, with what makes it findable and accountable.

    Each field says what it holds: `Text`, `Name` or `Number`. What is redacted, screened, withheld, imported, exported
    and stored follows from that.

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
        utility: u, those of them that succeeded with it; 0 to `frequency`.
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
        rated_helpful: Raters whose last word on it was that it helped.
        rated_unhelpful: Raters whose last word on it was that it did not.
        objection: What the latest of those said; empty where nothing.
        supersedes: The id of the older wording that this one took the place of; empty where none.
        superseded_by: The id of the newer wording that took its place.
    """

    id: Annotated[ExperienceId, Name()]
    workspace: Annotated[str, Name()]
    when_to_use: Annotated[str, Text(MAX_WHEN_TO_USE_CHARS)]
    content: Annotated[str, Text(MAX_CONTENT_CHARS)]
    keywords: Annotated[tuple[str, ...], Text(MAX_LABEL_CHARS, one_line=True)]
    confidence: Annotated[float, Number()]
    tools_used: Annotated[tuple[str, ...], Text(MAX_LABEL_CHARS, one_line=True)]
    kind: Annotated[Kind, Name()]
    task: Annotated[str, Text(MAX_TASK_CHARS, by_user=True), Field(max_length=MAX_TASK_CHARS)]
    generalized_task: Annotated[str, Text(MAX_WHEN_TO_USE_CHARS)]
    frequency: Annotated[int, Number(), Field(ge=0)]
    utility: Annotated[int, Number(), Field(ge=0)]
    prior_frequency: Annotated[int, Number(in_files=False)]
    prior_utility: Annotated[int, Number(in_files=False)]
    source: Annotated[str, Text(MAX_LABEL_CHARS, one_line=True, stays=True)]
    author: Annotated[str, Text(MAX_LABEL_CHARS, one_line=True)]
    trajectory_ids: Annotated[tuple[TrajectoryId, ...], Name()]
    created_at: Annotated[datetime, Number()]
    updated_at: Annotated[datetime, Number()]
    counted_since: Annotated[datetime, Number(in_files=False)]
    status: Annotated[Status, Name()]
    status_reason: Annotated[str, Text(MAX_TASK_CHARS, stays=True), Field(max_length=MAX_TASK_CHARS)]
    pinned: Annotated[bool, Number()]
    origins: Annotated[tuple[str, ...], Text(MAX_LABEL_CHARS, one_line=True)] = ()
    rated_helpful: Annotated[int, Number(in_files=False)] = 0
    rated_unhelpful: Annotated[int, Number(in_files=False)] = 0
    objection: Annotated[str, Text(MAX_TASK_CHARS), Field(max_length=MAX_TASK_CHARS)] = ""
    supersedes: Annotated[OtherExperienceId, Name()] = ""
    superseded_by: Annotated[OtherExperienceId, Name()] = ""


@functools.cache
def fields_of(kind: type[Any]) -> Mapping[str, Text | Name | Number]:
    """Return what each field of a dataclass, such as `Experience`, says that it holds; in their order.

    Raises:
        TypeError: A field does not say it.
    """
    declared = get_type_hints(kind, include_extras=True)
    fields: dict[str, Text | Name | Number] = {}
    for field in dataclasses.fields(kind):
        holds = [one for one in get_args(declared[field.name]) if isinstance(one, Text | Name | Number)]
        if len(holds) != 1:
            raise TypeError(f"{kind.__name__}.{field.name} must be annotated with one of Text, Name, Number")
        fields[field.name] = holds[0]
    return MappingProxyType(fields)


def text_fields(value: Experience | ExperienceDraft) -> Iterator[tuple[str, Text, tuple[str, ...]]]:
    """Yield what others wrote in an experience or a draft of one: name of the field, what it holds, its texts."""
    of_draft = isinstance(value, ExperienceDraft)
    for name, holds in fields_of(Experience).items():
        if isinstance(holds, Text) and not (of_draft and name not in ExperienceDraft.model_fields):
            held = getattr(value, name)
            yield name, holds, (held,) if isinstance(held, str) else tuple(held)


def with_texts(experience: Experience, change: Callable[[str, Text], str]) -> Experience:
    """Return the experience with `change` made to every text that others wrote; what becomes empty leaves a list."""
    changed: dict[str, str | tuple[str, ...]] = {}
    for name, holds, texts in text_fields(experience):
        new = tuple(change(text, holds) for text in texts)
        changed[name] = new[0] if isinstance(getattr(experience, name), str) else tuple(filter(None, new))
    # mypy can't see that a changed field keeps its type.
    return dataclasses.replace(experience, **changed)  # type: ignore[arg-type]


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
    counted_since: datetime
    prior_frequency: int = 0
    prior_utility: int = 0


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
        tries: How often the model failed on it; while it waits for its lessons, how many sessions were asked for them.
        retry_at: Not before; `None` is at once, or, where it failed too often, when a person asks for it.
        trouble: Why it failed the last time.
        verdicts: JSON of what was said of the notes of its receipt, see `Verdicts`; empty where nothing.
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
    verdicts: str = ""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What whoever recorded an attempt said of the notes that its recall handed out, by id.

    Attributes:
        used: Those that were acted on, and nothing else was; `None` where it was not said.
        misled: Those that led astray.
    """

    used: frozenset[str] | None = None
    misled: frozenset[str] = frozenset()

    def to_json(self) -> str:
        """Return them as text; empty where nothing was said."""
        if self.used is None and not self.misled:
            return ""
        return json.dumps({"used": None if self.used is None else sorted(self.used), "misled": sorted(self.misled)})

    @classmethod
    def from_json(cls, text: str) -> Verdicts:
        """Return what `to_json` wrote."""
        if not text:
            return cls()
        said = json.loads(text)
        return cls(None if said["used"] is None else frozenset(said["used"]), frozenset(said["misled"]))


# Who settled a line: the outcome of an attempt at which it stood by, or one of which it was said that the note was
# used, or misled; a person or a model who rated it.
SettledBy = Literal["", "trajectory", "used", "misled", "rating"]
# What was said of one note and not of all that were there.
EXPLICIT: frozenset[SettledBy] = frozenset({"misled", "rating"})


Arm = Literal["", "shown", "withheld"]


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    """One experience that one recall handed out, and how that was settled.

    Attributes:
        receipt: The receipt's id; a recall writes one line per experience, or one with no experience at all.
        experience_id: Empty where the recall found nothing.
        rank: 1 is the first; 0 on an empty receipt.
        helped: Whether the attempt succeeded with it, or its rater found that it helped; `None` until that is known.
        settled_by: Empty until settled. A verdict outweighs an outcome, and a rating both.
        reason: What the rater said; empty where nothing.
        numbers: What its rank came from, JSON of `RankingNumbers`; empty on receipts from before these were kept.
        arm: What the hold-out drew for it: `withheld`, or `shown` where nothing was; empty where it says nothing.
        chance: That this arm had, 0 to 1.
        task_vector: What the embedder made of the task (`store/tried.py`), on the first line; empty where it made none.
    """

    receipt: str
    experience_id: str
    workspace: str
    task: str
    rank: int
    source: str
    created_at: datetime
    helped: bool | None
    settled_by: SettledBy
    settled_at: datetime | None
    reason: str
    numbers: str = ""
    arm: Arm = ""
    chance: float = 0.0
    task_vector: str = ""

    @property
    def is_handed_out(self) -> bool:
        """Whether a reader got to see an experience by it."""
        return bool(self.experience_id) and self.arm != "withheld"


@dataclass(frozen=True, slots=True)
class Handout:
    """A line of a receipt without its task: enough to tell what recalls came to, and for whom; as in `ReceiptLine`."""

    receipt: str
    experience_id: str
    source: str
    created_at: datetime
    helped: bool | None
    arm: Arm
    chance: float


@dataclass(frozen=True, slots=True)
class Noted:
    """A line of a receipt as far as it tells what a task had, and which tasks are like it; as in `ReceiptLine`."""

    receipt: str
    experience_id: str
    task: str
    created_at: datetime
    settled_by: SettledBy
    arm: Arm
    chance: float
    task_vector: str


@dataclass(frozen=True, slots=True)
class Ended:
    """How the attempt that a receipt was handed to ended; as in `Trajectory`."""

    receipt: str
    outcome: Outcome
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Rater:
    """In how many recalls of `who` the outcome of an experience is known, and how many of those succeeded with it."""

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
        utility: Those that succeeded with it.
        last_recalled_at: `None` where it never was.
        rated_helpful: Raters whose last word on it was that it helped.
        rated_unhelpful: Raters whose last word on it was that it did not.
        objection: What the latest of those said.
    """

    recalled: int = 0
    frequency: int = 0
    utility: int = 0
    last_recalled_at: datetime | None = None
    voices: tuple[Rater, ...] = ()
    rated_helpful: int = 0
    rated_unhelpful: int = 0
    objection: str = ""


@dataclass(frozen=True, slots=True)
class Counters:
    """What becomes of an experience by its use, without the lesson itself; the fields are those of `Experience`."""

    id: str
    frequency: int
    utility: int
    rated_helpful: int
    rated_unhelpful: int
    objection: str
    updated_at: datetime

    @classmethod
    def of(cls, experience: Experience) -> Counters:
        """Return the counters of an experience."""
        return cls(*(getattr(experience, name) for name in _COUNTED))

    def on(self, experience: Experience) -> Experience:
        """Return the experience with these counters; whichever of the two was changed last says when."""
        counted = {name: getattr(self, name) for name in _COUNTED}
        return dataclasses.replace(experience, **counted | {"updated_at": max(self.updated_at, experience.updated_at)})


_COUNTED = tuple(field.name for field in dataclasses.fields(Counters))


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


def is_left_out(value: object) -> bool:
    """Return whether an optional value says nothing: strict modes of clients have a model write one all the same."""
    if isinstance(value, str):
        return value.strip(" \t\r\n<>").lower() in ("", "null", "none", "nil", "undefined")
    return value is None


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


Deed = Literal[
    "added", "merged", "superseded", "quarantined", "activated", "pruned", "rated", "archived", "restored", "approved",
    "rejected", "pinned", "unpinned", "edited", "deleted", "erased", "imported", "backup made", "backup restored",
    "recorded",
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
