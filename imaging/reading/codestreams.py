"""What a compressed frame says of itself, read off before a decoder makes room for it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

# Of JPEG and JPEG 2000 alike. It cannot occur before: what looks like a marker is stuffed.
END = b"\xff\xd9"

_START_OF_FRAME = (
    *range(0xC0, 0xC4),
    *range(0xC5, 0xC8),
    *range(0xC9, 0xCC),
    *range(0xCD, 0xD0),
    0xF7,  # JPEG-LS
)
_START_OF_SCAN, _FILL, _FIRST_MARKER = 0xDA, 0xFF, 0xC0
_SIZ = b"\xff\x4f\xff\x51"  # begins a JPEG 2000 codestream
_JP2 = b"\0\0\0\x0cjP  "  # the first box of a JP2 file, of 12 bytes
_CODESTREAM_BOX = b"jp2c"


@dataclass(frozen=True)
class Header:
    """The frame as a decoder will make room for it."""

    rows: int
    columns: int
    components: int
    bits: int  # of the first component


def headers(frame: bytes) -> Iterator[Header]:
    """Frame headers of a JPEG, JPEG-LS or JPEG 2000 codestream; there should be one.

    Raises:
        IndexError, ValueError, struct.error: It is none.
    """
    return _jpeg(frame) if frame.startswith(b"\xff\xd8") else _jpeg2000(frame)


def _jpeg(frame: bytes) -> Iterator[Header]:
    position = 2
    while True:
        if frame[position] != 0xFF:
            raise ValueError("no marker")
        marker = frame[position + 1]
        if marker == _FILL:
            position += 1
            continue
        if marker < _FIRST_MARKER:  # GDCM would abort its process
            raise ValueError("a marker that has no segment")
        if marker == _START_OF_SCAN:  # all frame headers came before
            return
        if marker in _START_OF_FRAME:
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            yield Header(rows, columns, components, bits)
        position += 2 + struct.unpack_from(">H", frame, position + 2)[0]


def _jpeg2000(frame: bytes) -> Iterator[Header]:
    """Bare or in a JP2 file, whose boxes may hold several: any SIZ may count."""
    if frame.startswith(_JP2):
        _walk_boxes(frame)
    position = frame.find(_SIZ)
    while position >= 0:
        right, bottom, left, top = struct.unpack_from(">4L", frame, position + 8)
        components, bits = struct.unpack_from(">HB", frame, position + 40)
        yield Header(bottom - top, right - left, components, (bits & 0x7F) + 1)
        position = frame.find(_SIZ, position + 4)


def _walk_boxes(frame: bytes) -> None:
    """Refuse a box without a length before the codestream's: pydicom would stay there for ever."""
    position = 12
    while frame[position + 4 : position + 8] != _CODESTREAM_BOX:
        (length,) = struct.unpack_from(">L", frame, position)
        if not length:
            raise ValueError("a box that ends nowhere")
        position += length
