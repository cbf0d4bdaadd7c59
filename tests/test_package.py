"""What a program imports from the top of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import reme_mcp
from reme_mcp import Memory, Settings
from reme_mcp.config.settings import EmbedderSettings

pytestmark = pytest.mark.anyio


async def test_a_program_opens_a_memory_by_the_two_names_at_the_top(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path / "home"), embedder=EmbedderSettings(provider="none"))
    async with Memory.open(settings) as memory:
        recorded = await memory.record(
            "Deploy the blog",
            outcome="success",
            experiences=[{"when_to_use": "Before deploying the blog", "content": "Build with production settings."}],
            source="my-agent",
        )
        recalled = await memory.recall("Deploy the blog", source="my-agent")
    assert [one.id for one in recalled.experiences] == recorded.added


def test_a_name_that_the_package_does_not_offer_is_refused() -> None:
    with pytest.raises(ImportError, match="Memmory"):
        exec("from reme_mcp import Memmory")
    assert set(reme_mcp.__all__) == {"Memory", "Settings", "__version__"}


def test_importing_the_package_imports_nothing_of_it(tmp_path: Path) -> None:
    code = "import sys, reme_mcp; print([name for name in sys.modules if name.startswith('reme_mcp.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "[]"
