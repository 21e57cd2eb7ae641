"""What identified the patient in a source: strings and values that no written file may hold."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from imaging.deidentification import spellings
from imaging.deidentification.policy import CID_7050, DeidentificationPolicy
from imaging.deidentification.verifying.rules import DAYS, DEFAULT_POLICY, TIMES, rules_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Place = tuple[str, int, int | None]  # of a private element: creator, group, place in the block
NUMERIC = {"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
BYTES = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
PATIENT_ID = 0x00100020

_DIRECT = {  # whole values that point at a person or a place
    "AccessionNumber", "AdmissionID", "DetectorID", "DeviceSerialNumber",
    "FillerOrderNumberImagingServiceRequest", "GantryID", "InstitutionAddress", "InstitutionName",
    "InstitutionalDepartmentName", "IssuerOfPatientID", "MedicalRecordLocator", "OtherPatientIDs",
    "PatientAddress", "PatientID", "PatientTelephoneNumbers", "PersonAddress",
    "PersonTelephoneNumbers", "PlacerOrderNumberImagingServiceRequest", "PlateID",
    "StationName",
}  # fmt: skip
_WHOLE_TEXT = {"LT", "ST", "UT", "UR"}  # a backslash divides nothing


@dataclass(frozen=True)
class Source:
    """What identified the patient in a source file; lives in memory only.

    Attributes:
        identifiers: Strings that must not turn up again, each with the attribute it came from.
        values: Non-empty values by tag, as text, of what the table or its kind says is told.
        pixels: `pixels.pixel_digest` of the image as it must be seen in the written file.
        spelled: Whole values as bytes that a program may have made of them.
        codes: What earlier de-identifications said of themselves (CID 7050).
        burned_in: BurnedInAnnotation.
        declared_safe: Private elements, or whole blocks, of which the source says that they
            identify nobody (0008,0300).
    """

    identifiers: Mapping[str, str]
    values: Mapping[int, frozenset[str]]
    pixels: str
    spelled: Mapping[bytes, str]
    codes: tuple[str, ...]
    burned_in: str
    declared_safe: frozenset[Place]


def describe(
    source: "Dataset", pixels: str, policy: DeidentificationPolicy = DEFAULT_POLICY
) -> Source:
    """Collect from a source data set, at every level, what must not survive."""
    rules = rules_of(policy)
    identifiers: dict[str, str] = {}
    spelled: dict[bytes, str] = {}
    values: dict[int, set[str]] = {}
    days: dict[str, str] = {}
    kept_days: set[str] = set()  # a child may be examined on the day of its birth
    for tag, vr, texts in _told(source):
        values.setdefault(tag, set()).update(texts)
        if tag in rules.kept:
            kept_days.update(day for text in texts if vr in DAYS for day in _day(text))
            continue
        if vr in DAYS and policy.dates == "full" and tag not in rules.actions:
            continue
        name = name_of(tag)
        for text in texts:
            for word in _identifying(vr, name, text):
                (days if vr in DAYS else identifiers).setdefault(word, name)
            if vr == "PN" or tag == PATIENT_ID:
                spelled.update(dict.fromkeys(spellings.encoded(text), name))
    return Source(
        {day: name for day, name in days.items() if day not in kept_days} | identifiers,
        {tag: frozenset(found) for tag, found in values.items()},
        pixels,
        spelled,
        codes_of(source),
        " ".join(texts_of(source.get("BurnedInAnnotation"))),
        frozenset(_declared_safe(source)),
    )


def whole_number(value: Any) -> str | None:
    """A number without a fraction in its shortest spelling: 7651234 for "+07651234.0"."""
    try:
        number = Decimal(str(value).strip(" \0"))
    except InvalidOperation:
        return None
    whole = number.is_finite() and abs(number) < 10**18 and number == number.to_integral_value()
    return str(abs(int(number))) if whole else None


def _told(source: "Dataset") -> Iterator[tuple[int, str, list[str]]]:
    """Of each element that tells of somebody: its tag, VR and non-empty texts.

    Most values are plain ASCII, and are read here without pydicom's conversion, which is most of
    what reading a small file costs.
    """
    waiting = [source]
    while waiting:
        level = waiting.pop()
        for raw in list(level.values()):
            tag, vr, value = int(raw.tag), raw.VR, raw.value
            read = _how_to_read(tag, vr)
            if not read:
                continue
            # ISO 2022 is ASCII between escapes, too.
            plain = isinstance(value, bytes) and value.isascii() and b"\x1b" not in value
            if not plain or read == "convert":
                yield from _converted(level, tag, waiting, value)
                continue
            text = value.decode("ascii")
            texts = [text] if read == "whole" else text.split("\\")
            if found := [t for t in (t.strip(" \0") for t in texts) if t]:
                yield tag, vr or _dictionary_vr(tag), found


@lru_cache(maxsize=2**16)
def _how_to_read(tag: int, declared: str | None) -> Literal["", "whole", "split", "convert"]:
    """Whether an element may tell of somebody, and whether its bytes are text as they stand."""
    vr = declared or _dictionary_vr(tag)
    if vr in ("SQ", "UN"):
        return "convert"
    listed = tag in rules_of(DEFAULT_POLICY).actions and vr not in BYTES
    if not listed and vr not in TIMES | {"UI", "PN"}:
        return ""
    if vr in NUMERIC:
        return "convert"
    return "whole" if vr in _WHOLE_TEXT else "split"


def _dictionary_vr(tag: int) -> str:
    from pydicom.datadict import DicomDictionary

    return str(DicomDictionary.get(tag, ("UN",))[0])


def _converted(
    level: "Dataset", tag: int, waiting: list["Dataset"], raw: Any
) -> Iterator[tuple[int, str, list[str]]]:
    """The same by pydicom; a name in letters of another character set than declared, in both."""
    try:
        element = level[tag]
    except (MemoryError, RecursionError):  # it may decode next time: nobody may go on without it
        raise
    except Exception:  # of numbers, items and what is not ASCII pydicom raises whatever it likes;
        return  # the cleaning keeps out what does not decode
    if element.VR == "SQ":
        waiting.extend(element.value)
    texts = [t for t in texts_of(element.value) if t]
    if element.VR == "PN" and isinstance(raw, bytes):
        texts += [t for codec in ("utf-8", "latin-1") if (t := _decoded(raw, codec))]
    if texts:
        yield tag, element.VR, texts


def _decoded(raw: bytes, codec: str) -> str:
    try:
        return raw.decode(codec).strip(" \0")
    except UnicodeDecodeError:
        return ""


def _identifying(vr: str, name: str, text: str) -> tuple[str, ...]:
    """The strings of one value that would give the patient away, short of coincidences."""
    from pydicom._uid_dict import UID_dictionary

    if vr == "UI":
        told = len(text) >= spellings.NUMBER and text not in UID_dictionary
        return (text.lower(),) if told else ()
    if vr in DAYS:
        return _day(text)
    if vr == "PN":
        return spellings.of_name(text)
    return spellings.of_number(text) if name in _DIRECT else ()


def _day(text: str) -> tuple[str, ...]:
    digits = text.replace(".", "")[:8]
    return (digits,) if len(digits) == 8 and digits.isdigit() else ()


def _declared_safe(source: "Dataset") -> Iterator[Place]:
    for item in _items(source, "PrivateDataElementCharacteristicsSequence"):
        creator, group = (
            str(item.get("PrivateCreatorReference", "")),
            item.get("PrivateGroupReference"),
        )
        if not isinstance(group, int):
            continue
        if item.get("BlockIdentifyingInformationStatus") == "SAFE":
            yield creator, group, None
        else:
            places = item.get("NonidentifyingPrivateElements") or ()
            for place in [places] if isinstance(places, int) else places:
                yield creator, group, int(place) & 0xFF


def _items(dataset: "Dataset", keyword: str) -> "list[Dataset]":
    """Of a sequence, if that is what lies there."""
    from pydicom.sequence import Sequence

    value = dataset.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def codes_of(dataset: "Dataset") -> tuple[str, ...]:
    """The codes of CID 7050 that a data set names, of whatever time."""
    items = _items(dataset, "DeidentificationMethodCodeSequence")
    named = [(item.get("CodingSchemeDesignator"), str(item.get("CodeValue"))) for item in items]
    return tuple(code for scheme, code in named if scheme == "DCM" and code in CID_7050)


def texts_of(value: Any) -> list[str]:
    """Values as text without padding; bytes and items say nothing here."""
    from pydicom.dataset import Dataset
    from pydicom.multival import MultiValue
    from pydicom.sequence import Sequence

    if value is None or isinstance(value, bytes):
        return []
    if isinstance(value, str):
        return [value.strip(" \0")]
    several = value if isinstance(value, list | tuple | MultiValue | Sequence) else [value]
    return [str(v).strip(" \0") for v in several if not isinstance(v, Dataset)]


@lru_cache(maxsize=2**16)
def name_of(tag: int) -> str:
    """An attribute's keyword, or its tag in hex digits."""
    from pydicom.datadict import DicomDictionary

    known = DicomDictionary.get(tag)
    return (known and known[4]) or f"{tag:08X}"
