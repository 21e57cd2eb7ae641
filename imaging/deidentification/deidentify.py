"""De-identification: a new data set is built from what may stay, at every level of nesting.

Nothing is deleted from the source; what no rule lets through never reaches the copy. Codes, options
and markers follow PS3.15 Annex E; see `profile.py` for the rules and `verifying/` for the check
of what was written.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from imaging.deidentification import profile
from imaging.deidentification.body_parts import BODY_PARTS
from imaging.deidentification.encoding import BINARY, Level, by_number, put
from imaging.deidentification.image_pixel import put_pixels
from imaging.deidentification.policy import CID_7050, DeidentificationPolicy
from imaging.deidentification.pseudonyms import Names
from imaging.deidentification.spellings import INSIDE, MONTHS, Mention
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

TOOL = "Lightbox 0.1"
IMPLEMENTATION_UID = "2.25.201944330587114215921834187406392617411"
OLDEST_AGE = 89  # years; beyond, 45 CFR 164.514(b)(2)(i)(C) wants one group
STANDARD_CODING = ("DCM", "SCT", "SRT", "SNM3", "UCUM", "LN", "RADLEX", "FMA")
DEFAULT = DeidentificationPolicy()

_CODE = re.compile(r"[A-Z0-9 _]{0,16}")
_CODE_VALUE = re.compile(r"[A-Za-z0-9.-]{1,16}")
_UID = re.compile(r"[0-9.]{1,64}")
_AGE = re.compile(r"(\d{3})([DWMY])")
_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12, "Y": 1}
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME = re.compile(r"[0-9:.+-]{1,26}")
_WORD = re.compile(r"[^\W_]+")
# In texts: 20190305 with or without a time, 2019-03-05, 05032019, 5.3.2019, 05/03/19,
# 5th March 2019, 5 de marzo de 2019, 05-Mar-19, March 5, 2019, 2019-Mar-05.
_BEGINNING = rf"(?:{'|'.join(MONTHS)})"
_MONTH, _TH, _YEAR = rf"{_BEGINNING}[^\W\d_]{{0,8}}", r"(?:st|nd|rd|th)?", r"(?:19|20)\d\d"
_DATE_IN_TEXT = re.compile(
    rf"(?<!\d)(?:{_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?:T?[0-2]\d[0-5]\d(?:[0-5]\d)?)?"
    rf"|{_YEAR}([-./_ ])\d\d?\1\d\d?|[0-3]\d[01]\d{_YEAR}"
    rf"|\d\d?([-/])\d\d?\2(?:19|20)?\d\d|\d\d?([._ ])\d\d?\3{_YEAR}"
    rf"|\d\d?{_TH}[ ./-]*(?:de )?{_MONTH}[ .,/-]*(?:de )?{_YEAR}|\d\d?([-/ ]){_BEGINNING}\4\d\d"
    rf"|{_MONTH}[ ./-]*\d\d?{_TH}[ ,/-]+{_YEAR}|{_YEAR}[ ./_-]?{_MONTH}[ ./_-]?\d\d?)(?!\d)",
    re.IGNORECASE,
)
_FORMATS = {
    "US": "H", "SS": "h", "UL": "L", "SL": "l", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip
_SOP = (0x00080016, 0x00080018)  # class and instance
_BODY_PART = 0x00180015
_DATES_ARE = {"removed": "REMOVED", "modified": "MODIFIED", "full": "UNMODIFIED"}


@dataclass(frozen=True)
class Cleaner:
    """Copies what may stay of one patient's data set.

    Attributes:
        names: Pseudonyms.
        patient_id: Whose dates move together.
        mention: From `spellings.mention`: what must not stay.
        rules: From `profile.rules`.
        safe: Private elements that the file itself declares safe: group, creator, element.
        said: What stays in a level, element by element: to be searched at once.
    """

    names: Names
    patient_id: str
    mention: Mention
    rules: profile.Rules
    safe: frozenset[tuple[int, str, int]] = frozenset()
    said: list[tuple[Level, int, str, bytes]] = field(default_factory=list)

    def clean(self, source: "Dataset") -> Level:
        """Copy one level, and through it all below."""
        from pydicom.datadict import DicomDictionary

        level: Level = {}
        private = []
        for tag, element in sorted(source.items(), key=by_number):
            number, vr = int(tag), element.VR
            if number >> 16 & 1:
                private.append(number)
                continue
            if vr is None or vr == "UN":  # implicit, or written by somebody without a dictionary
                vr = DicomDictionary.get(number, ("UN",))[0]
            action = self.rules.decide(number, vr)
            if action != "remove":  # otherwise its value is not even decoded
                self._put(level, source, element, vr, action)
        if self.rules.policy.safe_private or self.safe:
            self._put_private(level, source, private)
        _drop_local_code(level)
        return level

    def drop_mentions(self) -> None:
        """Look through what stays, and take back what says who it is.

        Raises:
            SetAside: residual_identity: a code or a number does, which cannot be left out.
        """
        if not self._mentions(b"\n".join(said for *_, said in self.said)):
            return
        for level, number, vr, said in self.said:
            if not self._mentions(said):
                continue
            if vr not in profile.TEXTS:
                raise SetAside("residual_identity")
            # A hospital called like the maker of its scanners.
            value = self._basic(number, vr)
            if value is None:
                level.pop(number, None)
            else:
                put(level, number, vr, value)
            _drop_local_code(level)

    def _mentions(self, said: bytes) -> bool:
        """What the check of the written bytes would find, too, or it would fail the whole run."""
        return any(self.mention.found(said)) or any(self.mention.found_in_bytes(said))

    def _put(
        self, level: Level, source: "Dataset", element: Any, vr: str, action: profile.Action
    ) -> None:
        from pydicom.dataelem import DataElement

        number, vr = int(element.tag), _definite(vr, source)
        try:
            if vr == "SQ":
                items = self._items(action, source, element)
                level[element.tag] = DataElement(element.tag, "SQ", items)
            else:
                value, said = self._replaced(action, vr, source, element)
                if value is not None:
                    put(level, number, vr, value)
                if said:
                    self.said.append((level, number, vr, said))
        except (SetAside, MemoryError, RecursionError):
            raise
        except Exception:  # pydicom's decoders raise anything
            return  # what does not decode cannot be judged: it stays out

    def _items(self, action: profile.Action, source: "Dataset", element: Any) -> "list[Dataset]":
        from pydicom.dataset import Dataset

        if action == "enter":
            return [Dataset(self.clean(item)) for item in source[element.tag].value]
        return [] if action == "empty" else [Dataset()]

    def _replaced(
        self, action: profile.Action, vr: str, source: "Dataset", element: Any
    ) -> tuple[bytes | None, bytes]:
        """The value to write, or None to write no such attribute; and what it says."""
        if action == "empty":
            return b"", b""
        if action == "dummy":
            return _dummy(vr), b""
        if action == "keep" and (vr in _FORMATS or vr in BINARY or vr == "AT"):
            return self._kept_binary(vr, source, element)
        texts, said = _texts(source, element, vr), []
        if action == "uid":
            texts = [self.names.uid(text) for text in texts]
        elif action == "shift":
            texts = self._moved(vr, texts)
        elif action == "words":
            texts = [" ".join(self._allowed_words(texts))]
            if texts == [""]:
                return self._basic(element.tag, vr), b""
            said = texts
        else:
            kept = self._kept(vr, texts)
            if kept is None:
                return None, b""
            texts, said = kept
            if element.tag == _BODY_PART and BODY_PARTS.issuperset(texts):
                said = []
        return "\\".join(texts).encode(), "\n".join(said).encode()

    def _basic(self, number: int, vr: str) -> bytes | None:
        """What the profile says of a text without any option."""
        action = self.rules.basic(number)
        return _dummy(vr) if action == "dummy" else b"" if action == "empty" else None

    def _allowed_words(self, texts: list[str]) -> list[str]:
        words = _WORD.findall(" ".join(texts))
        return [word for word in words if word.casefold() in self.rules.words]

    def _moved(self, vr: str, texts: list[str]) -> list[str]:
        """Dates moved; of a DT only the day stays, and what is no date is emptied."""
        moved = []
        for text in texts:
            match = (_DATE.fullmatch if vr == "DA" else _DATE.match)(text)
            try:
                day = date(*map(int, match.groups())) if match else None
                earlier = day - self.names.shift(self.patient_id) if day else None
            except (ValueError, OverflowError):
                earlier = None
            if earlier is None:
                return []
            moved.append(f"{earlier.year:04d}{earlier:%m%d}")
        return moved

    def _kept(self, vr: str, texts: list[str]) -> tuple[list[str], list[str]] | None:
        if vr == "CS" and not all(map(_CODE.fullmatch, texts)):
            return None  # more than a code
        if vr == "UI":  # what is none may be anything
            texts = [text if _UID.fullmatch(text) else self.names.uid(text) for text in texts]
        if vr == "AS":
            age = _capped_age(texts, self.rules.policy.ages_above_89 == "kept")
            return (age, []) if age else None
        if vr in ("DA", "DT", "TM") and not all(map(_TIME.fullmatch, texts)):
            return None
        if vr in profile.TEXTS and self.rules.policy.dates != "full":
            texts = [_DATE_IN_TEXT.sub("", text).strip() for text in texts]
        if vr in ("DS", "IS"):  # float raises for more than a number
            numbers = [(text, float(text)) for text in texts if text]
            if not all(math.isfinite(number) for _, number in numbers):
                return None  # no such integer can be read back
            return texts, texts + [_whole(text) for text, n in numbers if n.is_integer()]
        return texts, texts

    def _kept_binary(self, vr: str, source: "Dataset", element: Any) -> tuple[bytes, bytes]:
        value, letter = _bytes_or_numbers(source, element, vr), _FORMATS.get(vr)
        # Of few bytes, such as most numbers are, nothing is found.
        if len(value) >= INSIDE and next(self.mention.found_in_bytes(value), None):
            raise SetAside("residual_identity")
        if letter is None:
            return value, b""
        numbers = (number for (number,) in struct.iter_unpack(f"<{letter}", value))
        whole = (n for n in numbers if isinstance(n, int) or n.is_integer())
        return value, "\n".join(str(abs(int(n))) for n in whole).encode()

    def _put_private(self, level: Level, source: "Dataset", numbers: list[int]) -> None:
        """Private elements that are known to be safe, each block with the name of its creator."""
        for number in numbers:
            creator = _creator(source, number)
            if creator is None:
                continue
            element = source.get_item(number)
            vr = _private_vr(number, creator) if element.VR in (None, "UN") else element.VR
            declared = (number >> 16, creator, number & 0xFF) in self.safe
            action = self.rules.private(number, creator, vr, declared)
            if action == "remove" or self.mention.search(creator.lower().encode()):
                continue
            self._put(level, source, element, vr, action)
            if number in level:
                put(level, _creator_tag(number), "LO", creator.encode())


def deidentify(
    source: "Dataset",
    stored: NDArray[Any],
    names: Names,
    mention: Mention,
    policy: DeidentificationPolicy = DEFAULT,
    masked: bool = False,
) -> "Dataset":
    """Build the de-identified instance of an image.

    Pixels are written uncompressed: a codestream may carry comments and application segments that
    no attribute rule reaches, and later steps then need no decoder that could abort.

    Args:
        source: With PatientID and SOPInstanceUID; left untouched.
        stored: Decoded pixels, integers before rescaling: (H, W), (H, W, 3), (F, H, W) or
            (F, H, W, 3).
        names: Pseudonyms.
        mention: From `imaging.deidentification.spellings.mention`.
        policy: What stays.
        masked: Text in the pixels was found and painted over.

    Raises:
        SetAside: incomplete_header or residual_identity.
    """
    from pydicom.dataset import Dataset

    patient_id = str(source.PatientID)
    rules = profile.rules(policy)
    safe = frozenset(_declared_safe(source)) if policy.declared_safe_private else frozenset()
    cleaner = Cleaner(names, patient_id, mention, rules, safe)
    level = cleaner.clean(source)
    if not all(tag in level and level[tag].value for tag in _SOP):  # or they are there as no UIDs
        raise SetAside("incomplete_header")
    cleaner.drop_mentions()
    _mark(level, source, names.patient(patient_id), policy, masked)
    put_pixels(level, source, stored)
    target = Dataset(level)
    target.SpecificCharacterSet = "ISO_IR 192"  # not among the others: it says how to read them
    target.file_meta = _file_meta(level)
    return target


def _mark(
    level: Level,
    source: "Dataset",
    pseudonym: str,
    policy: DeidentificationPolicy,
    masked: bool,
) -> None:
    """Say who it is now, and what was done (PS3.15 E.1.1)."""
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

    for tag, vr, text in (
        (0x00100010, "PN", pseudonym),
        (0x00100020, "LO", pseudonym),
        (0x00120062, "CS", "YES"),
        (0x00120063, "LO", "\\".join(method(policy))),
        (0x00280303, "CS", _DATES_ARE[policy.dates]),
    ):
        put(level, tag, vr, text.encode())
    if masked:
        put(level, 0x00280301, "CS", b"NO")
    items = []
    for code in [*_earlier_codes(source), *profile.codes(policy, masked)]:
        item: Level = {}
        put(item, 0x00080100, "SH", code.encode())
        put(item, 0x00080102, "SH", b"DCM")
        put(item, 0x00080104, "LO", CID_7050[code].encode())
        items.append(Dataset(item))
    sequence = DataElement(0x00120064, "SQ", items)
    level[sequence.tag] = sequence


def _earlier_codes(source: "Dataset") -> list[str]:
    """What was applied before; the free text beside it (0012,0063) could say anything."""
    return [
        code
        for item in _items(source, "DeidentificationMethodCodeSequence")
        if (code := str(item.get("CodeValue"))) in CID_7050
        and item.get("CodingSchemeDesignator") == "DCM"
    ]


def _file_meta(level: Level) -> "FileMetaDataset":
    from pydicom.dataset import FileMetaDataset

    meta: Level = {}
    put(meta, 0x00020002, "UI", level[0x00080016].value)
    put(meta, 0x00020003, "UI", level[0x00080018].value)
    put(meta, 0x00020010, "UI", b"1.2.840.10008.1.2.1")
    put(meta, 0x00020012, "UI", IMPLEMENTATION_UID.encode())
    put(meta, 0x00020013, "SH", b"LIGHTBOX")
    return FileMetaDataset(meta)


def method(policy: DeidentificationPolicy = DEFAULT) -> list[str]:
    """DeidentificationMethod: tool, standard and edition, rules; each within LO's 64 characters."""
    return list(_method(policy))


@cache
def _method(policy: DeidentificationPolicy) -> tuple[str, ...]:
    digest = profile.policy_digest(policy)[:32]
    return TOOL, f"PS3.15 Table E.1-1 {profile.EDITION}", f"policy {digest}"


def _dummy(vr: str) -> bytes | None:
    return profile.DUMMIES[vr].encode() if vr in profile.DUMMIES else None


def age_years(text: str | None) -> float | None:
    """An Age String (PS3.5 6.2, such as 045Y or 018M) in years."""
    match = _AGE.fullmatch(text or "")
    return int(match[1]) / _PER_YEAR[match[2]] if match else None


def capped_age_years(years: float) -> float:
    """Ages over 89 become 90: one group for all of them."""
    return 90.0 if years >= OLDEST_AGE + 1 else years


def _capped_age(texts: list[str], uncapped: bool) -> list[str] | None:
    years = age_years("".join(texts))
    if years is None:
        return None
    return texts if uncapped or capped_age_years(years) == years else ["090Y"]


def _creator_tag(number: int) -> int:
    return number & 0xFFFF0000 | number >> 8 & 0xFF


def _creator(source: "Dataset", number: int) -> str | None:
    """Who has reserved the block of a private element (PS3.5 7.8.1), if that can be read."""
    tag = _creator_tag(number)
    if tag & 0xFFFF < 0x10 or tag not in source:
        return None  # itself a creator, or nobody's
    try:
        (creator,) = _texts(source, source.get_item(tag), "LO")
    except Exception:  # pydicom's decoders raise anything
        return None
    return creator


def _private_vr(number: int, creator: str) -> str:
    from pydicom.datadict import private_dictionary_VR

    try:
        return str(private_dictionary_VR(number, creator))
    except KeyError:
        return "UN"


def _drop_local_code(level: Level) -> None:
    """A code of a standard scheme stays, with a neutral meaning; any other goes."""
    if 0x00080100 not in level and 0x00080102 not in level:
        return
    value, scheme = (
        level[tag].value.decode().strip() if tag in level else ""
        for tag in (0x00080100, 0x00080102)
    )
    if scheme in STANDARD_CODING and _CODE_VALUE.fullmatch(value):
        # Type 1 in a code item (PS3.3 table 8.8-1).
        put(level, 0x00080104, "LO", b"see code value")
        return
    for tag in (0x00080100, 0x00080102, 0x00080103, 0x00080104):
        level.pop(tag, None)


def _declared_safe(source: "Dataset") -> Iterator[tuple[int, str, int]]:
    """Group, creator and element of what the file says is safe (PS3.3 C.12.1.1.7)."""
    for item in _items(source, "PrivateDataElementCharacteristicsSequence"):
        group, creator = item.get("PrivateGroupReference"), item.get("PrivateCreatorReference")
        safe = item.get("NonidentifyingPrivateElements")
        if item.get("BlockIdentifyingInformationStatus") == "SAFE":
            safe = range(256)
        for element in _several(safe):
            if isinstance(group, int) and isinstance(element, int):
                yield group, str(creator), element


def _items(source: "Dataset", keyword: str) -> "list[Dataset]":
    """Of a sequence, if that is what lies there."""
    from pydicom.sequence import Sequence

    value = source.get(keyword)
    return list(value) if isinstance(value, Sequence) else []


def _definite(vr: str, source: "Dataset") -> str:
    """One VR where the dictionary allows several (PS3.6 6)."""
    if " " not in vr:
        return vr
    if "OW" in vr:
        return "OW"
    return "SS" if source.get("PixelRepresentation") else "US"


def _texts(source: "Dataset", element: Any, vr: str) -> list[str]:
    """Values as text without padding; ASCII is read from the file's bytes.

    Raises:
        ValueError: Anything else stands there.
    """
    if element.is_raw and vr not in profile.TEXTS:
        text = (element.value or b"").decode("ascii")
        return [value.strip(" \0") for value in text.split("\\")] if text else []
    return [str(value).strip(" \0") for value in _several(source[element.tag].value)]


def _bytes_or_numbers(source: "Dataset", element: Any, vr: str) -> bytes:
    """A binary value as little endian bytes."""
    if element.is_raw and element.is_little_endian:
        return bytes(element.value or b"")
    value = source[element.tag].value
    if isinstance(value, bytes):
        return value
    values = [int(v) for v in _several(value)] if vr == "AT" else _several(value)
    if vr == "AT":
        return b"".join(struct.pack("<HH", v >> 16, v & 0xFFFF) for v in values)
    return struct.pack(f"<{len(values)}{_FORMATS[vr]}", *values)


def _whole(text: str) -> str:
    return str(abs(int(Decimal(text))))


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    many = not isinstance(value, str | bytes) and hasattr(value, "__iter__")
    return list(value) if many else [value]
