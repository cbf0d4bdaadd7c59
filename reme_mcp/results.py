"""What the tools and `Memory` answer: pydantic models, from which the output schemas follow.

In:  values of `schema.py`.
Out: `RecallResult`, `ExplainResult`, `RecordResult`, `RateResult`, and what they are made of.
Does not know: how any of it is found, stored or shown.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from reme_mcp.schema import Kind, RecordStatus, Rule, SearchMode, SettledBy, Status


class RankingNumbers(BaseModel):
    """What the place of an experience in a ranking came from; `recall.Ranked` tells what each is."""

    ranking: float
    relevance: float
    text_relevance: float
    vector_relevance: float | None
    neighbour_relevance: float
    similarity: float | None
    confidence: float
    frequency: int
    utility: int
    track_record: float
    age_days: int
    missing_tools: list[str]


class RecalledExperience(BaseModel):
    """One recalled experience with its track record.

    Attributes:
        numbers: What its place in the ranking came from. Stays on the receipt: a model has no use for them.
    """

    id: str
    when_to_use: str
    content: str
    kind: Kind
    frequency: int
    utility: int
    relevance: float
    numbers: Annotated[RankingNumbers, Field(exclude=True)]


class RecallResult(BaseModel):
    """The answer of `recall_experiences`; `receipt` is empty where it can't be written, and `note` says why.

    `guidance` is the text of the answer, and not repeated beside it.
    """

    guidance: Annotated[str, Field(exclude=True)]
    experiences: list[RecalledExperience]
    receipt: str
    search: list[SearchMode]
    note: str


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


class Superseded(BaseModel):
    """An experience that a newer wording took the place of.

    Attributes:
        id: Of the older one, which is archived.
        by: Of the newer one.
        how: In what they differ.
    """

    id: str
    by: str
    how: str


class Quarantined(BaseModel):
    """A draft that was stored, but is not recalled before a person has said so; why."""

    id: str
    when_to_use: str
    reason: str


class Settled(BaseModel):
    """An experience whose counters were brought up to date, by the outcome or by a verdict that came with it."""

    id: str
    helped: bool
    frequency: int
    utility: int
    # Answers from before there were verdicts stand in trajectories.
    by: SettledBy = "trajectory"


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
    superseded: list[Superseded] = []
    # What was not taken as it was sent.
    notes: list[str] = []


class RateResult(BaseModel):
    """The answer of `rate_experience`."""

    experience_id: str
    helpful: bool
    receipt: str
    frequency: int
    utility: int
    status: Status
    status_reason: str
