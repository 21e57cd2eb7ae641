"""Carry the approved model into service, step by step, and make it champion if all goes well."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from components.contract import Input, Output, Resources, component
from components.progress import progress
from lineage.errors import BadInput, StepFailed
from lineage.files import write_json
from lineage.workspace import workspace
from registry import mlflow_registry as registry
from serving.config import DeploymentConfig
from serving.remote_endpoint import endpoint_of

if TYPE_CHECKING:
    from serving.canary import Release, Study


class Released(NamedTuple):
    released: bool
    reason: str


def still_released(release: Path) -> bool:
    """True if the model of an earlier run is champion and serves all traffic, alone."""
    told = json.loads((release / "release.json").read_text())
    if not told["released"] or registry.quick_champion(told["name"]) != told["model_digest"]:
        return False
    served = endpoint_of(workspace(), told["name"]).served()
    return served == {told["model_digest"]: 1.0}


@component(
    resources=Resources(memory_gib=4, timeout_minutes=30),
    secrets=("endpoint.token",),
    receipt=still_released,
    state=("audit.db",),
)
def deploy_canary(
    config: DeploymentConfig, approval: Input, snapshot: Input, splits: Input, release: Output
) -> Released:
    """Replay de-identified validation studies to both models while traffic moves to the new one.

    Reads: approval/approval.json; snapshot/images and splits/splits.parquet (validation rows); the
        approved version and the champion out of the registry, digests checked.
    Writes: release/release.json: every look with its checks and numbers, the end state as read
        back, the champion before. At the endpoint, one model serves in the end: the new one if
        all checks passed, otherwise the champion. The alias moves only after that was read back.
    Raises:
        StepFailed: Nobody approved the version, or the end state is not what it must be.
    """
    from serving.canary import Outcome, restore, run_canary

    allowed = json.loads((approval / "approval.json").read_text())
    if allowed["approved"] is not True:
        raise StepFailed("this version is not approved, so it is not deployed")
    name = allowed["name"]
    wanted, champion = registry.get_version(name, allowed["version"]), registry.champion(name)
    if wanted.digest != allowed["model_digest"]:
        raise BadInput(f"{name}:{wanted.version} is no longer the model that was approved")
    registry.require_approved(wanted)  # it may have been refused since that was written
    new, old = _fetched(wanted), _fetched(champion) if champion else None

    with progress("canary") as report:
        target = endpoint_of(workspace(), name, config, report)
        if old == new:
            restore(target, new)
            outcome = Outcome("released", "already in service", (), target.state())
        else:
            studies = _studies(snapshot, splits, new)
            outcome = run_canary(target, new, old, studies, config, report)

    ending = asdict(outcome)
    told = {
        "name": name,
        "version": wanted.version,
        "model_digest": wanted.digest,
        "previous_champion": champion and {"version": champion.version, "digest": champion.digest},
        "released": outcome.kind == "released",
        "outcome": ending.pop("kind"),
        **ending,
    }
    write_json(release / "release.json", told)
    if outcome.kind == "unknown":
        raise StepFailed(f"{outcome.reason}; then {outcome.mismatch}: look at the endpoint")
    if outcome.kind == "released":
        try:
            registry.move_champion(
                name, wanted.version, actor="step:deploy_canary", reason=outcome.reason
            )
        except BadInput:  # refused, or assessed anew, while the canary ran
            restore(target, old)
            raise
    return Released(outcome.kind == "released", f"{outcome.kind}: {outcome.reason}")


def _fetched(version: registry.Version) -> "Release":
    from serving.canary import Release

    place = workspace().endpoint(version.name) / "models" / version.digest
    return Release(version.version, version.digest, registry.download(version, to=place))


def _studies(snapshot: Path, splits: Path, new: "Release") -> "list[Study]":
    """The validation images, each with the score that training gave it."""
    import pandas as pd

    from imaging.reading.pixels import DICOM, JPEG, PNG
    from imaging.splits import read_splits
    from serving.canary import Study

    media_types = {".dcm": DICOM, ".png": PNG, ".jpg": JPEG}
    rows = read_splits(splits)
    rows = rows[rows["split"] == "validation"].sort_values("instance_uid")
    offline = pd.read_parquet(new.directory / "validation_predictions.parquet")
    scores = dict(zip(offline["instance_uid"], offline["score"].astype(float), strict=True))
    return [
        Study(snapshot / path, media_types[Path(path).suffix], scores.get(uid))
        for uid, path in zip(rows["instance_uid"], rows["path"], strict=True)
    ]
