"""The manifest: one typed row per instance, the only thing that later steps read to find images."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MANIFEST = "manifest.parquet"
_BATCH = 5000  # rows

# How an image looks, in numbers; see imaging/statistics.py.
STATISTICS = (
    "intensity_mean",
    "intensity_std",
    "intensity_p01",
    "intensity_p50",
    "intensity_p99",
    "noise_sigma",
    "sharpness",
    "entropy_bits",
    "border_mean",
)
# What the header says of the acquisition; none of it identifies anybody.
HEADER_FIELDS = (
    "modality",
    "manufacturer",
    "model_name",
    "scanner",
    "view_position",
    "photometric_interpretation",
    "rows",
    "columns",
    "bits_stored",
    "pixel_spacing_mm",
)
AGE_BANDS = ("<40", "40-59", "60+", "unknown")

_COLUMNS = {
    "instance_uid": ("string", False),
    "series_uid": ("string", True),
    "study_uid": ("string", True),
    "patient_id": ("string", False),
    "path": ("string", False),
    "source_format": ("string", False),
    "sha256": ("string", False),
    "pixel_sha256": ("string", False),
    "file_bytes": ("int64", False),
    "label": ("int8", False),
    "sex": ("string", True),
    "age_years": ("float32", True),
    "scanner": ("string", True),
    "site": ("string", True),
    "modality": ("string", True),
    "manufacturer": ("string", True),
    "model_name": ("string", True),
    "view_position": ("string", True),
    "photometric_interpretation": ("string", True),
    "transfer_syntax": ("string", True),
    "study_date": ("date32", True),
    "rows": ("int32", False),
    "columns": ("int32", False),
    "bits_stored": ("int16", False),
    "pixel_spacing_mm": ("float32", True),  # between rows
    "column_spacing_mm": ("float32", True),
    "slice_spacing_mm": ("float32", True),
    "frames": ("int32", False),
    "samples": ("int8", False),  # per pixel: 1 grey, 3 red, green, blue
    "laterality": ("string", True),
    "patient_orientation": ("string", True),
    "body_part": ("string", True),
    "series_number": ("int32", True),
    "acquisition_number": ("int32", True),
    "instance_number": ("int32", True),
    # Where in tenths an image stood in the source, and its patient among the patients' numbers; of
    # fewer than 110 patients in coarser parts.
    "source_order_decile": ("int8", True),
    "patient_order_decile": ("int8", True),
    "source_split": ("string", True),  # as the labels table has it
    "label_known_since": ("date32", True),
    "perceptual_hash": ("string", True),
    "mask_path": ("string", True),
    "mask_sha256": ("string", True),
    "mask_voxels": ("int64", True),  # that are not background
    **dict.fromkeys(STATISTICS, ("float32", False)),
}


def schema() -> "pa.Schema":
    """Column names, types and which may be empty, in the order of the file."""
    import pyarrow as pa

    return pa.schema(
        pa.field(name, getattr(pa, kind)(), nullable) for name, (kind, nullable) in _COLUMNS.items()
    )


def write_manifest(rows: list[dict[str, Any]], snapshot: Path) -> None:
    """Write rows, sorted by instance, so that the order of reading leaves no trace.

    Raises:
        pyarrow.ArrowInvalid, ArrowTypeError: A value does not fit its column.
        ValueError: A column that must be filled holds an empty value.
    """
    write_sorted(sorted(rows, key=lambda row: str(row["instance_uid"])), snapshot)


def write_sorted(rows: Iterable[dict[str, Any]], snapshot: Path) -> None:
    """The same of rows that come in order, and need not all be in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    waiting, last = iter(rows), ""
    with pq.ParquetWriter(snapshot / MANIFEST, schema(), compression="zstd") as writer:
        while batch := list(islice(waiting, _BATCH)):
            order = [last, *(str(row["instance_uid"]) for row in batch)]
            if order != sorted(order):
                raise ValueError("manifest rows are not in the order of their instances")
            last = order[-1]
            table = pa.Table.from_pylist(batch, schema=schema())
            for field in table.schema:
                if not field.nullable and table.column(field.name).null_count:
                    raise ValueError(f"manifest column {field.name} has empty values")
            writer.write_table(table)


def read_manifest(snapshot: Path) -> "pd.DataFrame":
    """The manifest as a DataFrame, one row per instance, sorted by `instance_uid`."""
    import pandas as pd

    return pd.read_parquet(snapshot / MANIFEST)


def age_band(age_years: float | None) -> str:
    """Place an age in years into one of `AGE_BANDS`."""
    if age_years is None or age_years != age_years:
        return "unknown"
    return "<40" if age_years < 40 else "40-59" if age_years < 60 else "60+"
