"""Shared by all tests: a workspace of their own, and the shared real data where it is at hand."""

import os
from pathlib import Path

import pytest

from lineage import telemetry
from lineage.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
telemetry.off()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace that `lineage.workspace.workspace()` answers with."""
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Workspace(tmp_path / "home")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real radiographs and odd DICOM, kept beside the repository; never part of it."""
    path = Path(os.environ.get("LIGHTBOX_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"LIGHTBOX_TEST_DATA: {path} does not exist, and CI must not skip")
        pytest.skip("LIGHTBOX_TEST_DATA is not at hand")
    return path
