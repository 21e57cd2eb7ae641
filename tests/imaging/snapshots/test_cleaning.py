"""A folder cleaned without labels: names from new UIDs, nothing from before, the same again."""

import fcntl
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from imaging.deidentification.policy import DeidentificationPolicy
from imaging.snapshots.cleaning import Cleaned, clean_folder
from lineage.digest import tree_digest
from lineage.errors import BadInput
from lineage.workspace import Workspace

KEY = b"k" * 32


@pytest.fixture
def scans(tmp_path: Path, dicom_bytes) -> Path:
    folder = tmp_path / "scans"
    (folder / "Quernstein").mkdir(parents=True)
    uid = generate_uid()
    for name, data in {
        "Quernstein/a": dicom_bytes(SOPInstanceUID=uid),
        "b.dcm": dicom_bytes(SOPInstanceUID=uid),
        "c": dicom_bytes(PatientID="Q-2", StudyInstanceUID="1.2.826.0.1.3680043.9.7.9"),
        "d": dicom_bytes(SOPInstanceUID="1.2.826.0.1.3680043.9.7.8", BurnedInAnnotation="YES"),
        "e.txt": b"dear diary",
    }.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def clean(home: Workspace, tmp_path: Path, scans: Path):
    def go(out: Path = tmp_path / "out", **policy: object) -> Cleaned:
        crosswalk = home.home / "secrets" / "crosswalk.sqlite"
        how = DeidentificationPolicy.model_validate(policy)
        return clean_folder(scans, out, how, KEY, crosswalk=crosswalk)

    return go


def test_files_lie_by_their_new_uids_and_counts_add_up(clean, tmp_path: Path) -> None:
    cleaned = clean()
    assert (cleaned.found, cleaned.written, cleaned.masked) == (5, 2, 0)
    assert cleaned.held == {"burned_in_annotation": 1, "duplicate_file": 1, "not_an_image": 1}
    assert dict(cleaned.set_aside)["b.dcm"] == "duplicate_file"
    assert (cleaned.patients, cleaned.studies, cleaned.series) == (2, 2, 1)
    written = list((tmp_path / "out").rglob("*.dcm"))
    assert len(written) == 2
    for path in written:
        dataset = pydicom.dcmread(path)
        names = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
        assert path.relative_to(tmp_path / "out") == Path(*names[:2], f"{names[2]}.dcm")
        assert b"Quernstein" not in path.read_bytes()
    assert set(cleaned.checks.values()) == {0}
    assert sorted(cleaned.rows["patient_id"].unique()) == sorted(
        {str(pydicom.dcmread(p).PatientID) for p in written}
    )


def test_a_study_that_names_no_patient_gets_a_code_of_its_own(
    clean, scans: Path, tmp_path: Path, dicom_bytes
) -> None:
    study = "1.2.826.0.1.3680043.9.7.77"
    for path in scans.rglob("*"):
        if path.is_file():
            path.unlink()
    for name, last in (("a", "1"), ("b", "2")):
        data = dicom_bytes(PatientID="", StudyInstanceUID=study, SOPInstanceUID=f"{study}.{last}")
        (scans / name).write_bytes(data)
    nowhere = dicom_bytes(PatientID=None, StudyInstanceUID=None, SOPInstanceUID=f"{study}.3")
    (scans / "c").write_bytes(nowhere)
    # Somebody is named in a value representation that there is not.
    odd = dicom_bytes(PatientID="Q-2", StudyInstanceUID=study, SOPInstanceUID=f"{study}.4")
    (scans / "d").write_bytes(odd.replace(b"\x10\0\x20\0LO", b"\x10\0\x20\0L_"))
    cleaned = clean()
    assert (cleaned.written, cleaned.patients) == (2, 1)
    assert cleaned.held == {"no_patient_id": 1, "unreadable_header": 1}
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert study.encode() not in path.read_bytes()
        assert pydicom.dcmread(path).PatientID in set(cleaned.rows["patient_id"])


def test_files_with_masked_text_are_counted(clean) -> None:
    corner = {"x": 0, "y": 0, "width": 2, "height": 1}
    device = {"modality": "DX", "regions": [corner]}
    cleaned = clean(text_in_pixels={"action": "mask", "devices": [device]})
    assert (cleaned.written, cleaned.masked) == (3, 3)


def test_a_volume_is_cleaned_whatever_its_values_mean(clean, scans: Path, tmp_path: Path) -> None:
    """What is shown as black and white matters to who looks, or learns; not to a copy."""
    arrays = [np.arange(60).reshape(5, 4, 3).astype(t) for t in ("<i2", "<i4", "<f4", "<f8")]
    for array in arrays:
        if array.dtype.kind == "f":
            array[0, 0] = np.nan, np.inf, -1e30
        image = nibabel.Nifti1Image(array, np.diag([-2.0, -3, 4, 1]))
        image.header["descrip"] = b"Quernstein"
        (scans / f"{array.dtype}.nii").write_bytes(image.to_bytes())
    cleaned = clean()
    assert (cleaned.pictures, cleaned.written) == (4, 6)
    written = [nibabel.load(path) for path in (tmp_path / "out" / "pictures").iterdir()]
    assert not any(b"Quernstein" in image.to_bytes() for image in written)
    values = {image.dataobj.dtype: np.asanyarray(image.dataobj).tobytes() for image in written}
    assert values == {array.dtype: array.tobytes() for array in arrays}


def test_what_was_done_is_told_for_each_attribute_and_nothing_of_a_value(clean) -> None:
    cleaned = clean()
    assert cleaned.done["PatientName"] == {"replaced": 2}
    assert cleaned.done["Modality"] == {"kept": 2}
    assert cleaned.done["StudyDate"] == {"replaced": 2}
    assert cleaned.done["DeidentificationMethod"] == {"added": 2}
    assert "Quernstein" not in str(cleaned.done)


def test_times_do_not_tell_the_order_of_the_source(clean, scans: Path, dicom_bytes) -> None:
    for i in range(5):
        uids = dict.fromkeys(("StudyInstanceUID", "SOPInstanceUID"), f"1.2.3.{i}")
        (scans / f"f{i}").write_bytes(dicom_bytes(PatientID=f"Q-1{i}", KVP=str(i), **uids))
    out = scans.parent / "out"
    assert clean().written == 7
    studies = [path for path in out.iterdir() if path.is_dir()]
    assert sorted(studies, key=lambda path: (path.stat().st_mtime_ns, path)) == sorted(studies)
    files = list(out.rglob("*.dcm"))
    assert sorted(files, key=lambda path: (path.stat().st_mtime_ns, path)) == sorted(files)


def test_again_leaves_what_is_there_and_mends_what_was_changed(clean, tmp_path: Path) -> None:
    clean()
    before = tree_digest(tmp_path / "out")
    path = next(p for p in (tmp_path / "out").rglob("*.dcm"))
    path.write_bytes(path.read_bytes() + b"note")
    (tmp_path / "out" / "deidentification.json").write_text("{}")  # the page of the first run
    assert clean().written == 2
    assert tree_digest(tmp_path / "out") == before  # and that page told of other files


def test_a_kill_leaves_no_half_file_and_the_same_command_goes_on(
    clean, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:500])
        raise SystemExit("killed")

    monkeypatch.setattr(shutil, "copyfile", half)
    with pytest.raises(SystemExit):
        clean()
    monkeypatch.undo()
    assert not list((tmp_path / "out").rglob("*.dcm"))
    (tmp_path / "out" / ".deidentification.json.4711").write_text("{")
    assert clean().written == 2
    left = [p for p in (tmp_path / "out").rglob("*") if p.is_file() and p.suffix != ".dcm"]
    assert [p.name for p in left] == ["SHA256SUMS"]


def test_one_process_at_a_time_fills_a_folder(clean, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BadInput, match="another process is writing into OUT"):
        clean()
    os.close(descriptor)
    assert clean().written == 2


def test_a_folder_with_other_files_is_refused(clean, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("Quernstein")
    with pytest.raises(BadInput, match="OUT holds 1 files that do not come from these scans"):
        clean()
    with pytest.raises(BadInput, match="OUT lies in IN"):
        clean(tmp_path / "scans" / "out")


def test_drawn_pseudonyms_are_the_same_in_the_next_run(clean, tmp_path: Path) -> None:
    first = clean(pseudonyms="random")
    again = clean(tmp_path / "other", pseudonyms="random")
    assert set(first.rows["patient_id"]) == set(again.rows["patient_id"])
    assert tree_digest(tmp_path / "out") == tree_digest(tmp_path / "other")


def test_different_files_of_one_instance_conflict_and_are_both_held(
    clean, scans: Path, dicom_bytes
) -> None:
    uid = pydicom.dcmread(scans / "b.dcm").SOPInstanceUID
    (scans / "b.dcm").write_bytes(dicom_bytes(SOPInstanceUID=uid, KVP="120"))
    cleaned = clean()
    held = {file for file, reason in cleaned.set_aside if reason == "conflicting_instance_uid"}
    assert held == {"Quernstein/a", "b.dcm"}
    assert cleaned.written == 1
