"""A snapshot described for other tools: Croissant 1.0, MLCommons' format for data sets."""

import json
from pathlib import Path
from typing import Any

from imaging.manifest import MANIFEST, schema
from imaging.snapshots.integrity import read_root
from lineage.digest import file_digest

CROISSANT = "croissant.json"
DESCRIPTION = (
    "De-identified medical images: one record per instance. Pseudonyms are keyed or drawn; "
    "deidentification.json says which rules were applied and what the check of the result found. "
    "The Merkle root over the records is {root}."
)


def write_croissant(snapshot: Path) -> None:
    """Write `croissant.json`: the manifest as records, every column with its type, and the files.

    It names no date, author or licence: nobody but the owner of the scans can give one.
    """
    import mlcroissant as mlc

    types = {
        "string": mlc.DataType.TEXT,
        "date32[day]": mlc.DataType.DATE,
        "float": mlc.DataType.FLOAT,
    }
    fields = [
        mlc.Field(
            id=f"instances/{column.name}",
            name=column.name,
            data_types=[types.get(str(column.type), mlc.DataType.INTEGER)],
            source=mlc.Source(file_object="manifest", extract=mlc.Extract(column=column.name)),
        )
        for column in schema()
    ]
    described = mlc.Metadata(
        name="snapshot",
        description=DESCRIPTION.format(root=read_root(snapshot)),
        distribution=[
            mlc.FileObject(
                id="manifest",
                name=MANIFEST,
                content_url=MANIFEST,
                encoding_formats=["application/x-parquet"],
                sha256=file_digest(snapshot / MANIFEST),
            ),
            _files(mlc, "images", ["application/dicom", "image/png", "application/x-nifti"]),
            _files(mlc, "masks", ["image/png", "application/x-nifti"]),
        ],
        record_sets=[
            mlc.RecordSet(
                id="instances", name="instances", key="instances/instance_uid", fields=fields
            )
        ],
    )
    text = json.dumps(described.to_json(), indent=2, sort_keys=True)
    (snapshot / CROISSANT).write_text(f"{text}\n")


def _files(mlc: Any, folder: str, formats: list[str]) -> Any:
    return mlc.FileSet(id=folder, name=folder, includes=[f"{folder}/**"], encoding_formats=formats)
