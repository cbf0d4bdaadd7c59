"""Programs from npm, where they are: on the PATH, or in the folder that REME_TEST_NPM names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

# Read before a test's guard cleans the environment.
FOLDER = os.environ.get("REME_TEST_NPM", "")


def npm_program(name: str, package: str) -> str:
    """Return the program's path, or skip the test."""
    path = os.pathsep.join([FOLDER, os.environ.get("PATH", "")]) if FOLDER else None
    found = shutil.which(name, path=path)
    if found is None:
        pytest.skip(f"{name} is not here; npm i {package}, and REME_TEST_NPM=…/node_modules/.bin")
    return found


def run_npm(command: list[str], cwd: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program from npm; the Node that was installed along with it goes first."""
    path = os.pathsep.join([FOLDER, os.environ["PATH"]]) if FOLDER else os.environ["PATH"]
    return subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environ | {"PATH": path},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
