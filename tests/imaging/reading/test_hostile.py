"""Files made to hurt their reader cost one reason each, in bounded time and memory."""

import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from imaging.reading import codestreams, dicom, structure
from imaging.reasons import SetAside
from imaging.worker import map_isolated

HERE = Path(__file__).parent / "hostile"
TIMEOUT_S, MEMORY_GIB = 20.0, 1.0  # half of the memory that ingestion gives
READER = """
from pathlib import Path
from imaging.reading import dicom
from imaging.reasons import SetAside

def reader(setup):
    def read(file):
        try:
            dataset = dicom.parse(Path(file).read_bytes())
            return {"reason": str(dicom.stored_pixels(dataset).shape)}
        except SetAside as caught:
            return {"reason": caught.reason}
    return read
"""
Bytes = Callable[..., bytes]


def reason(data: bytes) -> str:
    with pytest.raises(SetAside) as caught:
        dicom.stored_pixels(dicom.parse(data))
    return caught.value.reason


def terabytes(dicom_bytes: Bytes) -> bytes:
    """Frames of 65535 x 65535 words, in a file that holds 48 of them."""
    return dicom_bytes(Rows=65535, Columns=65535, NumberOfFrames=2000)


def deflate_bomb(dicom_bytes: Bytes) -> bytes:
    head = dicom_bytes(syntax=DeflatedExplicitVRLittleEndian)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    # Bytes after a full flush refer to nothing before it, so the same ones may come again.
    chunk = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = chunk * 64 + packer.flush()
    assert len(packed) < 1.1e6
    return head[: structure.file_meta_end(head)] + packed


def sequences(dicom_bytes: Bytes) -> bytes:
    """900 sequences, each in an item of the one before."""
    opened = b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return dicom_bytes() + opened * 900 + closed * 900


def items_by_another_name(dicom_bytes: Bytes) -> bytes:
    """The same, but what stands where items should is no item; pydicom follows it all the same."""
    opened = b"\x40\0\x30\xa7SQ\0\0\xff\xff\xff\xff\x09\0\x01\0\xff\xff\xff\xff"
    closed = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return dicom_bytes() + opened * 900 + closed * 900


def a_million_items(dicom_bytes: Bytes) -> bytes:
    items = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 10**6
    return dicom_bytes() + struct.pack("<HH2sHL", 0x0008, 0x1140, b"SQ", 0, len(items)) + items


def behind_the_end(dicom_bytes: Bytes) -> bytes:
    whole = bytearray(dicom_bytes())
    struct.pack_into("<L", whole, whole.index(b"\xe0\x7f\x10\0OW") + 8, 0x7FFFFFFE)
    return bytes(whole)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (terabytes, "too_large"),
        (deflate_bomb, "too_large"),
        (sequences, "too_deep"),
        (items_by_another_name, "too_deep"),
        (a_million_items, "too_large"),
        (behind_the_end, "truncated"),
    ],
)
def test_each_costs_its_reason_within_limits(
    make: Callable[[Bytes], bytes],
    expected: str,
    dicom_bytes: Bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "hostile_reader.py").write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "file").write_bytes(make(dicom_bytes))
    result = map_isolated(
        "hostile_reader:reader",
        None,
        [str(tmp_path / "file")],
        timeout_s=TIMEOUT_S,
        memory_gib=MEMORY_GIB,
    )
    # Out of memory would be "too_large", too: reading it here, without limits, tells them apart.
    assert result == [{"reason": expected}]
    assert reason((tmp_path / "file").read_bytes()) == expected


@pytest.mark.parametrize("name", ["marker_without_segment", "samples_of_129_bits"])
def test_what_makes_gdcm_abort_does_not_reach_it(name: str) -> None:
    """Found by benchmarks/fuzz_reading.py."""
    file = HERE / f"{name}.dcm"
    assert reason(file.read_bytes()) == "undecodable_pixels"
    bare = (
        "import sys, pydicom; from pydicom.pixels import get_decoder;"
        "d = pydicom.dcmread(sys.argv[1]);"
        "u = '1.2.840.10008.1.2.4.70'; d.file_meta.TransferSyntaxUID = u;"
        "get_decoder(u).as_array(d, decoding_plugin='gdcm')"
    )
    ended = subprocess.run([sys.executable, "-c", bare, file], capture_output=True)
    assert ended.returncode < 0  # by a signal


@pytest.mark.parametrize("head", structure.EXECUTABLE)
def test_a_program_in_the_preamble_is_refused(dicom_bytes: Bytes, head: bytes) -> None:
    whole = dicom_bytes()
    assert reason(head + whole[len(head) :]) == "executable_preamble"


@pytest.mark.parametrize("head", [bytes(4), b"II*\0", b"MM\0*", b"anything"])
def test_other_preambles_are_read(dicom_bytes: Bytes, head: bytes) -> None:
    whole = dicom_bytes()
    assert dicom.stored_pixels(dicom.parse(head + whole[len(head) :])).shape == (8, 6)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_half_a_codestream_is_truncated(encoded: Callable[[Dataset], bytes], share: float) -> None:
    """Whatever its decoder would make of it."""
    import pydicom.data

    source = pydicom.dcmread(pydicom.data.get_testdata_file("MR_small_jp2klossless.dcm"))
    assert source.file_meta.TransferSyntaxUID == JPEG2000Lossless
    frame = get_frame(source.PixelData, 0, number_of_frames=1)
    source.PixelData = encapsulate([frame[: int(share * len(frame))]])
    assert reason(encoded(source)) == "truncated"


@pytest.mark.timeout(60)
def test_a_box_that_ends_nowhere_keeps_nobody_waiting(encoded: Callable[[Dataset], bytes]) -> None:
    """pydicom would read it for ever, and the endpoint with it."""
    import pydicom.data

    source = pydicom.dcmread(pydicom.data.get_testdata_file("MR_small_jp2klossless.dcm"))
    frame = get_frame(source.PixelData, 0, number_of_frames=1)
    first, last = b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\0jp2c"
    (header,) = codestreams.headers(first + b"\0\0\0\x08free" + last + frame)
    assert (header.rows, header.columns) == (64, 64)
    source.PixelData = encapsulate([first + b"\0\0\0\0free" + last + frame])
    assert reason(encoded(source)) == "undecodable_pixels"


def test_a_palette_whose_segments_repeat_each_other_does_not_grow(
    dicom_dataset: Callable[..., Dataset], encoded: Callable[[Dataset], bytes]
) -> None:
    pixels = np.zeros((8, 6), np.uint8)
    dataset = dicom_dataset(pixels, BitsStored=8, PhotometricInterpretation="PALETTE COLOR")
    dataset.HighBit = 7
    # A value, then segments that repeat everything before them, themselves included.
    segments = np.array([0, 1, 7] + [2, 0xFFFF, 0, 0] * 40, "<u2").tobytes()
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [0, 0, 16])
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", segments)
    assert reason(encoded(dataset)) == "unreadable_header"
