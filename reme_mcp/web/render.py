"""Templates and what they may call: the owner of Jinja2.

In:  the name of a template and its values.
Out: HTML. Everything is escaped that is not made by `charts.py` or by `marked` below: a lesson is hostile text.
Does not know: requests, the pool.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from reme_mcp.safety.passages import Finding, Place
from reme_mcp.safety.unicode import visible
from reme_mcp.schema import now
from reme_mcp.text.plural import many
from reme_mcp.web import charts

FOLDER = Path(__file__).parent
# Where a lesson comes from; how it does is told by its outcomes.
KINDS = {"success": "from a success", "failure": "from a failure", "comparative": "from a comparison"}
MINUTE, HOUR, DAY = 60, 3_600, 86_400
MONTH_DAYS = 60


def render(template: str, **values: object) -> str:
    """Return a template, filled in."""
    return environment().get_template(template).render(**values)


def compile_templates() -> None:
    """Do before anybody waits what costs the first page the most."""
    for name in environment().list_templates():
        environment().get_template(name)


@functools.cache
def environment() -> Environment:
    """Return the one environment of all templates."""
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"seen": visible, "ago": ago, "kind": KINDS.__getitem__, "marked": marked, "many": many}
    made.globals |= {
        "bar": charts.bar,
        "plot": charts.plot,
        "days": charts.days,
        "parts_of": charts.parts_of,
        "static_file": static_file,
    }
    return made


@functools.cache
def static_file(name: str) -> str:
    """Return the text of one of our own files, for a page that can't ask for it."""
    return (FOLDER / "static" / name).read_text(encoding="utf-8")


def ago(moment: datetime) -> str:
    """Return how long ago a moment was, in words; its month, where that is longer than two months."""
    seconds = (now() - moment).total_seconds()
    if seconds < MINUTE:
        return "just now"
    if seconds < HOUR:
        return f"{int(seconds // MINUTE)} min ago"
    if seconds < DAY:
        return f"{int(seconds // HOUR)} h ago"
    days = int(seconds // DAY)
    if days < MONTH_DAYS:
        return f"{many(days, 'day')} ago"
    return f"{moment:%b %Y}"


def marked(text: str, findings: Sequence[Finding], place: Place) -> Markup:
    """Return a text, escaped, its hidden characters spelled out, with the passages marked that rules found in it."""
    spans = sorted((one.start, one.end) for one in findings if one.place == place and one.end)
    parts: list[Markup] = []
    at = 0
    for start, end in spans:
        start = max(start, at)
        if end <= start:
            continue
        parts += [escape(visible(text[at:start])), Markup("<mark>{}</mark>").format(visible(text[start:end]))]
        at = end
    return Markup("").join([*parts, escape(visible(text[at:]))])
