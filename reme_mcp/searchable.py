"""What an experience is found by.

In:  an experience, or a query.
Out: the text that the full-text index and the embedder see of it.
"""

import re

from reme_mcp.schema import Experience

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def search_text(experience: Experience) -> str:
    """Return what full-text search finds the experience by: scenario, tasks, lesson, keywords and tools."""
    parts = (
        experience.when_to_use,
        experience.generalized_task,
        experience.content,
        *experience.keywords,
        *experience.tools_used,
        experience.task,
    )
    return split_names("\n".join(part for part in parts if part))


def vector_text(experience: Experience) -> str:
    """Return what the embedder sees of the experience."""
    parts = (experience.when_to_use, experience.generalized_task, experience.content, experience.task)
    return "\n".join(part for part in parts if part)


def split_names(text: str) -> str:
    """Return `text` with startEngine written start Engine, so that its words are found."""
    return _CAMEL.sub(" ", text)
