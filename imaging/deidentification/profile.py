"""What becomes of each attribute: PS3.15 Table E.1-1 (2026c), its options, and what it lacks.

The table alone is not enough: it says nothing of unknown elements, free text in attributes that it
does not list, URLs, or persons' names in new attributes. There the VR decides, by allow-list.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

from imaging.deidentification import ocr
from imaging.deidentification.policy import CID_7050, DeidentificationPolicy
from imaging.deidentification.table import TABLE
from lineage.digest import digest, file_digest

EDITION = "2026c"
CLEAN_PIXELS = "113101"
_RETAINED_CODES = {
    "uids": "113110",
    "device_identity": "113109",
    "institution_identity": "113112",
    "patient_characteristics": "113108",
}
_DATE_CODES = {"full": "113106", "modified": "113107"}

Action = Literal["remove", "empty", "dummy", "uid", "shift", "keep", "words", "enter"]

# Where the standard leaves a choice to the IOD we do not look the IOD up, but take what is valid
# in all: Z where the attribute may be type 2, D where it may be type 1. Neither keeps a value.
_RESOLVED: dict[str, Action] = {
    "X": "remove",
    "Z": "empty",
    "D": "dummy",
    "U": "uid",
    "X/Z": "empty",
    "X/D": "dummy",
    "Z/D": "dummy",
    "X/Z/D": "dummy",
    "X/Z/U*": "enter",  # a sequence of references: kept, its UIDs replaced
}
# A dummy carries no information; sequences get one empty item.
DUMMIES = {
    "AE": "ANONYMIZED", "AS": "000Y", "CS": "ANONYMIZED", "DA": "19000101", "DS": "0",
    "DT": "19000101", "IS": "0", "LO": "ANONYMIZED", "LT": "ANONYMIZED", "PN": "ANONYMIZED",
    "SH": "ANONYMIZED", "ST": "ANONYMIZED", "TM": "000000", "UC": "ANONYMIZED", "UT": "ANONYMIZED",
}  # fmt: skip
# Free text outside the table that says something of the device or of a coded concept only.
# CodeMeaning is not among them: anybody may type anything there.
KEPT_TEXT = {
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel", "RescaleType",
    "ModalityLUTType", "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion",
}  # fmt: skip
KEPT_BINARY = {"LUTData"}  # pixels are added apart
NUMBERS = {"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
TEXTS = {"LO", "LT", "SH", "ST", "UC", "UT"}
_TIMES = {"DA", "DT", "TM"}
_WHOLE_CODES = {"AS", "CS"}
_TIMEZONE = 0x00080201
# Written anew: character set, palettes as the colours that they give. And what a file says of its
# private elements (0008,0300), most of which are gone.
_REPLACED = {0x00080005, 0x00080300, 0x00281199, *range(0x00281101, 0x00281105),
             *range(0x00281111, 0x00281115), *range(0x00281201, 0x00281205),
             *range(0x00281211, 0x00281215), *range(0x00281221, 0x00281225)}  # fmt: skip


@cache
def table() -> dict[int, Mapping[str, str]]:
    """Table E.1-1 by tag; its patterns (50xx, 60xx, private) are rules of `Rules.decide`."""
    with TABLE.open(newline="") as file:
        return {
            int(line["tag"][1:5] + line["tag"][6:10], 16): line
            for line in csv.DictReader(file)
            if line["tag"].startswith("(") and "X" not in line["tag"]
        }


@dataclass(frozen=True)
class Rules:
    """A policy's decisions, each made once."""

    policy: DeidentificationPolicy
    words: frozenset[str] = field(init=False)  # of descriptors, without regard to case
    _decided: dict[tuple[int, str], Action] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = frozenset(word.casefold() for word in self.policy.descriptors)
        object.__setattr__(self, "words", words)

    def decide(self, tag: int, vr: str) -> Action:
        """The action for an attribute of a data set or item, whatever its depth.

        Args:
            tag: Group and element as one number; a private one is never let through here.
            vr: The value representation that the file declares, or the dictionary's if it is
                implicit.
        """
        action = self._decided.get((tag, vr))
        if action is None:
            action = self._decided[tag, vr] = self._decision(tag, vr)
        return action

    def _decision(self, tag: int, vr: str) -> Action:
        from pydicom.datadict import DicomDictionary

        # Private elements, curves (50xx) and overlays (60xx) are not in this dictionary, either.
        if tag not in DicomDictionary or tag in _REPLACED or tag >> 16 < 8 or tag & 0xFFFF == 0:
            return "remove"  # the last two: commands, directories, group lengths
        choices = DicomDictionary[tag][0].split(" or ")
        if vr == " or ".join(choices):
            vr = choices[0]  # implicit VR leaves it open until PixelRepresentation is known
        if vr not in choices:
            return "remove"  # not the standard's VR: no telling what it is
        row = table().get(tag)
        return self._listed(tag, vr, row) if row else self._unlisted(tag, vr)

    def _listed(self, tag: int, vr: str, row: Mapping[str, str]) -> Action:
        basic = self.basic(tag)
        if vr in _TIMES or tag == _TIMEZONE:  # of whomever: one rule for all times
            if self.policy.dates == "full" and row["retain_long_full_dates"] == "K":
                return "keep"
            moves = self.policy.dates == "modified" and row["retain_long_modified_dates"] == "C"
            return "shift" if moves and vr in ("DA", "DT") else basic
        if any(row[f"retain_{group}"] == "K" for group in self.policy.retain):
            return "enter" if vr == "SQ" else "keep"
        return "words" if self._may_hold_words(vr, row) else basic

    def basic(self, tag: int) -> Action:
        """What the profile says of an attribute without any option; of a maker's name, nothing."""
        row = table().get(tag)
        if row is None:
            return "remove" if tag >> 16 & 1 else "empty"
        return _RESOLVED[row["basic_profile_2026c"]]

    def _may_hold_words(self, vr: str, row: Mapping[str, str]) -> bool:
        characteristic = (
            row["retain_patient_characteristics"] == "C"
            and "patient_characteristics" in self.policy.retain
        )
        described = row["clean_descriptors"] == "C" or characteristic
        return bool(self.words) and vr in TEXTS and described

    def _unlisted(self, tag: int, vr: str) -> Action:
        from pydicom.datadict import DicomDictionary

        if vr == "SQ":
            return "enter"
        if vr == "UI":
            return "uid"
        if vr == "PN":
            return "empty"
        if vr in _TIMES:
            return self.undefined_time(vr)
        if tag >> 16 == 0x0010 and "patient_characteristics" not in self.policy.retain:
            return "remove"  # a body mass index
        keyword = DicomDictionary[tag][4]
        known = vr in NUMBERS or vr in _WHOLE_CODES
        return "keep" if known or keyword in KEPT_TEXT or keyword in KEPT_BINARY else "remove"

    def undefined_time(self, vr: str) -> Action:
        """Of a time in an element that the table does not list."""
        if self.policy.dates == "full":
            return "keep"
        return "shift" if self.policy.dates == "modified" and vr != "TM" else "remove"

    def private(self, tag: int, creator: str, vr: str, declared: bool) -> Action:
        """The action for a private element (E.3.10).

        Args:
            tag: Group and element as one number.
            creator: Who has reserved its block.
            vr: As the file declares it, or as pydicom's private dictionary does.
            declared: The file itself says that it is safe.
        """
        place = f"({tag >> 16:04X},xx{tag & 0xFF:02X})"
        listed = {element.upper().replace("X", "x") for element in self._safe(creator)}
        if place not in listed and not (declared and self.policy.declared_safe_private):
            return "remove"
        if vr in _TIMES:
            return self.undefined_time(vr)
        if vr in ("PN", "UN"):
            return "remove"  # a name is never safe, and of UN there is no telling what it is
        return "enter" if vr == "SQ" else "uid" if vr == "UI" else "keep"

    def _safe(self, creator: str) -> tuple[str, ...]:
        return self.policy.safe_private.get(creator, ())


@cache
def rules(policy: DeidentificationPolicy) -> Rules:
    """The decisions of a policy, kept from file to file."""
    return Rules(policy)


def codes(policy: DeidentificationPolicy, masked: bool = False) -> dict[str, str]:
    """Profile and options applied, as codes of CID 7050 with their meanings, in their order.

    Structured content and graphics are removed, so that those options are never claimed. Clean
    Pixel Data is claimed where pixels were masked only: having looked and found nothing is none.
    """
    applied = {"113100", *(_RETAINED_CODES[group] for group in policy.retain)}
    applied |= {_DATE_CODES[policy.dates]} if policy.dates in _DATE_CODES else set()
    applied |= {"113105"} if policy.descriptors else set()
    applied |= {"113111"} if policy.safe_private or policy.declared_safe_private else set()
    applied |= {CLEAN_PIXELS} if masked else set()
    return {code: CID_7050[code] for code in sorted(applied)}


def policy_digest(policy: DeidentificationPolicy | None = None) -> str:
    """Name the rules: the table's bytes, the settings, the dummies, lists and text detector."""
    policy = policy or DeidentificationPolicy()
    return digest(
        "policy",
        file_digest(TABLE),
        policy.model_dump(mode="json"),
        ocr.MODEL_SHA256 if policy.text_in_pixels.ocr else None,
        _RESOLVED,
        DUMMIES,
        sorted(KEPT_TEXT),
        sorted(KEPT_BINARY),
        sorted(NUMBERS | TEXTS | _WHOLE_CODES),
        sorted(_REPLACED),
    )
