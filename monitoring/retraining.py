"""Whether a drift calls for a new model now, and the request that says so."""

import json
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging.deidentify import Pseudonyms
from lineage.digest import digest, file_digest
from lineage.errors import BadInput
from monitoring.config import RetrainingConfig
from monitoring.report import FACTS

if TYPE_CHECKING:
    import pandas as pd

Status = Literal["requested", "waiting: labels needed", "cooldown", "no drift"]
REQUESTED: Status = "requested"
REQUEST = "request.json"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """`reason` is one sentence with its numbers."""

    status: Status
    reason: str


def decide(
    drift: str, newly_labelled: int, last: datetime | None, now: datetime, config: RetrainingConfig
) -> Decision:
    """Ask for a new model only if something changed, there is something new to learn from, and
    the last request is long enough ago for its effect to show.

    Args:
        drift: The verdict of the drift report.
        newly_labelled: Patients (or images) with a label that the snapshot does not hold.
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
    unit = "patients" if config.key == "PatientID" else "images"
    if newly_labelled < config.minimum_new_patients:
        reason = (
            f"drift, but {newly_labelled} newly labelled {unit}, and "
            f"{config.minimum_new_patients} are needed"
        )
        return Decision(status="waiting: labels needed", reason=reason)
    return Decision(status=REQUESTED, reason=f"drift, and {newly_labelled} newly labelled {unit}")


def newly_labelled(manifest: "pd.DataFrame", key: bytes, config: RetrainingConfig) -> int:
    """How many patients (or images) of the labels table are not in the snapshot yet.

    The table may hold identities: they are turned into pseudonyms in memory, and only their number
    leaves this function. No table, none yet at its place, or an empty one: 0.

    Raises:
        BadInput: The table lacks the key column, or is no table.
    """
    if config.labelled is None or not config.labelled.exists():
        return 0
    known = manifest["patient_id" if config.key == "PatientID" else "instance_uid"]
    names = Pseudonyms(key)
    name = names.patient if config.key == "PatientID" else names.uid
    return len({name(text) for text in _keys(config.labelled, config.key_column)} - set(known))


def _keys(path: Path, column: str) -> set[str]:
    import pandas as pd

    read = pd.read_parquet if path.suffix == ".parquet" else _read_csv
    try:
        table = read(path)
    except ValueError:  # what pandas says of a broken table may quote a line of it
        raise BadInput("retraining.labelled: the file is neither CSV nor Parquet") from None
    if column not in table:
        raise BadInput(f"retraining.key_column: the labels table has no column {column!r}")
    keys = table[column].dropna().astype(str).str.strip()
    return set(keys[keys != ""])


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)  # "007" is not 7, "NA" a name
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


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


def write_request(request: dict[str, Any], path: Path) -> None:
    """Write or replace a request in one go: whoever looks sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(request, indent=2) + "\n")
    draft.replace(path)


def _text(time: datetime | None) -> str:
    return "" if time is None else time.isoformat(timespec="minutes")
