"""What an experience is found by.

In:  an experience.
Out: the texts that the full-text index and the embedder see of it.

The embedder sees it from two sides, the lesson and the request that led to it, and the middle of both vectors is
searched: on upstream's pools (`tests/benchmarks/retrieval.py`) that finds more than one vector of all the text.
"""

from __future__ import annotations

from reme_mcp.schema import Experience
from reme_mcp.text.words import spell_out


def search_text(experience: Experience) -> str:
    """Return what full-text search finds the experience by: scenario, lesson, keywords, tools and both tasks."""
    parts = (lesson_text(experience), *experience.keywords, *experience.tools_used, experience.task)
    return spell_out("\n".join(part for part in parts if part))


def lesson_text(experience: Experience) -> str:
    """Return scenario, generalized task and lesson."""
    parts = (experience.when_to_use, experience.generalized_task, experience.content)
    return "\n".join(part for part in parts if part)


def request_text(experience: Experience) -> str:
    """Return what was asked when the lesson was learned, as exactly as it is known."""
    return experience.task or experience.generalized_task or experience.when_to_use
