"""Hold the snapshot against what is demanded of it, and list the images that pass."""

import json
from itertools import islice
from typing import NamedTuple

from components.contract import Input, Output, component
from imaging.config import ValidationConfig
from lineage.errors import StepFailed


class Validated(NamedTuple):
    warnings: str  # how many, and the first; the report tells all


def check_settings(config: ValidationConfig) -> None:
    """Refuse misspelt rules, expectations, columns and fields before anything runs."""
    from evaluation import shortcuts
    from imaging.validation import own_expectations

    own_expectations.check_settings(config)
    shortcuts.check_fields(config.shortcuts)


@component(check=check_settings)
def validate(
    config: ValidationConfig, snapshot: Input, previous: Input, accepted: Output, report: Output
) -> Validated:
    """Check manifest and image statistics; hands on names of images, never copies.

    Reads: snapshot/manifest.parquet, snapshot/counts.json; previous/manifest.parquet, the data
        that the champion was made from (empty: there is no champion yet).
    Writes: report/validation.html, report/validation.json, report/data_docs/, then
        accepted/accepted.parquet (column instance_uid).

    Raises:
        BadInput: An expectation of one's own cannot be put to its column.
        StepFailed: An expectation that stops is not met, or a shortcut is strong and policy says
            stop; the whole report is on disk by then.
    """
    from evaluation import shortcuts
    from imaging.manifest import MANIFEST, read_manifest
    from imaging.validation import snapshot_drift
    from imaging.validation.expectations import ACCEPTED, DATA_DOCS, check, failures, flawless
    from imaging.validation.report import write_report

    manifest = read_manifest(snapshot)
    before = read_manifest(previous) if (previous / MANIFEST).exists() else None
    if before is not None and before.equals(manifest):
        before = None  # the champion learned from these very data: nobody is new
    counts = json.loads((snapshot / "counts.json").read_text())
    outcomes = check(manifest, counts, config, report / DATA_DOCS, before)
    found = shortcuts.audit(manifest, config.shortcuts)
    strong = shortcuts.sentences(found, config.shortcuts)
    stops = config.shortcuts.action == "stop"
    changes = snapshot_drift.changes(before, manifest, config.drift)
    write_report(
        outcomes,
        len(manifest),
        report,
        warnings=[] if stops else strong,
        faults=strong if stops else [],
        facts={
            "shortcuts": shortcuts.as_dicts(found),
            "changes": snapshot_drift.as_dicts(changes),
        },
        sections=[
            shortcuts.section(found, config.shortcuts),
            snapshot_drift.section(changes),
        ],
    )
    faults = failures(outcomes) + (strong if stops else [])
    if faults:
        asked = len(outcomes) + bool(strong)
        raise StepFailed(f"{len(faults)} of {asked} expectations failed: {_some(faults)}")
    flawless(manifest, outcomes).to_parquet(accepted / ACCEPTED, index=False)
    warned = failures(outcomes, "warn") + strong
    return Validated(f"{len(warned)}: {_some(warned)}" if warned else "none")


def _some(sentences: list[str]) -> str:
    more = f"; and {len(sentences) - 5} more" if len(sentences) > 5 else ""
    return "; ".join(islice(sentences, 5)) + more
