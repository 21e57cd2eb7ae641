"""What a change of the DAG, its settings or the lowering does to the packages for Kubeflow."""

import os
from pathlib import Path
from unittest.mock import patch

from lineage.code import ROOT
from pipelines.backends.kubeflow.lowering import compile_to
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.config import load
from pipelines.model_lifecycle import drift_watch, model_lifecycle
from pipelines.settings import read_settings

GOLDEN = Path(__file__).with_name("kubeflow")
ENVIRONMENT = {
    "LIGHTBOX_IMAGE": "registry.example/lightbox@sha256:" + "ab" * 32,
    "MLFLOW_TRACKING_URI": "https://mlflow.example",
}


def renew(folder: Path) -> list[str]:
    """Compile both pipelines from the shipped settings, and say which files were made."""
    config = load(ROOT / "configs/phantom.yaml")
    with patch.dict(os.environ, ENVIRONMENT):
        settings = read_settings(ROOT / "configs/environments/kubeflow.yaml", KubeflowSettings)
    pipelines = [model_lifecycle(config), drift_watch(config)]
    for pipeline in pipelines:
        compile_to(pipeline, settings, folder / f"{pipeline.name}.yaml")
    return [f"{pipeline.name}.yaml" for pipeline in pipelines]


def test_the_packages_are_those_that_were_reviewed(tmp_path: Path) -> None:
    command = f"python {Path(__file__).relative_to(ROOT)}"
    for name in renew(tmp_path):
        same = (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()
        assert same, (
            f"{name} differs; if it is meant to, run `{command}` and commit what it changes"
        )


if __name__ == "__main__":
    renew(GOLDEN)
