"""Bearer tokens of requests, checked: from the header to what the caller may do.

In:  the token of a request; our own tokens and the identity provider's.
Out: `Access`, or nothing where the token is not valid.
Does not know: HTTP, limits.

Source: RFC 6750.
"""

from __future__ import annotations

import math

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.types import Scope

from reme_mcp.auth.access import Access
from reme_mcp.auth.oidc import Issuer
from reme_mcp.auth.tokens import Tokens
from reme_mcp.errors import Forbidden


class Bearer(AccessToken):
    """A token that was checked, and what its holder may do."""

    access: Access


class Verifier:
    """Tells whose a token is: one of our own, or one that the identity provider vouches for."""

    def __init__(self, tokens: Tokens, issuer: Issuer | None) -> None:
        self._tokens = tokens
        self._issuer = issuer

    async def verify_token(self, token: str) -> Bearer | None:
        """Return it checked, or `None`.

        Raises:
            IdentityError: The identity provider can't be asked.
        """
        own = self._tokens.find(token)
        if own is not None:
            expires_at = None if own.expires_at is None else math.ceil(own.expires_at.timestamp())
            # With its digest: who gets a name anew does not get the sessions of who had it before.
            client = f"{own.name}:{own.digest[:16]}"
            return Bearer(token=token, client_id=client, scopes=[own.role], expires_at=expires_at, access=own.access)
        if self._issuer is None or token.count(".") != 2:
            return None
        identity = await self._issuer.verify(token)
        if identity is None:
            return None
        return Bearer(
            token=token,
            client_id=identity.client,
            scopes=[identity.access.role],
            expires_at=identity.expires_at,
            subject=identity.subject,
            access=identity.access,
        )


def access_of(scope: Scope) -> Access | None:
    """Return what the caller of a request may do that came through the gate; `None` if it brought no token."""
    user = scope.get("user")
    if not isinstance(user, AuthenticatedUser):
        return None
    if not isinstance(user.access_token, Bearer):
        raise Forbidden("the token says nothing about workspaces")
    return user.access_token.access
