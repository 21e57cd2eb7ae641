"""Scans in, a snapshot out: each file is read once, cleaned, written, checked, or set aside.

`imaging/snapshots/examine.py` runs in worker processes and sees one file at a time; `take_snapshot`
decides what needs to know them all: labels, duplicates, conflicts. Identities stay in memory.
"""

import csv
import io
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from imaging.config import IngestionConfig
from imaging.deidentification import deidentify, profile, spellings
from imaging.deidentification.policy import DeidentificationPolicy, not_safe_harbor
from imaging.deidentification.pseudonyms import Names, open_names
from imaging.deidentification.risk import SMALLISH, Risk, retained, risk_summary
from imaging.deidentification.verifying import verify
from imaging.labelling import labels, masks
from imaging.manifest import MANIFEST, schema, write_sorted
from imaging.snapshots.croissant import write_croissant
from imaging.snapshots.decisions import (
    Image,
    alike,
    decide,
    original_ids,
    ranks,
    refuse_parted_patients,
)
from imaging.snapshots.examine import Examination, known_by, study_day
from imaging.snapshots.examined import Examined, examine_all, recipe
from imaging.snapshots.ingested import Facts, cleaned_name, ingested
from imaging.snapshots.integrity import COUNTS, write_root
from lineage.digest import file_digest, keyed_digest, tree_digest
from lineage.errors import BadInput
from lineage.files import write_json
from lineage.progress import Report
from lineage.workspace import workspace

SET_ASIDE, DEIDENTIFICATION = "set_aside.parquet", "deidentification.json"


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
    cache: Path | None = None,
    crosswalk: Path | None = None,
) -> Outcome:
    """Fill `snapshot` with cleaned images, manifest.parquet, set_aside.parquet and the proofs.

    Args:
        config: How images are cleaned, bounds for one file, and how labels are keyed.
        scans: Folder of DICOM, PNG or JPEG files at any depth.
        label_of: From `labels.read_labels`.
        snapshot: Empty folder.
        key: The pseudonym key.
        report: Told of the progress.
        cache: Where to keep what was found out, so that it need not be again.
        crosswalk: Where drawn pseudonyms are kept, for a policy that draws them.

    Raises:
        BadInput: A column of the labels table names the patients, or its patients are not the
            headers'.
        StepFailed: The check of what was written found a leak, or no worker could start.
    """
    how = examination(config, crosswalk)
    (snapshot / "images").mkdir()
    naming: defaultdict[str, set[str]] = defaultdict(set)
    issuers: defaultdict[str, set[str]] = defaultdict(set)
    with (
        closing(open_names(how.policy, key, how.crosswalk)) as names,
        ingested(cache, recipe(how, names), snapshot) as store,
    ):
        examined = examine_all(how, scans, store, key, report)
        images, sealed = _images(config, examined, label_of, key, snapshot)
        decide(images, label_of, names)
        kept = [image for image in images if not image.reason]
        refuse_parted_patients(kept, label_of, names)
        original = original_ids(kept, label_of, sealed, names)
        rank = ranks(original)
        # In tenths of 11 patients or more: whoever has their list must not find one by its place.
        parts = max(1, min(10, len(rank) // SMALLISH))

        def rows() -> Iterator[dict[str, Any]]:
            in_order = sorted(enumerate(images), key=lambda place: place[1].instance)
            for i, image in in_order:
                if image.reason:
                    continue
                facts, label = examined.facts(i), label_of[str(image.key)]
                row = _row(facts, label, image.mask, names)
                for setting, value in _taken_over(label):
                    if _tells_who(value, facts, label, key):
                        naming[setting].add(value)
                store.place(cleaned_name(facts), snapshot / row["path"])
                if "issuer" in facts:
                    issuers[row["patient_id"]].add(facts["issuer"])
                patient_id = original[row["patient_id"]]
                yield row | {
                    "label_known_since": _moved(label.known_since, patient_id, names, how.policy),
                    "source_order_decile": parts * i // len(images),
                    "patient_order_decile": parts * rank[row["patient_id"]] // len(rank),
                }

        write_sorted(rows(), snapshot)
    _refuse_naming(naming)
    _sweep_masks(snapshot, {image.mask.path for image in kept if image.mask})
    set_aside = tuple((image.file, image.reason) for image in images if image.reason)
    counts = {
        "found": len(images),
        "read": len(kept),
        "set_aside": len(set_aside),
        "reasons": dict(sorted(Counter(reason for _, reason in set_aside).items())),
        "patients": len(rank),
        "patients_alike": alike(original),
        "patients_of_several_issuers": sum(len(found) > 1 for found in issuers.values()),
        "labels_without_image": len(label_of.keys() - {image.key for image in images}),
    }
    _write_set_aside(set_aside, snapshot, key)
    write_json(snapshot / COUNTS, counts)
    write_json(snapshot / DEIDENTIFICATION, _proof(how.policy, counts, snapshot))
    write_root(snapshot)
    write_croissant(snapshot)
    return Outcome(counts, set_aside)


def keep_map(outcome: Outcome, snapshot: Path, key: bytes) -> Path:
    """Write which files were set aside where only the owner can read it; it never travels.

    Returns:
        `secrets/set_aside/<content digest of the snapshot>.csv` in the workspace.
    """
    return keep_list(_content(snapshot), outcome.set_aside, key)


def keep_list(name: str, set_aside: Sequence[tuple[str, str]], key: bytes) -> Path:
    """Write files and reasons to `secrets/set_aside/<name>.csv` in the workspace."""
    folder = workspace().home / "secrets" / "set_aside"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{name}.csv"
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path_digest", "reason", "file"))
    writer.writerows((path_digest(file, key), reason, file) for file, reason in set_aside)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(table.getvalue().encode("utf-8", "surrogateescape"))
    return path


def path_digest(file: str, key: bytes) -> str:
    """Name a file in public: folders and file names often hold the patient's."""
    return keyed_digest(key, "path", file.encode("utf-8", "backslashreplace").decode())


def _content(snapshot: Path) -> str:
    """The snapshot's tree digest; of the images, those digests that were taken when writing."""
    import pyarrow.parquet as pq

    table = pq.read_table(snapshot / MANIFEST, columns=["path", "sha256"])
    paths = (str(snapshot / path) for path in table["path"].to_pylist())
    written = dict(zip(paths, table["sha256"].to_pylist(), strict=True))
    return tree_digest(snapshot, lambda path: written.get(path) or file_digest(path))


def examination(config: IngestionConfig, crosswalk: Path | None = None) -> Examination:
    """What the settings ask for of each file."""
    return Examination(
        config.deidentification,
        config.colour,
        config.frames,
        config.volume_range,
        config.file_timeout_s,
        config.file_memory_gib,
        crosswalk or crosswalk_path(),
    )


def crosswalk_path() -> Path:
    """Where a policy that draws pseudonyms keeps them."""
    return workspace().home / "secrets" / "crosswalk.sqlite"


def _images(
    config: IngestionConfig,
    examined: Examined,
    label_of: dict[str, labels.Label],
    key: bytes,
    snapshot: Path,
) -> tuple[list[Image], dict[str, str]]:
    """Each file with the labels table's key for it, and each patient's sealed PatientID."""
    name = config.labels.key
    by_file: dict[str, str] = {}
    if name in ("file", "mask"):
        match = labels.match_files if name == "file" else masks.match_files
        by_file = match(examined.files, label_of)
    # What the header says was replaced by what it is known by.
    attribute = "SOPInstanceUID" if name == "mask" else name
    known = {known_by(key, attribute, k): k for k in label_of} if name != "file" else {}
    images, sealed = [], {}
    for file, facts in examined:
        row = facts.get("row", {})
        image = Image(
            file,
            facts.get("reason", ""),
            known.get(facts.get("keys", {}).get(attribute)) or by_file.get(file),
            facts.get("file_sha256", ""),
            row.get("instance_uid", ""),
            row.get("pixel_sha256", ""),
            row.get("patient_id"),
        )
        mask = label_of[image.key].mask if image.key is not None else None
        if mask and row:
            shape = (row["frames"], row["rows"], row["columns"])
            image.mask = masks.fitted(mask, shape, facts.get("geometry"), snapshot)
        images.append(image)
        if "patient" in facts:
            sealed[row["patient_id"]] = facts["patient"]
    return images, sealed


def _row(
    facts: Facts, label: labels.Label, mask: labels.Mask | None, names: Names
) -> dict[str, Any]:
    """A manifest row: the header's word first, the labels table's where the header is silent."""
    row = dict(facts["row"])
    if not row.get("patient_id"):
        row["patient_id"] = names.patient(label.patient_id or "")
    sex = (row.get("sex") or label.sex or "")[:1].upper()
    age = row.get("age_years")
    if age is None and label.age_years is not None:
        age = deidentify.capped_age_years(label.age_years)
    if mask:
        row |= {"mask_path": mask.path, "mask_sha256": mask.sha256, "mask_voxels": mask.voxels}
    return row | {
        # An exact size would find the file in a listing of the source.
        "file_bytes": int(float(f"{facts['file_bytes']:.2g}")),
        "label": label.label,
        "sex": sex if sex in ("F", "M", "O") else None,
        "age_years": age,
        "scanner": label.scanner or row.get("scanner") or None,
        "site": label.site,
        "study_date": study_day(facts),
        "source_split": label.source_split,
    }


def _taken_over(label: labels.Label) -> Iterator[tuple[str, str]]:
    """What goes from the labels table into the manifest as it stands, by setting."""
    values = {"scanner": label.scanner, "site": label.site, "split": label.source_split}
    return ((f"{name}_column", value) for name, value in values.items() if value)


def _tells_who(value: str, facts: Facts, label: labels.Label, key: bytes) -> bool:
    """Whether a value is the patient's own number, or nothing but parts of its name."""
    number = label.patient_id or ""
    if value == number and spellings.of_number(number):
        return True
    who, words = facts.get("who", ()), re.findall(r"[^\W_]+", value.lower())
    return any(
        all(known_by(key, "who", word) in who for word in spelled)
        for spelled in ([value.lower()], words)
        if spelled and who
    )


def _refuse_naming(naming: Mapping[str, Set[str]]) -> None:
    """Refuse a column of the labels table that names patients; one may be called like a site."""
    for setting, values in sorted(naming.items()):
        if len(values) > 1:
            raise BadInput(
                f"ingestion.labels.{setting}: {len(values)} values of that column are names or "
                "numbers of the patients themselves, and the manifest would hold them; name "
                "another column"
            )


def _moved(
    day: date | None, patient_id: str, names: Names, policy: DeidentificationPolicy
) -> date | None:
    """A day as the policy has all days of a patient: left as it was, it would tell the shift."""
    if day is None or policy.dates == "removed":
        return None
    return day if policy.dates == "full" else day - names.shift(patient_id)


def _sweep_masks(snapshot: Path, kept: set[str]) -> None:
    """Remove those that no image wants."""
    for path in sorted((snapshot / "masks").rglob("*"), reverse=True):  # folders come last
        if path.is_file() and path.relative_to(snapshot).as_posix() not in kept:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _proof(
    policy: DeidentificationPolicy, counts: dict[str, Any], snapshot: Path
) -> dict[str, Any]:
    """What was done to identities, how it was checked, and what is left to think of."""
    import pyarrow.parquet as pq

    formats = pq.read_table(snapshot / MANIFEST, columns=["source_format"])["source_format"]
    written = Counter(formats.to_pylist())
    return {
        "verified": True,  # a leak would have ended the step
        "dicom": written["dicom"],
        "pictures": written["image"],
        "volumes": written["nifti"],
        "set_aside": counts["reasons"],
        "profile_edition": profile.EDITION,
        "options": profile.codes(policy),
        "policy_digest": profile.policy_digest(policy),
        "policy": policy.model_dump(mode="json"),
        "not_safe_harbor": list(not_safe_harbor(policy)),
        "checks": dict.fromkeys(verify.CHECKS, 0),  # leaks found by each
        "risk": asdict(_risk(policy, snapshot)),
    }


def _risk(policy: DeidentificationPolicy, snapshot: Path) -> Risk:
    import pandas as pd

    left = retained(policy)
    wanted = {"patient_id", "study_date", *left} & set(schema().names)
    return risk_summary(pd.read_parquet(snapshot / MANIFEST, columns=sorted(wanted)), left)


def _write_set_aside(set_aside: Sequence[tuple[str, str]], snapshot: Path, key: bytes) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = sorted((path_digest(file, key), reason) for file, reason in set_aside)
    schema = pa.schema(
        [pa.field(n, pa.string(), nullable=False) for n in ("path_digest", "reason")]
    )
    table = pa.Table.from_pylist([{"path_digest": d, "reason": r} for d, r in rows], schema=schema)
    pq.write_table(table, snapshot / SET_ASIDE, compression="zstd")
