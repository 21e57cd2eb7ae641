"""The step on a small cohort of pictures, with a real MLflow database."""

import json
import logging
import os
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tiny_networks import TINY_NETWORK

from components.contract import Component
from components.train import train
from imaging.splits import COLUMNS, read_splits, write_splits
from lineage.digest import tree_digest
from lineage.errors import StepFailed
from serving.predictor import Predictor
from training.config import TrainingConfig

CONFIG = TrainingConfig.model_validate(
    {
        "network": TINY_NETWORK,
        "preprocess": [{"name": "Resize", "args": {"spatial_size": [16, 16]}}],
        "max_epochs": 3,
        "batch_size": 8,
        "learning_rate": 0.01,
        "experiment": "squares",
    }
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 pictures with or without a bright square: 40 to learn, 20 to tune by."""
    snapshot, splits = tmp_path_factory.mktemp("snapshot"), tmp_path_factory.mktemp("splits")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        pixels = rng.integers(0, 120, (20, 20), dtype=np.uint8)
        pixels[5:12, 5:12] += 100 * (i % 2)
        Image.fromarray(pixels).save(snapshot / f"{i}.png")
        side = "train" if i < 40 else "validation"
        row = (f"u{i}", f"p{i // 2}", side, i % 2, f"{i}.png", None, "unknown", None)
        rows.append(row)
    write_splits(pd.DataFrame(rows, columns=list(COLUMNS)), {}, splits)
    return {"snapshot": snapshot, "splits": splits}


def model_at(path):
    path.mkdir()
    return path


def runs(home):
    from mlflow import MlflowClient

    client = MlflowClient(home.mlflow_uri)
    experiment = client.get_experiment_by_name("squares")
    assert experiment.artifact_location == home.mlflow_artifacts.as_uri()
    return client.search_runs([experiment.experiment_id])


def test_the_contract():
    assert isinstance(train, Component)
    assert (train.inputs, train.outputs) == (("snapshot", "splits"), ("model",))
    assert train.trains == "model"


def test_trains_tracks_and_is_repeatable(data, home, tmp_path):
    home.home.mkdir()
    model = model_at(tmp_path / "model")
    result = train(CONFIG, **data, model=model)
    assert result.validation_auroc > 0.8
    predictor = Predictor.load(model)
    assert predictor.threshold == result.threshold
    table = pd.read_parquet(model / "validation_predictions.parquet").set_index("instance_uid")
    pixels = np.asarray(Image.open(data["snapshot"] / "41.png"), dtype=np.float32) / 255
    assert predictor.predict(pixels) == table.loc["u41", "score"]

    (run,) = runs(home)
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.01"
    assert run.data.tags["lightbox.model_digest"] == tree_digest(model)
    last = json.loads((model / "history.json").read_text())[-1]
    assert run.data.metrics["validation_loss"] == pytest.approx(last["validation_loss"])

    again = model_at(tmp_path / "again")
    train(CONFIG, **data, model=again)
    assert tree_digest(again) == tree_digest(model)
    assert len(runs(home)) == 2


def test_without_workspace_or_server_nothing_is_tracked_and_the_model_is_the_same(
    data, home, tmp_path
):
    model = model_at(tmp_path / "model")
    train(CONFIG, **data, model=model)
    assert (model / "model.onnx").exists()
    assert not home.home.exists()


def test_an_unreachable_server_is_said_so_without_its_address(data, home, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StepFailed, match="MLFLOW_TRACKING_URI does not answer") as refused:
        train(CONFIG, **data, model=model_at(tmp_path / "model"))
    assert "secret" not in str(refused.value)


def test_a_failed_training_is_a_failed_run(data, home, tmp_path):
    home.home.mkdir()
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(StepFailed):
        train(config, **data, model=model_at(tmp_path / "model"))
    (run,) = runs(home)
    assert run.info.status == "FAILED"


def test_a_split_with_one_class_is_refused_with_counts(data, tmp_path):
    splits = model_at(tmp_path / "splits")
    rows = read_splits(data["splits"])
    write_splits(rows[(rows["split"] == "train") | (rows["label"] == 1)], {}, splits)
    with pytest.raises(StepFailed, match="validation split has 10 positive and 0 negative"):
        train(CONFIG, snapshot=data["snapshot"], splits=splits, model=model_at(tmp_path / "model"))


# --- what a killed training left -------------------------------------------------------------


def test_goes_on_from_checkpoints_and_leaves_none(data, home, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)  # a command in this process may have raised it
    home.home.mkdir()
    whole = model_at(tmp_path / "whole")
    train(CONFIG, **data, model=whole)
    assert not list((home.home / "checkpoints").iterdir())

    # On a cluster a variable says where they lie. Here the export is where the step is stopped.
    monkeypatch.setenv("LIGHTBOX_CHECKPOINTS", str(tmp_path / "kept"))
    with monkeypatch.context() as broken:
        broken.setattr("training.export.export_model", stop)
        with pytest.raises(KeyboardInterrupt):
            train(CONFIG, **data, model=model_at(tmp_path / "stopped"))
    assert len(list((tmp_path / "kept").iterdir())) == 2
    again = model_at(tmp_path / "again")
    train(CONFIG, **data, model=again)
    assert "goes on after epoch 3" in caplog.text
    assert tree_digest(again) == tree_digest(whole)
    assert not list((tmp_path / "kept").iterdir())
    losses = [run.data.metrics["train_loss"] for run in runs(home)]
    assert losses == losses[:1] * 3  # each tracked run holds all epochs


def stop(*_: object) -> None:
    raise KeyboardInterrupt


# --- several machines ------------------------------------------------------------------------

MACHINE = """
import sys
from pathlib import Path
from training import distributed
distributed.SAGEMAKER, distributed.PORT = Path(sys.argv[1]), int(sys.argv[2])
from components.__main__ import main
main(sys.argv[3:])
"""


@pytest.mark.parametrize("told_by", ["torchrun", "SageMaker"])
def test_the_first_machine_alone_writes_the_model(told_by, data, tmp_path):
    """Two processes that stand for two machines; both are told the same output folder."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    flags = ["--config", CONFIG.model_dump_json(), "--output", f"model={tmp_path / 'model'}"]
    flags += [part for name, path in data.items() for part in ("--input", f"{name}={path}")]
    machines = []
    for rank, name in enumerate(("127.0.0.1", "other")):
        place = tmp_path / f"{name}.json"
        values = tmp_path / f"values-{rank}.json"
        told = {"LIGHTBOX_HOME": str(tmp_path / "home"), "MLFLOW_TRACKING_URI": ""}
        if told_by == "torchrun":
            told |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
            told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        else:
            hosts = {"hosts": ["127.0.0.1", "other"], "network_interface_name": "lo"}
            place.write_text(json.dumps(hosts | {"current_host": name}))
        words = [sys.executable, "-c", MACHINE, str(place), port, "train", *flags]
        machines.append(
            subprocess.Popen([*words, "--values-json", str(values)], env=os.environ | told)
        )
    assert [machine.wait(250) for machine in machines] == [0, 0]
    assert {path.name for path in tmp_path.glob("values-*")} == {"values-0.json"}
    predictor = Predictor.load(tmp_path / "model")
    told = json.loads((tmp_path / "values-0.json").read_text())
    assert predictor.threshold == told["threshold"]
    assert told["validation_auroc"] > 0.8
