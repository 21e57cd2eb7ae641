"""The same pipeline means the same on each engine.

Executed in containers by the SDKs' local runners, never on a cluster: the compiled package by kfp's
DockerRunner, the lowered definition by SageMaker's local mode, with moto for S3 and its registry.
"""

from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from conformance_dag import LOG, Knobs, conformance
from engines import Ended, run_locally
from kubeflow_locally import run_on_kubeflow
from sagemaker_locally import run_on_sagemaker, upload

from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.backends.sagemaker.settings import SageMakerSettings

KEY = "ab" * 32
STEPS = {"take", "fit", "judge", "enter"}
Run = Callable[[Knobs], tuple[Ended, str]]  # what it came to, and the log of the workspace

SCENARIOS = {
    "passed": (Knobs(), 0, None, STEPS | {"check"}),
    "refused": (Knobs(threshold=5), 3, "refused", STEPS | {"regret"}),
    "failed": (Knobs(ends="failed"), 1, "judge", {"take", "fit"}),
    "bad-input": (Knobs(ends="bad input"), 2, "judge", {"take", "fit"}),
    "broken": (Knobs(ends="broken"), 1, "judge", {"take", "fit"}),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "source"
    for name in ("a.txt", "deep/er/b.txt", "deep/ümlaut and space.txt", "0", "1", "2"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def workspace(folder: Path) -> Path:
    home = folder / "home"
    (home / "secrets").mkdir(parents=True)
    (home / "secrets" / "entry.key").write_text(KEY)
    return home


@pytest.fixture
def locally(image: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(knobs: Knobs) -> tuple[Ended, str]:
        home = workspace(tmp_path / "local")
        with monkeypatch.context() as patch:
            patch.setenv("LIGHTBOX_HOME", str(home))
            patch.setenv("LIGHTBOX_CODE_IDENTITY", image)  # as the containers are told
            ended = run_locally(conformance(config=knobs), {"source": source}, home)
        return ended, read(home / LOG)

    return run


@pytest.fixture
def on_kubeflow(image: str, source: Path, tmp_path: Path) -> Run:
    settings = KubeflowSettings(
        image=image,
        tracking_uri="http://127.0.0.1:5000",
        workspace_claim="workspace",
        secrets={"entry.key": "keys"},
    )

    def run(knobs: Knobs) -> tuple[Ended, str]:
        home = workspace(tmp_path / "kubeflow")
        launch = {"source": str(source)}
        ended = run_on_kubeflow(
            conformance(config=knobs), settings, launch, home, tmp_path / "kubeflow" / "run"
        )
        return ended, read(home / LOG)

    return run


@pytest.fixture
def on_sagemaker(image: str, cloud: SageMakerSettings, source: Path, tmp_path: Path) -> Run:
    def run(knobs: Knobs) -> tuple[Ended, str]:
        launch = {"source": upload(source, "s3://lightbox/sources/given")}
        settings = cloud.model_copy(
            update={"image": image, "serving_image": image, "isolated": ["judge"]}
        )
        ended = run_on_sagemaker(
            conformance(config=knobs), settings, launch, tmp_path / "sagemaker"
        )
        found = boto3.client("s3").list_objects_v2(Bucket="lightbox", Prefix=f"workspace/{LOG}")
        if not found["KeyCount"]:
            return ended, ""
        body = boto3.client("s3").get_object(Bucket="lightbox", Key=f"workspace/{LOG}")["Body"]
        return ended, body.read().decode()

    return run


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_one_pipeline_comes_to_the_same_everywhere(
    scenario: str, locally: Run, on_kubeflow: Run, on_sagemaker: Run
) -> None:
    knobs, code, failed, steps = SCENARIOS[scenario]
    here, log = locally(knobs)
    assert (here.exit_code, here.failed, here.steps) == (code, failed, steps)
    assert here.outputs.keys() == here.records.keys()
    assert len(here.outputs) == len(steps)
    for engine in (on_kubeflow, on_sagemaker):
        there, log_there = engine(knobs)
        assert (there.exit_code, there.failed) == (here.exit_code, here.failed)
        assert there.steps == here.steps
        assert there.values == here.values
        assert there.outputs == here.outputs
        assert there.records == here.records
        assert log_there == log
        if failed == "refused":
            assert there.reason == here.reason == "8 files are too few"
    if scenario in ("passed", "refused"):
        assert len(log.splitlines()) == 1  # the effect happened once
        packages = boto3.client("sagemaker").list_model_packages(ModelPackageGroupName="lightbox")
        (package,) = packages["ModelPackageSummaryList"]
        assert package["ModelApprovalStatus"] == "PendingManualApproval"
