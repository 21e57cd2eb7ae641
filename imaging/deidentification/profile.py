"""What becomes of each attribute: PS3.15 Table E.1-1 (2026c), two options, and what it lacks.

The table alone is not enough: it says nothing of unknown elements, free text in attributes that it
does not list, URLs, or persons' names in new attributes. There the VR decides, by allow-list.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from lineage.digest import digest, file_digest

EDITION = "2026c"
TABLE = Path(__file__).with_name("ps315_basic_profile.csv")
# Applied profile and options, as coded in PS3.16 CID 7050.
APPLIED = {
    "113100": "Basic Application Confidentiality Profile",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
}

Action = Literal["remove", "empty", "dummy", "uid", "shift", "keep", "enter"]

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
    "AE": "ANONYMIZED", "AS": "000Y", "CS": "ANONYMIZED", "DS": "0", "IS": "0", "LO": "ANONYMIZED",
    "LT": "ANONYMIZED", "PN": "ANONYMIZED", "SH": "ANONYMIZED", "ST": "ANONYMIZED", "TM": "000000",
    "UC": "ANONYMIZED", "UT": "ANONYMIZED",
}  # fmt: skip
# Free text outside the table that says something of the device or of a coded concept only.
# CodeMeaning is not among them: anybody may type anything there.
KEPT_TEXT = {
    "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel", "RescaleType",
    "ModalityLUTType", "CodeValue", "CodingSchemeDesignator", "CodingSchemeVersion",
}  # fmt: skip
KEPT_BINARY = {"LUTData"}  # pixels are added apart
_NUMBERS = {"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"}
_WHOLE_CODES = {"AS", "CS"}


@dataclass(frozen=True)
class Row:
    """One line of Table E.1-1."""

    action: str  # basic profile
    characteristics: str  # retain patient characteristics: K, C or nothing
    dates: str  # retain longitudinal temporal information, modified dates: C or nothing


@cache
def table() -> dict[int, Row]:
    """Table E.1-1 by tag; its patterns (50xx, 60xx, private) are rules of `decide`."""
    with TABLE.open(newline="") as file:
        return {
            int(line["tag"][1:5] + line["tag"][6:10], 16): Row(
                line["basic_profile_2026c"],
                line["retain_patient_characteristics"],
                line["retain_long_modified_dates"],
            )
            for line in csv.DictReader(file)
            if line["tag"].startswith("(") and "X" not in line["tag"]
        }


@cache
def decide(tag: int, vr: str) -> Action:
    """The action for an attribute of a data set or item, whatever its depth.

    Args:
        tag: Group and element as one number.
        vr: The value representation that the file declares, or the dictionary's if it is implicit.
    """
    from pydicom.datadict import DicomDictionary

    group = tag >> 16
    if group % 2 or group < 8 or tag & 0xFFFF == 0 or group >> 8 in (0x50, 0x60):
        return "remove"  # private; commands, directories, group lengths; curves and overlays
    if tag not in DicomDictionary:
        return "remove"
    choices = DicomDictionary[tag][0].split(" or ")
    if vr == " or ".join(choices):
        vr = choices[0]  # implicit VR leaves it open until PixelRepresentation is known
    if vr not in choices:
        return "remove"  # not the standard's VR: no telling what it is
    row = table().get(tag)
    if vr in ("DA", "DT") and (row is None or row.dates == "C"):
        return "shift"
    if row is not None:
        return "keep" if row.characteristics == "K" else _RESOLVED[row.action]
    keyword = DicomDictionary[tag][4]
    if vr == "SQ":
        return "enter"
    if vr == "UI":
        return "uid"
    if vr == "PN":
        return "empty"
    known = vr in _NUMBERS or vr in _WHOLE_CODES
    return "keep" if known or keyword in KEPT_TEXT or keyword in KEPT_BINARY else "remove"


def policy_digest() -> str:
    """Name the rules: the table's bytes, the options, the dummies and the allow-lists."""
    return digest(
        "policy",
        file_digest(TABLE),
        APPLIED,
        _RESOLVED,
        DUMMIES,
        sorted(KEPT_TEXT),
        sorted(KEPT_BINARY),
        sorted(_NUMBERS | _WHOLE_CODES),
    )
