"""What the tests of the workflows share: the scanners that `.ci/scan_tools` installs."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def scanners() -> Path:
    """The folder with the scanners' commands."""
    folder = ROOT / ".scanners" / "bin"
    if not (folder / "zizmor").exists():
        why = "the scanners are not installed: run .ci/scan_tools"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{why}; CI must not skip")
        pytest.skip(why)
    return folder


@pytest.fixture
def with_scanners(scanners: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts find the scanners."""
    monkeypatch.setenv("PATH", f"{scanners}:{os.environ['PATH']}")


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """A program of CI as a module."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
