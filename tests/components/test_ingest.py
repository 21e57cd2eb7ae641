import gzip
import json
import os
import random
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel
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
from imaging.deidentification import deidentify, ocr
from imaging.deidentification.policy import DeidentificationPolicy
from imaging.incoming.folder import find_files
from imaging.labelling.labels import Label
from imaging.manifest import read_manifest, schema
from imaging.reading.pixels import decode, pixel_digest, read_pixels
from imaging.reasons import REASONS
from imaging.snapshots import examine, examined
from imaging.snapshots import snapshot as science
from imaging.snapshots.ingested import Ingested
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


def colour_picture() -> bytes:
    buffer = BytesIO()
    draw = np.random.default_rng(30).integers(0, 255, (20, 16, 3), np.uint8)
    Image.fromarray(draw).save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(data: bytes) -> Any:
    return decode(data, "application/dicom")


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
def run(run_apart: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The same in this process: workers take seconds to start."""
    monkeypatch.setattr(examined, "each_isolated", in_this_process)
    for mode in ("reading_validation_mode", "writing_validation_mode"):
        monkeypatch.setattr(pydicom.config.settings, mode, pydicom.config.IGNORE)
    return run_apart


@pytest.fixture
def run_apart(home: Workspace, tmp_path: Path) -> Callable[..., Path]:
    """Ingest files as a run does, by workers; the snapshot."""

    def go(
        files: dict[str, bytes],
        labels: dict[str, str] | None = None,
        settings: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
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
        config = IngestionConfig.model_validate(fields | (settings or {}))
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
    run_apart: Callable[..., Path], home: Workspace
) -> None:
    snapshot = run_apart({name: data for name, (data, _) in KINDS.items()})
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
    size = len(files["a/b/Quernstein"])
    assert header.file_bytes == pytest.approx(size, rel=0.05) and header.file_bytes != size
    assert (by_format.loc["image"].label, by_format.loc["image"].bits_stored) == (0, 8)


def test_nothing_that_identifies_is_in_the_snapshot(
    run_apart: Callable[..., Path], home: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    from PIL.PngImagePlugin import PngInfo

    note = PngInfo()
    note.add_text("Patient", NAME)
    files = {
        f"{NAME}/scan": scan(1),
        f"{NAME}/x.png": picture(1, pnginfo=note),
        f"{NAME}/{MRN}.txt": b"dear diary",
    }
    snapshot = run_apart(files)
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
    assert proof["risk"]["patients"] == 2
    assert len(proof["not_safe_harbor"]) == 2  # dates are moved, codes derived


def test_ingesting_again_gives_the_same_bytes_and_another_key_other_names(
    run: Callable[..., Path], home: Workspace
) -> None:
    files = {name: KINDS[name][0] for name in ("scan", "another", "jpeg", "cut", "text")}
    first, second = run(files), run(dict(reversed(files.items())))
    assert tree_digest(first) == tree_digest(second)
    (home.home / "secrets" / "pseudonym.key").unlink()
    third = run(files)
    assert not set(read_manifest(first)["patient_id"]) & set(read_manifest(third)["patient_id"])


def test_a_patient_of_the_table_who_is_several_by_the_headers_is_refused(
    run: Callable[..., Path],
) -> None:
    files = {"a": scan(1), "b": scan(2, PatientID="study-2")}  # as some archives export
    with pytest.raises(BadInput, match="1 patients of that column are several by the PatientIDs"):
        run(files, patient_column="finding")
    with pytest.raises(BadInput, match="1 patients of that column"):
        run({"a": scan(1), "b.png": picture(1)}, patient_column="finding")


def test_patients_who_may_be_one_and_numbers_that_may_be_two_are_counted(
    run: Callable[..., Path],
) -> None:
    """As many as are concerned; which, nobody who reads the snapshot is to know."""
    given = ["12", "0012", "ab 7", "AB  7 ", "13", "1-3", "P13"]
    files = {f"{i}": scan(i, PatientID=number) for i, number in enumerate(given, 1)}
    files |= {"20": scan(20, PatientID="13", IssuerOfPatientID="North")}
    files |= {"21": scan(21, PatientID="13", IssuerOfPatientID="South")}
    files |= {"22": scan(22, PatientID="12", IssuerOfPatientID="North")}
    counted = counts(run(files))
    assert counted["patients"] == 7
    assert (counted["patients_alike"], counted["patients_of_several_issuers"]) == (4, 1)


def test_times_do_not_tell_the_order_of_the_source(run: Callable[..., Path]) -> None:
    images = run({f"{i}": scan(i) for i in range(3)}) / "images"
    assert len({path.stat().st_mtime_ns for path in images.rglob("*.dcm")}) == 1


def test_copies_and_conflicts(run: Callable[..., Path], home: Workspace) -> None:
    same_pixels = {"SOPInstanceUID": "1.2.826.0.1.77"}
    files = {
        "a": scan(1), "b": scan(1), "c": scan(1, **same_pixels),
        "d": scan(2), "e": scan(2, KVP="120"),
        "f": scan(3), "g": scan(3, SOPInstanceUID="1.2.826.0.1.78"),
        "h": scan(4), "i": scan(5), "j": scan(6),
        "k": scan(7), "l": scan(7, PatientID="Q-2", SOPInstanceUID="1.2.826.0.1.79"),
    }  # fmt: skip
    labels = dict.fromkeys(files, "yes") | {"f": "no", "h": "maybe"}
    labels.pop("i")
    snapshot = run(files, labels)
    assert reasons(home, snapshot) == {
        "b": "duplicate_file", "c": "duplicate_pixels",
        "d": "conflicting_instance_uid", "e": "conflicting_instance_uid",
        "f": "label_conflict", "g": "label_conflict", "h": "other_class", "i": "unlabelled",
        "k": "pixels_of_several_patients", "l": "pixels_of_several_patients",
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


def movie(frames: int = 3) -> bytes:
    draw = np.random.default_rng(5).integers(0, 4096, (frames, 20, 16), np.uint16)
    return scan(20, NumberOfFrames=frames, PixelData=draw.tobytes())


def coloured(number: int = 21, **attributes: Any) -> bytes:
    draw = np.random.default_rng(number).integers(0, 256, (20, 16, 3), np.uint8)
    in_colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8}
    in_colour |= {"BitsStored": 8, "HighBit": 7, "PlanarConfiguration": 0}
    return scan(number, PixelData=draw.tobytes(), **in_colour, **attributes)


def volume() -> bytes:
    array = np.random.default_rng(6).integers(-1000, 1000, (7, 6, 5), np.int16)
    return gzip.compress(nibabel.Nifti1Image(array, np.diag([-2, -3, 4, 1])).to_bytes())


def test_colour_and_frames_come_in_as_the_settings_say(
    run: Callable[..., Path], home: Workspace
) -> None:
    files = {"movie": movie(), "rgb": coloured(), "rgb.png": colour_picture(), "v": volume()}
    files["grey"] = scan(1)
    refused = run(files)
    assert reasons(home, refused) == {
        "movie": "multi_frame", "rgb": "colour", "rgb.png": "colour", "v": "multi_frame",
    }  # fmt: skip
    snapshot = run(files, settings={"colour": "keep", "frames": "keep"})
    proof = json.loads((snapshot / "deidentification.json").read_text())
    assert [proof[kind] for kind in ("dicom", "pictures", "volumes")] == [3, 1, 1]
    kept = read_manifest(snapshot)
    assert sorted(zip(kept["frames"], kept["samples"], kept["source_format"], strict=True)) == [
        (1, 1, "dicom"), (1, 3, "dicom"), (1, 3, "image"), (3, 1, "dicom"), (5, 1, "nifti"),
    ]  # fmt: skip
    of_volume = kept.set_index("source_format").loc["nifti"]
    assert (of_volume.rows, of_volume.columns, of_volume.path[-7:]) == (6, 7, ".nii.gz")
    assert (of_volume.pixel_spacing_mm, of_volume.column_spacing_mm) == (3, 2)
    assert of_volume.slice_spacing_mm == 4


def test_colour_is_made_grey_by_its_luma(run: Callable[..., Path]) -> None:
    snapshot = run({"rgb": coloured()}, settings={"colour": "grey"})
    (row,) = read_manifest(snapshot).to_dict("records")
    assert (row["samples"], row["photometric_interpretation"]) == (1, "MONOCHROME2")
    written = pydicom.dcmread(snapshot / row["path"]).pixel_array
    rgb = pydicom.dcmread(BytesIO(coloured())).pixel_array.astype(float)
    luma = 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]
    assert np.abs(written - luma).max() <= 0.5


def test_text_is_masked_where_the_device_writes_it_and_only_there(run: Callable[..., Path]) -> None:
    region = {"x": 2, "y": 1, "width": 9, "height": 3}
    rule = {"action": "mask", "devices": [{"modality": "US", "regions": [region]}]}
    policy = {"deidentification": {"text_in_pixels": rule}}
    snapshot = run({"us": scan(6, Modality="US")}, settings=policy)
    (path,) = read_manifest(snapshot)["path"]
    before = pydicom.dcmread(BytesIO(scan(6))).pixel_array
    after = pydicom.dcmread(snapshot / path).pixel_array
    inside = np.zeros(before.shape, bool)
    inside[1:4, 2:11] = True
    assert len(np.unique(after[inside])) == 1
    assert (after == before)[~inside].all()
    proof = json.loads((snapshot / "deidentification.json").read_text())
    assert proof["policy"]["text_in_pixels"]["action"] == "mask"


def test_drawn_pseudonyms_are_the_same_the_next_time_and_kept_for_the_owner(
    run: Callable[..., Path], home: Workspace
) -> None:
    drawn = {"deidentification": {"pseudonyms": "random"}}
    files = {"a": scan(1), "b": scan(2, PatientID="B-2"), "c.png": picture(1)}
    first, second = run(files, settings=drawn), run(files, settings=drawn)
    derived = run(files)
    assert tree_digest(first) == tree_digest(second)
    assert not set(read_manifest(first)["patient_id"]) & set(read_manifest(derived)["patient_id"])
    crosswalk = home.home / "secrets" / "crosswalk.sqlite"
    assert stat.S_IMODE(crosswalk.stat().st_mode) == 0o600
    # Another crosswalk knows none of the names that were kept for the next time.
    for path in crosswalk.parent.glob("crosswalk.sqlite*"):
        path.unlink()
    third = read_manifest(run(files, settings=drawn))["patient_id"]
    assert not set(read_manifest(first)["patient_id"]) & set(third)


def test_where_images_and_patients_stood_is_told_coarsely(run: Callable[..., Path]) -> None:
    files = {f"{i:02}": scan(i, PatientID=f"P{(7 * i) % 24}") for i in range(24)}
    manifest = read_manifest(run(files))
    place = {pixel_digest(pixels_of(data)): i for i, data in enumerate(files.values())}
    stood = manifest["pixel_sha256"].map(place)
    # In halves: in tenths, few would share one, and a list of patients would tell who they are.
    assert (manifest["source_order_decile"] == 2 * stood // 24).all()
    assert (manifest["patient_order_decile"] == 2 * ((7 * stood) % 24) // 24).all()


def test_split_and_time_of_the_label_come_with_it(run: Callable[..., Path], tmp_path: Path) -> None:
    config = CONFIG.model_copy(
        update={"deidentification": CONFIG.deidentification.model_copy(update={"dates": "full"})}
    )
    label = Label(1, source_split="test", known_since=date(2020, 2, 3))
    scans = tmp_path / "one"
    scans.mkdir()
    (scans / "a").write_bytes(scan(1))
    for how, told in ((config, date(2020, 2, 3)), (CONFIG, None)):
        out = _new(tmp_path)
        science.take_snapshot(how, scans, {"a": label}, out, b"k" * 32)
        (row,) = read_manifest(out).to_dict("records")
        assert row["source_split"] == "test"
        if told:
            assert row["label_known_since"] == told
        else:  # as far back as all of the patient's dates
            moved = date(2020, 2, 3) - row["label_known_since"]
            assert row["study_date"] + moved == date(2019, 3, 5)


@pytest.mark.parametrize("setting", ["site_column", "scanner_column", "split_column"])
@pytest.mark.parametrize(
    ("first", "second"),
    [("Quernstein, Adalbert", "ogleby"), ("MRN-0012345", "MRN-0012346"), ("77001122", "77001123")],
)
def test_a_column_that_names_the_patients_never_reaches_the_manifest(
    first: str, second: str, setting: str, tmp_path: Path
) -> None:
    def take(*values: str) -> None:
        scans, out = _new(tmp_path), _new(tmp_path)
        (scans / "a").write_bytes(scan(1))
        (scans / "b").write_bytes(scan(2, PatientID="MRN-0012346", PatientName="Ogleby^Quill"))
        (scans / "c").write_bytes(picture(1))
        (scans / "d").write_bytes(picture(2))
        field = {"site_column": "site", "scanner_column": "scanner"}.get(setting, "source_split")
        who = {"c": "77001122", "d": "77001123"}
        told = zip("abcd", values * 2, strict=True)
        labels = {f: Label(1, patient_id=who.get(f), **{field: v}) for f, v in told}
        science.take_snapshot(CONFIG, scans, labels, out, b"k" * 32)

    with pytest.raises(BadInput, match=rf"{setting}: 2 values") as caught:
        take(first, second)
    assert first not in str(caught.value)
    take("Quernstein", "North")  # one may live where the family gave the place its name


def test_masks_say_what_is_positive_and_lie_beside_the_images(
    home: Workspace, tmp_path: Path
) -> None:
    scans, masks, snapshot = tmp_path / "scans", tmp_path / "masks", tmp_path / "snapshot"
    for folder in (scans, masks, snapshot):
        folder.mkdir()
    for i, drawn in enumerate(([[3, 4]], [], [[0, 0]])):
        (scans / f"{i}.dcm").write_bytes(scan(i + 1))
        mask = np.zeros((20, 16) if i < 2 else (8, 8), np.uint8)
        for y, x in drawn:
            mask[y, x] = 1
        Image.fromarray(mask).save(masks / f"{i}.png")
    (scans / "3.dcm").write_bytes(scan(9))
    config = IngestionConfig.model_validate({"labels": {"key": "mask", "classes": ["no", "yes"]}})
    ingest(config, scans=scans, labels=masks, snapshot=snapshot)
    assert reasons(home, snapshot) == {"2.dcm": "mask_mismatch", "3.dcm": "unlabelled"}
    rows = read_manifest(snapshot).sort_values("label")
    assert rows["label"].tolist() == [0, 1]
    assert rows["mask_voxels"].tolist() == [0, 1]
    left = {p.relative_to(snapshot).as_posix() for p in snapshot.glob("masks/*/*")}
    assert left == set(rows["mask_path"])


def test_what_is_not_installed_is_missed_before_the_first_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = DeidentificationPolicy.model_validate({"text_in_pixels": {"ocr": True}})
    monkeypatch.setattr(ocr, "find_spec", lambda name: None)
    ocr._detector.cache_clear()
    assert ingest.check
    with pytest.raises(BadInput, match="ocr"):
        ingest.check(CONFIG.model_copy(update={"deidentification": policy}))
    ingest.check(CONFIG)


def test_nothing_usable_fails_and_says_why(run: Callable[..., Path]) -> None:
    with pytest.raises(StepFailed, match=r"none of the 1 files.*not_an_image$"):
        run({"Quernstein": b"x"})
    with pytest.raises(
        StepFailed, match=r"1 unlabelled; 3 labels name no image: see .*labels\.key"
    ):
        run({"x": scan(1)}, {"of another": "yes"})


def test_no_folder_of_scans(home: Workspace, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,finding\na,yes\nb,no\n")
    with pytest.raises(BadInput, match="no such directory"):
        ingest(CONFIG, scans=tmp_path / "Quernstein", labels=table, snapshot=tmp_path)


def test_a_pipe_among_the_scans_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    Ingested(tmp_path / "store").close()
    how = science.examination(CONFIG).as_json()
    folders = {"scans": str(tmp_path), "folder": str(tmp_path / "store")}
    look = examine.examiner(folders | {"key": "00", "how": how})
    assert look("pipe") == look("gone") == {"reason": "unreadable_file"}


def in_this_process(_: str, setup: Any, items: list[str], **__: Any) -> Iterator[Any]:
    """The workers' task without workers, to try it often, or with a rule broken."""
    results = map(examine.examiner(setup), items)
    return enumerate(json.loads(json.dumps(result)) for result in results)


def test_a_leak_stops_the_step_and_is_named_but_not_quoted(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examined, "each_isolated", in_this_process)
    clean = deidentify.deidentify

    def leaking(source: Dataset, *args: Any, **options: Any) -> Dataset:
        target = clean(source, *args, **options)
        target.StudyDate = source.StudyDate
        return target

    monkeypatch.setattr(deidentify, "deidentify", leaking)
    with pytest.raises(StepFailed, match=r"StudyDate \(strings\) in 2 files") as caught:
        run({"a": scan(1), "b": scan(2)})
    assert "20190305" not in str(caught.value)


FILE = st.tuples(st.sampled_from(sorted(KINDS)), st.sampled_from(["yes", "no", "else", None]))


@settings(max_examples=40, deadline=None)
@given(st.lists(FILE, max_size=8))
def test_counts_always_add_up(draws: list[tuple[str, str | None]]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(examined, "each_isolated", in_this_process)
        patch.setattr(science, "write_croissant", lambda *_, **__: None)  # most of the time
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
    return {file: Label(1, patient_id=file) for file in find_files(scans)}


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

    monkeypatch.setattr(examined, "each_isolated", in_this_process)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StepFailed, match=r"2 cleaned files .* \(No space left on device\)"):
        science.take_snapshot(CONFIG, scans, label_everything(scans), snapshot, b"k" * 32)
