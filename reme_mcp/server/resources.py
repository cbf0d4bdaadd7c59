"""The pool as resources: the listing, one experience with its provenance, statistics; and subscriptions to them.

In:  `resources/*` requests.
Out: JSON.
Does not know: how anything is stored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, urlsplit

from mcp.server.connection import Connection
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INVALID_PARAMS,
    EmptyResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    TextResourceContents,
    UnsubscribeRequestParams,
)

from reme_mcp.auth.access import Access
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.schema import Experience, ReceiptLine
from reme_mcp.server import skills
from reme_mcp.server.icons import icons
from reme_mcp.server.state import SHOWN_CHARS, Context, State, caller_access, caller_source, protocol_error
from reme_mcp.server.subscriptions import Target
from reme_mcp.text import clean

if TYPE_CHECKING:
    from reme_mcp.memory.memory import Memory

POOL_URI = "reme://experiences"
STATS_URI = "reme://stats"
RECEIPT_URI = "reme://receipts"
PAGE_SIZE = 50


def _template(uri: str, name: str, title: str, mime_type: str = "application/json") -> ResourceTemplate:
    return ResourceTemplate(uri_template=uri, name=name, title=title, mime_type=mime_type, icons=icons("resource"))


TEMPLATES = (
    _template(f"{POOL_URI}{{?workspace,page}}", "experiences-page", "Experience pool, one page"),
    _template(f"{POOL_URI}/{{id}}{{?workspace}}", "experience", "One experience with its provenance"),
    _template(
        f"{RECEIPT_URI}/{{id}}{{?workspace}}",
        "receipt",
        "What one recall handed out, the numbers behind it, and how it was settled",
    ),
    _template(f"{STATS_URI}{{?workspace}}", "stats-of-workspace", "Statistics of one workspace"),
    _template(
        f"{skills.SCHEME}{{workspace}}/{{name}}/{skills.FILE}",
        "skill",
        "A lesson that has proven itself, as a skill",
        skills.MIME_TYPE,
    ),
)


# --- resources ---


async def list_resources(context: Context, _: PaginatedRequestParams | None) -> ListResourcesResult:
    """Answer `resources/list`."""
    return ListResourcesResult(
        resources=[
            Resource(
                uri=POOL_URI,
                name="experiences",
                title="Experience pool",
                description="All experiences of the configured workspace, newest first, in pages",
                mime_type="application/json",
                icons=icons("resource"),
            ),
            Resource(
                uri=STATS_URI,
                name="stats",
                title="Pool statistics",
                description="Counts of experiences, trajectories and receipts, and the state of the search",
                mime_type="application/json",
                icons=icons("resource"),
            ),
        ]
    )


async def list_resource_templates(context: Context, _: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    """Answer `resources/templates/list`."""
    return ListResourceTemplatesResult(resource_templates=list(TEMPLATES))


async def read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    """Answer `resources/read`."""
    uri = str(params.uri)
    if uri.startswith(skills.SCHEME):
        return await skills.read_skill(context, uri)
    access = caller_access(context)
    try:
        content = await _resource(context, _named(uri, access), access)
    except Exception as exc:
        raise protocol_error(exc, "resources/read", access, uri=uri) from exc
    text = json.dumps(content, ensure_ascii=False, indent=1, default=str)
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=text, mime_type="application/json")])


@dataclass(frozen=True, slots=True)
class _Named:
    """What a `reme://` URI names."""

    workspace: str
    kind: Literal["pool", "experience", "receipt", "stats"]
    id: str = ""
    page: int = 1

    @property
    def target(self) -> Target:
        """What a subscriber to it subscribes to."""
        path = {
            "pool": POOL_URI,
            "experience": f"{POOL_URI}/{self.id}",
            "receipt": f"{RECEIPT_URI}/{self.id}",
            "stats": STATS_URI,
        }[self.kind]
        return Target(self.workspace, path)


def _named(uri: str, access: Access) -> _Named:
    """Return what a URI names to a caller.

    Raises:
        NotFound: Nothing.
        InvalidInput: Its page is no number.
        Forbidden: It is in a workspace that the caller may not enter.
    """
    parts = urlsplit(uri)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    named = query.pop("workspace", None)
    page = query.pop("page", "1") if not parts.path else "1"
    if parts.scheme != "reme" or query or parts.fragment:
        raise NotFound(_no_resource(uri))
    workspace = clean.workspace(access.workspace(named))
    if parts.netloc == "stats" and not parts.path:
        return _Named(workspace, "stats")
    if parts.netloc == "experiences" and not parts.path:
        if not page.isdecimal() or not 1 <= int(page) <= 1_000_000:
            raise InvalidInput(f"page is {page[:SHOWN_CHARS]!r}; it must be a whole number from 1")
        return _Named(workspace, "pool", page=int(page))
    if parts.netloc == "experiences" and parts.path.count("/") == 1:
        return _Named(workspace, "experience", id=parts.path[1:])
    if parts.netloc == "receipts" and parts.path.count("/") == 1:
        return _Named(workspace, "receipt", id=parts.path[1:])
    raise NotFound(_no_resource(uri))


async def _resource(context: Context, named: _Named, access: Access) -> object:
    """Return what stands in a resource."""
    memory = await context.lifespan_context.memory()
    if named.kind == "receipt":
        # What somebody else has asked is theirs, but for an admin.
        source = None if access.allows("admin") else caller_source(context, access)
        return _receipt(await memory.pool.receipt(named.id, workspace=named.workspace, source=source))
    if named.kind == "stats":
        stats = asdict(await memory.pool.stats(workspace=named.workspace))
        if access.allows("admin"):
            return stats
        # Where the pool is, and what all workspaces together have cost, is not a workspace's own.
        return {name: value for name, value in stats.items() if name not in ("home", "llm")}
    if named.kind == "pool":
        return await _pool_page(memory, named)
    experience, tally = await memory.pool.experience(named.id, workspace=named.workspace)
    lifts = await memory.pool.lifts([experience], workspace=named.workspace)
    return asdict(_readable(experience)) | {
        "lift": lifts[experience.id].in_words,
        "recalled": tally.recalled,
        "last_recalled_at": tally.last_recalled_at,
    }


async def _pool_page(memory: Memory, named: _Named) -> object:
    experiences = await memory.pool.page(
        workspace=named.workspace, offset=(named.page - 1) * PAGE_SIZE, limit=PAGE_SIZE + 1
    )
    following = f"{POOL_URI}?workspace={named.workspace}&page={named.page + 1}"
    return {
        "workspace": named.workspace,
        "page": named.page,
        "next": following if len(experiences) > PAGE_SIZE else None,
        "experiences": [_listed(_readable(experience)) for experience in experiences[:PAGE_SIZE]],
    }


def _receipt(lines: Sequence[ReceiptLine]) -> object:
    """Return what one recall handed out, best first, with the numbers behind it and how it was settled."""
    first = lines[0]
    return {
        "receipt": first.receipt,
        "workspace": first.workspace,
        "task": first.task,
        "recalled_by": first.source,
        "recalled_at": first.created_at,
        "experiences": [
            {
                "id": line.experience_id,
                "rank": line.rank,
                "numbers": json.loads(line.numbers) if line.numbers else None,
                "withheld": line.arm == "withheld",
                "helped": line.helped,
                "settled_by": line.settled_by,
                "settled_at": line.settled_at,
                "reason": line.reason,
            }
            for line in lines
            if line.experience_id
        ],
    }


def _readable(experience: Experience) -> Experience:
    """Return the experience as a model may read it; the rules of that are imported with the memory."""
    from reme_mcp.safety import quarantine

    return quarantine.readable(experience)


def _listed(experience: Experience) -> dict[str, object]:
    """Return what the pool listing shows of one experience; its own resource shows the rest."""
    return {
        "id": experience.id,
        "when_to_use": experience.when_to_use,
        "content": experience.content,
        "kind": experience.kind,
        "status": experience.status,
        "frequency": experience.frequency,
        "utility": experience.utility,
        "pinned": experience.pinned,
        "workspace": experience.workspace,
        "source": experience.source,
        "author": experience.author,
        "trajectory_ids": experience.trajectory_ids,
        "created_at": experience.created_at,
    }


def _no_resource(uri: str) -> str:
    there_are = f"{POOL_URI}, {POOL_URI}/{{id}}, {RECEIPT_URI}/{{id}} and {STATS_URI}"
    return f"no resource {uri[:SHOWN_CHARS]!r}; there are {there_are}"


def _connection(context: Context) -> Connection:
    # A session is made anew for each request; the connection behind it is what ends one day.
    return context.session._connection


def _target(uri: str, access: Access) -> Target:
    try:
        return _named(uri, access).target
    except InvalidInput as exc:
        raise MCPError(INVALID_PARAMS, str(exc), {"uri": uri}) from exc


async def subscribe(context: Context, params: SubscribeRequestParams) -> EmptyResult:
    """Answer `resources/subscribe`."""
    uri = str(params.uri)
    context.lifespan_context.subscriptions.add(_connection(context), uri, _target(uri, caller_access(context)))
    return EmptyResult()


async def unsubscribe(context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
    """Answer `resources/unsubscribe`."""
    context.lifespan_context.subscriptions.remove(_connection(context), str(params.uri))
    return EmptyResult()


async def listen_for_changes(context: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
    """Answer `subscriptions/listen`, for as long as the client listens."""
    access = caller_access(context)
    wanted: dict[Target, list[str]] = {}
    for uri in params.notifications.resource_subscriptions or ():
        wanted.setdefault(_target(str(uri), access), []).append(str(uri))
    return await context.lifespan_context.subscriptions.listen(context, params, access, wanted)


def announce_change(state: State, workspace: str | None, ids: list[str], *, new: bool) -> None:
    """Tell subscribers of either era which resources are no longer what they read."""
    if ids and workspace is not None:
        paths = [POOL_URI, STATS_URI, *(f"{POOL_URI}/{id}" for id in ids)]
        state.subscriptions.announce(workspace, paths, new=new)
