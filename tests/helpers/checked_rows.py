"""Good rows of a manifest, some of them changed, held against the expectations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from manifest_rows import manifest_row

from imaging.config import ValidationConfig
from imaging.manifest import read_manifest, write_manifest
from imaging.validation.expectations import Outcome, check

CONFIG = ValidationConfig(minimum_images=10, modalities=("DX",))
N = 40


def row(i: int) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    low, middle, high = sorted(rng.uniform(0.1, 0.9, 3))
    return manifest_row(
        i + 1,
        patient_id=f"p{i // 2}",
        label=i % 2,
        sex="FM"[i % 2],
        age_years=20.0 + i,
        modality="DX",
        pixel_spacing_mm=0.2,
        intensity_p01=low,
        intensity_p50=middle,
        intensity_p99=high,
    )


def outcomes(
    directory: Path,
    changes: Sequence[tuple[int, str, Any]] = (),
    config: ValidationConfig = CONFIG,
    counts: Mapping[str, Any] | None = None,
    previous: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list[Outcome]]:
    """Check N good rows, some of them changed: (row number, column, value)."""
    rows = [row(i) for i in range(N)]
    for i, column, value in changes:
        rows[i][column] = value
    write_manifest(rows, directory)
    manifest = read_manifest(directory)
    counts = counts or {"found": N, "read": N, "set_aside": 0}
    return manifest, check(manifest, counts, config, directory / "data_docs", previous)
