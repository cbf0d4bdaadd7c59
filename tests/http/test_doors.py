"""Every door of a server with tokens, tried with the wrong one: nothing of another workspace comes out, or goes in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from mcp import Client, MCPDeprecationWarning, MCPError
from mcp.types import ResourceUpdatedNotification

from reme_mcp.config.settings import Settings
from tests.fakes import draft
from tests.hosted import HANDSHAKE, JSON, Hosted, hosted, message

pytestmark = pytest.mark.anyio
TASK = "Put my static blog online"
SECRET = "purge the cache"  # in the lesson of tests.fakes.draft(0)
WAYS = ("http", "legacy", "sse")


@dataclass(frozen=True)
class Found:
    """What the owner of workspace `ours` has, and somebody else wants."""

    server: Hosted
    experience: str
    receipt: str
    trajectory: str


async def call(one: Client, tool: str, **arguments: object) -> dict[str, Any]:
    answer = await one.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return dict(answer.structured_content or {})


async def refusal(one: Client, tool: str, **arguments: object) -> str:
    answer = await one.call_tool(tool, arguments)
    assert answer.is_error, answer.structured_content
    return str(answer.content)


@asynccontextmanager
async def found_by(settings: Settings) -> AsyncIterator[tuple[Found, str]]:
    """Serve a pool with one lesson in `ours`; yield what is in it and its owner's token."""
    async with hosted(settings) as server:
        owner = await server.token("owner", "ours")
        async with server.client(owner) as one:
            learned = await call(one, "record_trajectory", task=TASK, outcome="success", experiences=[draft()])
            recalled = await call(one, "recall_experiences", task=TASK)
            assert SECRET in str(recalled["experiences"])
        yield Found(server, learned["added"][0], recalled["receipt"], learned["trajectory_id"]), owner


@pytest.fixture
async def found(settings: Settings) -> AsyncIterator[Found]:
    async with found_by(settings) as (found, _):
        yield found


# --- with the token of another workspace ---

Door = Callable[[Client, Found], Awaitable[str]]


async def _recall(one: Client, found: Found) -> str:
    return json.dumps(await call(one, "recall_experiences", task=TASK))


async def _recall_by_name(one: Client, found: Found) -> str:
    return await refusal(one, "recall_experiences", task=TASK, workspace="ours")


async def _rate(one: Client, found: Found) -> str:
    return await refusal(one, "rate_experience", experience_id=found.experience, helpful=False)


async def _rate_by_receipt(one: Client, found: Found) -> str:
    return await refusal(one, "rate_experience", experience_id=found.experience, helpful=False, receipt=found.receipt)


async def _rate_by_name(one: Client, found: Found) -> str:
    return await refusal(one, "rate_experience", experience_id=found.experience, helpful=False, workspace="ours")


async def _record_with_receipt(one: Client, found: Found) -> str:
    said = await call(one, "record_trajectory", task=TASK, outcome="failure", receipt=found.receipt, experiences=[])
    assert said["settled"] == []
    return json.dumps(said)


async def _record_by_name(one: Client, found: Found) -> str:
    return await refusal(one, "record_trajectory", task=TASK, outcome="failure", workspace="ours", experiences=[])


async def _add_to_trajectory(one: Client, found: Found) -> str:
    return await refusal(one, "record_trajectory", trajectory_id=found.trajectory, experiences=[draft(1)])


async def _record_failure(one: Client, found: Found) -> str:
    # A failure answers with lessons, and with earlier attempts at the same task to compare with.
    return json.dumps(await call(one, "record_trajectory", task=TASK, outcome="failure"))


async def _listing(one: Client, found: Found) -> str:
    return str((await one.read_resource("reme://experiences")).contents)


async def _stats(one: Client, found: Found) -> str:
    return str((await one.read_resource("reme://stats")).contents)


def _unreadable(uri: str) -> Door:
    async def door(one: Client, found: Found) -> str:
        with pytest.raises(MCPError) as caught:
            await one.read_resource(uri.format(id=found.experience, receipt=found.receipt))
        return str(caught.value.error)

    door.__name__ = uri
    return door


async def _prompt(one: Client, found: Found) -> str:
    return str((await one.get_prompt("start_task", {"task": TASK})).messages)


async def _reflect(one: Client, found: Found) -> str:
    return str((await one.get_prompt("reflect", {"task": TASK})).messages)


DOORS: tuple[Door, ...] = (
    _recall, _recall_by_name, _rate, _rate_by_receipt, _rate_by_name, _record_with_receipt, _record_by_name,
    _add_to_trajectory, _record_failure, _listing, _stats, _prompt, _reflect,
    *(_unreadable(uri) for uri in (
        "reme://experiences/{id}", "reme://experiences/{id}?workspace=ours", "reme://experiences?workspace=ours",
        "reme://stats?workspace=ours", "reme://experiences?workspace=ours&page=1", "reme://receipts/{receipt}",
        "reme://receipts/{receipt}?workspace=ours", "reme://experiences?workspace=",
        "reme://experiences?workspace=theirs&workspace=ours", "reme://experiences/../ours/{id}",
        "reme://experiences/..%2Fours%2F{id}", "reme://experiences/%2e%2e/{id}", "reme://experiences//{id}",
        "reme://ours/experiences", "reme://experiences@ours", "reme:///../../etc/passwd", "file:///etc/passwd",
        "reme://experiences/../../../../etc/passwd", "reme://experiences/' OR workspace='ours",
    )),
)  # fmt: skip


@pytest.mark.parametrize(("role", "may"), [("read", False), ("write", False), ("admin", True)])
async def test_what_one_holder_has_asked_another_of_its_workspace_does_not_read(
    settings: Settings, role: Any, may: bool
) -> None:
    async with found_by(settings) as (found, owner):
        uri = f"reme://receipts/{found.receipt}"
        async with found.server.client(owner) as one:
            assert TASK in str((await one.read_resource(uri)).contents)
        async with found.server.client(await found.server.token("second", "ours", role=role)) as one:
            if may:
                assert TASK in str((await one.read_resource(uri)).contents)
            else:
                with pytest.raises(MCPError, match="no receipt"):
                    await one.read_resource(uri)


@pytest.mark.parametrize("role", ["write", "admin"])
async def test_nothing_of_another_workspace_comes_out_of_any_door(settings: Settings, role: Any) -> None:
    async with found_by(settings) as (found, owner):
        before = await state_of(found, owner)
        other = await found.server.token("other", "theirs", role=role)
        for by in WAYS:
            async with found.server.client(other, by=by) as one:
                for door in DOORS:
                    answer = await door(one, found)
                    assert SECRET not in answer, (by, door.__name__)
                    assert "'active': 1" not in answer, (by, door.__name__)
                    assert found.server.settings.home not in answer or role == "admin", (by, door.__name__)
        assert await state_of(found, owner) == before


async def state_of(found: Found, owner: str) -> object:
    """Return what the owner sees of the lesson and of the pool, without looking having changed anything."""
    async with found.server.client(owner) as one:
        uris = (f"reme://experiences/{found.experience}", "reme://experiences", "reme://stats")
        return [json.loads((await one.read_resource(uri)).contents[0].text) for uri in uris]  # type: ignore[union-attr]


async def test_the_owner_comes_in_by_those_doors(settings: Settings) -> None:
    async with found_by(settings) as (found, owner):
        for by in WAYS:
            async with found.server.client(owner, by=by) as one:
                for door in (_recall, _listing, _prompt):
                    assert SECRET in await door(one, found), (by, door.__name__)
                for uri in ("reme://experiences/{id}", "reme://experiences/{id}?workspace=ours"):
                    answer = await one.read_resource(uri.format(id=found.experience))
                    assert SECRET in str(answer.contents)
                named = await call(one, "recall_experiences", task=TASK, workspace="ours")
                assert SECRET in str(named["experiences"])
                rated = await call(
                    one, "rate_experience", experience_id=found.experience, helpful=True, receipt=found.receipt
                )
                assert rated["utility"] == 1


async def test_what_exists_elsewhere_and_what_exists_nowhere_get_the_same_answer(found: Found) -> None:
    other = await found.server.token("other", "theirs")
    async with found.server.client(other) as one:
        there = await refusal(one, "rate_experience", experience_id=found.experience, helpful=True)
        nowhere = await refusal(one, "rate_experience", experience_id="e-bbbbbbbbbb", helpful=True)
        assert there.replace(found.experience, "?") == nowhere.replace("e-bbbbbbbbbb", "?")
        ours = await refusal(one, "recall_experiences", task=TASK, workspace="ours")
        none = await refusal(one, "recall_experiences", task=TASK, workspace="nowhere")
        assert ours.replace("ours", "?") == none.replace("nowhere", "?")


# --- with a token that may only read ---


@pytest.mark.parametrize("by", WAYS)
async def test_who_may_only_read_recalls_and_neither_records_nor_rates(settings: Settings, by: str) -> None:
    async with found_by(settings) as (found, owner):
        before = await state_of(found, owner)
        reader = await found.server.token("reader", "ours", role="read")
        async with found.server.client(reader, by=by) as one:
            assert [tool.name for tool in (await one.list_tools()).tools] == ["recall_experiences"]
            for tool, arguments in (
                ("record_trajectory", {"task": TASK, "outcome": "failure", "experiences": [draft(1)]}),
                ("record_trajectory", {"trajectory_id": found.trajectory, "experiences": [draft(1)]}),
                ("rate_experience", {"experience_id": found.experience, "helpful": False}),
            ):
                said = await refusal(one, tool, **arguments)
                assert f"{tool} needs a token with the role write; this one may only read" in said
            assert await state_of(found, owner) == before
            assert SECRET in str(await call(one, "recall_experiences", task=TASK))


async def test_only_an_admin_sees_where_the_pool_is_and_the_numbers_of_the_server(found: Found) -> None:
    for role, sees in (("read", False), ("write", False), ("admin", True)):
        token = await found.server.token(f"a-{role}", "ours", role=role)  # type: ignore[arg-type]
        async with found.server.client(token) as one:
            stats = json.loads((await one.read_resource("reme://stats")).contents[0].text)  # type: ignore[union-attr]
            assert ("home" in stats) is ("llm" in stats) is sees
            assert stats["workspace"] == "ours"
        async with found.server.http(token) as http:
            answer = await http.get("/metrics")
            assert answer.status_code == (200 if sees else 403)
            assert ("reme_calls_total" in answer.text) is sees


async def test_a_token_for_several_workspaces_names_the_one_that_it_means(found: Found) -> None:
    gather = await found.server.token("both", "ours", "theirs")
    async with found.server.client(gather) as one:
        assert "name one of ours, theirs" in await refusal(one, "recall_experiences", task=TASK)
        assert SECRET in str(await call(one, "recall_experiences", task=TASK, workspace="ours"))
        assert (await call(one, "recall_experiences", task=TASK, workspace="theirs"))["experiences"] == []
        with pytest.raises(MCPError, match="name one of"):
            await one.read_resource("reme://stats")


async def test_what_is_recorded_says_whose_token_it_came_with(found: Found) -> None:
    token = await found.server.token("alice", "ours")
    async with found.server.client(token) as one:
        learned = await call(one, "record_trajectory", task="Boil eggs", outcome="success", experiences=[draft(1)])
        uri = f"reme://experiences/{learned['added'][0]}"
        stored = json.loads((await one.read_resource(uri)).contents[0].text)  # type: ignore[union-attr]
        assert stored["source"].startswith("alice/")
        assert stored["workspace"] == "ours"


# --- notifications ---


async def test_nobody_may_listen_at_another_workspace(found: Found) -> None:
    other = await found.server.token("other", "theirs")
    async with found.server.client(other) as one:
        for uri in ("reme://experiences?workspace=ours", "reme://stats?workspace=ours"):
            with pytest.raises(MCPError, match="this token is for theirs"):
                async with one.listen(resource_subscriptions=[uri]):
                    pass
    for by in ("legacy", "sse"):
        async with found.server.client(other, by=by) as one:
            with pytest.warns(MCPDeprecationWarning), pytest.raises(MCPError, match="this token is for theirs"):
                await one.subscribe_resource("reme://experiences?workspace=ours")


async def test_a_listener_hears_of_its_own_workspace_only(settings: Settings) -> None:
    async with found_by(settings) as (found, owner):
        other = await found.server.token("other", "theirs")
        heard: dict[str, list[str]] = {"owner": [], "other": []}

        async def listen(name: str, token: str, started: anyio.Event) -> None:
            uris = ["reme://experiences", "reme://stats", f"reme://experiences/{found.experience}"]
            async with (
                found.server.client(token) as one,
                one.listen(resource_subscriptions=uris, resources_list_changed=True) as changes,
            ):
                started.set()
                async for change in changes:
                    heard[name].append(type(change).__name__ + " " + str(getattr(change, "uri", "")))

        async with anyio.create_task_group() as tasks:
            for name, token in (("owner", owner), ("other", other)):
                started = anyio.Event()
                tasks.start_soon(listen, name, token, started)
                await started.wait()
            async with found.server.client(owner) as one:
                await call(one, "record_trajectory", task=TASK, outcome="success", receipt=found.receipt,
                           experiences=[draft(1)])  # fmt: skip
            await until(lambda: len(heard["owner"]) == 4)
            # Only now, so that what the other hears first can be nothing but its own.
            async with found.server.client(other) as one:
                await call(one, "record_trajectory", task="x y z", outcome="success", experiences=[draft(2)])
            await until(lambda: len(heard["other"]) == 3)
            tasks.cancel_scope.cancel()
        assert sorted(heard["owner"]) == [
            "ResourceUpdated reme://experiences", f"ResourceUpdated reme://experiences/{found.experience}",
            "ResourceUpdated reme://stats", "ResourcesListChanged ",
        ]  # fmt: skip
        assert sorted(heard["other"]) == [
            "ResourceUpdated reme://experiences", "ResourceUpdated reme://stats", "ResourcesListChanged ",
        ]  # fmt: skip


@pytest.mark.parametrize("by", ["legacy", "sse"])
async def test_a_subscriber_of_the_handshake_era_hears_of_its_own_workspace_only(settings: Settings, by: str) -> None:
    async with found_by(settings) as (found, owner):
        other = await found.server.token("other", "theirs")
        heard: dict[str, list[str]] = {"owner": [], "other": []}

        def hear(name: str) -> Any:
            async def handler(message: object) -> None:
                if isinstance(message, ResourceUpdatedNotification):
                    heard[name].append(str(message.params.uri))

            return handler

        async with (
            found.server.client(owner, by=by, message_handler=hear("owner")) as one,
            found.server.client(owner, by=by, message_handler=hear("owner")) as two,
            found.server.client(other, by=by, message_handler=hear("other")) as three,
        ):
            for client in (one, two, three):
                with pytest.warns(MCPDeprecationWarning):
                    await client.subscribe_resource("reme://experiences")
            # That one leaves is nothing to the other.
            with pytest.warns(MCPDeprecationWarning):
                await two.unsubscribe_resource("reme://experiences")
            await call(one, "record_trajectory", task="Boil", outcome="success", experiences=[draft(1)])
            await until(lambda: bool(heard["owner"]))
            await call(three, "record_trajectory", task="x y z", outcome="success", experiences=[draft(2)])
            await until(lambda: bool(heard["other"]))
        assert heard == {"owner": ["reme://experiences"], "other": ["reme://experiences"]}


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110  what it waits for happens in another process's words
            await anyio.sleep(0.01)


# --- sessions ---


async def test_a_session_is_good_only_with_the_token_that_opened_it(settings: Settings) -> None:
    async with found_by(settings) as (found, owner):
        other = await found.server.token("other", "theirs")
        async with found.server.http(owner) as http:
            opened = await http.post("/mcp", json=HANDSHAKE, headers=JSON)
            session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
            ask = message("resources/read", {"uri": "reme://experiences"})
            mine = await http.post("/mcp", content=ask, headers=JSON | session)
            assert SECRET in mine.text
        async with found.server.http(other) as http:
            for answer in (
                await http.post("/mcp", content=ask, headers=JSON | session),
                await http.get("/mcp", headers=JSON | session),
                await http.delete("/mcp", headers=session),
            ):
                assert answer.status_code == 404
                assert SECRET not in answer.text
        async with found.server.http(owner) as http:
            assert SECRET in (await http.post("/mcp", content=ask, headers=JSON | session)).text
