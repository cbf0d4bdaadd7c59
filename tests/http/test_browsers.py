"""Pages in a browser, which ask before they send and may read only what they are told they may."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reme_mcp.config.settings import Settings
from tests.hosted import DEADLINE_S, HANDSHAKE, JSON, Hosted, changed, hosted, message
from tests.http_server import Reply, serving
from tests.web.browser import browser, needs_browser

pytestmark = pytest.mark.anyio
PAGE = "http://tools.localhost"
PUBLIC = "https://memory.example.com"
ASKED = "authorization,content-type,last-event-id,mcp-protocol-version,mcp-session-id,mcp-param-region"
RECALL = {"name": "recall_experiences", "arguments": {"task": "Start the car"}}
CLIENT = """
async ({url, token, handshake, recall}) => {
  const headers = {"content-type": "application/json", accept: "application/json, text/event-stream"};
  const send = (more, body) => fetch(url, {method: "POST", headers: {...headers, ...more}, body});
  try {
    const unknown = await send({}, handshake);
    const said = {unknown: [unknown.status, unknown.headers.get("www-authenticate")]};
    const authorization = `Bearer ${token}`;
    const opened = await send({authorization}, handshake);
    const session = {"mcp-session-id": opened.headers.get("mcp-session-id"), "mcp-protocol-version": "2025-06-18"};
    const answer = await send({authorization, ...session}, recall);
    return {...said, opened: opened.status, answer: await answer.text()};
  } catch (error) {
    return {failed: String(error)};
  }
}
"""


@pytest.fixture
def public(settings: Settings) -> Settings:
    return changed(settings, "http", public_url=PUBLIC, allowed_origins=PAGE)


async def in_page(page: str, server: Hosted, token: str) -> Any:
    """Return what a page gets from a server."""
    argument = {"url": f"{server.url}/mcp", "token": token, "recall": message("tools/call", RECALL, id=2)}
    async with browser() as seen:
        await seen.tab.goto(page)
        said = await seen.tab.evaluate(CLIENT, argument | {"handshake": json.dumps(HANDSHAKE)})
        return {"console": seen.said, **said}


@needs_browser
async def test_a_page_that_is_allowed_uses_the_tools_and_another_gets_nothing(settings: Settings) -> None:
    with serving(lambda _: Reply(b"<title>a client</title>", kind="text/html")) as pages:
        allowed, other = f"http://localhost:{pages.server_port}", f"http://127.0.0.1:{pages.server_port}"
        async with hosted(changed(settings, "http", public_url=PUBLIC, allowed_origins=allowed)) as server:
            token = await server.token("page")
            said = await in_page(allowed, server, token)
            assert "failed" not in said, said
            assert said["unknown"][0] == 401
            assert said["unknown"][1].startswith("Bearer")
            assert said["opened"] == 200
            assert '"isError":false' in said["answer"]
            said = await in_page(other, server, token)
            assert "Failed to fetch" in said["failed"]


@pytest.mark.parametrize("path", ["/mcp", "/mcp/", "/sse", "/messages/"])
async def test_a_browser_that_asks_first_is_told_what_it_may_send_without_a_token(public: Settings, path: str) -> None:
    ask = {"access-control-request-method": "POST", "access-control-request-headers": ASKED}
    async with hosted(public) as server:
        await server.token("somebody")
        async with server.http(origin=PAGE) as http:
            may = await http.options(path, headers=ask)
            assert (may.status_code, may.headers["access-control-allow-origin"]) == (200, PAGE)
            assert may.headers["access-control-allow-headers"] == ASKED
            assert "DELETE" in may.headers["access-control-allow-methods"]
            refused = await http.post("/mcp", json=HANDSHAKE, headers=JSON)
            assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)
            exposed = refused.headers["access-control-expose-headers"].lower()
            assert {"mcp-session-id", "www-authenticate"} <= set(exposed.split(", "))
        async with server.http(origin="https://evil.example") as http:
            for answer in (await http.options(path, headers=ask), await http.post(path, json=HANDSHAKE)):
                assert answer.status_code == 403
                assert "access-control-allow-origin" not in answer.headers


async def test_where_to_get_a_token_is_told_to_any_page(public: Settings) -> None:
    named = changed(public, "auth", issuer="https://id.example.com", audience="reme")
    async with hosted(named) as server, server.http(origin="https://evil.example") as http:
        answer = await http.get("/.well-known/oauth-protected-resource/mcp")
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "*")
        assert answer.json()["resource"] == f"{PUBLIC}/mcp"


# --- behind a proxy ---


@pytest.mark.parametrize("prefix", ["", "/team/memory"])
async def test_a_server_below_a_path_is_found_with_and_without_it(settings: Settings, prefix: str) -> None:
    below = changed(settings, "http", public_url=f"{PUBLIC}{prefix}/")
    async with hosted(below) as server:
        token = await server.token("somebody")
        async with server.http(token) as http:
            for path in ("/mcp", "/mcp/", f"{prefix}/mcp", f"{prefix}/mcp/"):
                answer = await http.post(path, json=HANDSHAKE, headers=JSON)
                assert answer.status_code == 200, path
            assert (await http.get(f"{prefix}/healthz")).status_code == 200
            for path in ("/sse", "/sse/", f"{prefix}/sse", f"{prefix}/sse/"):
                async with http.stream("GET", path, timeout=DEADLINE_S) as stream:
                    lines = stream.aiter_lines()
                    said = [await anext(lines), await anext(lines)]
                assert said[1].startswith(f"data: {prefix}/messages/?session_id="), path
        async with server.client(token, by="sse") as one:
            assert not (await one.call_tool("recall_experiences", {"task": "Start"})).is_error


async def test_without_sessions_no_changes_are_promised_and_there_is_no_sse(settings: Settings) -> None:
    promised = {}
    for sessions in (True, False):
        async with hosted(changed(settings, "http", sessions=sessions)) as server:
            async with server.http() as http, http.stream("GET", "/sse") as stream:
                assert stream.status_code == (200 if sessions else 404)
            for by in ("http", "legacy"):
                async with server.client(by=by) as one:
                    capabilities = one.server_capabilities
                    assert capabilities is not None
                    assert capabilities.resources is not None
                    promised[sessions, by] = bool(capabilities.resources.subscribe)
    assert promised == {(True, "http"): True, (True, "legacy"): True, (False, "http"): False, (False, "legacy"): False}


async def test_what_never_changes_is_promised_on_no_transport_of_the_handshake_era(settings: Settings) -> None:
    async with hosted(settings) as server:
        for by in ("legacy", "sse"):
            async with server.client(by=by) as one:
                capabilities = one.server_capabilities
                assert capabilities is not None
                promised = [capabilities.tools, capabilities.prompts, capabilities.resources]
                assert [part and part.list_changed for part in promised] == [False] * 3, by
