from pathlib import Path

from manifest_rows import manifest_row

from imaging.manifest import schema, write_manifest
from imaging.snapshots.croissant import CROISSANT, write_croissant
from imaging.snapshots.integrity import write_root


def described(folder: Path) -> Path:
    folder.mkdir()
    write_manifest([manifest_row(i, sex="F") for i in range(3)], folder)
    write_root(folder)
    write_croissant(folder)
    return folder / CROISSANT


def test_mlcroissant_reads_the_rows_back(tmp_path: Path) -> None:
    import mlcroissant as mlc

    path = described(tmp_path / "s")
    rows = list(mlc.Dataset(jsonld=path).records("instances"))
    assert [row["instances/instance_uid"] for row in rows] == [b"2.25.0", b"2.25.1", b"2.25.2"]
    assert [row["instances/label"] for row in rows] == [0, 1, 0]
    assert {name.removeprefix("instances/") for name in rows[0]} == set(schema().names)


def test_the_description_holds_the_root_and_no_date(tmp_path: Path) -> None:
    text = described(tmp_path / "s").read_text()
    assert write_root(tmp_path / "s") in text
    assert text == described(tmp_path / "again").read_text()
