"""Every file of two collections of odd DICOM is read, or set aside with the reason that is true.

`odd_files.csv` says what is expected of each: the shape and type of its stored values, or a reason.
"""

import csv
import warnings
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from imaging.reading import dicom
from imaging.reasons import SetAside

TABLE = Path(__file__).with_name("odd_files.csv")
NO_SCANS = {".py", ".pyc", ".json", ".csv"}


def outcome(data: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = dicom.parse(data)
            stored = dicom.stored_pixels(dataset)
        except SetAside as caught:
            return caught.reason
        for scale in (dicom.as_seen, dicom.displayed):
            shown = scale(dataset, stored)
            assert shown.shape == stored.shape
            assert shown.min() >= 0
            assert shown.max() <= 1
        return f"{'x'.join(map(str, stored.shape))} {stored.dtype}"


def files(root: Path) -> Iterator[Path]:
    return (p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix not in NO_SCANS)


@pytest.mark.parametrize("corpus", ["pydicom", "dicom-odd"])
def test_each_is_read_or_set_aside_as_expected(
    corpus: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if corpus == "pydicom":
        root = Path(pydicom.__file__).parent / "data"
    else:
        root = request.getfixturevalue("real_data") / "dicom-odd"
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
    with TABLE.open(newline="") as table:
        expected = {r["file"]: r["outcome"] for r in csv.DictReader(table) if r["corpus"] == corpus}
    found = {str(p.relative_to(root)): outcome(p.read_bytes()) for p in files(root)}
    assert found == expected
