"""What a person does on the page: rate, decide, archive, restore, edit, delete, apply the removal rule.

In:  a `View` and a form.
Out: the change, made by the service, and the page that the person came from, which offers the way back.
Does not know: how a change is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.responses import RedirectResponse, Response

from reme_mcp.auth.access import Role
from reme_mcp.distill.drafts import draft_of
from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.web.state import View

Form = Mapping[str, str]
# Those that an address can carry for "undo"; for more there is the page of changes.
MAX_UNDO_IDS = 200
# A form is at most this long; a lesson has 2,500 characters.
MAX_FORM_BYTES = 100_000


async def _rate(view: View, form: Form) -> list[str]:
    helpful = form.get("helpful")
    if helpful not in ("yes", "no"):
        raise InvalidInput(f"helpful is {str(helpful)[:20]!r}; say yes or no")
    await view.memory.rate(
        form["id"],
        helpful=helpful == "yes",
        receipt=form.get("receipt") or None,
        reason=form.get("reason", ""),
        workspace=view.workspace,
        source=view.source,
    )
    return [form["id"]]


async def _archive(view: View, form: Form) -> list[str]:
    reason = form.get("reason", "").strip() or "archived on the page"
    await view.memory.pool.archive(form["id"], reason, workspace=view.workspace, source=view.source)
    return [form["id"]]


async def _restore(view: View, form: Form) -> list[str]:
    # All that are named, as an undo of several names them; the counters go on where it is an undo.
    ids = form["id"].split()
    for id in ids:
        await view.memory.pool.restore(
            id, workspace=view.workspace, source=view.source, keep_counters=form.get("undo") == "1"
        )
    return ids


async def _approve(view: View, form: Form) -> list[str]:
    ids = form["id"].split()
    for id in ids:
        await view.memory.pool.approve(id, workspace=view.workspace, source=view.source)
    return ids


async def _reject(view: View, form: Form) -> list[str]:
    ids = form["id"].split()
    for id in ids:
        await view.memory.pool.reject(id, workspace=view.workspace, source=view.source)
    return ids


async def _hold(view: View, form: Form) -> list[str]:
    ids = form["id"].split()
    for id in ids:
        await view.memory.pool.hold_back(id, workspace=view.workspace, source=view.source)
    return ids


async def _pin(view: View, form: Form) -> list[str]:
    pinned = form.get("pinned") != "no"
    await view.memory.pool.pin(form["id"], pinned=pinned, workspace=view.workspace, source=view.source)
    return [form["id"]]


async def _delete(view: View, form: Form) -> list[str]:
    await view.memory.pool.delete(form["id"], workspace=view.workspace, source=view.source)
    return [form["id"]]


async def _edit(view: View, form: Form) -> list[str]:
    after, older = await view.memory.pool.edit(
        form["id"],
        {"when_to_use": form.get("when_to_use", ""), "content": form.get("content", "")},
        workspace=view.workspace,
        source=view.source,
    )
    return [after.id, older.id]


async def _undo_edit(view: View, form: Form) -> list[str]:
    id, _, older_id = form["id"].partition(" ")
    older, _ = await view.memory.pool.experience(older_id, workspace=view.workspace)
    after, _ = await view.memory.pool.edit(
        id, draft_of(older).model_dump(), workspace=view.workspace, source=view.source
    )
    return [after.id]


async def _prune(view: View, form: Form) -> list[str]:
    gone = await view.memory.pool.prune(workspace=view.workspace, source=view.source)
    return [one.id for one in gone]


ACTIONS: dict[str, tuple[Role, Callable[[View, Form], Awaitable[list[str]]]]] = {
    "rate": ("write", _rate),
    "archive": ("admin", _archive),
    "restore": ("admin", _restore),
    "approve": ("admin", _approve),
    "reject": ("admin", _reject),
    "hold": ("admin", _hold),
    "pin": ("admin", _pin),
    "delete": ("admin", _delete),
    "edit": ("admin", _edit),
    "undo-edit": ("admin", _undo_edit),
    "prune": ("admin", _prune),
}


async def act(view: View, form: Form) -> Response:
    """Do what a form says, and lead back.

    Raises:
        InvalidInput: It can't be done; nothing is changed.
        NotFound: There is no such action, or no such experience.
        Forbidden: The caller's role does not reach.
    """
    verb = view.request.path_params["verb"]
    if verb not in ACTIONS:
        raise NotFound(f"no action {verb[:40]!r}")
    role, run = ACTIONS[verb]
    view.access.demand(role, verb)
    if verb != "prune" and not form.get("id"):
        raise InvalidInput("id is missing")
    ids = await run(view, form)
    view.announce(view.workspace, ids)
    done = {"done": verb, "ids": " ".join(ids[:MAX_UNDO_IDS])}
    return RedirectResponse(_back(view, form.get("back", ""), done), 303)


def _back(view: View, path: str, done: dict[str, str]) -> str:
    """Return where to go on: a page of ours, and what was done as a part of its query."""
    parts = urlsplit(path)
    is_ours = path.startswith(f"{view.base}/") and not path.startswith("//") and "\\" not in path and not parts.netloc
    here = parts.path if is_ours else f"{view.base}/"
    kept = [pair for pair in parse_qsl(parts.query) if pair[0] not in ("done", "ids", "edit")] if is_ours else []
    return f"{here}?{urlencode([*kept, *done.items()])}"
