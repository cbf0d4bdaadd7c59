"""The pages that a person opens; nothing here changes anything.

In:  a `View`.
Out: HTML.
Does not know: how anything is found or decided; `Memory` does.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Literal, TypeVar, get_args
from urllib.parse import quote

from starlette.responses import HTMLResponse, Response

from reme_mcp.errors import InvalidInput, NotFound
from reme_mcp.import_export import skills
from reme_mcp.memory.overview import Filters, Order, Standing
from reme_mcp.refine.rules import share_interval
from reme_mcp.safety import injection_rules
from reme_mcp.schema import Deed, Kind, Status, now
from reme_mcp.sources import THIS_MACHINE, rater_of
from reme_mcp.transcripts.transcript import from_json
from reme_mcp.web.render import render
from reme_mcp.web.state import View

Name = TypeVar("Name", bound=str)

PAGE_SIZE = 40
SHOWN_SOURCES, SHOWN_ATTEMPTS = 8, 5
DECIDED_DAYS = 30
# In an address: no holder's name has a slash where it stands in a source.
SOMEBODY_NEW = "/"
ORDERS: tuple[Order, ...] = get_args(Order)
STATUSES: tuple[Status, ...] = get_args(Status)
KINDS: tuple[Kind, ...] = get_args(Kind)
STANDINGS: tuple[Standing, ...] = get_args(Standing)
DEEDS: tuple[Deed, ...] = get_args(Deed)


async def lessons(view: View) -> Response:
    """All lessons: five numbers, search, filters, the plot, this week."""
    overview = view.memory.overview
    filters = Filters(
        query=view.value("q"),
        kind=_one_of(view.value("kind"), KINDS),
        status=_one_of(view.value("status"), STATUSES),
        source=view.value("by"),
        standing=_one_of(view.value("standing"), STANDINGS),
    )
    order = _one_of(view.value("sort"), ORDERS) or "most tried"
    offset = view.number("from", 0)
    page = await overview.lessons(filters, order=order, workspace=view.workspace, offset=offset, limit=PAGE_SIZE)
    facts = await overview.facts(workspace=view.workspace)
    values: dict[str, Any] = {
        "page": page,
        "page_size": PAGE_SIZE,
        "filters": filters,
        "order": order,
        "facts": facts,
        "query": {
            "q": filters.query, "kind": filters.kind, "status": filters.status, "by": filters.source,
            "standing": filters.standing, "sort": "" if order == "most tried" else order,
        },
    }  # fmt: skip
    if view.is_fragment:
        return HTMLResponse(
            render("_list.html", view=view, link=view.link, early=view.memory.settings.refine.min_frequency, **values)
        )
    return await view.page(
        "lessons.html",
        orders=ORDERS,
        statuses=STATUSES,
        sources=facts.sources[:SHOWN_SOURCES],
        removal=await overview.removal(workspace=view.workspace),
        week=await overview.week(workspace=view.workspace),
        latest=await view.memory.pool.log(workspace=view.workspace, limit=6),
        **values,
    )


async def lesson(view: View) -> Response:
    """One lesson: text, track record, every recall that handed it out, where it comes from, what is like it."""
    pool, id = view.memory.pool, view.request.path_params["id"]
    one, tally = await pool.experience(id, workspace=view.workspace)
    overview = view.memory.overview
    removal = await overview.removal(workspace=view.workspace)
    offset = view.number("from", 0)
    recalls = await pool.recalls(id, workspace=view.workspace, offset=offset, limit=PAGE_SIZE)
    return await view.page(
        "lesson.html",
        one=one,
        tally=tally,
        evidence=(await pool.lifts([one], workspace=view.workspace))[one.id],
        among_tasks=await pool.among_tasks(one, workspace=view.workspace),
        interval=share_interval(one.utility, one.frequency),
        removal=removal,
        facts=await overview.facts(workspace=view.workspace),
        recalls=recalls,
        offset=offset,
        page_size=PAGE_SIZE,
        attempts=await pool.trajectories(one.trajectory_ids[-SHOWN_ATTEMPTS:], workspace=view.workspace),
        changes=await pool.log(workspace=view.workspace, about=one.id, limit=12),
        alike=await overview.alike(one),
        edits=view.value("edit") == "1",
    )


async def skill(view: View) -> Response:
    """One lesson as a `SKILL.md`."""
    one, _ = await view.memory.pool.experience(view.request.path_params["id"], workspace=view.workspace)
    made = skills.one_each([one])[0]
    disposition = f"attachment; filename=\"SKILL.md\"; filename*=UTF-8''{quote(made.name)}-SKILL.md"
    return Response(made.text, media_type="text/markdown", headers={"content-disposition": disposition})


async def review(view: View) -> Response:
    """What is held back, with the words that held it marked."""
    decided = await view.memory.pool.log(
        workspace=view.workspace, since=now() - timedelta(days=DECIDED_DAYS), limit=1000
    )
    return await view.page(
        "review.html",
        held=await view.memory.overview.held(workspace=view.workspace),
        rejected=sum(entry.did == "rejected" for entry in decided),
        approved=sum(entry.did == "approved" for entry in decided),
        rules=injection_rules.RULES,
    )


async def recall(view: View) -> Response:
    """What would be handed out for a task, and why not the others; no receipt is written.

    Anybody may look as themselves and as somebody new, who is handed out no more; as somebody else only who decides.
    """
    task, tools = view.value("task"), [one for one in re.split(r"[\s,]+", view.value("tools")) if one]
    limit, whom = view.number("limit", view.memory.settings.recall.limit), view.value("as")
    holders = await view.memory.overview.holders(workspace=view.workspace) if view.access.allows("admin") else []
    reader = None if whom in ("", rater_of(view.source)) else THIS_MACHINE if whom == SOMEBODY_NEW else whom
    if reader:
        view.access.demand("admin", "trying a recall as somebody else")
    result, trouble = None, ""
    if task:
        try:
            result = await view.memory.explain(
                task, tools=tools, limit=limit, workspace=view.workspace, source=view.source, reader=reader
            )
        except (InvalidInput, NotFound) as exc:
            trouble = str(exc)
    return await view.page(
        "recall.html",
        task=task,
        tools=" ".join(tools),
        limit=limit,
        readers={"": "you", SOMEBODY_NEW: "somebody new"}
        | {name: name for name in holders if name != rater_of(view.source)},
        whom="" if reader is None else whom,
        result=result,
        trouble=trouble,
    )


async def removal(view: View) -> Response:
    """What the removal rule would take, with its two numbers as sliders."""
    overview, rules = view.memory.overview, view.memory.settings.refine
    alpha = view.number("alpha", rules.min_frequency)
    beta = view.number("beta", round(100 * rules.max_utility_ratio))
    found = await overview.removal(
        workspace=view.workspace, min_frequency=alpha, max_utility_ratio=min(beta, 100) / 100
    )
    ids = list(found.reasons)
    values: dict[str, Any] = {
        "removal": found,
        "count": len(ids),
        "experiences": await view.memory.pool.experiences(ids[:PAGE_SIZE], workspace=view.workspace),
        "facts": await overview.facts(workspace=view.workspace),
        "alpha": alpha,
        "beta": min(beta, 100),
        "is_rule": (alpha, beta) == (rules.min_frequency, round(100 * rules.max_utility_ratio)),
    }
    if view.is_fragment:
        return HTMLResponse(
            render(
                "_removal.html",
                view=view,
                link=view.link,
                early=rules.min_frequency,
                may_decide=view.access.allows("admin"),
                form_token=view.request.scope["reme_form"],
                **values,
            )
        )
    return await view.page("removal.html", **values)


async def changes(view: View) -> Response:
    """Who changed what, with a way back where there is one."""
    did, about = _one_of(view.value("did"), DEEDS), view.value("about")
    limit = min(max(view.number("limit", 100), 1), 5_000)
    entries = await view.memory.pool.log(workspace=view.workspace, about=about, limit=5_000 if did else limit)
    shown = [entry for entry in entries if did in ("", entry.did)][:limit]
    ids = [entry.about for entry in shown if entry.about.startswith("e-")]
    now_as = {one.id: one for one in await view.memory.pool.experiences(ids, workspace=view.workspace)}
    return await view.page("changes.html", entries=shown, deeds=DEEDS, did=did, about=about, now_as=now_as, limit=limit)


async def attempts(view: View) -> Response:
    """Attempts that wait for their lessons."""
    return await view.page("attempts.html", attempts=await view.memory.overview.attempts(workspace=view.workspace))


async def attempt(view: View) -> Response:
    """One attempt with its steps and what was learned from it."""
    pool, id = view.memory.pool, view.request.path_params["id"]
    one = await pool.trajectory(id, workspace=view.workspace)
    return await view.page(
        "attempt.html",
        one=one,
        transcript=from_json(one.transcript) if one.transcript else None,
        learned=await pool.learned_from(id, workspace=view.workspace),
    )


def _one_of(text: str, allowed: tuple[Name, ...]) -> Name | Literal[""]:
    return next((one for one in allowed if one == text), "")
