"""The package is what the README's file map and the design say: arrows in one direction, one owner per library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "reme_mcp"
FILES = sorted(PACKAGE.glob("*.py"))
# From the outside to the inside; a module imports only from layers behind its own, or from its own above it.
LAYERS = (
    ("__main__",),
    ("cli",),
    (
        "commands_log",
        "commands_loop",
        "commands_pool",
        "commands_queue",
        "commands_review",
        "commands_backup",
        "commands_capture",
        "commands_clients",
        "commands_completion",
        "commands_doctor",
        "commands_files",
        "commands_publish",
        "commands_token",
        "commands_deploy",
    ),
    ("publish",),
    ("terminal", "demo", "hosting", "health"),
    ("install",),
    ("entries",),
    ("server", "gate"),
    ("arguments", "capture", "subscriptions", "tokens", "identity", "metrics", "logs"),
    ("memory",),
    ("explanation",),
    ("pool", "queue", "search"),
    ("imports", "erasure"),
    ("intake", "distiller", "rereader", "records", "skills"),
    ("ledger", "vectors", "distill", "guidance", "backup", "checks"),
    ("recall", "refine"),
    ("sessions", "outcome", "plugin"),
    ("store", "embed", "llm", "prompts", "transcript", "excerpt", "echo", "questions", "quarantine"),
    ("upgrades", "upkeep", "trail", "receipts"),
    ("site",),
    (
        "tables",
        "audit",
        "wire",
        "answers",
        "costs",
        "home",
        "lock",
        "lease",
        "objects",
        "matrix",
        "directory",
        "gathering",
        "budget",
        "redaction",
        "searchable",
        "both",
        "forms",
        "choice",
        "clients",
        "jsonc",
        "toml",
        "lasterror",
        "exposure",
    ),
    ("words", "config", "access", "spans"),
    ("schema",),
    ("errors", "__init__"),
)
OWNERS = {
    "mcp": {"server", "subscriptions", "gate", "hosting", "demo"},
    "starlette": {"gate", "hosting"},
    "sse_starlette": {"hosting"},
    "uvicorn": {"hosting"},
    "jwt": {"identity"},
    "prometheus_client": {"metrics"},
    "opentelemetry": {"spans"},
    "lancedb": {"store", "tables"},
    "pyarrow": {"tables"},
    "fastembed": {"embed"},
    "onnxruntime": {"embed"},
    "loguru": {"embed"},
    "openai": {"llm"},
    "filelock": {"lock"},
    "obstore": {"objects"},
    "platformdirs": {"config"},
    "tomlkit": {"toml"},
    "py_rust_stemmers": {"words"},
    "stop_words": {"words"},
    "click": {"cli", "terminal", *(file.stem for file in FILES if file.stem.startswith("commands_"))},
    "rich": {"commands_queue", "commands_files", "terminal", "demo"},
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


def imports(path: Path, *, anywhere: bool = True) -> set[str]:
    """Return the dotted names that a file imports; with `anywhere` off, only those that run when it is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
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

    visit(tree)
    return names


def own(path: Path) -> set[str]:
    """Return the modules of the package that a file imports."""
    stems = {file.stem for file in FILES}
    return {
        name.split(".")[1] for name in imports(path) if name.startswith("reme_mcp.") and name.split(".")[1] in stems
    }


def layer(stem: str) -> int:
    return next(place for place, names in enumerate(LAYERS) if stem in names)


def test_every_module_has_its_place() -> None:
    assert sorted(name for names in LAYERS for name in names) == [file.stem for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_arrows_point_inwards(file: Path) -> None:
    assert {name for name in own(file) if layer(name) < layer(file.stem)} == set()


def test_modules_of_one_layer_make_no_circle() -> None:
    arrows = {file.stem: {name for name in own(file) if layer(name) == layer(file.stem)} for file in FILES}
    while free := [name for name, targets in arrows.items() if not targets & set(arrows)]:
        for name in free:
            del arrows[name]
    assert arrows == {}


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_its_owners(library: str) -> None:
    users = {file.stem for file in FILES if any(name.split(".")[0] == library for name in imports(file))}
    assert users == OWNERS[library]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_heavy_is_imported_before_it_is_used(file: Path) -> None:
    assert {name.split(".")[0] for name in imports(file, anywhere=False)} & HEAVY == set()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_what_it_is_and_does_one_job(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 800


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_is_called_a_score(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg | ast.keyword) and node.arg}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    names |= {node.asname for node in ast.walk(tree) if isinstance(node, ast.alias) and node.asname}
    assert "score" not in names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_import_says_its_full_name(file: Path) -> None:
    # The tests above read names; an import that has none to read would go past them.
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level] == []
    assert "__import__" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_the_readme_maps_every_file() -> None:
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    named = [file.name for file in FILES if not file.stem.startswith(("__", "commands_"))]
    missing = [name for name in [*named, "commands_*.py"] if f"`{name}`" not in readme]
    assert missing == []
    assert len(readme.splitlines()) <= 200
