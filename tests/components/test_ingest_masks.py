"""Masks and volumes, from the files on disk to the manifest and back."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes

from components.ingest import ingest
from imaging.config import IngestionConfig
from imaging.manifest import read_manifest
from imaging.reading.pixels import stored_picture
from lineage.workspace import Workspace

HIPPOCAMPUS = {
    "labels": {
        "key": "mask",
        "key_column": "image",
        "classes": ["no", "yes"],
        "patient_column": "volume_id",
        "site_column": "site",
        "segments": [2],
    },
    "frames": "keep",
    "volume_range": {"low": 0, "high": 10_000},
}


def run(config: dict[str, Any], scans: Path, labels: Path, snapshot: Path) -> Any:
    snapshot.mkdir()
    ingest(IngestionConfig.model_validate(config), scans=scans, labels=labels, snapshot=snapshot)
    counts = json.loads((snapshot / "counts.json").read_text())
    files = {p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*") if p.is_file()}
    manifest = read_manifest(snapshot)
    # Nothing lies in the snapshot that the manifest does not name.
    assert {f for f in files if f.startswith(("images/", "masks/"))} == {
        *manifest["path"],
        *manifest["mask_path"].dropna(),
    }
    return manifest, counts


@pytest.fixture
def hippocampus(real_data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Six real volumes with masks, and a table; links, as the files are large."""
    source, scans, labels = real_data / "hippocampus", tmp_path / "scans", tmp_path / "labels"
    scans.mkdir()
    labels.mkdir()
    with (source / "labels.csv").open() as stream:
        rows = [*csv.DictReader(stream)][:6]
    for row in rows:
        for name, folder in (("image", scans), ("mask", labels)):
            path = source / row[name]
            (folder / path.name).symlink_to(path)
    with (labels / "who.csv").open("w") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)
    return scans, labels


def test_real_volumes_and_their_masks_become_a_snapshot(
    hippocampus: tuple[Path, Path], tmp_path: Path, home: Workspace
) -> None:
    scans, labels = hippocampus
    manifest, counts = run(HIPPOCAMPUS, scans, labels, tmp_path / "snapshot")
    assert (counts["found"], counts["read"], counts["reasons"]) == (6, 6, {})
    assert counts["patients"] == 6
    assert set(manifest["source_format"]) == {"nifti"}
    assert (manifest["label"] == 1).all()
    assert (manifest["patient_orientation"] == "L\\P").all()
    posterior = {}
    for path in labels.glob("*.nii.gz"):
        values = nibabel.load(path.resolve()).get_fdata()
        posterior[int((values == 2).sum())] = values.size
    for row in manifest.itertuples():
        assert row.frames * row.rows * row.columns == posterior[row.mask_voxels]
        for name in (row.path, row.mask_path):
            text = gzip.decompress((tmp_path / "snapshot" / name).read_bytes())[:352]
            assert b"5.0.10" not in text  # who wrote the source
        mask = nibabel.load(tmp_path / "snapshot" / row.mask_path)
        image = nibabel.load(tmp_path / "snapshot" / row.path)
        assert np.allclose(mask.affine, image.affine)
        assert set(np.unique(mask.dataobj)) == {0, 1}  # segment 2, first in the list


def test_what_does_not_fit_is_set_aside_and_counted(
    hippocampus: tuple[Path, Path], tmp_path: Path, home: Workspace
) -> None:
    scans, labels = hippocampus
    files = sorted(labels.glob("*.nii.gz"))
    files[0].unlink()
    mask = nibabel.load(files[1].resolve())
    files[1].unlink()
    moved = nibabel.Nifti1Image(np.asarray(mask.dataobj), np.diag([1, 1, 2, 1]))
    nibabel.save(moved, files[1])
    files[2].unlink()
    files[2].write_bytes(b"\x1f\x8b\x08 no volume")
    (labels / "nobody.nii.gz").symlink_to(files[3].resolve())
    _, counts = run(HIPPOCAMPUS, scans, labels, tmp_path / "snapshot")
    assert counts["reasons"] == {"mask_mismatch": 1, "mask_unreadable": 1, "unlabelled": 1}
    assert counts["labels_without_image"] == 1


def test_volumes_are_set_aside_unless_frames_are_kept(
    hippocampus: tuple[Path, Path], tmp_path: Path, home: Workspace
) -> None:
    scans, labels = hippocampus
    with pytest.raises(Exception, match="6 multi_frame"):
        run(HIPPOCAMPUS | {"frames": "set_aside"}, scans, labels, tmp_path / "one")
    with pytest.raises(Exception, match="float_pixels"):
        run(HIPPOCAMPUS | {"volume_range": None}, scans, labels, tmp_path / "two")


def ct(number: int, folder: Path) -> Dataset:
    """One slice; its place and its number differ."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = f"1.2.826.0.1.9.7.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.9.1", "1.2.826.0.1.9.2"
    dataset.FrameOfReferenceUID = "1.2.826.0.1.9.3"
    dataset.PatientID, dataset.PatientName, dataset.PatientSex = "MRN-1", "Quernstein^Eva", "F"
    dataset.PatientBirthDate, dataset.StudyDate, dataset.StudyTime = "19720101", "20190305", "10"
    dataset.StudyID, dataset.AccessionNumber, dataset.Modality = "S1", "ACC778899", "CT"
    dataset.InstanceNumber, dataset.ImagePositionPatient = number, [0, 0, 5 * number]
    dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    dataset.SliceThickness, dataset.BodyPartExamined = 5, "ABDOMEN"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 20, 16, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    draw = np.random.default_rng(number).integers(0, 4096, (20, 16), np.uint16)
    dataset.PixelData = draw.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.BurnedInAnnotation = "NO"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    pydicom.dcmwrite(folder / f"{number}.dcm", dataset, enforce_file_format=True)
    return dataset


def segmentation(series: list[Dataset], drawn: Any) -> Dataset:
    return hd.seg.Segmentation(
        source_images=series,
        pixel_array=drawn,
        segmentation_type="BINARY",
        segment_descriptions=[
            hd.seg.SegmentDescription(
                1,
                "Quernstein's lesion",
                codes.SCT.Lesion,
                codes.SCT.Lesion,
                hd.seg.SegmentAlgorithmTypeValues.MANUAL,
            )
        ],
        series_instance_uid=hd.UID(),
        series_number=9,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="M",
        manufacturer_model_name="N",
        software_versions="1",
        device_serial_number="1",
    )


def test_a_dicom_segmentation_labels_each_slice_by_its_uid(tmp_path: Path, home: Workspace) -> None:
    scans, labels = tmp_path / "scans", tmp_path / "labels"
    scans.mkdir()
    labels.mkdir()
    series = [ct(number, scans) for number in range(5)]
    drawn = np.zeros((4, 20, 16), np.uint8)
    drawn[1, 2:5, 3:6] = 1
    segmentation(series[:4], drawn).save_as(labels / "Quernstein.dcm")
    config = {"labels": {"key": "mask", "classes": ["no", "yes"], "segments": ["SCT|52988006"]}}
    manifest, counts = run(config, scans, labels, tmp_path / "snapshot")
    # Nobody referred to the fifth, so that nothing is known of it.
    assert counts["reasons"] == {"unlabelled": 1}
    assert sorted(manifest["mask_voxels"]) == [0, 0, 0, 9]
    (positive,) = manifest[manifest["label"] == 1].itertuples()
    mask = stored_picture((tmp_path / "snapshot" / positive.mask_path).read_bytes())
    assert np.array_equal(mask, drawn[1])
    image = pydicom.dcmread(tmp_path / "snapshot" / positive.path)
    assert np.array_equal(image.pixel_array, series[1].pixel_array)
    for path in (tmp_path / "snapshot" / "masks").rglob("*.png"):
        assert b"Quernstein" not in path.read_bytes()

    moved = series[1]
    moved.ImagePositionPatient = [40, 0, 5]
    pydicom.dcmwrite(scans / "1.dcm", moved, enforce_file_format=True)
    _, counts = run(config, scans, labels, tmp_path / "again")
    assert counts["reasons"] == {"mask_mismatch": 1, "unlabelled": 1}
