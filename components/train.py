"""Train a classifier on the training split, stop by the validation split, and export it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from components.contract import Input, Output, Resources, component
from components.progress import progress
from lineage import telemetry
from lineage.digest import tree_digest
from lineage.errors import StepFailed
from lineage.tracking import tracking_uri
from lineage.workspace import workspace
from training.check import check
from training.config import TrainingConfig

LogEpoch = Callable[[int, dict[str, float]], None]


class Trained(NamedTuple):
    best_epoch: int
    validation_auroc: float
    threshold: float


@component(
    resources=Resources(cpu=2, memory_gib=8, timeout_minutes=240), trains="model", check=check
)
def train(config: TrainingConfig, snapshot: Input, splits: Input, model: Output) -> Trained:
    """Fit the network of the configuration.

    Reads: the images of the training and validation sides of `splits` from `snapshot`; from the
        folder that `LIGHTBOX_CHECKPOINTS` names, else from the workspace, what a killed run of
        the same training has left.
    Writes: `model`, see `training.export.export_model`; checkpoints while it trains.

    Raises:
        BadInput: The configuration does not fit MONAI, the machine or the images.
        StepFailed: A side lacks images or a class, or training or export go wrong.
        SystemExit: With code 0, where another machine of the job holds the model.
    """
    from imaging.preprocess import compose
    from imaging.splits import read_splits
    from training.checkpoint import Checkpoints
    from training.data import load_split
    from training.distributed import find_team
    from training.export import export_model
    from training.fit import fit
    from training.launch import fit_apart

    preprocess = compose(config.preprocess, "training.preprocess")
    parts = read_splits(splits)
    with progress("read images") as report:
        learn, tune = (
            load_split(snapshot, parts, side, preprocess, report)
            for side in ("train", "validation")
        )
    team, folder = find_team(config.device), _checkpoint_folder()
    checkpoints = Checkpoints.of(folder, config, learn, tune, team.size) if folder else None
    learning = fit if team.local == 1 else fit_apart
    with _tracked(config, team.leads) as run, progress("train") as report:
        fitted = learning(
            config, learn, tune, team=team, checkpoints=checkpoints, report=report, log=run.log
        )
        if not team.leads:
            raise SystemExit(0)
        threshold = export_model(config, fitted, learn, tune, model)
        run.finish(tree_digest(model))
    if checkpoints:
        checkpoints.clear()
    auroc = fitted.history[fitted.best_epoch - 1]["validation_auroc"]
    return Trained(fitted.best_epoch, auroc, threshold)


def _checkpoint_folder() -> Path | None:
    if place := os.environ.get("LIGHTBOX_CHECKPOINTS"):
        return Path(place)
    home = workspace().home
    return home / "checkpoints" if home.is_dir() else None


class _Run(NamedTuple):
    log: LogEpoch
    finish: Callable[[str], None]  # takes the model's digest


@contextmanager
def _tracked(config: TrainingConfig, leads: bool) -> Iterator[_Run]:
    """Write settings and metrics to MLflow, where there is a server or a workspace.

    Of several machines that train together, only the first one does.

    A training job on a cluster has no network and no workspace; its outputs hold the same
    history, so nothing is lost and nothing depends on the tracker.

    Raises:
        StepFailed: The tracking server does not answer.
    """
    there = os.environ.get("MLFLOW_TRACKING_URI") or workspace().home.is_dir()
    if not leads or not there:
        yield _Run(lambda epoch, metrics: None, lambda digest: None)
        return
    telemetry.off()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # it would try for minutes
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking_uri(workspace()))
        run_id = client.create_run(
            _experiment(client, config.experiment), run_name="train"
        ).info.run_id
        settings = config.model_dump(mode="json")
        client.log_batch(run_id, params=[Param(k, str(v)) for k, v in settings.items()])

        def log(epoch: int, metrics: dict[str, float]) -> None:
            client.log_batch(run_id, [Metric(k, v, 0, epoch) for k, v in metrics.items()])

        try:
            yield _Run(log, lambda digest: client.set_tag(run_id, "lightbox.model_digest", digest))
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    except MlflowException as error:
        raise StepFailed(
            "the MLflow server in MLFLOW_TRACKING_URI does not answer or refuses the run; "
            "start it, or unset the variable to track in the workspace"
        ) from error


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found:
        return str(found.experiment_id)
    return str(
        client.create_experiment(name, artifact_location=workspace().mlflow_artifacts.as_uri())
    )
