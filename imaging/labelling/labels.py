"""The labels table: which of two classes each image is, and what the header may not say."""

import csv
import difflib
import io
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path, PurePosixPath

from imaging.config import Labels
from lineage.errors import BadInput

TABLES = (".csv", ".tsv", ".parquet")
SEPARATORS = ",;\t|"
MOST_CLASSES_NAMED = 20  # a column with more values may hold identities; none is then quoted


@dataclass(frozen=True)
class Mask:
    """A mask in the snapshot, cleaned and named by its content; see imaging/labelling/masks.py.

    Attributes:
        path: Below the snapshot.
        voxels: That are not background.
        shape: Frames, rows, columns.
        geometry: Where it lies, for `imaging.reading.volumes.same_grid`, if it says so.
        by_frame: Marks frames by their number; frames behind the last one hold no mark.
    """

    path: str
    sha256: str
    voxels: int
    shape: tuple[int, int, int]
    geometry: tuple[float, ...] | None = None
    by_frame: bool = False


@dataclass(frozen=True)
class Label:
    """What the table, or the mask, says of one key. `label` is None for neither class.

    Attributes:
        reason: Why an image with this label is set aside; a key of `imaging.reasons.REASONS`.
        source_split: The split that the data came with.
        known_since: When the label became known.
    """

    label: int | None
    conflict: bool = False
    patient_id: str | None = None
    sex: str | None = None
    age_years: float | None = None
    scanner: str | None = None
    site: str | None = None
    source_split: str | None = None
    known_since: date | None = None
    mask: Mask | None = None
    reason: str | None = None


def read_labels(path: Path, config: Labels) -> dict[str, Label]:
    """Read a CSV or Parquet table (or the only one in a directory) into a label per key.

    A key that occurs twice with different labels or patients is a conflict; other columns are
    taken from its first row. A row whose label is empty says nothing, and is left out. Where no
    column is the label, as beside masks, every row counts and has none.

    FHIR resources are made such a table first; see imaging/labelling/fhir.py.

    Raises:
        BadInput: No such table, or it lacks a column or a class that the config names, or a day is
            not written as one.
    """
    if config.fhir:
        from imaging.labelling import fhir

        table = fhir.read_table(path, config.fhir, config.key)
        wanted = {"column": fhir.VALUE} | {
            f"{name}_column": name for name in ("key", "patient", "known_since")
        }
    else:
        table, wanted = read_table(_the_table(path)), config.columns
        _require_columns(table, wanted)
    if "column" in wanted:
        _require_classes(table[wanted["column"]], config)
    days = _days(table, wanted.get("known_since_column"))

    labels: dict[str, Label] = {}
    for number, key in enumerate(table[wanted["key_column"]]):
        key = key.strip()
        row = {name: table[column][number].strip() for name, column in wanted.items()}
        if "column" in row and not row["column"]:
            continue
        label = _label(row, config.classes, days[number] if days else None)
        known = labels.setdefault(key, label)
        if (known.label, known.patient_id) != (label.label, label.patient_id):
            labels[key] = Label(label=None, conflict=True)
    labels.pop("", None)
    return labels


def _require_columns(table: Mapping[str, Sequence[str]], wanted: Mapping[str, str]) -> None:
    # Without a header the "columns" are a patient's row: name them only once one is what we expect.
    told = list(table) if set(wanted.values()) & table.keys() else []
    for setting, column in wanted.items():
        if column not in table:
            alone = (
                "; it has one column only: separate columns by comma, semicolon, tab or |"
                if len(table) == 1
                else ""
            )
            raise BadInput(
                f"ingestion.labels.{setting}: the labels table has no column {column!r}"
                f"{alone or nearest(column, table, told)}"
            )
        if f"{column}.1" in table:  # so pandas calls the second of two
            raise BadInput(
                f"ingestion.labels.{setting}: the labels table has two columns {column!r}; "
                "rename the one that is not meant"
            )


def _require_classes(values: Sequence[str], config: Labels) -> None:
    given = {value.strip() for value in values}
    # The same of a wrong column, which may hold the patients' names.
    told = sorted(given) if given & set(config.classes) else []
    where = f"column {config.column!r} never says" if config.column else "no resource means"
    for name in config.classes:
        if name not in given:
            near = {v for v in given if v.lower() == name.lower()} | set(told)
            raise BadInput(
                f"ingestion.labels.classes: {where} {name!r}"
                f"{nearest(name, near, told) if len(given) <= MOST_CLASSES_NAMED else ''}"
            )


def _days(table: Mapping[str, Sequence[str]], column: str | None) -> list[date | None] | None:
    """The days in a column, as it has them: a time zone moves none.

    Raises:
        BadInput: Some are written otherwise than in ISO 8601.
    """
    if column is None:
        return None
    days: list[date | None] = []
    bad: list[int] = []
    for number, value in enumerate(table[column], start=1):
        try:
            days.append(datetime.fromisoformat(value.strip()).date() if value.strip() else None)
        except ValueError:
            bad.append(number)
    if bad:
        raise BadInput(
            f"ingestion.labels.known_since_column: {len(bad)} of {len(table[column])} rows of "
            f"{column!r} are no day in ISO 8601, such as 2026-05-31; the first is row {bad[0]}"
        )
    return days


def match_files(files: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """Find for each file the key that names it: the same path, or the only one it ends like.

    `images/x.png` in the table names `x.png` under scans, and the other way round; so does `x`,
    unless a key names the file with its suffix. What could be meant by two keys, or a key that
    could mean two files, matches nothing.

    Args:
        files: Relative posix paths.
        keys: As in the table.

    Returns:
        File to key, for files that have one.
    """
    left, free = list(files), set(keys)
    matched = {file: file for file in left if file in free}
    for spelled in (str, without_suffix):
        left = [file for file in left if file not in matched]
        free -= set(matched.values())
        meant = _meant({file: spelled(file) for file in left}, free)
        claims = Counter(key for found in meant.values() for key in found)
        matched |= {f: k[0] for f, k in meant.items() if len(k) == 1 and claims[k[0]] == 1}
        # What was unclear is not made clear by looking less closely.
        left = [file for file in left if file not in meant]
        free -= claims.keys()
    return matched


def without_suffix(file: str) -> str:
    """`images/x` for `images/x.png`; a number at the end belongs to a UID and stays."""
    path = PurePosixPath(file)
    return file if path.suffix[1:].isdigit() else str(path.with_suffix(""))


def _meant(names: dict[str, str], keys: Iterable[str]) -> dict[str, list[str]]:
    """For each file, by its name, the keys that end like it; files without any are left out."""
    by_last: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        by_last[PurePosixPath(key).name].append(key)
    found = {
        file: [k for k in by_last.get(PurePosixPath(name).name, ()) if _ends_alike(k, name)]
        for file, name in names.items()
    }
    return {file: meant for file, meant in found.items() if meant}


def _ends_alike(one: str, other: str) -> bool:
    shorter, longer = sorted((PurePosixPath(one).parts, PurePosixPath(other).parts), key=len)
    return longer[-len(shorter) :] == shorter


def _the_table(path: Path) -> Path:
    if path.is_dir():  # engines hand on directories, even for one file
        tables = [p for p in sorted(path.iterdir()) if p.suffix.lower() in TABLES]
        if len(tables) != 1:
            raise BadInput(
                f"labels: the directory holds {len(tables)} CSV or Parquet files, not one"
            )
        return tables[0]
    if not path.is_file():
        raise BadInput("labels: there is no such file; name a CSV or Parquet table")
    return path


def read_table(path: Path) -> dict[str, list[str]]:
    """Read a table as text, column by column: Parquet, or CSV in what Excel and others make of it.

    CSV may be separated by comma, semicolon, tab or |, whichever makes most of the first line. It
    is UTF-8 or UTF-16; what is neither can only be told by what it was meant to say, and is read as
    Windows-1252, Latin-1's successor.

    Raises:
        BadInput: It is no such table.
    """
    import pandas as pd

    try:
        data = path.read_bytes()
        if data.startswith(b"PAR1"):
            frame = pd.read_parquet(io.BytesIO(data))
            frame = frame.astype(object).where(frame.notna(), "").astype(str)
        else:
            text = _decode(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", pd.errors.ParserWarning)
                frame = pd.read_csv(
                    io.StringIO(text),
                    sep=_separator(text),
                    dtype=str,
                    keep_default_na=False,
                    index_col=False,  # or a comma too many moves every value one column on
                )
    except BadInput:
        raise
    except pd.errors.EmptyDataError:
        raise BadInput(
            "labels: the file is empty; a row with the columns' names comes first"
        ) from None
    except OSError as error:
        raise BadInput(f"labels: the table cannot be read ({error.strerror})") from None
    except Exception as error:
        # The library's sentence may quote a line of the table.
        raise BadInput(
            f"labels: neither CSV nor Parquet ({type(error).__name__}); "
            "save it as CSV in UTF-8, with the columns' names in the first line"
        ) from None
    return {str(name): frame[name].tolist() for name in frame.columns}


def _decode(data: bytes) -> str:
    if data.startswith(b"PK\3\4"):
        raise BadInput("labels: this is an Excel workbook or another archive; save it as CSV")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    if b"\0" in data:
        raise BadInput("labels: neither CSV nor Parquet; save it as CSV in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _separator(text: str) -> str:
    """What parts the first line into most columns; a comma where nothing does."""
    header = text.partition("\n")[0].strip("\r")

    def parts(separator: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=separator), []))
        except csv.Error:  # a part of 128 KiB is no column's name
            return 0

    return max(SEPARATORS, key=parts)


def _label(row: dict[str, str], classes: tuple[str, str], known_since: date | None) -> Label:
    def filled(name: str) -> str | None:
        return row.get(name) or None

    try:
        age = float((row.get("age_column") or "nan").replace(",", "."))
    except ValueError:
        age = float("nan")
    return Label(
        label=classes.index(row["column"]) if row.get("column") in classes else None,
        patient_id=filled("patient_column"),
        sex=filled("sex_column"),
        age_years=age if 0 <= age < 200 else None,
        scanner=filled("scanner_column"),
        site=filled("site_column"),
        source_split=filled("split_column"),
        known_since=known_since,
    )


def nearest(name: str, known: Iterable[str], told: Sequence[str] = ()) -> str:
    """The nearest of what is known; else all that may be told."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(
        name.lower(), [k.lower() for k in known], n=1
    )
    found = next((k for k in known if near and k.lower() == near[0].lower()), None)
    if found:
        return f"; did you mean {found!r}?"
    return f"; it has {sorted(told)}" if 0 < len(told) <= MOST_CLASSES_NAMED else ""
