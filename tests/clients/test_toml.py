"""TOML is changed in one table, and every other byte stays."""

from __future__ import annotations

import tomllib

import pytest

from reme_mcp.clients import toml
from reme_mcp.errors import InvalidInput

VALUES = {"command": "/opt/reme-mcp", "args": ["--home", "/m"]}
PATH = ("mcp_servers", "reme")
TABLE = '[mcp_servers.reme]\ncommand = "/opt/reme-mcp"\nargs = ["--home", "/m"]\n'

COMMENTED = """# my settings
model = "gpt" # the one

[mcp_servers.files]
command = 'npx'   # odd   spacing
args = [
  "a", # first
]

# about the profile
[profiles.fast]
prompt = \"\"\"
[mcp_servers.reme]
is text here\"\"\"
"""


@pytest.mark.parametrize(
    "text",
    [
        "",
        'model = "gpt"\n',
        COMMENTED,
        COMMENTED.replace("\n", "\r\n"),
        'mcp_servers.files.command = "npx"\nmodel = "gpt"\n',
        'mcp_servers = { files = { command = "npx" } }\nmodel = "gpt"\n',
        "[[list]]\na = 1\n[[list]]\na = 2\n",
        "[mcp_servers]\n",
    ],
)
def test_a_table_is_added_and_removed_without_a_trace(text: str) -> None:
    changed = toml.put(text, PATH, VALUES)
    assert tomllib.loads(changed)["mcp_servers"]["reme"] == VALUES
    assert toml.put(changed, PATH, VALUES) == changed
    assert toml.remove(changed, PATH) == text
    assert toml.remove(text, PATH) == text


def test_a_new_table_stands_at_the_end() -> None:
    assert toml.put(COMMENTED, PATH, VALUES) == f"{COMMENTED}\n{TABLE}"
    assert toml.put('model = "gpt"', PATH, VALUES) == f'model = "gpt"\n\n{TABLE}'


def test_a_change_inside_a_table_keeps_what_else_it_holds() -> None:
    text = f'{TABLE}startup_timeout_sec = 20 # slow disk\n\n[mcp_servers.reme.env]\nA = "1"\n\n# next\n[z]\n'
    changed = toml.put(text, PATH, {"command": "/usr/bin/reme-mcp"})
    assert changed == text.replace("/opt", "/usr/bin")


def test_a_table_goes_with_those_inside_it_and_comments_of_others_stay() -> None:
    text = f'a = 1\n\n{TABLE}\n[mcp_servers.reme.env]\nA = "1"\n\n# next\n[z]\nb = 2\n'
    assert toml.remove(text, PATH) == "a = 1\n\n# next\n[z]\nb = 2\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = ", "end of document"),
        ("[a]\n[a]\n", "line 2|twice"),
        ("mcp_servers = 3\n", '"mcp_servers" is 3, not a table'),
        ("[[mcp_servers]]\n", "not a table"),
    ],
)
def test_what_is_broken_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        toml.put(text, PATH, VALUES)


def test_what_cant_be_changed_safely_is_refused() -> None:
    # Inside an array of tables nothing is safe to guess.
    with pytest.raises(InvalidInput):
        toml.remove("[[mcp_servers]]\nreme = 1\n", PATH)
