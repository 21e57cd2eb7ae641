"""A whole ingest of all traps: no output, name, message or cache tells who it was."""

from pathlib import Path

import pandas as pd
import pydicom
import pytest
from dicom_traps import FAMILY, GIVEN, MARK, MRN, ROOT_UID, TRAPS, written

from components.ingest import ingest
from imaging.config import IngestionConfig
from imaging.manifest import read_manifest
from lineage.workspace import Workspace

CONFIG = IngestionConfig.model_validate(
    {"labels": {"key": "file", "key_column": "file", "column": "finding", "classes": ["no", "yes"]}}
)
# A UID's own root is anybody's; what comes behind it is not.
TOLD = [w.lower().encode() for w in (MARK, FAMILY, GIVEN, MRN, f"{ROOT_UID}.2", "20190305")]


def told_in(data: bytes) -> list[bytes]:
    return [word for word in TOLD if word in data.lower()]


def test_an_ingest_of_traps_tells_of_nobody(
    home: Workspace,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    scans, snapshot = tmp_path / "scans", tmp_path / "snapshot"
    folder = scans / f"{FAMILY}_{GIVEN}"
    folder.mkdir(parents=True)
    snapshot.mkdir()
    names = [f"{folder.name}/{MRN}-{number}.dcm" for number in range(len(TRAPS))]
    for number, (name, trap) in enumerate(zip(names, TRAPS.values(), strict=True), 1):
        (scans / name).write_bytes(written(trap, number))
    findings = ["yes" if number % 2 else "no" for number in range(len(names))]
    labels = tmp_path / "labels.csv"
    pd.DataFrame({"file": names, "finding": findings}).to_csv(labels, index=False)

    caplog.clear()  # pydicom quotes what it writes for us
    capfd.readouterr()
    with caplog.at_level("DEBUG"):
        counted = ingest(CONFIG, scans=scans, labels=labels, snapshot=snapshot)

    rows = read_manifest(snapshot)
    assert len(rows) == counted.read > len(TRAPS) / 2
    for row in rows.to_dict("records"):
        instance = pydicom.dcmread(snapshot / row["path"])
        assert Path(row["path"]).stem == instance.SOPInstanceUID == row["instance_uid"]
    assert told_in(rows.to_csv().encode()) == []
    said = caplog.text + "".join(capfd.readouterr()) + str(counted)
    assert told_in(said.encode()) == []
    outside = [p for p in home.home.rglob("*") if p.is_file() and "secrets" not in p.parts]
    inside = [path for path in snapshot.rglob("*") if path.is_file()]
    assert len(inside) > len(rows)
    for path in inside + outside:
        assert told_in(str(path.relative_to(tmp_path)).encode() + path.read_bytes()) == [], (
            path.name
        )
