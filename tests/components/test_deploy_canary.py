"""The step against a real registry and a real endpoint."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from tiny_models import make_model, png

from components.deploy_canary import deploy_canary, still_released
from imaging.reading.pixels import PNG, decode
from imaging.splits import write_splits
from lineage.digest import tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.workspace import Workspace
from registry import approval as approvals
from registry import mlflow_registry as registry
from serving import canary
from serving.config import DeploymentConfig
from serving.local_endpoint import LocalEndpoint
from serving.predictor import Predictor

NAME = "chest"
step = sys.modules["components.deploy_canary"]  # the component of that name hides it
CONFIG = DeploymentConfig(rate_per_s=1000, timeout_s=10, latency_slack_ms=25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("deploy")


@pytest.fixture(scope="module")
def place(folder):
    """One workspace for all tests of this file: they tell one story, in order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTBOX_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield Workspace(folder / "home")
    LocalEndpoint(Workspace(folder / "home"), NAME).stop()


@pytest.fixture(scope="module")
def data(folder):
    """A snapshot of 40 pictures, all in the validation split but one."""
    snapshot, splits = folder / "snapshot", folder / "splits"
    (snapshot / "images").mkdir(parents=True)
    splits.mkdir()
    rows = []
    for seed in range(40):
        path = f"images/{seed}.png"
        (snapshot / path).write_bytes(png(seed))
        side = "test" if seed == 7 else "validation"
        rows.append(
            {"instance_uid": f"2.25.{seed}", "patient_id": f"p{seed}", "split": side, "label": 0}
            | {"path": path, "sex": None, "age_band": "unknown", "scanner": None}
        )
    write_splits(pd.DataFrame(rows), {}, splits)
    return {"snapshot": snapshot, "splits": splits}


def registered(folder, data, number, skew=0.0, **kind):
    """Register and approve a model; `skew` is added to what training claims to have scored."""
    directory = make_model(folder / f"model-{number}", **kind)
    pictures = [data["snapshot"] / f"images/{seed}.png" for seed in range(40)]
    model = Predictor.load(directory)
    scores = np.array([model.predict(decode(p.read_bytes(), PNG)) for p in pictures]) + skew
    pd.DataFrame(
        {"instance_uid": [f"2.25.{s}" for s in range(40)], "patient_id": "p", "label": 0}
        | {"score": scores}
    ).to_parquet(directory / "validation_predictions.parquet")
    verdict = folder / f"verdict-{number}"
    verdict.mkdir()
    (verdict / "verdict.json").write_text(json.dumps({"number": number}))
    tags = {"verdict": "pass", "reason": "passed", "verdict_digest": tree_digest(verdict)}
    version = registry.register_model(NAME, directory, tags, {"verdict": verdict})
    approvals.approve(NAME, version.version, actor="Ada", reason="read it")
    return version


def approval_of(folder, version, approved=True):
    made = folder / f"approval-{version.version}-{approved}"
    made.mkdir(exist_ok=True)
    facts = {"approved": approved, "name": NAME, "version": version.version}
    (made / "approval.json").write_text(json.dumps(facts | {"model_digest": version.digest}))
    return made


def deploy(folder, data, version, attempt="", **approved):
    release = folder / f"release-{version.version}{attempt}"
    release.mkdir()
    approval = approval_of(folder, version, **approved)
    values = deploy_canary(CONFIG, approval=approval, **data, release=release)
    return values, json.loads((release / "release.json").read_text()), release


@pytest.fixture(scope="module")
def first(place, folder, data):
    """Version 1, released on an empty endpoint."""
    version = registered(folder, data, 1)
    return version, *deploy(folder, data, version)


@pytest.fixture(scope="module")
def second(first, folder, data):
    """Version 2, released over version 1."""
    version = registered(folder, data, 2, slope=4.5)
    return version, *deploy(folder, data, version)


def test_a_first_release_becomes_champion(first, place):
    version, values, told, _ = first
    assert values.released, values.reason
    assert told["outcome"] == "released" and told["previous_champion"] is None
    assert told["model_digest"] == version.digest
    assert [(v["digest"], v["share"]) for v in told["end_state"]] == [(version.digest, 1.0)]


def test_release_json_tells_every_check_with_its_numbers(second):
    _, values, told, _ = second
    assert values.released, values.reason
    assert [look["share"] for look in told["looks"]][:3] == [0.1, 0.5, 1.0]
    checks = told["looks"][-1]["judgement"]["checks"]
    assert {c["outcome"] for c in checks} == {"pass"} and len(checks) == 6
    assert all({"estimate", "low", "high", "n", "method", "sentence"} <= c.keys() for c in checks)
    assert told["previous_champion"]["version"] == "1"


def test_the_receipt_holds_only_for_what_is_champion_and_served(first, second, place):
    version = second[0]
    assert registry.champion(NAME).version == version.version
    assert still_released(second[3]) and not still_released(first[3])
    endpoint = LocalEndpoint(place, NAME)
    assert endpoint.served() == {version.digest: 1.0}
    endpoint.stop()
    assert not still_released(second[3])


def test_what_is_in_service_is_not_walked_again(second, folder, data, place):
    values, told, release = deploy(folder, data, second[0], "-again")
    assert values.released and "already in service" in values.reason and told["looks"] == []
    assert LocalEndpoint(place, NAME).served() == {second[0].digest: 1.0} and still_released(
        release
    )


def test_a_bad_challenger_leaves_the_champion(second, folder, data, place):
    bad = registered(folder, data, 3, slope=5.0, skew=0.01)
    values, told, release = deploy(folder, data, bad)
    assert not values.released and values.reason.startswith("rolled back: training-serving skew")
    assert told["outcome"] == "rolled back" and not still_released(release)
    assert registry.champion(NAME).version == second[0].version
    assert LocalEndpoint(place, NAME).served() == {second[0].digest: 1.0}


def test_an_interrupted_canary_is_cleared_and_done_again(second, folder, data, place):
    third = registered(folder, data, 4, slope=3.5)
    left = place.endpoint(NAME) / "models" / third.digest
    registry.download(third, to=left)
    endpoint = LocalEndpoint(place, NAME)
    # As a kill in the middle of the last step leaves it: all traffic moved, alias not.
    endpoint.deploy(f"v{third.version}", left, third.digest, third.version, 1.0)
    values, told, _ = deploy(folder, data, third)
    assert values.released and len(told["looks"]) >= 3
    assert endpoint.served() == {third.digest: 1.0}
    assert registry.champion(NAME).version == third.version


def test_nothing_is_deployed_without_approval(second, folder, data, place):
    before = LocalEndpoint(place, NAME).served()
    with pytest.raises(StepFailed, match="not approved"):
        deploy(folder, data, second[0], "-refused", approved=False)
    assert LocalEndpoint(place, NAME).served() == before


def test_only_validation_studies_are_replayed(second, place):
    lines = [
        json.loads(line)
        for file in (place.endpoint(NAME) / "captured").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    sealed = decode(png(7), PNG).mean()
    assert {line["tag"] for line in lines} == {"replay"} and len(lines) > 100
    assert not any(abs(line["intensity_mean"] - sealed) < 1e-6 for line in lines)


def test_a_version_refused_since_its_approval_is_not_deployed(second, folder, data, place):
    before = LocalEndpoint(place, NAME).served()
    late = registered(folder, data, 5, slope=3.0)
    approvals.refuse(NAME, late.version, actor="Ada", reason="looked again")
    with pytest.raises(BadInput, match="is not approved"):
        deploy(folder, data, late)
    assert LocalEndpoint(place, NAME).served() == before


def test_a_version_refused_during_its_canary_leaves_the_champion(
    second, folder, data, place, monkeypatch
):
    champion = registry.champion(NAME)
    late = registered(folder, data, 6, slope=2.5)
    walk = canary.run_canary

    def and_then_refused(*args):
        outcome = walk(*args)
        approvals.refuse(NAME, late.version, actor="Ada", reason="looked again")
        return outcome

    monkeypatch.setattr(canary, "run_canary", and_then_refused)
    with pytest.raises(BadInput, match="is not approved"):
        deploy(folder, data, late)
    assert registry.champion(NAME) == champion
    assert LocalEndpoint(place, NAME).served() == {champion.digest: 1.0}
