"""The Image Pixel Module of a written file: uncompressed pixels, and what describes them."""

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.deidentification.encoding import Level, put

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_DATA = 0x7FE00010
# Transfer syntaxes that always lose something, and the name of the method (PS3.3 C.7.6.1.1.5.1).
_LOSSY = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
}


def put_pixels(level: Level, source: "Dataset", stored: NDArray[Any]) -> None:
    """Pixels, uncompressed, and the attributes that describe them (PS3.3 C.7.6.3)."""
    frames = int(source.get("NumberOfFrames") or 1)
    was_colour = str(source.get("PhotometricInterpretation")) not in ("MONOCHROME1", "MONOCHROME2")
    colour = stored.ndim == 4 or (
        stored.ndim == 3 and was_colour and frames == 1 and stored.shape[-1] == 3
    )
    rows, columns = stored.shape[-3:-1] if colour else stored.shape[-2:]
    allocated = int(source.BitsAllocated)
    bits = int(source.get("BitsStored") or allocated)
    palette = str(source.get("PhotometricInterpretation")) == "PALETTE COLOR"
    if palette or bits > 8 * stored.itemsize:
        bits = 8 * stored.itemsize
    if allocated == 1:
        data = np.packbits(stored.ravel() != 0, bitorder="little").tobytes()
    else:
        allocated = 8 * stored.itemsize
        data = _pixel_bytes(stored, source)
    numbers = {
        0x00280002: 3 if colour else 1,
        0x00280010: rows,
        0x00280011: columns,
        0x00280100: allocated,
        0x00280101: bits,
        0x00280102: bits - 1,
        0x00280103: int(stored.dtype.kind == "i"),
    }
    if colour:
        numbers[0x00280006] = 0  # planar configuration: by pixel
    else:
        level.pop(0x00280006, None)
    for tag, number in numbers.items():
        put(level, tag, "US", struct.pack("<H", number))
    if colour or was_colour:
        put(level, 0x00280004, "CS", b"RGB" if colour else b"MONOCHROME2")
    if stored.ndim == 3 + colour or 0x00280008 in level:
        count = stored.shape[0] if stored.ndim == 3 + colour else 1
        put(level, 0x00280008, "IS", b"%d" % count)
    if lossy := _LOSSY.get(str(source.file_meta.get("TransferSyntaxUID"))):
        put(level, 0x00282110, "CS", b"01")
        put(level, 0x00282114, "CS", lossy.encode())
    put(level, _PIXEL_DATA, "OB" if allocated <= 8 else "OW", data)


def _pixel_bytes(stored: NDArray[Any], source: "Dataset") -> bytes:
    """Little endian; the source's own bytes where they are these, as comparing is no copy."""
    pixels = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<"))
    view = pixels.reshape(-1).view(np.uint8).data
    given = source.get_item(_PIXEL_DATA) if "PixelData" in source else None
    if given is not None and isinstance(given.value, bytes) and view == given.value:
        return given.value
    return view.tobytes()
