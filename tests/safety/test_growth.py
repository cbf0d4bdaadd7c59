"""No text makes a guard slow: twice the text takes no more than twice the time, whatever is written in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest

from reme_mcp.safety.injection_rules import RULES, texts_of
from reme_mcp.safety.redaction import redactor
from reme_mcp.safety.secret_rules import RULES as SECRET_RULES
from reme_mcp.safety.secret_rules import compiled
from reme_mcp.safety.unicode import visible
from tests.redaction_cases import SECRETS

pytestmark = pytest.mark.slow

CHARS = 200_000
MAX_GROWTH = 2.5
# What a measurement may be off by. What grows with the square takes many seconds at this length.
NOISE_S = 0.1
TRIES = 3
# What a pattern begins with, so that it is tried everywhere, and what makes it read on in vain.
BEGINNINGS = {
    "json web token": ("eyJa", "-eyJaaaaaaaa", "eyJaaaaaaaa."),
    "private key": ("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----aaaaaaaaaaaaaaaaaaaa "),
    "password": ("://", "://a:", " -u a:", "mysql -", "mysql x -", "machine a ", "machine\t", "sshpass -p "),
    "cookie": ("cookie: a=", "cookie: a=b; c", "set-cookie: a"),
    "bearer token": ("bearer ", "bearer a."),
    "token": ("authorization: token ", "authorization:"),
    "card number": ("4111 1111 1111 ", "4"),
}
NAMED = ("token=", 'token="', "token: a.b", "key=key=", "password is ", "secret>", "token', '", '\\"pass\\":\\"')
WORDS = {
    "override": (
        "vergiss alle ",
        "this note ",
        "approve ",
        "the user rules ",
        "ignore all ",
        "ignore what a",
        "disregard the previous a ",
        "set aside ",
        "1gnore all ",
    ),
    "secrecy": (
        "sag dem nutzer ",
        "ne dis ",
        "the user must not ",
        "cache a ",
        "never tell ",
        "without a word ",
        "so the user ",
        "if anyone asks ",
        "hide a ",
    ),
    "exfiltration": (
        ".env a ",
        "schicke passwort ",
        "send ",
        "token ",
        "https://x?a=b",
        "curl ",
        "cookies a a a ",
        "copy to a.a",
        "env|",
    ),
    "link": ("follow ", "https://a.io/a do ", "![", "![](http://", "open http://", "run http://a.a.", "fetch a.a."),
    "command": (
        "curl x && ",
        "eval(",
        "rm -rm ",
        ">>",
        "curl |",
        "curl x | sudo -a ",
        "bash <(",
        "mkfs ",
        "\\x41",
        "base64 -d pipe ",
    ),
    "markup": ("\n# ", "\n", "\n \n", "<system ", "[end of ", "'name':'a", "'role':", "\nuser:", "<|a"),
    "steering": (
        "passwort in a ",
        "kopiere a ",
        "note a ",
        "rate ",
        "store ",
        "keys write ",
        "delete all ",
        "copy of ",
    ),
    "hidden characters": ("a\u200f", "א\u200f", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "a\u200d", "\U000e0067"),
    "look-alike letters": ("а_b_", "aA", "a.", "é", "ｄ", "Ａ b "),
    "secret": ("[redacted", "[redacted:"),
}


def text(part: str, chars: int) -> str:
    return (part * (chars // len(part) + 1))[:chars]


def seconds(work: Callable[[str], object], given: str) -> float:
    """Return the CPU time that it takes: what else runs on the machine does not count."""
    start = time.process_time()
    work(given)
    return time.process_time() - start


def grows_too_fast(work: Callable[[str], object], parts: Iterable[str]) -> list[str]:
    """Return those parts of which a long text takes longer than it should."""
    return [part for part in parts if not any(grows_evenly(work, part) for _ in range(TRIES))]


def grows_evenly(work: Callable[[str], object], part: str) -> bool:
    whole = seconds(work, text(part, CHARS))
    return whole <= NOISE_S or whole <= MAX_GROWTH * seconds(work, text(part, CHARS // 2)) + NOISE_S


@pytest.mark.parametrize("rule", SECRET_RULES, ids=lambda rule: f"{rule.kind}-{rule.needles[0]}")
def test_a_rule_for_secrets_reads_a_text_once(rule: object) -> None:
    assert isinstance(rule, type(SECRET_RULES[0]))
    pattern = compiled(rule.pattern)
    examples = [secret.secret for secret in SECRETS if secret.kind == rule.kind]
    halves = [example[:end] for example in examples[:2] for end in (len(example) // 2, -1)]
    parts = [*(needle or "4" for needle in rule.needles), *BEGINNINGS.get(rule.kind, ()), *halves]
    assert grows_too_fast(lambda given: pattern.sub("", given), filter(None, parts)) == []


@pytest.mark.parametrize("part", [*NAMED, *(part for parts in BEGINNINGS.values() for part in parts)])
def test_redaction_reads_a_text_once(part: str) -> None:
    assert grows_too_fast(redactor(), [part]) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_of_the_quarantine_reads_a_text_once(rule: object) -> None:
    assert isinstance(rule, type(RULES[0]))
    applies = rule.applies
    assert grows_too_fast(lambda given: applies(texts_of([given], [given])), WORDS[rule.name]) == []


@pytest.mark.parametrize("part", WORDS["hidden characters"])
def test_what_hides_is_spelled_out_in_one_go(part: str) -> None:
    assert grows_too_fast(visible, [part, f"{part}א"]) == []
