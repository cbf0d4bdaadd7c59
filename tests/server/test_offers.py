"""What the server offers beyond tools: icons, freshness, completion, and proven lessons as skills."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from typing import Any

import pytest
import yaml
from mcp import Client, MCPError
from mcp.types import (
    PromptReference,
    Request,
    ResourceTemplateReference,
    TextResourceContents,
)

from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from reme_mcp.refine.rules import is_proven
from reme_mcp.server import skills
from reme_mcp.server.app import build_server
from reme_mcp.server.skills import EXTENSION, GetSkillResult, ListSkillsResult
from tests.fakes import counted, draft
from tests.hosted import hosted

pytestmark = pytest.mark.anyio
EXPERIENCE = "reme://experiences/{id}{?workspace}"
RECEIPT = "reme://receipts/{id}{?workspace}"
SKILL = "skill://{workspace}/{name}/SKILL.md"


async def prove(
    memory: Memory, number: int, *, workspace: str | None = None, successes: int = 4, source: str = "codex"
) -> str:
    """Learn a lesson, and let attempts succeed with it in a workspace where others fail."""
    learned = await memory.record(
        f"task {number}", outcome="failure", experiences=[draft(number)], workspace=workspace, source=source
    )
    for other in range(4):
        await memory.record(
            f"else {number} {other}", outcome="failure", experiences=[], workspace=workspace, source=source
        )
    for attempt in range(successes):
        recalled = await memory.recall(f"task {number}", workspace=workspace, source=source)
        await memory.record(
            f"task {number}",
            outcome="success",
            steps=f"attempt {attempt}",
            experiences=[],
            receipt=recalled.receipt,
            used=learned.added,
            workspace=workspace,
            source=source,
        )
    return learned.added[0]


async def bring(memory: Memory, count: int) -> None:
    """Import so many lessons that have nothing in common."""
    lines = [
        json.dumps({"when_to_use": f"Working with gadget{one} on {one}", "content": f"Turn knob{one} first."})
        for one in range(count)
    ]
    assert (await memory.pool.import_file("library.jsonl", "\n".join(lines).encode())).added == count


async def listed(one: Client, **params: object) -> ListSkillsResult:
    return await one.session.send_request(Request[Any, str](method="skills/list", params=params), ListSkillsResult)


async def got(one: Client, uri: str) -> GetSkillResult:
    return await one.session.send_request(Request[Any, str](method="skills/get", params={"uri": uri}), GetSkillResult)


async def values(one: Client, uri: str, name: str, value: str = "", **context: str) -> list[str]:
    done = await one.complete(
        ResourceTemplateReference(uri=uri), {"name": name, "value": value}, context_arguments=context or None
    )
    return done.completion.values


# --- icons, freshness ---


async def test_whatever_is_listed_has_an_icon_that_needs_no_network(settings: Settings) -> None:
    async with Client(build_server(settings)) as one:
        shown: list[Any] = [
            one.server_info,
            *(await one.list_tools()).tools,
            *(await one.list_resources()).resources,
            *(await one.list_resource_templates()).resource_templates,
            *(await one.list_prompts()).prompts,
        ]
    for item in shown:
        (icon,) = item.icons
        kind, _, text = icon.src.partition(",")
        assert kind == f"data:{icon.mime_type};base64"
        assert b64decode(text).startswith(b"<svg ")
        assert len(icon.src) < 500


async def test_a_client_learns_how_long_each_answer_is_fresh(settings: Settings) -> None:
    async with Client(build_server(settings)) as one:
        templates, tools = await one.list_resource_templates(), await one.list_tools()
        read = await one.read_resource("reme://stats")
    assert (templates.cache_scope, templates.ttl_ms > 0) == ("public", True)
    # They depend on who asks.
    assert (tools.cache_scope, tools.ttl_ms > 0) == ("private", True)
    assert (read.cache_scope, read.ttl_ms) == ("private", 0)


async def test_the_instructions_say_what_a_subagent_does(settings: Settings) -> None:
    async with Client(build_server(settings)) as one:
        assert "subagent" in (one.instructions or "")
        assert len(one.instructions or "") <= 2_000


# --- completion ---


async def test_ids_are_completed_of_lessons_and_of_recalls(settings: Settings) -> None:
    async with Client(build_server(settings)) as one:
        recorded = await one.call_tool(
            "record_trajectory", {"task": "t", "outcome": "failure", "experiences": [draft(0), draft(1)]}
        )
        receipt = (await one.call_tool("recall_experiences", {"task": "task 0"})).structured_content["receipt"]
        ids = recorded.structured_content["added"]
        assert sorted(await values(one, EXPERIENCE, "id")) == sorted(ids)
        assert await values(one, EXPERIENCE, "id", ids[0][:6]) == [ids[0]]
        assert await values(one, EXPERIENCE, "id", "e-nobody") == []
        assert await values(one, RECEIPT, "id", "r-") == [receipt]
        assert await values(one, EXPERIENCE, "page") == []
        assert await values(one, EXPERIENCE, "workspace", "de") == ["default"]


async def test_at_most_a_hundred_values_are_sent_and_all_are_counted(memory: Memory, settings: Settings) -> None:
    await bring(memory, 120)
    async with Client(build_server(settings)) as one:
        done = await one.complete(ResourceTemplateReference(uri=EXPERIENCE), {"name": "id", "value": "e-"})
    assert (len(done.completion.values), done.completion.total, done.completion.has_more) == (100, 120, True)


async def test_what_has_no_completion_is_named(settings: Settings) -> None:
    async with Client(build_server(settings)) as one:
        task = await one.complete(PromptReference(name="start_task"), {"name": "task", "value": "de"})
        assert task.completion.values == []
        with pytest.raises(MCPError, match="no prompt 'other'"):
            await one.complete(PromptReference(name="other"), {"name": "task", "value": ""})
        with pytest.raises(MCPError, match="no resource template 'reme://nothing'"):
            await values(one, "reme://nothing", "id")


async def test_completion_and_skills_show_a_guest_only_what_is_theirs(settings: Settings) -> None:
    async with hosted(settings, "http") as server:
        alice = await server.token("alice", "red", "green")
        bob = await server.token("bob", "green")
        async with server.client(alice) as one:
            await one.call_tool(
                "record_trajectory",
                {"task": "t", "outcome": "failure", "experiences": [draft(0)], "workspace": "red"},
            )
            recalled = await one.call_tool("recall_experiences", {"task": "task 0", "workspace": "green"})
            assert recalled.structured_content is not None
            assert await values(one, EXPERIENCE, "workspace") == ["red", "green"]
            assert len(await values(one, EXPERIENCE, "id", workspace="red")) == 1
            assert await values(one, RECEIPT, "id", workspace="green") == [recalled.structured_content["receipt"]]
        async with server.client(bob) as one:
            assert await values(one, EXPERIENCE, "workspace") == ["green"]
            assert await values(one, EXPERIENCE, "id") == []
            assert await values(one, RECEIPT, "id") == []
            with pytest.raises(MCPError, match="this token is for green"):
                await values(one, EXPERIENCE, "id", workspace="red")
            with pytest.raises(MCPError, match="this token is for green"):
                await got(one, "skill://red/any-0/SKILL.md")
            assert (await listed(one)).skills == []


# --- skills ---


def test_proven_is_what_stays_above_the_base_rate_when_its_uncertainty_is_taken_off() -> None:
    assert is_proven(counted("e-1", 4, 4), 0.4)
    assert not is_proven(counted("e-1", 1, 1), 0.9)
    assert not is_proven(counted("e-1", 4, 2), 0.5)
    assert not is_proven(counted("e-1", 0, 0), 0.1)
    assert not is_proven(counted("e-1", 9, 9, rated_unhelpful=1), 0.4)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_proven_lesson_is_served_as_a_skill_with_its_digest(
    memory: Memory, settings: Settings, mode: Any
) -> None:
    id = await prove(memory, 0)
    await memory.record("task 9", outcome="failure", experiences=[draft(9)], source="codex")
    async with Client(build_server(settings), mode=mode) as one:
        if mode == "auto":  # The handshake era has no place to declare it.
            assert one.server_capabilities.extensions is not None
            assert one.server_capabilities.extensions[EXTENSION] == {}
        (entry,) = (await listed(one)).skills
        (file,) = entry.resources
        (content,) = (await one.read_resource(file.uri)).contents
        assert isinstance(content, TextResourceContents)
        assert await values(one, SKILL, "name", workspace="default") == [entry.frontmatter["name"]]
        assert (await got(one, entry.uri)).skill == entry
        with pytest.raises(MCPError, match="no skill"):
            await got(one, "skill://default/nothing/SKILL.md")
        with pytest.raises(MCPError, match="cursor is 'x'"):
            await listed(one, cursor="x")
    raw = content.text.encode()
    assert file.uri == entry.uri == f"skill://default/{entry.frontmatter['name']}/SKILL.md"
    assert (file.digest, file.size) == (f"sha256:{hashlib.sha256(raw).hexdigest()}", len(raw))
    assert yaml.safe_load(content.text.split("---\n")[1]) == entry.frontmatter
    assert json.dumps(entry.frontmatter["metadata"]) == json.dumps({"author": "reme-mcp", "experiences": id})


async def test_a_holder_alone_proves_no_lesson_of_its_own_to_others(memory: Memory, settings: Settings) -> None:
    id = await prove(memory, 0, source="mallory/claude-code")
    await memory.record("task 9", outcome="failure", experiences=[draft(9)], source="codex")
    async with Client(build_server(settings)) as one:
        assert (await listed(one)).skills == []
        recalled = await memory.recall("task 0", source="alice/cursor")
        await memory.record("task 0", outcome="success", receipt=recalled.receipt, used=[id], source="alice/cursor")
        (entry,) = (await listed(one)).skills
    assert entry.frontmatter["metadata"] == {"author": "reme-mcp", "experiences": id}


async def test_an_outcome_leaves_the_digest_of_a_skill_as_it_is_and_a_failure_takes_the_skill_away(
    memory: Memory, settings: Settings
) -> None:
    id = await prove(memory, 0)
    async with Client(build_server(settings)) as one:
        before = (await listed(one)).skills
        receipt = (await memory.recall("task 0", source="codex")).receipt
        await memory.record(
            "task 0", outcome="success", steps="once more", experiences=[], receipt=receipt, used=[id], source="codex"
        )
        assert (await listed(one)).skills == before
        receipt = (await memory.recall("task 0", source="codex")).receipt
        await memory.rate(id, helpful=False, receipt=receipt, source="codex")
        assert (await listed(one)).skills == []


async def test_many_skills_come_in_pages(memory: Memory, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skills, "PAGE_SIZE", 1)
    ids = {await prove(memory, 0), await prove(memory, 1)}
    async with Client(build_server(settings)) as one:
        first = await listed(one)
        second = await listed(one, cursor=first.next_cursor)
    assert (len(first.skills), len(second.skills), second.next_cursor) == (1, 1, None)
    assert {entry.frontmatter["metadata"]["experiences"] for entry in (*first.skills, *second.skills)} == ids  # type: ignore[index]
