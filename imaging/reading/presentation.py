"""From stored values to what they mean and how they look (PS3.3 C.11, PS3.4 N.2).

Three scales of one image, each made from stored values, never from another scale, so that no rule
is applied twice: `modality_values` (Hounsfield units, Gray), `displayed` (what a workstation shows
first) and `as_seen` (what a model sees).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.reading.decoding import COLOUR, GREY, PALETTE, honest_header
from imaging.reading.lookup import is_little, table

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Values = NDArray[np.float32]


def as_seen(dataset: "Dataset", stored: NDArray[Any]) -> Values:
    """Scale stored values to 0..1 by the range that the header declares, in their shape.

    The range is that of PS3.3 C.7.6.3.1 (Bits Stored and Pixel Representation; after a Modality
    LUT, its own depth), so that equal exposure gives equal numbers whatever else is in the image.
    A linear rescale cancels out of this but for its sign. The VOI window is left alone:
    workstations and people change it between copies of one picture, and no model should depend on
    that.

    Raises:
        SetAside: incomplete_header or unreadable_header.
    """
    with honest_header():
        photometric = str(dataset.PhotometricInterpretation)
        bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
        low = -(1 << bits - 1) if int(dataset.get("PixelRepresentation") or 0) else 0
        upside_down: Any = photometric == GREY[0]
        if photometric == PALETTE:
            low, bits = 0, 8 * stored.itemsize
        elif photometric in COLOUR:
            low = 0
        elif dataset.get("ModalityLUTSequence"):
            lookup = table(dataset.ModalityLUTSequence[0], low < 0, is_little(dataset))
            stored, low, bits = lookup.of(stored), 0, lookup.bits
        else:
            frames = range(len(stored)) if stored.ndim == 3 else range(1)
            falling = np.array([_rescale(dataset, frame)[0] < 0 for frame in frames])
            upside_down = falling != upside_down
    unit = stored.astype(np.float32)
    unit -= low
    unit /= np.float32((1 << bits) - 1)
    np.clip(unit, 0, 1, out=unit)
    if np.any(upside_down):
        by_frame = np.reshape(upside_down, (-1,) + (1,) * (unit.ndim - 1))
        np.subtract(1, unit, out=unit, where=by_frame if unit.ndim == 3 else True)
    return unit


def modality_values(dataset: "Dataset", stored: NDArray[Any]) -> Values:
    """Apply the Modality LUT, or rescale (C.11.1; per frame: C.7.6.16.2.9); colour has neither.

    Returns:
        float32 in the unit that the header names, in the shape of the stored values.

    Raises:
        SetAside: incomplete_header or unreadable_header.
    """
    values = stored.astype(np.float32)
    if _grey(dataset):
        with honest_header():
            for frame, (plain, scaled) in enumerate(zip(*_frames(stored, values), strict=True)):
                scaled[...] = _modality(dataset, plain, frame)
    return values


def displayed(dataset: "Dataset", stored: NDArray[Any]) -> Values:
    """What a workstation shows first: 0 (black) to 1 (white), in the shape of the stored values.

    Modality LUT, then the first VOI LUT or window (C.11.2), then polarity (MONOCHROME1 and a
    Presentation LUT Shape of INVERSE mean the same, and once). Where no usable window is declared,
    darkest to brightest of all frames, as workstations do.

    Raises:
        SetAside: incomplete_header or unreadable_header.
    """
    if not _grey(dataset):
        return as_seen(dataset, stored)
    shown = modality_values(dataset, stored)
    with honest_header():
        lowest, highest = float(shown.min()), float(shown.max())
        for frame, (values,) in enumerate(zip(*_frames(shown), strict=True)):
            values[...] = _of_interest(dataset, values, frame, lowest, highest)
        shape = str(dataset.get("PresentationLUTShape") or "")
        if dataset.PhotometricInterpretation == GREY[0] or shape == "INVERSE":
            np.subtract(1, shown, out=shown)
    return shown


def _grey(dataset: "Dataset") -> bool:
    with honest_header():
        return str(dataset.PhotometricInterpretation) in GREY


def _frames(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
    return [array if array.ndim == 3 else array[np.newaxis] for array in arrays]


def _modality(dataset: "Dataset", stored: NDArray[Any], frame: int) -> NDArray[Any]:
    if dataset.get("ModalityLUTSequence"):
        signed = bool(int(dataset.get("PixelRepresentation") or 0))
        return table(dataset.ModalityLUTSequence[0], signed, is_little(dataset)).of(stored)
    slope, intercept = _rescale(dataset, frame)
    return stored if (slope, intercept) == (1, 0) else stored * slope + intercept


def _rescale(dataset: "Dataset", frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame; of a dose grid, its scaling (C.8.8.3.4)."""
    item = _of_frame(dataset, "PixelValueTransformationSequence", frame)
    slope, intercept = item.get("RescaleSlope"), item.get("RescaleIntercept")
    if slope is None and intercept is None:
        slope = dataset.get("DoseGridScaling")
    return float(1 if slope is None else slope), float(intercept or 0)


def _of_frame(dataset: "Dataset", group: str, frame: int) -> "Dataset":
    """Where a frame's attributes are: a functional group (C.7.6.16), or the data set itself."""
    of_each = dataset.get("PerFrameFunctionalGroupsSequence") or []
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    for groups in (*of_each[frame : frame + 1], *shared[:1]):
        if groups.get(group):
            item: Dataset = groups[group][0]
            return item
    return dataset


def _of_interest(
    dataset: "Dataset", values: Values, frame: int, lowest: float, highest: float
) -> Any:
    """One frame's values through its VOI LUT or window, to 0..1."""
    item = _of_frame(dataset, "FrameVOILUTSequence", frame)
    if item.get("VOILUTSequence"):
        lookup = table(item.VOILUTSequence[0], lowest < 0, is_little(dataset))
        return np.minimum(lookup.of(values) / ((1 << lookup.bits) - 1), 1)
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    centre, width = _first(item.get("WindowCenter")), _first(item.get("WindowWidth"))
    if centre is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        function, centre, width = "LINEAR_EXACT", (lowest + highest) / 2, highest - lowest
    if function == "SIGMOID":  # C.11.2.1.3.1
        exponent = np.clip(-4 * (values - centre) / width, -80, 80)  # beyond, exp overflows
        return 1 / (1 + np.exp(exponent))
    if function == "LINEAR":  # C.11.2.1.2.1: half a value to the left, and one narrower
        centre, width = centre - 0.5, width - 1
    if not width:
        return values > centre
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _first(value: Any) -> float | None:
    """Of alternative views, the first."""
    if value is None or value == "":
        return None
    return float(value[0] if isinstance(value, list) or hasattr(value, "append") else value)
