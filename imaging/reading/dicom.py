"""Reading DICOM that nobody vouches for: bytes to data set to pixels, bounds first at each turn."""

from io import BytesIO
from typing import TYPE_CHECKING

from imaging.reading.decoding import GREY, MAX_PIXELS, one_grey_frame, stored_pixels
from imaging.reading.presentation import as_seen, displayed, modality_values
from imaging.reading.structure import (
    BIG_ENDIAN,
    DEFLATED,
    check_elements,
    check_preamble,
    encoding,
    file_meta_end,
    inflate,
    looks_like_dicom,
)
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "GREY",
    "MAX_PIXELS",
    "as_seen",
    "displayed",
    "looks_like_dicom",
    "modality_values",
    "one_grey_frame",
    "parse",
    "stored_pixels",
]


def parse(data: bytes) -> "Dataset":
    """Parse one file's bytes.

    Raises:
        SetAside: not_an_image, executable_preamble, truncated, too_deep, too_large or
            unreadable_header.
    """
    if not looks_like_dicom(data):
        raise SetAside("not_an_image")
    check_preamble(data)
    start = file_meta_end(data)
    try:
        return _parse(data, start)
    except SetAside:
        raise
    except MemoryError:
        raise SetAside("too_large") from None
    except Exception:
        # A parser of untrusted bytes may raise anything; what it says may quote a value.
        raise SetAside("unreadable_header") from None


def _parse(data: bytes, start: int) -> "Dataset":
    """Bounds check and parser are told the same bytes and encoding: pydicom need not guess."""
    import pydicom
    from pydicom.filereader import read_dataset

    meta = pydicom.dcmread(BytesIO(data[:start]), force=True).file_meta
    syntax = str(meta.get("TransferSyntaxUID") or "") or None
    if syntax == DEFLATED:
        data, start = inflate(data[start:]), 0
    implicit, little = encoding(data, start, syntax)
    check_elements(data, start, implicit, little)
    stream = BytesIO(data)
    stream.seek(start)
    dataset = read_dataset(stream, implicit, little)
    if len(dataset) == 0:
        raise SetAside("unreadable_header")
    if syntax is None:  # then it is the uncompressed one that the data set was read in
        pixels = dataset.get_item("PixelData") if "PixelData" in dataset else None
        if not little:
            meta.TransferSyntaxUID = BIG_ENDIAN
        elif pixels is None or not getattr(pixels, "is_undefined_length", False):
            meta.TransferSyntaxUID = f"1.2.840.10008.1.2{'' if implicit else '.1'}"
    dataset.file_meta = meta
    return dataset
