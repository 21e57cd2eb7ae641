"""Who trains, who tunes, who is examined: patients parted by a keyed hash, for good.

A patient's place is HMAC-SHA256(split key, pseudonym), read as a number in [0, 1) and compared
with the cumulative fractions. It depends on nobody else, so a growing data set never moves
anyone; without the key nobody can steer a patient to a side. Every stratum is therefore parted
by the same independent draw: balanced in expectation, not by counting, and the strata of
`splits.json` show what the draw gave. (Balancing by counting would be tighter on small sets,
but then a place would hang on who arrived first.)

Time or site may decide instead who is examined. By time, a patient goes where the first of its
images lies; by site, whoever was ever at a held-out site is examined. In both, an image that lies
on another side than its patient is set aside: nothing after the cut is learned from, and nothing
but the held-out sites is examined. The others are drawn for training and tuning as above.

One thing can still move people: other fractions, or another key. A patient once tested on must
never be trained on, so the first assignment handed out is kept in a ledger and wins from then
on. The ledger only grows and holds every assignment ever handed out; a reused result is
therefore what splitting again would give, and splitting stays a function of its inputs. Split
sides that were refused are not handed out: fractions may be tried until a split is usable.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from imaging.config import SplittingConfig
from imaging.manifest import age_band
from lineage.digest import keyed_digest
from lineage.errors import BadInput, StepFailed
from lineage.files import write_json

if TYPE_CHECKING:
    import pandas as pd

SPLITS = "splits.parquet"
COUNTS = "splits.json"
FULL_DATES = "113106"  # of CID 7050: longitudinal temporal information with full dates
# From 0 upwards. A test split that grows takes from validation before it takes from training.
SIDES = ("test", "validation", "train")
COLUMNS = ("instance_uid", "patient_id", "split", "label", "path", "sex", "age_band", "scanner")


def position(key: bytes, patient_id: str) -> float:
    """Draw the patient's place in [0, 1), uniform and known only to who holds the key."""
    return int(keyed_digest(key, "split", patient_id)[:13], 16) / 16**13  # 52 bits: exact


def side(place: float, fractions: Mapping[str, float]) -> str:
    """The side whose stretch of [0, 1) holds the place."""
    edge = 0.0
    for name in SIDES:
        edge += fractions.get(name, 0.0)
        if place < edge:
            return name
    return SIDES[-1]  # the fractions' sum may fall short of 1 by a rounding error


def _shared_out(fractions: dict[str, float]) -> dict[str, float]:
    """Fractions of some of the sides, made to sum to 1; of all of them, as they are."""
    total = 1.0 if len(fractions) == len(SIDES) else sum(fractions.values())
    return {name: fraction / total for name, fraction in fractions.items()}


def require_true_dates(deidentification: Mapping[str, Any], config: SplittingConfig) -> None:
    """Refuse to order patients by dates that were moved, each patient's by another number of days.

    Args:
        deidentification: deidentification.json of the snapshot.
        config: How it is to be parted.

    Raises:
        BadInput: With the ways out.
    """
    if config.by == "time" and FULL_DATES not in deidentification.get("options", {}):
        raise BadInput(
            "splitting.by: all dates were moved or removed by de-identification, so they order "
            "nothing across patients: set ingestion.deidentification.dates to full where that is "
            "allowed, or part by patient or site"
        )


class Ledger:
    """Assignments made so far, in a file of JSON lines that only ever grows."""

    def __init__(self, file: BinaryIO) -> None:
        text = file.read()
        whole = text[: text.rfind(b"\n") + 1]  # a kill may have left half a line behind
        file.truncate(len(whole))
        self._file = file
        self.sides: dict[str, str] = {
            row["patient_id"]: row["split"] for row in map(json.loads, whole.splitlines())
        }

    def add(self, sides: Mapping[str, str], fractions: Mapping[str, float]) -> None:
        """Append those who are new, with the fractions in force. On disk when this returns."""
        facts = {
            "fractions": dict(fractions),
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        new = {p: sides[p] for p in sorted(sides.keys() - self.sides.keys())}
        lines = [json.dumps({"patient_id": p, "split": s, **facts}) for p, s in new.items()]
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.sides |= new


@contextmanager
def open_ledger(path: Path) -> Iterator[Ledger]:
    """Open a ledger, made if absent; concurrent runs wait for each other here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file closes
        file.seek(0)
        yield Ledger(file)


def part(
    manifest: "pd.DataFrame",
    accepted: "pd.DataFrame",
    config: SplittingConfig,
    key: bytes,
    earlier: Mapping[str, str],
) -> tuple["pd.DataFrame", dict[str, Any]]:
    """Part the accepted instances by patient.

    Args:
        manifest: See imaging/manifest.py.
        accepted: Column `instance_uid`; the rows of the manifest that may be used.
        config: Fractions and strata.
        key: Secret that the draw depends on.
        earlier: Pseudonym to side, from the ledger; wins over the draw.

    Returns:
        The rows of `splits.parquet` (columns `COLUMNS`, sorted by `instance_uid`) and the content
        of `splits.json`. Images whose pixels, or nearly the same ones, lie on several sides are
        left out: copies under two names are one person, or a mistake, and nobody can say which
        name is right. So are images that lie on another side than their patient, or on none.

    Raises:
        BadInput: An accepted instance is not in the manifest, a stratum is no column of it, or
            nothing comes from a held-out site.
    """
    import numpy as np

    from imaging.validation.near_duplicates import near_others

    rows = manifest[manifest["instance_uid"].isin(accepted["instance_uid"])]
    if len(rows) != len(accepted):
        raise BadInput(
            f"{len(accepted)} instances are accepted, but {len(rows)} of them are in the "
            "manifest: snapshot and accepted list must come from the same run"
        )
    rows = rows.sort_values("instance_uid").reset_index(drop=True)
    rows["age_band"] = [age_band(age) for age in rows["age_years"]]
    if unknown := set(config.strata) - set(rows.columns):
        raise BadInput(f"splitting.strata: the manifest has no column {sorted(unknown)}")

    fractions = config.fractions.model_dump()
    patients = sorted(rows["patient_id"].unique())
    allowed = _allowed(rows, config)
    among = _of_patients(rows, allowed, config)
    drawn = {
        p: side(position(key, p), _shared_out({s: fractions[s] for s in among[p]}))
        for p in patients
    }
    sides = {p: earlier.get(p, drawn[p]) for p in patients}
    rows["split"] = rows["patient_id"].map(sides)
    placed = np.array([s in a for s, a in zip(rows["split"], allowed, strict=True)], dtype=bool)
    nowhere = np.array([not a for a in allowed], dtype=bool)
    there = rows[placed]
    shared = there.groupby("pixel_sha256")["split"].transform("nunique") > 1
    hashes = there["perceptual_hash"] if "perceptual_hash" in there else [None] * len(there)
    near = near_others(list(hashes), there["split"].to_numpy(), config.near_duplicate_bits)
    kept = there[~shared & ~near].reset_index(drop=True)
    set_aside = {
        "same_pixels_on_several_sides": there["instance_uid"][shared],
        "near_duplicates_on_several_sides": there["instance_uid"][near & ~shared],
    }
    if config.by != "patient":
        set_aside |= {
            "not_on_its_patients_side": rows["instance_uid"][~placed & ~nowhere],
            f"no_{config.time_column if config.by == 'time' else 'site'}": rows["instance_uid"][
                nowhere
            ],
        }

    counts = {
        "by": config.by,
        "fractions": fractions,
        "sides": {name: _counts(kept[kept["split"] == name]) for name in SIDES},
        "strata": _strata(kept, config.strata),
        # Only those whom the ledger holds back: a count of all that it knew would differ
        # between a first run and its repetition, and every later step would run again.
        "patients_kept_by_ledger": sum(sides[p] != drawn[p] for p in patients),
        "set_aside": {reason: uids.tolist() for reason, uids in set_aside.items()},
    }
    return kept[list(COLUMNS)], counts


def _allowed(rows: "pd.DataFrame", config: SplittingConfig) -> list[tuple[str, ...]]:
    """The sides on which each image may lie, whoever's it is; none where nothing says."""
    test, validation, train = SIDES
    if config.by == "site":
        sites = sorted(rows["site"].dropna().unique())
        if unknown := sorted(set(config.held_out_sites) - set(sites)):
            raise BadInput(
                f"splitting.held_out_sites: no image comes from {unknown}; there are {sites}"
            )
        held_out = rows["site"].isin(config.held_out_sites)
        return [
            () if not known else (test,) if out else (validation, train)
            for known, out in zip(rows["site"].notna(), held_out, strict=True)
        ]
    if config.by == "time":
        return [_at_that_time(day, config) for day in rows[config.time_column]]
    return [SIDES] * len(rows)


def _at_that_time(day: Any, config: SplittingConfig) -> tuple[str, ...]:
    test, validation, train = SIDES
    assert config.test_from is not None
    if day is None or day != day:
        return ()
    if day >= config.test_from:
        return (test,)
    if config.validation_from is None:
        return (validation, train)
    return (validation,) if day >= config.validation_from else (train,)


def _of_patients(
    rows: "pd.DataFrame", allowed: Sequence[tuple[str, ...]], config: SplittingConfig
) -> dict[str, tuple[str, ...]]:
    """The sides among which each patient is drawn: of the first image, or of a held-out site."""
    seen: dict[str, list[tuple[str, ...]]] = {}
    for patient, sides in zip(rows["patient_id"], allowed, strict=True):
        seen.setdefault(patient, []).extend([sides] if sides else [])
    # `SIDES` counts from the latest to the first.
    choose = min if config.by == "site" else max
    return {
        p: choose(found, key=lambda sides: SIDES.index(sides[0])) if found else SIDES
        for p, found in seen.items()
    }


def require_usable(counts: Mapping[str, Any], minimum_patients: int) -> None:
    """Refuse splits on which nothing could be learned or shown.

    Raises:
        StepFailed: A side has fewer patients than asked for, or images of one class only.
    """
    poor = [
        f"{name} has {c['patients']} patients and {c['images']} images, "
        f"{c['positive_images']} of them positive"
        for name, c in counts["sides"].items()
        if c["patients"] < minimum_patients or c["positive_images"] in (0, c["images"])
    ]
    if poor:
        raise StepFailed(
            f"each split needs at least {minimum_patients} patients and both classes, but "
            f"{'; '.join(poor)}: bring more data, or set splitting.fractions or "
            "splitting.minimum_patients"
        )


def write_splits(splits: "pd.DataFrame", counts: Mapping[str, Any], directory: Path) -> None:
    """Write `splits.parquet` and `splits.json`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(c, pa.int8() if c == "label" else pa.string()) for c in COLUMNS])
    table = pa.Table.from_pandas(splits, schema=schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), directory / SPLITS, compression="zstd")
    write_json(directory / COUNTS, counts)


def read_splits(directory: Path) -> "pd.DataFrame":
    """One row per instance, sorted by `instance_uid`, with columns `COLUMNS`.

    `path` is relative to the snapshot; `split` is one of `SIDES`; `label` is 0 or 1.
    """
    import pandas as pd

    return pd.read_parquet(directory / SPLITS)


def require_apart(splits: "pd.DataFrame", manifest: "pd.DataFrame") -> None:
    """Refuse splits in which the examined could have been learned from, whoever made them.

    Raises:
        BadInput: A patient or a picture lies on several sides, or an instance is there twice or
            not in the manifest.
    """
    pixels = splits.merge(manifest[["instance_uid", "pixel_sha256"]], on="instance_uid")
    if len(pixels) != len(splits) or splits["instance_uid"].duplicated().any():
        raise BadInput("the splits and the manifest name other instances: run split again")
    for what, column in (("patients", "patient_id"), ("pictures", "pixel_sha256")):
        if shared := int((pixels.groupby(column)["split"].nunique() > 1).sum()):
            raise BadInput(f"{shared} {what} lie on several sides of the split: run split again")


def _counts(rows: "pd.DataFrame") -> dict[str, int]:
    by_patient = rows.groupby("patient_id")["label"].max()
    return {
        "patients": len(by_patient),
        "positive_patients": int(by_patient.sum()),
        "images": len(rows),
        "positive_images": int(rows["label"].sum()),
    }


def _strata(rows: "pd.DataFrame", strata: Sequence[str]) -> list[dict[str, Any]]:
    """Patients per stratum and side. Several images: the highest label, else the first value."""
    if not strata:
        return []
    rules = {column: "max" if column == "label" else "first" for column in strata}
    patients = rows.groupby("patient_id").agg({**rules, "split": "first"})
    patients[list(strata)] = patients[list(strata)].astype("object").fillna("unknown")
    return [
        {
            "stratum": {
                c: v if isinstance(v, str) else int(str(v))
                for c, v in zip(strata, values, strict=True)
            },
            "patients": {name: int((group["split"] == name).sum()) for name in SIDES},
        }
        for values, group in patients.groupby(list(strata), sort=False)
    ]
