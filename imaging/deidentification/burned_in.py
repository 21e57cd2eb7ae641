"""Text in the pixels: names that a device wrote where no rule for attributes reaches."""

from typing import TYPE_CHECKING

from imaging.acquisition import text

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Devices and captures whose pixels commonly show names, unless the header denies it.
ANNOTATING = ("US", "SC", "XA", "OT", "DOC", "ES")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def may_show_text(source: "Dataset") -> bool:
    """Text in the pixels is declared, or is common on such a device and not ruled out."""
    declared = text(source, "BurnedInAnnotation")
    if declared is not None:
        return declared.upper() != "NO"
    sop_class = text(source, "SOPClassUID") or ""
    captured = sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + ".")
    return text(source, "Modality") in ANNOTATING or captured
