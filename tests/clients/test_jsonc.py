"""JSON with comments is changed in one place, and every other byte stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reme_mcp.clients import jsonc
from reme_mcp.errors import InvalidInput

ENTRY = {"command": "/opt/reme-mcp", "args": ["--home", "/m"]}
PATH = ("mcpServers", "reme")

# Before and after, to be read by people.
PLAIN = '{\n  "theme": "dark",\n  "mcpServers": {\n    "files": {\n      "command": "npx"\n    }\n  }\n}\n'
PLAIN_AFTER = """{
  "theme": "dark",
  "mcpServers": {
    "files": {
      "command": "npx"
    },
    "reme": {
      "command": "/opt/reme-mcp",
      "args": [
        "--home",
        "/m"
      ]
    }
  }
}
"""
COMMENTED = """// my settings
{
\t"mcpServers": { // servers
\t\t/* the "files", of course */
\t\t"files": {"command": "npx"}, // , } trap
\t\t// "old": {},
\t},
\t"url": "https://example.org/*not a comment*/",
}
"""
COMMENTED_AFTER = """// my settings
{
\t"mcpServers": { // servers
\t\t/* the "files", of course */
\t\t"files": {"command": "npx"}, // , } trap
\t\t// "old": {},
\t\t"reme": {
\t\t\t"command": "/opt/reme-mcp",
\t\t\t"args": [
\t\t\t\t"--home",
\t\t\t\t"/m"
\t\t\t]
\t\t},
\t},
\t"url": "https://example.org/*not a comment*/",
}
"""
ONE_LINE = '{"mcpServers": {"files": {"command": "npx"}}, "n": 1.0}'
ONE_LINE_AFTER = (
    '{"mcpServers": {"files": {"command": "npx"}, "reme": {"command": "/opt/reme-mcp", "args": ["--home", "/m"]}}, '
    '"n": 1.0}'
)
# Removing what was put gives back the very text.
TEXTS = {
    "plain": PLAIN,
    "commented": COMMENTED,
    "one line": ONE_LINE,
    "windows": PLAIN.replace("\n", "\r\n"),
    "tabs": PLAIN.replace("  ", "\t"),
    "empty servers": '{"mcpServers": {}}',
    "empty servers over lines": '{\n  "a": [1,\n 2],\n  "mcpServers": {}\n}',
    "no comma before a comment": '{\n  "mcpServers": {\n    "a": 1 // one\n  }\n}\n',
    "comment alone": '{\n  "mcpServers": {\n    // nothing yet\n  }\n}\n',
    "comment ends the object": '{\n  "mcpServers": {\n    "a": 1\n    // more to come\n  }\n}\n',
    "odd": '{"mcpServers"  :\n{ "a" : {"x":[{}]} }\n}',
    "text with escapes": '{"mcpServers": {"a\\"//b": "\\\\"}}',
}


@pytest.mark.parametrize(
    ("before", "after"), [(PLAIN, PLAIN_AFTER), (COMMENTED, COMMENTED_AFTER), (ONE_LINE, ONE_LINE_AFTER)]
)
def test_a_member_is_put_last_in_the_style_of_the_others(before: str, after: str) -> None:
    assert jsonc.put(before, PATH, ENTRY, comments=True) == after
    assert jsonc.put(after, PATH, ENTRY, comments=True) == after


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_what_was_put_can_be_removed_without_a_trace(text: str) -> None:
    with_entry = jsonc.put(text, PATH, ENTRY, comments=True)
    servers = jsonc.read(with_entry, comments=True)["mcpServers"]
    assert isinstance(servers, dict)
    assert servers["reme"] == ENTRY
    assert jsonc.remove(with_entry, PATH, comments=True) == text
    assert jsonc.remove(text, PATH, comments=True) == text


@pytest.mark.parametrize("key", ["a", "b", "c"])
@pytest.mark.parametrize(
    "text",
    [
        '{\n  // on a\n  "a": 1, // a\n  // on b\n  "b": 2, // b\n  // on c\n  "c": 3 // c\n  // end\n}',
        '{"a":1,/*x*/"b":2,"c":3,}',
        '{"a": 1,\n"b": 2, "c": 3\n}',
        '{\n  "a": 1\n  , "b": 2\n  , "c": 3\n}',
        '{ // x\n"a": 1, // y\n"b": 2, // z\n"c": 3}',
    ],
)
def test_any_member_goes_and_all_comments_stay(text: str, key: str) -> None:
    left = jsonc.remove(text, [key], comments=True)
    assert jsonc.read(left, comments=True) == {name: n for name, n in (("a", 1), ("b", 2), ("c", 3)) if name != key}
    assert [one for one in ("// on a", "// a", "// b", "// c", "// end", "/*x*/", "// y") if one in text] == [
        one for one in ("// on a", "// a", "// b", "// c", "// end", "/*x*/", "// y") if one in left
    ]


def test_a_value_is_replaced_in_its_place() -> None:
    text = '{"mcpServers": {"reme": {"timeout": 5, /* old */ "command": "x", "args": []} // ours\n}}'
    changed = jsonc.put(text, (*PATH, "command"), "/opt/reme-mcp", comments=True)
    assert changed == text.replace('"x"', '"/opt/reme-mcp"')


def test_missing_objects_are_made_and_a_windows_file_keeps_its_line_ends() -> None:
    changed = jsonc.put('{\r\n    "a": 1\r\n}\r\n', PATH, 1, comments=False)
    assert changed == '{\r\n    "a": 1,\r\n    "mcpServers": {\r\n        "reme": 1\r\n    }\r\n}\r\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1, column 1"),
        ("{", "line 1, column 2"),
        ('{\n  "a": 1,,\n}', "line 2, column"),
        ('{"a": [1,,]}', "column"),
        ("{,}", "line 1, column 2"),
        ("[]", "it holds a list, not an object"),
        ("7", "it holds a number, not an object"),
        ('{"a": NaN}', "NaN is no JSON"),
        ('{"a": 1, "a": 2}', '"a" stands twice'),
        ('{"mcpServers": []}', '"mcpServers" is a list, not an object'),
        ('{"mcpServers": null}', '"mcpServers" is null, not an object'),
        ('{"a": 1} // open /* comment\n{', "Extra data"),
        ('{"a": /* never closed }', "line 1"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_broken_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says.replace("[", "\\[")):
        jsonc.put(text, PATH, ENTRY, comments=True)


@pytest.mark.parametrize("text", ['{"a": 1,}', "{} // x", '/* x */ {"a": 1}'])
def test_comments_and_trailing_commas_are_refused_where_the_client_does_not_read_them(text: str) -> None:
    with pytest.raises(InvalidInput, match="comments and trailing commas are not allowed"):
        jsonc.put(text, PATH, ENTRY, comments=False)
    assert "reme" in jsonc.put(text, PATH, ENTRY, comments=True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text(max_size=4), VALUES, max_size=4),
    st.dictionaries(st.text(max_size=4), VALUES, max_size=4),
    st.sampled_from([None, 1, 2, "\t"]),
    st.booleans(),
)
def test_any_document_takes_an_entry_and_gives_it_back(
    document: dict[str, object], servers: dict[str, object], indent: int | str | None, ascii_only: bool
) -> None:
    document["mcpServers"] = servers
    servers.pop("reme", None)
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only)
    with_entry = jsonc.put(text, PATH, ENTRY, comments=False)
    assert json.loads(with_entry) == document | {"mcpServers": servers | {"reme": ENTRY}}
    assert jsonc.remove(with_entry, PATH, comments=False) == text
