"""Rows of a manifest, for tests that need a snapshot and no scans."""

from typing import Any

from imaging.manifest import STATISTICS


def manifest_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row that breaks no rule: image `number`, of a patient and with pixels of its own."""
    row = {
        "instance_uid": f"2.25.{number}",
        "patient_id": f"p{number}",
        "path": f"images/{number}.png",
        "source_format": "image",
        "sha256": f"{number:064x}",
        "pixel_sha256": f"{number:064x}",
        "file_bytes": 100,
        "label": number % 2,
        "rows": 64,
        "columns": 64,
        "bits_stored": 8,
        "frames": 1,
        "samples": 1,
        **dict.fromkeys(STATISTICS, 0.3),
    }
    return row | changes
