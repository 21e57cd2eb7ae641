"""Which images may show text, what is masked of them, and that nothing else changes."""

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import yaml
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from imaging.deidentification import burned_in, deidentify, encoding, ocr, spellings
from imaging.deidentification.policy import Device, Region, TextInPixels
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.reading import dicom
from imaging.reasons import SetAside

Made = Callable[..., Dataset]
EXAMPLE = Path(__file__).parents[3] / "configs" / "deidentification" / "devices.yaml"
CORNER = Region(x=1, y=2, width=3, height=4)
FOUND = Region(x=0, y=0, width=2, height=1)
WRITES = Device(manufacturer="aldebaran", regions=(CORNER,))
CLEAN = Device(manufacturer="aldebaran")
OTHER = Device(manufacturer="borealis")
HELD = None

DECLARED = {"BurnedInAnnotation": "YES"}
DENIED = {"BurnedInAnnotation": "NO", "Modality": "US"}
SILENT = {"Modality": "US"}
PLAIN = {"Modality": "DX"}
TRUSTED, ON, OFF = {"ocr": True, "trust_ocr": True}, {"ocr": True}, {}


def decided(source: Dataset | None, policy: TextInPixels) -> tuple[Region, ...] | None:
    stored = np.zeros((8, 6), np.uint16) if source is None else dicom.stored_pixels(source)
    try:
        return burned_in.text_regions(source, stored, policy)
    except SetAside as held:
        assert held.reason == "burned_in_annotation"
        return HELD


@pytest.mark.parametrize(
    ("header", "devices", "looks", "finds", "comes"),
    [
        ({"RecognizableVisualFeatures": "YES"}, (CLEAN,), TRUSTED, (), HELD),
        ({"RecognizableVisualFeatures": "NO"}, (CLEAN,), TRUSTED, (), ()),
        (DECLARED, (OTHER,), OFF, (), HELD),
        (SILENT, (), OFF, (), HELD),
        (DECLARED, (), ON, (FOUND,), HELD),
        (SILENT, (), ON, (), HELD),
        (DECLARED, (), TRUSTED, (), HELD),
        (DECLARED, (), TRUSTED, (FOUND,), (FOUND,)),
        (SILENT, (), TRUSTED, (), ()),
        (SILENT, (), TRUSTED, (FOUND,), (FOUND,)),
        (DECLARED, (WRITES,), OFF, (), (CORNER,)),
        (DECLARED, (OTHER, CLEAN), OFF, (), ()),
        (SILENT, (CLEAN, WRITES), OFF, (), ()),
        (SILENT, (WRITES, CLEAN), ON, (FOUND,), (CORNER, FOUND)),
        (DECLARED, (CLEAN,), ON, (FOUND,), (FOUND,)),
        (DENIED, (WRITES,), OFF, (), (CORNER,)),
        (DENIED, (), OFF, (FOUND,), ()),
        (DENIED, (), ON, (FOUND,), (FOUND,)),
        (PLAIN, (), OFF, (FOUND,), ()),
        (PLAIN, (), ON, (), ()),
        (None, (), OFF, (FOUND,), ()),
        (None, (), ON, (FOUND,), (FOUND,)),
        (None, (Device(rows=8, columns=6, regions=(CORNER,)),), OFF, (), (CORNER,)),
        (None, (WRITES,), OFF, (), ()),
    ],
)
def test_the_decision_table(
    dicom_dataset: Made,
    monkeypatch: pytest.MonkeyPatch,
    header: dict[str, Any] | None,
    devices: tuple[Device, ...],
    looks: dict[str, bool],
    finds: tuple[Region, ...],
    comes: tuple[Region, ...] | None,
) -> None:
    monkeypatch.setattr(ocr, "find_text", lambda displayed: finds)  # the table, not the detector
    source = None if header is None else dicom_dataset(**header)
    masks = TextInPixels(action="mask", devices=devices, **looks)
    assert decided(source, masks) == comes
    holds = masks.model_copy(update={"action": "hold"})
    assert decided(source, holds) == (HELD if comes else comes)


@pytest.mark.parametrize(
    ("header", "possible"),
    [
        ({}, False),
        (DENIED, False),
        (SILENT, True),
        ({"Modality": "us"}, True),
        ({"BurnedInAnnotation": "yes"}, True),
        ({"BurnedInAnnotation": "MAYBE"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.4"}, True),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.1"}, False),
    ],
)
def test_what_may_show_text(dicom_dataset: Made, header: dict[str, Any], possible: bool) -> None:
    assert burned_in.may_show_text(dicom_dataset(**header)) == possible


@pytest.mark.parametrize(
    ("device", "fits"),
    [
        ({}, True),
        ({"modality": "dx", "manufacturer": "ALDEBARAN", "model_name": "clarus 3"}, True),
        ({"rows": 8, "columns": 6}, True),
        ({"rows": 6, "columns": 8}, False),
        ({"rows": 8, "columns": 7}, False),
        ({"rows": 9, "columns": 6}, False),
        ({"model_name": "Clarus"}, False),
        ({"modality": "US"}, False),
    ],
)
def test_rules_compare_whole_texts(dicom_dataset: Made, device: dict[str, Any], fits: bool) -> None:
    policy = TextInPixels(action="mask", devices=(Device(regions=(CORNER,), **device),))
    assert decided(dicom_dataset(), policy) == ((CORNER,) if fits else ())


@pytest.mark.parametrize("region", [(4, 0, 3, 1), (0, 8, 1, 1), (0, 5, 1, 4)])
def test_a_region_outside_was_written_for_another_picture(
    dicom_dataset: Made, region: tuple[int, int, int, int]
) -> None:
    x, y, width, height = region
    outside = Device(regions=(Region(x=x, y=y, width=width, height=height),))
    policy = TextInPixels(action="mask", devices=(outside,))
    assert decided(dicom_dataset(), policy) is HELD


INSIDE = np.zeros((8, 6), bool)
INSIDE[2:6, 1:4] = True


@pytest.mark.parametrize(
    ("pixels", "header", "darkest"),
    [
        (np.arange(9, 57, dtype=np.uint16).reshape(8, 6), {}, 9),
        (
            np.arange(9, 57, dtype=np.uint16).reshape(8, 6),
            {"PhotometricInterpretation": "MONOCHROME1"},
            56,
        ),
        (np.arange(-24, 24, dtype=np.int16).reshape(8, 6), {}, -24),
        (
            np.arange(-24, 24, dtype=np.int16).reshape(8, 6),
            {"RescaleSlope": "-1", "RescaleIntercept": "0"},
            23,
        ),
    ],
)
def test_the_darkest_shown_and_nothing_else(
    dicom_dataset: Made, pixels: Any, header: dict[str, Any], darkest: int
) -> None:
    source = dicom_dataset(pixels, **header)
    stored = dicom.stored_pixels(source)
    copy = burned_in.masked(stored, (CORNER,), source)
    assert (copy[INSIDE] == darkest).all()
    assert (copy[~INSIDE] == pixels[~INSIDE]).all()
    assert (stored == pixels).all()
    assert copy.dtype == stored.dtype


@pytest.mark.parametrize("shape", [(8, 6, 3), (5, 8, 6, 3), (5, 8, 6), (3, 8, 6)])
def test_every_frame_and_every_colour(shape: tuple[int, ...]) -> None:
    stored = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    copy = burned_in.masked(stored, (CORNER,))
    inside = np.broadcast_to(INSIDE[..., None] if shape[-1] == 3 else INSIDE, shape)
    assert (copy[~inside] == stored[~inside]).all()
    if shape[-1] == 3:
        assert not copy[inside].any()
    else:
        for before, after in zip(stored, copy, strict=True):
            assert (after[INSIDE] == before.min()).all()


COMPRESSED = {
    "uncompressed": ExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


def compressed(source: Dataset, pixels: Any, syntax: str) -> bytes:
    """The source as a device would send it, in bytes."""
    plain = io.BytesIO()
    source.file_meta.MediaStorageSOPClassUID = source.SOPClassUID
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    if syntax == JPEGLosslessSV1:  # pydicom writes all but this one
        return gdcm_lossless(source)
    if syntax != ExplicitVRLittleEndian:
        source.compress(syntax, pixels, generate_instance_uid=False)
    pydicom.dcmwrite(plain, source, enforce_file_format=True)
    return plain.getvalue()


def gdcm_lossless(source: Dataset) -> bytes:
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "plain.dcm", Path(folder) / "packed.dcm"
        pydicom.dcmwrite(plain, source, enforce_file_format=True)
        reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(plain))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(packed))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return packed.read_bytes()


@pytest.mark.parametrize("name", COMPRESSED)
def test_masked_pixels_change_and_all_others_are_bit_equal(
    dicom_dataset: Made, tmp_path: Any, name: str
) -> None:
    pixels = np.random.default_rng(1).integers(1, 4000, (64, 48)).astype(np.uint16)
    pixels[0, 0] = 0
    source = dicom_dataset(pixels, BurnedInAnnotation="YES")
    data = compressed(source, pixels, COMPRESSED[name])
    parsed = dicom.parse(data)
    assert parsed.file_meta.TransferSyntaxUID == COMPRESSED[name]
    stored = dicom.stored_pixels(parsed)
    region = Region(x=5, y=7, width=20, height=9)
    policy = TextInPixels(action="mask", devices=(Device(regions=(region,)),))
    regions = burned_in.text_regions(parsed, stored, policy)
    written = tmp_path / "written.dcm"
    written.write_bytes(
        encoding.encode(
            deidentify.deidentify(
                parsed,
                burned_in.masked(stored, regions, parsed),
                Pseudonyms(b"k" * 32),
                spellings.mention({}),
                masked=True,
            )
        )
    )
    reread = pydicom.dcmread(written)
    after, inside = reread.pixel_array, np.zeros((64, 48), bool)
    inside[7:16, 5:25] = True
    assert (after[inside] == 0).all()
    assert (pixels[inside] != 0).all()
    assert (after[~inside] == pixels[~inside]).all()
    assert reread.BurnedInAnnotation == "NO"
    assert reread.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_the_example_of_device_rules(dicom_dataset: Made) -> None:
    policy = TextInPixels.model_validate(yaml.safe_load(EXAMPLE.read_text())["text_in_pixels"])
    scanner = {
        "Modality": "US",
        "Manufacturer": "Aldebaran Imaging",
        "ManufacturerModelName": "Sonos 5",
    }
    large, small = (
        dicom_dataset(np.ones(s, np.uint8), **scanner) for s in ((768, 1024), (600, 800))
    )
    assert [r.width for r in decided(large, policy) or ()] == [1024, 144]
    assert [r.width for r in decided(small, policy) or ()] == [800, 112]
    odd = dicom_dataset(np.ones((480, 640), np.uint8), **scanner)
    assert decided(odd, policy) is HELD
    angiogram = dicom_dataset(
        Modality="XA", Manufacturer="Borealis Medical", ManufacturerModelName="Artis Minor"
    )
    assert decided(angiogram, policy) == ()
