from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from imaging.config import Labels
from imaging.labelling.labels import Label, match_files, read_labels, read_table
from lineage.errors import BadInput

TABLE = "image,view,who,sex,years\na.png,PA,P1,F,61\nb.png, AP ,P2,,n/a\nc.png,LL,P3,M,3\n"


def config(**changes: Any) -> Labels:
    fields = {"key": "file", "key_column": "image", "column": "view", "classes": ("PA", "AP")}
    return Labels.model_validate(fields | {"patient_column": "who", "sex_column": "sex"} | changes)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(TABLE)
    return path


def test_a_label_per_key_and_none_for_other_classes(table: Path) -> None:
    labels = read_labels(table, config(age_column="years"))
    assert labels == {
        "a.png": Label(0, patient_id="P1", sex="F", age_years=61.0),
        "b.png": Label(1, patient_id="P2"),
        "c.png": Label(None, patient_id="P3", sex="M", age_years=3.0),
    }


def test_parquet_and_a_directory_with_one_table_say_the_same(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    pd.read_csv(table).to_parquet(folder / "labels.parquet")
    expected = read_labels(table, config())
    assert read_labels(folder / "labels.parquet", config()) == expected
    assert read_labels(folder, config()) == expected


def test_twice_the_same_is_no_conflict_but_two_labels_or_patients_are(table: Path) -> None:
    table.write_text(TABLE + "a.png,PA,P1,F,61\nb.png,PA,P2,,\nc.png,LL,P4,M,3\n")
    labels = read_labels(table, config())
    assert [labels[k].conflict for k in ("a.png", "b.png", "c.png")] == [False, True, True]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"column": "veiw"}, r"labels.column: .*'veiw'; did you mean 'view'"),
        ({"key_column": "Image"}, r"labels.key_column: .*did you mean 'image'"),
        ({"sex_column": "zzz"}, r"labels.sex_column: .*it has \['image'"),
        ({"classes": ("PA", "ap")}, r"labels.classes: column 'view' never says 'ap'.*'AP'"),
    ],
)
def test_a_wrong_name_gets_the_nearest_right_one(table: Path, change: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        read_labels(table, config(**change))


def test_a_column_of_many_values_is_never_quoted(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    rows = [f"{i}.png,PA,Quernstein{i},F" for i in range(30)]
    path.write_text("\n".join(["image,view,who,sex", *rows]))
    with pytest.raises(BadInput) as caught:
        read_labels(path, config(column="who", classes=("Quernstein", "AP")))
    assert "Quernstein1" not in str(caught.value)


def test_no_table_or_no_table_at_all(tmp_path: Path) -> None:
    secret = tmp_path / "Quernstein"
    with pytest.raises(BadInput, match="no such file") as caught:
        read_labels(secret / "labels.csv", config())
    secret.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(BadInput, match="neither CSV nor Parquet") as broken:
        read_labels(secret, config())
    assert "Quernstein" not in str(caught.value) + str(broken.value)


def test_files_match_by_their_ending_when_only_one_can_be_meant() -> None:
    keys = ["images/x.png", "y.png", "a/z.png", "b/z.png", "deep/er/w.png"]
    files = ["x.png", "scans/y.png", "z.png", "er/w.png", "other.png"]
    assert match_files(files, keys) == {
        "x.png": "images/x.png",
        "scans/y.png": "y.png",
        "er/w.png": "deep/er/w.png",
    }
    assert match_files(["1/y.png", "2/y.png"], ["y.png"]) == {}
    assert match_files(["y.png", "2/y.png"], ["y.png"]) == {"y.png": "y.png"}
    assert match_files(["my.png"], ["y.png"]) == {}


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("Quernstein^Adalbert,MRN-0012345\nOtto^Eva,MRN-0012346\n", {}),  # no header
        (TABLE, {"column": "who", "classes": ("PA", "AP")}),  # a wrong column
    ],
)
def test_no_message_quotes_what_may_be_a_patient(
    tmp_path: Path, text: str, changes: dict[str, Any]
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_labels(path, config(**changes))
    for identity in ("Quernstein", "MRN", "Eva", "P1", "P2"):
        assert identity not in str(caught.value)


def test_a_name_without_its_suffix_means_the_only_file_of_that_name() -> None:
    files = [
        "a/x.png",
        "y.png",
        "z.png",
        "z.json",
        "1.2.3.4",
        "v.png",
        "2/w.png",
        "3/w.jpg",
        "u.png",
    ]
    keys = ["x", "y", "y.png", "z", "1.2.3", "a/v", "w", "2/w", "u", "a/u"]
    assert match_files(files, keys) == {"a/x.png": "x", "y.png": "y.png", "v.png": "a/v"}
    # A key that is unclear with its suffix stays so, whatever a shorter one says.
    assert match_files(["b/a/x.png"], ["x.png", "a/x.png", "x"]) == {}
    assert match_files(["1/y.png", "2/y.png", "y.png.gz"], ["y.png"]) == {}
    assert match_files(["b/a/x.png", "c/x.png"], ["x.png", "a/x.png"]) == {}


def test_a_table_of_very_many_columns_is_read(table: Path) -> None:
    many = [f"feature{i}" for i in range(20_000)]
    table.write_text("\n".join(",".join(["a.png", *many]) for _ in range(2)))
    assert len(read_table(table)) == 20_001


def test_a_comma_too_many_moves_no_value(table: Path) -> None:
    table.write_text("old,image,view,who,sex\nPA,a.png,AP,P1,F,\nPA,b.png,PA,P2,F,\n")
    labels = read_labels(table, config())
    assert {key: label.label for key, label in labels.items()} == {"a.png": 1, "b.png": 0}


def test_two_columns_of_one_name_are_not_chosen_from(table: Path) -> None:
    table.write_text("image,view,view,who,sex\na.png,PA,AP,P1,F\nb.png,AP,PA,P2,F\n")
    with pytest.raises(BadInput, match="two columns 'view'"):
        read_labels(table, config())


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_table_reads_alike_however_a_spreadsheet_saved_it(
    tmp_path: Path, separator: str, encoding: str
) -> None:
    path = tmp_path / "labels.csv"
    text = TABLE.replace("LL", "Größe ñ").replace(",", separator).replace("\n", "\r\n")
    path.write_bytes(text.encode(encoding))
    assert read_labels(path, config(classes=("PA", "Größe ñ"))) == {
        "a.png": Label(0, patient_id="P1", sex="F"),
        "b.png": Label(None, patient_id="P2"),
        "c.png": Label(1, patient_id="P3", sex="M"),
    }


def test_the_separator_is_what_parts_the_header_and_a_comma_may_stand_in_a_value(
    table: Path,
) -> None:
    table.write_text('image;view;who;sex;"age, years"\na,b.png;PA;P1;F;61,5\nc.png;AP;P2;M;7\n')
    labels = read_labels(table, config(age_column="age, years"))
    assert labels["a,b.png"] == Label(0, patient_id="P1", sex="F", age_years=61.5)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the file is empty; a row with"),
        (b"PK\3\4 a workbook", "Excel workbook"),
        (b"image\0\1\2", "save it as CSV in UTF-8"),
        (b"image^view\na.png^PA\n", "it has one column only: separate columns by comma"),
    ],
)
def test_what_cannot_be_read_says_how_to_save_it(table: Path, data: bytes, says: str) -> None:
    table.write_bytes(data)
    with pytest.raises(BadInput, match=says):
        read_labels(table, config())


def test_an_empty_label_says_nothing_another_class_says_neither(table: Path) -> None:
    table.write_text(TABLE + "d.png, ,P4,F,1\na.png,,P1,F,61\n")
    labels = read_labels(table, config())
    assert "d.png" not in labels
    assert labels["c.png"].label is None
    assert labels["a.png"] == Label(0, patient_id="P1", sex="F")


def test_a_split_and_a_day_go_on_as_the_table_has_them(table: Path) -> None:
    days = ("2024-05-31", " 2024-05-31T23:30:00-05:00", "")
    rows = ("a.png,PA,train", "b.png,AP,test", "c.png,AP,")
    table.write_text(
        "\n".join(["image,view,part,since", *map(",".join, zip(rows, days, strict=True))])
    )
    labels = read_labels(
        table,
        Labels(
            key="file",
            key_column="image",
            column="view",
            classes=("PA", "AP"),
            split_column="part",
            known_since_column="since",
        ),
    )
    assert {key: (label.source_split, label.known_since) for key, label in labels.items()} == {
        "a.png": ("train", date(2024, 5, 31)),
        "b.png": ("test", date(2024, 5, 31)),  # where it was written, it was still the 31st
        "c.png": (None, None),
    }


def test_a_day_in_another_form_is_told_by_its_row(table: Path) -> None:
    table.write_text("image,view,since\na.png,PA,2024-05-31\nb.png,AP,31.5.2024\nc.png,AP,5/24\n")
    settings = Labels(
        key="file",
        key_column="image",
        column="view",
        classes=("PA", "AP"),
        known_since_column="since",
    )
    with pytest.raises(BadInput, match=r"2 of 3 rows of 'since' .* the first is row 2$") as caught:
        read_labels(table, settings)
    assert "31.5" not in str(caught.value)


def test_a_row_for_a_patient_is_one_label_for_all_that_patient_s_images(table: Path) -> None:
    table.write_text("mrn,finding\n17,yes\n18,no\n17,yes\n18,yes\n")
    settings = Labels(key="PatientID", key_column="mrn", column="finding", classes=("no", "yes"))
    labels = read_labels(table, settings)
    assert labels["17"] == Label(1)
    assert labels["18"].conflict


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"column": None}, "column is missing"),
        ({"key_column": None}, "key_column is missing"),
        ({"key": "mask"}, "masks say what is positive"),
        ({"key": "mask", "column": None, "key_column": None}, "key_column is missing"),
        ({"segments": [1]}, "segments: only masks have them"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], says: str) -> None:
    whole = config().model_dump() | changes
    with pytest.raises(ValidationError, match=says):
        Labels.model_validate({k: v for k, v in whole.items() if v not in (None, (), "")})


def test_beside_masks_a_table_has_no_label(table: Path) -> None:
    settings = Labels(key="mask", key_column="image", classes=("no", "yes"), patient_column="who")
    assert read_labels(table, settings)["a.png"] == Label(None, patient_id="P1")
