"""A folder of scans cleaned for its own sake: no labels, no snapshot; what went in comes out."""

import fcntl
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from imaging.deidentification.policy import DeidentificationPolicy
from imaging.deidentification.pseudonyms import open_names
from imaging.deidentification.verifying import verify
from imaging.snapshots.decisions import Image, conflicting_instances, groups
from imaging.snapshots.examine import Examination, study_day
from imaging.snapshots.examined import Examined, examine_all, recipe
from imaging.snapshots.ingested import FOLDER, Facts, cleaned_name, ingested, scratch_path
from lineage.digest import file_digest
from lineage.errors import BadInput
from lineage.progress import Report
from lineage.workspace import workspace

if TYPE_CHECKING:
    import pandas as pd

# Of each row, for what is to be said of all of them; see imaging/deidentification/risk.py.
_COLUMNS = (
    "patient_id", "study_uid", "series_uid", "sex", "age_years", "study_date", "body_part",
    "scanner",
)  # fmt: skip

SUMS = "SHA256SUMS"  # of the images, as sha256sum reads it
KEPT = ("deidentification.json", "deidentification.html", SUMS)  # what a run says of itself
DRAFT = ".lightbox-draft"  # what is being written, and will be renamed


@dataclass(frozen=True)
class Cleaned:
    """What became of the files.

    Attributes:
        found, written: How many files there are, and how many were written.
        pictures: Of those written, how many have no header: PNG, JPEG and NIfTI.
        sums_sha256: The digest of `SHA256SUMS`: it stands for all images that were written.
        masked: Of those written, in how many text in the pixels was painted over.
        patients, studies, series: Of those written.
        held: How many were held back, by reason.
        done: For each attribute, in how many of the written files what was done to it.
        checks: Leaks that each of the verifier's checks found: none, or nothing is written.
        set_aside: File and reason of each that was held back; files may be named after patients.
        rows: Quasi-identifiers, a row for each written file that says whose it is.
        seconds: How long it took.
    """

    found: int
    written: int
    sums_sha256: str
    pictures: int
    masked: int
    patients: int
    studies: int
    series: int
    held: dict[str, int]
    done: dict[str, dict[str, int]]
    checks: dict[str, int]
    set_aside: tuple[tuple[str, str], ...]
    rows: "pd.DataFrame"
    seconds: float


def clean_folder(
    scans: Path,
    out: Path,
    policy: DeidentificationPolicy,
    key: bytes,
    *,
    crosswalk: Path,
    colour: Literal["set_aside", "grey", "keep"] = "keep",
    frames: Literal["set_aside", "keep"] = "keep",
    timeout_s: float = 60.0,
    memory_gib: float = 4.0,
    report: Report | None = None,
) -> Cleaned:
    """Write `OUT/<study>/<series>/<instance>.dcm`, and pictures and volumes below `OUT/pictures`.

    Nothing lies in `out` before all of it was checked. Files that are there from an earlier run on
    the same scans stay as they are. A study that names no patient gets a code of its own.

    Args:
        scans: Folder of DICOM, PNG, JPEG or NIfTI files at any depth.
        out: Folder to fill; made if it is not there.
        policy: What is done to identities.
        key: The pseudonym key.
        crosswalk: Where drawn pseudonyms are kept, for a policy that draws them.
        colour, frames: What becomes of images with colour, or more than one frame.
        timeout_s, memory_gib: Bounds for one file.
        report: Told of the progress.

    Raises:
        BadInput: `out` lies in `scans` or around it, cannot be written, holds anything that this
            would not have written, or another process is filling it.
        StepFailed: The check of what was written found a leak, or no worker could start.
    """
    started = time.monotonic()
    check_out(scans, out)
    how = Examination(
        policy, colour, frames, None, timeout_s, memory_gib, crosswalk,
        compare=True, by_study=True, describe=False,
    )  # fmt: skip
    with closing(open_names(policy, key, crosswalk)) as drawn:
        name_of_work = recipe(how, drawn)
    cache = workspace().home / FOLDER
    with _alone_in(out), ingested(cache, name_of_work, out) as store:
        for left in (*out.glob(DRAFT), *out.glob(f".{KEPT[0]}.*")):  # by a kill
            left.unlink()
        examined = examine_all(how, scans, store, key, report)
        images = _decided(examined)
        names = ["" if i.reason else _name(f) for i, (_, f) in zip(images, examined, strict=True)]
        _refuse_others(out, {*names, *KEPT}, scratch_path(out, name_of_work))
        for name in KEPT:  # of another policy, perhaps: a kill must not leave it beside our files
            (out / name).unlink(missing_ok=True)
        done: dict[str, Counter[str]] = defaultdict(Counter)
        rows: list[dict[str, Any]] = []
        sums: list[str] = []
        written = pictures = masked = 0
        # By their new names: the times of files and folders are not to tell the source's order.
        for name, i in sorted((name, i) for i, name in enumerate(names) if name):
            facts = examined.facts(i)
            if not _is_there(out / name, facts["row"]["sha256"]):
                # Whoever is given them may edit them: no other folder is to change with them.
                store.place(cleaned_name(facts), out / DRAFT, shared=False)
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / DRAFT).replace(out / name)  # a kill leaves no half file that looks whole
            for keyword, what in facts.get("done", {}).items():
                done[keyword].update(what)
            written += 1
            sums.append(f"{facts['row']['sha256']}  {name}\n")
            pictures += facts["row"]["source_format"] != "dicom"
            masked += facts.get("masked", False)
            row = facts["row"] | {"study_date": study_day(facts)}
            if "patient_id" in row:  # nobody knows whose a picture is
                rows.append({column: row.get(column) for column in _COLUMNS})
        (out / DRAFT).write_text("".join(sorted(sums, key=lambda line: line[66:])))
        (out / DRAFT).replace(out / SUMS)
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    set_aside = tuple((image.file, image.reason) for image in images if image.reason)
    return Cleaned(
        found=len(images),
        written=written,
        sums_sha256=file_digest(out / SUMS),
        pictures=pictures,
        masked=masked,
        patients=table["patient_id"].nunique(),
        studies=table["study_uid"].nunique(),
        series=table["series_uid"].nunique(),
        held=dict(sorted(Counter(reason for _, reason in set_aside).items())),
        done={keyword: dict(sorted(done[keyword].items())) for keyword in sorted(done)},
        checks=dict.fromkeys(verify.CHECKS, 0),
        set_aside=set_aside,
        rows=table,
        seconds=time.monotonic() - started,
    )


def check_out(scans: Path, out: Path, *, key_is_new: bool = False) -> None:
    """Make the folder to fill, if files may go there.

    Args:
        scans, out: As for `clean_folder`, which asks this, too.
        key_is_new: Nothing was written by it, so that no image in `out` can be ours.

    Raises:
        BadInput: It lies in `scans` or around it, cannot be written, or holds other files.
    """
    if out.resolve().is_relative_to(scans.resolve()):
        raise BadInput("OUT lies in IN, so that its files would be read as scans; name another")
    if scans.resolve().is_relative_to(out.resolve()):
        raise BadInput("IN lies in OUT, so that the scans would go where it goes; name another")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"OUT cannot be made ({error.strerror}); name a new folder") from None
    if not os.access(out, os.W_OK | os.X_OK):
        raise BadInput("OUT cannot be written; give yourself the right to, or name another")
    if key_is_new:
        _refuse_others(out, set(KEPT), scratch=out / DRAFT)


@contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Two at once would mix what each was asked for."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadInput(
                    "another process is writing into OUT: wait for it, or name another"
                ) from None
        yield
    finally:
        os.close(descriptor)


def _decided(examined: Examined) -> list[Image]:
    images = []
    for file, facts in examined:
        uid = facts.get("row", {}).get("instance_uid", "")
        images.append(Image(file, facts.get("reason", ""), None, facts.get("file_sha256", ""), uid))
    conflicting_instances(images)
    for group in groups(images, lambda image: image.instance):
        for image in group[1:]:
            image.reason = "duplicate_file"
    return images


def _name(facts: Facts) -> str:
    """By new UIDs only: old names may be patients'."""
    row = facts["row"]
    last = row["path"].rpartition("/")[2]
    if row["source_format"] != "dicom":
        return f"pictures/{last}"
    return f"{row.get('study_uid', 'study')}/{row.get('series_uid', 'series')}/{last}"


def _refuse_others(out: Path, names: set[str], scratch: Path) -> None:
    """A folder of cleaned files must hold no others: whoever gets it would take them for clean."""
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if not p.is_dir()}
    strange = {name for name in there - names if not (out / name).is_relative_to(scratch)}
    if strange:
        raise BadInput(
            f"OUT holds {len(strange)} files that do not come from these scans by this policy and "
            "key; name an empty folder, or clear it first"
        )


def _is_there(path: Path, sha256: str) -> bool:
    """Whether an earlier run has written it; what is not as it was is removed."""
    if path.is_file() and file_digest(path) == sha256:
        return True
    path.unlink(missing_ok=True)
    return False
