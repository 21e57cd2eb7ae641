"""What a header says of how an image was taken: the same words in training and in service."""

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_KEYWORDS = {
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "model_name": "ManufacturerModelName",
    "view_position": "ViewPosition",
    "photometric_interpretation": "PhotometricInterpretation",
}
# What makers and models are called. Anything else, such as a name with its carets, is not told.
PLAIN = re.compile(r"[A-Za-z0-9 ._/()+,&-]{1,64}")


def text(dataset: "Dataset", keyword: str) -> str | None:
    """An attribute's value as text, or None if it is absent, empty or does not decode."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom's decoders raise anything
        return None  # a value that does not decode says nothing
    return None if value is None else str(value).strip(" \0") or None


def acquisition(dataset: "Dataset") -> dict[str, Any]:
    """`imaging.manifest.HEADER_FIELDS` of an image, but for its size, which the pixels tell.

    Returns:
        Texts that match `PLAIN`; bits_stored as int; pixel_spacing_mm (the row spacing) as float.
        What the header does not say, or not so, is None.
    """
    found: dict[str, Any] = {}
    for name, keyword in _KEYWORDS.items():
        value = text(dataset, keyword)
        found[name] = value if value and PLAIN.fullmatch(value) else None
    made_by = (found["manufacturer"], found["model_name"])
    found["scanner"] = " ".join(filter(None, made_by))[:64] or None
    found["bits_stored"] = found["pixel_spacing_mm"] = None
    with suppress(AttributeError, TypeError, ValueError):
        found["bits_stored"] = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):  # the later one wins
        with suppress(Exception):  # absent, or no numbers
            found["pixel_spacing_mm"] = float(dataset.get(keyword)[0])
    return found
