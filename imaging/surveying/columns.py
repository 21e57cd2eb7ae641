"""What a column of a labels table is likely to say, by its name and its content."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

MOST_CLASSES = 20  # a column with more values is no choice between classes

# Rather too few words than too many: what is not recognised is merely not proposed.
PATIENT = (
    "patientid", "patient", "patid", "ptid", "pid", "subjectid", "subject", "participantid",
    "participant", "personid", "person", "caseid", "case", "mrn",
)  # fmt: skip
WORDS = {
    "split": {"split", "fold", "subset", "partition"},
    "identity": {
        "name", "surname", "firstname", "lastname", "mrn", "dob", "birth", "birthdate", "birthday",
        "address", "street", "phone", "email", "ssn", "insurance", "accession",
    },
    "sex": {"sex", "gender"},
    "age": {"age"},
    "scanner": {"scanner", "device", "manufacturer", "vendor", "machine", "equipment", "station"},
    "site": {"site", "hospital", "centre", "center", "institution", "clinic", "facility"},
    "label": {
        "label", "class", "target", "diagnosis", "finding", "disease", "outcome", "pathology",
        "malignant", "malignancy", "cancer", "tumor", "tumour", "lesion", "abnormal", "result", "y",
    },
}  # fmt: skip
DAY = re.compile(r"[12]\d{3}-\d\d-\d\d(T.*)?$")  # as `imaging.labelling.labels` reads them
SEXES = {"f", "m", "o", "u", "female", "male", "other", "w", "woman", "man"}
MISSING = {
    "", "na", "n/a", "nan", "null", "unknown", "uncertain", "indeterminate", "missing", "?",
    "not available", "not reported",
}  # fmt: skip
NEGATIVE = {
    "0", "0.0", "no", "n", "false", "absent", "normal", "negative", "neg", "benign", "healthy",
    "control", "none", "without", "no finding", "clear", "unaffected", "-",
}  # fmt: skip
POSITIVE = {
    "1", "1.0", "yes", "y", "true", "t", "present", "abnormal", "positive", "pos", "malignant",
    "disease", "diseased", "+",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One column; its values are not told.

    Attributes:
        filled: Rows in which it says something.
        distinct: Different values, without empty ones and words such as "unknown".
        role: patient, split, identity, day, sex, age, scanner, site, label (by its name), empty,
            or "" for anything else, which may be a label too.
    """

    name: str
    filled: int
    distinct: int
    role: str


def describe(name: str, values: Sequence[str]) -> Column:
    """Look at one column."""
    known = [value for v in values if not is_missing(value := v.strip())]
    return Column(name, len(known), len(set(known)), _role(name, known))


def is_missing(value: str) -> bool:
    """Nothing, or a word for it."""
    return value.strip().lower() in MISSING


def two_classes(values: Sequence[str]) -> tuple[str, str, str] | None:
    """The two values of a column, negative first, and why in that order; None if not two.

    Empty ones and words such as "unknown" are no class.
    """
    found = sorted({value for v in values if not is_missing(value := v.strip())})
    if len(found) != 2 or differ_by_spelling(found):
        return None
    one, other = found
    for negative, positive in ((one, other), (other, one)):
        if _says_no(negative, positive) and not _says_no(positive, negative):
            return negative, positive, "by its meaning"
    return one, other, "by the alphabet only: swap them if the second is the normal case"


def differ_by_spelling(values: Sequence[str]) -> str | None:
    """Which values differ only by case or spaces, where there are at most two classes but for
    that; None elsewhere."""
    found: dict[str, set[str]] = defaultdict(set)
    for v in values:
        if not is_missing(value := v.strip()):
            found[" ".join(value.casefold().split())].add(value)
    several = [sorted(alike) for alike in found.values() if len(alike) > 1]
    if len(found) > 2 or not several:
        return None
    told = ", ".join(" and ".join(map(repr, alike)) for alike in sorted(several))
    return f"{told} differ only by case or spaces"


def patient_rank(name: str) -> int:
    """How sure a column's name is to mean the patient; smaller is surer."""
    return PATIENT.index(_letters(name))


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def _says_no(one: str, other: str) -> bool:
    one, other = one.lower(), other.lower()
    return (
        one in NEGATIVE
        or other in POSITIVE
        or re.fullmatch(rf"(no|non|not|without)[ _-]?{re.escape(other)}", one) is not None
    )


def _role(name: str, known: Sequence[str]) -> str:
    if not known:
        return "empty"
    if _letters(name) in PATIENT:
        return "patient"
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = set(re.findall(r"[a-z]+", spaced))
    distinct = {value.lower() for value in known}
    if not words & WORDS["identity"] and all(map(DAY.match, known)):
        return "day"
    many = len(distinct) > MOST_CLASSES
    fits = {
        "split": not many,
        # DICOM writes names with carets; a column of classes may well be called class_name.
        "identity": many or bool(words & {"dob", "birthdate", "ssn", "mrn"}),
        "sex": distinct <= SEXES,
        "age": 2 * sum(map(_is_age, known)) > len(known),
        "scanner": not many,
        "site": not many,
        "label": not many,
    }
    for role, hints in WORDS.items():
        if words & hints and fits[role]:
            return role
    carets = sum("^" in value or "@" in value for value in known)
    return "identity" if 2 * carets > len(known) else ""


def _is_age(value: str) -> bool:
    try:
        return 0 <= float(value.replace(",", ".")) < 200
    except ValueError:
        return False
