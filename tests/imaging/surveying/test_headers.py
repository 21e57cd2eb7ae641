import gzip
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from imaging.surveying import headers
from imaging.surveying.headers import Seen, look


def png(mode: str = "L", value: Any = 7) -> bytes:
    buffer = BytesIO()
    Image.new(mode, (30, 20), value).save(buffer, format="PNG")
    return buffer.getvalue()


def see(folder: Path, **files: bytes) -> dict[str, Seen]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return {s.file: s for s in look(folder, list(files))}


def test_kinds_are_told_by_content(tmp_path: Path, dicom_bytes: Callable[..., bytes]) -> None:
    seen = see(tmp_path, scan=dicom_bytes(), picture=png(), text=b"png", short=b"\x08\0\0\0")
    assert {name: s.kind for name, s in seen.items()} == {
        "scan": "DICOM", "picture": "PNG", "text": "other", "short": "other",
    }  # fmt: skip
    assert seen["picture"].size == (20, 30)
    assert (seen["scan"].size, seen["scan"].modality) == ((8, 6), "DX")
    assert seen["scan"].keys["PatientID"] == "MRN-0012345"
    assert seen["scan"].reason is seen["picture"].reason is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientID": None}, "no_patient_id"),
        ({"PixelData": None}, "no_pixel_data"),
        ({"NumberOfFrames": "3"}, "multi_frame"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"SamplesPerPixel": 3}, "unreadable_header"),
        ({"BitsAllocated": 24}, "unreadable_header"),
        ({"Rows": None}, "incomplete_header"),
        ({"BurnedInAnnotation": "YES"}, "burned_in_annotation"),
        ({"RecognizableVisualFeatures": "YES"}, "burned_in_annotation"),
    ],
)
def test_what_a_header_rules_out_is_said_before_ingestion(
    tmp_path: Path, dicom_bytes: Callable[..., bytes], changes: dict[str, Any], reason: str
) -> None:
    assert see(tmp_path, scan=dicom_bytes(**changes))["scan"].reason == reason


def test_a_program_in_the_preamble_is_said_before_ingestion(
    tmp_path: Path, dicom_bytes: Callable[..., bytes]
) -> None:
    data = b"MZ" + dicom_bytes()[2:]
    assert see(tmp_path, scan=data)["scan"].reason == "executable_preamble"


def test_volumes_are_told_by_their_headers(tmp_path: Path) -> None:
    def nifti(*shape: int) -> bytes:
        return bytes(nibabel.Nifti1Image(np.zeros(shape), np.eye(4)).to_bytes())

    bad = bytearray(nifti(4, 4))
    bad[40] = 0  # dimensions
    seen = see(
        tmp_path,
        volume=gzip.compress(nifti(30, 20, 5)),
        slice=nifti(30, 20),
        time=nifti(4, 4, 4, 2),
        bad=bytes(bad),
    )
    assert {name: (s.kind, s.reason, s.size) for name, s in seen.items()} == {
        "volume": ("NIfTI", "multi_frame", (20, 30)),
        "slice": ("NIfTI", None, (20, 30)),
        "time": ("NIfTI", "four_dimensional", (0, 0)),
        "bad": ("NIfTI", "unreadable_header", (0, 0)),
    }


def test_a_picture_in_colour_is_looked_at_as_far_as_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"grey": png("RGB", (9, 9, 9)), "red": png("RGB", (9, 0, 0))}
    seen = see(tmp_path, **files)
    assert (seen["grey"].reason, seen["red"].reason) == (None, "colour")
    monkeypatch.setattr(headers, "MOST_DECODED", 10)
    seen = see(tmp_path, **files)
    assert [(s.reason, s.unsure) for s in seen.values()] == [(None, True)] * 2


def test_of_many_or_large_files_a_sample_is_looked_at_always_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{i}": png(value=int(v)) for i, v in enumerate(np.arange(40))}
    monkeypatch.setattr(headers, "MOST_FILES", 10)
    first, second = see(tmp_path, **files), see(tmp_path, **files)
    assert len(first) == 10
    assert list(first) == list(second) != list(files)[:10]
    monkeypatch.setattr(headers, "MOST_BYTES", 3 * len(files["0"]))
    assert 2 <= len(see(tmp_path, **files)) <= 5
