"""From a sender through an archive into a snapshot, with labels by instance."""

import json
from pathlib import Path
from typing import Any

from components.ingest import ingest
from imaging.config import IngestionConfig
from imaging.incoming.receiver import Listener, Receiver
from imaging.manifest import read_manifest
from imaging.phantom import SCANNERS, write_cohort
from lineage.workspace import workspace
from pipelines.graph import Source
from pipelines.sources import resolve

CONFIG = IngestionConfig.model_validate(
    {
        "labels": {
            "key": "SOPInstanceUID",
            "key_column": "SOPInstanceUID",
            "column": "finding",
            "classes": ["absent", "present"],
        }
    }
)


def snapshot_of(scans: Path, labels: Path, folder: Path) -> dict[str, Any]:
    """Counts of a snapshot, and what its rows hold."""
    folder.mkdir()
    found = ingest(CONFIG, scans=scans, labels=labels, snapshot=folder)
    assert found.found == found.read
    rows = read_manifest(folder)
    labelled = rows[["instance_uid", "patient_id", "sha256", "label"]].values.tolist()
    return {"counts": json.loads((folder / "counts.json").read_text()), "labelled": labelled}


def test_scans_come_into_the_snapshot_by_three_ways_alike(archive, sent, home, tmp_path) -> None:
    scans = tmp_path / "cohort" / "scans"
    labels = write_cohort(scans, seed=11, patients=8, scanners=SCANNERS)
    files = sorted(path for path in scans.rglob("*") if path.is_file())
    assert set(sent(archive.dicom_port, files)) == {0}
    copied = resolve(Source("scans", f"{archive.address}?Modality=DX"), workspace())
    with Receiver(tmp_path / "received", Listener(port=0)) as receiver:
        assert set(sent(receiver.port, files)) == {0}
    direct = snapshot_of(scans, labels, tmp_path / "direct")
    assert len(direct["labelled"]) == len(files)
    assert {label for *_, label in direct["labelled"]} == {0, 1}
    assert snapshot_of(copied, labels, tmp_path / "copied") == direct
    assert snapshot_of(tmp_path / "received", labels, tmp_path / "taken") == direct
