"""Secrets are cut out, everything else survives, and nothing that comes in goes past it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from reme_mcp.cli import last_error
from reme_mcp.config.load import load_settings
from reme_mcp.config.settings import LLMSettings, RecallSettings, RedactionSettings, Settings
from reme_mcp.errors import ConfigError
from reme_mcp.http import logs
from reme_mcp.memory.memory import Memory
from reme_mcp.recall.rerank import Rewriting
from reme_mcp.safety.redaction import DiscreetFormatter, is_marked, redact_all, redact_json, redactor
from reme_mcp.safety.secret_rules import MARK_START
from reme_mcp.store.store import Store
from tests.benchmarks import redaction as benchmark
from tests.fakes import ScriptedLLM, draft, experience
from tests.redaction_cases import INNOCENTS, KNOWN_MISSES, SECRETS, Secret, card

# Patterns are compiled when they are first needed, which takes its time.
unhurried = hypothesis_settings(deadline=None)
redact = redactor()
FOUND = [secret for secret in SECRETS if not secret.known_miss]
TOKEN = next(secret for secret in SECRETS if secret.kind == "github token").secret
MARKED = "[redacted: github token]"


# --- the list ---


@pytest.mark.parametrize("secret", FOUND, ids=lambda secret: secret.whole[:40])
def test_a_secret_is_cut_out_and_the_mark_says_what_it_was(secret: Secret) -> None:
    assert redact(secret.whole) == secret.text.replace("{}", marked(secret))


def marked(secret: Secret) -> str:
    """Return what stands in the place of a secret; of a key in armour, its first and last line stay."""
    first, _, rest = secret.secret.partition("KEY")
    if not secret.secret.startswith("-----BEGIN"):
        return f"[redacted: {secret.kind}]"
    begin = f"{first}KEY{' BLOCK' if rest.startswith(' BLOCK') else ''}-----"
    return f"{begin}[redacted: {secret.kind}]{begin.replace('BEGIN', 'END')}"


@pytest.mark.parametrize("secret", KNOWN_MISSES, ids=lambda secret: secret.known_miss)
def test_what_is_known_to_be_missed_is_missed(secret: Secret) -> None:
    assert redact(secret.whole) == secret.whole


@pytest.mark.parametrize("text", INNOCENTS, ids=lambda text: text[:40])
def test_what_only_looks_like_a_secret_survives(text: str) -> None:
    assert redact(text) == text


def test_the_list_is_long_enough_to_say_something() -> None:
    assert len(FOUND) >= 100
    assert len(set(INNOCENTS)) >= 100
    assert len(KNOWN_MISSES) <= 0.1 * len(SECRETS)


# --- what holds for any text ---


@pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.whole[:40])
def test_a_redacted_text_stays_as_it_is(secret: Secret) -> None:
    once = redact(secret.whole)
    assert redact(once) == once


TEXTS = st.lists(
    st.sampled_from([*INNOCENTS, *(secret.whole for secret in SECRETS)]) | st.text(max_size=20), max_size=4
)


@unhurried
@given(TEXTS, st.sampled_from(["\n", " ", "\n\n", ", "]))
def test_equal_texts_become_equal_texts_that_hold_no_token(parts: list[str], between: str) -> None:
    text = between.join(parts)
    once = redact(text)
    assert redact(text) == once
    assert redact(once) == once
    assert not any(token in once for token in (TOKEN, FOUND[0].secret))


@unhurried
@given(st.text())
def test_a_text_without_a_mark_is_the_text(text: str) -> None:
    assert is_marked(redact(text)) or redact(text) == text


@unhurried
@given(st.lists(st.sampled_from([secret.whole for secret in FOUND] + INNOCENTS), max_size=5))
def test_texts_together_become_what_each_becomes_alone(texts: list[str]) -> None:
    assert redact_all(texts, redact) == [redact(text) for text in texts]


def test_a_key_that_begins_in_one_text_and_ends_in_another_takes_nothing_along() -> None:
    pem = next(secret.secret for secret in SECRETS if secret.secret.startswith("-----BEGIN RSA"))
    body = pem.splitlines()
    texts = ["\n".join(body[:3]), "An innocent sentence in between.", "\n".join(body[3:])]
    assert redact_all(texts, redact)[1] == texts[1]
    assert body[1] not in redact_all(texts, redact)[0]


@pytest.mark.parametrize(("length", "cut"), [(15, False), (16, True), (17, False)])
def test_an_access_key_has_its_length(length: int, cut: bool) -> None:
    assert is_marked(redact("AKIA" + ("Q7" * 9)[:length])) is cut


@pytest.mark.parametrize(("word", "cut"), [("cat1", True), ("c4t", False)])
def test_a_password_has_four_characters_at_least(word: str, cut: bool) -> None:
    assert is_marked(redact(f'"password": "{word}"')) is cut


@pytest.mark.parametrize(("value", "cut"), [("a1b2c3d", False), ("a1b2c3d4", True), ("a1b2c3d4e", True)])
def test_a_token_has_eight_characters_at_least(value: str, cut: bool) -> None:
    assert is_marked(redact(f"api_key={value}")) is cut


def test_a_card_number_fulfils_its_check() -> None:
    number = card("4", 16)
    others = [f"{number[:-1]}{digit}" for digit in "0123456789"]
    assert [is_marked(redact(f"pay with {other}")) for other in others].count(True) == 1


def test_letters_that_grow_in_lower_case_do_not_move_the_cut() -> None:
    assert redact("İİİ password=hunter2 İ") == "İİİ password=[redacted: password] İ"


def test_a_whole_value_is_redacted_its_keys_too() -> None:
    value = {"a": [f"use {TOKEN}", 3, None], TOKEN: {"b": True}}
    assert redact_json(value, redact) == {"a": [f"use {MARKED}", 3, None], MARKED: {"b": True}}


def test_control_characters_do_not_hide_a_secret_in_a_value() -> None:
    assert redact_json(TOKEN[:9] + "\x07" + TOKEN[9:], redact) == MARKED


def test_an_own_pattern_is_cut_besides() -> None:
    own = redactor(r"ACME-\d{4}")
    assert own(f"ACME-1234 and {TOKEN}") == f"[redacted: configured pattern] and {MARKED}"
    assert own("ACME-12") == "ACME-12"


# --- no way past it ---


def everything_on_disk(home: Path) -> bytes:
    return b"".join(file.read_bytes() for file in home.rglob("*") if file.is_file())


async def fill(settings: Settings) -> None:
    """Send a token through every argument that takes a text."""
    async with Memory.open(settings) as memory:
        recalled = await memory.recall(f"deploy with {TOKEN}", context=f"key {TOKEN}", source="test")
        result = await memory.record(
            f"deploy with {TOKEN}",
            outcome="failure",
            receipt=recalled.receipt,
            messages=[
                {"role": "user", "content": f"use {TOKEN}"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": TOKEN,
                            "type": "function",
                            "function": {"name": "curl", "arguments": json.dumps({"header": TOKEN})},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "other", "content": f"401 for {TOKEN}"},
            ],
            experiences=[
                draft(0, keywords=[TOKEN], tools_used=[TOKEN], generalized_task=f"Deploy with {TOKEN}"),
                draft(1, content=f"Send {TOKEN} as a header, then look at the answer.", when_to_use=f"At {TOKEN} time"),
                {TOKEN: TOKEN, "when_to_use": TOKEN},
            ],
            source="test",
        )
        await memory.record("another task", outcome="success", steps=f"called it with {TOKEN}", source="test")
        # A lesson that held a secret is held back.
        [id, _] = [*result.added, *(one.id for one in result.quarantined)]
        await memory.rate(id, helpful=False, reason=f"it leaked {TOKEN}", source="test")
        clean = await memory.record("a third task", outcome="success", experiences=[draft(2)], source="test")
        await memory.pool.archive(clean.added[0], f"it leaked {TOKEN}")


@pytest.mark.anyio
async def test_no_argument_brings_a_secret_onto_the_disk(settings: Settings, home: Path) -> None:
    await fill(settings)
    assert TOKEN.encode() not in everything_on_disk(home)


@pytest.mark.anyio
async def test_who_switches_it_off_keeps_what_comes(settings: Settings, home: Path) -> None:
    await fill(settings.model_copy(update={"redaction": RedactionSettings(enabled=False)}))
    assert TOKEN.encode() in everything_on_disk(home)
    assert redactor(enabled=False)(TOKEN) == TOKEN


def test_a_log_line_holds_no_secret_nor_does_the_trace_behind_it() -> None:
    try:
        raise ValueError(f"{TOKEN} was refused")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "sent %s", (TOKEN,), sys.exc_info())
    line = DiscreetFormatter("%(message)s", redact).format(record)
    assert TOKEN not in line
    assert line.count(MARKED) == 2


def test_a_line_of_the_log_in_json_holds_no_secret_and_is_still_json() -> None:
    pem = next(secret.secret for secret in SECRETS if secret.secret.startswith("-----BEGIN RSA"))
    said = f'sent {TOKEN}, "password": "hunter2", PASSWORD=hunter2\n{pem}'
    try:
        raise ValueError(said)
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "x.py", 1, "%s", (said,), sys.exc_info())
    line = logs.JSONFormatter(with_texts=True, redact=redact).format(record)
    assert json.loads(line)["message"].startswith(f"sent {MARKED}, ")
    assert not any(part in line for part in (TOKEN, "hunter2", pem.splitlines()[1]))


def test_the_last_error_is_kept_without_secrets(tmp_path: Path) -> None:
    (tmp_path / last_error.MARK).touch()
    keeper = last_error.Keeper(tmp_path, redact)
    keeper.emit(logging.LogRecord("x", logging.ERROR, "x.py", 1, "sent %s", (TOKEN,), None))
    kept = last_error.read(tmp_path)
    assert kept is not None
    assert kept.message == f"sent {MARKED}"


@pytest.mark.anyio
async def test_a_repeated_record_is_known_again(settings: Settings) -> None:
    async with Memory.open(settings) as memory:
        first, second = [
            await memory.record(f"deploy with {TOKEN}", outcome="success", experiences=[draft(0)], source="test")
            for _ in range(2)
        ]
        assert first == second
        stats = await memory.pool.stats()
        assert sum(stats.trajectories.values()) == 1


@pytest.mark.anyio
async def test_a_model_is_told_no_secret_that_an_older_version_stored(settings: Settings) -> None:
    llm = ScriptedLLM(Rewriting(guidance="Build it."))
    with_model = settings.model_copy(
        update={
            "llm": LLMSettings(base_url="http://127.0.0.1:9/v1", model="m"),
            "recall": RecallSettings(rewrite=True),
        }
    )
    store = await Store.open(Path(settings.home))
    async with store.writing() as writer:
        await writer.put_experiences([experience(content=f"Build it, then upload it with {TOKEN}.")])
    store.close()
    async with Memory.open(with_model, connect=lambda *_: llm) as memory:
        await memory.recall("a static site has to go online", source="test")
    [asked] = llm.asked
    assert TOKEN not in asked.user
    assert f"upload it with {MARKED}." in asked.user


# --- the benchmark ---


def test_the_benchmark_counts_what_the_tests_assert(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert benchmark.main(["--json", str(file)]) == 0
    figures = json.loads(file.read_text(encoding="utf-8"))
    ours = figures["rules"]["reme-mcp"]
    assert ours["found"] == len(FOUND)
    assert ours["secrets"] == len(SECRETS)
    assert ours["wrongly_cut"] == 0
    assert ours["precision"] == 1.0
    assert ours["recall"] == round(len(FOUND) / len(SECRETS), 3)
    assert MARK_START in redact(f"x {TOKEN}")


# --- the setting ---


@pytest.mark.parametrize("pattern", ["(", "a*", "|"])
def test_a_pattern_that_is_none_or_fits_everywhere_stops_the_start(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"redaction\.also.*must (be a regular expression|not match the empty text)"):
        load_settings(environ={}, overrides={"redaction.also": pattern})


def test_a_pattern_may_come_from_anywhere() -> None:
    assert load_settings(environ={"REME_MCP_REDACTION_ALSO": r"ACME-\d+"}).redaction.also == r"ACME-\d+"
