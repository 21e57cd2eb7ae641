import json
import os
import random
import stat
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset

from components.ingest import ingest
from imaging.config import IngestionConfig
from imaging.deidentification import deidentify
from imaging.incoming.folder import find_files
from imaging.labels import Label
from imaging.manifest import read_manifest, schema
from imaging.pixels import pixel_digest, read_pixels
from imaging.reasons import REASONS
from imaging.snapshots import examine
from imaging.snapshots import snapshot as science
from lineage.digest import file_digest, tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.workspace import Workspace

NAME, MRN = "Quernstein^Adalbert", "MRN-0012345"
CONFIG = IngestionConfig.model_validate(
    {"labels": {"key": "file", "key_column": "file", "column": "finding", "classes": ["no", "yes"]}}
)


def scan(number: int = 1, **attributes: Any) -> bytes:
    """A small radiograph; the number gives its UID and its pixels."""
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = f"1.2.826.0.1.3680043.9.7.{number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.826.0.1.9.1", "1.2.826.0.1.9.2"
    dataset.PatientID, dataset.PatientName, dataset.PatientSex = MRN, NAME, "F"
    dataset.PatientAge, dataset.StudyDate, dataset.Modality = "094Y", "20190305", "DX"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Aldebaran", "Clarus 3"
    dataset.InstitutionName, dataset.AccessionNumber = "Mount Doom Infirmary", "ACC778899"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns, dataset.PixelRepresentation = 20, 16, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    draw = np.random.default_rng(number).integers(0, 4096, (20, 16), np.uint16)
    dataset.PixelData = draw.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format="SOPInstanceUID" in dataset)
    return buffer.getvalue()


def picture(number: int = 1, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    draw = np.random.default_rng(1000 + number).integers(0, 255, (20, 16), np.uint8)
    Image.fromarray(draw).save(buffer, kind, **options)
    return buffer.getvalue()


# Each of these alone, with a label, and what becomes of it.
KINDS: dict[str, tuple[bytes, str | None]] = {
    "scan": (scan(1), None),
    "another": (scan(2), None),
    "png": (picture(1), None),
    "jpeg": (picture(2, "JPEG"), None),
    "text": (b"dear diary", "not_an_image"),
    "empty": (b"", "not_an_image"),
    "cut": (scan(3)[:900], "truncated"),
    "report": (scan(4, PixelData=None), "no_pixel_data"),
    "burned in": (scan(5, BurnedInAnnotation="YES"), "burned_in_annotation"),
    "ultrasound": (scan(6, Modality="US"), "burned_in_annotation"),
    "capture": (scan(7, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"), "burned_in_annotation"),
    "nobody": (scan(8, PatientID=None), "no_patient_id"),
    "namesake": (scan(9, BodyPartExamined="ADALBERT"), "residual_identity"),
    "movie": (scan(10, NumberOfFrames=2), "multi_frame"),
}


@pytest.fixture
def run(home: Workspace, tmp_path: Path) -> Callable[..., Path]:
    def go(files: dict[str, bytes], labels: dict[str, str] | None = None, **changes: Any) -> Path:
        folder = _new(tmp_path)
        scans, snapshot = folder / "scans", folder / "snapshot"
        snapshot.mkdir(parents=True)
        names = sorted(files)
        random.Random(len(names)).shuffle(names)  # the file system's order is nobody's
        for name in names:
            (scans / name).parent.mkdir(parents=True, exist_ok=True)
            (scans / name).write_bytes(files[name])
        table = labels if labels is not None else dict.fromkeys(files, "yes")
        rows = [{"file": f, "finding": x, "who": f"P-{f}"} for f, x in table.items()]
        rows += [{"file": "elsewhere.dcm", "finding": x, "who": "P"} for x in ("no",)]
        rows += [{"file": "elsewhere2.dcm", "finding": "yes", "who": "P"}]
        pd.DataFrame(rows).to_csv(folder / "labels.csv", index=False)
        fields = CONFIG.model_dump()
        fields["labels"] |= {"patient_column": "who"} | changes
        config = IngestionConfig.model_validate(fields)
        ingest(config, scans=scans, labels=folder / "labels.csv", snapshot=snapshot)
        return snapshot

    return go


def _new(parent: Path) -> Path:
    folder = parent / f"run{len(list(parent.iterdir()))}"
    folder.mkdir()
    return folder


def counts(snapshot: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((snapshot / "counts.json").read_text())
    assert found["read"] + found["set_aside"] == found["found"]
    assert sum(found["reasons"].values()) == found["set_aside"]
    assert found["reasons"].keys() <= REASONS.keys()
    assert len(read_manifest(snapshot)) == found["read"]
    written = [p for p in (snapshot / "images").rglob("*") if p.is_file()]
    assert len(written) == found["read"]  # nothing that was set aside is left lying there
    assert len(pd.read_parquet(snapshot / "set_aside.parquet")) == found["set_aside"]
    return found


def reasons(home: Workspace, snapshot: Path) -> dict[str, str]:
    table = pd.read_csv(home.home / "secrets" / "set_aside" / f"{tree_digest(snapshot)}.csv")
    return dict(zip(table["file"], table["reason"], strict=True))


def test_each_kind_is_read_or_set_aside_with_its_reason(
    run: Callable[..., Path], home: Workspace
) -> None:
    snapshot = run({name: data for name, (data, _) in KINDS.items()})
    assert reasons(home, snapshot) == {n: r for n, (_, r) in KINDS.items() if r}
    assert counts(snapshot)["read"] == 4
    assert counts(snapshot)["labels_without_image"] == 2


def test_the_manifest_describes_what_lies_there(run: Callable[..., Path]) -> None:
    files = {"a/b/Quernstein": scan(1), "c.png": picture(1)}
    snapshot = run(files, {"a/b/Quernstein": "yes", "c.png": "no"})
    manifest = read_manifest(snapshot)
    assert list(manifest.columns) == schema().names
    for row in manifest.to_dict("records"):
        path = snapshot / row["path"]
        assert file_digest(path) == row["sha256"]
        assert pixel_digest(read_pixels(path)) == row["pixel_sha256"]
        assert read_pixels(path).mean() == pytest.approx(row["intensity_mean"])
    by_format = manifest.set_index("source_format")
    header = by_format.loc["dicom"]
    assert (header.label, header.sex, header.age_years, header.bits_stored) == (1, "F", 90, 12)
    assert (header.scanner, header.modality) == ("Aldebaran Clarus 3", "DX")
    assert header.study_date.year < 1920
    assert header.file_bytes == len(files["a/b/Quernstein"])
    assert (by_format.loc["image"].label, by_format.loc["image"].bits_stored) == (0, 8)


def test_nothing_that_identifies_is_in_the_snapshot(
    run: Callable[..., Path], home: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_text("Patient", NAME)
    files = {
        f"{NAME}/scan": scan(1),
        f"{NAME}/x.png": picture(1, pnginfo=note),
        f"{NAME}/{MRN}.txt": b"dear diary",
    }
    snapshot = run(files)
    told = "".join(capfd.readouterr())
    secrets = [
        "quernstein",
        "adalbert",
        "0012345",
        "20190305",
        "acc778899",
        "mount doom",
        "3680043",
    ]
    for path in snapshot.rglob("*"):
        text = (
            path.name + told + (path.read_bytes().decode("latin-1") if path.is_file() else "")
        ).lower()
        assert not [s for s in secrets if s in text], path.suffix
    secret = home.home / "secrets" / "set_aside" / f"{tree_digest(snapshot)}.csv"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert MRN in secret.read_text()
    proof = json.loads((snapshot / "deidentification.json").read_text())
    assert proof["verified"] is True
    assert (proof["dicom"], proof["pictures"]) == (1, 1)
    assert proof["profile_edition"] == "2026c"
    assert list(proof["options"]) == ["113100", "113107", "113108"]


def test_ingesting_again_gives_the_same_bytes_and_another_key_other_names(
    run: Callable[..., Path], home: Workspace
) -> None:
    files = {name: KINDS[name][0] for name in ("scan", "another", "jpeg", "cut", "text")}
    first, second = run(files), run(dict(reversed(files.items())))
    assert tree_digest(first) == tree_digest(second)
    (home.home / "secrets" / "pseudonym.key").unlink()
    third = run(files)
    assert not set(read_manifest(first)["patient_id"]) & set(read_manifest(third)["patient_id"])


def test_copies_and_conflicts(run: Callable[..., Path], home: Workspace) -> None:
    same_pixels = {"SOPInstanceUID": "1.2.826.0.1.77"}
    files = {
        "a": scan(1), "b": scan(1), "c": scan(1, **same_pixels),
        "d": scan(2), "e": scan(2, KVP="120"),
        "f": scan(3), "g": scan(3, SOPInstanceUID="1.2.826.0.1.78"),
        "h": scan(4), "i": scan(5), "j": scan(6),
    }  # fmt: skip
    labels = dict.fromkeys(files, "yes") | {"f": "no", "h": "maybe"}
    labels.pop("i")
    snapshot = run(files, labels)
    assert reasons(home, snapshot) == {
        "b": "duplicate_file", "c": "duplicate_pixels",
        "d": "conflicting_instance_uid", "e": "conflicting_instance_uid",
        "f": "label_conflict", "g": "label_conflict", "h": "other_class", "i": "unlabelled",
    }  # fmt: skip
    assert counts(snapshot)["read"] == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SOPInstanceUID", "1.2.826.0.1.3680043.9.7.1"),
        ("StudyInstanceUID", "1.2.826.0.1.9.1"),
        ("PatientID", MRN),
    ],
)
def test_labels_may_be_keyed_by_the_header(run: Callable[..., Path], key: str, value: str) -> None:
    snapshot = run({"x": scan(1)}, {value: "yes"}, key=key)
    assert read_manifest(snapshot)["label"].tolist() == [1]


def test_a_picture_without_a_patient_is_set_aside(
    run: Callable[..., Path], home: Workspace
) -> None:
    snapshot = run({"scan": scan(1), "x.png": picture(1)}, patient_column=None)
    assert reasons(home, snapshot) == {"x.png": "no_patient_id"}


def test_pictures_without_any_patient_name_the_setting_that_lacks(run: Callable[..., Path]) -> None:
    with pytest.raises(BadInput, match=r"ingestion\.labels\.patient_column is missing"):
        run({"x.png": picture(1), "y.png": picture(2)}, patient_column=None)


def test_nothing_usable_fails_and_says_why(run: Callable[..., Path]) -> None:
    with pytest.raises(StepFailed, match=r"none of the 1 files.*not_an_image"):
        run({"Quernstein": b"x"})


def test_no_folder_of_scans(home: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,finding\na,yes\nb,no\n")
    with pytest.raises(BadInput, match="no such directory"):
        ingest(CONFIG, scans=tmp_path / "Quernstein", labels=table, snapshot=tmp_path)


def test_a_pipe_among_the_scans_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    setup = {"scans": str(tmp_path), "snapshot": str(tmp_path), "key": "00"}
    assert examine.examiner(setup)("pipe") == {"reason": "unreadable_file"}
    assert examine.examiner(setup)("gone") == {"reason": "unreadable_file"}


def in_this_process(_: str, setup: Any, items: list[str], **__: Any) -> list[Any]:
    """The workers' task without workers, to try it often, or with a rule broken."""
    return [json.loads(json.dumps(result)) for result in map(examine.examiner(setup), items)]


def test_a_leak_stops_the_step_and_is_named_but_not_quoted(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(science, "map_isolated", in_this_process)
    kept = deidentify.Cleaner._replaced
    monkeypatch.setattr(
        deidentify.Cleaner,
        "_replaced",
        lambda self, action, e: e.value if e.keyword == "StudyDate" else kept(self, action, e),
    )
    with pytest.raises(StepFailed, match=r"StudyDate \(strings\) in 2 files") as caught:
        run({"a": scan(1), "b": scan(2)})
    assert "20190305" not in str(caught.value)


FILE = st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(["yes", "no", "else", None]))


@settings(max_examples=40, deadline=None)
@given(st.lists(FILE, max_size=8))
def test_counts_always_add_up(draws: list[tuple[str, str | None]]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(science, "map_isolated", in_this_process)
        scans, snapshot = Path(folder) / "scans", Path(folder) / "snapshot"
        scans.mkdir()
        snapshot.mkdir()
        label_of = {}
        for i, (kind, label) in enumerate(draws):
            (scans / f"{i}").write_bytes(KINDS[kind][0])
            if label:
                label_of[f"{i}"] = Label({"yes": 1, "no": 0}.get(label), patient_id=f"P{i}")
        outcome = science.take_snapshot(CONFIG, scans, label_of, snapshot, b"k" * 32)
        assert counts(snapshot)["found"] == len(draws)
        assert len(outcome.set_aside) == outcome.counts["set_aside"]
        assert read_manifest(snapshot)["pixel_sha256"].is_unique


def label_everything(scans: Path) -> dict[str, Label]:
    return {file: Label(1, patient_id="P") for file in find_files(scans)}


def test_all_of_pydicoms_own_files(tmp_path: Path) -> None:
    scans = Path(pydicom.__file__).parent / "data"
    outcome = science.take_snapshot(CONFIG, scans, label_everything(scans), tmp_path, b"k" * 32)
    assert counts(tmp_path)["read"] > 25
    assert "unexpected_error" not in outcome.counts["reasons"]
    why = {Path(file).name: reason for file, reason in outcome.set_aside}
    assert why["rtplan.dcm"] == why["DICOMDIR"] == "no_pixel_data"
    assert why["MR_truncated.dcm"] == "truncated"
    assert "CT_small.dcm" not in why


def test_odd_files_get_true_reasons(real_data: Path, tmp_path: Path) -> None:
    scans = real_data / "dicom-odd"
    outcome = science.take_snapshot(CONFIG, scans, label_everything(scans), tmp_path, b"k" * 32)
    counts(tmp_path)
    why = dict(outcome.set_aside)
    index = pd.read_csv(scans / "index.csv", dtype=str, keep_default_na=False).set_index("file")
    found = Counter(why.values())
    assert "unexpected_error" not in found
    assert found["decoder_aborted"] == found["too_slow"] == found["not_rewritable"] == 0
    for file, reason in why.items():
        if file not in index.index:
            continue
        row = index.loc[file]
        if reason == "multi_frame":
            assert int(row.frames) > 1
        elif reason == "colour":
            assert row.photometric not in ("MONOCHROME1", "MONOCHROME2")
        elif reason == "no_pixel_data":
            assert row.pydicom_pixels == "no pixel data"
        elif reason == "truncated":
            assert row.broken == "1" or "nooffset" in file
        elif reason == "undecodable_pixels":  # 12-bit JPEG is beyond gdcm and pillow here
            assert row.pydicom_pixels.startswith("no: RuntimeError") or "JPGExtended" in file
    for file, row in index.iterrows():  # and whatever could be read was not lost for nothing
        if row.pydicom_pixels.startswith("ok") and row.frames in ("", "1") and row.samples == "1":
            assert why.get(str(file)) not in ("unreadable_header", "truncated", "not_an_image")


def test_a_linked_folder_is_not_passed_over_without_a_word(tmp_path: Path) -> None:
    scans, elsewhere = tmp_path / "scans", tmp_path / "elsewhere"
    scans.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.dcm").write_bytes(scan(1))
    (scans / "more").symlink_to(elsewhere)
    with pytest.raises(BadInput, match="a folder in it is a link"):
        find_files(scans)


def test_a_closed_folder_is_not_passed_over_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / NAME).mkdir()
    opened = os.scandir

    def scandir(path: str) -> Any:  # root may open everything, so closing it would show nothing
        if NAME in str(path):
            raise PermissionError(13, "Permission denied", path)
        return opened(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BadInput, match="cannot be opened") as caught:
        find_files(tmp_path)
    assert NAME not in str(caught.value)


def test_a_full_disk_costs_the_step_and_no_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, snapshot = tmp_path / "scans", tmp_path / "snapshot"
    scans.mkdir()
    snapshot.mkdir()
    (scans / "a.dcm").write_bytes(scan(1))
    (scans / "b.png").write_bytes(picture(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(science, "map_isolated", in_this_process)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StepFailed, match=r"2 cleaned files .* \(No space left on device\)"):
        science.take_snapshot(CONFIG, scans, label_everything(scans), snapshot, b"k" * 32)
