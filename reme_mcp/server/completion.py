"""Completion: what a person may mean who types an id, a workspace or the name of a skill into a client.

In:  `completion/complete` for an argument of a resource template or a prompt.
Out: the values that begin so, of those that the caller may see.
Does not know: how anything is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcp.types import CompleteRequestParams, CompleteResult, Completion, PromptReference

from reme_mcp.auth.access import Access
from reme_mcp.errors import NotFound
from reme_mcp.server.prompts import PROMPTS
from reme_mcp.server.resources import POOL_URI, RECEIPT_URI, TEMPLATES
from reme_mcp.server.skills import SCHEME, proven_skills
from reme_mcp.server.state import SHOWN_CHARS, Context, caller_access, caller_source, protocol_error
from reme_mcp.text import clean

# As many as the protocol takes.
MAX_VALUES = 100


async def complete(context: Context, params: CompleteRequestParams) -> CompleteResult:
    """Answer `completion/complete`."""
    access = caller_access(context)
    try:
        begun = params.argument.value
        fitting = [one for one in await _values(context, params, access) if one.startswith(begun)]
    except Exception as exc:
        raise protocol_error(exc, "completion/complete", access) from exc
    return CompleteResult(
        completion=Completion(values=fitting[:MAX_VALUES], total=len(fitting), has_more=len(fitting) > MAX_VALUES)
    )


async def _values(context: Context, params: CompleteRequestParams, access: Access) -> Sequence[str]:
    """Return what the argument may be, whatever it begins with; nothing where only the caller can know.

    Raises:
        NotFound: No such prompt or template.
        Forbidden: It is about a workspace that the caller may not enter.
    """
    ref, argument = params.ref, params.argument.name
    if isinstance(ref, PromptReference):
        if ref.name not in (prompt.name for prompt in PROMPTS):
            raise NotFound(f"no prompt {ref.name[:SHOWN_CHARS]!r}")
        return ()
    if ref.uri not in (template.uri_template for template in TEMPLATES):
        raise NotFound(f"no resource template {ref.uri[:SHOWN_CHARS]!r}")
    state = context.lifespan_context
    if argument == "workspace":
        return access.workspaces or sorted({access.workspace(None), *await (await state.memory()).pool.workspaces()})
    given = (params.context.arguments if params.context else None) or {}
    workspace = clean.workspace(access.workspace(given.get("workspace") or None))
    if argument == "id" and ref.uri.startswith(POOL_URI):
        return await (await state.memory()).overview.ids(workspace=workspace)
    if argument == "id" and ref.uri.startswith(RECEIPT_URI):
        source = None if access.allows("admin") else caller_source(context, access)
        return await (await state.memory()).overview.receipts(workspace=workspace, source=source)
    if argument == "name" and ref.uri.startswith(SCHEME):
        return [skill.name for skill in await proven_skills(state, workspace)]
    return ()
