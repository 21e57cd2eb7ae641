import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from imaging.reading import decoding, dicom, structure
from imaging.reasons import REASONS, SetAside

Bytes = Callable[..., bytes]


def read(data: bytes) -> np.ndarray:
    dataset = dicom.parse(data)
    return dicom.as_seen(dataset, dicom.one_grey_frame(dataset))


def reason(data: bytes) -> str:
    with pytest.raises(SetAside) as caught:
        read(data)
    return caught.value.reason


def nested(levels: int, undefined: bool) -> bytes:
    """A data set of sequences inside sequences, by hand: pydicom itself could not write it."""
    body = b""
    for _ in range(levels):
        length = 0xFFFFFFFF if undefined else len(body) + 8
        inner = 0xFFFFFFFF if undefined else len(body)
        ends = (
            (b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0") if undefined else (b"", b"")
        )
        item = b"\xfe\xff\x00\xe0" + struct.pack("<L", inner) + body + ends[0]
        length = length if undefined else len(item)
        body = b"\x40\0\x30\xa7SQ\0\0" + struct.pack("<L", length) + item + ends[1]
    return body


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_every_encoding_gives_the_same_pixels(dicom_dataset, encoded, syntax: str) -> None:  # type: ignore[no-untyped-def]
    plain = read(encoded(dicom_dataset()))
    if syntax == RLELossless:
        packed = dicom_dataset()
        packed.compress(RLELossless, generate_instance_uid=False)
    else:
        packed = dicom_dataset(syntax=syntax)
    assert (read(encoded(packed)) == plain).all()


def test_a_data_set_without_prefix_or_meta_is_read(dicom_bytes: Bytes) -> None:
    whole = dicom_bytes()
    start = whole.index(b"\x08\0\x16\0UI")
    assert (read(whole[start:]) == read(whole)).all()


@pytest.mark.parametrize("undefined", [True, False])
@pytest.mark.parametrize(("levels", "expected"), [(60, None), (65, "too_deep"), (3000, "too_deep")])
def test_nesting_has_an_end(
    dicom_bytes: Bytes, levels: int, expected: str | None, undefined: bool
) -> None:
    whole = dicom_bytes()
    end = whole.index(b"\xe0\x7f\x10\0OW")
    deep = whole[:end] + nested(levels, undefined) + whole[end:]
    assert (reason(deep) if expected else read(deep).shape) == (expected or (8, 6))


def test_a_deflate_bomb_is_not_inflated(
    dicom_bytes: Bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure, "MAX_UNPACKED_BYTES", 2**20)
    head = dicom_bytes(syntax=DeflatedExplicitVRLittleEndian)
    body = structure.file_meta_end(head)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(2**21)) + packer.flush()
    assert len(bomb) < 3000
    assert reason(head[:body] + bomb) == "too_large"


def test_a_small_file_that_declares_terabytes(dicom_bytes: Bytes) -> None:
    assert reason(dicom_bytes(Rows=65535, Columns=65535)) == "too_large"
    assert reason(dicom_bytes(Rows=4000, Columns=4000)) == "truncated"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelData": None}, "no_pixel_data"),
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
        ({"PhotometricInterpretation": None}, "incomplete_header"),
        ({"Rows": None}, "incomplete_header"),
        ({"PixelData": None, "FloatPixelData": bytes(48 * 4)}, "float_pixels"),
    ],
)
def test_what_is_not_one_grey_frame(dicom_bytes: Bytes, attributes: dict, expected: str) -> None:  # type: ignore[type-arg]
    assert reason(dicom_bytes(**attributes)) == expected


def test_compression_that_nobody_reads(dicom_bytes: Bytes) -> None:
    data = dicom_bytes()
    mpeg = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0")
    assert reason(mpeg) == "unsupported_transfer_syntax"


def test_a_damaged_codestream(dicom_dataset, encoded) -> None:  # type: ignore[no-untyped-def]
    from pydicom.encaps import encapsulate

    dataset = dicom_dataset()
    dataset.PixelData = encapsulate([b"\xffO\xffQ not a codestream at all"])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    assert reason(encoded(dataset)) == "undecodable_pixels"


def test_neither_text_nor_noise_is_dicom() -> None:
    assert reason(b"") == reason(b"a,b,c\n1,2,3\n" * 50) == "not_an_image"


def test_big_endian_is_read() -> None:
    from pydicom.data import get_testdata_file

    little, big = (get_testdata_file(n) for n in ("MR_small.dcm", "MR_small_bigendian.dcm"))
    first, second = (open(p, "rb").read() for p in (little, big))  # noqa: PTH123, SIM115
    assert dicom.parse(second).file_meta.TransferSyntaxUID == ExplicitVRBigEndian
    assert (read(first) == read(second)).all()


def test_every_cut_is_noticed(dicom_bytes: Bytes) -> None:
    whole = dicom_bytes()
    start = whole.index(b"\x08\0\x16\0UI")  # below, what is left may be no DICOM at all
    reasons = {reason(whole[:n]) for n in range(start, len(whole))}
    assert reasons <= {"truncated", "no_pixel_data", "unreadable_header"}
    pixels = whole.index(b"\xe0\x7f\x10\0OW")
    assert {reason(whole[:n]) for n in range(pixels + 1, len(whole))} == {"truncated"}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(spots=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6))
def test_damage_is_read_or_set_aside_never_more(
    dicom_bytes: Bytes, spots: list[tuple[int, int]]
) -> None:
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    data = bytearray(dicom_bytes(ReferencedImageSequence=[item]))
    for position, value in spots:
        data[128 + position % (len(data) - 128)] = value
    try:
        pixels = read(bytes(data))
    except SetAside as caught:
        assert caught.reason in REASONS
    else:
        assert pixels.ndim == 2
        assert ((pixels >= 0) & (pixels <= 1)).all()


def compressed(dataset: Dataset, codestream: bytes, syntax: str) -> Dataset:
    from pydicom.encaps import encapsulate

    dataset.PixelData = encapsulate([codestream])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


@pytest.mark.parametrize(
    ("kind", "marker", "fields", "syntax"),
    [
        ("JPEG2000", b"\xff\x51", (6, 22), "1.2.840.10008.1.2.4.90"),
        ("JPEG", b"\xff\xc0", (5,), "1.2.840.10008.1.2.4.50"),
    ],
)
def test_a_codestream_larger_than_its_header_says_meets_no_decoder(
    dicom_dataset, encoded, monkeypatch, kind, marker, fields, syntax
) -> None:  # type: ignore[no-untyped-def]
    """5 kB of JPEG 2000 took 4 GB and 16 s before it was refused."""
    picture, buffer = np.random.default_rng(0).integers(0, 255, (8, 6), np.uint8), BytesIO()
    options = {"no_jp2": True} if kind == "JPEG2000" else {}
    Image.fromarray(picture).save(buffer, kind, **options)
    honest = buffer.getvalue()
    header = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    assert read(encoded(compressed(dicom_dataset(picture, **header), honest, syntax))).shape == (
        8,
        6,
    )
    huge, start = bytearray(honest), honest.index(marker)
    for field in fields:
        struct.pack_into(">LL" if kind == "JPEG2000" else ">HH", huge, start + field, 60000, 60000)
    monkeypatch.setattr(decoding, "_decoded", lambda *_: pytest.fail("decoded"))
    lying = encoded(compressed(dicom_dataset(picture, **header), bytes(huge), syntax))
    assert reason(lying) == "undecodable_pixels"


def test_more_elements_than_an_image_has_are_not_parsed(dicom_bytes: Bytes) -> None:
    """24 million empty items fit into 200 kB, and took 30 s and gigabytes."""
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * (structure.MAX_ELEMENTS + 1)
    sequence = struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, len(items)) + items
    assert reason(dicom_bytes() + sequence) == "too_large"


@pytest.mark.parametrize("high_bit", [15, 10, 0])
def test_values_elsewhere_in_their_words_are_not_taken_for_pixels(
    dicom_bytes: Bytes, high_bit: int
) -> None:
    """pydicom would cut their upper bits off without a word."""
    assert reason(dicom_bytes(HighBit=high_bit)) == "unreadable_header"
    assert read(dicom_bytes(HighBit=None)).shape == (8, 6)


@pytest.mark.parametrize("descriptor", [[0, 0, 16], [4096, 0, 0], [4, 0, 300]])
def test_a_lookup_table_that_lies(dicom_dataset, encoded, descriptor) -> None:  # type: ignore[no-untyped-def]
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = descriptor, "US"
    table.add_new(0x00283006, "OW", bytes(8))
    assert reason(encoded(dicom_dataset(ModalityLUTSequence=[table]))) == "unreadable_header"


def test_run_lengths_of_more_than_the_picture_meet_no_decoder(dicom_dataset, encoded) -> None:  # type: ignore[no-untyped-def]
    """A picture of 48 pixels could otherwise unpack to 64 times the bytes that were sent."""
    picture = np.zeros((8, 6), np.uint8)
    header = struct.pack("<16L", 1, 64, *[0] * 14)
    attributes = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    for runs, fits in ((1, True), (10_000, False)):
        dataset = dicom_dataset(picture, **attributes)
        data = encoded(compressed(dataset, header + b"\xd1\0" * runs, RLELossless))
        if fits:
            assert not read(data).any()
        else:
            assert reason(data) == "undecodable_pixels"
