"""What changed from one snapshot to another: rows, labels, distributions. A description, no test.

Two versions of one data set share most of their patients, so they are no two samples, and a p-value
between them would mean nothing; whether a change matters is for `imaging/validation` to judge.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imaging.manifest import read_manifest
from imaging.snapshots.integrity import read_root

if TYPE_CHECKING:
    import pandas as pd

# Names of things, and where an image stands among others: they say nothing of what it shows.
NAMES = frozenset({
    "instance_uid", "series_uid", "study_uid", "patient_id", "path", "sha256", "pixel_sha256",
    "mask_path", "mask_sha256", "perceptual_hash", "source_order_decile", "patient_order_decile",
})  # fmt: skip
MOST_VALUES = 50  # a column of words with more is not a distribution to look at
FALLEN_OUT = ("path", "source_order_decile", "patient_order_decile")  # differ without a reason


@dataclass(frozen=True)
class Count:
    """How many, in the one and in the other, and how they part."""

    before: int
    after: int
    added: int
    removed: int


@dataclass(frozen=True)
class Distribution:
    """One column in both snapshots.

    Attributes:
        distance: Numbers: the largest distance between the two cumulative distributions
            (Kolmogorov's). Words: half the sum of the shares' differences (total variation).
            0 alike, 1 nothing in common; None if one side alone has values.
        before, after: Numbers: n, missing, p05, median, p95. Words: n, missing, and their counts.
    """

    column: str
    distance: float | None
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True)
class Differences:
    """Rows are told by `instance_uid`.

    Attributes:
        roots: Merkle roots of the one and the other; equal roots mean that nothing differs.
        added, removed: Instances.
        changed: Of the instances in both: column to how many rows differ in it.
        relabelled: Instance, label before, label after.
        distributions: The most different first.
    """

    roots: tuple[str | None, str | None]
    images: Count
    patients: Count
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: dict[str, int]
    relabelled: tuple[tuple[str, int, int], ...]
    distributions: tuple[Distribution, ...]


def compare(before: Path, after: Path) -> Differences:
    """Compare two snapshots' manifests; images are told apart by their digests."""
    one, other = (read_manifest(path).set_index("instance_uid") for path in (before, after))
    both = one.index.intersection(other.index)
    changed = changed_values(one.loc[both], other.loc[both])
    counts = {column: int(rows.sum()) for column, rows in changed.items() if rows.any()}
    moved = changed["label"]
    labels = zip(
        both[moved], one.loc[both, "label"][moved], other.loc[both, "label"][moved], strict=True
    )
    return Differences(
        roots=(read_root(before), read_root(after)),
        images=_count(one.index, other.index),
        patients=_count(one["patient_id"], other["patient_id"]),
        added=tuple(other.index.difference(one.index)),
        removed=tuple(one.index.difference(other.index)),
        changed=dict(sorted(counts.items(), key=lambda item: -item[1])),
        relabelled=tuple((str(uid), int(a), int(b)) for uid, a, b in labels),
        distributions=distributions(one, other),
    )


def changed_values(one: "pd.DataFrame", other: "pd.DataFrame") -> "dict[str, pd.Series]":
    """For each column of both, which of the rows differ; the same rows in the same order."""
    columns = [c for c in one.columns if c in other.columns and c not in FALLEN_OUT]
    return {c: (one[c] != other[c]) & ~(one[c].isna() & other[c].isna()) for c in columns}


def distributions(one: "pd.DataFrame", other: "pd.DataFrame") -> tuple[Distribution, ...]:
    """Every column of both that describes images, the most different first."""
    from pandas.api.types import is_numeric_dtype

    found = []
    for name in one.columns:
        if name in NAMES or name not in other.columns:
            continue
        a, b = one[name], other[name]
        if is_numeric_dtype(a) and is_numeric_dtype(b):
            found.append(_of_numbers(name, a, b))
        elif max(a.nunique(), b.nunique()) <= MOST_VALUES:
            found.append(_of_words(name, a, b))
    return tuple(
        sorted(found, key=lambda d: 1.0 if d.distance is None else d.distance, reverse=True)
    )


def _of_numbers(name: str, one: "pd.Series", other: "pd.Series") -> Distribution:
    import numpy as np

    a, b = (np.sort(side.dropna().to_numpy(dtype=float)) for side in (one, other))
    distance = None if len(a) or len(b) else 0.0
    if len(a) and len(b):
        at = np.concatenate((a, b))
        below = [np.searchsorted(side, at, side="right") / len(side) for side in (a, b)]
        distance = float(np.abs(below[0] - below[1]).max())

    def summary(side: "pd.Series", values: Any) -> dict[str, Any]:
        told: dict[str, Any] = {"n": len(values), "missing": int(side.isna().sum())}
        if len(values):
            places = np.percentile(values, (5, 50, 95)).tolist()
            told |= dict(zip(("p05", "median", "p95"), places, strict=True))
        return told

    return Distribution(name, distance, summary(one, a), summary(other, b))


def _of_words(name: str, one: "pd.Series", other: "pd.Series") -> Distribution:
    a, b = (side.dropna().astype(str).value_counts() for side in (one, other))
    distance = None if len(a) or len(b) else 0.0
    if len(a) and len(b):
        distance = float((a / a.sum()).sub(b / b.sum(), fill_value=0).abs().sum() / 2)

    def summary(side: "pd.Series", counts: "pd.Series") -> dict[str, Any]:
        values = {str(value): int(n) for value, n in sorted(counts.items())}
        return {"n": int(counts.sum()), "missing": int(side.isna().sum()), "values": values}

    return Distribution(name, distance, summary(one, a), summary(other, b))


def _count(one: Any, other: Any) -> Count:
    a, b = set(one), set(other)
    return Count(len(a), len(b), len(b - a), len(a - b))
