"""What a header says of how an image was taken: the same words in training and in service."""

import math
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
    "body_part": "BodyPartExamined",
}
_NUMBERED = {
    "series_number": "SeriesNumber",
    "acquisition_number": "AcquisitionNumber",
    "instance_number": "InstanceNumber",
}
_INT32 = 2**31 - 1
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
    """What a manifest row tells of the acquisition, but for the image's size: the pixels tell that.

    Returns:
        Texts that match `PLAIN`; bits_stored and numbers of series, acquisition and instance as
        int; pixel_spacing_mm (between rows), column_spacing_mm and slice_spacing_mm as float;
        laterality as R, L, U (unpaired) or B (both); patient_orientation as `orientation` has it.
        What the header does not say, or not so, is None.
    """
    found: dict[str, Any] = {}
    for name, keyword in _KEYWORDS.items():
        value = text(dataset, keyword)
        found[name] = value if value and PLAIN.fullmatch(value) else None
    made_by = (found["manufacturer"], found["model_name"])
    found["scanner"] = " ".join(filter(None, made_by))[:64] or None
    found["bits_stored"] = None
    with suppress(AttributeError, TypeError, ValueError):
        found["bits_stored"] = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    for name, keyword in _NUMBERED.items():
        found[name] = None
        with suppress(Exception):  # absent, or no number
            number = int(dataset.get(keyword))
            found[name] = number if abs(number) <= _INT32 else None
    spacings = ("ImagerPixelSpacing", "PixelSpacing")  # the later one wins
    found["pixel_spacing_mm"] = _number(dataset, spacings, 0)
    found["column_spacing_mm"] = _number(dataset, spacings, 1)
    found["slice_spacing_mm"] = _number(dataset, ("SliceThickness", "SpacingBetweenSlices"), None)
    sides = (text(dataset, "ImageLaterality") or text(dataset, "Laterality") or "").upper()
    found["laterality"] = sides if sides in ("R", "L", "U", "B") else None
    found["patient_orientation"] = orientation(dataset)
    return found


def orientation(dataset: "Dataset") -> str | None:
    """Where rows and columns lead in the patient, such as `L\\F`, by PS3.3 C.7.6.1.1.1.

    The header's own word, else the axis that lies nearest to each direction cosine.
    """
    with suppress(Exception):  # absent, or no two values
        row, column = (str(value).upper() for value in dataset.PatientOrientation)
        if re.fullmatch(r"[APRLHF]{1,3}\\[APRLHF]{1,3}", told := f"{row}\\{column}"):
            return told
    for holder in _holders(dataset, "PlaneOrientationSequence"):
        with suppress(Exception):
            cosines = [float(value) for value in holder.ImageOrientationPatient]
            return f"{_nearest(cosines[:3])}\\{_nearest(cosines[3:6])}"
    return None


def _nearest(direction: list[float]) -> str:
    """A letter for the axis; x grows to the left, y to the back, z to the head (C.7.6.2.1.1)."""
    axis = max(range(3), key=lambda i: abs(direction[i]))
    if not abs(direction[axis]) > 0.5:  # of a unit vector it is 0.57 at least
        raise ValueError("no direction")
    return ("LPH" if direction[axis] > 0 else "RAF")[axis]


def _number(dataset: "Dataset", keywords: tuple[str, ...], index: int | None) -> float | None:
    """The last of the attributes that says a number; of enhanced objects, for all frames."""
    found = None
    for holder in _holders(dataset, "PixelMeasuresSequence"):
        for keyword in keywords:
            with suppress(Exception):  # absent, or no number
                value = holder[keyword].value
                number = float(value if index is None else value[index])
                found = number if math.isfinite(number) else found
    return found


def _holders(dataset: "Dataset", group: str) -> list["Dataset"]:
    """Where an attribute may stand: in the header, and in a group shared by all frames."""
    holders = [dataset]
    with suppress(Exception):
        holders.append(dataset.SharedFunctionalGroupsSequence[0][group].value[0])
    return holders
