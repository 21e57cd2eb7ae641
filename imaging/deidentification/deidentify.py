"""De-identification: a new data set is built from what may stay, at every level of nesting.

Nothing is deleted from the source; what no rule lets through never reaches the copy. Codes, options
and markers follow PS3.15 Annex E; see `profile.py` for the rules and `verify.py` for the check of
what was written.
"""

import re
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.deidentification import profile
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.deidentification.verify import NUMERIC, whole_number
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

TOOL = "Lightbox 0.1"
IMPLEMENTATION_UID = "2.25.201944330587114215921834187406392617411"
OLDEST_AGE = 89  # years; beyond, 45 CFR 164.514(b)(2)(i)(C) wants one group
STANDARD_CODING = ("DCM", "SCT", "SRT", "SNM3", "UCUM", "LN", "RADLEX", "FMA")

_CODE = re.compile(r"[A-Z0-9 _]{0,16}")
_CODE_VALUE = re.compile(r"[A-Za-z0-9.-]{1,16}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")


@dataclass(frozen=True)
class Cleaner:
    """Copies what may stay of one patient's data set.

    Attributes:
        mention: From `verify.mention`: a text that would be kept and matches is emptied; a code or
            number that matches holds the whole file back.
    """

    pseudonyms: Pseudonyms
    patient_id: str
    mention: re.Pattern[bytes]

    def clean(self, source: "Dataset") -> "Dataset":
        """Copy one level, and through it all below."""
        from pydicom.datadict import DicomDictionary
        from pydicom.dataset import Dataset

        target = Dataset()
        for tag in sorted(source.keys()):
            declared = source.get_item(tag).VR
            if declared in (None, "UN"):  # implicit, or written by somebody without a dictionary
                declared = DicomDictionary.get(tag, ("UN",))[0]
            if profile.decide(int(tag), declared) == "remove":
                continue  # before its value is even decoded
            try:
                element = source[tag]
                action = profile.decide(int(tag), element.VR)
                value = self._replaced(action, element)
            except (SetAside, MemoryError, RecursionError):
                raise
            except Exception:
                value = None  # what does not decode cannot be judged: it stays out
            if value is not None:
                target.add_new(tag, element.VR, value)
        return _with_standard_codes_only(target)

    def _replaced(self, action: profile.Action, element: Any) -> Any:
        """The value to write, or None to write no such attribute."""
        from pydicom.dataset import Dataset

        vr, value = element.VR, element.value
        if action == "remove":
            return None
        if action == "empty":
            return [] if vr == "SQ" else ""
        if action == "dummy":
            return [Dataset()] if vr == "SQ" else profile.DUMMIES.get(vr)
        if action == "enter" or vr == "SQ":
            return [self.clean(item) for item in value]
        if action == "uid":
            values = [self.pseudonyms.uid(str(v)) for v in _several(value)]
            return values if len(values) > 1 else "".join(values)
        if action == "shift":
            return self._shifted(vr, value)
        return self._kept(vr, value)

    def _shifted(self, vr: str, value: Any) -> Any:
        """Dates moved; of a DT only the day stays, and what is no date is emptied."""
        moved = []
        for text in _several(value):
            match = (_DATE.fullmatch if vr == "DA" else _DATE.match)(str(text).strip(" \0"))
            try:
                day = date(*map(int, match.groups())) if match else None
                earlier = day - self.pseudonyms.shift(self.patient_id) if day else None
            except (ValueError, OverflowError):
                earlier = None
            if earlier is None:
                return ""
            moved.append(f"{earlier.year:04d}{earlier:%m%d}")
        return moved if len(moved) > 1 else "".join(moved)

    def _kept(self, vr: str, value: Any) -> Any:
        texts = [str(v).strip() for v in _several(value)] if not isinstance(value, bytes) else []
        if vr == "CS" and not all(map(_CODE.fullmatch, texts)):
            return None  # more than a code
        if vr == "AS":
            return _capped_age(texts)
        if vr in ("DS", "IS"):
            _ = [float(text) for text in texts if text]  # raises for more than a number
        if vr in NUMERIC:  # 7651234.0 is the identifier 7651234, too
            texts += [number for text in texts if (number := whole_number(text))]
        said = [value] if isinstance(value, bytes) else [text.lower().encode() for text in texts]
        if any(map(self.mention.search, said)):
            if vr in ("LO", "SH"):
                return ""  # a hospital called like the maker of its scanners
            raise SetAside("residual_identity")
        return value


def deidentify(
    source: "Dataset",
    stored: NDArray[Any],
    pseudonyms: Pseudonyms,
    mention: re.Pattern[bytes],
) -> "Dataset":
    """Build the de-identified instance of one grey frame.

    Pixels are written uncompressed: a codestream may carry comments and application segments that
    no attribute rule reaches, and later steps then need no decoder that could abort.

    Args:
        source: With PatientID and SOPInstanceUID; left untouched.
        stored: Decoded pixels, integers (H, W), before rescaling.
        pseudonyms: Keyed names.
        mention: From `imaging.deidentification.verify.mention(identifiers)`.

    Raises:
        SetAside: incomplete_header or residual_identity.
    """
    from pydicom.dataset import Dataset, FileMetaDataset

    if not source.get("SOPClassUID"):
        raise SetAside("incomplete_header")
    bits_stored = int(source.get("BitsStored") or source.BitsAllocated)
    patient_id = str(source.PatientID)
    target = Cleaner(pseudonyms, patient_id, mention).clean(source)

    target.SpecificCharacterSet = "ISO_IR 192"
    target.PatientName = target.PatientID = pseudonyms.patient(patient_id)
    target.PatientIdentityRemoved = "YES"
    target.LongitudinalTemporalInformationModified = "MODIFIED"
    target.DeidentificationMethod = method()
    target.DeidentificationMethodCodeSequence = []
    for value, meaning in profile.APPLIED.items():
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
        target.DeidentificationMethodCodeSequence.append(item)

    pixels = np.ascontiguousarray(stored, dtype=stored.dtype.newbyteorder("<"))
    target.Rows, target.Columns = pixels.shape
    target.BitsAllocated = 8 * pixels.itemsize
    target.BitsStored, target.HighBit = bits_stored, bits_stored - 1
    data = pixels.tobytes()
    vr = "OB" if pixels.itemsize == 1 else "OW"
    target.add_new("PixelData", vr, data + b"\0" * (len(data) % 2))

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = target.SOPClassUID
    meta.MediaStorageSOPInstanceUID = target.SOPInstanceUID
    meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    meta.ImplementationVersionName = "LIGHTBOX"
    target.file_meta = meta
    return target


def method() -> list[str]:
    """DeidentificationMethod: tool, standard and edition, rules; each within LO's 64 characters."""
    return [TOOL, f"PS3.15 Table E.1-1 {profile.EDITION}", f"policy {profile.policy_digest()[:32]}"]


def encode(dataset: "Dataset") -> bytes:
    """A Part 10 file in Explicit VR Little Endian with a zeroed preamble.

    Raises:
        SetAside: not_rewritable.
    """
    import pydicom

    buffer = BytesIO()
    try:
        pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    except MemoryError:
        raise SetAside("too_large") from None
    except Exception:  # pydicom's writer raises anything, and what it says may quote a value
        raise SetAside("not_rewritable") from None
    return buffer.getvalue()


def age_years(text: str | None) -> float | None:
    """An Age String (PS3.5 6.2, such as 045Y or 018M) in years."""
    match = _AGE.fullmatch(text or "")
    return int(match[1]) / _PER_YEAR[match[2]] if match else None


def capped_age_years(years: float) -> float:
    """Ages over 89 become 90: one group for all of them."""
    return 90.0 if years >= OLDEST_AGE + 1 else years


def _capped_age(texts: list[str]) -> str | None:
    years = age_years("".join(texts))
    if years is None:
        return None
    return "090Y" if capped_age_years(years) == OLDEST_AGE + 1 else "".join(texts)


def _with_standard_codes_only(item: "Dataset") -> "Dataset":
    """A code of a standard scheme stays, with a neutral meaning; any other goes."""
    if "CodeValue" not in item and "CodingSchemeDesignator" not in item:
        return item
    standard = str(item.get("CodingSchemeDesignator", "")) in STANDARD_CODING
    if standard and _CODE_VALUE.fullmatch(str(item.get("CodeValue", ""))):
        item.CodeMeaning = "see code value"  # type 1 in a code item (PS3.3 table 8.8-1)
        return item
    for keyword in ("CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion"):
        if keyword in item:
            delattr(item, keyword)
    return item


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return (
        list(value)
        if not isinstance(value, str | bytes) and hasattr(value, "__iter__")
        else [value]
    )
