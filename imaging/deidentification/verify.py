"""The check of what was written: it opens the file again and shares no rule with the cleaning.

It reads Table E.1-1 itself, knows what identified the patient in the source, and looks for that in
the attributes and in the raw bytes. What it reports are attribute names, never values.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CHECKS = ("attributes", "table", "markers", "file_meta", "strings", "pixels")
MODIFIED_DATES, CHARACTERISTICS = "113107", "113108"

_DIRECT = {  # whole values that point at a person or a place
    "AccessionNumber", "DeviceSerialNumber", "InstitutionAddress", "InstitutionName",
    "InstitutionalDepartmentName", "IssuerOfPatientID", "MedicalRecordLocator", "OtherPatientIDs",
    "PatientAddress", "PatientID", "PatientTelephoneNumbers", "StationName",
}  # fmt: skip
_TEXT = {"LO", "SH", "AE"}
NUMERIC = {"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
_LONG_TEXT = {"LT", "ST", "UC", "UR", "UT", "UN"}
_HARMLESS_TEXT = {
    "DeidentificationMethod", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "ConvolutionKernel", "RescaleType", "ModalityLUTType", "CodeValue", "CodingSchemeDesignator",
    "CodingSchemeVersion", "CodeMeaning", "PatientID", "EthnicGroup",
}  # fmt: skip
_TWO_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "aa", "æ": "ae", "ø": "oe", "œ": "oe"}
)
_ONE_LETTER = str.maketrans(
    {"ß": "ss", "æ": "ae", "ø": "o", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_EMPTY_MEANING = {"ANONYMIZED", "000Y", "000000", "0"}


@dataclass(frozen=True)
class Source:
    """What identified the patient in a source file; lives in memory only.

    Attributes:
        identifiers: Strings that must not turn up again, each with the attribute it came from.
        values: Non-empty values by tag, as text.
        pixels: `imaging.pixels.pixel_digest` of the image.
    """

    identifiers: Mapping[str, str]
    values: Mapping[int, frozenset[str]]
    pixels: str


@dataclass(frozen=True, order=True)
class Leak:
    """One thing wrong with a written file: the check that found it, and the attribute."""

    check: str
    attribute: str


def describe(source: "Dataset", pixels: str) -> Source:
    """Collect from a source data set, at every level, what must not survive."""
    identifiers: dict[str, str] = {}
    values: dict[int, set[str]] = {}
    for tag, element in _walk(source):
        texts = _texts(element.value)
        values.setdefault(tag, set()).update(t for t in texts if t)
        name = element.keyword or f"{tag:08X}"
        for text in texts:
            for word in _identifying(element.VR, name, text):
                identifiers.setdefault(word, name)
    frozen = {tag: frozenset(found) for tag, found in values.items()}
    return Source(identifiers, frozen, pixels)


def mention(identifiers: Mapping[str, str]) -> re.Pattern[bytes]:
    """A pattern that finds any of the identifiers in UTF-8 of lower case.

    Names of five letters or more match inside longer words too; shorter ones only as words, or a
    patient called Ray would be found in every X-ray.
    """
    words = sorted(identifiers, key=lambda word: (-len(word), word))  # the longest match first
    anywhere = {w for w in words if (w.isalpha() and len(w) >= 5) or (w.isdigit() and len(w) == 8)}
    inside = "|".join(re.escape(w) for w in words if w in anywhere) or "(?!)"
    alone = "|".join(re.escape(w) for w in words if w not in anywhere) or "(?!)"
    pattern = rf"(?:{inside})|(?<![A-Za-z0-9.])(?:{alone})(?![A-Za-z0-9]|\.[0-9])"
    return re.compile(pattern.encode(), re.IGNORECASE)


def whole_number(value: Any) -> str | None:
    """A number without a fraction in its shortest spelling: 7651234 for "+07651234.0"."""
    try:
        number = Decimal(str(value).strip(" \0"))
    except InvalidOperation:
        return None
    whole = number.is_finite() and abs(number) < 10**18 and number == number.to_integral_value()
    return str(abs(int(number))) if whole else None


def verify(path: Path, source: Source, pseudonym: str, method: list[str]) -> list[Leak]:
    """Open a written DICOM file and look for anything that should not be in it.

    Args:
        path: The de-identified file.
        source: From `describe`, of the file that it was made from.
        pseudonym: What PatientID and PatientName must be.
        method: What DeidentificationMethod must be.

    Returns:
        Leaks, sorted; empty when the file is clean.
    """
    import pydicom

    from imaging.pixels import DICOM, decode, pixel_digest

    data = path.read_bytes()
    leaks: list[Leak] = []
    dataset = pydicom.dcmread(path)
    pixel_bytes = dataset.PixelData
    generated = [pseudonym, *method]
    unreadable: list[int] = []
    for tag, element in _walk(dataset, unreadable):
        name = element.keyword or f"{tag:08X}"
        leaks += [Leak(c, name) for c in _judge(tag, name, element, source, pseudonym)]
        if element.VR in NUMERIC and any(
            whole_number(text) in source.identifiers for text in _texts(element.value)
        ):
            leaks.append(Leak("strings", name))
        if element.VR == "UI":
            generated += [t for t in _texts(element.value) if t.startswith("2.25.")]
    # What cannot be judged is not clean: our own writer leaves nothing that does not decode.
    leaks += [Leak("attributes", f"{tag:08X}") for tag in unreadable]
    leaks += [Leak("markers", name) for name in _wrong_markers(dataset, method)]
    leaks += [Leak("file_meta", name) for name in _wrong_meta(dataset, data)]

    # Bytes outside the pixels, less what is ours: generated names may hold any digits.
    start = data.rfind(pixel_bytes)
    rest = data[:start] + data[start + len(pixel_bytes) :]
    for text in [
        *sorted(generated, key=len, reverse=True),
        *_our_words(),
        *_standard_uids(dataset),
    ]:
        rest = rest.replace(text.encode(), b" ")
    lower = {w.lower(): name for w, name in source.identifiers.items()}
    rest = rest.decode(errors="replace").lower().encode()
    for found in mention(source.identifiers).findall(rest):
        leaks.append(Leak("strings", lower.get(found.decode(errors="replace").lower(), "unnamed")))

    if pixel_digest(decode(data, DICOM)) != source.pixels:
        leaks.append(Leak("pixels", "PixelData"))
    return sorted(leaks)


def verify_picture(path: Path, pixels: str) -> list[Leak]:
    """A written PNG may hold its size, its pixels and its end: any other chunk is a leak."""
    from imaging.pixels import pixel_digest, read_pixels

    data, position, leaks = path.read_bytes(), 8, []
    while position + 8 <= len(data):
        kind = data[position + 4 : position + 8]
        if kind not in (b"IHDR", b"IDAT", b"IEND"):
            leaks.append(Leak("attributes", f"PNG chunk {kind.decode('latin-1')}"))
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    if position != len(data):
        leaks.append(Leak("attributes", "bytes behind the PNG"))
    if pixel_digest(read_pixels(path)) != pixels:
        leaks.append(Leak("pixels", "IDAT"))
    return sorted(leaks)


@cache
def _table() -> dict[int, tuple[str, bool, bool]]:
    """Tag: basic action, kept as a patient characteristic, shifted as a date."""
    with Path(__file__).with_name("ps315_basic_profile.csv").open(newline="") as file:
        return {
            int(row["tag"][1:5] + row["tag"][6:10], 16): (
                row["basic_profile_2026c"],
                row["retain_patient_characteristics"] == "K",
                row["retain_long_modified_dates"] == "C",
            )
            for row in csv.DictReader(file)
            if re.fullmatch(r"\([0-9A-F]{4},[0-9A-F]{4}\)", row["tag"])
        }


def _judge(tag: int, name: str, element: Any, source: Source, pseudonym: str) -> Iterator[str]:
    """Yield the checks that one element of a written file fails."""
    from pydicom._uid_dict import UID_dictionary
    from pydicom.datadict import dictionary_has_tag

    vr, texts = element.VR, [t for t in _texts(element.value) if t]
    group = tag >> 16
    if group & 1 or group & 0xFF00 in (0x5000, 0x6000) or not dictionary_has_tag(tag):
        yield "attributes"
    free = vr in _LONG_TEXT or (vr in _TEXT and name not in _HARMLESS_TEXT)
    named = (vr == "PN" or name == "PatientID") and texts != [pseudonym]
    if (free or named) and not set(texts) <= _EMPTY_MEANING:
        yield "attributes"
    if vr == "UI" and not all(t in UID_dictionary or t.startswith("2.25.") for t in texts):
        yield "attributes"
    if vr == "AS" and any(t[-1:] == "Y" and t > "090Y" for t in texts):
        yield "attributes"

    meaningful = set(texts) - _EMPTY_MEANING - UID_dictionary.keys()
    survived = source.values.get(tag, frozenset()) & meaningful
    if survived and vr in ("DA", "DT", "TM", "UI", "PN"):
        yield "table"
    elif tag in _table() and name not in ("PatientID", "PatientName"):
        action, kept, shifted = _table()[tag]
        filled = bool(texts) or (vr == "SQ" and len(element.value) > 0)
        if kept or (shifted and vr in ("DA", "DT")):
            return
        if action == "X" or (action == "Z" and filled) or survived:
            yield "table"


def _wrong_markers(dataset: "Dataset", method: list[str]) -> Iterator[str]:
    wanted = {
        "PatientIdentityRemoved": ["YES"],
        "LongitudinalTemporalInformationModified": ["MODIFIED"],
        "DeidentificationMethod": method,
    }
    for name, value in wanted.items():
        if _texts(dataset.get(name)) != value:
            yield name
    codes = [str(item.CodeValue) for item in dataset.get("DeidentificationMethodCodeSequence", [])]
    if codes != ["113100", MODIFIED_DATES, CHARACTERISTICS]:
        yield "DeidentificationMethodCodeSequence"


def _wrong_meta(dataset: "Dataset", data: bytes) -> Iterator[str]:
    meta = dataset.file_meta
    if data[:128] != bytes(128):
        yield "preamble"
    if meta.MediaStorageSOPInstanceUID != dataset.SOPInstanceUID:
        yield "MediaStorageSOPInstanceUID"
    allowed = {0x00020000, 0x00020001, 0x00020002, 0x00020003, 0x00020010, 0x00020012, 0x00020013}
    yield from (f"{int(tag):08X}" for tag in meta.keys() - allowed)


def _identifying(vr: str, name: str, text: str) -> Iterator[str]:
    """The strings of one value that would give the patient away, short of coincidences."""
    from pydicom._uid_dict import UID_dictionary

    if vr == "UI":
        yield from [text] if len(text) >= 6 and text not in UID_dictionary else []
    elif vr in ("DA", "DT") and text[:8].isdigit() and len(text) >= 8:
        yield text[:8]
    elif vr == "PN":
        for word in re.findall(r"[^\W\d_]+", unicodedata.normalize("NFC", text)):
            if len(word) >= 3 or not word.isascii():
                yield from _spellings(word)
    # "17" or "A1" is also a measurement or a code somewhere: nobody could tell them apart.
    elif name in _DIRECT and (sum(c.isalpha() for c in text) >= 3 or len(text) >= 6):
        yield text
        # The number alone: "MRN-0123456" is 123456 in a field that takes numbers only.
        digits = re.sub(r"\D", "", text)
        if len(digits.lstrip("0")) >= 6:
            yield from (digits, digits.lstrip("0"))


def _spellings(word: str) -> Iterator[str]:
    """A name as other systems write it: Müller, Muller, Mueller."""
    yield word
    if word.isascii():
        return
    lower = word.lower()
    yield lower  # what is searched is lower case, too: the pattern knows ASCII's cases only
    for letters in (_TWO_LETTERS, _ONE_LETTER):
        plain = unicodedata.normalize("NFKD", lower.translate(letters))
        plain = "".join(c for c in plain if not unicodedata.combining(c))
        if plain.isascii() and len(plain) >= 3:
            yield plain


def _walk(dataset: "Dataset", unreadable: list[int] | None = None) -> Iterator[tuple[int, Any]]:
    """All elements at all levels that decode, without recursion.

    The tags of those that do not go into `unreadable`. In a source they do not matter, as
    `imaging.deidentification.deidentify` copies none of them either.
    """
    waiting = [dataset]
    while waiting:
        level = waiting.pop()
        for tag in list(level.keys()):
            try:
                element = level[tag]
            except Exception:  # pydicom's decoders raise anything
                if unreadable is not None:
                    unreadable.append(int(tag))
                continue
            if element.VR == "SQ":
                waiting.extend(element.value)
            yield int(tag), element


def _texts(value: Any) -> list[str]:
    """Values as text; bytes and items say nothing here."""
    from pydicom.dataset import Dataset
    from pydicom.multival import MultiValue
    from pydicom.sequence import Sequence

    if value is None or isinstance(value, bytes):
        return []
    several = value if isinstance(value, list | tuple | MultiValue | Sequence) else [value]
    return [str(v).strip(" \0") for v in several if not isinstance(v, Dataset)]


def _our_words() -> list[str]:
    """Words of the markers themselves: a patient may be called Basic or Patient."""
    return [
        "Basic Application Confidentiality Profile",
        "Retain Longitudinal Temporal Information Modified Dates Option",
        "Retain Patient Characteristics Option",
        "see code value",
        "ANONYMIZED",
        "MODIFIED",
        "LIGHTBOX",
        "ISO_IR 192",
    ]


def _standard_uids(dataset: "Dataset") -> list[str]:
    from pydicom._uid_dict import UID_dictionary

    uids = [t for _, e in _walk(dataset) if e.VR == "UI" for t in _texts(e.value)]
    return sorted((u for u in uids if u in UID_dictionary), key=len, reverse=True)
