"""What image files say of themselves without their pixels being decoded: a bounded first look."""

import hashlib
import random
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from imaging.deidentification import burned_in
from imaging.deidentification.policy import TextInPixels
from imaging.reading import decoding, dicom, pixels, volumes
from imaging.reading.acquisition import acquisition, text
from imaging.reasons import SetAside
from imaging.snapshots.examine import KEYS, MAX_FILE_BYTES

MOST_FILES = 2000  # of more, a fair sample
MOST_BYTES = 4 * 2**30  # read in all
MOST_DECODED = 2**26  # pixels of pictures stored in colour, decoded to see whether they are grey
KINDS = {
    pixels.DICOM: "DICOM",
    pixels.PNG: "PNG",
    pixels.JPEG: "JPEG",
    volumes.NIFTI: "NIfTI",
}
OTHER = "other"


@dataclass(frozen=True, eq=False)  # compared and hashed as the one file that it is
class Seen:
    """One file. Holds identities: it stays in memory.

    Attributes:
        kind: A value of `KINDS`, or `OTHER`.
        reason: Why ingestion will set it aside, as far as its header shows.
        size: Rows and columns; zeros if not known.
        keys: `imaging.snapshots.snapshot.KEYS` of a DICOM header.
        unsure: Stored in colour, and not looked at closely enough to say whether it is grey.
    """

    file: str
    kind: str
    reason: str | None = None
    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    keys: Mapping[str, str | None] = field(default_factory=dict)
    modality: str | None = None
    scanner: str | None = None
    inverted: bool = False
    unsure: bool = False


def look(folder: Path, files: Sequence[str]) -> list[Seen]:
    """Look at files, or at a fair sample where they are more or larger than the bounds.

    Args:
        folder: That the paths in `files` are relative to.
        files: In any order; the same ones give the same sample.
    """
    import pydicom

    # What does not keep to the standard is counted here, not warned about.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    drawn = random.Random(0).sample(files, min(len(files), MOST_FILES))  # noqa: S311  no secret
    seen: list[Seen] = []
    left, decodable = MOST_BYTES, MOST_DECODED
    for file in drawn:
        found, read, decoded = _look(folder / file, file, decodable)
        seen.append(found)
        left, decodable = left - read, decodable - decoded
        if left < 0:
            break
    return sorted(seen, key=lambda s: s.file)


def _look(path: Path, file: str, decodable: int) -> tuple[Seen, int, int]:
    """A file, how many bytes of it were read, and how many pixels were decoded."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return Seen(file, OTHER, "unreadable_file"), 0, 0
        with path.open("rb") as stream:
            head = stream.read(volumes.HEAD_BYTES)
            media_type = pixels.media_type(head)
            if media_type is None:
                return Seen(file, OTHER, "not_an_image"), len(head), 0
            kind = KINDS[media_type]
            if path.stat().st_size > MAX_FILE_BYTES:
                return Seen(file, kind, "too_large"), len(head), 0
            data = head + stream.read()
    except OSError:
        return Seen(file, OTHER, "unreadable_file"), 0, 0
    facts: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest()}
    decoded = 0
    try:
        if media_type == pixels.DICOM:
            _header(data, facts)
        elif media_type == volumes.NIFTI:
            _volume(data, facts)
        else:
            decoded = _picture(data, facts, decodable)
    except SetAside as error:
        facts["reason"] = error.reason
    if facts.get("reason") == "not_an_image":  # two bytes were enough to look like DICOM
        kind = OTHER
    return Seen(file, kind, **facts), len(data), decoded


def _header(data: bytes, facts: dict[str, Any]) -> None:
    dataset = dicom.parse(data)
    facts["keys"] = {name: text(dataset, name) for name in KEYS}
    made = acquisition(dataset)
    modality = made["modality"] or ""
    facts["modality"] = modality if re.fullmatch("[A-Z]{2,16}", modality) else None
    facts["scanner"] = made["scanner"]
    photometric = made["photometric_interpretation"]
    facts["inverted"] = photometric == dicom.GREY[0]
    facts["size"] = (_number(dataset, "Rows", 0), _number(dataset, "Columns", 0))
    with decoding.honest_header():
        declared = decoding.layout(dataset)
    for reason, holds in (
        ("multi_frame", declared.frames > 1),
        ("colour", declared.photometric not in dicom.GREY),
        ("no_instance_uid", not facts["keys"]["SOPInstanceUID"]),
        ("no_patient_id", not facts["keys"]["PatientID"]),
    ):
        if holds:
            raise SetAside(reason)
    unread = np.broadcast_to(np.uint8(0), facts["size"])  # without a detector none is looked at
    burned_in.text_regions(dataset, unread, TextInPixels())


def _volume(data: bytes, facts: dict[str, Any]) -> None:
    frames, *size = volumes.declared_shape(data)
    facts["size"] = tuple(size)
    if frames > 1:
        raise SetAside("multi_frame")


def _number(dataset: Any, keyword: str, default: int) -> int:
    with suppress(TypeError, ValueError):
        return int(text(dataset, keyword) or default)
    return default


def _picture(data: bytes, facts: dict[str, Any], decodable: int) -> int:
    """Read a PNG's or JPEG's header; one in colour is decoded, for it may still be grey."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
            width, height = image.size
            coloured = image.mode not in ("1", "L", "I", "I;16", "I;16B")
    except Exception:  # Pillow raises whatever its decoders do
        raise SetAside("unreadable_header") from None
    facts["size"] = (height, width)
    area: int = width * height
    if area > dicom.MAX_PIXELS:
        raise SetAside("too_large")
    if not coloured:
        return 0
    if area > decodable:
        facts["unsure"] = True
        return 0
    pixels.stored_picture(data)
    return area
