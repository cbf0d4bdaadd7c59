"""What of a lesson holds it back until a person has seen it.

In:  an experience's texts as they came, and the record of an attempt.
Out: which rules found something, with their names; the experience held back.
Does not know: who approves, the pool, the judge. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reme_mcp.safety.injection_rules import RULES, texts_of
from reme_mcp.schema import Experience, ExperienceDraft

APPROVED = "approved by a person"
REJECTED = "rejected by a person"


def suspicions(lesson: ExperienceDraft | Experience, source: str = "") -> list[str]:
    """Return what every rule that applies says, each with the rule's name; nothing for an honest lesson.

    Args:
        lesson: With all its texts.
        source: What the client that brought it calls itself; a reader sees that, too.
    """
    read = (lesson.when_to_use, lesson.content, lesson.generalized_task, *lesson.keywords, source)
    texts = texts_of(read, lesson.tools_used)
    return [f"{rule.name}: it {rule.says}" for rule in RULES if rule.applies(texts)]


def hold(experience: Experience, suspicions: Sequence[str]) -> Experience:
    """Return the experience out of recall until a person has said so, if anything is suspected of it."""
    if not suspicions:
        return experience
    return replace(experience, status="quarantined", status_reason="; ".join(suspicions))


def approve(experience: Experience, suspicions: str, *, at: datetime) -> Experience:
    """Return the experience in recall, with a note of what a person has let pass."""
    return replace(experience, status="active", status_reason=f"{APPROVED} ({suspicions})", updated_at=at)


def reject(experience: Experience, *, at: datetime) -> Experience:
    """Return the experience archived; what says the same is not stored any more."""
    reason = f"{REJECTED} ({experience.status_reason})"
    return replace(experience, status="archived", status_reason=reason, updated_at=at)


def is_withheld(experience: Experience) -> bool:
    """Return whether no model should read an experience: a person has not approved it, or has rejected it."""
    return experience.status == "quarantined" or (
        experience.status == "archived" and experience.status_reason.startswith(REJECTED)
    )


def is_approved(experience: Experience) -> bool:
    """Return whether a person has seen what is suspected of an experience, and let it pass."""
    return experience.status_reason.startswith(APPROVED)
