"""The check of what was written: it opens the file again and shares no rule with the cleaning.

It reads Table E.1-1 itself, knows what identified the patient in the source, and looks for that in
the attributes and in the raw bytes. What it reports are attribute names, never values.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging.deidentification import spellings
from imaging.deidentification.body_parts import BODY_PARTS
from imaging.deidentification.policy import CID_7050, DeidentificationPolicy
from imaging.deidentification.spellings import Mention
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CHECKS = ("attributes", "table", "dates", "markers", "file_meta", "strings", "pixels")
_Place = tuple[str, int, int | None]  # of a private element: creator, group, place in the block
DEFAULT_POLICY = DeidentificationPolicy()
NUMERIC = {"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}

_DIRECT = {  # whole values that point at a person or a place
    "AccessionNumber", "AdmissionID", "DetectorID", "DeviceSerialNumber",
    "FillerOrderNumberImagingServiceRequest", "GantryID", "InstitutionAddress", "InstitutionName",
    "InstitutionalDepartmentName", "IssuerOfPatientID", "MedicalRecordLocator", "OtherPatientIDs",
    "PatientAddress", "PatientID", "PatientTelephoneNumbers", "PersonAddress",
    "PersonTelephoneNumbers", "PlacerOrderNumberImagingServiceRequest", "PlateID",
    "StationName",
}  # fmt: skip
_DAYS, _TIMES = {"DA", "DT"}, {"DA", "DT", "TM"}
_BYTES = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
_SHORT_TEXT = {"LO", "SH", "AE"}
_LONG_TEXT = {"LT", "ST", "UC", "UR", "UT", "UN"}
_WHOLE_TEXT = {"LT", "ST", "UT", "UR"}  # a backslash divides nothing
_HARMLESS_TEXT = {
    "DeidentificationMethod", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "ConvolutionKernel", "RescaleType", "ModalityLUTType", "CodeValue", "CodingSchemeDesignator",
    "CodingSchemeVersion", "CodeMeaning", "PatientID", "EthnicGroup",
}  # fmt: skip
_HARMLESS_BYTES = {"LUTData"}
_SCHEMES = {"DCM", "SCT", "SRT", "SNM3", "UCUM", "LN", "RADLEX", "FMA"}  # others are a site's own
_MEANINGLESS = "see code value"  # CodeMeaning, which must not be absent
_EMPTY_MEANING = {"ANONYMIZED", "000Y", "19000101", "000000", "0"}
_PATIENT_ID, _BODY_PART, _PIXEL_DATA = 0x00100020, 0x00180015, 0x7FE00010

# The settings under which each code of CID 7050 is written.
_BASIC, _CLEAN_PIXELS = "113100", "113101"
_RETAINED = {  # the setting: its code, and its column in the table
    "patient_characteristics": ("113108", "retain_patient_characteristics"),
    "device_identity": ("113109", "retain_device_identity"),
    "uids": ("113110", "retain_uids"),
    "institution_identity": ("113112", "retain_institution_identity"),
}
_OUR_WORDS = (
    *CID_7050.values(), _MEANINGLESS, "ANONYMIZED", "UNMODIFIED", "MODIFIED", "REMOVED",
    "LIGHTBOX", "ISO_IR 192",
)  # fmt: skip
# Values of ours that a patient's or an accession number may equal, by the attribute they stand in.
_OUR_VALUES = {
    "PatientIdentityRemoved": {"YES"},
    "CodingSchemeDesignator": {"DCM"},
    "CodeValue": CID_7050.keys(),
}


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
    declared_safe: frozenset[_Place]


@dataclass(frozen=True, order=True)
class Leak:
    """One thing wrong with a written file: the check that found it, and the attribute."""

    check: str
    attribute: str


@dataclass(frozen=True)
class _Rules:
    """Table E.1-1 under a policy, in this file's own reading.

    Attributes:
        actions: Of the basic profile, by tag.
        kept: Tags that an option keeps whole.
        words: What descriptions may say.
        codes: What DeidentificationMethodCodeSequence must say.
    """

    actions: Mapping[int, str]
    kept: frozenset[int]
    words: frozenset[str]
    codes: tuple[str, ...]


def describe(
    source: "Dataset", pixels: str, policy: DeidentificationPolicy = DEFAULT_POLICY
) -> Source:
    """Collect from a source data set, at every level, what must not survive."""
    rules = _rules(policy)
    identifiers: dict[str, str] = {}
    spelled: dict[bytes, str] = {}
    values: dict[int, set[str]] = {}
    for tag, vr, texts in _told(source):
        values.setdefault(tag, set()).update(texts)
        if tag in rules.kept or (vr in _DAYS and policy.dates == "full"):
            continue
        name = _name(tag)
        for text in texts:
            for word in _identifying(vr, name, text):
                identifiers.setdefault(word, name)
            if vr == "PN" or tag == _PATIENT_ID:
                spelled.update(dict.fromkeys(spellings.encoded(text), name))
    return Source(
        identifiers,
        {tag: frozenset(found) for tag, found in values.items()},
        pixels,
        spelled,
        _codes(source),
        " ".join(_texts(source.get("BurnedInAnnotation"))),
        frozenset(_declared_safe(source)),
    )


def mention(identifiers: Mapping[str, str], spelled: Iterable[bytes] = ()) -> Mention:
    """What finds any of a source's identifiers in the UTF-8 of a text, or in bytes."""
    return spellings.mention(identifiers, spelled)


def whole_number(value: Any) -> str | None:
    """A number without a fraction in its shortest spelling: 7651234 for "+07651234.0"."""
    try:
        number = Decimal(str(value).strip(" \0"))
    except InvalidOperation:
        return None
    whole = number.is_finite() and abs(number) < 10**18 and number == number.to_integral_value()
    return str(abs(int(number))) if whole else None


def verify(
    path: Path,
    before: Source,
    pseudonym: str,
    method: list[str],
    policy: DeidentificationPolicy = DEFAULT_POLICY,
) -> list[Leak]:
    """Open a written DICOM file and look for anything that should not be in it.

    Args:
        path: The de-identified file.
        before: From `describe`, of the file that it was made from.
        pseudonym: What PatientID and PatientName must be.
        method: What DeidentificationMethod must be.
        policy: What was to be done.

    Returns:
        Leaks, sorted; empty when the file is clean.
    """
    import pydicom

    data = path.read_bytes()
    rules = _rules(policy)
    dataset = pydicom.dcmread(BytesIO(data))
    if _PIXEL_DATA not in dataset:
        return [Leak("pixels", "PixelData")]
    raw_pixels = dataset.get_item(_PIXEL_DATA)
    start, stop = raw_pixels.value_tell, raw_pixels.value_tell + raw_pixels.length
    unreadable: list[int] = []
    leaks: set[Leak] = set()
    said: list[str] = []  # texts that nothing but the string search can judge
    ours = {pseudonym, *method, *_texts(dataset.file_meta.get("ImplementationClassUID"))}
    moved: list[tuple[str, set[int]]] = []
    for tag, element, level in _walk(dataset, unreadable):
        if tag == _PIXEL_DATA:
            continue
        texts = [text for text in _texts(element.value) if text]
        check = _judge(tag, element, texts, level, before, pseudonym, policy, rules)
        if check:
            leaks.add(Leak(check, _name(tag)))
        elif element.VR in _DAYS | {"UI"}:
            ours.update(texts)
            days = set(texts) - _EMPTY_MEANING if element.VR in _DAYS else None
            if days and policy.dates == "modified":
                moved.append((_name(tag), _shifts(before.values.get(tag, frozenset()), days)))
        elif tag == _BODY_PART and BODY_PARTS.issuperset(texts):
            ours.update(texts)  # a patient may be called Chest
        elif texts and _OUR_VALUES.get(element.keyword, set()) >= set(texts):
            # Short ones are not looked for in bytes, and blanked there they would break a Reyes.
            ours.update(text for text in texts if len(text) >= spellings.INSIDE)
            continue
        said += [text for text in texts if text not in ours]
        if element.VR in NUMERIC and any(whole_number(t) in before.identifiers for t in texts):
            leaks.add(Leak("strings", _name(tag)))
    # What cannot be judged is not clean: our own writer leaves nothing that does not decode.
    leaks |= {Leak("attributes", f"{tag:08X}") for tag in unreadable}
    leaks |= {Leak("dates", name) for name in _not_moved_together(moved)}
    leaks |= {Leak("markers", name) for name in _wrong_markers(dataset, before, method, policy)}
    leaks |= {Leak("file_meta", name) for name in _wrong_meta(dataset, data)}
    leaks |= {Leak("pixels", name) for name in _wrong_pixels(dataset, data[start:stop], before)}

    wanted = mention(before.identifiers)
    found = set(wanted.found(_blank("\n".join(said).encode(errors="replace"), set())))
    # Bytes outside the pixels, less what is ours: generated names may hold any digits.
    rest = _blank(data[:start] + data[stop:], ours)
    found |= set(wanted.found_in_bytes(rest))
    leaks |= {Leak("strings", before.identifiers[word.decode()]) for word in found}
    leaks |= {Leak("strings", name) for word, name in before.spelled.items() if word in rest}
    return sorted(leaks)


def verify_picture(path: Path, pixels: str) -> list[Leak]:
    """A written PNG may hold its size, its pixels and its end: any other chunk is a leak."""
    from imaging.reading.pixels import pixel_digest, scale_picture, stored_picture

    data, position, leaks = path.read_bytes(), 8, []
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            leaks.append(Leak("attributes", f"PNG chunk {kind.decode('latin-1')}"))
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    if position != len(data):
        leaks.append(Leak("attributes", "bytes behind the PNG"))
    if pixel_digest(scale_picture(stored_picture(data, colour=True))) != pixels:
        leaks.append(Leak("pixels", "IDAT"))
    return sorted(leaks)


@cache
def _rules(policy: DeidentificationPolicy) -> _Rules:
    keeping = {_RETAINED[name][1] for name in policy.retain}
    actions, kept = {}, set()
    with Path(__file__).with_name("ps315_basic_profile.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if not re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row["tag"]):
                continue
            tag = int(row["tag"][1:5] + row["tag"][6:10], 16)
            actions[tag] = row["basic_profile_2026c"]
            # One rule for all times, whomever they tell of.
            timed = row["vr"] in _TIMES or row["keyword"] == "TimezoneOffsetFromUTC"
            full = {"retain_long_full_dates"} if policy.dates == "full" else set()
            if any(row[column] == "K" for column in (full if timed else keeping)):
                kept.add(tag)
    codes = {_BASIC, *(_RETAINED[name][0] for name in policy.retain)}
    codes |= {"modified": {"113107"}, "full": {"113106"}, "removed": set()}[policy.dates]
    codes |= {"113105"} if policy.descriptors else set()
    codes |= {"113111"} if policy.safe_private or policy.declared_safe_private else set()
    words = frozenset(word for text in policy.descriptors for word in _words(text))
    return _Rules(actions, frozenset(kept), words, tuple(sorted(codes)))


def _judge(
    tag: int,
    element: Any,
    texts: list[str],
    level: "Dataset",
    before: Source,
    pseudonym: str,
    policy: DeidentificationPolicy,
    rules: _Rules,
) -> Literal["attributes", "table"] | None:
    """The check that one element of a written file fails, if any."""
    from pydicom._uid_dict import UID_dictionary
    from pydicom.datadict import dictionary_has_tag

    vr, name, group = element.VR, element.keyword, tag >> 16
    if group & 1:
        safe = vr != "PN" and _safe_private(tag, level, before, policy)
        return None if safe else "attributes"
    if group & 0xFF00 in (0x5000, 0x6000) or not dictionary_has_tag(tag):
        return "attributes"
    meaningful = set(texts) - _EMPTY_MEANING
    if vr == "PN" or tag == _PATIENT_ID:
        return None if meaningful <= {pseudonym} else "attributes"
    kept = tag in rules.kept
    survived = before.values.get(tag, frozenset()) & meaningful
    if vr == "UI":
        made = all(t in UID_dictionary or t.startswith("2.25.") for t in texts)
        if not made and not (kept and meaningful <= before.values.get(tag, frozenset())):
            return "attributes"
        return "table" if survived - UID_dictionary.keys() and not kept else None
    if vr == "AS" and policy.ages_above_89 == "grouped" and any(map(_too_old, texts)):
        return "attributes"
    if vr in _TIMES:
        return _judge_time(tag, vr, meaningful, survived, policy, rules)
    described = bool(rules.words) and all(
        word in rules.words for text in meaningful for word in _words(text)
    )
    free = vr in _LONG_TEXT or (vr in _SHORT_TEXT and name not in _HARMLESS_TEXT)
    if free and meaningful and not described and not kept:
        return "attributes"
    if name == "CodeMeaning" and not meaningful <= {_MEANINGLESS, *CID_7050.values()}:
        return "attributes"
    if name == "CodeValue" and str(level.get("CodingSchemeDesignator")) not in _SCHEMES:
        return "attributes"
    if vr in _BYTES and name not in _HARMLESS_BYTES:
        return "attributes"
    if tag in rules.actions and not kept and not (meaningful and described):
        action = rules.actions[tag]
        filled = bool(texts) or (vr == "SQ" and len(element.value) > 0)
        if action == "X" or (action == "Z" and filled) or survived:
            return "table"
    return None


def _judge_time(
    tag: int,
    vr: str,
    meaningful: Set[str],
    survived: Set[str],
    policy: DeidentificationPolicy,
    rules: _Rules,
) -> Literal["table"] | None:
    """A day or a time: gone, another one, or as it was, as the policy wants it."""
    if policy.dates == "full" and (tag in rules.kept or tag not in rules.actions):
        return None
    moves = policy.dates == "modified" and vr in _DAYS
    return "table" if survived or (meaningful and not moves) else None


def _safe_private(
    tag: int, level: "Dataset", before: Source, policy: DeidentificationPolicy
) -> bool:
    """E.3.10: the policy names this element of this creator, or the file itself did."""
    group, low = tag >> 16, tag & 0xFFFF
    safe: set[_Place] = {
        (creator, int(place[1:5], 16), int(place[-3:-1], 16))
        for creator, places in policy.safe_private.items()
        for place in places
    }
    if policy.declared_safe_private:
        safe |= before.declared_safe
    if 0x10 <= low <= 0xFF:
        return _first_text(level, tag) in {creator for creator, _, _ in safe}
    creator = _first_text(level, group << 16 | low >> 8)
    return not safe.isdisjoint({(creator, group, low & 0xFF), (creator, group, None)})


def _first_text(level: "Dataset", tag: int) -> str:
    return next(iter(_texts(level[tag].value)), "") if tag in level else ""


def _too_old(age: str) -> bool:
    return age[-1:] == "Y" and age > "090Y"


def _shifts(before: frozenset[str], texts: set[str]) -> set[int]:
    """Days by which each text may have been moved, given what stood in its attribute before."""
    days = {day for text in before if (day := _ordinal(text))}
    return {day - after for text in texts if (after := _ordinal(text)) for day in days}


def _ordinal(text: str) -> int | None:
    digits = text.replace(".", "")[:8]
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).toordinal()
    except ValueError:
        return None


def _not_moved_together(moved: list[tuple[str, set[int]]]) -> Iterator[str]:
    """All days of one patient move by the same distance, and not by none (PS3.15 E.3.6)."""
    if not moved:
        return
    common = set.intersection(*(shifts for _, shifts in moved)) - {0}
    if not common:
        yield from {name for name, _ in moved}


def _wrong_markers(
    dataset: "Dataset", before: Source, method: list[str], policy: DeidentificationPolicy
) -> Iterator[str]:
    dates = {"removed": "REMOVED", "modified": "MODIFIED", "full": "UNMODIFIED"}[policy.dates]
    wanted = {
        "PatientIdentityRemoved": ["YES"],
        "LongitudinalTemporalInformationModified": [dates],
        "DeidentificationMethod": method,
        "SpecificCharacterSet": ["ISO_IR 192"],
    }
    for name, value in wanted.items():
        if _texts(dataset.get(name)) != value:
            yield name
    codes = _codes(dataset)
    earlier, new = codes[: len(before.codes)], codes[len(before.codes) :]
    if earlier != before.codes or {*new} - {_CLEAN_PIXELS} != {*_rules(policy).codes}:
        yield "DeidentificationMethodCodeSequence"
    burned_in = _texts(dataset.get("BurnedInAnnotation"))
    if burned_in == ["NO"] and before.burned_in != "NO" and _CLEAN_PIXELS not in new:
        yield "BurnedInAnnotation"


def _wrong_meta(dataset: "Dataset", data: bytes) -> Iterator[str]:
    meta = dataset.file_meta
    if data[:128] != bytes(128):
        yield "preamble"
    wanted = {
        "MediaStorageSOPClassUID": dataset.get("SOPClassUID"),
        "MediaStorageSOPInstanceUID": dataset.get("SOPInstanceUID"),
        "TransferSyntaxUID": "1.2.840.10008.1.2.1",
        "ImplementationVersionName": "LIGHTBOX",
    }
    yield from (name for name, value in wanted.items() if meta.get(name) != value)
    if not str(meta.get("ImplementationClassUID")).startswith("2.25."):
        yield "ImplementationClassUID"
    allowed = {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013}
    yield from (f"{int(tag):08X}" for tag in meta.keys() - allowed)


def _wrong_pixels(dataset: "Dataset", written: bytes, before: Source) -> Iterator[str]:
    """The picture is what it was, and its element holds nothing else, in no bit."""
    import numpy as np

    from imaging.reading import dicom
    from imaging.reading.pixels import pixel_digest

    try:
        stored = dicom.stored_pixels(dataset)
        seen = pixel_digest(dicom.as_seen(dataset, stored))
    except SetAside:
        yield "PixelData"
        return
    if seen != before.pixels:
        yield "PixelData"
    flat = stored.ravel()
    if dataset.BitsAllocated == 1:
        plain = np.packbits(flat, bitorder="little").tobytes()
    else:
        plain = flat.astype(stored.dtype.newbyteorder("<"), copy=False).tobytes()
    if written != plain + b"\0" * (len(plain) % 2):
        yield "bits beside the pixels"


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
    listed = tag in _rules(DEFAULT_POLICY).actions and vr not in _BYTES
    if not listed and vr not in _TIMES | {"UI", "PN"}:
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
    except Exception:  # pydicom's decoders raise anything; the cleaning copies no such element
        return
    if element.VR == "SQ":
        waiting.extend(element.value)
    texts = [t for t in _texts(element.value) if t]
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
    if vr in _DAYS:
        digits = text.replace(".", "")[:8]
        return (digits,) if len(digits) == 8 and digits.isdigit() else ()
    if vr == "PN":
        return spellings.of_name(text)
    return spellings.of_number(text) if name in _DIRECT else ()


def _walk(dataset: "Dataset", unreadable: list[int]) -> Iterator[tuple[int, Any, "Dataset"]]:
    """All elements at all levels, each with its level, without recursion.

    The tags of those that do not decode go into `unreadable`.
    """
    waiting = [dataset]
    while waiting:
        level = waiting.pop()
        for tag in list(level.keys()):
            try:
                element = level[tag]
            except Exception:  # pydicom's decoders raise anything
                unreadable.append(int(tag))
                continue
            if element.VR == "SQ":
                waiting.extend(element.value)
            yield int(tag), element, level


def _texts(value: Any) -> list[str]:
    """Values as text; bytes and items say nothing here."""
    from pydicom.dataset import Dataset
    from pydicom.multival import MultiValue
    from pydicom.sequence import Sequence

    if value is None or isinstance(value, bytes):
        return []
    if isinstance(value, str):
        return [value.strip(" \0")]
    several = value if isinstance(value, list | tuple | MultiValue | Sequence) else [value]
    return [str(v).strip(" \0") for v in several if not isinstance(v, Dataset)]


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]


def _declared_safe(source: "Dataset") -> Iterator[_Place]:
    for item in source.get("PrivateDataElementCharacteristicsSequence") or ():
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


def _codes(dataset: "Dataset") -> tuple[str, ...]:
    """The codes of CID 7050 that a data set names, of whatever time."""
    items = dataset.get("DeidentificationMethodCodeSequence") or ()
    named = [(item.get("CodingSchemeDesignator"), str(item.get("CodeValue"))) for item in items]
    return tuple(code for scheme, code in named if scheme == "DCM" and code in CID_7050)


@lru_cache(maxsize=2**16)
def _name(tag: int) -> str:
    from pydicom.datadict import DicomDictionary

    known = DicomDictionary.get(tag)
    return (known and known[4]) or f"{tag:08X}"


def _blank(data: bytes, ours: set[str]) -> bytes:
    """Take out what we wrote ourselves: a patient may be called Basic or Patient."""
    for text in (*sorted(ours, key=len, reverse=True), *_OUR_WORDS):
        data = data.replace(text.encode(), b" ")
    return data
