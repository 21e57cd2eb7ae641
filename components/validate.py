"""Hold the snapshot against what is demanded of it, and list the images that pass."""

import json
from itertools import islice

from components.contract import Input, Output, component
from imaging.config import ValidationConfig
from lineage.errors import StepFailed


@component()
def validate(config: ValidationConfig, snapshot: Input, accepted: Output, report: Output) -> None:
    """Check manifest and image statistics; hands on names of images, never copies.

    Reads: snapshot/manifest.parquet, snapshot/counts.json.
    Writes: report/validation.html, report/validation.json, report/data_docs/, then
        accepted/accepted.parquet (column instance_uid).

    Raises:
        StepFailed: An expectation is not met; the whole report is on disk by then.
    """
    from imaging.expectations import (
        ACCEPTED,
        DATA_DOCS,
        check,
        failures,
        flawless,
        write_report,
    )
    from imaging.manifest import read_manifest

    manifest = read_manifest(snapshot)
    counts = json.loads((snapshot / "counts.json").read_text())
    outcomes = check(manifest, counts, config, report / DATA_DOCS)
    write_report(outcomes, len(manifest), report)
    if failed := failures(outcomes):
        some = "; ".join(islice(failed, 5))
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise StepFailed(f"{len(failed)} of {len(outcomes)} expectations failed: {some}{more}")
    flawless(manifest, outcomes).to_parquet(accepted / ACCEPTED, index=False)
