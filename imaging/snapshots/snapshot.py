"""Scans in, a snapshot out: each file is read once, cleaned, written, checked, or set aside.

`imaging/snapshots/examine.py` runs in worker processes and sees one file at a time; `take_snapshot`
decides what needs to know them all: labels, duplicates, conflicts. Identities stay in memory.
"""

import csv
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from imaging import labels
from imaging.config import IngestionConfig
from imaging.deidentification import deidentify, profile, verify
from imaging.deidentification.pseudonyms import Pseudonyms
from imaging.incoming.folder import find_files
from imaging.manifest import write_manifest
from imaging.snapshots.examine import Facts
from imaging.worker import map_isolated
from lineage.digest import keyed_digest, tree_digest
from lineage.errors import StepFailed
from lineage.files import write_json
from lineage.progress import Report
from lineage.workspace import workspace

SET_ASIDE, COUNTS, DEIDENTIFICATION = "set_aside.parquet", "counts.json", "deidentification.json"


@dataclass(frozen=True)
class Outcome:
    """What became of the files: counts as in counts.json; file and reason of those set aside."""

    counts: dict[str, Any]
    set_aside: tuple[tuple[str, str], ...]


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
        "imaging.snapshots.examine:examiner",
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

    names = Pseudonyms(key)
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


def _row(result: Facts, label: labels.Label, names: Pseudonyms) -> dict[str, Any]:
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
