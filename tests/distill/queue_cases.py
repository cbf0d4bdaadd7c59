"""What the tests of queue share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from reme_mcp.config.settings import EmbedderSettings, LLMSettings, Settings
from reme_mcp.memory.memory import ConnectLLM, Memory
from reme_mcp.models.llm import LLM
from reme_mcp.models.usage import Allowance
from reme_mcp.schema import Spent, Trajectory

STEPS = "Built the site with hugo, then uploaded the public folder with rsync."


@pytest.fixture
def settings(home: Path) -> Settings:
    llm = LLMSettings(base_url="http://127.0.0.1:9/v1", model="scripted")
    return Settings(home=str(home), embedder=EmbedderSettings(provider="none"), llm=llm)


def connecting(llm: LLM) -> ConnectLLM:
    def connect(settings: LLMSettings, allowance: Allowance, on_spent: Callable[[Spent], None]) -> LLM:
        return llm

    return connect


async def work(memory: Memory) -> list[Trajectory]:
    """Let the model work on the queue, and return the trajectories as they are then."""
    seen: list[Trajectory] = []

    async def done(trajectory: Trajectory) -> None:
        seen.append(trajectory)

    assert await memory.distill(done) == len(seen)
    return seen


async def success(memory: Memory, task: str = "Put my blog online", **more: Any) -> str:
    result = await memory.record(task, outcome="success", steps=STEPS, source="test", **more)
    assert result.status == "queued"
    return result.trajectory_id


class Hanging:
    """A model that never answers."""

    def __init__(self) -> None:
        self.asked = anyio.Event()

    async def answer(self, *question: Any) -> Any:
        self.asked.set()
        await anyio.sleep_forever()

    async def close(self) -> None:
        """Nothing is open."""
