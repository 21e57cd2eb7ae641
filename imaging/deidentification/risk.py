"""How well patients hide among each other by what stays of them: k-anonymity, as a report.

Terms and the model of an attacker who knows that his target is in the data: K. El Emam and
F. K. Dankar, "Protecting privacy using k-anonymity", JAMIA 15(5), 2008. Counted within the data,
as this attacker would: nothing is assumed of the population. A report, never a verdict: what others
know, and which risk is small enough, an expert determines (45 CFR 164.514(b)(1)).
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imaging.deidentification.policy import DeidentificationPolicy
from imaging.manifest import age_band

if TYPE_CHECKING:
    import pandas as pd

# Of a manifest's columns, those that others may know of a person. Of dates see `retained`.
QUASI_IDENTIFIERS = ("sex", "age_years", "site", "scanner", "body_part")
# Smallest classes that rules in use ask for; 11 is that of the US Medicare agency's cells.
SMALL, SMALLISH = 5, 11

Told = tuple[frozenset[Any], ...]  # of one patient, by attribute


@dataclass(frozen=True)
class Classes:
    """Patients of whom the data say the same, as classes.

    Attributes:
        k_minimum: Size of the smallest class; 0 where there is no patient.
        unique_patients: Alone in their class.
        share_below_5, share_below_11: Of the patients, those in classes of fewer.
        maximum_risk: Prosecutor risk: 1 over the size of the class, of the worst hidden patient.
        mean_risk: The same, averaged over patients.
    """

    k_minimum: int
    unique_patients: int
    share_below_5: float
    share_below_11: float
    maximum_risk: float
    mean_risk: float


@dataclass(frozen=True)
class Change:
    """What would become of the classes if one attribute went, or was told more coarsely."""

    change: str
    classes: Classes


@dataclass(frozen=True)
class Risk:
    """What stays of patients, and how well they hide.

    Attributes:
        patients: How many there are.
        quasi_identifiers: Attributes that were counted; others are not in the data.
        classes: With all of them.
        changes: Without each of them, what helps most first.
    """

    patients: int
    quasi_identifiers: tuple[str, ...]
    classes: Classes
    changes: tuple[Change, ...]


def retained(policy: DeidentificationPolicy) -> tuple[str, ...]:
    """The quasi-identifiers that a policy leaves: the year of the study if dates are true."""
    return (*QUASI_IDENTIFIERS, "study_year") if policy.dates == "full" else QUASI_IDENTIFIERS


def risk_summary(
    rows: "pd.DataFrame", quasi_identifiers: Sequence[str] = QUASI_IDENTIFIERS
) -> Risk:
    """Count the classes of patients of whom all images together say the same.

    Args:
        rows: A manifest, or some of its columns; `patient_id` is needed.
        quasi_identifiers: Columns, `age_band`, or `study_year` (from `study_date`); those that
            `rows` does not have, or has empty, are left out. See `retained`.
    """
    columns = {name: _column(rows, name) for name in quasi_identifiers}
    names = [name for name, values in columns.items() if any(v is not None for v in values)]
    patients = [str(patient) for patient in rows["patient_id"]]
    told = _told(patients, [columns[name] for name in names])
    changes = [
        Change(f"without {name}", _classes([t[:i] + t[i + 1 :] for t in told]))
        for i, name in enumerate(names)
    ]
    if "age_years" in names:
        banded = [_column(rows, "age_band" if n == "age_years" else n) for n in names]
        changes.append(Change("age_years in bands", _classes(_told(patients, banded))))
    changes.sort(key=lambda change: (change.classes.mean_risk, change.change))
    return Risk(len(told), tuple(names), _classes(told), tuple(changes))


def fragment(risk: Risk) -> dict[str, Any]:
    """For a page: a sentence to warn with or None, and a table with its columns' names."""
    whole = risk.classes
    warning = None
    if risk.patients and whole.k_minimum < SMALL:
        kept = ", ".join(risk.quasi_identifiers) or "nothing"
        warning = (
            f"{whole.share_below_5:.1%} of {risk.patients} patients share what is kept of them "
            f"({kept}) with fewer than {SMALL - 1} others; "
            f"{whole.unique_patients} are alone with it."
        )
    return {
        "warning": warning,
        "columns": ["kept", "smallest class", "alone", "in classes below 5", "below 11",
                    "risk, mean", "risk, highest"],
        "rows": [_cells(name, classes) for name, classes in _lines(risk)],
    }  # fmt: skip


def _lines(risk: Risk) -> Iterator[tuple[str, Classes]]:
    yield "all", risk.classes
    for change in risk.changes:
        yield change.change, change.classes


def _cells(name: str, classes: Classes) -> list[str]:
    c = classes
    shares = (c.share_below_5, c.share_below_11, c.mean_risk, c.maximum_risk)
    return [name, str(c.k_minimum), str(c.unique_patients), *(f"{share:.1%}" for share in shares)]


def _column(rows: "pd.DataFrame", name: str) -> list[Any]:
    """A column's values; None where there is none."""
    source = {"study_year": "study_date", "age_band": "age_years"}.get(name, name)
    if source not in rows:
        return [None] * len(rows)
    values = [
        None if empty else v for v, empty in zip(rows[source], rows[source].isna(), strict=True)
    ]
    if name == "study_year":  # of a date, or of a text such as 20190305
        return [str(v)[:4] if v else None for v in values]
    if name == "age_band":
        return [None if v is None else age_band(float(v)) for v in values]
    return values


def _told(patients: Sequence[str], columns: Sequence[Sequence[Any]]) -> list[Told]:
    """For each patient the values of each attribute, over all images."""
    told: dict[str, tuple[set[Any], ...]] = defaultdict(lambda: tuple(set() for _ in columns))
    for patient in patients:
        _ = told[patient]
    for i, values in enumerate(columns):
        for patient, value in zip(patients, values, strict=True):
            if value is not None:
                told[patient][i].add(value)
    return [tuple(map(frozenset, sets)) for sets in told.values()]


def _classes(told: Sequence[Told]) -> Classes:
    sizes = Counter(told)
    n = len(told)
    if not n:
        return Classes(0, 0, 0.0, 0.0, 0.0, 0.0)
    smallest = min(sizes.values())
    return Classes(
        k_minimum=smallest,
        unique_patients=sum(size == 1 for size in sizes.values()),
        share_below_5=sum(size for size in sizes.values() if size < SMALL) / n,
        share_below_11=sum(size for size in sizes.values() if size < SMALLISH) / n,
        maximum_risk=1 / smallest,
        mean_risk=len(sizes) / n,  # each class of k patients adds k times 1/k
    )
