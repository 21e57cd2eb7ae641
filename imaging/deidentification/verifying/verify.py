"""The check of what was written: it opens the file again and shares no rule with the cleaning.

It reads Table E.1-1 itself, knows what identified the patient in the source, and looks for that in
the attributes and in the raw bytes. What it reports are attribute names, never values.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging.deidentification import spellings
from imaging.deidentification.body_parts import BODY_PARTS
from imaging.deidentification.policy import CID_7050, DeidentificationPolicy
from imaging.deidentification.verifying.identities import (
    BYTES,
    NUMERIC,
    PATIENT_ID,
    Place,
    Source,
    codes_of,
    name_of,
    texts_of,
    whole_number,
)
from imaging.deidentification.verifying.rules import (
    CLEAN_PIXELS,
    DAYS,
    DEFAULT_POLICY,
    TIMES,
    Rules,
    rules_of,
    words_of,
)
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CHECKS = ("attributes", "table", "dates", "markers", "file_meta", "strings", "pixels")

_SHORT_TEXT = {"LO", "SH", "AE"}
_LONG_TEXT = {"LT", "ST", "UC", "UR", "UT", "UN"}
_HARMLESS_TEXT = {
    "DeidentificationMethod", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "ConvolutionKernel", "RescaleType", "ModalityLUTType", "CodeValue", "CodingSchemeDesignator",
    "CodingSchemeVersion", "CodeMeaning", "PatientID", "EthnicGroup",
}  # fmt: skip
_HARMLESS_BYTES = {"LUTData"}
_SCHEMES = {"DCM", "SCT", "SRT", "SNM3", "UCUM", "LN", "RADLEX", "FMA"}  # others are a site's own
_MEANINGLESS = "see code value"  # CodeMeaning, which must not be absent
_EMPTY_MEANING = {"ANONYMIZED", "000Y", "19000101", "000000", "0"}
_FLOATS = {"FL", "FD"}  # of which "nan" is no name: they are looked at as numbers, and as bytes
_BODY_PART, _PIXEL_DATA = 0x00180015, 0x7FE00010
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


@dataclass(frozen=True, order=True)
class Leak:
    """One thing wrong with a written file: the check that found it, and the attribute."""

    check: str
    attribute: str


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
    rules = rules_of(policy)
    dataset = pydicom.dcmread(BytesIO(data))
    if _PIXEL_DATA not in dataset:
        return [Leak("pixels", "PixelData")]
    raw_pixels = dataset.get_item(_PIXEL_DATA)
    start, stop = raw_pixels.value_tell, raw_pixels.value_tell + raw_pixels.length
    unreadable: list[int] = []
    leaks: set[Leak] = set()
    said: list[str] = []  # texts that nothing but the string search can judge
    ours = {pseudonym, *method}
    ours.update(*(texts_of(meta.value) for meta in dataset.file_meta if meta.VR == "UI"))
    moved: list[tuple[str, set[int]]] = []
    for tag, element, level in _walk(dataset, unreadable):
        if tag == _PIXEL_DATA:
            continue
        texts = [text for text in texts_of(element.value) if text]
        check = _judge(tag, element, texts, level, before, pseudonym, policy, rules)
        if check:
            leaks.add(Leak(check, name_of(tag)))
        elif element.VR in DAYS | {"UI"}:
            ours.update(texts)
            days = set(texts) - _EMPTY_MEANING if element.VR in DAYS else None
            if days and policy.dates == "modified":
                moved.append((name_of(tag), _shifts(before.values.get(tag, frozenset()), days)))
        elif tag == _BODY_PART and BODY_PARTS.issuperset(texts):
            ours.update(texts)  # a patient may be called Chest
        elif texts and _OUR_VALUES.get(element.keyword, set()) >= set(texts):
            # Short ones are not looked for in bytes, and blanked there they would break a Reyes.
            ours.update(text for text in texts if len(text) >= spellings.INSIDE)
            continue
        said += [text for text in texts if text not in ours and element.VR not in _FLOATS]
        if element.VR in NUMERIC and any(whole_number(t) in before.identifiers for t in texts):
            leaks.add(Leak("strings", name_of(tag)))
    # What cannot be judged is not clean: our own writer leaves nothing that does not decode.
    leaks |= {Leak("attributes", f"{tag:08X}") for tag in unreadable}
    leaks |= {Leak("dates", name) for name in _not_moved_together(moved)}
    leaks |= {Leak("markers", name) for name in _wrong_markers(dataset, before, method, policy)}
    leaks |= {Leak("file_meta", name) for name in _wrong_meta(dataset, data)}
    leaks |= {Leak("pixels", name) for name in _wrong_pixels(dataset, data[start:stop], before)}

    wanted = spellings.mention(before.identifiers)
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


def _judge(
    tag: int,
    element: Any,
    texts: list[str],
    level: "Dataset",
    before: Source,
    pseudonym: str,
    policy: DeidentificationPolicy,
    rules: Rules,
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
    if vr == "PN" or tag == PATIENT_ID:
        return None if meaningful <= {pseudonym} else "attributes"
    kept = tag in rules.kept
    survived = before.values.get(tag, frozenset()) & meaningful
    if vr == "UI":
        as_before = before.values.get(tag, frozenset()) if kept else frozenset()
        if not all(t in UID_dictionary or t.startswith("2.25.") or t in as_before for t in texts):
            return "attributes"
        return "table" if survived - UID_dictionary.keys() and not kept else None
    if vr == "AS" and policy.ages_above_89 == "grouped" and any(map(_too_old, texts)):
        return "attributes"
    if vr in TIMES:
        return _judge_time(tag, vr, meaningful, survived, policy, rules)
    described = bool(rules.words) and all(
        word in rules.words for text in meaningful for word in words_of(text)
    )
    free = vr in _LONG_TEXT or (vr in _SHORT_TEXT and name not in _HARMLESS_TEXT)
    if free and meaningful and not described and not kept:
        return "attributes"
    if name == "CodeMeaning" and not meaningful <= {_MEANINGLESS, *CID_7050.values()}:
        return "attributes"
    if name == "CodeValue" and str(level.get("CodingSchemeDesignator")) not in _SCHEMES:
        return "attributes"
    if vr in BYTES and name not in _HARMLESS_BYTES:
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
    rules: Rules,
) -> Literal["table"] | None:
    """A day or a time: gone, another one, or as it was, as the policy wants it."""
    if policy.dates == "full" and (tag in rules.kept or tag not in rules.actions):
        return None
    moves = policy.dates == "modified" and vr in DAYS
    return "table" if survived or (meaningful and not moves) else None


def _safe_private(
    tag: int, level: "Dataset", before: Source, policy: DeidentificationPolicy
) -> bool:
    """E.3.10: the policy names this element of this creator, or the file itself did."""
    group, low = tag >> 16, tag & 0xFFFF
    safe: set[Place] = {
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
    return next(iter(texts_of(level[tag].value)), "") if tag in level else ""


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
        if texts_of(dataset.get(name)) != value:
            yield name
    codes = codes_of(dataset)
    earlier, new = codes[: len(before.codes)], codes[len(before.codes) :]
    if earlier != before.codes or {*new} - {CLEAN_PIXELS} != {*rules_of(policy).codes}:
        yield "DeidentificationMethodCodeSequence"
    burned_in = texts_of(dataset.get("BurnedInAnnotation"))
    if burned_in == ["NO"] and before.burned_in != "NO" and CLEAN_PIXELS not in new:
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
            except (MemoryError, RecursionError):  # no leak, but a file that is too much
                raise
            except Exception:  # pydicom's decoders raise anything
                unreadable.append(int(tag))
                continue
            if element.VR == "SQ":
                waiting.extend(element.value)
            yield int(tag), element, level


def _blank(data: bytes, ours: set[str]) -> bytes:
    """Take out what we wrote ourselves: a patient may be called Basic or Patient."""
    for text in (*sorted(ours, key=len, reverse=True), *_OUR_WORDS):
        data = data.replace(text.encode(), b" ")
    return data
