"""From a trajectory to judged drafts, with a model behind the server.

In:  a trajectory and other attempts at its task; a model; who knows the nearest experiences of the pool.
Out: drafts that the judge accepted, and the others with the reason. Or the model's error: then nothing was decided, and
     the trajectory has to be asked about again.
Does not know: the store, the queue, or when it is called.

Source: ReMe (arXiv 2512.10696, §3.1): multi-faceted distillation, validation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from reme_mcp.aio import off_loop_if_long
from reme_mcp.distill import output_schemas, prompts
from reme_mcp.distill.drafts import NamedDraft, to_compare
from reme_mcp.distill.output_schemas import Differences, Mistakes, Patterns, Verdict
from reme_mcp.distill.sieve import Distilled, rejected_for, sift
from reme_mcp.errors import ConfigError
from reme_mcp.models.question import Model, Question, Room
from reme_mcp.recall import rerank
from reme_mcp.recall.notes import MARK, without_guidance
from reme_mcp.results import Rejected
from reme_mcp.safety import quarantine
from reme_mcp.schema import Experience, ExperienceDraft, Trajectory
from reme_mcp.text.tokens import shorten, tokens
from reme_mcp.transcripts.excerpt import fit
from reme_mcp.transcripts.transcript import Transcript, from_json, to_text

T = TypeVar("T", bound=BaseModel)
# Finds the experiences of the pool that are nearest to a draft.
Neighbours = Callable[[ExperienceDraft], Awaitable[Sequence[Experience]]]

MAX_KNOWN = 3
KNOWN_TOKENS = 150
# In less than this, an attempt can't be told.
MIN_RECORD_TOKENS = 100


async def distil(
    model: Model,
    trajectory: Trajectory,
    attempts: Sequence[Trajectory],
    neighbours: Neighbours,
    *,
    recalled: Iterable[str] = (),
) -> Distilled:
    """Learn from a trajectory, and judge what was learned. What tells nothing of the agent's steps teaches nothing.

    Args:
        model: Writes and judges.
        trajectory: With its outcome.
        attempts: Others at the same task.
        neighbours: For the judge, who asks what is new about a draft.
        settings: What a draft has to reach.
        recalled: Scenarios and lessons that the attempts' receipts handed out.

    Raises:
        EndpointError: The model did not answer, or not usably. Nothing was decided.
        ConfigError: The model's context is too small to tell an attempt.
    """
    recalled = tuple(recalled)
    record = _learnable(trajectory, recalled)
    if _is_mute(record):
        return Distilled()
    task = trajectory.task
    form: Patterns | Mistakes | Differences
    if trajectory.outcome == "success":
        form = await _answer(model, lambda records: prompts.success(task, records[0]), [record])
    else:
        form = await _answer(model, lambda records: prompts.failure(task, records[0]), [record])
    raw = output_schemas.to_drafts(form, trajectory.outcome, record.tools_used)
    sources = [[record]] * len(raw)
    gather = [_learnable(attempt, recalled) for attempt in to_compare(trajectory, attempts) or ()]
    if gather and not any(map(_is_mute, gather)):
        form = await _answer(model, lambda records: prompts.comparative(task, records[0], records[1]), gather)
        more = output_schemas.to_drafts(form, "comparative", (*gather[0].tools_used, *gather[1].tools_used))
        raw += more
        sources += [gather] * len(more)
    chars = sum(len(step.text) for records in sources for one in records for step in one.steps)
    sieved = await off_loop_if_long(lambda: sift(raw, sources, trajectory.task), chars)
    judged = await judge(model, sieved.drafts, trajectory, attempts, neighbours, recalled=recalled)
    return Distilled(judged.drafts, sieved.rejected + judged.rejected)


async def judge(
    model: Model,
    drafts: Sequence[NamedDraft],
    trajectory: Trajectory,
    attempts: Sequence[Trajectory],
    neighbours: Neighbours,
    *,
    recalled: Iterable[str] = (),
) -> Distilled:
    """Judge drafts, whoever wrote them; arguments and errors are those of `distil`.

    A trajectory without steps bears nothing out; its drafts are judged by the task alone. Of a draft that is suspected
    of anything, the verdict is one more thing for a person to read: it neither clears it nor throws it away.
    """
    recalled = tuple(recalled)
    pair = to_compare(trajectory, attempts)
    accepted: list[NamedDraft] = []
    rejected: list[Rejected] = []
    for named in drafts:
        told = pair if pair is not None and named.draft.kind == "comparative" else (trajectory,)
        known = (await neighbours(named.draft))[:MAX_KNOWN]
        verdict = await _verdict(model, named.draft, trajectory.task, told, known, recalled)
        found = f"the judge found it {output_schemas.summary(verdict)}"
        if named.suspicions or quarantine.suspicions(named.draft, trajectory.source):
            accepted.append(replace(named, suspicions=(*named.suspicions, found)))
        elif output_schemas.is_accepted(verdict):
            accepted.append(named)
        else:
            rejected.append(rejected_for(named.draft, found))
    return Distilled(tuple(accepted), tuple(rejected))


async def _verdict(
    model: Model,
    draft: ExperienceDraft,
    task: str,
    told: Sequence[Trajectory],
    known: Sequence[Experience],
    recalled: Sequence[str],
) -> Verdict:
    """Ask for the verdict on one draft, with the attempts that it tells of."""
    attempts = [attempt for attempt in told if attempt.transcript]
    headings = [f"Record of an attempt that ended in {attempt.outcome}" for attempt in attempts]
    notes = [shorten(rerank.note(one.when_to_use, one.content), KNOWN_TOKENS) for one in known]
    return await _answer(
        model,
        lambda records: prompts.judge(draft, task, list(zip(headings, records, strict=True)), notes),
        [_learnable(attempt, recalled) for attempt in attempts],
    )


async def _answer(model: Model, ask: Callable[[Sequence[str]], Question[T]], records: Sequence[Transcript]) -> T:
    """Ask with as much of each record as the model has room for."""
    question = _within(ask, records, model.room)
    return await model.llm.answer(question.purpose, question.system, question.user, question.shape)


def _within(ask: Callable[[Sequence[str]], Question[T]], records: Sequence[Transcript], room: Room) -> Question[T]:
    """Return the question with its records shortened to the room that there is for them."""
    sizes = [tokens(to_text(record)) for record in records]
    question = ask([""] * len(records))
    allowed = room(question.shape)
    left = allowed - question.cost
    while left >= min(sum(sizes), MIN_RECORD_TOKENS * len(records)):
        # Half for each of two, and what one of them doesn't need is the other's.
        shares = [max(left // len(records), left - sum(sizes) + size) for size in sizes]
        question = ask([fit(record, share) for record, share in zip(records, shares, strict=True)])
        over = question.cost - allowed
        if over <= 0:
            return question
        left -= over  # of the lines, each of which is indented
    raise ConfigError(
        f"llm.context_tokens leaves {max(0, left)} tokens for what happened; at least "
        f"{MIN_RECORD_TOKENS * len(records)} are needed: raise it, or lower llm.max_tokens"
    )


def _learnable(trajectory: Trajectory, recalled: Iterable[str]) -> Transcript:
    """Return what may be learned from: the steps, without what this server said in them."""
    if not trajectory.transcript:
        return Transcript(steps=(), messages=0, marks=())
    return without_guidance(from_json(trajectory.transcript), recalled)


def _is_mute(record: Transcript) -> bool:
    """Say whether a record doesn't tell what the agent did."""
    return all(step.role in ("system", "user") or step.text == MARK for step in record.steps)
