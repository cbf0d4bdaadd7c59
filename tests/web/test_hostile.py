"""Hostile contents on every page: whatever stands in the pool, or in an address, is shown as text."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import quote, urlencode, urlsplit

import pytest

from reme_mcp.memory.memory import Memory
from tests.fakes import draft
from tests.web.browser import browser, needs_browser, served
from tests.web.test_page import ORDER, PAGES, form_of

pytestmark = pytest.mark.anyio

HOSTILE = {
    "script": "<script>document.title='owned'</script>",
    "attribute": '"><img src=x onerror="document.title=\'owned\'">',
    "single quotes": "' onmouseover='document.title=1' x='",
    "template": "{{ 7 * 7 }} {% raw %} ${7*7} <%= 7 * 7 %>",
    "markup": "<svg/onload=alert(1)> <a href=javascript:alert(1)>click</a> <base href=//evil.example.net>",
    "end of element": "</textarea></title></style></script><iframe src=//evil.example.net>",
    "comment": "<!-- --><form action=//evil.example.net><button>x</button> <![CDATA[ x",
    "htmx": '<b hx-get="//evil.example.net" hx-trigger="load">x</b> <meta http-equiv=refresh content="0;//evil.net">',
    "markdown": "[click](javascript:alert(1)) ![](http://evil.example.net/x.png) ```\n# heading",
    "entities": "&lt;script&gt; &#60;img&#62; &amp;amp; &nbsp",
    "bidi": "Pay \u202eevil\u202c now, \u2066hidden\u2069 and \u200bunseen \U000e0041 \u200e",
    "null characters": "before\x00after \x01\x1b[31mred\x1b[0m \x7f\x9b \ufffe",
    "lone surrogate": "half \ud83d of a pair",
    "combining": "z" + "\u0310\u0334" * 200 + " and \ufdfd" * 20,
    "one long word": "w" * 450,
    "lines": "one\r\ntwo\u2028three\u2029four\x85five\x0bsix",
}  # fmt: skip
# None of these is ever sent outside a field.
HIDDEN = set("\x00\x01\x1b\x7f\u202e\u202c\u2066\u2069\u200b\U000e0041")
FORM = "application/x-www-form-urlencoded"
# Elements of ours that bring something in, and where from.
SOURCES = {"src", "href", "action", "data", "formaction", "hx-get", "hx-post", "poster", "srcset"}
ELSEWHERE = {"img", "iframe", "object", "embed", "base", "audio", "video", "frame", "applet"}


class Markup(HTMLParser):
    """What a browser would make of a page, as far as it could do harm."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.harm: list[str] = []
        self.shown: list[str] = []
        self._within: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        is_refresh = tag == "meta" and "http-equiv" in given
        if tag in ELSEWHERE or (tag == "script" and "src" not in given) or tag == "style" or is_refresh:
            self.harm.append(f"<{tag}>")
        self.harm += [f"<{tag} {name}>" for name in given if name.startswith("on") or name == "style"]
        for name in SOURCES & set(given):
            parts = urlsplit(given[name])
            if parts.scheme or parts.netloc:
                self.harm.append(f"<{tag} {name}={given[name]}>")
        if tag == "textarea":
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea" and self._within:
            self._within.pop()

    def handle_data(self, data: str) -> None:
        if not self._within:  # What a person edits is what is stored.
            self.shown.append(data)


async def planted(memory: Memory, text: str) -> list[str]:
    """Put a text wherever a client can put one; return the pages that show something of it, the lesson's first."""
    whole = draft(0, when_to_use=f"When {text} comes", content=f"Do this: {text}, and then that.")
    done = await memory.record(
        f"Deploy {text}",
        outcome="failure",
        experiences=[whole | {"keywords": [text], "tools_used": [text]}],
        messages=[{"role": "user", "content": text}, {"role": "assistant", "content": text}],
        source=text,
    )
    held = await memory.record(
        "Deploy", outcome="success", experiences=[draft(1, content=f"{ORDER} {text}")], steps=text, source=text
    )
    waiting = await memory.record(f"Wait {text}", outcome="failure", steps=text, source=text)
    await memory.recall(f"Deploy {text}", tools=[text], source=text)
    for id in done.added:
        await memory.rate(id, helpful=False, reason=text, source=text)
    ids = [*done.added, *done.merged, *(one.id for one in (*done.quarantined, *held.quarantined))]
    word = quoted(text)
    return [
        *(f"/lesson/{id}" for id in ids),
        *(f"/lesson/{ids[0]}?{query}" for query in ("edit=1", f"done=archive&ids={word}", f"from={word}")),
        *(f"/attempt/{one.trajectory_id}" for one in (done, held, waiting)),
        *(f"/?q={word}", f"/?by={word}&sort={word}&standing={word}&from={word}", f"/?workspace={word}"),
        *(f"/recall?task={word}&tools={word}&limit={word}", f"/changes?did={word}&about={word}&limit={word}"),
        *(f"/removal?alpha={word}&beta={word}", f"/lesson/{word}", f"/attempt/{word}", f"/{word}"),
    ]


def quoted(text: str) -> str:
    return quote(text.encode("utf-8", "replace"), safe="")


@pytest.mark.slow
async def test_whatever_is_hostile_is_text_on_every_page(memory: Memory) -> None:
    pages = {name: await planted(memory, text) for name, text in HOSTILE.items()}
    everywhere = [*PAGES, "/?status=quarantined", "/?standing=early"]
    async with served(memory) as page, page.http() as http:
        for path in (path for paths in (everywhere, *pages.values()) for path in paths):
            for is_part in ("true", "false") if path.startswith(("/?", "/removal")) else ("false",):
                answer = await http.get(path, headers={"hx-request": is_part})
                assert answer.status_code in (200, 400, 403, 404), path
                found = Markup(answer.text)
                assert found.harm == [], path
                assert not set("".join(found.shown)) & HIDDEN, path
        for name in ("script", "attribute", "template", "markup", "end of element", "htmx", "markdown", "entities"):
            shown = "".join(Markup((await http.get(pages[name][0])).text).shown)
            assert " ".join(HOSTILE[name].split()) in " ".join(shown.split()), name


async def test_whatever_is_hostile_in_a_form_changes_nothing(memory: Memory) -> None:
    done = await memory.record("t", outcome="success", experiences=[draft(0)], source="codex")
    before = await memory.pool.experience(done.added[0])
    async with served(memory) as page, page.http() as http:
        token = await form_of(http, f"/lesson/{done.added[0]}")
        for text in HOSTILE.values():
            sent = urlencode({"token": token, "helpful": "yes", "when_to_use": "x", "content": "y"})
            sent += "".join(f"&{name}={quoted(text)}" for name in ("id", "back", "receipt", "reason"))
            for verb in ("rate", "archive", "restore", "edit", "undo-edit", "approve", "pin", "delete", quoted(text)):
                answer = await http.post(f"/do/{verb}", content=sent, headers={"content-type": FORM})
                assert answer.status_code in (400, 404), (verb, text)
                assert Markup(answer.text).harm == []
    assert await memory.pool.experience(done.added[0]) == before


async def test_hidden_characters_are_spelled_out(memory: Memory) -> None:
    done = await memory.record("t", outcome="success", experiences=[draft(0, content=HOSTILE["bidi"])], source="x")
    async with served(memory) as page, page.http() as http:
        assert "\\u{202e}" in (await http.get(f"/lesson/{done.quarantined[0].id}")).text


async def test_an_attempt_of_a_hundred_thousand_characters_is_shown(memory: Memory) -> None:
    done = await memory.record("x" * 7_000 + " w" * 100, outcome="failure", steps="y" * 100_000, source="codex")
    async with served(memory) as page, page.http() as http:
        assert "y" * 100_000 in (await http.get(f"/attempt/{done.trajectory_id}")).text


@needs_browser
@pytest.mark.slow
async def test_a_browser_runs_loads_and_bends_nothing_of_it(memory: Memory) -> None:
    lessons = [(await planted(memory, text))[0] for text in HOSTILE.values()]
    huge = await memory.record("x" * 7_000, outcome="failure", steps="y" * 100_000, source="codex")
    async with served(memory) as page, browser(width=390) as seen:
        await seen.tab.goto(page.first)
        for path in (*PAGES, f"/?workspace={'w' * 64}", *lessons, f"/attempt/{huge.trajectory_id}"):
            await seen.tab.goto(page.url + path)
            assert await seen.tab.title() not in ("owned", "1"), path
            wide = await seen.tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert wide[0] <= wide[1], path
        assert seen.said == []
        assert seen.hosts == {urlsplit(page.url).netloc}
