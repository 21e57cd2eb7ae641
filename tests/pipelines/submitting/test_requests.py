"""Requests that `retrain` filed are acted on once, in this workspace and in the cluster's."""

import json
from pathlib import Path

import boto3
import pytest
from evidence import prepare_registry
from sagemaker_stub import aws

from lineage.digest import digest, tree_digest
from lineage.workspace import Workspace
from pipelines.config import LifecycleConfig, load
from pipelines.submitting.requests import answer, requests_of, standing
from registry.mlflow_registry import register_model

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def settings() -> LifecycleConfig:
    return load(ROOT / "configs" / "phantom.yaml")


@pytest.fixture
def model(home: Workspace, tmp_path: Path) -> str:
    """The digest of a registered model."""
    prepare_registry(home)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text("{}")
    register_model("phantom-finding", folder, {}, {})
    return tree_digest(folder)


def request_for(model: str, settings: LifecycleConfig, **more: str) -> tuple[str, dict]:
    policy = settings.retraining.model_dump(mode="json")
    name = digest("retraining request", "drift", policy)
    cause = {"drift_report": "drift", "model_digest": model}
    return name, {"name": name, "status": "requested", "cause": cause, "at": "2026", **more}


def file(folder: Path, name: str, request: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(request))


def test_a_request_is_answered_once(home, settings, model) -> None:
    name, request = request_for(model, settings)
    file(home.requests, name, request)
    with requests_of("", home) as folder:
        found = standing(folder, settings)
        assert found == {name: request}
        answer(folder, found, "run-1")
        assert standing(folder, settings) == {}
    kept = json.loads((home.requests / f"{name}.json").read_text())
    assert kept["run"] == "run-1"
    assert kept["status"] == "requested"  # it spaces out later ones


@pytest.mark.parametrize("status", ["waiting: labels needed", "cooldown"])
def test_what_waits_for_labels_asks_for_nothing(home, settings, model, status) -> None:
    file(home.requests, *request_for(model, settings, status=status))
    assert standing(home.requests, settings) == {}


def test_a_request_is_for_its_model_and_policy(home, settings, model) -> None:
    file(home.requests, *request_for("0" * 64, settings))
    assert standing(home.requests, settings) == {}
    file(home.requests, *request_for(model, settings))
    assert standing(home.requests, settings)
    path = ROOT / "configs" / "phantom.yaml"
    assert not standing(home.requests, load(path, ["registration.name=another"]))
    assert not standing(home.requests, load(path, ["retraining.cooldown_hours=1"]))


def test_no_requests_yet(home, settings) -> None:
    with requests_of("", home) as folder:
        assert standing(folder, settings) == {}


def test_what_is_answered_holds_in_the_cluster_s_workspace(
    home, settings, model, monkeypatch
) -> None:
    monkeypatch.delenv("LIGHTBOX_STATE", raising=False)
    name, request = request_for(model, settings)
    key = f"workspace/requests/{name}.json"
    with aws(monkeypatch):
        s3 = boto3.client("s3")
        place = {"LocationConstraint": "eu-west-1"}
        s3.create_bucket(Bucket="lightbox", CreateBucketConfiguration=place)
        s3.put_object(Bucket="lightbox", Key=key, Body=json.dumps(request).encode())
        for expected in ({name: request}, {}):
            with requests_of("s3://lightbox/workspace", home) as folder:
                found = standing(folder, settings)
                assert found == expected
                answer(folder, found, "run-1")
        kept = json.loads(s3.get_object(Bucket="lightbox", Key=key)["Body"].read())
        assert kept["run"] == "run-1"
        leases = s3.list_objects_v2(Bucket="lightbox", Prefix="workspace/leases")
        assert leases["KeyCount"] == 0
    assert not home.requests.exists()
