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


def _check(config: IngestionConfig) -> None:
    """Raise for a library that is not installed, before hours are spent on the first files."""
    if config.deidentification.text_in_pixels.ocr:
        from imaging.deidentification.ocr import warm_up

        warm_up()


@component(
    resources=Resources(cpu=4, memory_gib=16, timeout_minutes=720),
    secrets=(SECRET,),
    state=("ledgers/history/*", "secrets/crosswalk.sqlite"),
    identities=True,
    check=_check,
)
def ingest(config: IngestionConfig, scans: Input, labels: Input, snapshot: Output) -> Ingested:
    """Turn a folder of scans into a de-identified snapshot with a manifest.

    What was found out of a file is kept in the workspace: only new files are read the next time.

    Reads:
        scans: DICOM, PNG, JPEG or NIfTI files at any depth; told apart by content, not by name.
        labels: A CSV or Parquet table, whose columns are named in the config; FHIR resources; or a
            folder of masks.

    Writes:
        snapshot: manifest.parquet (imaging/manifest.py), images/, masks/, set_aside.parquet with a
            reason per file that is not in it, counts.json, deidentification.json, merkle.json,
            croissant.json.
            What the digests in set_aside.parquet stand for stays in this workspace's secrets.

    Raises:
        BadInput: The folder, the table, or a column or class of it is missing, or nothing says
            whose images they are.
        StepFailed: A written file leaks an identity, or no file could be used.
    """
    from imaging.labelling.labels import read_labels
    from imaging.labelling.masks import read_masks
    from imaging.snapshots import history
    from imaging.snapshots.ingested import FOLDER
    from imaging.snapshots.snapshot import keep_map, take_snapshot

    key = workspace().secret(SECRET)
    with progress("ingest") as report:
        bounds = {"timeout_s": config.file_timeout_s, "memory_gib": config.file_memory_gib}
        cache = workspace().home / FOLDER
        if config.labels.key == "mask":
            label_of = read_masks(
                labels, config.labels, snapshot, key=key, **bounds, report=report, cache=cache
            )
        else:
            label_of = read_labels(labels, config.labels)
        outcome = take_snapshot(config, scans, label_of, snapshot, key, report, cache)
    keep_map(outcome, snapshot, key)
    found, read, reasons = (outcome.counts[name] for name in ("found", "read", "reasons"))
    if read:
        history.remember(snapshot, workspace().ledgers / "history", config.history)
        return Ingested(found, read, _in_words(reasons))
    if reasons.get("no_patient_id") == found and config.labels.patient_column is None:
        table = "a table beside the masks" if config.labels.key == "mask" else "the labels table"
        raise BadInput(
            "ingestion.labels.patient_column is missing, and the files do not say whose they are: "
            f"name the column of {table} that does"
        )
    told = _in_words(reasons)
    if lost := "unlabelled" in reasons and outcome.counts["labels_without_image"]:
        told += f"; {lost} labels name no image: see what they name, and ingestion.labels.key"
    raise StepFailed(f"none of the {found} files under scans could be used: {told}")


def _in_words(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none"
