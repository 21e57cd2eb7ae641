"""Write the golden files anew: what an engine gets of the shipped pipelines and settings.

python tests/pipelines/golden/renew.py ENGINE [FOLDER]
"""

import os
import sys
from pathlib import Path

from lineage.code import ROOT
from pipelines.config import load
from pipelines.model_lifecycle import drift_watch, model_lifecycle
from pipelines.settings import read_settings

IMAGE = "registry.example/lightbox@sha256:" + "ab" * 32
# All that the shipped settings take from the environment.
FIXED = {
    "LIGHTBOX_IMAGE": IMAGE,
    "LIGHTBOX_SERVING_IMAGE": IMAGE,
    "LIGHTBOX_HOME": ".lightbox",
    "MLFLOW_TRACKING_URI": "https://mlflow.example",
}


def renew(engine: str, folder: Path) -> None:
    """Compile both pipelines; of the configs beside them, only the names stand in the files."""
    os.environ |= FIXED
    config = load(ROOT / "configs/phantom.yaml")
    environment = ROOT / f"configs/environments/{engine}.yaml"
    for pipeline in (model_lifecycle(config), drift_watch(config)):
        if engine == "kubeflow":
            from pipelines.backends.kubeflow.lowering import compile_to
            from pipelines.backends.kubeflow.settings import KubeflowSettings

            settings = read_settings(environment, KubeflowSettings)
            compile_to(pipeline, settings, folder / f"{pipeline.name}.yaml")
        else:
            from pipelines.backends.sagemaker.lowering import compiled
            from pipelines.backends.sagemaker.settings import SageMakerSettings

            definition, _ = compiled(pipeline, read_settings(environment, SageMakerSettings))
            (folder / f"{pipeline.name}.json").write_text(definition)


if __name__ == "__main__":
    engine, *folder = sys.argv[1:]
    renew(engine, Path(folder[0]) if folder else Path(__file__).parent / engine)
