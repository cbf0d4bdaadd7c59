"""Tokens: who gets one, what it says, when it holds no more, and that its text is nowhere."""

from __future__ import annotations

import json
import stat
import sys
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from reme_mcp.auth.access import ROLES, Access, Role
from reme_mcp.auth.tokens import Tokens, duration
from reme_mcp.errors import Forbidden, InvalidInput, NotFound, StoreError

pytestmark = pytest.mark.anyio


@pytest.fixture
def tokens(home: Path) -> Tokens:
    return Tokens(home / "tokens.json")


async def test_a_token_is_found_by_its_text_and_says_what_its_holder_may_do(tokens: Tokens) -> None:
    text, made = await tokens.create("ci", ["team", "team", "docs"], "read")
    assert tokens.find(text) == made
    assert made.access == Access("ci", ("team", "docs"), "read")
    assert tokens.find(text[:-1]) is None
    assert tokens.find(text + "a") is None
    assert tokens.find("") is None
    assert tokens.find("\ud800") is None


async def test_its_text_is_not_stored_and_only_its_owner_may_read_the_file(tokens: Tokens) -> None:
    text, _ = await tokens.create("ci", ["team"], "write")
    assert text.removeprefix("reme_") not in tokens.path.read_text()
    assert len(text) >= 43
    if sys.platform != "win32":
        assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600


async def test_two_texts_are_never_the_same(tokens: Tokens) -> None:
    assert len({(await tokens.create(f"n{number}", ["w"], "read"))[0] for number in range(20)}) == 20


async def test_a_revoked_token_holds_no_more_in_another_process_either(tokens: Tokens) -> None:
    text, _ = await tokens.create("ci", ["team"], "write")
    other = Tokens(tokens.path)
    assert other.find(text) is not None
    revoked = await tokens.revoke("ci")
    assert other.find(text) is None
    assert tokens.find(text) is None
    assert await tokens.revoke("ci") == revoked
    with pytest.raises(NotFound, match="no token 'nobody'"):
        await tokens.revoke("nobody")


async def test_a_token_holds_until_the_moment_it_expires(tokens: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    text, made = await tokens.create("ci", ["team"], "write", expires_in=timedelta(hours=1))
    assert made.expires_at is not None
    for offset_s, holds in ((-1, True), (0, False), (1, False)):
        at = made.expires_at + timedelta(seconds=offset_s)
        assert made.holds(at) is holds
        assert made.state(at) == ("valid" if holds else "expired")
        monkeypatch.setattr("reme_mcp.auth.tokens.now", lambda at=at: at)
        assert (tokens.find(text) is not None) is holds


async def test_a_name_is_taken_while_its_token_holds_and_free_afterwards(tokens: Tokens) -> None:
    old, _ = await tokens.create("ci", ["team"], "write")
    with pytest.raises(InvalidInput, match="there is a token 'ci'"):
        await tokens.create("ci", ["team"], "write")
    assert tokens.find(old) is not None
    await tokens.revoke("ci")
    new, _ = await tokens.create("ci", ["team"], "write")
    assert tokens.find(old) is None
    assert tokens.find(new) is not None


@pytest.mark.parametrize("name", ["", " ", "-a", "a b", "a\nb", "x" * 41, "../x"])
async def test_a_name_that_is_none_is_refused(tokens: Tokens, name: str) -> None:
    with pytest.raises(InvalidInput, match="the name is"):
        await tokens.create(name, ["team"], "write")
    assert tokens.all() == ()


@pytest.mark.parametrize("workspaces", [[], ["*"], ["team", ""], ["../team"]])
async def test_a_workspace_that_is_none_is_refused(tokens: Tokens, workspaces: list[str]) -> None:
    with pytest.raises(InvalidInput, match="workspace"):
        await tokens.create("ci", workspaces, "write")
    assert tokens.all() == ()


async def test_writers_at_the_same_time_lose_nothing(tokens: Tokens) -> None:
    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(Tokens(tokens.path).create, f"n{number}", ["w"], "read")
    assert len(tokens.all()) == 20


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"tokens": [{}]}', '{"tokens": [3]}', '{"tokens": {"a": 1}}', "\ufeffx"]
)
async def test_a_damaged_file_lets_nobody_in_and_says_so(
    tokens: Tokens, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    text, _ = await tokens.create("ci", ["team"], "write")
    tokens.path.write_text(damage, encoding="utf-8")
    assert tokens.find(text) is None
    assert tokens.find(text) is None
    assert [record.getMessage()[:16] for record in caplog.records] == ["nobody is let in"]
    assert tokens.exist()
    with pytest.raises(StoreError, match="is damaged"):
        await tokens.create("other", ["team"], "write")
    assert tokens.path.read_text(encoding="utf-8") == damage


async def test_a_role_or_a_workspace_that_was_tampered_with_is_damage(tokens: Tokens) -> None:
    text, _ = await tokens.create("ci", ["team"], "write")
    stored = json.loads(tokens.path.read_text())
    changes: list[dict[str, object]] = [{"role": "owner"}, {"workspaces": []}, {"workspaces": None}]
    for change in changes:
        tokens.path.write_text(json.dumps({"tokens": [stored["tokens"][0] | change]}))
        assert tokens.find(text) is None


def test_there_are_none_before_the_first(tokens: Tokens) -> None:
    assert tokens.all() == ()
    assert not tokens.exist()
    assert tokens.find("reme_x") is None


@pytest.mark.parametrize(("text", "hours"), [("12h", 12), ("1d", 24), ("90d", 2160), ("2w", 336)])
def test_a_span_of_time_is_read(text: str, hours: int) -> None:
    assert duration(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "d", "0d", "-1d", "1.5d", "90", "90 d", "1y", "999999d", "٩d"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no span of time"):
        duration(text)


# --- what a token allows ---


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("needed", ROLES)
def test_a_role_reaches_as_far_as_those_below_it(role: Role, needed: Role) -> None:
    access = Access("ci", ("team",), role)
    allowed = ROLES.index(role) >= ROLES.index(needed)
    assert access.allows(needed) is allowed
    if allowed:
        access.demand(needed, "it")
    else:
        with pytest.raises(Forbidden, match=f"needs a token with the role {needed}; this one may only {role}"):
            access.demand(needed, "it")


def test_a_call_that_names_no_workspace_is_about_the_only_one() -> None:
    assert Access("ci", ("team",), "read").workspace(None) == "team"
    assert Access("ci", ("team",), "read").workspace("team") == "team"
    assert Access.of_this_machine("mine").workspace(None) == "mine"
    assert Access.of_this_machine("mine").workspace("other") == "other"


@pytest.mark.parametrize("named", ["other", "", "TEAM", "team ", "*"])
def test_another_workspace_is_refused_in_the_same_words_whether_it_exists_or_not(named: str) -> None:
    with pytest.raises(Forbidden, match="this token is for team"):
        Access("ci", ("team",), "admin").workspace(named)


def test_where_several_are_its_own_one_has_to_be_named() -> None:
    access = Access("ci", ("team", "docs"), "read")
    assert access.workspace("docs") == "docs"
    with pytest.raises(Forbidden, match="name one of team, docs"):
        access.workspace(None)
