"""Data sets as bytes: Explicit VR Little Endian, each level in the order of its tags (PS3.5 7)."""

import struct
from io import BytesIO
from typing import TYPE_CHECKING, Any

from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

BINARY = {"OB", "OD", "OF", "OL", "OV", "OW"}
_LONG = {*BINARY, "SQ", "UC", "UN", "UR", "UT", "SV", "UV"}  # with a length of 32 bits

Level = dict[Any, Any]  # elements of one data set or item by tag, as `Dataset` takes them


def put(level: Level, number: int, vr: str, value: bytes) -> None:
    """Set an element of a level, in place of any that is there."""
    element = raw_element(number, vr, value)
    level[element.tag] = element


def raw_element(number: int, vr: str, value: bytes) -> Any:
    """An element of bytes as they are written, padded to an even length (PS3.5 6.2)."""
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import BaseTag

    if len(value) % 2:
        value += b"\0" if vr == "UI" or vr in BINARY else b" "
    return RawDataElement(BaseTag(number), vr, len(value), value, 0, False, True)


def encode(dataset: "Dataset") -> bytes:
    """A Part 10 file in Explicit VR Little Endian with a zeroed preamble.

    pydicom's own writer takes three times as long; tests hold the bytes against it.

    Raises:
        SetAside: too_large, or not_rewritable: a value is longer than its VR can say.
    """
    try:
        version = b"\x02\0\x01\0OB\0\0\x02\0\0\0\0\x01"
        meta = b"".join([version, *_encoded(dataset.file_meta)])
        length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta))
        return b"".join([bytes(128), b"DICM", length, meta, *_encoded(dataset)])
    except MemoryError:
        raise SetAside("too_large") from None
    except struct.error:
        raise SetAside("not_rewritable") from None


def _encoded(dataset: "Dataset") -> list[bytes]:
    """One level and all below in pieces, to be joined once; sequences and items have lengths."""
    parts: list[bytes] = []
    for tag, element in sorted(dataset.items(), key=by_number):
        if not element.is_raw and element.VR == "SQ":
            bodies = [b"".join(_encoded(item)) for item in element.value]
            value = b"".join(b"\xfe\xff\0\xe0" + struct.pack("<L", len(b)) + b for b in bodies)
            parts += [_header(int(tag), "SQ", len(value)), value]
        elif element.is_raw:
            parts += [_header(int(tag), element.VR, element.length), element.value]
        else:
            parts.append(_by_pydicom(element))
    return parts


def _header(tag: int, vr: str, length: int) -> bytes:
    if vr in _LONG:
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length)


def _by_pydicom(element: Any) -> bytes:
    """An element that was set by name."""
    from pydicom.filebase import DicomIO
    from pydicom.filewriter import write_data_element

    buffer = BytesIO()
    file = DicomIO(buffer)
    file.is_implicit_VR, file.is_little_endian = False, True
    write_data_element(file, element, ["utf8"])
    return buffer.getvalue()


def by_number(pair: tuple[Any, Any]) -> int:
    """Sorts elements as a data set has them."""
    return int(pair[0])
