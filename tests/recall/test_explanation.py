"""Why a note was handed out, and why another was not; nobody is counted for having looked."""

from __future__ import annotations

import json

import pytest

from reme_mcp.config.settings import RecallSettings, Settings
from reme_mcp.errors import InvalidInput
from reme_mcp.memory.memory import Memory
from reme_mcp.results import ExplainResult
from tests.fakes import Run, draft

LONG = "Compare the memory limit with the peak usage before anything else is changed. " * 20


async def learn(memory: Memory, count: int, **changes: object) -> None:
    for number in range(count):
        lesson = draft(number, when_to_use=f"Publish a static site, way {number} of many", **changes)
        await memory.record(f"publish a site {number}", outcome="success", experiences=[lesson], source="test")


def with_recall(settings: Settings, **recall: object) -> Settings:
    return settings.model_copy(update={"recall": RecallSettings.model_validate(recall)})


def rules(found: ExplainResult) -> list[str]:
    return [one.rule for one in found.experiences]


@pytest.mark.anyio
async def test_an_explanation_hands_out_what_a_recall_does_and_writes_nothing(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        await learn(memory, 3)
        found = await memory.explain("publish a static site")
        assert (await memory.pool.stats()).receipts["recalls"] == 0
        recalled = await memory.recall("publish a static site", source="test")
        assert (await memory.pool.stats()).receipts["recalls"] == 1
        handed_out = [one.id for one in found.experiences if one.rule == "handed_out"]
        assert handed_out == [one.id for one in recalled.experiences]
        assert recalled.guidance.startswith(found.guidance)
        assert 0 < found.tokens <= settings.recall.token_budget


@pytest.mark.anyio
async def test_what_is_behind_the_limit_is_there_with_its_reason(settings: Settings) -> None:
    async with Memory.open(with_recall(settings, limit=2)) as memory:
        await learn(memory, 4)
        found = await memory.explain("publish a static site")
        assert rules(found) == ["handed_out"] * 2 + ["limit"] * 2
        assert [one.rank for one in found.experiences] == [1, 2, 3, 4]
        assert rules(await memory.explain("publish a static site", limit=3)) == ["handed_out"] * 3 + ["limit"]


@pytest.mark.anyio
async def test_what_does_not_fit_the_budget_is_there_with_its_reason(settings: Settings) -> None:
    async with Memory.open(with_recall(settings, token_budget=100)) as memory:
        await learn(memory, 2, content=LONG)
        found = await memory.explain("publish a static site")
        assert rules(found) == ["handed_out", "token_budget"]
        assert "100 tokens" in found.experiences[1].why


@pytest.mark.anyio
async def test_what_is_below_the_floor_is_there_with_its_reason(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        await learn(memory, 1)
        found = await memory.explain("publish a cookery book about soup")
        assert rules(found) == ["floor"]
        assert found.guidance == "Nothing in the pool fits this task."
    async with Memory.open(with_recall(settings, floor=False)) as memory:
        assert rules(await memory.explain("publish a cookery book about soup")) == ["handed_out"]


@pytest.mark.anyio
async def test_the_arguments_are_checked_as_those_of_a_recall(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        with pytest.raises(InvalidInput, match="limit is 21"):
            await memory.explain("publish", limit=21)
        with pytest.raises(InvalidInput, match="task"):
            await memory.explain(" ")


def test_the_command_line_explains_in_words_and_as_json(run: Run) -> None:
    record = {"task": "publish", "outcome": "success", "experiences": [draft()]}
    run("record", "-", given=json.dumps(record))
    query = str(draft()["when_to_use"])
    found = json.loads(run("recall", query, "--explain", "--json").stdout)
    assert [one["rule"] for one in found["experiences"]] == ["handed_out"]
    text = run("recall", query, "--explain").stdout
    assert "1 of 1 found would be handed out" in text
    assert found["experiences"][0]["id"] in text
    assert "not handed out (floor)" in run("recall", "a static soup for many guests", "--explain").stdout
    assert "leave --receipt out" in run("recall", query, "--explain", "--receipt").stderr
    assert "--as goes with --explain" in run("recall", query, "--as", "alice").stderr
    assert (
        "no holder 'alice' has brought a lesson here (nobody has)"
        in run("recall", query, "--explain", "--as", "alice").stderr
    )
    assert json.loads(run("stats", "--json").stdout)["receipts"]["recalls"] == 0


def test_a_recall_of_a_person_leaves_no_trace_unless_it_is_asked_to(run: Run) -> None:
    run("recall", "publish a site")
    assert json.loads(run("recall", "publish a site", "--json").stdout)["receipt"] == ""
    assert json.loads(run("stats", "--json").stdout)["receipts"]["recalls"] == 0
    assert "record_trajectory" not in run("recall", "publish a site").stdout
    assert json.loads(run("recall", "publish a site", "--receipt", "--json").stdout)["receipt"].startswith("r-")
    assert json.loads(run("stats", "--json").stdout)["receipts"]["recalls"] == 1
