"""Numbers with their nouns."""

from __future__ import annotations

import pytest

from reme_mcp.text.plural import many


@pytest.mark.parametrize(("count", "said"), [(0, "0 tasks"), (1, "1 task"), (2, "2 tasks"), (1200, "1,200 tasks")])
def test_one_is_no_plural(count: int, said: str) -> None:
    assert many(count, "task") == said
