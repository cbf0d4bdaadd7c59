"""The page of the hosted server: the same tokens and roles as every other caller."""

from __future__ import annotations

import re

import httpx
import pytest

from reme_mcp.auth.access import Role
from reme_mcp.config.settings import Settings
from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.hosted import Hosted, changed, hosted

pytestmark = pytest.mark.anyio


async def signed_in(server: Hosted, http: httpx.AsyncClient, role: Role, *workspaces: str) -> None:
    """Sign in as a person does."""
    token = await server.token(role, *workspaces, role=role)
    answer = await http.post("/ui/login", data={"token": await form_token(http, "/ui/login"), "key": token})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/ui" in cookie


async def form_token(http: httpx.AsyncClient, path: str) -> str:
    found = re.search(r'name="token" value="(\w+)"', (await http.get(path)).text)
    assert found is not None
    return found[1]


async def a_lesson(settings: Settings, workspace: str = "default") -> str:
    async with Memory.open(settings) as memory:
        done = await memory.record(
            "task 0", outcome="success", experiences=[draft(0)], workspace=workspace, source="claude-code"
        )
    return done.added[0]


async def test_who_has_no_token_is_asked_for_one_and_sees_nothing(settings: Settings) -> None:
    id = await a_lesson(settings)
    async with hosted(settings) as server, server.http() as http:
        await server.token("alice")
        for path in ("/ui/", f"/ui/lesson/{id}", "/ui/events", "/ui/static/page.js"):
            answer = await http.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login")
        assert (await http.post("/ui/do/delete", data={"id": id})).status_code == 401
        assert (await http.get("/ui/login")).status_code == 200
        wrong = {"token": await form_token(http, "/ui/login"), "key": "reme_wrong"}
        assert (await http.post("/ui/login", data=wrong)).status_code == 403
        assert (await http.post("/ui/login", data={"key": "reme_wrong"})).status_code == 403


@pytest.mark.parametrize(("role", "rates", "archives"), [("read", 403, 403), ("write", 303, 403), ("admin", 303, 303)])
async def test_a_role_looks_rates_or_decides(settings: Settings, role: Role, rates: int, archives: int) -> None:
    id = await a_lesson(settings)
    async with hosted(settings) as server, server.http() as http:
        form = {"token": await form_token(http, "/ui/login"), "id": id}
        await signed_in(server, http, role)
        assert (await http.get("/ui/")).status_code == 200
        assert (await http.get(f"/ui/lesson/{id}")).status_code == 200
        assert (await http.post("/ui/do/rate", data=form | {"helpful": "yes"})).status_code == rates
        assert (await http.post("/ui/do/archive", data=form)).status_code == archives


@pytest.mark.parametrize("role", ["read", "write", "admin"])
async def test_only_who_decides_tries_a_recall_as_somebody_else(settings: Settings, role: Role) -> None:
    def out_of_six(text: str) -> int:
        found = re.search(r"(\d+) of 6 found are handed out", text)
        assert found is not None
        return int(found[1])

    async with Memory.open(settings) as memory:
        for number in range(6):
            lesson = draft(number, when_to_use=f"Publish a static site, way {number} of many")
            await memory.record(f"publish {number}", outcome="success", experiences=[lesson], source="mallory/mcp")
    async with hosted(changed(settings, "recall", limit=5)) as server, server.http() as http:
        await signed_in(server, http, role)
        path = "/ui/recall?task=publish+a+static+site"
        own = (await http.get(path)).text
        assert out_of_six(own) == out_of_six((await http.get(f"{path}&as=/")).text) == 2
        assert ('<option value="mallory">' in own) == (role == "admin")
        as_mallory, as_nobody = await http.get(f"{path}&as=mallory"), await http.get(f"{path}&as=nobody")
        if role == "admin":
            assert out_of_six(as_mallory.text) == 5
            assert '<option value="mallory" selected>' in as_mallory.text
            assert "no holder &#39;nobody&#39; has brought a lesson here" in as_nobody.text
            return
        # Nothing tells a name that there is from one that there is not.
        assert (as_mallory.status_code, as_nobody.status_code) == (403, 403)
        assert as_mallory.text == as_nobody.text
        token = await server.token("mallory", role=role)
        async with server.http(token) as as_holder:
            assert (
                out_of_six((await as_holder.get(path)).text)
                == out_of_six((await as_holder.get(f"{path}&as=mallory")).text)
                == 5
            )


async def test_a_person_sees_the_workspaces_of_the_token_only(settings: Settings) -> None:
    id = await a_lesson(settings, "other")
    async with hosted(settings) as server, server.http() as http:
        await signed_in(server, http, "admin", "team")
        assert "other" not in (await http.get("/ui/")).text
        assert (await http.get("/ui/?workspace=other")).status_code == 403
        assert (await http.get(f"/ui/lesson/{id}")).status_code == 404


async def test_a_setting_leaves_the_page_out(settings: Settings) -> None:
    async with hosted(changed(settings, "http", page=False)) as server, server.http() as http:
        assert (await http.get("/ui/")).status_code == 404
    async with hosted(settings) as server, server.http() as http:
        assert (await http.get("/ui/")).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/team/memory"])
async def test_every_way_leads_on_below_the_path_that_the_browser_knows(settings: Settings, prefix: str) -> None:
    id = await a_lesson(settings)
    below = changed(settings, "http", public_url=f"https://memory.example.com{prefix}")
    async with hosted(below) as server:
        token = await server.token("admin", role="admin")
        # As a proxy asks that takes the prefix off, and as one that leaves it.
        for before in {"", prefix}:
            async with server.http() as http:
                asked = await http.get(f"{before}/ui/")
                assert (asked.status_code, asked.headers["location"]) == (303, f"{prefix}/ui/login")
            async with server.http(token) as http:
                bare = await http.get(f"{before}/ui")
                assert (bare.status_code, bare.headers["location"]) == (307, f"{prefix}/ui/")
                for path in ("/", f"/lesson/{id}", "/review", "/removal", "/changes", f"/lesson/{id}?edit=1"):
                    text = (await http.get(f"{before}/ui{path}")).text
                    ways = re.findall(r'(?:href|src|action|hx-get|data-events)="([^"#][^"]*)"', text)
                    ways += re.findall(r'name="back" value="([^"]*)"', text)
                    assert ways
                    assert [way for way in ways if not way.startswith(f"{prefix}/ui/")] == []
                    assert text.count('aria-current="page"') == 1
        # The browser keeps the cookie of a form for the path that it knows.
        async with server.http(token) as http:
            here = f"{prefix}/ui/lesson/{id}"
            form = {"token": await form_token(http, here), "id": id, "back": here}
            done = await http.post(f"{prefix}/ui/do/pin", data=form)
            assert done.headers["location"].startswith(f"{here}?done=pin")
