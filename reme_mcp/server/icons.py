"""Small pictures that a client may show beside the server, its tools, its resources and its prompts.

In:  a name.
Out: an icon as a `data:` address, which no client needs the network for.
Does not know: who shows it.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Literal

from mcp.types import Icon

Name = Literal["server", "recall", "record", "rate", "resource", "prompt"]
# Lines on a field of 20 by 20, in a blue that is legible on light and on dark.
_LINES: dict[Name, str] = {
    "server": "M4 5.5A7 7 0 1 1 3.6 13M9.8 12.5 3.4 13l.6 4.6",
    "recall": "M8.5 3a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11M12.5 12.5 17 17",
    "record": "M10 4v12M4 10h12",
    "rate": "M3 11l4 4L17 5",
    "resource": "M4 5h12M4 10h12M4 15h7",
    "prompt": "M3 4h14v9H9l-4 3v-3H3z",
}


def icons(name: Name) -> list[Icon]:
    """Return the one icon of this name, in a list as the protocol has it."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 20 20" fill="none" stroke="#2f6fde" stroke-width="2">'
        f'<path d="{_LINES[name]}"/></svg>'
    )
    return [Icon(src=f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}", mime_type="image/svg+xml")]
