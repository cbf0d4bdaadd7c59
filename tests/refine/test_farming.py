"""Ratings can't be farmed: over a real server with tokens, one holder neither removes nor keeps what others judge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from mcp import Client

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.hosted import Hosted, changed, hosted
from tests.http.test_doors import TASK, call, refusal

pytestmark = pytest.mark.anyio
FARMED = 12


@pytest.fixture
async def server(settings: Settings) -> AsyncIterator[Hosted]:
    async with hosted(changed(settings, "http", requests_per_minute=0)) as server:
        yield server


async def learn(one: Client, number: int = 0) -> str:
    done = await call(one, "record_trajectory", task=TASK, outcome="success", experiences=[draft(number)])
    return str(done["added"][0])


async def outcomes(one: Client, id: str, *helpful: bool) -> dict[str, object]:
    """Recall, and rate one experience by the receipt, once for each outcome; return the last answer."""
    answer: dict[str, object] = {}
    for helped in helpful:
        receipt = (await call(one, "recall_experiences", task=TASK))["receipt"]
        answer = await call(one, "rate_experience", experience_id=id, helpful=helped, receipt=receipt)
    return answer


async def test_one_holder_can_not_remove_what_another_finds_useful(server: Hosted) -> None:
    alice, mallory = await server.token("alice"), await server.token("mallory")
    async with server.client(alice) as one:
        id = await learn(one)
        await outcomes(one, id, True, True)
    # Through two clients, and both are the same holder.
    for by in ("http", "legacy"):
        async with server.client(mallory, by=by) as one:
            last = await outcomes(one, id, *[False] * (FARMED // 2))
    assert (last["frequency"], last["utility"], last["status"]) == (FARMED + 2, 2, "active")
    async with server.client(await server.token("bob")) as one:
        last = await outcomes(one, id, False)
    assert last["status"] == "archived"
    assert last["status_reason"] == f"succeeded with it 2 of {FARMED + 3}; 3 users were heard"


async def test_without_the_limit_she_could(settings: Settings) -> None:
    loose = changed(changed(settings, "http", requests_per_minute=0), "refine", outcomes_per_source=0)
    async with hosted(loose) as server:
        async with server.client(await server.token("alice")) as one:
            id = await learn(one)
            await outcomes(one, id, True, True)
        async with server.client(await server.token("mallory")) as one:
            last = await outcomes(one, id, False, False, False)
        assert last["status"] == "archived"


async def test_one_holder_can_not_keep_what_two_others_find_useless(server: Hosted) -> None:
    async with server.client(await server.token("mallory")) as one:
        id = await learn(one)
        await outcomes(one, id, *[True] * FARMED)
    async with server.client(await server.token("alice")) as one:
        assert (await outcomes(one, id, False, False))["status"] == "active"
    async with server.client(await server.token("bob")) as one:
        last = await outcomes(one, id, False)
    assert (last["status"], last["utility"]) == ("archived", FARMED)


async def test_a_rating_without_a_recall_counts_once_however_often_it_is_sent(server: Hosted) -> None:
    async with server.client(await server.token("alice")) as one:
        id = await learn(one)
    async with server.client(await server.token("mallory")) as one:
        for _ in range(FARMED):
            last = await call(one, "rate_experience", experience_id=id, helpful=False)
    assert (last["frequency"], last["status"]) == (1, "active")


async def test_a_receipt_is_settled_by_whoever_got_it(server: Hosted) -> None:
    alice, mallory = await server.token("alice"), await server.token("mallory")
    async with server.client(alice) as one:
        id = await learn(one)
        receipt = (await call(one, "recall_experiences", task=TASK))["receipt"]
    async with server.client(mallory) as one:
        said = await refusal(one, "rate_experience", experience_id=id, helpful=False, receipt=receipt)
        nothing = await refusal(one, "rate_experience", experience_id=id, helpful=False, receipt="r-nothing")
        assert said.replace(receipt, "r-nothing") == nothing
        failed = {"task": TASK, "outcome": "failure", "experiences": []}
        answer = await call(one, "record_trajectory", receipt=receipt, **failed)
        assert answer["settled"] == []
        assert [note.startswith("no receipt") for note in answer["notes"]] == [True]
    # The same holder through another client, and the person at the machine.
    async with server.client(alice, by="sse") as one:
        rated = await call(one, "rate_experience", experience_id=id, helpful=True, receipt=receipt)
    assert (rated["frequency"], rated["utility"]) == (1, 1)
    async with Memory.open(server.settings) as memory:
        by_hand = await memory.rate(id, helpful=False, receipt=receipt, source="cli")
    assert (by_hand.frequency, by_hand.utility) == (1, 0)


async def test_nobody_puts_lessons_under_the_name_of_another(server: Hosted) -> None:
    alice, mallory = await server.token("alice"), await server.token("mallory")
    async with server.client(alice) as one:
        stored = (await call(one, "record_trajectory", task=TASK, outcome="success"))["trajectory_id"]
    async with server.client(mallory) as one:
        said = await refusal(one, "record_trajectory", trajectory_id=stored, experiences=[draft(1)])
        assert "was recorded by somebody else" in said
        assert (await call(one, "recall_experiences", task=TASK))["experiences"] == []
    async with server.client(alice) as one:
        assert (await call(one, "record_trajectory", trajectory_id=stored, experiences=[draft(1)]))["added"]
