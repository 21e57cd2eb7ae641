"""Can the label be told from what should not tell it: the size of a file, the scanner, the order?

A network learns the easiest thing that works. For each such field a small model predicts the label
of patients that it has not seen; its AUROC, with an interval by patient, says how much the field
gives away. That a field does does not say that a network will use it, nor does a field that does
not make sure that nothing else will.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evaluation.intervals import Interval, absent, auroc
from imaging.config import Shortcuts
from lineage.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

# Of the manifest, or made from it. What a person has, sex and age, may well bear on the label.
FIELDS = (
    "file_bytes",
    "size",
    "aspect",
    "frames",
    "samples",
    "modality",
    "manufacturer",
    "model_name",
    "scanner",
    "site",
    "view_position",
    "body_part",
    "laterality",
    "patient_orientation",
    "photometric_interpretation",
    "transfer_syntax",
    "source_format",
    "bits_stored",
    "pixel_spacing_mm",
    "column_spacing_mm",
    "slice_spacing_mm",
    "border_mean",
    "study_date",
    "series_number",
    "acquisition_number",
    "instance_number",
    "source_order_decile",
    "patient_order_decile",
    "source_split",
)
TOGETHER = "all of these together"
FOLDS, BINS = 5, 10
_PRIOR_PATIENTS = 5.0  # how many patients' worth of doubt a value has to overcome


@dataclass(frozen=True)
class Shortcut:
    """How well one field alone tells the classes apart.

    Attributes:
        values: Different values, missing included.
        strong: Its lower limit lies above the bound, and it is not exempt.
    """

    field: str
    auroc: Interval
    values: int
    exempt: bool
    strong: bool


def check_fields(policy: Shortcuts) -> None:
    """Refuse a field that no manifest has.

    Raises:
        BadInput: With the nearest name.
    """
    from imaging.manifest import schema
    from imaging.validation.own_expectations import nearest

    known = dict.fromkeys([*FIELDS, *schema().names, TOGETHER])
    for setting, names in (("fields", policy.fields), ("exempt", policy.exempt)):
        for name in names:
            if name not in known or name == "label":
                raise BadInput(
                    f"validation.shortcuts.{setting}: there is no field {name!r} to look at"
                    f"{nearest(name, known)}"
                )


def audit(manifest: "pd.DataFrame", policy: Shortcuts) -> list[Shortcut]:
    """Look at each field, and at all of them together; the strongest first.

    Patients are parted into folds by a hash of their pseudonym, so the result is a function of the
    manifest. A field says something by its value, or by being missing; numbers are cut at the
    deciles of the training folds. The score of an image is the log odds of its class among the
    training folds' patients with that value, shrunk towards all patients'.

    Args:
        manifest: See imaging/manifest.py.
        policy: Which fields, and what is strong.
    """
    if policy.action == "off":
        return []
    labels = manifest["label"].to_numpy().astype(float)
    _, patients = np.unique(manifest["patient_id"].to_numpy(dtype=str), return_inverse=True)
    folds = _folds(manifest["patient_id"], labels)
    weights = 1 / np.bincount(patients)[patients]  # a patient counts once, however many images
    found, together = [], np.zeros(len(labels))
    fields = [f for f in policy.fields or FIELDS if f != TOGETHER]
    for name in dict.fromkeys((*fields, *(f for f in policy.exempt if f != TOGETHER))):
        values = _values(manifest, name)
        if values is None:
            continue
        known = values[~_missing(values)]
        distinct = len(np.unique(known)) + int(len(known) < len(values))
        if distinct < 2:
            continue
        scores = _out_of_fold(values, labels, weights, folds)
        exempt = name in policy.exempt
        if not exempt:
            together += scores
        found.append((name, distinct, exempt, scores))
    if sum(not exempt for _, _, exempt, _ in found) > 1:
        found.append((TOGETHER, 0, TOGETHER in policy.exempt, together))
    told = [
        _judged(name, distinct, exempt, _auroc(labels, scores, patients), policy)
        for name, distinct, exempt, scores in found
    ]
    return sorted(told, key=lambda s: (-(s.auroc.low or 0), s.field))


def sentences(shortcuts: Sequence[Shortcut], policy: Shortcuts) -> list[str]:
    """One for each strong shortcut: what it is, how strong, and the ways out."""
    strong = [s for s in shortcuts if s.strong]
    return [
        f"{s.field}: {'tell' if s.field == TOGETHER else 'alone tells'} the classes apart in "
        f"patients not seen before, {spelled(s.auroc)}, where the lower limit may reach "
        f"{policy.lower_bound_above:g}: balance the classes over it, or name it in "
        "validation.shortcuts.exempt if it may predict"
        for s in sorted(strong, key=lambda s: s.field == TOGETHER)  # the single ones first
    ]


def as_dicts(shortcuts: Sequence[Shortcut]) -> list[dict[str, Any]]:
    """For validation.json."""
    return [asdict(s) for s in shortcuts]


def spelled(found: Interval) -> str:
    """`AUROC 0.81 (0.77 to 0.85), 726 images of 479 patients`, or why there is no number."""
    who = f"{found.n} images of {found.n_patients} patients"
    if found.estimate is None:
        return f"no number ({found.reason}), {who}"
    return f"AUROC {found.estimate:.2f} ({found.low:.2f} to {found.high:.2f}), {who}"


def section(shortcuts: Sequence[Shortcut], policy: Shortcuts) -> str:
    """Part of a page: each field's interval drawn on the axis from 0.4 to 1, and as text."""
    if policy.action == "off":
        return "<h2>Shortcuts</h2><p>Not looked for: validation.shortcuts.action is off.</p>"
    rows = "".join(
        f"<tr><td>{_word(s, policy)}</td><td>{escape(s.field)}</td>"
        f"<td>{_drawn(s, policy)}</td><td>{escape(spelled(s.auroc))}</td>"
        f"<td>{s.values or ''}</td></tr>"
        for s in shortcuts
    )
    return (
        "<h2>Shortcuts</h2><p>How well each field, which should not, tells the classes apart in "
        f"patients not seen before: 0.5 is chance. Strong: the lower 95 % limit lies above "
        f"{policy.lower_bound_above:g}, the dashed line. Fields that say the same of every image "
        "are left out.</p><table><tr><th></th><th>field</th><th>AUROC, 0.4 to 1</th>"
        f"<th>with 95 % interval, by patient</th><th>values</th></tr>{rows}</table>"
    )


def _judged(
    name: str, values: int, exempt: bool, interval: Interval, policy: Shortcuts
) -> Shortcut:
    strong = interval.low is not None and interval.low > policy.lower_bound_above
    return Shortcut(name, interval, values, exempt, strong and not exempt)


def _auroc(labels: NDArray[Any], scores: NDArray[Any], patients: NDArray[Any]) -> Interval:
    if np.ptp(scores) == 0:
        return absent("no value of it comes again", patients)
    return auroc(labels, np.round(scores, 12), patients)  # equal up to rounding is equal


def _folds(patient_ids: "pd.Series", labels: NDArray[Any]) -> NDArray[np.int64]:
    """The fold of each image: patients in order of their hash, dealt out within each class."""
    by_patient: dict[str, float] = {}
    for patient, label in zip(patient_ids, labels, strict=True):
        by_patient[patient] = max(label, by_patient.get(patient, 0.0))
    fold: dict[str, int] = {}
    for number in (0.0, 1.0):
        members = [p for p, label in by_patient.items() if label == number]
        members.sort(key=lambda p: sha256(f"shortcut:{p}".encode()).digest())
        fold |= {p: i % FOLDS for i, p in enumerate(members)}
    return np.array([fold[p] for p in patient_ids])


def _values(manifest: "pd.DataFrame", field: str) -> NDArray[Any] | None:
    """A field's values as float64 (NaN: missing) or as texts ("": missing)."""
    import pandas as pd

    if field == "size":
        sizes = manifest["rows"].astype(str) + " x " + manifest["columns"].astype(str)
        return sizes.to_numpy(dtype=str)
    if field == "aspect":
        return (manifest["rows"] / manifest["columns"]).to_numpy(dtype=float)
    if field not in manifest:
        return None
    column = manifest[field]
    if field == "study_date":
        days = pd.to_datetime(column, errors="coerce")
        return ((days - pd.Timestamp(0)) / pd.Timedelta(days=1)).to_numpy(dtype=float)
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(dtype=float, na_value=np.nan)
    return column.fillna("").to_numpy(dtype=str)


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    missing: NDArray[np.bool_] = np.isnan(values) if values.dtype.kind == "f" else values == ""
    return missing


def _out_of_fold(
    values: NDArray[Any], labels: NDArray[Any], weights: NDArray[Any], folds: NDArray[Any]
) -> NDArray[np.float64]:
    """Log odds of the positive class, less those of all patients, as other folds have them."""
    scores = np.zeros(len(labels))
    for fold in range(FOLDS):
        held_out = folds == fold
        learned = ~held_out
        if not learned.any() or not held_out.any():
            continue
        codes = _codes(values, learned)
        size = codes.max() + 1
        seen = np.bincount(codes[learned], weights[learned], size)
        positive = np.bincount(codes[learned], (weights * labels)[learned], size)
        prior = float(np.clip(positive.sum() / seen.sum(), 1e-6, 1 - 1e-6))
        share = (positive + _PRIOR_PATIENTS * prior) / (seen + _PRIOR_PATIENTS)
        odds = np.log(share / (1 - share)) - np.log(prior / (1 - prior))
        scores[held_out] = odds[codes[held_out]]
    return scores


def _codes(values: NDArray[Any], learned: NDArray[np.bool_]) -> NDArray[np.int64]:
    """A bin for each image; what is missing has its own."""
    if values.dtype.kind != "f":
        codes: NDArray[np.int64] = np.unique(values, return_inverse=True)[1]
        return codes
    missing = np.isnan(values)
    known = np.unique(values[learned & ~missing])
    if len(known) > BINS:
        known = np.unique(
            np.quantile(values[learned & ~missing], np.linspace(0, 1, BINS + 1)[1:-1])
        )
    binned = np.searchsorted(known, np.where(missing, 0, values))
    return np.where(missing, len(known) + 1, binned)


def _word(shortcut: Shortcut, policy: Shortcuts) -> str:
    if shortcut.strong:
        failed = policy.action == "stop"
        return f"<span class={'failed' if failed else 'warning'}>strong</span>"
    return "<span class=nothing>exempt</span>" if shortcut.exempt else ""


def _drawn(shortcut: Shortcut, policy: Shortcuts) -> str:
    found = shortcut.auroc
    if found.estimate is None or found.low is None or found.high is None:
        return ""

    def at(value: float) -> float:
        return round((min(max(value, 0.4), 1.0) - 0.4) / 0.6 * 200, 1)

    colour = "#a3150f" if shortcut.strong else "#2f6690"
    bound, chance = at(policy.lower_bound_above), at(0.5)
    return (
        '<svg class="drawn" viewBox="0 0 200 14" width="200" height="14" role="img">'
        f"<title>{escape(shortcut.field)}: {escape(spelled(found))}</title>"
        f'<line x1="{chance}" x2="{chance}" y1="0" y2="14" stroke="#9aa7b5"/>'
        f'<line x1="{bound}" x2="{bound}" y1="0" y2="14" stroke="#51606d" stroke-dasharray="3 2"/>'
        f'<rect x="{at(found.low)}" y="5" width="{max(at(found.high) - at(found.low), 1):.1f}" '
        f'height="4" fill="{colour}"/>'
        f'<circle cx="{at(found.estimate)}" cy="7" r="4" fill="{colour}"/></svg>'
    )
