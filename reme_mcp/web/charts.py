"""Charts as inline SVG: bars of outcomes, the plot with the removal field, thirty days, the parts of a ranking.

In:  numbers.
Out: markup without any style in it; the sheet colours it by its classes.
Does not know: where the numbers come from, or the page around a chart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from reme_mcp.memory.overview import Day, Removal
from reme_mcp.recall.ranking import WEIGHTS
from reme_mcp.refine.rules import share_interval
from reme_mcp.results import RankingNumbers
from reme_mcp.text.plural import many

BAR_WIDTH, BAR_HEIGHT = 84, 8
PLOT_WIDTH, PLOT_HEIGHT = 306, 206
PLOT_LEFT, PLOT_RIGHT, PLOT_TOP, PLOT_BOTTOM = 38, 12, 12, 40
DAY_WIDTH, DAY_HEIGHT = 10.2, 44
MAX_DOT = 9.0


def bar(utility: int, frequency: int, *, early: bool) -> Markup:
    """Return the share of good outcomes as a bar, a tick at the half, and a line from end to end of its interval."""
    if not frequency:
        return Markup(
            '<svg class="bar none" viewBox="0 0 84 8" preserveAspectRatio="none" role="img" aria-label="not tried yet">'
            '<rect class="n" width="84" height="8"/></svg>'
        )
    low, high = share_interval(utility, frequency)
    said = f"{utility} of {frequency} good; {low:.0%} to {high:.0%} with 95 % confidence"
    width, left, right = (BAR_WIDTH * share for share in (utility / frequency, low, high))
    kind = "bar early" if early else "bar"
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(said)}">'
        f"<title>{escape(said)}</title>"
        f'<rect class="n" width="{BAR_WIDTH}" height="{BAR_HEIGHT}"/>'
        f'<rect class="y" width="{width:.1f}" height="{BAR_HEIGHT}"/>'
        f'<rect class="t" x="41" width="2" height="{BAR_HEIGHT}"/>'
        f'<rect class="i" x="{left:.1f}" y="3.25" width="{right - left:.1f}" height="1.5"/></svg>'
    )


def plot(points: Mapping[tuple[int, int], int], removal: Removal, *, me: tuple[int, int] | None = None) -> Markup:
    """Return lessons by known outcomes and good ones, and the field in which the removal rule takes them.

    Args:
        points: For each (known outcomes, good ones), how many lessons have them.
        removal: Its numbers are the edges of the field.
        me: The point to mark.
    """
    most = max([removal.min_frequency * 2, 10, *(known for known, _ in points)])
    wide, high = PLOT_WIDTH - PLOT_LEFT - PLOT_RIGHT, PLOT_HEIGHT - PLOT_TOP - PLOT_BOTTOM

    def x(known: float) -> float:
        return PLOT_LEFT + wide * math.log2(known + 1) / math.log2(most + 1)

    def y(share: float) -> float:
        return PLOT_TOP + high * (1 - share)

    left, top = x(removal.min_frequency - 0.35), y(removal.max_utility_ratio)
    right, bottom = PLOT_WIDTH - 4, PLOT_TOP + high + 7
    parts = [
        f'<svg class="chart" viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" '
        f'aria-label="Lessons by known outcomes and the share of them that was good">',
        f'<rect class="field" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}"/>',
    ]
    for share in (1.0, 0.5, 0.0):
        parts.append(f'<line class="ax" x1="{PLOT_LEFT}" x2="{right}" y1="{y(share):.1f}" y2="{y(share):.1f}"/>')
        parts.append(f'<text x="{PLOT_LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    parts.append(f'<path class="cut" d="M{left:.1f} {bottom:.1f}V{top:.1f}H{right:.1f}"/>')
    if top < y(0) - 24:
        parts.append(f'<text x="{right - 3}" y="{top + 13:.1f}" text-anchor="end">leaves recall</text>')
    for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000):
        if tick <= most:
            parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 13:.1f}" text-anchor="middle">{tick}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 28:.1f}" text-anchor="end">known outcomes</text>')
    for (known, good), count in sorted(points.items()):
        radius = min(MAX_DOT, 3.6 + 1.3 * math.sqrt(count - 1))
        kind = "e" if known < removal.min_frequency else "d" if good <= removal.max_utility_ratio * known else "g"
        kind += " me" if (known, good) == me else ""
        parts.append(
            f'<circle class="{kind}" cx="{x(known):.1f}" cy="{y(good / known):.1f}" r="{radius:.1f}">'
            f"<title>{many(count, 'lesson')}: {good} of {known} good</title></circle>"
        )
    return Markup("".join([*parts, "</svg>"]))


def days(each: Sequence[Day]) -> Markup:
    """Return a stacked bar for each day: good outcomes of what was handed out, and the others."""
    most = max([1, *(day.helped + day.failed for day in each)])
    width = DAY_WIDTH * len(each)
    parts = [
        f'<svg class="chart spark" viewBox="0 0 {width:.0f} {DAY_HEIGHT + 16}" role="img" '
        'aria-label="Known outcomes of the last thirty days">'
    ]
    for place, day in enumerate(each):
        bad, good = (DAY_HEIGHT * count / most for count in (day.failed, day.helped))
        left = place * DAY_WIDTH
        title = f"<title>{day.date:%d %b}: {day.helped} good, {day.failed} not</title>"
        if day.helped + day.failed == 0:
            parts.append(f'<rect class="o" x="{left:.1f}" y="{DAY_HEIGHT - 1}" width="9" height="1">{title}</rect>')
            continue
        parts.append(f"<g>{title}")
        top = DAY_HEIGHT - good - bad
        parts.append(f'<rect class="f" x="{left:.1f}" y="{top:.1f}" width="9" height="{bad:.1f}"/>')
        parts.append(f'<rect class="g" x="{left:.1f}" y="{DAY_HEIGHT - good:.1f}" width="9" height="{good:.1f}"/></g>')
    parts.append(f'<text x="0" y="{DAY_HEIGHT + 13}">{len(each)} days ago</text>')
    parts.append(f'<text x="{width:.0f}" y="{DAY_HEIGHT + 13}" text-anchor="end">today</text></svg>')
    return Markup("".join(parts))


def parts_of(numbers: RankingNumbers) -> Markup:
    """Return what a relevance is made of: words, meaning, neighbours."""
    alone = 1 - WEIGHTS.neighbours
    by_vector = 0.0 if numbers.vector_relevance is None else WEIGHTS.vector
    shares = [
        ("w", alone * (1 - by_vector) * numbers.text_relevance, "words"),
        ("v", alone * by_vector * (numbers.vector_relevance or 0.0), "meaning"),
        ("nb", WEIGHTS.neighbours * numbers.neighbour_relevance, "neighbours"),
    ]
    said = ", ".join(f"{name} {share:.2f}" for _, share, name in shares)
    cells, left = [], 0.0
    for kind, share, _ in shares:
        cells.append(f'<rect class="{kind}" x="{left:.1f}" width="{100 * share:.1f}" height="8"/>')
        left += 100 * share
    return Markup(
        f'<svg class="stack" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
        f'<title>{escape(said)}</title><rect class="bg" width="100" height="8"/>{"".join(cells)}</svg>'
    )
