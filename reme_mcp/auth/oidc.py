"""Whoever an identity provider vouches for: JWTs, checked against its keys. The owner of `jwt`.

In:  the bearer tokens that clients bring.
Out: what their holders may do, until when; nothing for a token that is not the provider's, not for this server, over,
     or without a workspace and a role.
Does not know: HTTP servers, this server's own tokens.

PyJWT fetches the keys and checks the tokens. When to fetch is decided here, since its `PyJWKClient` refuses everybody
once its keys are old and the provider is down, and asks a provider that is down again for each request.

Source: RFC 7519 (JWT), RFC 7517 (JWKS), RFC 8725 (best practices: fixed algorithms, issuer and audience checked),
OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from reme_mcp.auth.access import ROLES, Access, Role
from reme_mcp.config.settings import AuthSettings
from reme_mcp.errors import IdentityError
from reme_mcp.schema import WORKSPACE_PATTERN

if TYPE_CHECKING:
    import jwt

logger = logging.getLogger(__name__)

# None that a public key could be mistaken for the secret of.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_S = 30
KEYS_ARE_FRESH_S = 600
# Tokens with keys that nobody knows must not make us ask the provider each time.
ASK_AGAIN_AFTER_S = 30
TIMEOUT_S = 10
ROLE_PREFIX = "reme:"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whoever a token is of.

    Attributes:
        access: What they may do.
        subject: The provider's name for them.
        client: The client that the token was given to; empty where the provider does not say.
        expires_at: Seconds since 1970.
    """

    access: Access
    subject: str
    client: str
    expires_at: int


class Issuer:
    """One identity provider and its keys."""

    def __init__(self, settings: AuthSettings) -> None:
        self._settings = settings
        self._keys: jwt.PyJWKSet | None = None
        self._asked_at = float("-inf")
        self._fetched_at = float("-inf")
        self._fetching = anyio.Lock()

    async def verify(self, token: str) -> Identity | None:
        """Return whose token it is, `None` if it is not good.

        Raises:
            IdentityError: The provider can't be asked for its keys.
        """
        import jwt

        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, UnicodeError):
            return None
        if header.get("alg") not in ALGORITHMS:
            return None
        key = await self._key(header.get("kid"))
        if key is None:
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as exc:
            logger.info("a token is refused: %s", type(exc).__name__)
            return None
        if not str(claims["sub"]).strip():
            # Nobody's name is that of this machine, which may do everything.
            logger.warning("a token is refused: its sub is empty")
            return None
        workspaces, role = self._workspaces(claims), self._role(claims)
        if not workspaces or role is None:
            logger.warning(
                "a token of %s has no %s",
                claims["sub"],
                "workspace" if not workspaces else "role, or none that is known",
            )
            return None
        return Identity(
            access=Access(str(claims["sub"]), workspaces, role),
            subject=str(claims["sub"]),
            client=str(claims.get("azp") or claims.get("client_id") or ""),
            expires_at=int(claims["exp"]) + LEEWAY_S,
        )

    def _workspaces(self, claims: dict[str, Any]) -> tuple[str, ...]:
        """Return those that the claim names; none if one of them can't be one."""
        claim = claims.get(self._settings.workspace_claim)
        names = claim if isinstance(claim, list) else [claim]
        if not all(isinstance(name, str) and WORKSPACE_PATTERN.fullmatch(name) for name in names):
            return ()
        return tuple(dict.fromkeys(names))

    def _role(self, claims: dict[str, Any]) -> Role | None:
        """Return the highest that the claim gives."""
        claim = claims.get(self._settings.role_claim)
        words = claim if isinstance(claim, list) else str(claim or "").split()
        given = {word.removeprefix(ROLE_PREFIX) for word in words if isinstance(word, str)}
        return next((role for role in reversed(ROLES) if role in given), None)

    async def _key(self, kid: object) -> jwt.PyJWK | None:
        async with self._fetching:
            at = time.monotonic()
            key = self._known(kid)
            is_stale = at - self._fetched_at > KEYS_ARE_FRESH_S
            if (key is None or is_stale) and at - self._asked_at > ASK_AGAIN_AFTER_S:
                self._asked_at = at
                try:
                    await self._fetch()
                    self._fetched_at = at
                except IdentityError as exc:
                    logger.error("%s", exc)
                key = self._known(kid)
            if self._keys is None:
                raise IdentityError(f"the keys of {self._settings.issuer} can't be had")
            return key

    def _known(self, kid: object) -> jwt.PyJWK | None:
        keys = [] if self._keys is None else self._keys.keys
        if kid is None:
            return keys[0] if len(keys) == 1 else None
        return next((key for key in keys if key.key_id == kid), None)

    async def _fetch(self) -> None:
        import jwt

        url = self._settings.jwks_url
        if not url:
            where = self._settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
            said = await anyio.to_thread.run_sync(_fetched_from, where)
            if said.get("issuer") != self._settings.issuer or not isinstance(said.get("jwks_uri"), str):
                raise IdentityError(f"{where} is not that of {self._settings.issuer}, or names no jwks_uri")
            url = said["jwks_uri"]
        answer = await anyio.to_thread.run_sync(_fetched_from, url)
        try:
            self._keys = jwt.PyJWKSet.from_dict(answer)
        except jwt.PyJWTError as exc:
            raise IdentityError(f"{url} holds no keys that can be used ({type(exc).__name__})") from exc


def _fetched_from(url: str) -> dict[str, Any]:
    import jwt

    try:
        answer: dict[str, Any] = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=TIMEOUT_S).fetch_data()
    except (jwt.PyJWTError, OSError, ValueError) as exc:
        raise IdentityError(f"{url} can't be asked ({exc})") from exc
    return answer
