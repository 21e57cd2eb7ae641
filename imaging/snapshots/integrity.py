"""What a snapshot holds, in one number; and whether it still holds that.

The root stands for the manifest's rows, which name the files' bytes, and for what was set aside,
the counts and the proof of de-identification. How Parquet stores rows does not count: another
version of its library leaves the root as it is.
"""

import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from imaging.manifest import MANIFEST
from lineage.digest import RECORD, file_digest
from lineage.errors import BadInput
from lineage.files import read_json, write_json
from lineage.merkle import merkle_root
from lineage.progress import Report

ROOT = "merkle.json"
COUNTS, SET_ASIDE, PROOF = "counts.json", "set_aside.parquet", "deidentification.json"
# What lies in a snapshot and no row names; the last is the store's.
BESIDE = {MANIFEST, ROOT, COUNTS, SET_ASIDE, PROOF, "croissant.json", RECORD}
ALGORITHM = "RFC 6962, SHA-256"


def records(snapshot: Path) -> Iterator[bytes]:
    """As canonical JSON: counts and proof of de-identification, then each row of the manifest and
    of what was set aside, in their order."""
    import pyarrow.parquet as pq

    found: list[Any] = [read_json(snapshot / name) for name in (COUNTS, PROOF)]
    yield from map(_canonical, found)
    for table in (MANIFEST, SET_ASIDE):
        if (snapshot / table).exists():
            for batch in pq.ParquetFile(snapshot / table).iter_batches(batch_size=10_000):
                yield from map(_canonical, batch.to_pylist())


def write_root(snapshot: Path) -> str:
    """Write `merkle.json`: algorithm and root; return the root."""
    root = merkle_root(records(snapshot))
    write_json(snapshot / ROOT, {"algorithm": ALGORITHM, "root": root})
    return root


def read_root(snapshot: Path) -> str | None:
    """The root that the snapshot was given, or None if it is older than roots are."""
    path = snapshot / ROOT
    return str(json.loads(path.read_text())["root"]) if path.exists() else None


def faults(snapshot: Path, report: Report | None = None) -> list[str]:
    """Read every file again, and say what is not as the manifest and the root say; empty: nothing.

    Raises:
        BadInput: It has no root.
    """
    import pyarrow.parquet as pq

    root = read_root(snapshot)
    if root is None:
        raise BadInput(f"{snapshot} has no {ROOT}: take the snapshot again, by running ingest")
    whole = merkle_root(records(snapshot)) == root
    found = [] if whole else [f"{MANIFEST}, or what lies beside it: not what {ROOT} names"]
    columns = ["path", "sha256", "mask_path", "mask_sha256"]
    rows = pq.read_table(snapshot / MANIFEST, columns=columns).to_pylist()
    named = {row["path"]: row["sha256"] for row in rows}
    named |= {row["mask_path"]: row["mask_sha256"] for row in rows if row["mask_path"]}
    for done, (path, sha256) in enumerate(named.items(), start=1):
        file = snapshot / path
        if not file.is_file():
            found.append(f"{path}: missing")
        elif file_digest(file) != sha256:
            found.append(f"{path}: changed")
        if report:
            report(done, len(named), "")
    there = {f.relative_to(snapshot).as_posix() for f in snapshot.rglob("*") if not f.is_dir()}
    strange = sorted(there - named.keys() - BESIDE)
    found += [f"{path}: not in the manifest" for path in strange]
    return found


def _canonical(record: Any) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), default=_day).encode()


def _day(value: Any) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"a manifest holds no {type(value).__name__}")
