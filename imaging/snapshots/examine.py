"""One file: read, cleaned, written, checked, or the reason against it. Runs in worker processes."""

import hashlib
import io
import os
import stat
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imaging import dicom, pixels
from imaging.acquisition import acquisition, text
from imaging.deidentification import deidentify, verify
from imaging.deidentification.burned_in import may_show_text
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.reasons import SetAside
from imaging.statistics import image_statistics
from lineage.digest import keyed_digest

MAX_FILE_BYTES = 512 * 2**20
KEYS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")

Facts = dict[str, Any]


def examiner(setup: dict[str, str]) -> Callable[[str], Facts]:
    """The function that a worker runs on each file: JSON facts of it, or the reason against it."""
    import pydicom

    # What does not keep to the standard is judged here, value by value, not warned about.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    scans, snapshot = Path(setup["scans"]), Path(setup["snapshot"])
    names = Pseudonyms(bytes.fromhex(setup["key"]))

    def examine(file: str) -> Facts:
        facts: Facts = {}
        try:
            data, media_type = _read(scans / file)
            facts |= {"file_sha256": hashlib.sha256(data).hexdigest(), "file_bytes": len(data)}
            inspect = _examine_dicom if media_type == pixels.DICOM else _examine_picture
            inspect(data, facts, snapshot, names)
        except SetAside as reason:
            facts["reason"] = reason.reason
        return facts

    return examine


def _read(path: Path) -> tuple[bytes, str]:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SetAside("unreadable_file")  # a pipe would keep us waiting for ever
        with path.open("rb") as file:
            kind = pixels.media_type(file.read(132))
            if kind is None:
                raise SetAside("not_an_image")
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise SetAside("too_large")
            file.seek(0)
            return file.read(), kind
    except OSError:
        raise SetAside("unreadable_file") from None


def _examine_dicom(data: bytes, facts: Facts, snapshot: Path, names: Pseudonyms) -> None:
    source = dicom.parse(data)
    facts["keys"] = {name: text(source, name) for name in KEYS}
    stored = dicom.stored_pixels(source)
    if not facts["keys"]["SOPInstanceUID"]:
        raise SetAside("no_instance_uid")
    if not facts["keys"]["PatientID"]:
        raise SetAside("no_patient_id")
    if may_show_text(source):
        raise SetAside("burned_in_annotation")
    seen = dicom.as_seen(source, stored)
    pixel_sha256 = pixels.pixel_digest(seen)
    before = verify.describe(source, pixel_sha256)
    target = deidentify.deidentify(source, stored, names, verify.mention(before.identifiers))
    written = deidentify.encode(target)
    uid, patient = str(target.SOPInstanceUID), str(target.PatientID)
    path = f"images/{hashlib.sha256(uid.encode()).hexdigest()[:2]}/{uid}.dcm"
    method = deidentify.method()
    _write_checked(
        snapshot / path, written, facts, lambda draft: verify.verify(draft, before, patient, method)
    )
    facts["row"] = {
        "instance_uid": uid,
        "series_uid": text(target, "SeriesInstanceUID"),
        "study_uid": text(target, "StudyInstanceUID"),
        "patient_id": patient,
        "path": path,
        "source_format": "dicom",
        "sha256": hashlib.sha256(written).hexdigest(),
        "pixel_sha256": pixel_sha256,
        "sex": text(target, "PatientSex"),
        "age_years": deidentify.age_years(text(target, "PatientAge")),
        "transfer_syntax": str(source.file_meta.TransferSyntaxUID),
        "study_date": text(target, "StudyDate"),
        "rows": seen.shape[0],
        "columns": seen.shape[1],
        "frames": 1,
        "samples": 1,
        **acquisition(target),
        **image_statistics(seen),
    }


def _examine_picture(data: bytes, facts: Facts, snapshot: Path, names: Pseudonyms) -> None:
    from PIL import Image

    stored = pixels.stored_picture(data)
    seen = pixels.scale_picture(stored)
    buffer = io.BytesIO()
    Image.fromarray(stored).save(
        buffer, format="PNG", compress_level=1
    )  # else it takes half the time
    uid = keyed_digest(names.key, "image", facts["file_sha256"])[:32]
    path = f"images/{uid[:2]}/{uid}.png"
    pixel_sha256 = pixels.pixel_digest(seen)
    _write_checked(
        snapshot / path,
        buffer.getvalue(),
        facts,
        lambda draft: verify.verify_picture(draft, pixel_sha256),
    )
    facts["row"] = {
        "instance_uid": uid,
        "path": path,
        "source_format": "image",
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "pixel_sha256": pixel_sha256,
        "rows": seen.shape[0],
        "columns": seen.shape[1],
        "frames": 1,
        "samples": 1,
        "bits_stored": 8 * stored.itemsize,
        **image_statistics(seen),
    }


def _write_checked(
    path: Path, data: bytes, facts: Facts, check: Callable[[Path], list[verify.Leak]]
) -> None:
    """Write beside the place, check, and only then move it there."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
    except OSError as error:
        facts["unwritable"] = error.strerror  # no fault of this file's: it must not cost the file
        return
    leaks = check(draft)
    if leaks:
        facts["leaks"] = [asdict(leak) for leak in leaks]
        draft.unlink()
    else:
        draft.replace(path)
