import json
import os
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from imaging.config import IngestionConfig
from imaging.labelling.labels import read_labels
from imaging.phantom import SCANNERS, write_cohort
from imaging.snapshots.snapshot import take_snapshot
from imaging.surveying import headers
from imaging.surveying.oddities import oddities
from imaging.surveying.survey import Survey, survey
from lineage.errors import BadInput


def cohort(folder: Path, patients: int = 40, **columns: Any) -> pd.DataFrame:
    """Two pictures a patient under images/, and the table as it should be, not yet written."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(2 * patients):
        picture = np.random.default_rng(i).integers(0, 255, (20, 30), np.uint8)
        Image.fromarray(picture).save(folder / "images" / f"{i}.png")
        finding = ("no", "yes")[i // 2 % 2]
        rows.append({"image": f"images/{i}.png", "patient_id": f"MRN-{i // 2}", "finding": finding})
    return pd.DataFrame(rows).assign(**columns)


def look(folder: Path, table: pd.DataFrame, **asked: Any) -> Survey:
    table.to_csv(folder / "labels.csv", index=False)
    return survey(folder, **asked)


def said(found: Survey) -> str:
    return "\n".join(oddities(found))


def test_pictures_with_a_table(tmp_path: Path) -> None:
    found = look(tmp_path, cohort(tmp_path, sex="F", hospital="A"))
    assert found.scans == str(tmp_path / "images")
    assert (found.images, found.with_row, found.usable, found.patients) == (80, 80, 80, 40)
    assert (found.class_images, found.class_patients) == ((40, 40), (20, 20))
    assert found.typical == (20, 30)
    settings = found.settings
    assert (settings.key, settings.key_column, settings.column) == ("file", "image", "finding")
    assert settings.classes == ("no", "yes")
    assert (settings.patient_column, settings.site_column) == ("patient_id", "hospital")


@pytest.mark.parametrize("below", [True, False])
def test_dicom_is_joined_by_uid_wherever_the_table_lies(tmp_path: Path, below: bool) -> None:
    table = write_cohort(tmp_path / "scans", seed=3, patients=40, scanners=SCANNERS[:2])
    found = survey(tmp_path if below else tmp_path / "scans")
    assert (found.scans, found.labels) == (str(tmp_path / "scans"), str(table))
    assert found.settings.key == "SOPInstanceUID"
    assert found.settings.classes == ("absent", "present")
    assert found.class_patients == (20, 20)
    assert found.set_aside == {}
    assert not found.shortcuts  # the phantom has none, by construction


def test_a_table_of_patients_is_joined_by_patient(tmp_path: Path) -> None:
    path = write_cohort(tmp_path / "scans", seed=3, patients=40, scanners=SCANNERS[:2])
    table = pd.read_csv(path).drop_duplicates("PatientID")[["PatientID", "finding"]]
    table.to_csv(path, index=False)
    found = survey(tmp_path)
    assert (found.settings.key, found.settings.key_column) == ("PatientID", "PatientID")
    assert found.with_row == found.images > 40
    assert "never repeats" not in said(found)


def test_what_the_run_would_set_aside_is_counted_and_explained(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    images = tmp_path / "images"
    (images / "notes.txt").write_text("no image")
    (images / "2.png").write_bytes((images / "0.png").read_bytes())  # of another class
    (images / "4.png").write_bytes((images / "5.png").read_bytes())
    (images / "20.png").write_bytes((images / "24.png").read_bytes())  # of another patient
    Image.new("RGB", (30, 20), (9, 0, 0)).save(images / "6.png")
    table.loc[8, "finding"] = "unknown"
    table.loc[9, "finding"] = ""
    table.loc[10, "image"] = "elsewhere.png"
    table = pd.concat([table, table.iloc[[12]].assign(finding="yes")])
    found = look(tmp_path, table)
    assert found.set_aside == {
        "label_conflict": 3, "unlabelled": 2, "other_class": 1, "duplicate_file": 1, "colour": 1,
        "not_an_image": 1, "pixels_of_several_patients": 2,
    }  # fmt: skip
    assert found.usable == 80 - 10
    label_of = read_labels(tmp_path / "labels.csv", found.settings)
    config = IngestionConfig(labels=found.settings)
    (tmp_path / "snapshot").mkdir()
    outcome = take_snapshot(config, images, label_of, tmp_path / "snapshot", b"a key")
    assert outcome.counts["reasons"] == found.set_aside
    for sentence in (
        "2 files will be set aside as unlabelled: the labels table says nothing",
        "1 file will be set aside as other_class",
        "1 of 81 rows name no image",
        "column 'finding' says nothing in 2 of 81 rows",
    ):
        assert sentence in said(found)


def test_oddities_of_the_table(tmp_path: Path) -> None:
    table = cohort(tmp_path, nothing="", same="x")
    table["fold"] = ["1", "2"] * 40
    table["read_on"] = ["2024-05-31", "2024-06-01T10:00:00Z"] * 40
    table["PatientName"] = [f"Quernstein^{i}" for i in range(80)]
    table["device"] = table["finding"].map({"no": "Clarus", "yes": "Mobile"})
    table.loc[0, "finding"] = "yes"  # the patient's other image says no
    (tmp_path / "more.csv").write_text("a,b\n1,2\n")
    found = look(tmp_path, table)
    for sentence in (
        "column 'device' alone tells the classes apart for 99% of the images",
        "1 patient has images of both classes",
        "class 'no' has 20 patients only",
        "column 'fold' parts the images already",
        "column 'read_on' holds days and is not used",
        "column 'PatientName' may hold identities",
        "column 'nothing' is empty",
        "column 'same' says the same in every row",
        "1 more table was found",
    ):
        assert sentence in said(found)


def test_nothing_that_is_told_holds_an_identity_or_a_file_s_name(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    table["who"] = [f"Quernstein^{i}" for i in range(80)]
    found = look(tmp_path, table)
    told = said(found) + json.dumps(asdict(found), default=str)
    for secret in ("Quernstein", "MRN", "7.png"):
        assert secret not in told


def test_of_many_files_a_sample_is_looked_at_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = cohort(tmp_path)
    monkeypatch.setattr(headers, "MOST_FILES", 50)
    found = look(tmp_path, table)
    assert found.files == 80
    assert found.looked_at == found.with_row == found.usable
    assert 49 <= found.looked_at <= 50  # the table itself may have been drawn
    assert found.rows_without_image is None
    assert f"{found.looked_at} of 80 files were looked at" in said(found)


def test_the_label_is_named_like_one_else_it_has_two_classes_and_is_no_other_thing(
    tmp_path: Path,
) -> None:
    table = cohort(tmp_path)
    table["sex"] = ["F", "M"] * 40
    table["view"] = ["PA", "AP"] * 40
    found = look(tmp_path, table)
    assert found.settings.column == "finding"
    assert found.other_labels == ("view", "sex")
    found = look(tmp_path, table.drop(columns="finding"))
    assert (found.settings.column, found.settings.classes) == ("view", ("AP", "PA"))
    assert "alphabet" in found.order
    assert look(tmp_path, table, column="sex").settings.classes == ("F", "M")


@pytest.mark.parametrize(
    ("change", "asked", "says"),
    [
        ({"finding": None}, {}, "no column of the labels table has two classes"),
        ({"finding": ["a", "b", "c", "d"] * 20}, {}, "column 'finding' has 4 classes"),
        ({}, {"column": "findings"}, "--column: .*no column 'findings'; did you mean 'finding'"),
        ({}, {"column": "image"}, "--column: column 'image' has 80 classes"),
        ({"patient_id": None}, {}, "says whose image it is"),
        ({"image": "x.png"}, {}, "no column of the labels table names the images"),
        ({"image": [str(i) for i in range(80)]}, {}, "'image' names them without their suffix"),
    ],
)
def test_what_is_missing_is_said_with_the_way_out(
    tmp_path: Path, change: dict[str, Any], asked: dict[str, Any], says: str
) -> None:
    table = cohort(tmp_path).assign(**change).dropna(axis=1)
    with pytest.raises(BadInput, match=says):
        look(tmp_path, table, **asked)


def test_a_label_passed_over_for_its_spelling_or_a_third_class_is_said(tmp_path: Path) -> None:
    table = cohort(tmp_path, view=["PA", "AP", "pa", "AP"] * 20)
    table["diagnosis"] = ["a", "b", "c", "c"] * 20
    table["sex"] = table.pop("finding").map({"no": "F", "yes": "M"})
    found = look(tmp_path, table)
    assert found.settings.column == "sex"
    assert list(found.passed_over) == ["view", "diagnosis"]
    for sentence in (
        "column 'view' has 3 classes and is passed over as a label: 'PA' and 'pa' differ only by "
        "case or spaces; write them alike",
        "column 'diagnosis' has 3 classes and is passed over as a label: add a column",
    ):
        assert sentence in said(found)
    with pytest.raises(BadInput, match=r"--column: .* 3 classes \('AP', 'PA', 'pa'\), .* alike"):
        look(tmp_path, table, column="view")


def test_values_of_a_column_that_may_be_names_are_not_told(tmp_path: Path) -> None:
    table = cohort(tmp_path, who=[f"Quernstein{i % 9}" for i in range(80)])
    with pytest.raises(BadInput, match="'who' has 9 classes, and two are needed") as caught:
        look(tmp_path, table, column="who")
    assert "Quernstein" not in str(caught.value)


def test_names_without_a_suffix_are_found_by_init_and_by_the_run(tmp_path: Path) -> None:
    table = cohort(tmp_path).sample(frac=1, random_state=0)
    table["image"] = table["image"].map(lambda name: Path(name).stem)
    table["age"] = [str(20 + i // 3) for i in range(80)]  # names images by chance
    found = look(tmp_path, table)
    assert (found.settings.key, found.settings.key_column) == ("file", "image")
    assert (found.usable, found.rows_without_image) == (80, 0)
    assert "column 'image' names files without their suffix" in said(found)
    label_of = read_labels(tmp_path / "labels.csv", found.settings)
    (tmp_path / "s").mkdir()
    outcome = take_snapshot(
        IngestionConfig(labels=found.settings), tmp_path / "images", label_of, tmp_path / "s", b"k"
    )
    assert (outcome.counts["read"], outcome.counts["labels_without_image"]) == (80, 0)


def test_numbers_are_not_taken_for_names_where_they_may_be_something_else(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    table.insert(0, "number", [str(i) for i in reversed(range(80))])
    assert look(tmp_path, table).settings.key_column == "image"  # with suffix: no doubt
    table["image"] = [str((i * 7) % 80) for i in range(80)]
    with pytest.raises(BadInput, match=r"several columns .* without their suffix: add it"):
        look(tmp_path, table)
    # Ages, other numbers and row numbers name images, but by chance.
    for values in (
        [str(i * 3 // 4) for i in range(80)],
        [str(i + 50) for i in range(80)],
        [str(i) for i in range(80)],
    ):
        with pytest.raises(BadInput, match="no column of the labels table names the images"):
            look(tmp_path, table.drop(columns="number").assign(image=values))


def test_a_table_without_a_header_is_refused_even_where_names_have_no_suffix(
    tmp_path: Path,
) -> None:
    table = cohort(tmp_path).sample(frac=1, random_state=0)
    table["image"] = table["image"].map(lambda name: Path(name).stem)
    table = pd.concat([table, table.iloc[[0]]])
    table.to_csv(tmp_path / "labels.csv", index=False, header=False)
    with pytest.raises(BadInput, match="first line looks like a row"):
        survey(tmp_path)


def test_what_is_no_regular_file_is_no_table(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    os.mkfifo(tmp_path / "a.csv")
    (tmp_path / "b.csv").symlink_to("/dev/null")
    (tmp_path / "c.csv").symlink_to("nowhere")
    found = look(tmp_path, table)
    assert found.labels == str(tmp_path / "labels.csv")
    assert found.other_tables == 0


def test_a_file_s_name_may_be_no_utf_8(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    (tmp_path / "images" / "7.png").rename(tmp_path / "images" / os.fsdecode(b"M\xfcller.png"))
    found = look(tmp_path, table)
    assert (found.images, found.with_row, found.set_aside) == (80, 79, {"unlabelled": 1})


def test_another_table_may_be_named(tmp_path: Path) -> None:
    table = cohort(tmp_path / "data")
    (tmp_path / "data" / "labels.csv").write_text("image,patient_id,label\n")
    other = tmp_path / "tables" / "right.tsv"
    other.parent.mkdir()
    table.to_csv(other, sep="\t", index=False)
    assert survey(tmp_path / "data", other).labels == str(other)
    with pytest.raises(BadInput, match=r"nowhere.csv: there is no such labels table"):
        survey(tmp_path / "data", tmp_path / "nowhere.csv")


def test_a_table_without_a_header_is_refused_before_a_row_is_told(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    table.to_csv(tmp_path / "labels.csv", index=False, header=False)
    with pytest.raises(BadInput, match="first line looks like a row") as caught:
        survey(tmp_path)
    assert "MRN" not in str(caught.value)


def test_no_folder_no_images_no_table(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        survey(tmp_path / "nowhere")
    inside = tmp_path / "inside"
    cohort(inside)
    with pytest.raises(BadInput, match="no labels table in it or beside it"):
        survey(inside)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "labels.csv").write_text("image,label\n")
    with pytest.raises(BadInput, match="none of the 1 files looked at is a DICOM"):
        survey(bare)


def test_a_table_of_semicolons_and_latin_letters(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    table["befund"] = table.pop("finding").map({"no": "männlich", "yes": "weiblich"})
    table.to_csv(tmp_path / "labels.csv", sep=";", index=False, encoding="cp1252")
    assert survey(tmp_path).settings.classes == ("männlich", "weiblich")


def test_real_radiographs(real_data: Path) -> None:
    found = survey(real_data / "chest")
    assert (found.images, found.usable, found.patients) == (726, 726, 479)
    assert (found.settings.column, found.other_labels) == ("view", ("sex",))
    assert found.class_patients == (241, 270)
    assert "column 'split' is empty" in said(found)


def test_odd_dicom_is_counted_not_stumbled_over(real_data: Path) -> None:
    found = survey(real_data / "dicom-odd", column="broken")
    assert found.images + found.kinds["other"] == found.files
    assert found.usable + sum(found.set_aside.values()) == found.files
    assert found.set_aside["conflicting_instance_uid"] == 17
    assert "several modalities" in said(found)


def test_two_formats_two_sizes_and_inverted_dicom_are_told(tmp_path: Path) -> None:
    table = cohort(tmp_path)
    buffer = BytesIO()
    Image.new("L", (90, 60), 3).save(buffer, format="JPEG")
    (tmp_path / "images" / "0.png").write_bytes(buffer.getvalue())
    assert "several formats: 79 PNG, 1 JPEG" in said(look(tmp_path, table))
    assert "2 sizes, from 20 x 30 to 60 x 90 pixels" in said(look(tmp_path, table))
    write_cohort(tmp_path / "d" / "scans", seed=3, patients=40, scanners=SCANNERS)
    assert "MONOCHROME1" in said(survey(tmp_path / "d"))
