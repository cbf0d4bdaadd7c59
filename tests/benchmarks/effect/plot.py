"""The arms as bars with their intervals: in text for a terminal, in SVG for a page.

In:  for each arm its rate and its interval, 0 to 1.
Out: text, SVG.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from tests.benchmarks.effect.statistics import Effect

WIDTH = 50


def in_text(effects: Mapping[str, Effect]) -> str:
    """Return a line an arm: `#` up to the rate, `-` over the interval."""
    lines = []
    for name, one in effects.items():
        cells = [" "] * (WIDTH + 1)
        for place in range(round(one.rate * WIDTH)):
            cells[place] = "#"
        for place in range(round(one.low * WIDTH), round(one.high * WIDTH) + 1):
            cells[place] = "-" if cells[place] == " " else "="
        lines.append(f"{name:>9} |{''.join(cells)}| {100 * one.rate:5.1f} %")
    return "\n".join(lines)


def in_svg(effects: Mapping[str, Effect]) -> str:
    """Return the same as a picture of 640 pixels."""
    rows = []
    for place, (name, one) in enumerate(effects.items()):
        y = 20 + 34 * place
        rows.append(
            f'<text x="92" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="100" y="{y}" width="{500 * one.rate:.1f}" height="20" fill="#4a7fb5"/>'
            f'<line x1="{100 + 500 * one.low:.1f}" x2="{100 + 500 * one.high:.1f}" y1="{y + 10}" y2="{y + 10}" '
            f'stroke="#1b1b1b" stroke-width="2"/><text x="606" y="{y + 14}">{100 * one.rate:.0f} %</text>'
        )
    height = 40 + 34 * len(rows)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="660" height="{height}" font-family="sans-serif" '
        f'font-size="13"><rect width="660" height="{height}" fill="#fff"/>{"".join(rows)}</svg>\n'
    )
