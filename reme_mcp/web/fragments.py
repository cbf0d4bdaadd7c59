"""The page's fragments inside a chat: the shell that a host renders, and what is put into it.

In:  lessons, as the service has them.
Out: HTML, from the same macros as the page; one document for each App, which asks its host for everything else.
Does not know: the protocol that carries it.

Source: https://github.com/modelcontextprotocol/ext-apps (MCP Apps, 2026-01-26).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from markupsafe import Markup

from reme_mcp.memory.overview import Held
from reme_mcp.schema import Experience
from reme_mcp.web.render import render, static_file

App = Literal["notes", "review"]
# The parts of the sheet that an App shows something of; the first stands before the first heading.
SHEET_PARTS = ("", "forms", "lessons", "review")


def shell(app: App, key: str) -> str:
    """Return the document of an App.

    Args:
        app: Which one.
        key: What its calls bring, so that no model can make them.
    """
    sheet = sheet_of(static_file("page.css"), SHEET_PARTS)
    return render("app.html", app=app, key=key, sheet=Markup(sheet), script=Markup(static_file("app.js")))


def notes(experiences: Sequence[Experience], ratings: Mapping[str, bool], *, early: int, may_rate: bool) -> str:
    """Return lessons with two buttons each; those rated already say how."""
    return render("app_notes.html", experiences=experiences, ratings=ratings, early=early, may_rate=may_rate)


def held(waiting: Sequence[Held], decided: str, *, early: int, may_decide: bool) -> str:
    """Return lessons that wait for a person, with what was just decided."""
    return render("app_review.html", held=waiting, decided=decided, early=early, may_decide=may_decide)


def sheet_of(sheet: str, parts: Sequence[str]) -> str:
    """Return the parts of a sheet with these headings, without comments and spaces that say nothing."""
    pieces = re.split(r"/\* --- (.*?) --- \*/", sheet)
    named = {
        "": pieces[0],
        **dict(zip(pieces[1::2], pieces[2::2], strict=True)),
    }
    plain = re.sub(r"/\*.*?\*/", "", "".join(named[part] for part in parts), flags=re.DOTALL)
    return re.sub(r"\s*([{};,>])\s*", r"\1", re.sub(r"\s+", " ", plain)).strip()
