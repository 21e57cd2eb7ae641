"""Find the labels table of a folder of images, and the column of it that names them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imaging.labelling import labels
from imaging.surveying.headers import Seen
from lineage.errors import BadInput

MOST_TABLES = 20
# The finer key wins where it names nearly as many images as a coarser one.
KEYS = ("SOPInstanceUID", "file", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
NEARLY = 0.9


@dataclass(frozen=True)
class Joined:
    """A table, the column that names images, as what, and each named image's key.

    `bare` are names of files that all lack their suffix.
    """

    path: Path
    table: dict[str, list[str]]
    key: str
    column: str
    key_of: dict[str, str]
    bare: bool = False


def find_tables(folder: Path, files: Sequence[str]) -> list[Path]:
    """Files below the folder that may be a labels table, else beside it; the nearest first.

    Raises:
        BadInput: There is none.
    """
    # What is no regular file, such as a pipe, would keep its reader waiting.
    below = [
        folder / f
        for f in files
        if PurePosixPath(f).suffix.lower() in labels.TABLES and (folder / f).is_file()
    ]
    if not below:
        beside = folder.absolute().parent
        below = [
            folder.parent / p.name if folder.name else p
            for p in sorted(beside.iterdir())
            if p.suffix.lower() in labels.TABLES and p.is_file()
        ]
    if not below:
        raise BadInput(
            f"{folder}: there is no labels table in it or beside it (.csv, .tsv or .parquet); "
            "write one with a row per image, such as image,patient_id,label, or name it by "
            "--labels; for labels from FHIR reports or masks see docs/labels.md"
        )
    return sorted(below, key=lambda p: (len(p.parts), p))[:MOST_TABLES]


def join(tables: Sequence[Path], files: Sequence[str], images: Sequence[Seen]) -> Joined:
    """The table, and the column of it, that name most images.

    Raises:
        BadInput: None names any.
    """
    joins: list[Joined] = []
    faults: list[BadInput] = []
    names = {PurePosixPath(s.file).name for s in images}
    hint, stems = "", set(map(labels.without_suffix, names))
    called = names | stems
    for path in tables:
        if not path.is_file():
            raise BadInput(f"{path}: there is no such labels table")
        try:
            table = labels.read_table(path)
            _require_header(table, names, stems)
        except BadInput as fault:
            faults.append(fault)
            continue
        for column, values in table.items():
            keys = {key for v in values if (key := v.strip())}
            # Rules most columns out, before a long look at every file.
            fit = not called.isdisjoint(key.rpartition("/")[2] for key in keys)
            for key in KEYS:
                if key == "file" and not fit:
                    continue
                if key_of := _keys(key, keys, files, images):
                    bare = key == "file" and not any(map(_same_name, key_of, key_of.values()))
                    if not bare or _surely_names(values, key_of, images):
                        joins.append(Joined(path, table, key, column, key_of, bare))
            if 2 * len(keys & stems) > len(stems):
                hint = f"; {column!r} names them without their suffix: add it, as in .png"
    if not joins and faults and len(faults) == len(tables):
        raise faults[0]
    if not joins:
        raise BadInput(
            "no column of the labels table names the images, by their path below the folder or, "
            f"for DICOM, by a UID or PatientID{hint or ': add one, or name the table by --labels'}"
        )
    # A number may be an image's name by chance, so that such names count last.
    joins = [j for j in joins if not j.bare] or joins
    most = max(len(j.key_of) for j in joins)
    nearly = [j for j in joins if len(j.key_of) >= NEARLY * most]
    first = nearly[0]
    alike = [j for j in nearly if j.bare and j.path == first.path]
    if any(j.table[j.column] != first.table[first.column] for j in alike):
        raise BadInput(
            "several columns of the labels table may name the images, each otherwise and without "
            "their suffix: add it where it belongs, as in .png"
        )
    return min(nearly, key=lambda j: KEYS.index(j.key))


def _require_header(table: Mapping[str, Sequence[str]], names: set[str], stems: set[str]) -> None:
    """Refuse a table without a header: its first row would be told as names of columns."""
    again = [name in values for name, values in table.items()]
    named = any(
        PurePosixPath(name).name in names
        # A column may well be called image, and so may a file in each of many folders.
        or (name in stems and not stems.isdisjoint(values))
        for name, values in table.items()
    )
    # All of them again is a header twice, as in tables that were put together from several.
    if named or (any(again) and not all(again)):
        raise BadInput(
            "labels: the table's first line looks like a row; put the columns' names there, such "
            "as image,patient_id,label"
        )


def _keys(
    key: str, known: set[str], files: Sequence[str], images: Sequence[Seen]
) -> dict[str, str]:
    """For each image, by file, which of the known keys names it."""
    if key != "file":
        return {s.file: value for s in images if (value := s.keys.get(key) or "") in known}
    matched = labels.match_files(files, known)
    return {s.file: matched[s.file] for s in images if s.file in matched}


def _same_name(one: str, other: str) -> bool:
    return PurePosixPath(one).name == PurePosixPath(other).name


def _surely_names(values: Sequence[str], key_of: Mapping[str, str], images: Sequence[Seen]) -> bool:
    """Whether names without a suffix are more than ages, or the rows' own numbers."""
    filled = [value for v in values if (value := v.strip())]
    counted = any(filled == [str(i + first) for i in range(len(filled))] for first in (0, 1))
    apart = len(set(filled)) >= NEARLY * len(filled)
    return apart and not counted and 2 * len(key_of) > len(images)
