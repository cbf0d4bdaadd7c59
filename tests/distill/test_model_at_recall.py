"""What distilling costs, and the model at a recall."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from reme_mcp.config.settings import LLMSettings, RecallSettings, Settings
from reme_mcp.errors import EndpointError
from reme_mcp.memory.memory import ConnectLLM, Memory
from reme_mcp.models.llm import LLM
from reme_mcp.models.usage import Allowance
from reme_mcp.recall.rerank import Order, Rewriting
from reme_mcp.schema import Spent, now
from tests.distill.queue_cases import Hanging, connecting, success, work
from tests.distill.queue_cases import settings as settings
from tests.fakes import (
    GOOD,
    ScriptedLLM,
    draft,
    lesson,
    patterns,
)

pytestmark = pytest.mark.anyio


# --- costs ---


class Costly(ScriptedLLM):
    """A model whose answers take 110 tokens each."""

    def __init__(self, on_spent: Callable[[Spent], None], *answers: Any) -> None:
        super().__init__(*answers)
        self._on_spent = on_spent

    async def answer(self, purpose: Any, system: str, user: str, shape: Any) -> Any:
        spent = Spent(purpose, "scripted", now(), 1, 100, 10, False, 0.5, True)
        self._on_spent(spent)
        return await super().answer(purpose, system, user, shape)


async def test_costs_are_kept_by_purpose_and_count_against_the_next_days_budget(settings: Settings) -> None:
    seen: list[Allowance] = []

    def connect(llm: LLMSettings, allowance: Allowance, on_spent: Callable[[Spent], None]) -> LLM:
        seen.append(allowance)
        return Costly(on_spent, patterns(lesson(0)), GOOD)

    limited = settings.model_copy(update={"llm": settings.llm.model_copy(update={"tokens_per_day": 200})})
    async with Memory.open(limited, connect=connect) as memory, Memory.open(limited, connect=connect) as at_its_side:
        await at_its_side.pool.page()
        await success(memory)
        await work(memory)
        costs = (await memory.pool.stats()).llm
        assert {purpose: (one.questions, one.tokens_in, one.tokens_out) for purpose, one in costs.items()} == {
            "distill": (1, 100, 10),
            "judge": (1, 100, 10),
        }
        # Another that was open all the while knows when it is about to spend more.
        seen[1].check()
        await work(at_its_side)
        with pytest.raises(EndpointError, match="budget is used up: 220 of"):
            seen[1].check()
    async with Memory.open(limited, connect=connect) as memory:
        await memory.pool.page()
        with pytest.raises(EndpointError, match="budget is used up: 220 of"):
            seen[-1].check()


def limited_to(tokens_per_day: int, settings: Settings) -> tuple[Settings, list[Allowance], ConnectLLM]:
    """Return settings with a model that orders notes, the allowances of those that are opened with it, and it."""
    seen: list[Allowance] = []

    def connect(llm: LLMSettings, allowance: Allowance, on_spent: Callable[[Spent], None]) -> LLM:
        seen.append(allowance)
        return Costly(on_spent, *[Order(order=["2", "1"])] * 2)

    limited = settings.model_copy(update={"llm": settings.llm.model_copy(update={"tokens_per_day": tokens_per_day})})
    return with_recall(limited, rerank=True), seen, connect


async def until_stored(memory: Memory, questions: int) -> None:
    with anyio.fail_after(30):
        while sum(one.questions for one in (await memory.pool.stats()).llm.values()) < questions:  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def check_again_and_again(allowance: Allowance) -> None:
    with anyio.fail_after(30):
        while True:
            allowance.check()
            await anyio.sleep(0.01)


async def test_what_others_spend_at_their_recalls_counts_however_busy_the_pool_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reme_mcp.memory.memory.QUIET_S", 3_600.0)
    monkeypatch.setattr("reme_mcp.memory.memory.COSTS_S", 0.0)
    await fill(settings)
    asking, seen, connect = limited_to(330, settings)
    async with Memory.open(asking, connect=connect) as one, Memory.open(asking, connect=connect) as other:
        await one.recall("a site has to go online", source="test")
        await until_stored(other, 1)
        for _ in range(2):
            await other.recall("a site has to go online", source="test")
        with pytest.raises(EndpointError, match="budget is used up: 330 of"):
            await check_again_and_again(seen[1])


async def test_what_is_not_stored_yet_counts_beside_what_others_have_stored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QUIET_S", "COSTS_S"):
        monkeypatch.setattr(f"reme_mcp.memory.memory.{name}", 3_600.0)
    await fill(settings)
    asking, seen, connect = limited_to(330, settings)
    async with Memory.open(asking, connect=connect) as one, Memory.open(asking, connect=connect) as other:
        for memory in (one, other):
            await memory.recall("a site has to go online", source="test")
        await until_stored(other, 2)
        await one.recall("a site has to go online", source="test")
        await work(one)
        with pytest.raises(EndpointError, match="budget is used up: 330 of"):
            seen[0].check()


def with_recall(settings: Settings, **recall: Any) -> Settings:
    return settings.model_copy(update={"recall": RecallSettings(**recall)})


async def fill(settings: Settings) -> None:
    async with Memory.open(settings.model_copy(update={"llm": LLMSettings()})) as memory:
        for number in (0, 1):
            await memory.record(
                "Put a site online",
                outcome="success",
                experiences=[draft(number, when_to_use=f"When a site has to go online, case {number}")],
                source="test",
            )


# --- recall ---


async def test_the_model_orders_the_notes(settings: Settings) -> None:
    await fill(settings)
    async with Memory.open(settings.model_copy(update={"llm": LLMSettings()})) as memory:
        plain = await memory.recall("a site has to go online", source="test")
    llm = ScriptedLLM(Order(order=["2", "1"]))
    async with Memory.open(with_recall(settings, rerank=True), connect=connecting(llm)) as memory:
        ordered = await memory.recall("a site has to go online", source="test")
    assert [one.id for one in ordered.experiences] == [one.id for one in reversed(plain.experiences)]
    assert len(plain.experiences) == 2


async def test_the_model_rewrites_the_guidance_and_no_record(settings: Settings) -> None:
    await fill(settings)
    llm = ScriptedLLM(Rewriting(guidance="Build first [1]."))
    async with Memory.open(with_recall(settings, rewrite=True), connect=connecting(llm)) as memory:
        before = await memory.pool.page()
        recalled = await memory.recall("a site has to go online", source="test")
        assert await memory.pool.page() == before
    assert "> Build first [1]." in recalled.guidance
    assert all(one.content.splitlines()[0] in recalled.guidance for one in recalled.experiences)


@pytest.mark.parametrize("switch", ["rerank", "rewrite"])
@pytest.mark.parametrize(
    ("llm", "says"), [(Hanging, "took longer than 0.05 s"), (lambda: ScriptedLLM(EndpointError("away")), "away")]
)
async def test_a_model_that_is_slow_or_away_changes_nothing(
    settings: Settings, switch: str, llm: Callable[[], LLM], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(settings)
    async with Memory.open(settings.model_copy(update={"llm": LLMSettings()})) as memory:
        plain = await memory.recall("a site has to go online", source="test")
    monkeypatch.setattr("reme_mcp.recall.search.LLM_DEADLINE_S", 0.05)
    asking = with_recall(settings, **{switch: True})
    async with Memory.open(asking, connect=connecting(llm())) as memory:
        recalled = await memory.recall("a site has to go online", source="test")
    assert [one.id for one in recalled.experiences] == [one.id for one in plain.experiences]
    assert says in recalled.note
