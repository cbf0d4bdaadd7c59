"""The tokens of a server: who holds one, for which workspaces, in which role, until when.

In:  names, and the texts that clients bring.
Out: the `Access` of whoever brings a token that holds now, or nothing.
Does not know: HTTP, what an access is good for.

They stand in one file that only its owner may read, with the SHA-256 of each: a token is 256 random bits, which no
dictionary holds, so that a slow hash would protect nothing. A token is shown once, when it is made. Every process that
serves looks at the file again before each request, which is how a revocation reaches it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from reme_mcp import atomic
from reme_mcp.auth.access import ROLES, Access, Role
from reme_mcp.config.settings import Settings
from reme_mcp.errors import InvalidInput, NotFound, StoreError
from reme_mcp.schema import now
from reme_mcp.store.lock import ProcessLock
from reme_mcp.text import clean

logger = logging.getLogger(__name__)

PREFIX = "reme_"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,39}")
DURATION_PATTERN = re.compile(r"([1-9]\d{0,4})([hdw])")
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True, slots=True)
class Token:
    """One token, but for its text.

    Attributes:
        name: Of its holder: a person, a machine, a project.
        digest: SHA-256 of its text, in hexadecimal.
        workspaces: Those that it is for; one or more.
        role: What its holder may do there.
        created_at: When it was made.
        expires_at: From when on it holds no more; `None` for never.
        revoked_at: When it was revoked; `None` if it was not.
    """

    name: str
    digest: str
    workspaces: tuple[str, ...]
    role: Role
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """Return whether it is good at a time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)

    def state(self, at: datetime) -> str:
        """Return how it stands, in a word."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.holds(at) else "expired"

    @property
    def access(self) -> Access:
        """What its holder may do."""
        return Access(self.name, self.workspaces, self.role)


class Tokens:
    """The tokens in one file, as it is now."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()
        self._damaged = False

    def all(self) -> tuple[Token, ...]:
        """Return every token, the revoked and expired too; none where there is no file.

        Raises:
            StoreError: The file can't be read, or is not one of tokens.
        """
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, ()
            return ()
        except OSError as exc:
            raise StoreError(f"can't read the tokens in {self.path} ({exc.strerror})") from exc
        seen = (state.st_mtime_ns, state.st_size, state.st_ino)
        if seen != self._seen:
            self._tokens = _read(self.path)
            self._seen = seen
        return self._tokens

    def named(self, name: str) -> Token:
        """Return the token of this name, valid or not.

        Raises:
            NotFound: There is none.
            StoreError: The file can't be read.
        """
        for token in self.all():
            if token.name == name:
                return token
        raise NotFound(f"no token {name[:80]!r}; `reme-mcp token list` shows them")

    def exist(self) -> bool:
        """Return whether there is any, valid or not; a file that can't be read may hold some."""
        try:
            return bool(self.all())
        except StoreError:
            return True

    def find(self, text: str) -> Token | None:
        """Return the token with this text if it holds now. A file that can't be read holds none."""
        try:
            tokens = self.all()
            self._damaged = False
        except StoreError as exc:
            if not self._damaged:
                logger.error("nobody is let in: %s", exc)
            self._damaged = True
            return None
        digest = _digest(text)
        found: Token | None = None
        for token in tokens:
            # All of them, and each in constant time: how long it takes says nothing.
            if hmac.compare_digest(token.digest, digest):
                found = token
        return found if found is not None and found.holds(now()) else None

    async def create(
        self, name: str, workspaces: Sequence[str], role: Role, *, expires_in: timedelta | None = None
    ) -> tuple[str, Token]:
        """Make a token and return its text, which can't be had again.

        The name of one that is revoked or expired may be given anew.

        Raises:
            InvalidInput: The name is none or taken, or a workspace can't be one.
            StoreError: The file can't be written.
        """
        if not NAME_PATTERN.fullmatch(name):
            raise InvalidInput(
                f"the name is {name[:80]!r}; it must be 1 to 40 letters, digits, dots, dashes, underscores or @"
            )
        if not workspaces:
            raise InvalidInput("no workspace is named; name the one that the token is for, with --workspace")
        at = now()
        text = PREFIX + secrets.token_urlsafe(32)
        token = Token(
            name=name,
            digest=_digest(text),
            workspaces=tuple(dict.fromkeys(clean.workspace(one) for one in workspaces)),
            role=role,
            created_at=at,
            expires_at=None if expires_in is None else at + expires_in,
        )
        async with self._writing():
            kept = [one for one in self.all() if one.name != name]
            if any(one.name == name and one.holds(at) for one in self.all()):
                raise InvalidInput(f"there is a token {name!r}; revoke it first, or choose another name")
            _write(self.path, [*kept, token])
        return text, token

    async def revoke(self, name: str) -> Token:
        """Revoke a token; servers that run refuse it from now on, and end what it has open. Twice is once.

        Raises:
            NotFound: There is none of this name.
            StoreError: The file can't be written.
        """
        async with self._writing():
            token = self.named(name)
            revoked = replace(token, revoked_at=token.revoked_at or now())
            _write(self.path, [revoked if one is token else one for one in self.all()])
            return revoked

    def _writing(self) -> ProcessLock:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreError(f"can't make the folder of {self.path} ({exc.strerror})") from exc
        return ProcessLock(self.path.with_suffix(".lock"))


def tokens_of(settings: Settings) -> Tokens:
    """Return the tokens of these settings: those of `auth.tokens_file`, or of this machine's own folder."""
    return Tokens(Path(settings.auth.tokens_file or settings.own_folder / "tokens.json"))


def duration(text: str) -> timedelta:
    """Return how long `90d` is; `h`, `d` and `w` are hours, days and weeks.

    Raises:
        InvalidInput: It is not of that form.
    """
    found = DURATION_PATTERN.fullmatch(text)
    if found is None:
        raise InvalidInput(f"{text[:40]!r} is no span of time; write it like 12h, 90d or 26w")
    return int(found[1]) * UNITS[found[2]]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> tuple[Token, ...]:
    try:
        return tuple(_token(one) for one in json.loads(path.read_bytes())["tokens"])
    except OSError as exc:
        raise StoreError(f"can't read the tokens in {path} ({exc.strerror})") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise StoreError(f"{path} is damaged; delete it and make the tokens anew") from exc


def _token(values: dict[str, object]) -> Token:
    def at(name: str) -> datetime | None:
        value = values[name]
        return None if value is None else datetime.fromisoformat(str(value))

    created_at, workspaces = at("created_at"), values["workspaces"]
    if values["role"] not in ROLES or created_at is None or not isinstance(workspaces, list) or not workspaces:
        raise ValueError
    return Token(
        name=str(values["name"]),
        digest=str(values["digest"]),
        workspaces=tuple(str(one) for one in workspaces),
        role=ROLES[ROLES.index(values["role"])],
        created_at=created_at,
        expires_at=at("expires_at"),
        revoked_at=at("revoked_at"),
    )


def _write(path: Path, tokens: Sequence[Token]) -> None:
    """Put the tokens in the place of those before, at once, for their owner's eyes only."""
    text = json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=1, default=datetime.isoformat)
    try:
        atomic.write(path, text.encode())
    except OSError as exc:
        raise StoreError(f"can't write the tokens to {path} ({exc.strerror})") from exc
