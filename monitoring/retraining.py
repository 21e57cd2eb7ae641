"""Whether a drift calls for a new model now, and the request that says so."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging.config import Labels
from lineage.digest import digest, file_digest
from lineage.errors import BadInput
from monitoring.config import FACTS, RetrainingConfig

if TYPE_CHECKING:
    import pandas as pd

    from imaging.deidentification.pseudonyms import Names
    from imaging.labelling.labels import Label

Status = Literal["requested", "waiting: labels needed", "cooldown", "no drift"]
REQUESTED: Status = "requested"
REQUEST = "request.json"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`reason` is one sentence with its numbers."""

    status: Status
    reason: str


def decide(
    drift: str,
    newly_labelled: int,
    unit: str,
    last: datetime | None,
    now: datetime,
    config: RetrainingConfig,
) -> Decision:
    """Ask for a new model only if something changed, there is something new to learn from, and
    the last request is long enough ago for its effect to show.

    Args:
        drift: The verdict of the drift report.
        newly_labelled: How many have a label and are not in the snapshot.
        unit: What they are: "patients", or "images" where the table does not tell whose.
        last: When a new model was last asked for, if ever.
        now: Time of the decision.
        config: The policy.
    """
    if drift != "drift":
        return Decision(status="no drift", reason=f'the drift report says "{drift}"')
    due = None if last is None else last + timedelta(hours=config.cooldown_hours)
    if due is not None and now < due:
        reason = f"a new model was asked for at {_text(last)}; the next may be at {_text(due)}"
        return Decision(status="cooldown", reason=reason)
    if newly_labelled < config.minimum_new_patients:
        reason = (
            f"drift, but {newly_labelled} newly labelled {unit}, and "
            f"{config.minimum_new_patients} are needed"
        )
        return Decision(status="waiting: labels needed", reason=reason)
    return Decision(status=REQUESTED, reason=f"drift, and {newly_labelled} newly labelled {unit}")


def newly_labelled(
    manifest: "pd.DataFrame", labels: Path, config: RetrainingConfig, names: "Names"
) -> tuple[int, str]:
    """How many of those whom the labels table names are not in the snapshot yet, and their unit.

    Patients, if the table says whose each row is; otherwise images, series or studies. The table
    may hold identities: they are turned into pseudonyms in memory, and only their number leaves.

    Raises:
        BadInput: The table cannot be read, or its rows cannot be told from those already known.
    """
    columns = config.labels
    told = _labelled(labels, columns)
    if columns.key == "PatientID" or columns.patient_column:
        by_key = columns.key == "PatientID"
        patients = set(told) if by_key else {row.patient_id for row in told.values()}
        new = {names.patient(p) for p in patients if p} - set(manifest["patient_id"])
        return len(new), "patients"
    if columns.key in ("file", "mask"):
        raise BadInput(
            "ingestion.labels.patient_column is not set, and file names do not tell who is new"
        )
    column, unit = _KEYED[columns.key]
    kept = "uids" in config.deidentification.retain
    return len({uid if kept else names.uid(uid) for uid in told} - set(manifest[column])), unit


def _labelled(labels: Path, config: Labels) -> "dict[str, Label]":
    from imaging.labelling.labels import read_labels
    from imaging.labelling.masks import rows_with_mask

    if config.key == "mask":
        return rows_with_mask(labels, config)
    return {k: row for k, row in read_labels(labels, config).items() if row.label is not None}


_KEYED = {
    "SOPInstanceUID": ("instance_uid", "images"),
    "SeriesInstanceUID": ("series_uid", "series"),
    "StudyInstanceUID": ("study_uid", "studies"),
}


def cause_of(report: Path, config: RetrainingConfig) -> tuple[str, str]:
    """Digest of the drift report's numbers, and of those with the policy: the request's name.

    The page beside the numbers differs each time it is drawn, so it does not count.
    """
    drift_report = file_digest(report / FACTS)
    return drift_report, digest("retraining request", drift_report, config.model_dump(mode="json"))


def read_requests(folder: Path) -> dict[str, dict[str, Any]]:
    """All requests so far, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def last_asked(requests: Collection[dict[str, Any]]) -> datetime | None:
    """When a new model was last asked for; a request that still waits for labels is no asking."""
    times = [datetime.fromisoformat(r["at"]) for r in requests if r.get("status") == REQUESTED]
    return max(times, default=None)


def _text(time: datetime | None) -> str:
    return "" if time is None else time.isoformat(timespec="minutes")
