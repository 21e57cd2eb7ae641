"""Reading DICOM that nobody vouches for: bounds are checked before anything is parsed or allocated.

pydicom alone inflates 1 MB to 1 GiB, recurses to death on 33 KB of nesting, asks for terabytes when
a small header says so, and takes an element that ends behind the file for a short one.
"""

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_DEPTH = 64  # sequences inside sequences
MAX_ELEMENTS = 100_000  # with items; 1.5 kB each once parsed, and one grey frame has a few hundred
MAX_UNPACKED_BYTES = 256 * 2**20
MAX_PIXELS = 2**26  # per frame: a mammogram has 2**25

GREY = ("MONOCHROME1", "MONOCHROME2")
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)

RLE = "1.2.840.10008.1.2.5"

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_DATA = 0x7FE00010
_START_OF_FRAME = (
    *range(0xC0, 0xC4),
    *range(0xC5, 0xC8),
    *range(0xC9, 0xCC),
    *range(0xCD, 0xD0),
    0xF7,
)
_LONG_VRS = set(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def looks_like_dicom(data: bytes) -> bool:
    """True for a DICOM prefix, or a data set that starts with group 2 or 8 without one."""
    return data[128:132] == b"DICM" or (
        data[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08") and len(data) >= 8
    )


def parse(data: bytes) -> "Dataset":
    """Parse one file's bytes.

    Raises:
        SetAside: not_an_image, truncated, too_deep, too_large or unreadable_header.
    """
    import pydicom

    if not looks_like_dicom(data):
        raise SetAside("not_an_image")
    body, syntax = _file_meta(data, 132 if data[128:132] == b"DICM" else 0)
    if syntax == DEFLATED:
        _check_structure(_inflate(data[body:]), 0, "<")
    else:
        _check_structure(data, body, _byte_order(data, body, syntax))
    try:
        dataset = pydicom.dcmread(BytesIO(data), force=True)
    except MemoryError:
        raise SetAside("too_large") from None
    except Exception:
        # A parser of untrusted bytes may raise anything; what it says may quote a value.
        raise SetAside("unreadable_header") from None
    if len(dataset) == 0:
        raise SetAside("unreadable_header")
    _complete_meta(dataset)
    return dataset


def stored_pixels(dataset: "Dataset") -> NDArray[Any]:
    """Decode the one grey frame of a data set: integers (H, W), as stored, before rescaling.

    Raises:
        SetAside: no_pixel_data, float_pixels, colour, multi_frame, too_large, truncated,
            incomplete_header, unreadable_header, unsupported_transfer_syntax or undecodable_pixels.
    """
    with _honest_header():
        _check_frame(dataset)
    try:
        array = np.asarray(dataset.pixel_array)
    except MemoryError:
        raise SetAside("too_large") from None
    except Exception:  # decoders raise anything
        raise SetAside("undecodable_pixels") from None
    if array.ndim != 2 or not array.size:
        raise SetAside("undecodable_pixels")
    return array


def _check_frame(dataset: "Dataset") -> None:
    """Refuse what is not one grey frame of bounded size that some decoder reads."""
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise SetAside("float_pixels")
    if "PixelData" not in dataset or not dataset.PixelData:
        raise SetAside("no_pixel_data")
    photometric = str(dataset.PhotometricInterpretation)
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or photometric not in GREY:
        raise SetAside("colour")
    if int(dataset.get("NumberOfFrames") or 1) != 1:
        raise SetAside("multi_frame")
    pixels = int(dataset.Rows) * int(dataset.Columns)
    if pixels > MAX_PIXELS:
        raise SetAside("too_large")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax not in UNCOMPRESSED:
        if not _decodable(syntax):
            raise SetAside("unsupported_transfer_syntax")
        _check_codestream(dataset, syntax, pixels)
        return
    if len(dataset.PixelData) * 8 < pixels * int(dataset.BitsAllocated):
        raise SetAside("truncated")
    # Values that lie elsewhere in their words than PS3.5 8.1.1 says would lose their upper bits.
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if dataset.get("HighBit") is not None and int(dataset.HighBit) != bits - 1:
        raise SetAside("unreadable_header")


def _check_codestream(dataset: "Dataset", syntax: str, pixels: int) -> None:
    """Refuse a codestream that asks its decoder for more samples than the header declares.

    5 kB of JPEG 2000 may ask for gigabytes, which a decoder takes before it looks at the data.
    """
    from pydicom.encaps import get_frame

    try:
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
        # RLE names no size; it adds a byte to 128 at worst, and much more could unpack to anything.
        per_pixel = 2 * math.ceil(int(dataset.BitsAllocated) / 8)
        wanted = [(len(frame) - 1024) // per_pixel] if syntax == RLE else list(_frame_sizes(frame))
    except Exception:  # what is no codestream has no such structure
        raise SetAside("undecodable_pixels") from None
    if not wanted or max(wanted) > pixels:
        raise SetAside("undecodable_pixels")


def _frame_sizes(frame: bytes) -> Iterator[int]:
    """Samples that the frame headers of a JPEG, JPEG-LS or JPEG 2000 codestream announce."""
    if not frame.startswith(b"\xff\xd8"):  # JPEG 2000, bare or in a JP2 file: any SIZ may count
        position = frame.find(b"\xff\x4f\xff\x51")
        while position >= 0:
            right, bottom, left, top = struct.unpack_from(">4L", frame, position + 8)
            (components,) = struct.unpack_from(">H", frame, position + 40)
            yield (right - left) * (bottom - top) * components
            position = frame.find(b"\xff\x4f\xff\x51", position + 4)
        return
    position = 2
    while True:
        if frame[position] != 0xFF:
            raise ValueError("no marker")
        marker = frame[position + 1]
        if marker == 0xFF:  # fill bytes
            position += 1
            continue
        if marker == 0xDA:  # the first scan: all frame headers came before
            return
        if marker in _START_OF_FRAME:
            rows, columns, components = struct.unpack_from(">HHB", frame, position + 5)
            if not rows:
                raise ValueError("the height comes later")
            yield rows * columns * components
        position += 2 + struct.unpack_from(">H", frame, position + 2)[0]


def _decodable(syntax: str) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def as_seen(dataset: "Dataset", stored: NDArray[Any]) -> NDArray[np.float32]:
    """Scale stored values to float32 (H, W) in 0..1, as a reader would see them.

    The range is the one that the header declares (PS3.3 C.7.6.3.1: Bits Stored and Pixel
    Representation; after a Modality LUT, its own depth), so that equal exposure gives equal numbers
    whatever else is in the image. A linear rescale cancels out of this but for its sign. The VOI
    window is left alone: workstations and people change it between copies of one picture, and no
    model should depend on that.

    Raises:
        SetAside: incomplete_header or unreadable_header.
    """
    from pydicom.pixels import apply_modality_lut

    with _honest_header():
        bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
        low = -(1 << bits - 1) if int(dataset.get("PixelRepresentation") or 0) else 0
        inverted = str(dataset.PhotometricInterpretation) == GREY[0]
        if dataset.get("ModalityLUTSequence"):
            stored = apply_modality_lut(stored, dataset)
            low, bits = 0, int(dataset.ModalityLUTSequence[0].LUTDescriptor[2])
        elif float(dataset.get("RescaleSlope") or 1) < 0:
            inverted = not inverted
    unit = (stored.astype(np.float32) - low) / np.float32((1 << bits) - 1)
    np.clip(unit, 0, 1, out=unit)
    return 1 - unit if inverted else unit


@contextmanager
def _honest_header() -> Iterator[None]:
    """Say of a header that lacks an attribute, or holds nonsense in one, just that."""
    try:
        yield
    except SetAside:
        raise
    except AttributeError:
        raise SetAside("incomplete_header") from None
    except (
        ArithmeticError,
        LookupError,
        NotImplementedError,
        TypeError,
        ValueError,
        struct.error,
    ):
        raise SetAside("unreadable_header") from None


def _file_meta(data: bytes, position: int) -> tuple[int, str | None]:
    """Where the data set starts, and its transfer syntax if one is named."""
    syntax = None
    while data[position : position + 2] == b"\x02\0" and position + 12 <= len(data):
        element, vr, short = struct.unpack_from("<H2sH", data, position + 2)
        position, length = position + 8, short
        if vr in _LONG_VRS:
            position, length = position + 4, struct.unpack_from("<L", data, position)[0]
        if position + length > len(data):
            raise SetAside("truncated")
        if element == 0x0010:
            syntax = data[position : position + length].rstrip(b"\0 ").decode("ascii", "replace")
        position += length
    return position, syntax


def _byte_order(data: bytes, body: int, syntax: str | None) -> str:
    if syntax is None:  # no group number reaches 1024 in its own order and stays below in the other
        return ">" if int.from_bytes(data[body : body + 2], "little") >= 1024 else "<"
    return ">" if syntax == BIG_ENDIAN else "<"


def _inflate(deflated: bytes) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = unpacker.decompress(deflated, MAX_UNPACKED_BYTES)
    except zlib.error:
        raise SetAside("unreadable_header") from None
    if unpacker.unconsumed_tail:
        raise SetAside("too_large")
    if not unpacker.eof:
        raise SetAside("truncated")
    return inflated


def _check_structure(data: bytes, position: int, order: str) -> None:
    """Walk all element headers, values untouched, without recursion (PS3.5 section 7).

    Decides element by element between implicit and explicit VR, just as pydicom does afterwards.
    """
    from pydicom.datadict import DicomDictionary

    read_tag, read_short, read_long = (
        struct.Struct(order + s).unpack_from for s in ("HH", "H", "L")
    )
    size = len(data)
    open_until: list[int | None] = []  # of sequences and items; None: until a delimiter
    for count in itertools.count():
        if count > MAX_ELEMENTS:
            raise SetAside("too_large")
        while open_until and open_until[-1] is not None and position >= open_until[-1]:
            open_until.pop()
        if position + 8 > size:
            break
        group, element = read_tag(data, position)
        tag = group << 16 | element
        if tag in (_ITEM_END, _SEQUENCE_END):
            position += 8
            if open_until and open_until[-1] is None:
                open_until.pop()
            continue
        vr = data[position + 4 : position + 6]
        if tag == _ITEM or not (vr.isalpha() and vr.isupper()):
            vr, length, position = b"", read_long(data, position + 4)[0], position + 8
        elif vr in _LONG_VRS:
            if position + 12 > size:
                raise SetAside("truncated")
            length, position = read_long(data, position + 8)[0], position + 12
        else:
            length, position = read_short(data, position + 6)[0], position + 8
        known = DicomDictionary.get(tag)
        nested = tag == _ITEM or vr == b"SQ" or (vr in (b"", b"UN") and known and known[0] == "SQ")
        if length == _UNDEFINED:
            if tag == _PIXEL_DATA or vr in (b"OB", b"OW"):
                position = _after_fragments(data, position, read_tag, read_long)
                continue
            open_until.append(None)
        elif position + length > size:
            raise SetAside("truncated")
        elif nested:
            open_until.append(position + length)
        else:
            position += length
        if len(open_until) > 2 * MAX_DEPTH:  # each level is a sequence and an item
            raise SetAside("too_deep")
    if open_until or data[position:].strip(b"\0"):
        raise SetAside("truncated")


def _after_fragments(data: bytes, position: int, read_tag: Any, read_long: Any) -> int:
    while position + 8 <= len(data):
        group, element = read_tag(data, position)
        length = read_long(data, position + 4)[0]
        position += 8
        if group << 16 | element == _SEQUENCE_END:
            return position
        if group << 16 | element != _ITEM:
            raise SetAside("unreadable_header")
        position += length
    raise SetAside("truncated")


def _complete_meta(dataset: "Dataset") -> None:
    """Without a named transfer syntax it is the uncompressed one that the data set was read in."""
    if "TransferSyntaxUID" in dataset.file_meta:
        return
    implicit, little = dataset.original_encoding
    pixels = dataset.get_item("PixelData") if "PixelData" in dataset else None
    if little is False:
        dataset.file_meta.TransferSyntaxUID = BIG_ENDIAN
    elif pixels is None or not getattr(pixels, "is_undefined_length", False):
        dataset.file_meta.TransferSyntaxUID = UNCOMPRESSED[0 if implicit else 1]
