"""Scans come in: each file is read safely, de-identified before a byte is written, and checked."""

from typing import NamedTuple

from components.contract import Input, Output, Resources, component
from components.progress import progress
from imaging.config import IngestionConfig
from lineage.errors import BadInput, StepFailed
from lineage.workspace import workspace

SECRET = "pseudonym.key"  # noqa: S105  the name of a secret, not one


class Ingested(NamedTuple):
    found: int
    read: int
    set_aside: str  # how many, by reason


@component(
    resources=Resources(cpu=4, memory_gib=16, timeout_minutes=720),
    secrets=(SECRET,),
    identities=True,
)
def ingest(config: IngestionConfig, scans: Input, labels: Input, snapshot: Output) -> Ingested:
    """Turn a folder of scans into a de-identified snapshot with a manifest.

    Reads:
        scans: DICOM, PNG or JPEG files at any depth; told apart by content, not by name.
        labels: A CSV or Parquet table; its columns are named in the config.

    Writes:
        snapshot: manifest.parquet (imaging/manifest.py), images/, set_aside.parquet with a reason
            per file that is not in it, counts.json, deidentification.json.
            What the digests in set_aside.parquet stand for stays in this workspace's secrets.

    Raises:
        BadInput: The folder, the table, or a column or class of it is missing, or nothing says
            whose images they are.
        StepFailed: A written file leaks an identity, or no file could be used.
    """
    from imaging.labels import read_labels
    from imaging.snapshots.snapshot import keep_map, take_snapshot

    key = workspace().secret(SECRET)
    label_of = read_labels(labels, config.labels)
    with progress("ingest") as report:
        outcome = take_snapshot(config, scans, label_of, snapshot, key, report)
    keep_map(outcome, snapshot, key)
    found, read, reasons = (outcome.counts[name] for name in ("found", "read", "reasons"))
    if read:
        return Ingested(found, read, _in_words(reasons))
    if reasons.get("no_patient_id") == found and config.labels.patient_column is None:
        raise BadInput(
            "ingestion.labels.patient_column is missing, and the files do not say whose they are: "
            "name the column of the labels table that does"
        )
    raise StepFailed(f"none of the {found} files under scans could be used: {_in_words(reasons)}")


def _in_words(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
