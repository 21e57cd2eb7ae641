"""Text in the pixels: names that a device wrote where no rule for attributes reaches.

PS3.15 E.3.1 (Clean Pixel Data) leaves it to the site how such text is known. Here three things tell
of it: the header, rules for devices that the site wrote, and a text detector.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.deidentification.policy import Device, Region, TextInPixels
from imaging.reading.acquisition import text
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Devices and captures whose pixels commonly show names, unless the header denies it.
ANNOTATING = ("US", "SC", "XA", "OT", "DOC", "ES")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def declares_text(source: "Dataset") -> bool:
    """BurnedInAnnotation says anything but NO."""
    return (text(source, "BurnedInAnnotation") or "NO").upper() != "NO"


def may_show_text(source: "Dataset") -> bool:
    """Text in the pixels is declared, or is common on such a device and not ruled out."""
    declared = text(source, "BurnedInAnnotation")
    if declared is not None:
        return declares_text(source)
    sop_class = text(source, "SOPClassUID") or ""
    captured = sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + ".")
    return (text(source, "Modality") or "").upper() in ANNOTATING or captured


def text_regions(
    source: "Dataset | None", stored: NDArray[Any], policy: TextInPixels
) -> tuple[Region, ...]:
    """What is to be masked, or that the image is to be held.

    | the header says | a rule fits | detector | comes of it |
    |---|---|---|---|
    | RecognizableVisualFeatures not NO | any | any | held |
    | text, or nothing on such a device | no | off, or not trusted | held |
    | text | no | trusted, finds none | held: it overlooked what is there |
    | text | no | trusted, finds some | what it finds |
    | nothing, on such a device | no | trusted | what it finds |
    | anything | yes | off | the rule's regions |
    | anything | yes | on | the rule's regions, and what it finds |
    | no text, or nothing on another device | no | off | nothing |
    | no text, or nothing on another device | no | on | what it finds |

    "Such a device" is one of `ANNOTATING`, or a secondary capture. With the action `mask`, what
    comes of it is returned; with `hold`, anything at all to be masked holds the image. A rule
    without regions is the site's word that the device writes no text, and outranks the header's. A
    rule whose regions do not all lie within the picture was written for another: held.

    Args:
        source: None for a picture, which has no header: the last two rows, and rules by size.
        stored: Decoded pixels, in any shape that `dicom.stored_pixels` gives.
        policy: What to do.

    Raises:
        SetAside: burned_in_annotation.
        BadInput: The policy asks for `ocr`, and the extra is not installed.
    """
    declared = source is not None and declares_text(source)
    possible = source is not None and may_show_text(source)
    shows_face = source is not None and (
        (text(source, "RecognizableVisualFeatures") or "NO").upper() != "NO"
    )
    rows, columns = picture_size(stored)
    rule = next((d for d in policy.devices if _fits(d, source, rows, columns)), None)
    regions = rule.regions if rule else ()
    outside = any(r.y + r.height > rows or r.x + r.width > columns for r in regions)
    unanswered = possible and rule is None
    if shows_face or outside or (unanswered and not (policy.ocr and policy.trust_ocr)):
        raise SetAside("burned_in_annotation")
    if regions and policy.action == "hold":
        raise SetAside("burned_in_annotation")
    if policy.ocr:
        from imaging.deidentification.ocr import find_text

        regions += find_text(_as_seen(source, stored))
    overlooked = unanswered and declared and not regions
    if overlooked or (regions and policy.action == "hold"):
        raise SetAside("burned_in_annotation")
    return regions


def masked(
    stored: NDArray[Any], regions: tuple[Region, ...], source: "Dataset | None" = None
) -> NDArray[Any]:
    """A copy whose regions hold one value: the darkest that each frame shows, or black in colour.

    The darkest of the picture, not of its bits: a CT's air stays the darkest there is, and no
    statistic's range grows.

    Args:
        stored: Decoded pixels, in any shape that `dicom.stored_pixels` gives.
        regions: From `text_regions`; the same in every frame.
        source: Says whether low values are dark; without it they are.
    """
    copy = np.array(stored)
    coloured = has_colour(stored)
    frames, shown = copy, stored if source is None else _as_seen(source, stored)
    if copy.ndim == (3 if coloured else 2):
        frames, shown = copy[None], shown[None]
    for frame, seen in zip(frames, shown, strict=True):  # views of the copy
        darkest = 0 if coloured else frame.flat[int(seen.argmin())]
        for region in regions:
            rows = slice(region.y, region.y + region.height)
            frame[rows, region.x : region.x + region.width] = darkest
    return copy


def has_colour(stored: NDArray[Any]) -> bool:
    """The last axis holds red, green and blue."""
    return stored.ndim == 4 or (stored.ndim == 3 and stored.shape[-1] == 3)


def picture_size(stored: NDArray[Any]) -> tuple[int, int]:
    """Rows and columns."""
    shape = stored.shape[:-1] if has_colour(stored) else stored.shape
    return shape[-2], shape[-1]


def _fits(device: Device, source: "Dataset | None", rows: int, columns: int) -> bool:
    texts = {
        "Modality": device.modality,
        "Manufacturer": device.manufacturer,
        "ManufacturerModelName": device.model_name,
    }
    said = {name: (source is not None and text(source, name)) or "" for name in texts}
    return (
        all(want is None or said[n].lower() == want.lower() for n, want in texts.items())
        and device.rows in (None, rows)
        and device.columns in (None, columns)
    )


def _as_seen(source: "Dataset | None", stored: NDArray[Any]) -> NDArray[np.float32]:
    from imaging.reading import dicom

    return stored.astype(np.float32) if source is None else dicom.as_seen(source, stored)
