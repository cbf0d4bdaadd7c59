"""Text arguments that arrived from outside, cleaned, or an `InvalidInput` that says which one is wrong.

In:  a text, an id or the name of a workspace, and how the caller names it.
Out: the same, stripped and within its limits.
Does not know: what the text is for.
"""

from __future__ import annotations

from reme_mcp.errors import InvalidInput
from reme_mcp.schema import MAX_LABEL_CHARS, MAX_TASK_CHARS, WORKSPACE_PATTERN, clean_text


def text(name: str, text: str, *, optional: bool = False) -> str:
    """Return the text cleaned, or say why it can't be used."""
    if len(text) > MAX_TASK_CHARS:
        raise InvalidInput(f"{name} has {len(text):,} characters; at most {MAX_TASK_CHARS:,} are taken, so shorten it")
    cleaned = clean_text(text)
    if not cleaned and not optional:
        raise InvalidInput(f"{name} is {text[:20]!r}, which says nothing; give the task in the user's words")
    return cleaned


def label(text: str) -> str:
    """Return an id or a name on one line, fit for a table; one that is too long names nothing."""
    return " ".join(clean_text(text[:MAX_LABEL_CHARS]).split())


def workspace(name: str) -> str:
    """Return the name of a workspace, or say why it can't be one."""
    if not WORKSPACE_PATTERN.fullmatch(name):
        raise InvalidInput(
            f"workspace is {name[:80]!r}; it must be 1 to 64 letters, digits, dots, dashes or underscores"
        )
    return name


def unknown(what: str, id: str, workspace: str) -> str:
    """Return what is said of an id that names nothing."""
    return f"no {what} {id!r} in workspace {workspace!r}; check the id, or name its workspace"
