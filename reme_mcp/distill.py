"""The gate between what somebody wrote and what the pool takes: form, identity, duplicates.

In:  drafts as they arrived, the trajectory that they belong to, experiences that may be their twins.
Out: experiences ready to store, or a reason for each draft that is not. Pure functions; no table, no model.

Source: ReMe (arXiv 2512.10696, §3.1): distillation, validation, deduplication.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from reme_mcp import quarantine
from reme_mcp.budget import shorten
from reme_mcp.config import DedupSettings
from reme_mcp.schema import (
    Experience,
    ExperienceDraft,
    Rejected,
    Trajectory,
    clean_text,
    new_id,
    task_key,
)
from reme_mcp.transcript import Transcript, from_json
from reme_mcp.words import mostly_latin, stems

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_NEGATION = re.compile(
    r"\b(?:not|no|never|none|cannot|without|avoid)\b|n't\b|[不没沒别勿無无]|ない|않|말", re.IGNORECASE
)
# What has an underscore, a dot or a capital inside is the name of something: get_stock_info, startEngine, config.toml.
_NAME = re.compile(r"\b\w+(?:[_.]\w+|(?<=[a-z])[A-Z]\w*)+")
# How much of a text may be made of runs of words that stand in the instructions.
MAX_REPEATED_SHARE = 0.3
REPEATED_WORDS = 5
MIN_TELLING_WORDS = 2
_EMPTY_TALK = """
    accurate accurately achieve agent aim always appropriate appropriately approach attention attentive avoid best
    better careful carefully check complete completely confirm consider correct correctly detail detailed double
    effective efficient ensure error everything expected experience failure follow goal good help helpful important
    information instruct instruction issue keep know lesson make mistake necessary outcome pay plan possible problem
    proceed process proper properly provide record relevant require requirement result right situation specific step
    success successful successfully task thing thorough thoroughly tool understand use user verify way well work
"""
EARLIER_TOKENS = 60
# Of two texts that differ in more words than these on either side, one is the other told anew.
MAX_EXCHANGED_WORDS = 3
SHOWN_CHARS = 80


@dataclass(frozen=True, slots=True)
class NamedDraft:
    """A draft with the id that its experience will have, so that storing it twice stores it once.

    Attributes:
        author: `assistant`, or the name of the model that wrote it.
        judged: Whether a judge has seen it.
        suspicions: What its record, or the judge, says against it, besides what its own text does.
    """

    id: str
    draft: ExperienceDraft
    author: str = "assistant"
    judged: bool = False
    suspicions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Twin:
    """The experience that already says what a draft says, and how that was seen."""

    experience: Experience
    how: str


def read_drafts(raw: Sequence[object], *, max_drafts: int) -> tuple[list[NamedDraft], list[Rejected]]:
    """Return the drafts whose form is right, and the others with what is wrong with them."""
    drafts: list[NamedDraft] = []
    rejected: list[Rejected] = []
    for position, item in enumerate(raw):
        cleaned = _clean(item)
        shown = _shown(cleaned, position)
        if position >= max_drafts:
            rejected.append(
                Rejected(when_to_use=shown, reason=f"only {max_drafts} experiences per trajectory are taken")
            )
            continue
        try:
            draft = ExperienceDraft.model_validate(cleaned)
        except ValidationError as exc:
            rejected.append(Rejected(when_to_use=shown, reason=_reasons(exc)))
            continue
        if task_key(draft.when_to_use) == task_key(draft.content):
            rejected.append(
                Rejected(when_to_use=shown, reason="content repeats when_to_use instead of saying what to do")
            )
            continue
        drafts.append(NamedDraft(new_id("e"), draft))
    return drafts, rejected


def to_json(drafts: Sequence[NamedDraft]) -> str:
    """Return the drafts as JSON text, to be kept with their trajectory until they are stored."""
    rows = [
        {
            "id": one.id,
            "draft": one.draft.model_dump(),
            "author": one.author,
            "judged": one.judged,
            "suspicions": one.suspicions,
        }
        for one in drafts
    ]
    return json.dumps(rows, ensure_ascii=False)


def from_stored(text: str) -> list[NamedDraft]:
    """Return what `to_json` wrote."""
    return [
        NamedDraft(
            id=row["id"],
            draft=ExperienceDraft.model_validate(row["draft"]),
            author=row["author"],
            judged=row["judged"],
            # What was queued before there was a quarantine has none.
            suspicions=tuple(row["suspicions"]) if "suspicions" in row else (),
        )
        for row in json.loads(text)
    ]


def to_experience(named: NamedDraft, trajectory: Trajectory, *, at: datetime) -> Experience:
    """Return the experience that a draft becomes: quarantined where anything is suspected of it.

    Provenance comes from the trajectory, never from the draft.
    """
    draft = named.draft
    suspicions = dict.fromkeys([*quarantine.suspicions(draft, trajectory.source), *named.suspicions])
    experience = Experience(
        id=named.id,
        workspace=trajectory.workspace,
        when_to_use=draft.when_to_use,
        content=draft.content,
        keywords=tuple(draft.keywords),
        confidence=draft.confidence,
        tools_used=tuple(draft.tools_used) or _tools_of(trajectory, draft),
        kind=draft.kind or trajectory.outcome,
        task=trajectory.task,
        generalized_task=draft.generalized_task,
        frequency=0,
        utility=0,
        prior_frequency=0,
        prior_utility=0,
        source=trajectory.source,
        author=named.author,
        trajectory_ids=(trajectory.id,),
        created_at=at,
        updated_at=at,
        counted_since=at,
        status="active",
        status_reason="",
        pinned=False,
    )
    return quarantine.hold(experience, list(suspicions))


def find_twin(
    candidate: Experience, others: Iterable[Experience], cosines: Mapping[str, float], settings: DedupSettings
) -> Twin | None:
    """Return the closest of `others` that says the same as `candidate`, or `None`.

    The same words are the same lesson. What only reads alike has to be of one kind ("this order worked" and "this order
    was not enough" read alike, too), must not contradict, and not say it of something else.

    Args:
        candidate: Not yet stored.
        others: What a search for it found, or the rest of its batch.
        cosines: Similarity of the lessons by id, for those that have vectors.
        settings: Thresholds; reaching one is enough.
    """
    twins: list[tuple[float, Twin]] = []
    for other in others:
        if other.id == candidate.id:
            continue
        if task_key(lesson(candidate)) == task_key(lesson(other)):
            twins.append((1.0, Twin(other, "in the same words")))
            continue
        texts = lesson(candidate), lesson(other)
        if other.kind != candidate.kind or contradicts(*texts) or exchanges_words(*texts):
            continue
        overlap = text_overlap(lesson(candidate), lesson(other))
        cosine = cosines.get(other.id)
        if overlap >= settings.min_text_overlap:
            twins.append((overlap, Twin(other, f"{overlap:.0%} of the wording is the same")))
        elif cosine is not None and cosine >= settings.min_cosine:
            twins.append((cosine, Twin(other, f"cosine {cosine:.2f}")))
    return max(twins, key=lambda pair: pair[0])[1] if twins else None


def is_same_task(first: str, second: str, cosine: float | None, settings: DedupSettings) -> bool:
    """Return whether two tasks are one: in the same words, or nearly the same with nothing turned round.

    Args:
        first: A task.
        second: Another one.
        cosine: Of their vectors; `None` where no model made any.
        settings: Thresholds; reaching one is enough.
    """
    if task_key(first) == task_key(second):
        return True
    if contradicts(first, second):
        return False
    if cosine is not None:
        return cosine >= settings.min_task_cosine
    return text_overlap(first, second) >= settings.min_task_overlap


def contradicts(first: str, second: str) -> bool:
    """Return whether two texts differ in what turns a lesson around: a number, a "not", a name, or the order of words.

    Measured on upstream's pools, such pairs are *more* alike than true paraphrases, by cosine and by wording.
    """
    if set(_NUMBER.findall(first)) != set(_NUMBER.findall(second)):
        return True
    if (_NEGATION.search(first) is None) != (_NEGATION.search(second) is None):
        return True
    names, other_names = set(_NAME.findall(first)), set(_NAME.findall(second))
    if not (names <= other_names or other_names <= names):
        return True
    words, other_words = task_key(first).split(), task_key(second).split()
    return words != other_words and sorted(words) == sorted(other_words)


def exchanges_words(first: str, second: str) -> bool:
    """Return whether one text has a few words where the other has a few others: "restart postfix", "reload nginx".

    Nobody can say without knowing them whether they mean the same. A lesson that is kept twice costs a row, one that is
    taken for another is lost.
    """
    told, other_told = stems(first), stems(second)
    return 0 < len(told - other_told) <= MAX_EXCHANGED_WORDS and 0 < len(other_told - told) <= MAX_EXCHANGED_WORDS


def lesson(experience: Experience | ExperienceDraft) -> str:
    """Return the text that makes two experiences the same: scenario and lesson."""
    return f"{experience.when_to_use}\n{experience.content}"


def text_overlap(first: str, second: str) -> float:
    """Return the share of character trigrams that two texts have in common, 0 to 1 (Jaccard); any language."""
    left, right = _trigrams(first), _trigrams(second)
    return len(left & right) / len(left | right)


def fault(draft: ExperienceDraft, *, instructions: str, task: str, record: Transcript) -> str:
    """Return what makes a model's draft worthless at first sight, as a reason; empty if nothing does.

    A first sieve before the judge: it knows a model that repeats its prompt, answers in another script, copies the
    record, or talks without saying anything. What somebody planted is not worthless, but for a person to see.

    Args:
        draft: As a model wrote it.
        instructions: That it was given.
        task: That was worked on.
        record: Of the attempt, as the model saw it or whole.
    """
    if max(_repeated_share(text, instructions) for text in (draft.when_to_use, draft.content)) >= MAX_REPEATED_SHARE:
        return "repeats the instructions instead of saying what was learned"
    if suspicions_of(draft, record):
        return ""
    if mostly_latin(draft.content) != mostly_latin(task):
        return "is written in another script than the task, and would not be found"
    content = task_key(draft.content)
    done = [step.text for step in record.steps if step.role in ("call", "result")]
    said = [step.text for step in record.steps if step.role == "user"]
    if any(content in task_key(text) for text in (task, *done)) or content in map(task_key, said):
        return "copies the task or a step instead of saying what was learned"
    if len(stems(draft.content) - stems(_EMPTY_TALK)) < MIN_TELLING_WORDS:
        return "says nothing that could be acted on"
    return ""


def suspicions_of(draft: ExperienceDraft, record: Transcript) -> list[str]:
    """Return why a model's draft is for a person to see first; the rules are those of `quarantine.py`.

    Args:
        draft: As a model wrote it.
        record: Of the attempt, which may have dictated it.
    """
    dictated = [quarantine.DICTATED] if quarantine.is_dictated(draft.content, record) else []
    return [*quarantine.suspicions(draft), *dictated]


def to_compare(trajectory: Trajectory, attempts: Sequence[Trajectory]) -> tuple[Trajectory, Trajectory] | None:
    """Return the best and the worst attempt at one task, of several alike the latest; `None` where they don't differ.

    Args:
        trajectory: The attempt that is being distilled. A pair without it was compared when its later half was.
        attempts: Others at the same task; those without a transcript say nothing about what made the difference.
    """
    others = {attempt.id: attempt for attempt in (*attempts, trajectory) if attempt.transcript}
    latest_first = sorted(others.values(), key=lambda attempt: (attempt.created_at, attempt.id), reverse=True)
    if not latest_first:
        return None
    best = max(latest_first, key=lambda attempt: attempt.reward)
    worst = min(latest_first, key=lambda attempt: attempt.reward)
    if best.reward == worst.reward or trajectory.id not in (best.id, worst.id):
        return None
    return best, worst


def earlier_attempts(trajectory: Trajectory, attempts: Sequence[Trajectory]) -> list[str]:
    """Return two lines for each earlier attempt whose reward differs from this one's: ours, and, quoted, what it did.

    Anybody may have recorded it.
    """
    return [
        f"- {attempt.id} ({attempt.outcome}, reward {attempt.reward:g}):\n> {shorten(_gist(attempt), EARLIER_TOKENS)}"
        for attempt in attempts
        if attempt.id != trajectory.id and attempt.reward != trajectory.reward
    ]


def _gist(trajectory: Trajectory) -> str:
    """Return the calls of an attempt in order, or its words where it made none."""
    if not trajectory.transcript:
        return "no steps were recorded"
    steps = from_json(trajectory.transcript).steps
    calls = [f"{step.tool}{step.text}" for step in steps if step.role == "call"]
    gist = ", ".join(calls) if calls else " ".join(step.text for step in steps if step.role == "assistant")
    # On one line: what an attempt said is not to pass for a line of the brief.
    return " ".join(gist.split())


def _repeated_share(text: str, instructions: str) -> float:
    """Return the share of the runs of words in `text` that stand in the instructions, 0 to 1."""
    words, instructed = _word_runs(text), _word_runs(instructions)
    return len(words & instructed) / len(words) if words else 0.0


def _word_runs(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", task_key(text))
    return {tuple(words[start : start + REPEATED_WORDS]) for start in range(len(words) - REPEATED_WORDS + 1)}


def _tools_of(trajectory: Trajectory, draft: ExperienceDraft) -> tuple[str, ...]:
    """Return the tools of the trajectory that the lesson names."""
    if not trajectory.transcript:
        return ()
    return tuple(tool for tool in from_json(trajectory.transcript).tools_used if tool in draft.content)


def _trigrams(text: str) -> set[str]:
    folded = f"  {task_key(text)}  "
    return {folded[start : start + 3] for start in range(len(folded) - 2)}


def _clean(item: object) -> object:
    """Return the item with every text in it cleaned."""
    if isinstance(item, str):
        return clean_text(item)
    if isinstance(item, list):
        return [_clean(part) for part in item]
    if isinstance(item, dict):
        return {key: _clean(value) for key, value in item.items()}
    return item


def _shown(item: object, position: int) -> str:
    scenario = item.get("when_to_use") if isinstance(item, dict) else None
    return scenario[:SHOWN_CHARS] if isinstance(scenario, str) and scenario else f"experiences[{position}]"


def _reasons(exc: ValidationError) -> str:
    return "; ".join(
        f"{' '.join('.'.join(str(part) for part in error['loc']).split())[:SHOWN_CHARS] or 'experience'}: "
        f"{error['msg'][:1].lower()}{error['msg'][1:]}"
        for error in exc.errors(include_url=False)
    )
