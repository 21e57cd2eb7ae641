"""The bounds of a DICOM file, checked on its bytes before anything is parsed or allocated.

pydicom alone inflates 1 MB to 1 GiB, recurses to death on 33 KB of nesting, and takes an element
that ends behind the file for a short one.
"""

import struct
import zlib

from imaging.reasons import SetAside

MAX_DEPTH = 64  # sequences inside sequences
MAX_ELEMENTS = 300_000  # with items; 1.5 kB each once parsed; a frame of many has about 50
MAX_UNPACKED_BYTES = 256 * 2**20

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
PREFIX = slice(128, 132)

# PS3.10 7.5: whoever reads DICOM ignores the preamble, whoever runs programs reads only that.
EXECUTABLE = (
    b"MZ",  # Windows
    b"\x7fELF",
    b"%PDF",
    b"PK\3\4",  # zip, with its jars and office documents
    b"PK\5\6",
    b"#!",
    b"\xfe\xed\xfa\xce",  # Mach-O: both widths, both byte orders, several architectures in one
    b"\xfe\xed\xfa\xcf",
    b"\xce\xfa\xed\xfe",
    b"\xcf\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",  # and Java
    b"\0asm",
    b"dex\n",
    b"\x1f\x8b",  # archives: gzip, 7z, RAR
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"<",  # what a browser runs
)

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())


def looks_like_dicom(head: bytes) -> bool:
    """True for a DICOM prefix, or a data set that starts with group 2 or 8 without one."""
    return head[PREFIX] == b"DICM" or (
        head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08") and len(head) >= 8
    )


def check_preamble(data: bytes) -> None:
    """Refuse a file that is DICOM to us and a program to somebody else; zeros and TIFF are usual.

    Raises:
        SetAside: executable_preamble.
    """
    if data[PREFIX] == b"DICM" and data.startswith(EXECUTABLE):
        raise SetAside("executable_preamble")


def file_meta_end(data: bytes) -> int:
    """Where the data set starts: behind prefix and file meta information, if there are any.

    Raises:
        SetAside: truncated.
    """
    position = 132 if data[PREFIX] == b"DICM" else 0
    while data[position : position + 2] == b"\x02\0" and position + 12 <= len(data):
        vr, length = struct.unpack_from("<2sH", data, position + 4)
        position += 8
        if vr in _LONG_VRS:
            position, length = position + 4, struct.unpack_from("<L", data, position)[0]
        elif not b"AA" <= vr <= b"ZZ":  # implicit, against the rule
            length = struct.unpack_from("<L", data, position - 4)[0]
        if position + length > len(data):
            raise SetAside("truncated")
        position += length
    return position


def inflate(deflated: bytes) -> bytes:
    """Unpack a deflated data set, up to `MAX_UNPACKED_BYTES`.

    Raises:
        SetAside: too_large, truncated or unreadable_header.
    """
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


def encoding(data: bytes, start: int, syntax: str | None) -> tuple[bool, bool]:
    """Whether a data set is encoded with implicit VR, and whether in little endian.

    What the first element looks like outweighs what the transfer syntax says of VRs, as it does
    for pydicom: quite some writers mix them up.
    """
    vr = data[start + 4 : start + 6]
    implicit = not (vr.isalpha() and vr.isupper())
    if syntax is None:  # no group number reaches 1024 in its own order and stays below in the other
        return implicit, int.from_bytes(data[start : start + 2], "little") < 1024
    return implicit, syntax != BIG_ENDIAN


def check_elements(data: bytes, start: int, implicit: bool, little: bool) -> None:
    """Walk all element headers, values untouched, without recursion (PS3.5 section 7).

    Takes the same turns as pydicom does afterwards: an element without a VR among explicit ones is
    an implicit one, an item may be implicit as a whole, and UN of undefined length is a sequence.

    Raises:
        SetAside: truncated, too_deep, too_large or unreadable_header.
    """
    order, size, position = "<" if little else ">", len(data), start
    header = struct.Struct(order + "HH2sH").unpack_from
    long = struct.Struct(order + "L").unpack_from
    # Around the data set at hand: (where the outer one ends, is it implicit, is it a sequence).
    # The end is None where a delimiter tells it.
    outer: list[tuple[int | None, bool, bool]] = []
    end: int | None = None
    in_sequence = False
    for _ in range(MAX_ELEMENTS):
        while end is not None and position >= end and outer:
            end, implicit, in_sequence = outer.pop()
        if position + 8 > size:
            break
        group, element, vr, length = header(data, position)
        position += 8
        if vr in _SHORT_VRS and not implicit and not in_sequence and group != 0xFFFE:
            position += length
            if position > size:
                raise SetAside("truncated")
            continue
        tag = group << 16 | element
        if tag == (_SEQUENCE_END if in_sequence else _ITEM_END):
            if outer:
                end, implicit, in_sequence = outer.pop()
            continue
        if in_sequence:  # whatever stands here is read as an item
            (length,) = long(data, position - 4)
            nested = True
        else:
            if implicit or not b"AA" <= vr <= b"ZZ":
                vr, (length,) = b"", long(data, position - 4)
            elif vr in _LONG_VRS:
                if position + 4 > size:
                    raise SetAside("truncated")
                (length,), position = long(data, position), position + 4
            nested = _is_sequence(data, position, tag, vr, length, little)
        if length == _UNDEFINED and not nested:
            position = _after_fragments(data, position, order)
            continue
        if length != _UNDEFINED and position + length > size:
            raise SetAside("truncated")
        if not nested:
            position += length
            continue
        outer.append((end, implicit, in_sequence))
        if len(outer) > 2 * MAX_DEPTH:  # each level is a sequence and an item
            raise SetAside("too_deep")
        end, in_sequence = None if length == _UNDEFINED else position + length, not in_sequence
        if not in_sequence:
            implicit = implicit or encoding(data, position, None)[0]
    else:
        raise SetAside("too_large")
    if outer or data[position:].strip(b"\0"):
        raise SetAside("truncated")


def _is_sequence(data: bytes, value: int, tag: int, vr: bytes, length: int, little: bool) -> bool:
    from pydicom.datadict import DicomDictionary

    if vr == b"SQ" or (vr == b"UN" and length == _UNDEFINED):
        return True
    if vr not in (b"", b"UN"):
        return False
    known = DicomDictionary.get(tag)
    if known is None:  # private: items betray a sequence of undefined length
        item = b"\xfe\xff\x00\xe0" if little else b"\xff\xfe\xe0\x00"
        return length == _UNDEFINED and data[value : value + 4] == item
    return bool(known[0] == "SQ")


def _after_fragments(data: bytes, position: int, order: str) -> int:
    header = struct.Struct(order + "HHL").unpack_from
    while position + 8 <= len(data):
        group, element, length = header(data, position)
        position += 8
        if group << 16 | element == _SEQUENCE_END:
            return position
        if group << 16 | element != _ITEM:
            raise SetAside("unreadable_header")
        position += length
    raise SetAside("truncated")
