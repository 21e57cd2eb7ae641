"""One file: read, cleaned, written, checked, or the reason against it. Runs in worker processes."""

import hashlib
import io
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging.config import Range
from imaging.deidentification import burned_in, deidentify, encoding, ocr, pseudonyms, spellings
from imaging.deidentification.done import done
from imaging.deidentification.policy import DeidentificationPolicy
from imaging.deidentification.verifying import identities, verify
from imaging.labelling import segmentations
from imaging.reading import decoding, dicom, pixels, volumes
from imaging.reading.acquisition import acquisition, text
from imaging.reasons import SetAside
from imaging.snapshots import ingested
from imaging.snapshots.ingested import Facts
from imaging.statistics import image_statistics
from imaging.validation.near_duplicates import perceptual_hash
from lineage.digest import keyed_digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FILE_BYTES = 512 * 2**20
HEAD_BYTES = 512
KEYS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601


@dataclass(frozen=True)
class Examination:
    """What is done to every file: of `IngestionConfig` all but the labels.

    Attributes:
        crosswalk: Where drawn pseudonyms are kept, for a policy that draws them.
        compare: Whether to tell what was done to each attribute.
        by_study: Whether images of a study that names no patient count as one patient's, instead
            of being set aside.
        describe: Whether to say how a volume looks, as the manifest does: that takes a range of
            values to show, which a volume can be cleaned without.
    """

    policy: DeidentificationPolicy
    colour: Literal["set_aside", "grey", "keep"] = "set_aside"
    frames: Literal["set_aside", "keep"] = "set_aside"
    volume_range: Range | None = None
    timeout_s: float = 20.0
    memory_gib: float = 2.0
    crosswalk: Path = Path("crosswalk.sqlite")
    compare: bool = False
    by_study: bool = False
    describe: bool = True

    def as_json(self) -> dict[str, Any]:
        """For a worker; and for the name of what it finds out."""
        return {
            **vars(self),
            "policy": self.policy.model_dump(mode="json"),
            "volume_range": self.volume_range and self.volume_range.model_dump(),
            "crosswalk": str(self.crosswalk.absolute()),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Examination":
        """What `as_json` gave."""
        return cls(
            **fields
            | {
                "policy": DeidentificationPolicy(**fields["policy"]),
                "volume_range": fields["volume_range"] and Range(**fields["volume_range"]),
                "crosswalk": Path(fields["crosswalk"]),
            }
        )


@dataclass(frozen=True)
class _Worker:
    """What holds for every file."""

    how: Examination
    names: pseudonyms.Names
    folder: Path  # of `ingested.Ingested`


def examiner(setup: dict[str, Any]) -> Callable[[str], Facts]:
    """The function that a worker runs on each file: JSON facts of it, or the reason against it.

    Args:
        setup: `scans`, the folder of the files; `folder`, that of `ingested.Ingested`; `key`, the
            pseudonym key in hexadecimal; `how`, an `Examination` as JSON.
    """
    import pydicom

    # What does not keep to the standard is judged here, value by value, not warned about.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    scans, folder, how = Path(setup["scans"]), Path(setup["folder"]), setup["how"]
    how = Examination.from_json(how)
    names = pseudonyms.open_names(how.policy, bytes.fromhex(setup["key"]), how.crosswalk)
    worker = _Worker(how, names, folder)
    _load(how)
    knows = ingested.knower(folder)
    inspectors = {pixels.DICOM: _examine_dicom, volumes.NIFTI: _examine_volume}

    def examine(file: str) -> Facts:
        facts: Facts = {}
        try:
            data, media_type = read_file(scans / file, facts)
            if knows(facts["file_sha256"]):
                return facts | {"known": True}
            inspectors.get(media_type, _examine_picture)(data, facts, worker)
        except SetAside as reason:
            facts["reason"] = reason.reason
        return facts

    return examine


def _load(how: Examination) -> None:
    """Import what the first file would: its time and memory are to be its own."""
    import numpy as np
    from PIL import Image
    from pydicom.pixels import get_decoder

    Image.preinit()
    get_decoder("1.2.840.10008.1.2.1")
    perceptual_hash(np.zeros((8, 8), np.float32))
    ingested.seal(b"", "")
    if how.policy.text_in_pixels.ocr:
        ocr.warm_up()


def study_day(facts: Facts) -> date | None:
    """The day of the study, as the policy left it."""
    try:
        return datetime.strptime(facts["row"].get("study_date", ""), "%Y%m%d").date()
    except ValueError:
        return None


def known_by(key: bytes, name: str, value: str) -> str:
    """What stands for an identifier outside of this process: nobody without the key can go back."""
    return keyed_digest(key, name, value)[:32]


def read_file(path: Path, facts: Facts) -> tuple[bytes, str]:
    """The file's bytes and media type; its look goes into the facts if it can be relied upon.

    Raises:
        SetAside: unreadable_file, not_an_image or too_large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SetAside("unreadable_file")  # a pipe would keep us waiting for ever
        with path.open("rb") as file:
            before, now_ns = os.fstat(file.fileno()), time.time_ns()
            head = file.read(HEAD_BYTES)
            kind = pixels.media_type(head)
            small = before.st_size <= MAX_FILE_BYTES
            data = head + file.read() if kind and small else b""
            after = os.fstat(file.fileno())
    except OSError:
        raise SetAside("unreadable_file") from None
    look = ingested.look(after)
    if look == ingested.look(before) and ingested.at_rest(after, now_ns):
        facts["look"] = look
    if kind is None:
        raise SetAside("not_an_image")
    if not small:
        raise SetAside("too_large")
    facts |= {"file_sha256": hashlib.sha256(data).hexdigest(), "file_bytes": len(data)}
    return data, kind


def _examine_dicom(data: bytes, facts: Facts, worker: _Worker) -> None:
    names, policy = worker.names, worker.how.policy
    source = dicom.parse(data)
    identifiers = {name: text(source, name) or "" for name in KEYS}
    facts["keys"] = {n: known_by(names.key, n, v) for n, v in identifiers.items() if v}
    if issuer := text(source, "IssuerOfPatientID"):
        facts["issuer"] = known_by(names.key, "IssuerOfPatientID", issuer)
    stored = _stored(source, worker.how)
    if not identifiers["SOPInstanceUID"]:
        raise SetAside("no_instance_uid")
    if not identifiers["PatientID"]:
        if not (worker.how.by_study and identifiers["StudyInstanceUID"]):
            raise SetAside("no_patient_id")
        # What the code is made of; it is never written.
        with decoding.honest_header():  # a PatientID that does not decode names somebody
            source.PatientID = identifiers["PatientID"] = identifiers["StudyInstanceUID"]
    regions = burned_in.text_regions(source, stored, policy.text_in_pixels)
    facts["masked"] = bool(regions)
    stored = burned_in.masked(stored, regions, source) if regions else stored
    colour = str(source.PhotometricInterpretation) not in dicom.GREY
    if colour and worker.how.colour == "grey":
        stored, colour = _grey(stored), False
    seen = dicom.as_seen(source, stored)
    pixel_sha256 = pixels.pixel_digest(seen)
    before = identities.describe(source, pixel_sha256, policy)
    mention = spellings.mention(before.identifiers, before.spelled)
    target = deidentify.deidentify(source, stored, names, mention, policy, masked=bool(regions))
    facts["who"] = [
        known_by(names.key, "who", word)
        for word, name in before.identifiers.items()
        if name in ("PatientName", "PatientID")
    ]
    written = encoding.encode(target)
    uid, patient = str(target.SOPInstanceUID), str(target.PatientID)
    method = deidentify.method(policy)
    _keep(
        written, facts, worker, lambda draft: verify.verify(draft, before, patient, method, policy)
    )
    if worker.how.compare:
        facts["done"] = done(source, target)
    facts["geometry"] = segmentations.grid(source)
    facts["patient"] = ingested.seal(names.key, identifiers["PatientID"])
    facts["row"] = _filled(
        {
            "instance_uid": uid,
            "series_uid": text(target, "SeriesInstanceUID"),
            "study_uid": text(target, "StudyInstanceUID"),
            "patient_id": patient,
            "path": f"images/{hashlib.sha256(uid.encode()).hexdigest()[:2]}/{uid}.dcm",
            "source_format": "dicom",
            "pixel_sha256": pixel_sha256,
            "sex": text(target, "PatientSex"),
            "age_years": deidentify.age_years(text(target, "PatientAge")),
            "transfer_syntax": str(source.file_meta.TransferSyntaxUID),
            "study_date": text(target, "StudyDate"),
            **acquisition(target),
            **_looks_of(written, seen, colour=colour),
        }
    )


def _stored(source: Any, how: Examination) -> "NDArray[Any]":
    """Pixels that the settings ask for; what they do not is refused before it is decoded."""
    with decoding.honest_header():
        declared = decoding.layout(source)
    if declared.frames > 1 and how.frames == "set_aside":
        raise SetAside("multi_frame")
    if declared.photometric not in decoding.GREY and how.colour == "set_aside":
        raise SetAside("colour")
    return dicom.stored_pixels(source)


def _grey(stored: "NDArray[Any]") -> "NDArray[Any]":
    import numpy as np

    grey: NDArray[Any] = np.rint(stored @ np.array(LUMA)).astype(stored.dtype)
    return grey


def _examine_picture(data: bytes, facts: Facts, worker: _Worker) -> None:
    from PIL import Image

    how = worker.how
    stored = pixels.stored_picture(data, colour=how.colour != "set_aside")
    if regions := burned_in.text_regions(None, stored, how.policy.text_in_pixels):
        facts["masked"], stored = True, burned_in.masked(stored, regions)
    if stored.ndim == 3 and how.colour == "grey":
        stored = _grey(stored)
    seen = pixels.scale_picture(stored)
    buffer = io.BytesIO()
    # Compressed more, it would take twice the time.
    Image.fromarray(stored).save(buffer, format="PNG", compress_level=1)
    pixel_sha256 = pixels.pixel_digest(seen)
    _keep(
        buffer.getvalue(), facts, worker, lambda draft: verify.verify_picture(draft, pixel_sha256)
    )
    facts["row"] = {
        **_named(facts, worker, ".png"),
        "source_format": "image",
        "pixel_sha256": pixel_sha256,
        "bits_stored": 8 * stored.itemsize,
        **_looks_of(buffer.getvalue(), seen, colour=seen.ndim == 3),
    }


def _examine_volume(data: bytes, facts: Facts, worker: _Worker) -> None:
    volume = volumes.stored_volume(data)
    if len(volume.array) > 1 and worker.how.frames == "set_aside":
        raise SetAside("multi_frame")
    if regions := burned_in.text_regions(None, volume.array, worker.how.policy.text_in_pixels):
        facts["masked"] = True
        volume = replace(volume, array=burned_in.masked(volume.array, regions))
    seen = volumes.as_seen(volume, worker.how.volume_range) if worker.how.describe else None
    written = volumes.encode(volume)
    stored = volumes.stored_digest(volume)
    _keep(written, facts, worker, lambda draft: volumes.verify_volume(draft, stored))
    slices_mm, rows_mm, columns_mm = volume.spacing_mm
    facts["geometry"] = volume.geometry
    facts["row"] = _filled(
        {
            **_named(facts, worker, ".nii.gz"),
            "source_format": "nifti",
            "sha256": hashlib.sha256(written).hexdigest(),
            "pixel_sha256": None if seen is None else pixels.pixel_digest(seen),
            "bits_stored": 8 * volume.array.itemsize,
            "pixel_spacing_mm": rows_mm,
            "column_spacing_mm": columns_mm,
            "slice_spacing_mm": slices_mm,
            "patient_orientation": volume.orientation,
            **({} if seen is None else _looks_of(written, seen, colour=False)),
        }
    )


def _named(facts: Facts, worker: _Worker, suffix: str) -> dict[str, str]:
    """A name for what has none of its own."""
    uid = keyed_digest(worker.names.key, "image", facts["file_sha256"])[:32]
    return {"instance_uid": uid, "path": f"images/{uid[:2]}/{uid}{suffix}"}


def _looks_of(written: bytes, seen: "NDArray[Any]", *, colour: bool) -> dict[str, Any]:
    """Columns of the manifest that the pixels give, whatever the format."""
    *frames, rows, columns = seen.shape[:-1] if colour else seen.shape
    return {
        "sha256": hashlib.sha256(written).hexdigest(),
        "rows": rows,
        "columns": columns,
        "frames": frames[0] if frames else 1,
        "samples": 3 if colour else 1,
        "perceptual_hash": perceptual_hash(seen),
        **image_statistics(seen),
    }


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _keep(
    data: bytes, facts: Facts, worker: _Worker, check: Callable[[Path], list[verify.Leak]]
) -> None:
    ingested.write_checked(data, ingested.cleaned_name(facts), worker.folder, facts, check)
