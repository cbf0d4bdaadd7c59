"""The package is what its architecture page draws: imports run downwards, and a foreign library has one owner."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Sequence, Set
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "reme_mcp"
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 800
# From the outside to the inside: a folder imports only from lines below its own. `top` stands for files, not folders.
ORDER = (
    ("cli",),
    ("http",),
    ("server",),
    ("web",),
    ("memory",),
    ("import_export",),
    ("distill",),
    ("recall",),
    ("refine", "models", "auth"),
    ("safety", "store", "transcripts"),
    ("text", "config", "aio", "clients"),
    ("tracing", "sources", "atomic", "progress"),
    ("results",),
    ("schema",),
    ("errors",),
)
# What may stand at the top of the package beside its folders.
TOP = {"__init__", "__main__", "aio", "atomic", "errors", "progress", "results", "schema", "sources", "tracing"}
# Which modules import a foreign library; a folder stands for all of its modules.
OWNERS = {
    "mcp": {"server", "http", "auth.bearer", "cli.story"},
    "starlette": {"http", "web", "auth.bearer"},
    "jinja2": {"web"},
    "markupsafe": {"web"},
    "sse_starlette": {"http.process", "http.local"},
    "uvicorn": {"http.process", "http.local"},
    "jwt": {"auth.oidc"},
    "prometheus_client": {"http.metrics"},
    "opentelemetry": {"tracing"},
    "lancedb": {"store"},
    "sqlite3": {"store.sqlite_ledger"},
    "pyarrow": {"store"},
    "fastembed": {"models.embedder"},
    "onnxruntime": {"models.embedder"},
    "loguru": {"models.embedder"},
    "openai": {"models.endpoint"},
    "filelock": {"store.file_lock"},
    "obstore": {"store.object_store"},
    "platformdirs": {"config.settings", "config.load"},
    "tomlkit": {"clients.toml"},
    "yaml": {"import_export.markdown"},
    "py_rust_stemmers": {"text.words"},
    "stop_words": {"text.words"},
    "click": {"cli"},
    "rich": {"cli"},
}
HEAVY = {
    "lancedb",
    "pyarrow",
    "fastembed",
    "openai",
    "onnxruntime",
    "py_rust_stemmers",
    "stop_words",
    "loguru",
    "filelock",
    "obstore",
    "tomlkit",
}
# Methods that only LanceDB's objects have; who calls one uses the library, whether it imports it or not.
LANCEDB_METHODS = {
    "merge_insert",
    "create_index",
    "open_table",
    "nearest_to",
    "nearest_to_text",
    "to_arrow",
    "checkout",
}


def name_of(file: Path) -> str:
    """Return a file's name within the package: `store.lock`, `schema`."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {name_of(file) for file in FILES}


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def nodes_of(file: Path) -> Sequence[ast.AST]:
    return list(ast.walk(tree_of(file)))


@cache
def imports(path: Path, *, anywhere: bool = True) -> Set[str]:
    """Return the dotted names that a file imports; with `anywhere` off, only those that run when it is imported."""
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if not anywhere and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if not anywhere and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree_of(path))
    return names


def own(file: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    return {name.removeprefix("reme_mcp.") for name in imports(file)} & (MODULES - {name_of(file)})


def room(module: str) -> str:
    """Return the folder that a module stands in, or the module itself where it stands at the top."""
    return module.split(".")[0]


def floor(module: str) -> int:
    return next(place for place, rooms in enumerate(ORDER) if room(module) in rooms)


def test_what_stands_at_the_top_is_listed() -> None:
    assert {file.stem for file in PACKAGE.glob("*.py")} == TOP


def test_every_folder_has_its_place_in_the_order() -> None:
    folders = {file.parent.name for file in PACKAGE.rglob("__init__.py")} - {PACKAGE.name}
    assert folders <= {name for names in ORDER for name in names}
    assert [file for file in PACKAGE.rglob("*.py") if len(file.relative_to(PACKAGE).parts) > 2] == []


def test_arrows_run_down() -> None:
    up = [
        (me, name)
        for file in FILES
        if not file.stem.startswith("__")
        for me in [name_of(file)]
        for name in own(file)
        if room(name) != room(me) and floor(name) <= floor(me)
    ]
    assert up == []


@pytest.mark.parametrize("folder", sorted({room(name) for name in MODULES}))
def test_modules_of_one_folder_make_no_circle(folder: str) -> None:
    inside = [file for file in FILES if room(name_of(file)) == folder]
    arrows = {name_of(file): {name for name in own(file) if room(name) == folder} for file in inside}
    while free := [name for name, targets in arrows.items() if not targets & set(arrows)]:
        for name in free:
            del arrows[name]
    assert arrows == {}


def test_init_files_are_empty_but_the_packages_own() -> None:
    filled = {file.parent for file in FILES if file.stem == "__init__" and file.read_text(encoding="utf-8")}
    assert filled == {PACKAGE}


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_its_owners(library: str) -> None:
    users = {name_of(file) for file in FILES if any(name.split(".")[0] == library for name in imports(file))}
    assert users
    assert {name for name in users if name not in OWNERS[library] and room(name) not in OWNERS[library]} == set()
    assert {name for name in OWNERS[library] if not any(name in (user, room(user)) for user in users)} == set()


def test_lancedb_is_used_in_its_room_only() -> None:
    called = [
        (name_of(file), node.lineno, node.func.attr)
        for file in FILES
        if room(name_of(file)) != "store"
        for node in nodes_of(file)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LANCEDB_METHODS
    ]
    assert called == []


def test_the_methods_that_show_a_use_of_lancedb_are_its_own() -> None:
    calls = {
        node.attr
        for file in FILES
        if room(name_of(file)) == "store"
        for node in nodes_of(file)
        if isinstance(node, ast.Attribute)
    }
    assert LANCEDB_METHODS - calls <= {"checkout"}


def test_nothing_heavy_is_imported_before_it_is_used() -> None:
    early = [(name_of(file), name) for file in FILES for name in imports(file, anywhere=False)]
    assert [(file, name) for file, name in early if name.split(".")[0] in HEAVY] == []


@pytest.mark.parametrize("library", sorted(HEAVY))
def test_what_is_called_heavy_is_there(library: str) -> None:
    assert importlib.util.find_spec(library) is not None


def test_a_file_says_what_it_is() -> None:
    filled = [file for file in FILES if file.read_text(encoding="utf-8")]
    assert [name_of(file) for file in filled if not ast.get_docstring(tree_of(file))] == []


def test_a_file_does_one_job() -> None:
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}


def name_in(node: ast.AST) -> str | None:
    """Return the name that a node uses or gives, if it does."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.arg(arg=name) | ast.keyword(arg=name):
            return name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.alias(asname=name):
            return name
        case _:
            return None


def test_nothing_is_called_a_score() -> None:
    assert [name_of(file) for file in FILES for node in nodes_of(file) if name_in(node) == "score"] == []


def test_every_import_says_its_full_name() -> None:
    # The tests above read names; an import that has none to read would go past them.
    hidden = [
        (name_of(file), node)
        for file in FILES
        for node in nodes_of(file)
        if (isinstance(node, ast.ImportFrom) and node.level) or name_in(node) == "__import__"
    ]
    assert hidden == []
