"""Whether what a model is sent today still looks like what it was made from, column by column.

Numbers are compared by the two-sample Kolmogorov-Smirnov test, categories by the chi-square test
of homogeneity, both run by Evidently. Beside each p-value stands a size of the difference,
because with enough requests every trifle is significant.

A limit that no test here removes: requests are taken as independent. Several images of one
patient, or one scanner's busy morning, make fewer independent samples than rows, so that p-values
come out too small; captured traffic carries no identifiers by which rows could be grouped. Where
half of the variance lies between patients, false alarms rise from 1 % to about 3-5 % with two
images a patient and 15-18 % with five (benchmarks/drift_alarms.py): set
`monitoring.false_discovery_rate` lower, or `minimum_drifted_columns` higher, for such traffic.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from imaging.manifest import HEADER_FIELDS, STATISTICS
from lineage import telemetry

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "reference.parquet"
MODEL = "reference.json"
NUMBERS = (*STATISTICS, "score", "rows", "columns", "bits_stored", "pixel_spacing_mm")
CATEGORIES = tuple(name for name in HEADER_FIELDS if name not in NUMBERS)
MISSING = "(missing)"
# A number with so few values in the reference (a bit depth, a matrix size) is a category.
FEW_VALUES = 10
HOMOGENEITY = "chisquare_homogeneity"

Kind = Literal["number", "category"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of reference and traffic, made comparable: same type, nothing missing."""

    name: str
    kind: Kind
    reference: "pd.Series"
    current: "pd.Series"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How one column differs.

    `effect` is, for numbers, the Wasserstein distance in standard deviations of the reference;
    for categories, the Jensen-Shannon distance in bits, 0 to 1.
    """

    column: str
    kind: Kind
    method: str
    p_value: float
    effect: float
    n_reference: int
    n_current: int


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What was kept of the captured requests, and how many were passed over, by reason."""

    rows: "pd.DataFrame"
    passed_over: dict[str, int]


def read_reference(directory: Path) -> tuple["pd.DataFrame", str | None]:
    """The reference table, and the digest of the model that it belongs to.

    An empty directory is the reference of a champion that is not there yet: no rows, no digest.
    """
    import pandas as pd

    if not (directory / MODEL).exists():
        return pd.DataFrame(), None
    table = pd.read_parquet(directory / REFERENCE)
    return table, json.loads((directory / MODEL).read_text())["model_digest"]


def read_traffic(
    directory: Path, model_digest: str | None, tags: Sequence[str], window: int
) -> Traffic:
    """The latest captured requests that count, oldest first.

    Args:
        directory: Holds `captured/*.jsonl`, or the files themselves, or nothing at all yet.
        model_digest: Only answers of this model count.
        tags: Only these count.
        window: At most so many, the latest by their time.
    """
    import pandas as pd

    folder = directory / "captured" if (directory / "captured").is_dir() else directory
    kept: list[dict[str, Any]] = []
    passed_over = dict.fromkeys(
        ("unreadable", "other tag", "other model", "error", "before the window"), 0
    )
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(errors="replace").splitlines():
            row = _row(line)
            if row is None:  # the endpoint may be writing its last line this very moment
                passed_over["unreadable"] += 1
            elif row.get("tag") not in tags:
                passed_over["other tag"] += 1
            elif row.get("model_digest") != model_digest:
                passed_over["other model"] += 1
            elif row.get("error") is not None:
                passed_over["error"] += 1
            else:
                kept.append(row)
    kept.sort(key=lambda row: (str(row.get("at")), str(row.get("request_id"))))
    passed_over["before the window"] = max(0, len(kept) - window)
    return Traffic(rows=pd.DataFrame(kept[-window:]), passed_over=passed_over)


def comparable(
    reference: "pd.DataFrame", current: "pd.DataFrame"
) -> tuple[list[Column], list[str]]:
    """Pair up the columns of two tables.

    A header field that is missing here and there is a category of its own: a scanner that stops
    naming itself is news. A field that one side never fills is not compared: then the way of
    reading differs (a PNG has no header), not the scanners. A score or statistic that is
    missing is left out; scores of training images are, because they flatter.

    Returns:
        What can be compared, and the names of columns that only one side fills.
    """
    import pandas as pd

    columns, one_sided = [], []
    for name in (*NUMBERS, *CATEGORIES):
        old, new = (t.get(name, pd.Series(dtype="object")) for t in (reference, current))
        if old.isna().all() or new.isna().all():
            if not (old.isna().all() and new.isna().all()):
                one_sided.append(name)
        elif name in CATEGORIES:
            columns.append(_category_column(name, old, new))
        else:
            # Parquet holds float32 and JSON float64: as they come, no two would be equal.
            old, new = (pd.to_numeric(s, errors="coerce").astype("float32") for s in (old, new))
            columns += _number_columns(name, old, new)
    return columns, one_sided


def _number_columns(name: str, old: "pd.Series", new: "pd.Series") -> Iterator[Column]:
    if name in HEADER_FIELDS and old.nunique() <= FEW_VALUES:
        old, new = (s.map("{:.5g}".format, na_action="ignore") for s in (old, new))
        yield _category_column(name, old, new)
        return
    if name in HEADER_FIELDS and (old.isna().any() or new.isna().any()):
        there = (s.notna().map({True: "present", False: None}) for s in (old, new))
        yield _category_column(f"{name} present", *there)
    old, new = (s[np.isfinite(s)].astype("float64") for s in (old, new))
    if len(old) > 1 and len(new) > 1:
        yield Column(name=name, kind="number", reference=old, current=new)


def _category_column(name: str, old: "pd.Series", new: "pd.Series") -> Column:
    old, new = (s.astype("object").where(s.notna(), MISSING).astype(str) for s in (old, new))
    return Column(name=name, kind="category", reference=old, current=new)


def differences(columns: Sequence[Column]) -> list[Difference]:
    """Test each column, with Evidently's tests."""
    return [_number(c) if c.kind == "number" else _category(c) for c in columns]


@cache
def register_homogeneity() -> str:
    """Teach Evidently the chi-square test of homogeneity, and return its name there.

    Evidently's own chi-square test takes the reference's shares as exactly known. With a reference
    hardly larger than the window that raises far too many alarms, and a category that the
    reference lacks gets p = 0 from a single request.
    """
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from scipy.stats import chi2_contingency

    def test(old: Any, new: Any, feature_type: Any, threshold: float) -> tuple[float, bool]:
        table = _table(old, new)
        if table.shape[1] < 2:
            return 1.0, False
        p = float(chi2_contingency(table, correction=False).pvalue)
        return p, p < threshold

    register_stattest(
        StatTest(
            name=HOMOGENEITY,
            display_name="chi-square test of homogeneity, p-value",
            allowed_feature_types=[ColumnType.Categorical],
        ),
        default_impl=test,
    )
    return HOMOGENEITY


def _number(column: Column) -> Difference:
    telemetry.off()
    from evidently.legacy.calculations.stattests import ks_stat_test
    from scipy.stats import wasserstein_distance

    old, new = column.reference, column.current
    p = ks_stat_test(old, new, "num", None).drift_score
    # Evidently's normed distance never divides by less than 0.001, which hides shifts of
    # statistics such as noise, whose whole spread may be smaller.
    spread = float(np.std(old)) or float(np.finfo("float32").eps)
    return Difference(
        column=column.name,
        kind="number",
        method="ks",
        p_value=float(p),
        effect=float(wasserstein_distance(old, new)) / spread,
        n_reference=len(old),
        n_current=len(new),
    )


def _category(column: Column) -> Difference:
    telemetry.off()
    from evidently.legacy.calculations.stattests.registry import get_registered_stattest
    from evidently.legacy.core import ColumnType
    from scipy.spatial.distance import jensenshannon

    old, new = column.reference, column.current
    test = get_registered_stattest(register_homogeneity(), ColumnType.Categorical)
    counts = _table(old, new)
    return Difference(
        column=column.name,
        kind="category",
        method=HOMOGENEITY,
        p_value=float(test(old, new, ColumnType.Categorical, None).drift_score),
        effect=float(jensenshannon(counts[0], counts[1], base=2)),
        n_reference=len(old),
        n_current=len(new),
    )


def _table(old: "pd.Series", new: "pd.Series") -> np.ndarray[Any, np.dtype[np.int64]]:
    """Counts, int64 (2, categories); a category that one side lacks counts 0 there."""
    names, codes = np.unique(
        np.concatenate([old.astype(str), new.astype(str)]), return_inverse=True
    )
    split = np.split(codes, [len(old)])
    return np.stack([np.bincount(part, minlength=len(names)) for part in split])


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
