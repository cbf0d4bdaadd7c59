"""Why a note was handed out, and why another was not.

In:  what a search decided.
Out: the same as values and as text, with every number that a decision came from.
Does not know: how anything was found; `search.py` does.
"""

from __future__ import annotations

from reme_mcp.recall.ranking import Ranked
from reme_mcp.recall.search import Notes
from reme_mcp.results import ExplainedExperience, ExplainResult, RankingNumbers, RecalledExperience
from reme_mcp.text.plural import many
from reme_mcp.text.tokens import tokens

DIGITS = 4


def numbers_of(item: Ranked) -> RankingNumbers:
    """Return the numbers behind the place of an experience."""
    experience = item.experience
    return RankingNumbers(
        ranking=round(item.ranking, DIGITS),
        relevance=round(item.relevance, DIGITS),
        text_relevance=round(item.text_relevance, DIGITS),
        vector_relevance=_rounded(item.vector_relevance),
        neighbour_relevance=round(item.neighbour_relevance, DIGITS),
        similarity=_rounded(item.similarity),
        confidence=experience.confidence,
        frequency=experience.frequency,
        utility=experience.utility,
        track_record=round(item.track_record, DIGITS),
        age_days=item.age_days,
        missing_tools=list(item.missing_tools),
    )


def recalled(item: Ranked) -> RecalledExperience:
    """Return an experience as a recall answers with it."""
    experience = item.experience
    return RecalledExperience(
        id=experience.id,
        when_to_use=experience.when_to_use,
        content=experience.content,
        kind=experience.kind,
        frequency=experience.frequency,
        utility=experience.utility,
        relevance=round(item.relevance, 2),
        numbers=numbers_of(item),
    )


def explained(notes: Notes, *, note: str) -> ExplainResult:
    """Return what became of everything that a search found; `note` is what the user should know about the models."""
    return ExplainResult(
        guidance=notes.guidance,
        tokens=tokens(notes.guidance),
        experiences=[
            ExplainedExperience(
                id=one.item.experience.id,
                rank=rank,
                rule=one.rule,
                why=one.why,
                when_to_use=one.item.experience.when_to_use,
                content=one.item.experience.content,
                kind=one.item.experience.kind,
                status=one.item.experience.status,
                source=one.item.experience.source,
                tools_used=list(one.item.experience.tools_used),
                numbers=numbers_of(one.item),
            )
            for rank, one in enumerate(notes.decided, start=1)
        ],
        search=list(notes.modes),
        note=note,
    )


def explanation(result: ExplainResult) -> str:
    """Return the readable form of an `ExplainResult`: a paragraph for each experience, in the order of the ranking."""
    handed_out = sum(one.rule == "handed_out" for one in result.experiences)
    first = (
        f"{handed_out} of {len(result.experiences)} found would be handed out, {many(result.tokens, 'token')}; "
        f"searched by {' and '.join(result.search)}."
    )
    return "\n\n".join([first, *map(_paragraph, result.experiences)])


def _paragraph(one: ExplainedExperience) -> str:
    numbers = one.numbers
    parts = {
        "ranking": numbers.ranking,
        "relevance": numbers.relevance,
        "text": numbers.text_relevance,
        "vector": numbers.vector_relevance,
        "neighbours": numbers.neighbour_relevance,
        "cosine": numbers.similarity,
        "confidence": numbers.confidence,
        "track record": numbers.track_record,
    }
    told = [f"{name} {number:.2f}" for name, number in parts.items() if number is not None]
    told += [f"{numbers.utility} of {many(numbers.frequency, 'outcome')} good", f"{many(numbers.age_days, 'day')} old"]
    if numbers.missing_tools:
        told.append(f"needs {', '.join(numbers.missing_tools)}")
    decision = "handed out" if one.rule == "handed_out" else f"not handed out ({one.rule.replace('_', ' ')})"
    return f"{one.rank}. {one.id}, {decision}: {one.why}.\n   {one.when_to_use}\n   {', '.join(told)}"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, DIGITS)
