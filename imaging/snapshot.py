"""Scans in, a snapshot out: each file is read once, cleaned, written, checked, or set aside.

`examiner` runs in worker processes and sees one file at a time; `take_snapshot` decides what needs
to know them all: labels, duplicates, conflicts. Identities stay in memory.
"""

import csv
import hashlib
import io
import logging
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging import deidentify, dicom, labels, pixels, profile, verify
from imaging.acquisition import acquisition, text
from imaging.config import IngestionConfig
from imaging.manifest import write_manifest
from imaging.reasons import SetAside
from imaging.statistics import image_statistics
from imaging.worker import map_isolated
from lineage.digest import RECORD, keyed_digest, tree_digest
from lineage.errors import BadInput, StepFailed
from lineage.files import write_json
from lineage.progress import Report
from lineage.workspace import workspace

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SET_ASIDE, COUNTS, DEIDENTIFICATION = "set_aside.parquet", "counts.json", "deidentification.json"
MAX_FILE_BYTES = 512 * 2**20
# Devices and captures whose pixels commonly show names, unless the header denies it.
ANNOTATING = ("US", "SC", "XA", "OT", "DOC", "ES")
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
KEYS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")

Facts = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of the files: counts as in counts.json; file and reason of those set aside."""

    counts: dict[str, Any]
    set_aside: tuple[tuple[str, str], ...]


def find_files(scans: Path) -> list[str]:
    """All files under a folder as relative posix paths, sorted: no file system's order shows."""
    if not scans.is_dir():
        raise BadInput("scans: there is no such directory; name the folder that holds the images")

    def closed(_: OSError) -> None:
        raise BadInput(
            "scans: a folder in it cannot be opened, so the scans in there would be missing without"
            " a word; give yourself the right to read it"
        )

    found = []
    for folder, below, names in os.walk(scans, onerror=closed):
        # Followed, they could lead in circles, and the step's key would not see what is in there.
        if linked := sum((Path(folder) / name).is_symlink() for name in below):
            are = "a folder in it is a link" if linked == 1 else f"{linked} folders in it are links"
            raise BadInput(
                f"scans: {are}, whose scans would be missing without a word; name their place as "
                "scans, or put the folders themselves there"
            )
        found += [(Path(folder) / name).relative_to(scans).as_posix() for name in names]
    return sorted(file for file in found if file != RECORD)


def take_snapshot(
    config: IngestionConfig,
    scans: Path,
    label_of: dict[str, labels.Label],
    snapshot: Path,
    key: bytes,
    report: Report | None = None,
) -> Outcome:
    """Fill `snapshot` with cleaned images, manifest.parquet, set_aside.parquet and the proofs.

    Args:
        config: Bounds for one file, and how labels are keyed.
        scans: Folder of DICOM, PNG or JPEG files at any depth.
        label_of: From `labels.read_labels`.
        snapshot: Empty folder.
        key: The pseudonym key.
        report: Told of the progress.

    Raises:
        StepFailed: The check of what was written found a leak, or no worker could start.
    """
    files = find_files(scans)
    results: list[Facts] = map_isolated(
        "imaging.snapshot:examiner",
        {"scans": str(scans.absolute()), "snapshot": str(snapshot.absolute()), "key": key.hex()},
        files,
        timeout_s=config.file_timeout_s,
        memory_gib=config.file_memory_gib,
        report=report,
    )
    _refuse_leaks(results)
    if unwritable := [r["unwritable"] for r in results if "unwritable" in r]:
        raise StepFailed(
            f"{len(unwritable)} cleaned files could not be written ({unwritable[0]}): make room in "
            "the workspace, or let it be written to, and run again"
        )
    for place in sorted({r["place"] for r in results if "place" in r}):
        logging.getLogger(__name__).warning("a file was set aside after %s", place)
    keyed = _join(config, files, results, label_of)
    _decide(results, keyed, label_of)

    names = deidentify.Pseudonyms(key)
    rows = [
        _row(r, label_of[k], names)
        for r, k in zip(results, keyed, strict=True)
        if "reason" not in r and k is not None
    ]
    _sweep(snapshot, {row["path"] for row in rows})
    write_manifest(rows, snapshot)
    set_aside = tuple(
        (f, r["reason"]) for f, r in zip(files, results, strict=True) if "reason" in r
    )
    reasons = Counter(reason for _, reason in set_aside)
    counts = {
        "found": len(files),
        "read": len(rows),
        "set_aside": len(set_aside),
        "reasons": dict(sorted(reasons.items())),
        "patients": len({row["patient_id"] for row in rows}),
        "labels_without_image": len(label_of.keys() - set(keyed)),
    }
    _write_set_aside(set_aside, snapshot, key)
    write_json(snapshot / COUNTS, counts)
    write_json(
        snapshot / DEIDENTIFICATION,
        {
            "verified": True,  # a leak would have ended the step above
            "dicom": sum(row["source_format"] == "dicom" for row in rows),
            "pictures": sum(row["source_format"] == "image" for row in rows),
            "profile_edition": profile.EDITION,
            "options": profile.APPLIED,
            "policy_digest": profile.policy_digest(),
            "checks": dict.fromkeys(verify.CHECKS, 0),  # leaks found by each
        },
    )
    return Outcome(counts, set_aside)


def keep_map(outcome: Outcome, snapshot: Path, key: bytes) -> Path:
    """Write which files were set aside where only the owner can read it; it never travels.

    Returns:
        `secrets/set_aside/<content digest of the snapshot>.csv` in the workspace.
    """
    folder = workspace().home / "secrets" / "set_aside"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{tree_digest(snapshot)}.csv"
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path_digest", "reason", "file"))
    writer.writerows((path_digest(file, key), reason, file) for file, reason in outcome.set_aside)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(table.getvalue().encode("utf-8", "surrogateescape"))
    return path


def path_digest(file: str, key: bytes) -> str:
    """Name a file in public: folders and file names often hold the patient's."""
    return keyed_digest(key, "path", file.encode("utf-8", "backslashreplace").decode())


def examiner(setup: dict[str, str]) -> Callable[[str], Facts]:
    """The function that a worker runs on each file: JSON facts of it, or the reason against it."""
    import pydicom

    # What does not keep to the standard is judged here, value by value, not warned about.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    scans, snapshot = Path(setup["scans"]), Path(setup["snapshot"])
    names = deidentify.Pseudonyms(bytes.fromhex(setup["key"]))

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


def _examine_dicom(data: bytes, facts: Facts, snapshot: Path, names: deidentify.Pseudonyms) -> None:
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
        **acquisition(target),
        **image_statistics(seen),
    }


def _examine_picture(
    data: bytes, facts: Facts, snapshot: Path, names: deidentify.Pseudonyms
) -> None:
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


def may_show_text(source: "Dataset") -> bool:
    """Text in the pixels is declared, or is common on such a device and not ruled out."""
    declared = text(source, "BurnedInAnnotation")
    if declared is not None:
        return declared.upper() != "NO"
    sop_class = text(source, "SOPClassUID") or ""
    captured = sop_class == SECONDARY_CAPTURE or sop_class.startswith(SECONDARY_CAPTURE + ".")
    return text(source, "Modality") in ANNOTATING or captured


def _refuse_leaks(results: Sequence[Facts]) -> None:
    """Raise for leaks, by check and attribute and number of files; never by value."""
    per_file = [
        {(leak["check"], leak["attribute"]) for leak in r.get("leaks", ())} for r in results
    ]
    leaks = Counter(leak for found in per_file for leak in found)
    if leaks:
        told = "; ".join(f"{a} ({c}) in {n} files" for (c, a), n in sorted(leaks.items()))
        raise StepFailed(
            "de-identification: the check of the written files found a leak, so none of "
            f"them is used: {told}"
        )


def _join(
    config: IngestionConfig,
    files: Sequence[str],
    results: Sequence[Facts],
    label_of: dict[str, labels.Label],
) -> list[str | None]:
    """The labels table's key for each file; None where it has none."""
    if config.labels.key == "file":
        matched = labels.match_files(files, label_of)
        return [matched.get(file) for file in files]
    keys = [r.get("keys", {}).get(config.labels.key) for r in results]
    return [k if k in label_of else None for k in keys]


def _decide(
    results: Sequence[Facts], keyed: Sequence[str | None], label_of: dict[str, labels.Label]
) -> None:
    """Add the reasons that take a look at more than one file."""
    for group in _groups(results, lambda r: r["row"]["instance_uid"]):
        if len({results[i]["file_sha256"] for i in group}) > 1:
            _set_aside(results, group, "conflicting_instance_uid")
    for result, key in zip(results, keyed, strict=True):
        if "reason" in result:
            continue
        label = label_of[key] if key is not None else None
        if label is not None and label.conflict:
            result["reason"] = "label_conflict"
        elif label is None or label.label is None:
            result["reason"] = "unlabelled" if label is None else "other_class"
        elif not (result["row"].get("patient_id") or label.patient_id):
            result["reason"] = "no_patient_id"
    for group in _groups(results, lambda r: r["row"]["pixel_sha256"]):
        if len({label_of[k].label for i in group if (k := keyed[i]) is not None}) > 1:
            _set_aside(results, group, "label_conflict")
            continue
        seen: set[str] = {results[group[0]]["file_sha256"]}
        for i in group[1:]:
            same_file = results[i]["file_sha256"] in seen
            results[i]["reason"] = "duplicate_file" if same_file else "duplicate_pixels"
            seen.add(results[i]["file_sha256"])


def _groups(results: Sequence[Facts], key: Callable[[Facts], str]) -> list[list[int]]:
    """Indices of results still in, grouped; in the order of the files."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, result in enumerate(results):
        if "reason" not in result:
            groups[key(result)].append(i)
    return list(groups.values())


def _set_aside(results: Sequence[Facts], group: Sequence[int], reason: str) -> None:
    for i in group:
        results[i]["reason"] = reason


def _row(result: Facts, label: labels.Label, names: deidentify.Pseudonyms) -> dict[str, Any]:
    """A manifest row: the header's word first, the labels table's where the header is silent."""
    row = dict(result["row"])
    if not row.get("patient_id"):
        row["patient_id"] = names.patient(label.patient_id or "")
    sex = (row.get("sex") or label.sex or "")[:1].upper()
    age = row.get("age_years")
    if age is None and label.age_years is not None:
        age = deidentify.capped_age_years(label.age_years)
    day = row.get("study_date") or ""
    return row | {
        "file_bytes": result["file_bytes"],
        "label": label.label,
        "sex": sex if sex in ("F", "M", "O") else None,
        "age_years": age,
        "scanner": label.scanner or row.get("scanner") or None,
        "site": label.site,
        "study_date": date(int(day[:4]), int(day[4:6]), int(day[6:8])) if len(day) == 8 else None,
    }


def _sweep(snapshot: Path, kept: set[str]) -> None:
    """Remove what workers wrote and the whole picture ruled out, and drafts of aborted ones."""
    images = snapshot / "images"
    images.mkdir(exist_ok=True)
    for path in sorted(images.rglob("*"), reverse=True):  # children before their folders
        if path.is_file() and path.relative_to(snapshot).as_posix() not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _write_set_aside(set_aside: Sequence[tuple[str, str]], snapshot: Path, key: bytes) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted((path_digest(file, key), reason) for file, reason in set_aside)
    schema = pa.schema(
        [pa.field(n, pa.string(), nullable=False) for n in ("path_digest", "reason")]
    )
    table = pa.Table.from_pylist([{"path_digest": d, "reason": r} for d, r in rows], schema=schema)
    pq.write_table(table, snapshot / SET_ASIDE, compression="zstd")
