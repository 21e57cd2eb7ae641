"""A look at a folder of own data: what is there, and what could be learned from it.

Nothing is written. Identities are read in memory and not told: a `Survey` holds counts, names of
columns, and the two classes of the label.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from statistics import median

from imaging.config import Labels
from imaging.incoming.folder import find_files
from imaging.labelling import labels
from imaging.surveying import columns
from imaging.surveying.columns import Column
from imaging.surveying.headers import OTHER, Seen, look
from imaging.surveying.joining import Joined, find_tables, join
from lineage.errors import BadInput

RARE = 8  # rows; a class with fewer is proposed last
ENOUGH = 10  # images per value, or nothing can be said of it
LEARNABLE = ("label", "", "sex")  # roles of columns, likeliest first
MOST_NAMED = 10  # classes of a column that cannot be learned
TELLING = 0.95  # share of images whose class another column tells: a shortcut


@dataclass(frozen=True)
class Survey:
    """What was found. Counts of images are of the files looked at.

    Attributes:
        scans: The folder that holds the images, at or below the one that was asked about.
        labels: The labels table.
        other_tables: How many more files look like tables.
        files: Below scans; `looked_at` of them.
        kinds: Files looked at, by kind; `other` is no image.
        smallest, typical, largest: Rows and columns, each by itself; typical is the median.
        sizes: How many different ones.
        inverted: Images whose smallest value is white (MONOCHROME1); they are turned.
        unsure: Pictures stored in colour of which nobody knows yet whether they are grey.
        with_row: Images that the labels table names.
        bare_names: It names files, without their suffix.
        rows: Of the labels table; `rows_without_image` is None if files were not looked at.
        columns: Of the labels table.
        settings: How the labels table is to be read.
        why: Why this column is the label; `order` is why its classes come in this order.
        other_labels: Further columns with two classes.
        passed_over: Columns that look like a label and have not two classes, and the way out.
        usable: Images that can be used; `set_aside` has the other files, by reason.
        class_images, class_patients: Of the usable ones; negative first.
        patients: With usable images; `in_both` have images of both classes.
        shortcuts: What tells the classes apart by itself, for which share of images.
    """

    scans: str
    labels: str
    other_tables: int
    files: int
    looked_at: int
    kinds: dict[str, int]
    modalities: dict[str, int]
    smallest: tuple[int, int]
    typical: tuple[int, int]
    largest: tuple[int, int]
    sizes: int
    inverted: int
    unsure: int
    with_row: int
    bare_names: bool
    rows: int
    rows_without_image: int | None
    columns: tuple[Column, ...]
    settings: Labels
    why: str
    order: str
    other_labels: tuple[str, ...]
    passed_over: dict[str, str]
    usable: int
    set_aside: dict[str, int]
    class_images: tuple[int, int]
    class_patients: tuple[int, int]
    patients: int
    in_both: int
    shortcuts: dict[str, float]

    @property
    def images(self) -> int:
        """DICOM, PNG, JPEG and NIfTI files, of any use or none."""
        return sum(n for kind, n in self.kinds.items() if kind != OTHER)

    @property
    def complete(self) -> bool:
        """Whether every file was looked at."""
        return self.looked_at == self.files


def survey(folder: Path, table: Path | None = None, column: str | None = None) -> Survey:
    """Look at a folder of images and at its labels table.

    Args:
        folder: Holds images at any depth; the table lies below it, or beside it.
        table: The labels table; searched for if left out.
        column: The label; the likeliest column if left out.

    Raises:
        BadInput: No images, no table that names them, nothing that says whose they are, or no
            column of two classes.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: there is no such folder; name the one that holds the images")
    found = find_files(folder)
    tables = [table] if table else find_tables(folder, found)
    seen = look(folder, found)
    scans, files, seen = _narrow(folder, found, seen)
    images = [s for s in seen if s.kind != OTHER]
    if not images:
        raise BadInput(
            f"{folder}: none of the {len(seen)} files looked at is a DICOM, PNG, JPEG or NIfTI "
            "image; name the folder that holds the images"
        )
    joined = join(tables, files, images)
    described = tuple(columns.describe(name, values) for name, values in joined.table.items())
    patient = _patient_column(described, images)
    label, why, others = _label(joined, described, patient, column)
    classes = columns.two_classes(joined.table[label])
    assert classes is not None
    first = {c.role: c.name for c in reversed(described)}
    settings = Labels.model_validate(
        {"key": joined.key, "key_column": joined.column, "column": label, "classes": classes[:2]}
        | {"patient_column": patient}
        | {f"{role}_column": first.get(role) for role in ("sex", "age", "scanner", "site")}
    )
    label_of = labels.read_labels(joined.path, settings)
    reasons = _reasons(images, joined.key_of, label_of)
    usable = {s: label_of[joined.key_of[s.file]] for s in images if s.file not in reasons}
    whose: tuple[set[str], set[str]] = (set(), set())
    for s, told in usable.items():
        whose[told.label or 0].add(s.keys.get("PatientID") or told.patient_id or "")
    sizes = [s.size for s in images if all(s.size)]
    rows, cols = [s[0] for s in sizes], [s[1] for s in sizes]
    set_aside = Counter(reasons.values()) + Counter(s.reason for s in seen if s.kind == OTHER)
    named, keys = set(joined.key_of.values()), joined.table[joined.column]
    return Survey(
        scans=str(scans),
        labels=str(joined.path),
        other_tables=len(tables) - 1,
        files=len(files),
        looked_at=len(seen),
        kinds=_counted(s.kind for s in seen),
        modalities=_counted(s.modality for s in images if s.modality),
        smallest=(min(rows, default=0), min(cols, default=0)),
        typical=(int(median(rows or [0])), int(median(cols or [0]))),
        largest=(max(rows, default=0), max(cols, default=0)),
        sizes=len(set(sizes)),
        inverted=sum(s.inverted for s in images),
        unsure=sum(s.unsure for s in images),
        with_row=sum(s.file in joined.key_of for s in images),
        bare_names=joined.bare,
        rows=len(keys),
        rows_without_image=sum(k.strip() not in named for k in keys)
        if len(seen) == len(files)
        else None,
        columns=described,
        settings=settings,
        why=why,
        order=classes[2],
        other_labels=others,
        passed_over={
            c.name: _way_out(joined.table[c.name])
            for c in _learnable(joined, described, patient)
            if _looks_like_a_label(c, joined.table[c.name])
        },
        usable=len(usable),
        set_aside=_counted(set_aside.elements()),
        class_images=_pair(told.label for told in usable.values()),
        class_patients=(len(whose[0]), len(whose[1])),
        patients=len(whose[0] | whose[1]),
        in_both=len(whose[0] & whose[1]),
        shortcuts=_shortcuts(joined, usable, {joined.column, patient, label}),
    )


def _narrow(
    folder: Path, files: Sequence[str], seen: Sequence[Seen]
) -> tuple[Path, list[str], list[Seen]]:
    """Step down into the one subfolder that holds all images, if other files lie beside it."""
    tops = {PurePosixPath(s.file).parts[0] for s in seen if s.kind != OTHER}
    top = next(iter(tops), "")
    if len(tops) != 1 or not (folder / top).is_dir():
        return folder, list(files), list(seen)
    inside = [f for f in files if f.startswith(f"{top}/")]
    if len(inside) == len(files):
        return folder, list(files), list(seen)
    start = len(top) + 1
    below = [replace(s, file=s.file[start:]) for s in seen if s.file.startswith(f"{top}/")]
    return folder / top, [f[start:] for f in inside], below


def _patient_column(described: Sequence[Column], images: Sequence[Seen]) -> str | None:
    """The column that says whose images they are.

    Raises:
        BadInput: There is none, and there are images without a header.
    """
    found = [c for c in described if c.role == "patient" and c.distinct > 1]
    if not found and any(not s.keys and not s.reason for s in images):
        raise BadInput(
            "no column of the labels table says whose image it is, so that nobody could be kept "
            "out of the test split: add one, such as patient_id; where each image is of another "
            "person, it may repeat the image's name"
        )
    best = min(found, key=lambda c: columns.patient_rank(c.name), default=None)
    return best.name if best else None


def _label(
    joined: Joined, described: Sequence[Column], patient: str | None, wanted: str | None
) -> tuple[str, str, tuple[str, ...]]:
    """The column to learn, why it, and which others could be.

    Raises:
        BadInput: The wanted one is not there or has not two classes; or none has.
    """
    names = {c.name: c for c in described}
    if wanted is not None and wanted not in names:
        raise BadInput(
            f"--column: the labels table has no column {wanted!r}{labels.nearest(wanted, names)}"
        )
    two = {c.name: t for c in described if (t := columns.two_classes(joined.table[c.name]))}
    if wanted is not None and wanted not in two:
        raise BadInput(f"--column: {_not_two(names[wanted], joined.table[wanted])}")

    def rank(c: Column) -> tuple[bool, int, bool]:
        counts = Counter(v.strip() for v in joined.table[c.name])
        rare = min(counts[name] for name in two[c.name][:2]) < RARE
        order = LEARNABLE.index(c.role)
        return rare, order, "meaning" not in two[c.name][2]

    possible = sorted(
        (c for c in _learnable(joined, described, patient) if c.name in two), key=rank
    )
    if wanted is None and not possible:
        several = [
            c
            for c in _learnable(joined, described, patient)
            if c.role != "sex" and 2 < c.distinct <= columns.MOST_CLASSES
        ]
        told = f"; {_not_two(several[0], joined.table[several[0].name])}" if several else ""
        raise BadInput(f"no column of the labels table has two classes to tell apart{told}")
    chosen = wanted or possible[0].name
    others = tuple(c.name for c in possible if c.name != chosen)
    why = "as you asked"
    if wanted is None:
        named = names[chosen].role == "label"
        why = "it is named like one" if named else "it has two classes"
    return chosen, why, others


def _learnable(joined: Joined, described: Sequence[Column], patient: str | None) -> list[Column]:
    apart = (joined.column, patient)
    return [c for c in described if c.role in LEARNABLE and c.name not in apart]


def _not_two(column: Column, values: Sequence[str]) -> str:
    classes = "1 class" if column.distinct == 1 else f"{column.distinct} classes"
    # Few values in many rows are classes; others may be names.
    if column.role in LEARNABLE and ENOUGH * column.distinct <= column.filled:
        found = sorted({value for v in values if not columns.is_missing(value := v.strip())})
        if len(found) <= MOST_NAMED:
            classes += f" ({', '.join(map(repr, found))})"
    return f"column {column.name!r} has {classes}, and two are needed: {_way_out(values)}"


def _way_out(values: Sequence[str]) -> str:
    if told := columns.differ_by_spelling(values):
        return f"{told}; write them alike"
    return "add a column that says one of two, such as one class or the rest"


def _looks_like_a_label(column: Column, values: Sequence[str]) -> bool:
    """It is named like one, or has two classes but for their spelling; yet it cannot be one."""
    named = column.role == "label" and 2 < column.distinct <= columns.MOST_CLASSES
    return named or columns.differ_by_spelling(values) is not None


def _reasons(
    images: Sequence[Seen], key_of: Mapping[str, str], label_of: Mapping[str, labels.Label]
) -> dict[str, str]:
    """Why an image will be set aside, by file; see imaging/snapshots/snapshot.py, which decides."""
    reasons = {s.file: s.reason for s in images if s.reason}
    whole = [s for s in images if not s.reason]
    for group in _groups(whole, lambda s: s.keys.get("SOPInstanceUID") or s.file):
        if len({s.sha256 for s in group}) > 1:
            reasons |= {s.file: "conflicting_instance_uid" for s in group}
    for s in images:
        told = label_of.get(key_of.get(s.file, ""))
        if s.file in reasons:
            continue
        if told is None:
            reasons[s.file] = "unlabelled"
        elif told.conflict:
            reasons[s.file] = "label_conflict"
        elif told.label is None:
            reasons[s.file] = "other_class"
        elif not (s.keys.get("PatientID") or told.patient_id):
            reasons[s.file] = "no_patient_id"
    left = [s for s in images if s.file not in reasons]
    for group in _groups(left, lambda s: s.sha256):
        if len({label_of[key_of[s.file]].label for s in group}) > 1:
            reasons |= {s.file: "label_conflict" for s in group}
        elif len({_whose(s, label_of[key_of[s.file]]) for s in group}) > 1:
            reasons |= {s.file: "pixels_of_several_patients" for s in group}
        else:
            reasons |= {s.file: "duplicate_file" for s in group[1:]}
    return reasons


def _whose(image: Seen, label: labels.Label) -> str | None:
    return image.keys.get("PatientID") or label.patient_id


def _groups(images: Sequence[Seen], key: Callable[[Seen], str]) -> Iterable[list[Seen]]:
    groups: dict[str, list[Seen]] = defaultdict(list)
    for s in images:
        groups[key(s)].append(s)
    return groups.values()


def _shortcuts(
    joined: Joined, usable: Mapping[Seen, labels.Label], apart: set[str | None]
) -> dict[str, float]:
    """What a network could look at instead: whatever tells the classes apart by itself."""
    row_of = {key.strip(): i for i, key in reversed(list(enumerate(joined.table[joined.column])))}
    facts: dict[str, Sequence[object]] = {
        "the image size": [s.size for s in usable],
        "the modality": [s.modality for s in usable],
        "the scanner that the header names": [s.scanner for s in usable],
        "the file format": [s.kind for s in usable],
    }
    for name, column in joined.table.items():
        if name not in apart:
            facts[f"column {name!r}"] = [column[row_of[joined.key_of[s.file]]] for s in usable]
    classes = [told.label for told in usable.values()]
    commonest = max(Counter(classes).values(), default=0)
    found = {}
    for name, values in facts.items():
        by_value: dict[object, Counter[int | None]] = defaultdict(Counter)
        for value, label in zip(values, classes, strict=True):
            by_value[value][label] += 1
        told = sum(max(counts.values()) for counts in by_value.values())
        # Half of what guessing the commonest class leaves open must be gone, too.
        if (
            2 <= len(by_value) <= min(columns.MOST_CLASSES, len(classes) // ENOUGH)
            and told >= TELLING * len(classes)
            and 2 * (len(classes) - told) <= len(classes) - commonest
        ):
            found[name] = told / len(classes)
    return found


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    return {str(value): n for value, n in Counter(values).most_common()}


def _pair(found: Iterable[int | None]) -> tuple[int, int]:
    counts = Counter(found)
    return counts[0], counts[1]
