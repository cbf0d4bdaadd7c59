"""Tokens of an identity provider: a real one on loopback, with its own keys, and those who pretend."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from reme_mcp.auth import oidc
from reme_mcp.auth.access import Access
from reme_mcp.auth.oidc import LEEWAY_S, Issuer
from reme_mcp.config.settings import AuthSettings, Settings
from reme_mcp.errors import IdentityError
from tests.hosted import HANDSHAKE, JSON, changed, hosted
from tests.http_server import Asked, Reply, Server, reply, serving

pytestmark = pytest.mark.anyio
AUDIENCE = "https://memory.example.com/mcp"


class Provider:
    """An identity provider with its keys."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
        }
        self.is_down = False
        self.server: Server

    @property
    def url(self) -> str:
        return self.server.base_url.removesuffix("/v1")

    @property
    def settings(self) -> AuthSettings:
        return AuthSettings(issuer=self.url, audience=AUDIENCE)

    def answer(self, asked: Asked) -> Reply:
        if self.is_down:
            return reply({}, 503)
        if asked.path == "/.well-known/openid-configuration":
            return reply({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})
        assert asked.path == "/keys"
        algorithms: dict[str, Any] = {"rsa": jwt.algorithms.RSAAlgorithm, "ec": jwt.algorithms.ECAlgorithm}
        jwks = [
            json.loads(algorithms["ec" if name == "ec" else "rsa"].to_jwk(key.public_key())) | {"kid": name}
            for name, key in self.keys.items()
        ]
        return reply({"keys": jwks})

    def token(self, kid: str = "rsa", **claims: object) -> str:
        return jwt.encode(self.claims(**claims), self.keys[kid], "ES256" if kid == "ec" else "RS256", {"kid": kid})

    def claims(self, **changes: object) -> dict[str, Any]:
        good: dict[str, object] = {
            "iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600, "azp": "claude",
            "workspace": "team", "scope": "openid reme:read reme:write",
        }  # fmt: skip
        return {name: value for name, value in (good | changes).items() if value is not None}


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    with serving(provider.answer) as provider.server:
        yield provider


@pytest.mark.parametrize("kid", ["rsa", "ec"])
async def test_a_token_of_the_provider_says_who_may_do_what(provider: Provider, kid: str) -> None:
    found = await Issuer(provider.settings).verify(provider.token(kid))
    assert found is not None
    assert found.access == Access("alice", ("team",), "write")
    assert (found.subject, found.client) == ("alice", "claude")


async def test_clocks_may_differ_by_a_few_seconds(provider: Provider) -> None:
    issuer = Issuer(provider.settings)
    assert await issuer.verify(provider.token(exp=int(time.time()) - LEEWAY_S + 20)) is not None
    assert await issuer.verify(provider.token(exp=int(time.time()) - LEEWAY_S - 1)) is None


async def test_its_keys_are_fetched_once_for_many_tokens(provider: Provider) -> None:
    issuer = Issuer(provider.settings)
    for _ in range(5):
        assert await issuer.verify(provider.token()) is not None
    assert [asked.path for asked in provider.server.asked] == ["/.well-known/openid-configuration", "/keys"]


async def test_where_its_keys_are_may_be_said(provider: Provider) -> None:
    settings = provider.settings.model_copy(update={"jwks_url": f"{provider.url}/keys"})
    assert await Issuer(settings).verify(provider.token()) is not None
    assert [asked.path for asked in provider.server.asked] == ["/keys"]


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://elsewhere.example.com"}, {"aud": None}, {"aud": []},
        {"iss": "https://evil.example"}, {"iss": None}, {"exp": 1},
        {"exp": None}, {"exp": "soon"}, {"nbf": 99999999999},
        {"sub": None}, {"sub": 7}, {"sub": ""}, {"sub": " "},
        {"workspace": None}, {"workspace": ""}, {"workspace": "*"}, {"workspace": "../team"}, {"workspace": []},
        {"workspace": ["team", "*"]}, {"workspace": {"team": 1}}, {"workspace": 3}, {"workspace": [["team"]]},
        {"scope": None}, {"scope": "openid"}, {"scope": "reme:owner"}, {"scope": "reader"}, {"scope": {"read": 1}},
        {"scope": ""},
    ],
    ids=str,
)  # fmt: skip
async def test_a_token_that_lacks_something_is_refused(provider: Provider, claims: dict[str, Any]) -> None:
    key = provider.keys["rsa"]
    token = jwt.api_jws.encode(json.dumps(provider.claims(**claims)).encode(), key, "RS256", {"kid": "rsa"})
    assert await Issuer(provider.settings).verify(token) is None


@pytest.mark.parametrize(
    ("claims", "access"),
    [
        ({"workspace": ["team", "docs", "team"]}, Access("alice", ("team", "docs"), "write")),
        ({"scope": "reme:read"}, Access("alice", ("team",), "read")),
        ({"scope": ["admin", "read"]}, Access("alice", ("team",), "admin")),
        ({"aud": ["x", AUDIENCE]}, Access("alice", ("team",), "write")),
    ],
)
async def test_what_claims_may_also_look_like(provider: Provider, claims: dict[str, Any], access: Access) -> None:
    found = await Issuer(provider.settings).verify(provider.token(**claims))
    assert found is not None
    assert found.access == access


def _unsigned(provider: Provider) -> str:
    return jwt.encode(provider.claims(), None, "none", {"kid": "rsa"})  # type: ignore[arg-type]  # as an enemy does


def _signed_with_the_public_key_as_a_secret(provider: Provider) -> str:
    secret = provider.keys["rsa"].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "HS256", "typ": "JWT", "kid": "rsa"}, provider.claims())
    ]
    sign = hmac.digest(secret, ".".join(parts).encode(), "sha256")
    return ".".join((*parts, base64.urlsafe_b64encode(sign).decode().rstrip("=")))


def _of_another_key(provider: Provider) -> str:
    return jwt.encode(provider.claims(), rsa.generate_private_key(65537, 2048), "RS256", {"kid": "rsa"})


def _changed_afterwards(provider: Provider) -> str:
    head, _, sign = provider.token().split(".")
    body = base64.urlsafe_b64encode(json.dumps(provider.claims(workspace="other")).encode()).decode().rstrip("=")
    return ".".join((head, body, sign))


def _brings_its_own_key(provider: Provider) -> str:
    own = rsa.generate_private_key(65537, 2048)
    jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))
    return jwt.encode(provider.claims(), own, "RS256", {"jwk": jwk, "kid": "own"})


def _without_a_key_id(provider: Provider) -> str:
    # There are two keys: which one is meant is not guessed.
    return jwt.encode(provider.claims(), provider.keys["rsa"], "RS256")


@pytest.mark.parametrize(
    "forge",
    [_unsigned, _signed_with_the_public_key_as_a_secret, _of_another_key, _changed_afterwards, _brings_its_own_key,
     _without_a_key_id, lambda _: "a.b.c", lambda _: "..", lambda _: "", lambda _: "\ud800.a.b",
     lambda _: "e30.e30.e30"],
)  # fmt: skip
async def test_a_forged_token_is_refused(provider: Provider, forge: Callable[[Provider], str]) -> None:
    issuer = Issuer(provider.settings)
    assert await issuer.verify(forge(provider)) is None
    assert await issuer.verify(provider.token()) is not None


async def test_tokens_with_unknown_keys_do_not_make_it_ask_each_time(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer(provider.settings)
    for _ in range(5):
        assert await issuer.verify(_brings_its_own_key(provider)) is None
    assert len(provider.server.asked) == 2
    # A new key of the provider's is found as soon as it may be asked again.
    provider.keys = {"rsa2": rsa.generate_private_key(65537, 2048)}
    assert await issuer.verify(provider.token("rsa2")) is None
    monkeypatch.setattr(oidc, "ASK_AGAIN_AFTER_S", 0)
    assert await issuer.verify(provider.token("rsa2")) is not None


async def test_a_key_that_the_provider_took_back_is_forgotten(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer(provider.settings)
    token = provider.token()
    assert await issuer.verify(token) is not None
    del provider.keys["rsa"]
    for name in ("ASK_AGAIN_AFTER_S", "KEYS_ARE_FRESH_S"):
        monkeypatch.setattr(oidc, name, 0)
    assert await issuer.verify(token) is None


async def test_a_provider_that_is_away_is_said_to_be_and_its_known_keys_go_on(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.is_down = True
    issuer = Issuer(provider.settings)
    with pytest.raises(IdentityError, match="can't be had"):
        await issuer.verify(provider.token())
    for name in ("ASK_AGAIN_AFTER_S", "KEYS_ARE_FRESH_S"):
        monkeypatch.setattr(oidc, name, 0)
    provider.is_down = False
    assert await issuer.verify(provider.token()) is not None
    provider.is_down = True
    assert await issuer.verify(provider.token()) is not None


async def test_another_provider_at_its_address_is_refused(provider: Provider) -> None:
    settings = provider.settings.model_copy(update={"issuer": f"{provider.url}/"})
    with pytest.raises(IdentityError):
        await Issuer(settings).verify(provider.token(iss=f"{provider.url}/"))


# --- at the server ---


async def test_a_server_with_a_provider_lets_in_whom_it_vouches_for(provider: Provider, settings: Settings) -> None:
    guarded = settings.model_copy(update={"auth": provider.settings})
    async with hosted(changed(guarded, "http", public_url="https://memory.example.com")) as server:
        metadata_url = "https://memory.example.com/.well-known/oauth-protected-resource/mcp"
        async with server.http() as http:
            refused = await http.post("/mcp", json=HANDSHAKE, headers=JSON)
            assert refused.status_code == 401
            assert f'resource_metadata="{metadata_url}"' in refused.headers["www-authenticate"]
            metadata = (await http.get("/.well-known/oauth-protected-resource/mcp")).json()
            assert metadata["resource"] == "https://memory.example.com/mcp"
            assert [url.rstrip("/") for url in metadata["authorization_servers"]] == [provider.url]
        for by in ("http", "legacy", "sse"):
            async with server.client(provider.token(), by=by) as one:
                assert not (await one.call_tool("recall_experiences", {"task": "go", "workspace": "team"})).is_error
                assert (await one.call_tool("recall_experiences", {"task": "go", "workspace": "other"})).is_error
        async with server.client(provider.token(scope="read")) as one:
            assert [tool.name for tool in (await one.list_tools()).tools] == ["recall_experiences"]
        # Its own tokens go on beside it.
        async with server.client(await server.token("ci", "team")) as one:
            assert not (await one.call_tool("recall_experiences", {"task": "go"})).is_error


async def test_a_stream_ends_with_its_token(
    provider: Provider, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "LEEWAY_S", 0)
    guarded = settings.model_copy(update={"auth": provider.settings})
    async with hosted(guarded) as server, server.http(provider.token(exp=int(time.time()) + 3)) as http:
        async with http.stream("GET", "/sse") as stream:
            assert stream.status_code == 200
            with anyio.fail_after(15):
                async for _ in stream.aiter_raw():
                    pass
        assert (await http.get("/sse")).status_code == 401


async def test_while_the_provider_is_away_its_tokens_are_put_off(provider: Provider, settings: Settings) -> None:
    provider.is_down = True
    guarded = settings.model_copy(update={"auth": provider.settings})
    async with hosted(guarded) as server, server.http(provider.token()) as http:
        answer = await http.post("/mcp", json=HANDSHAKE, headers=JSON)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        async with server.client(await server.token("ci", "team")) as one:
            assert not (await one.call_tool("recall_experiences", {"task": "go"})).is_error


@pytest.mark.parametrize("issuer", ["http://login.example.com", "http://127.0.0.1.evil.example", "ftp://x", "login"])
def test_a_provider_whose_keys_could_be_tampered_with_on_the_way_is_refused(issuer: str) -> None:
    with pytest.raises(ValueError, match="must b"):
        AuthSettings(issuer=issuer, audience=AUDIENCE)


def test_a_provider_without_an_audience_is_refused() -> None:
    with pytest.raises(ValueError, match=r"auth\.issuer needs auth\.audience"):
        AuthSettings(issuer="https://login.example.com")
