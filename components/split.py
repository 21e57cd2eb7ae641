"""Part the accepted images by patient into training, validation and a sealed test split."""

import json

from components.contract import Input, Output, component
from imaging.config import SplittingConfig
from lineage.workspace import workspace


@component(secrets=("split.key",), state=("ledgers/splits-*.jsonl",))
def split(config: SplittingConfig, snapshot: Input, accepted: Input, splits: Output) -> None:
    """Part by patient, or by time or site; nobody is ever on two sides, nor moves as data grows.

    Reads: snapshot/manifest.parquet, snapshot/deidentification.json (by time), and
        accepted/accepted.parquet.
    Writes: splits/splits.parquet, splits/splits.json; appends to the workspace's ledger.

    Raises:
        BadInput: Time is to part by dates that were moved, or nothing comes from a held-out site.
        StepFailed: A split has too few patients or one class only; the counts are on disk.
    """
    import pandas as pd

    from imaging.manifest import read_manifest
    from imaging.splits import (
        open_ledger,
        part,
        require_true_dates,
        require_usable,
        write_splits,
    )
    from imaging.validation.expectations import ACCEPTED

    if config.by == "time":
        proof = json.loads((snapshot / "deidentification.json").read_text())
        require_true_dates(proof, config)
    here = workspace()
    with open_ledger(here.ledgers / f"splits-{config.ledger}.jsonl") as ledger:
        rows, counts = part(
            read_manifest(snapshot),
            pd.read_parquet(accepted / ACCEPTED),
            config,
            here.secret("split.key"),
            ledger.sides,
        )
        write_splits(rows, counts, splits)
        require_usable(counts, config.minimum_patients)
        sides = dict(zip(rows["patient_id"], rows["split"], strict=True))
        ledger.add(sides, config.fractions.model_dump())
