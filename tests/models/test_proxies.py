"""Proxies that the environment names: not for this machine, SOCKS as well as HTTP, and named in errors."""

from __future__ import annotations

import json

import pytest

from reme_mcp.errors import EndpointError
from tests.http_server import serving
from tests.models.llm_server import GOOD, VERDICT, asked_once, at, said
from tests.socks_server import socks_proxy

pytestmark = pytest.mark.anyio
NAMES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9", "socks4://nowhere", "::"])
async def test_this_machine_is_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("http_proxy", proxy)
    with serving(lambda asked: said(json.dumps(GOOD))) as server:
        assert await asked_once(at(server.base_url)) == VERDICT
        assert await asked_once(at(server.base_url.replace("127.0.0.1", "localhost"))) == VERDICT


@pytest.mark.parametrize(("variable", "scheme"), [("ALL_PROXY", "socks5h"), ("http_proxy", "socks5")])
async def test_a_socks_proxy_is_used(monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str) -> None:
    with serving(lambda asked: said(json.dumps(GOOD))) as server, socks_proxy(server.server_port) as (proxy, hosts):
        monkeypatch.setenv(variable, f"{scheme}://{proxy}")
        assert await asked_once(at("http://model.invalid:80/v1")) == VERDICT
    assert hosts == ["model.invalid"]


async def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://me:secret@127.0.0.1:9")
    with pytest.raises(EndpointError, match="ALL_PROXY in the environment names no proxy that can be used") as caught:
        await asked_once(at("http://model.invalid/v1"))
    assert caught.value.is_permanent
    assert "socks5" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_a_proxy_that_is_away_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(EndpointError, match=r"no connection .*; HTTP_PROXY may send it through a proxy"):
        await asked_once(at("http://model.invalid/v1"))
