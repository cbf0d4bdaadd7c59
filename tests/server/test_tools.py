"""The MCP surface as a client sees it, in memory: what is listed, what is answered, who hears of changes."""

from __future__ import annotations

import json
from typing import Any

import anyio
import jsonschema
import pytest
from mcp import Client, MCPDeprecationWarning, MCPError
from mcp.shared.subscriptions import ResourceUpdated
from mcp.types import ResourceUpdatedNotification, TextContent, TextResourceContents

from reme_mcp.config.settings import Settings
from reme_mcp.server.app import build_server
from tests.fakes import draft

pytestmark = pytest.mark.anyio
TASK = "Start the engine of the car"
LESSON = {"when_to_use": "Before starting an engine", "content": "Lock all doors and press the brake first."}
CHINESE = {"when_to_use": "启动发动机之前应当注意的事情", "content": "先锁好所有车门并踩住刹车再启动发动机。" * 60}


def client(settings: Settings, **options: Any) -> Client:
    return Client(build_server(settings), **options)


async def call(one: Client, tool: str, **arguments: object) -> dict[str, Any]:
    answer = await one.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert answer.structured_content is not None
    return dict(answer.structured_content)


async def text_of(one: Client, tool: str, **arguments: object) -> str:
    content = (await one.call_tool(tool, arguments)).content
    assert len(content) == 1
    assert isinstance(content[0], TextContent)
    return content[0].text


async def read(one: Client, uri: str) -> Any:
    content = (await one.read_resource(uri)).contents[0]
    assert isinstance(content, TextResourceContents)
    return json.loads(content.text)


def size(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())


# --- what a model reads on every turn ---


async def test_the_tools_fit_into_their_budget_of_bytes(settings: Settings) -> None:
    async with client(settings) as one:
        tools = [
            tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in (await one.list_tools()).tools
        ]
    assert [tool["name"] for tool in tools] == ["recall_experiences", "record_trajectory", "rate_experience"]
    assert size([{key: tool[key] for key in ("name", "description", "inputSchema")} for tool in tools]) <= 5_000
    assert size({"tools": tools}) <= 9_000


async def test_each_description_begins_with_when_to_call(settings: Settings) -> None:
    async with client(settings) as one:
        for tool in (await one.list_tools()).tools:
            assert (tool.description or "").startswith(("Call before", "Call when"))
        assert "recall_experiences" in (one.instructions or "")


async def test_the_annotations_are_true(settings: Settings) -> None:
    async with client(settings) as one:
        hints = {tool.name: tool.annotations for tool in (await one.list_tools()).tools}
    assert all(hint is not None and hint.open_world_hint is False for hint in hints.values())
    destructive = {name for name, hint in hints.items() if hint is not None and hint.destructive_hint}
    assert destructive == {"record_trajectory", "rate_experience"}


@pytest.mark.parametrize("lesson", [draft(0) | {"content": "Compare the limit with the peak. " * 60}, CHINESE])
async def test_the_text_of_a_default_recall_fits_into_its_budget(settings: Settings, lesson: dict[str, object]) -> None:
    async with client(settings) as one:
        for number in range(5):
            kind = {"when_to_use": f"{lesson['when_to_use']} {number}", "content": f"{number}: {lesson['content']}"}
            await call(one, "record_trajectory", task=f"task {number}", outcome="failure", experiences=[kind])
        text = await text_of(one, "recall_experiences", task=str(lesson["when_to_use"]))
    assert len(text.encode()) <= 4_800
    assert "> " in text


# --- what is answered ---


async def test_every_result_is_what_its_schema_says(settings: Settings) -> None:
    async with client(settings) as one:
        schemas = {tool.name: tool.output_schema for tool in (await one.list_tools()).tools}
        empty = await call(one, "recall_experiences", task=TASK)
        brief = await call(one, "record_trajectory", task=TASK, outcome="failure", receipt=empty["receipt"])
        learned = await call(
            one, "record_trajectory", trajectory_id=brief["trajectory_id"], experiences=[LESSON, {"content": "no"}]
        )
        full = await call(one, "recall_experiences", task=TASK, tools=["startEngine"])
        rated = await call(one, "rate_experience", experience_id=learned["added"][0], helpful=True)
        for name, results in (
            ("recall_experiences", [empty, full]),
            ("record_trajectory", [brief, learned]),
            ("rate_experience", [rated]),
        ):
            for result in results:
                assert schemas[name] is not None
                jsonschema.validate(result, schemas[name])
        assert learned["rejected"][0]["reason"].startswith("when_to_use")
        assert full["experiences"][0]["id"] == learned["added"][0]
        assert "Lock all doors" in await text_of(one, "recall_experiences", task=TASK)


async def test_a_list_that_arrives_as_json_text_is_understood(settings: Settings) -> None:
    async with client(settings) as one:
        answer = await call(one, "record_trajectory", task=TASK, outcome="success", experiences=json.dumps([LESSON]))
        assert len(answer["added"]) == 1


async def test_the_first_call_reports_progress(settings: Settings) -> None:
    told = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with client(settings) as one:
        await one.call_tool("recall_experiences", {"task": TASK}, progress_callback=hear)
    assert told == ["opening the pool"]


async def test_an_unknown_tool_is_refused_with_the_names_of_the_others(settings: Settings) -> None:
    async with client(settings) as one:
        with pytest.raises(MCPError, match="recall_experiences"):
            await one.call_tool("forget_everything", {})


# --- resources and prompts ---


async def test_pages_followed_to_the_end_show_each_experience_once(settings: Settings) -> None:
    async with client(settings) as one:
        for start in range(0, 60, 5):
            lessons = [
                {"when_to_use": f"Handling order number {n}", "content": f"Use the {n} drawer, {n * 7919} times."}
                for n in range(start, start + 5)
            ]
            await call(one, "record_trajectory", task=f"task {start}", outcome="success", experiences=lessons)
        ids: list[str] = []
        uri: str | None = "reme://experiences"
        while uri:
            page = await read(one, uri)
            ids += [listed["id"] for listed in page["experiences"]]
            uri = page["next"]
        assert len(ids) == len(set(ids)) == 60


async def test_a_workspace_has_its_own_listing_and_stats(settings: Settings) -> None:
    async with client(settings) as one:
        answer = await call(
            one, "record_trajectory", task=TASK, outcome="success", experiences=[LESSON], workspace="team-a"
        )
        assert (await read(one, "reme://experiences"))["experiences"] == []
        assert len((await read(one, "reme://experiences?workspace=team-a"))["experiences"]) == 1
        assert (await read(one, "reme://stats?workspace=team-a"))["experiences"] == {"active": 1}
        shown = await read(one, f"reme://experiences/{answer['added'][0]}?workspace=team-a")
        assert (shown["task"], shown["trajectory_ids"], shown["recalled"]) == (TASK, [answer["trajectory_id"]], 0)
        with pytest.raises(MCPError, match="in workspace 'default'"):
            await one.read_resource(f"reme://experiences/{answer['added'][0]}")


async def test_an_experience_and_the_stats_tell_the_lift(settings: Settings) -> None:
    async with client(settings) as one:
        answer = await call(one, "record_trajectory", task=TASK, outcome="success", experiences=[LESSON])
        uri = f"reme://experiences/{answer['added'][0]}"
        assert (await read(one, uri))["lift"] == "no outcome is known"
        recalled = await call(one, "recall_experiences", task=TASK)
        await call(one, "record_trajectory", task=TASK, outcome="failure", receipt=recalled["receipt"])
        assert "not shown to be caused" in (await read(one, uri))["lift"]
        assert sum((await read(one, "reme://stats"))["lift"].values()) == 1


async def test_what_stands_beside_the_text_of_a_recall_is_short_and_does_not_repeat_it(settings: Settings) -> None:
    lesson = {"when_to_use": "When a car has to be started", "content": "Lock all doors and press the brake. " * 8}
    async with client(settings) as one:
        await call(one, "record_trajectory", task=TASK, outcome="success", experiences=[lesson])
        answer = await one.call_tool("recall_experiences", {"task": TASK})
        assert isinstance(answer.content[0], TextContent)
        assert answer.structured_content is not None
        assert set(answer.structured_content) == {"experiences", "receipt", "search", "note"}
        (shown,) = answer.structured_content["experiences"]
        assert list(shown) == ["id", "when_to_use", "content", "kind", "frequency", "utility", "relevance"]
        assert size(answer.structured_content) <= 1.3 * len(answer.content[0].text.encode())


async def test_the_text_of_a_default_recall_has_a_limit(settings: Settings) -> None:
    async with client(settings) as one:
        for number in range(6):
            lesson = {"when_to_use": f"{TASK}, way {number} " * 8, "content": f"Turn the key {number} of many. " * 60}
            await call(one, "record_trajectory", task=f"{TASK} {number}", outcome="success", experiences=[lesson])
        text = await text_of(one, "recall_experiences", task=TASK)
        assert 3_000 < len(text.encode()) <= 4_800


async def test_a_receipt_can_be_read_with_the_numbers_behind_it_and_what_came_of_it(settings: Settings) -> None:
    async with client(settings) as one:
        learned = await call(one, "record_trajectory", task=TASK, outcome="success", experiences=[LESSON])
        receipt = (await call(one, "recall_experiences", task=TASK))["receipt"]
        shown = await read(one, f"reme://receipts/{receipt}")
        assert (shown["receipt"], shown["task"], shown["workspace"]) == (receipt, TASK, "default")
        (line,) = shown["experiences"]
        assert (line["id"], line["rank"], line["helped"]) == (learned["added"][0], 1, None)
        assert line["numbers"]["text_relevance"] == 1
        await call(one, "record_trajectory", task=TASK, outcome="failure", experiences=[], receipt=receipt)
        (line,) = (await read(one, f"reme://receipts/{receipt}"))["experiences"]
        assert (line["helped"], line["settled_by"]) == (False, "trajectory")
        with pytest.raises(MCPError, match="r-nothing"):
            await one.read_resource("reme://receipts/r-nothing")


@pytest.mark.parametrize(
    "uri",
    ["reme://nothing", "reme://receipts", "reme://receipts/a/b", "reme://experiences/a/b",
     "reme://experiences/../stats", "reme://experiences/%2e%2e%2fpool",
     "reme://stats/x", "file:///etc/passwd", "reme://experiences?page=0", "reme://experiences?page=two",
     "reme://experiences?workspace=../x", "reme://stats?other=1"],
)  # fmt: skip
async def test_a_uri_that_names_nothing_is_refused(settings: Settings, uri: str) -> None:
    async with client(settings) as one:
        with pytest.raises(MCPError) as caught:
            await one.read_resource(uri)
    assert caught.value.error.code == -32602


async def test_the_prompts_carry_memory_and_ask_for_it(settings: Settings) -> None:
    async with client(settings) as one:
        await call(one, "record_trajectory", task=TASK, outcome="failure", experiences=[LESSON])
        assert [prompt.name for prompt in (await one.list_prompts()).prompts] == ["start_task", "reflect"]
        texts = []
        for name in ("start_task", "reflect"):
            content = (await one.get_prompt(name, {"task": TASK})).messages[0].content
            assert isinstance(content, TextContent)
            texts.append(content.text)
        assert "Lock all doors" in texts[0]
        assert "record_trajectory" in texts[1]
        with pytest.raises(MCPError, match="task is missing"):
            await one.get_prompt("reflect", {"task": " "})
        with pytest.raises(MCPError, match="no prompt 'start'; there are start_task, reflect"):
            await one.get_prompt("start")


async def test_a_subscriber_of_today_hears_what_changed(settings: Settings) -> None:
    async with client(settings) as one, one.listen(resource_subscriptions=["reme://experiences"]) as changes:
        await call(one, "recall_experiences", task=TASK)
        await call(one, "record_trajectory", task=TASK, outcome="success", experiences=[LESSON])
        with anyio.fail_after(10):
            async for change in changes:
                assert change == ResourceUpdated(uri="reme://experiences")
                break


async def test_a_subscriber_of_the_handshake_era_hears_what_changed(settings: Settings) -> None:
    heard = anyio.Event()

    async def hear(message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification) and str(message.params.uri) == "reme://experiences":
            heard.set()

    async with client(settings, mode="legacy", message_handler=hear) as one:
        with pytest.warns(MCPDeprecationWarning):
            await one.subscribe_resource("reme://experiences")
        await call(one, "record_trajectory", task=TASK, outcome="success", experiences=[LESSON])
        with anyio.fail_after(10):
            await heard.wait()
