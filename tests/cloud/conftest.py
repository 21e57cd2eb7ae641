"""The checkers, which live in an environment of their own."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / ".checkers" / "bin"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def checker() -> Run:
    """Run one of the checkers in the repository's root."""
    if not (BIN / "checkov").exists():
        if os.environ.get("CI") == "true":
            pytest.fail(".checkers is not there, and CI must not skip; .ci/checkers makes it")
        pytest.skip(
            ".checkers is not there: templates and manifests go UNCHECKED; run .ci/checkers"
        )

    def run(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        # The rules' own program is run without leaving bytecode beside the rules.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [str(BIN / name), *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    return run
