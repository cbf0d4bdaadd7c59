"""What a page needs of its request: whose it is, which workspace, what may be done, and how to link.

In:  a request, the open memory, what the caller may do.
Out: `View`, which every page and action gets.
Does not know: pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse

from reme_mcp.auth.access import Access
from reme_mcp.errors import Forbidden
from reme_mcp.memory.memory import Memory
from reme_mcp.sources import source_of
from reme_mcp.web.render import render

PAGE_SOURCE = "page"
# Told of experiences that are not what they were: a workspace, and their ids.
Announce = Callable[[str, list[str]], None]
AccessOf = Callable[[Request], Access]
Handle = Callable[["View"], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class View:
    """One request of a person.

    Attributes:
        base: What a browser has before every path of the page: empty, `/ui`, or more behind a proxy.
        signed_in: Whether there is a token to sign out with.
    """

    request: Request
    memory: Memory
    access: Access
    workspace: str
    base: str
    announce: Announce
    signed_in: bool

    @property
    def source(self) -> str:
        """Who acts, as the log has it."""
        return PAGE_SOURCE if not self.access.holder else source_of(PAGE_SOURCE, self.access.holder)

    @property
    def path(self) -> str:
        """Which page it is, as the routes have it."""
        path: str = self.request.scope["path"]
        return path.removeprefix(self.request.scope.get("root_path", ""))

    @property
    def is_fragment(self) -> bool:
        """Whether only the part that changes is wanted."""
        return self.request.headers.get("hx-request") == "true"

    def value(self, name: str) -> str:
        """Return a value of the query, empty where there is none."""
        return self.request.query_params.get(name, "").strip()

    def number(self, name: str, default: int) -> int:
        """Return a whole number of the query; what is none counts as not given."""
        text = self.value(name)
        return int(text) if text.isdecimal() and len(text) < 9 else default

    def link(self, path: str, **query: object) -> str:
        """Return the address of a page of this workspace."""
        given = {name: value for name, value in query.items() if value not in ("", None, 0)}
        if self.workspace != self.memory.settings.workspace:
            given["workspace"] = self.workspace
        return f"{self.base}{path}" + (f"?{urlencode(given)}" if given else "")

    async def page(self, template: str, *, status: int = 200, **values: object) -> HTMLResponse:
        """Return a whole page."""
        pool = self.memory.pool
        names = list(self.access.workspaces or await pool.workspaces())
        standings = (await self.memory.overview.facts(workspace=self.workspace)).standings
        html = render(
            template,
            view=self,
            link=self.link,
            workspaces=sorted({*names, self.workspace}),
            waiting=standings.get("waiting", 0),
            form_token=self.request.scope["reme_form"],
            may_write=self.access.allows("write"),
            may_decide=self.access.allows("admin"),
            done=self.value("done"),
            done_ids=self.value("ids"),
            early=self.memory.settings.refine.min_frequency,
            **values,
        )
        return HTMLResponse(html, status)


def workspace_of(request: Request, access: Access, default: str) -> str:
    """Return the workspace that a request is about.

    Raises:
        Forbidden: The caller may not enter it.
    """
    named = request.query_params.get("workspace")
    if named is None and access.workspaces:
        named = default if default in access.workspaces else access.workspaces[0]
    found = access.workspace(named)
    if not found:
        raise Forbidden("no workspace is named")
    return found
