"""What of a lesson holds it back until a person has seen it.

In:  an experience's texts as they came, and the record of an attempt.
Out: which rules found something, with their names; the experience held back.
Does not know: who approves, the pool, the judge. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from reme_mcp.safety.injection_rules import RULES, Texts, texts_of
from reme_mcp.schema import Experience, ExperienceDraft, Text, text_fields, with_texts

APPROVED = "approved by a person"
REJECTED = "rejected by a person"
HELD_BACK = "held back until a person has approved it"
# So many lessons of one holder of a token, or of this machine, wait for a person in a workspace; no more are stored.
MAX_WAITING = 50
TOO_MANY = (
    f"it would be held back, and {MAX_WAITING} lessons that you brought wait for review already; a person has to "
    "decide on them first (reme-mcp review)"
)


def suspicions(lesson: ExperienceDraft | Experience, source: str = "", *, of_file: bool = False) -> list[str]:
    """Return what every rule that applies says, each with the rule's name; nothing for an honest lesson.

    Args:
        lesson: With all its texts.
        source: What the client that brought a draft calls itself; a reader sees that, too.
        of_file: Whether a file brought it, which can put anything into the user's mouth.
    """
    read = [text for _, holds, texts in text_fields(lesson) if of_file or not holds.by_user for text in texts]
    return _found(texts_of([*read, source], lesson.tools_used))


def readable(experience: Experience) -> Experience:
    """Return the experience as a model may read it: without its texts if it is withheld.

    Words of the user that would hold a lesson back are withheld alone.
    """
    withheld = is_withheld(experience)

    def shown(text: str, holds: Text) -> str:
        is_alone = holds.by_user or (withheld and holds.stays)
        if (withheld and not holds.stays) or (is_alone and suspicions_of_text(text)):
            # Of several texts, and of what nobody wrote, there is nothing to show.
            return "" if not text or (holds.one_line and not holds.stays) else HELD_BACK
        return text

    return with_texts(experience, shown)


def suspicions_of_text(text: str) -> list[str]:
    """Return what is suspected of a text by itself, see `suspicions`."""
    return _found(texts_of([text], ()))


def _found(texts: Texts) -> list[str]:
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
    """Return whether no model should read an experience.

    A person has not approved it, or has rejected it; or it was archived before anybody looked at it, and has to be.
    """
    if experience.status == "archived":
        return is_rejected(experience) or bool(suspicions(experience, of_file=True))
    return experience.status == "quarantined"


def is_rejected(experience: Experience) -> bool:
    """Return whether a person has thrown an experience out in review."""
    return experience.status == "archived" and experience.status_reason.startswith(REJECTED)


def is_approved(experience: Experience) -> bool:
    """Return whether a person has seen what is suspected of an experience, and let it pass."""
    return experience.status_reason.startswith(APPROVED)
