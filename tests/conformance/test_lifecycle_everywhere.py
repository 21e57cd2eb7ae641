"""The real life of a small model on each engine, as far as each engine's servers can be had here.

MLflow and the endpoint run as services beside the containers, and each engine has its own. A model
is released, a bad one is refused, and a drift asks for a retraining.
"""

import csv
import os
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from engines import Ended, free_port, run_locally
from kubeflow_locally import run_on_kubeflow
from sagemaker_locally import run_on_sagemaker, upload

from imaging.phantom import SCANNERS, write_cohort
from imaging.reading.pixels import DICOM
from lineage.code import ROOT
from lineage.workspace import Workspace
from pipelines.backends.kubeflow.settings import KubeflowSettings
from pipelines.backends.sagemaker.settings import SageMakerSettings
from pipelines.config import load
from pipelines.graph import Pipeline
from pipelines.model_lifecycle import drift_watch, model_lifecycle
from pipelines.sources import resolve
from serving.remote_endpoint import RemoteEndpoint

pytestmark = pytest.mark.timeout(1800)
MODEL = "phantom-finding"
SECRETS = dict.fromkeys(("pseudonym.key", "split.key", "endpoint.token"), "ab" * 32)
# Which room made it: a question that a small cohort can answer.
SETTINGS = [
    "training.max_epochs=8",
    "training.augment=[]",
    "training.threads=1",
    "gating.rules=[{rule: minimum_n, patients: 15, positives: 5, negatives: 5},"
    " {rule: lower_bound, metric: auroc, at_least: 0.6}]",
    "retraining.minimum_new_patients=10",
]
BAD = ["training.max_epochs=1", "training.learning_rate=0.0000001"]
UP_TO_THE_GATE = ("ingest", "validate", "split", "train", "evaluate", "gate")


@dataclass(frozen=True)
class Cohort:
    """Scans and labels as they came, and those that arrive later from a new scanner."""

    scans: Path
    labels: Path
    arriving: Path
    grown_labels: Path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("cohort")
    rows: list[list[str]] = []
    made = Cohort(folder / "scans", folder / "labels", folder / "arriving", folder / "grown")
    groups = [(made.scans / "one", "absent"), (made.scans / "two", "present")]
    for number, (place, room) in enumerate([*groups, (made.arriving, "absent")]):
        table = write_cohort(
            place, seed=7, patients=50, scanners=[SCANNERS[number]], first_patient=50 * number
        )
        with table.open(newline="") as file:
            rows += [[row[0], row[1], room] for row in list(csv.reader(file))[1:]]
        table.unlink()
        target = made.grown_labels if number == 2 else made.labels
        target.mkdir(exist_ok=True)
        with (target / "labels.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["SOPInstanceUID", "PatientID", "finding"], *rows])
    return made


class Engine(ABC):
    """One engine with its own registry and endpoint; `home` is the workspace of who starts runs."""

    def __init__(self, home: Path, registry: str = "", endpoint: str = "") -> None:
        self.home, self.registry, self.endpoint = Workspace(home), registry, endpoint
        for name, key in SECRETS.items():
            self.home.keep_secret(name, key)

    def run(self, pipeline: Pipeline, given: Mapping[str, Path], folder: Path) -> Ended:
        """Run it on sources that are given, or that the registry and the endpoint hold."""
        with self.environment():
            sources = {
                s.name: given.get(s.name) or resolve(s, self.home) for s in pipeline.sources()
            }
            return self.execute(pipeline, sources, folder)

    @abstractmethod
    def execute(self, pipeline: Pipeline, sources: Mapping[str, Path], folder: Path) -> Ended:
        """Run it as this engine does."""

    @contextmanager
    def environment(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ["LIGHTBOX_HOME"] = str(self.home.home)
        os.environ |= {"MLFLOW_TRACKING_URI": self.registry} if self.registry else {}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before

    def send(self, scans: Path) -> None:
        """What a modality would send to the endpoint."""
        endpoint = RemoteEndpoint(self.endpoint, SECRETS["endpoint.token"])
        for path in sorted(p for p in scans.rglob("*") if p.is_file()):
            assert endpoint.invoke(path.read_bytes(), DICOM).error is None

    def champion(self) -> str | None:
        from registry.mlflow_registry import quick_champion

        with self.environment():
            return quick_champion(MODEL)

    def served(self) -> dict[str, float] | None:
        return RemoteEndpoint(self.endpoint, SECRETS["endpoint.token"]).served()


class Here(Engine):
    def __init__(self, home: Path, image: str) -> None:
        super().__init__(home)
        self.image = image

    def execute(self, pipeline: Pipeline, sources: Mapping[str, Path], folder: Path) -> Ended:
        os.environ["LIGHTBOX_CODE_IDENTITY"] = self.image
        return run_locally(pipeline, sources, self.home.home)


class OnKubeflow(Engine):
    settings: KubeflowSettings

    def execute(self, pipeline: Pipeline, sources: Mapping[str, Path], folder: Path) -> Ended:
        # As if they had been uploaded: the containers' user reads them, whoever wrote them.
        launch = {n: str(shutil.copytree(p, folder / "sources" / n)) for n, p in sources.items()}
        return run_on_kubeflow(pipeline, self.settings, launch, self.home.home, folder)


class OnSageMaker(Engine):
    settings: SageMakerSettings

    def execute(self, pipeline: Pipeline, sources: Mapping[str, Path], folder: Path) -> Ended:
        launch = {}
        for name, path in sources.items():
            uri = f"s3://{self.settings.bucket}/sources/{folder.name}/{name}"
            launch[name] = upload(path, uri)
            # An engine finds nothing where there is no object; an empty source is one, too.
            boto3.client("s3").put_object(
                Bucket=self.settings.bucket,
                Key=f"sources/{folder.name}/{name}/.lineage.json",
                Body=b"{}",
            )
        return run_on_sagemaker(pipeline, self.settings, launch, folder)


@contextmanager
def served(command: list[Any], url: str, log: Path, **environment: str) -> Iterator[str]:
    """A service of this machine for as long as the tests run."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(map(str, command)), stdout=file, stderr=file, env={**os.environ, **environment}
        )
    try:
        for _ in range(600):
            try:
                if httpx.get(url, timeout=5).status_code < 500 or "ping" in url:
                    break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        else:
            raise AssertionError(f"{url} never answered: {log.read_text()[-2000:]}")
        yield url
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def registry(host: str, folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True)
    port = free_port(host)
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", port]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", 1]
    command += ["--artifacts-destination", folder / "artifacts", "--allowed-hosts", "*"]
    with served(command, f"http://{host}:{port}/health", folder / "log"):
        yield f"http://{host}:{port}"


@contextmanager
def endpoint(host: str, home: Path) -> Iterator[str]:
    port = free_port(host)
    command = [sys.executable, "-m", "serving.app", "--home", home, "--model", MODEL]
    command += ["--host", host, "--port", port, "--idle-minutes", "inf"]
    home.mkdir(parents=True, exist_ok=True)
    with served(command, f"http://{host}:{port}/ping", home / "log"):
        yield f"http://{host}:{port}"


@pytest.fixture
def here(image: str, tmp_path: Path) -> Iterator[Here]:
    from serving.local_endpoint import LocalEndpoint

    engine = Here(tmp_path / "here", image)
    local = LocalEndpoint(engine.home, MODEL)
    engine.endpoint = local.base_url()
    yield engine
    local.stop()


@pytest.fixture
def on_kubeflow(image: str, tmp_path: Path) -> Iterator[OnKubeflow]:
    home = tmp_path / "kubeflow"
    engine = OnKubeflow(home)
    with (
        registry("127.0.0.1", tmp_path / "kubeflow-registry") as tracking,
        endpoint("127.0.0.1", home) as url,
    ):
        engine.registry, engine.endpoint = tracking, url
        engine.settings = KubeflowSettings(
            image=image,
            tracking_uri=tracking,
            workspace_claim="workspace",
            secrets=dict.fromkeys(SECRETS, "keys"),
            endpoint_url=url,
        )
        yield engine


@pytest.fixture
def on_sagemaker(
    image: str, address: str, cloud: SageMakerSettings, tmp_path: Path
) -> Iterator[OnSageMaker]:
    home = tmp_path / "sagemaker"
    engine = OnSageMaker(home)
    with (
        registry(address, tmp_path / "sagemaker-registry") as tracking,
        endpoint(address, home) as url,
    ):
        engine.registry, engine.endpoint = tracking, url
        keys = {
            name: boto3.client("secretsmanager").create_secret(Name=name, SecretString=key)["ARN"]
            for name, key in SECRETS.items()
        }
        engine.settings = cloud.model_copy(
            update={
                "image": image,
                "serving_image": image,
                "tracking_uri": tracking,
                "secrets": keys,
                "endpoint_url": url,
            }
        )
        yield engine


@dataclass(frozen=True)
class Life:
    """Four runs: released, refused, drift without labels, drift with labels."""

    released: Ended
    refused: Ended
    unlabelled: Ended
    labelled: Ended
    champion: str | None
    served: dict[str, float] | None


def live(engine: Engine, cohort: Cohort, folder: Path) -> Life:
    def config(*more: str) -> Any:
        return load(ROOT / "configs" / "phantom.yaml", [*SETTINGS, *more])

    given = {"scans": cohort.scans, "labels": cohort.labels}
    released = engine.run(model_lifecycle(config()), given, folder / "released")
    assert released.exit_code == 0, released
    refused = engine.run(model_lifecycle(config(*BAD)), given, folder / "refused")
    engine.send(cohort.arriving)
    unlabelled = engine.run(drift_watch(config()), {"labels": cohort.labels}, folder / "unlabelled")
    labelled = engine.run(
        drift_watch(config()), {"labels": cohort.grown_labels}, folder / "labelled"
    )
    return Life(released, refused, unlabelled, labelled, engine.champion(), engine.served())


def told(record: dict[str, Any]) -> dict[str, Any]:
    """A record but for the data of the champion. Once it learned from these very data, this machine
    reuses what it found without any; an engine, which goes by addresses, looks again."""
    inputs = {name: content for name, content in record["inputs"].items() if name != "previous"}
    return record | {"inputs": inputs}


def test_a_model_lives_the_same_life_everywhere(
    cohort: Cohort,
    here: Here,
    on_kubeflow: OnKubeflow,
    on_sagemaker: OnSageMaker,
    tmp_path: Path,
) -> None:
    home = live(here, cohort, tmp_path / "lives" / "here")
    assert home.released.values["deploy_canary.released"] == "true"
    assert home.released.values["monitor_drift.verdict"] == "insufficient"
    assert (home.refused.exit_code, home.refused.failed) == (3, "refused")
    assert home.unlabelled.values["monitor_drift.verdict"] == "drift"
    assert home.unlabelled.values["retrain.requested"] == "false"
    assert home.labelled.values["retrain.requested"] == "true"
    assert home.champion == home.released.outputs["train.model"]
    for engine in (on_kubeflow, on_sagemaker):
        life = live(engine, cohort, tmp_path / "lives" / type(engine).__name__)
        assert life.champion == home.champion  # one digest of the weights
        assert life.served == home.served == {home.champion: 1.0}
        for mine, theirs in (
            (home.released, life.released),
            (home.refused, life.refused),
            (home.unlabelled, life.unlabelled),
            (home.labelled, life.labelled),
        ):
            assert (theirs.exit_code, theirs.failed) == (mine.exit_code, mine.failed)
            assert theirs.reason == mine.reason
            assert theirs.steps == mine.steps
            assert theirs.values == mine.values
            for name, content in mine.outputs.items():
                if name.startswith(UP_TO_THE_GATE):
                    assert theirs.outputs[name] == content, name
                    again = mine is home.refused and name.startswith("validate")
                    same = told if again else dict
                    assert same(theirs.records[name]) == same(mine.records[name]), name
