"""Are new patients like those that the champion learned from? Column by column, one patient once.

Only patients whom the earlier snapshot did not have are compared with it: the others are in both,
and would hide a change. A patient is a mean of numbers, or the most frequent value, so that many
images of one patient are no evidence of many.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from imaging.config import Drift
from imaging.manifest import STATISTICS

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = (
    *STATISTICS,
    "rows",
    "columns",
    "bits_stored",
    "pixel_spacing_mm",
    "column_spacing_mm",
    "slice_spacing_mm",
    "frames",
    "file_bytes",
    "age_years",
)
VALUES = (
    "label",
    "sex",
    "site",
    "scanner",
    "manufacturer",
    "model_name",
    "modality",
    "view_position",
    "body_part",
    "laterality",
    "patient_orientation",
    "photometric_interpretation",
    "transfer_syntax",
    "source_format",
)
MISSING = "missing"
_FEWEST_EXPECTED = 5  # of a value, for chi-square's approximation; rarer ones are put together


@dataclass(frozen=True)
class Change:
    """One column, before and now; `effect` is what `imaging.config.Drift` says it is."""

    column: str
    method: str
    patients_before: int
    patients_now: int
    effect: float
    p_value: float
    adjusted_p_value: float
    drifted: bool


def changes(
    previous: "pd.DataFrame | None", manifest: "pd.DataFrame", bounds: Drift
) -> list[Change]:
    """Compare new patients with the earlier ones; the largest effect first.

    Returns:
        Nothing if there is no earlier snapshot, or too few patients before or new.
    """
    from scipy.stats import false_discovery_control

    if previous is None:
        return []
    new = manifest[~manifest["patient_id"].isin(previous["patient_id"])]
    fewest = min(previous["patient_id"].nunique(), new["patient_id"].nunique())
    if fewest < bounds.minimum_patients:
        return []
    found = list(_compared(previous, new, bounds.minimum_patients))
    adjusted = false_discovery_control([p for *_, p in found]) if found else []
    told = [
        Change(*facts, float(q), bool(q <= bounds.p_value and facts[4] >= bounds.effect))
        for facts, q in zip(found, adjusted, strict=True)
    ]
    return sorted(told, key=lambda c: (-c.effect, c.column))


def section(found: list[Change]) -> str:
    """Part of a page."""
    if not found:
        return (
            "<h2>Since the champion's snapshot</h2><p>Nothing to compare: there is no champion, or "
            "too few patients are new.</p>"
        )
    rows = "".join(
        f"<tr><td>{'<span class=warning>drifted</span>' if c.drifted else ''}</td>"
        f"<td>{escape(c.column)}</td><td>{c.effect:.2f}</td><td>{c.adjusted_p_value:.2g}</td>"
        f"<td>{c.patients_before} / {c.patients_now}</td><td>{escape(c.method)}</td></tr>"
        for c in found
    )
    heads = ("", "column", "effect", "adjusted p", "patients before / new", "method")
    return (
        "<h2>Since the champion's snapshot</h2><p>New patients against those that the champion's "
        "data had, a patient counting once.</p><table><tr>"
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr>{rows}</table>"
    )


def as_dicts(found: list[Change]) -> list[dict[str, Any]]:
    """For validation.json."""
    return [asdict(c) for c in found]


def _compared(
    previous: "pd.DataFrame", new: "pd.DataFrame", minimum: int
) -> Iterator[tuple[str, str, int, int, float, float]]:
    from scipy.stats import ks_2samp

    both = set(previous.columns) & set(new.columns)
    for name in [c for c in NUMBERS if c in both]:
        before, now = (t.groupby("patient_id")[name].mean() for t in (previous, new))
        if before.isna().any() or now.isna().any():
            words = [s.isna().map({True: MISSING, False: "known"}) for s in (before, now)]
            yield from _shares(f"{name}, missing or not", *words)
            before, now = before.dropna(), now.dropna()
        if min(len(before), len(now)) >= minimum and len({*before, *now}) > 1:
            test = ks_2samp(before, now, method="asymp")
            effect, p = float(test.statistic), float(test.pvalue)
            yield name, "Kolmogorov-Smirnov, patients' means", len(before), len(now), effect, p
    for name in [c for c in VALUES if c in both]:
        yield from _shares(name, _most_frequent(previous, name), _most_frequent(new, name))


def _most_frequent(table: "pd.DataFrame", name: str) -> "pd.Series":
    values = table[name].astype(object).where(table[name].notna(), MISSING).astype(str)
    counted = values.groupby([table["patient_id"], values]).size().rename("n").reset_index()
    ordered = counted.sort_values(["patient_id", "n", name], ascending=[True, False, True])
    return ordered.groupby("patient_id")[name].first()


def _shares(
    name: str, before: "pd.Series", now: "pd.Series"
) -> Iterator[tuple[str, str, int, int, float, float]]:
    import pandas as pd
    from scipy.stats import chi2_contingency

    table = pd.DataFrame({"before": before.value_counts(), "now": now.value_counts()}).fillna(0)
    if len(table) < 2:
        return
    shares = table / table.sum()
    effect = float((shares["before"] - shares["now"]).abs().sum() / 2)
    expected = table.sum(axis=1) * (table.sum() / table.sum().sum()).min()
    rare = expected < _FEWEST_EXPECTED
    pooled = pd.concat([table[~rare], table[rare].sum().to_frame().T]) if rare.any() else table
    pooled = pooled[pooled.sum(axis=1) > 0]
    p = float(chi2_contingency(pooled, correction=False).pvalue) if len(pooled) > 1 else 1.0
    yield name, "chi-square of homogeneity, patients", len(before), len(now), effect, p
