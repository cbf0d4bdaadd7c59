"""Skills over MCP: lessons that have proven themselves, as skills that a host loads by itself.

In:  `skills/list`, `skills/get`, and reads of `skill://WORKSPACE/NAME/SKILL.md`.
Out: entries with the frontmatter, the digest and the size of each; the text of a `SKILL.md`.
Does not know: when a lesson is proven, how a skill looks.

Only what is proven is served: a host reads a skill as instructions. The text holds no counters, so that its digest, to
which a host binds the consent of its user, changes with the lesson's words alone.

Source: SEP-2640 (io.modelcontextprotocol/skills).
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from mcp.types import (
    CacheableResult,
    PaginatedRequestParams,
    PaginatedResult,
    ReadResourceResult,
    RequestParams,
    TextResourceContents,
)
from pydantic import BaseModel

from reme_mcp.auth.access import Access
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.server.state import SHOWN_CHARS, Context, State, caller_access, protocol_error

if TYPE_CHECKING:
    from reme_mcp.import_export.skills import Skill

EXTENSION = "io.modelcontextprotocol/skills"
SCHEME = "skill://"
FILE = "SKILL.md"
MIME_TYPE = "text/markdown"
PAGE_SIZE = 50
# A rating may prove a lesson, or take the proof away, at any time.
TTL_MS = 60_000

Answer = TypeVar("Answer")


class SkillFile(BaseModel):
    """A file of a skill, and what its bytes are checked against."""

    uri: str
    digest: str
    size: int


class SkillEntry(BaseModel):
    """All that a host needs to know of a skill before it reads it."""

    uri: str
    frontmatter: Mapping[str, object]
    resources: list[SkillFile]


class ListSkillsResult(PaginatedResult, CacheableResult):
    """The answer to `skills/list`."""

    skills: list[SkillEntry]
    result_type: str = "complete"


class GetSkillParams(RequestParams):
    """What `skills/get` takes."""

    uri: str


class GetSkillResult(CacheableResult):
    """The answer to `skills/get`."""

    skill: SkillEntry
    result_type: str = "complete"


async def list_skills(context: Context, params: PaginatedRequestParams) -> ListSkillsResult:
    """Answer `skills/list`: the proven lessons of each workspace that the caller's token names, the best first."""

    async def listed(state: State, access: Access) -> ListSkillsResult:
        offset = _offset(params.cursor)
        entries = [
            _entry(workspace, skill)
            for workspace in access.workspaces or (access.workspace(None),)
            for skill in await proven_skills(state, workspace)
        ]
        following = str(offset + PAGE_SIZE) if len(entries) > offset + PAGE_SIZE else None
        return ListSkillsResult(skills=entries[offset : offset + PAGE_SIZE], next_cursor=following, ttl_ms=TTL_MS)

    return await _answered(context, "skills/list", listed)


async def get_skill(context: Context, params: GetSkillParams) -> GetSkillResult:
    """Answer `skills/get`."""

    async def found(state: State, access: Access) -> GetSkillResult:
        return GetSkillResult(skill=_entry(*await _find(state, access, params.uri)), ttl_ms=TTL_MS)

    return await _answered(context, "skills/get", found, uri=params.uri)


async def read_skill(context: Context, uri: str) -> ReadResourceResult:
    """Answer `resources/read` for the file of a skill."""

    async def read(state: State, access: Access) -> ReadResourceResult:
        _, skill = await _find(state, access, uri)
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=skill.text, mime_type=MIME_TYPE)])

    return await _answered(context, "resources/read", read, uri=uri)


async def proven_skills(state: State, workspace: str) -> list[Skill]:
    """Return the lessons of a workspace that have proven themselves, as skills, the best first."""
    return await (await state.memory()).overview.proven_skills(workspace=workspace)


async def _answered(
    context: Context, what: str, answer: Callable[[State, Access], Awaitable[Answer]], **data: str
) -> Answer:
    access = caller_access(context)
    try:
        return await answer(context.lifespan_context, access)
    except Exception as exc:
        raise protocol_error(exc, what, access, **data) from exc


async def _find(state: State, access: Access, uri: str) -> tuple[str, Skill]:
    """Return the workspace of a skill, and the skill.

    Raises:
        NotFound: There is none of that address, or its lesson is not proven any more.
        Forbidden: It is in a workspace that the caller may not enter.
    """
    workspace, _, rest = uri.removeprefix(SCHEME).partition("/")
    name, _, file = rest.partition("/")
    if uri.startswith(SCHEME) and workspace and file == FILE:
        for skill in await proven_skills(state, access.workspace(workspace)):
            if skill.name == name:
                return workspace, skill
    raise NotFound(f"no skill {uri[:SHOWN_CHARS]!r}; skills/list names those that there are")


def _entry(workspace: str, skill: Skill) -> SkillEntry:
    raw = skill.text.encode()
    uri = f"{SCHEME}{workspace}/{skill.name}/{FILE}"
    file = SkillFile(uri=uri, digest=f"sha256:{hashlib.sha256(raw).hexdigest()}", size=len(raw))
    return SkillEntry(uri=uri, frontmatter=skill.frontmatter, resources=[file])


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 10):
        raise InvalidInput(f"cursor is {cursor[:SHOWN_CHARS]!r}; give the nextCursor of the answer before")
    return int(cursor)
