"""Which decoder gets to see which file, and what no decoder gets to see."""

import struct
from collections.abc import Callable

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import JPEG2000Lossless

from imaging.reading import codestreams, decoding, dicom
from imaging.reasons import SetAside


def parsed(name: str) -> Dataset:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    with open(path, "rb") as file:  # noqa: PTH123
        return dicom.parse(file.read())


def test_what_gdcm_alone_reads_is_unsupported_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the server; 12 bits would otherwise go to Pillow, which does not read them."""
    twelve, lossless = parsed("JPGExtended.dcm"), parsed("SC_rgb_jpeg_gdcm.dcm")
    assert dicom.stored_pixels(twelve).max() > 255
    assert dicom.stored_pixels(lossless).shape == (100, 100, 3)
    decoder = get_decoder(decoding.JPEG_LOSSLESS)
    monkeypatch.setattr(
        decoder, "_available", {k: v for k, v in decoder._available.items() if k != "gdcm"}
    )
    for dataset in (twelve, lossless):
        with pytest.raises(SetAside) as caught:
            dicom.stored_pixels(dataset)
        assert caught.value.reason == "unsupported_transfer_syntax"


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_dcmtk.dcm", "MR_small_jp2klossless.dcm"])
def test_gdcm_does_not_get_what_others_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import gdcm

    monkeypatch.setattr(gdcm, "Image", lambda: pytest.fail("asked GDCM"))
    assert dicom.stored_pixels(parsed(name)).size


def test_frames_beyond_those_declared_are_left_out(dicom_dataset: Callable[..., Dataset]) -> None:
    dataset = dicom_dataset(np.arange(3 * 48, dtype=np.uint16).reshape(3, 8, 6))
    assert dicom.stored_pixels(dataset).shape == (8, 6)
    dataset.NumberOfFrames = 2
    assert (dicom.stored_pixels(dataset) == np.arange(96).reshape(2, 8, 6)).all()
    dataset.NumberOfFrames = 4
    with pytest.raises(SetAside) as caught:
        dicom.stored_pixels(dataset)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"BitsAllocated": 24}, "unreadable_header"),
        ({"BitsStored": 17}, "unreadable_header"),
        (
            {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelRepresentation": 1},
            "unreadable_header",
        ),
        ({"SamplesPerPixel": 3}, "unreadable_header"),
        ({"NumberOfFrames": -1}, "unreadable_header"),
        ({"Rows": 0}, "unreadable_header"),
        ({"PhotometricInterpretation": ""}, "incomplete_header"),
        ({"PhotometricInterpretation": "YBR_PARTIAL_420"}, "undecodable_pixels"),
        ({"Rows": 2**15, "Columns": 2**12}, "too_large"),
    ],
)
def test_declarations_out_of_bounds(
    dicom_dataset: Callable[..., Dataset], attributes: dict[str, object], expected: str
) -> None:
    with pytest.raises(SetAside) as caught:
        dicom.stored_pixels(dicom_dataset(**attributes))
    assert caught.value.reason == expected


@pytest.mark.parametrize(("signed", "value"), [(0, 0x1000), (1, 0x800), (1, -0x801)])
def test_a_codestream_of_values_that_the_header_has_no_room_for(
    dicom_dataset: Callable[..., Dataset], signed: int, value: int
) -> None:
    array = np.full((64, 64), 5, np.int16 if signed else np.uint16)
    array[3, 3] = value
    described = {"PixelRepresentation": signed, "BitsStored": 16, "HighBit": 15}
    dataset = dicom_dataset(array, **described)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    assert dicom.stored_pixels(dataset)[3, 3] == value
    dataset.BitsStored, dataset.HighBit = 12, 11
    with pytest.raises(SetAside) as caught:
        dicom.stored_pixels(dataset)
    assert caught.value.reason == "undecodable_pixels"


def test_values_come_in_this_machines_byte_order() -> None:
    stored = dicom.stored_pixels(parsed("MR_small_bigendian.dcm"))
    assert stored.dtype == np.int16
    assert (stored == dicom.stored_pixels(parsed("MR_small.dcm"))).all()


def test_frame_headers_are_read_off() -> None:
    from pydicom.encaps import get_frame

    jpeg = pydicom.dcmread(get_testdata_file("JPGExtended.dcm"))
    frame = get_frame(jpeg.PixelData, 0, number_of_frames=1)
    assert list(codestreams.headers(frame)) == [codestreams.Header(1024, 256, 1, 12)]
    wavelets = pydicom.dcmread(get_testdata_file("MR_small_jp2klossless.dcm"))
    frame = get_frame(wavelets.PixelData, 0, number_of_frames=1)
    assert list(codestreams.headers(frame)) == [codestreams.Header(64, 64, 1, 16)]
    for broken in (b"\xff\xd8\x00", b"\xff\xd8\xff\x00\x00\x04\x00\x00", b"\xff\xd8\xff"):
        with pytest.raises((IndexError, ValueError, struct.error)):
            list(codestreams.headers(broken))
