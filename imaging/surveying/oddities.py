"""What one should know of own data before training on it, in sentences: counts, never values."""

from collections.abc import Iterator

from imaging.reasons import REASONS
from imaging.surveying.survey import Survey

FEW_PATIENTS = 40  # in a class: about ten in the test split
MIXED = 1.5  # larger by this factor: not one size with a margin
SMALLEST_SIDE = 16  # pixels; less is hardly a scan
RARE_SHARE = 0.1


def oddities(survey: Survey) -> list[str]:
    """Everything odd about a survey, most consequential first."""
    return [
        *_of_the_task(survey),
        *_of_the_images(survey),
        *_of_the_table(survey),
    ]


def _of_the_task(s: Survey) -> Iterator[str]:
    distinct = {column.name: column.distinct for column in s.columns}
    for name, told in s.passed_over.items():
        classes = _count(distinct[name], "class", "classes")
        yield f"column {name!r} has {classes} and is passed over as a label: {told}"
    for what, share in s.shortcuts.items():
        yield (
            f"{what} alone tells the classes apart for {share:.0%} of the images: a network may "
            "learn that instead of what the images show"
        )
    for name, patients in zip(s.settings.classes, s.class_patients, strict=True):
        if patients < FEW_PATIENTS:
            only = _count(patients, "patient", "patients")
            yield f"class {name!r} has {only} only: intervals will be wide"
    share = min(s.class_images) / max(sum(s.class_images), 1)
    if share < RARE_SHARE:
        rarer = s.settings.classes[s.class_images.index(min(s.class_images))]
        yield f"class {rarer!r} is rare: {share:.1%} of the usable images"
    if s.in_both:
        yield (
            f"{_count(s.in_both, 'patient has', 'patients have')} images of both classes: right if "
            "an image has the label, wrong if a patient has"
        )


def _of_the_images(s: Survey) -> Iterator[str]:
    if not s.complete:
        yield (
            f"{s.looked_at} of {s.files} files were looked at, drawn at random: every count is of "
            "these"
        )
    for reason, n in s.set_aside.items():
        files = _count(n, "file", "files")
        yield f"{files} will be set aside as {reason}: {_lower(REASONS[reason])}"
    if len(kinds := [k for k in s.kinds if k != "other"]) > 1:
        yield f"the images are of several formats: {_list(s.kinds, kinds)}"
    if len(s.modalities) > 1:
        yield f"the images are of several modalities: {_list(s.modalities, list(s.modalities))}"
    if s.sizes > 1:
        low, high = (f"{rows} x {cols}" for rows, cols in (s.smallest, s.largest))
        area = [rows * cols for rows, cols in (s.smallest, s.largest)]
        if area[1] > MIXED * area[0]:
            yield f"the images are of {s.sizes} sizes, from {low} to {high} pixels"
    if s.sizes and min(s.smallest) < SMALLEST_SIDE:
        yield f"some images have less than {SMALLEST_SIDE} pixels on a side"
    if s.unsure:
        pictures = _count(s.unsure, "picture is", "pictures are")
        yield f"{pictures} stored in colour; what is not grey is set aside"
    if s.inverted:
        images = _count(s.inverted, "image is", "images are")
        yield f"{images} MONOCHROME1 (white is low), and inverted when read"


def _of_the_table(s: Survey) -> Iterator[str]:
    if s.other_tables:
        tables = _count(s.other_tables, "more table was", "more tables were")
        yield f"{tables} found; --labels takes another one"
    if s.bare_names:
        yield (
            f"column {s.settings.key_column!r} names files without their suffix: each is taken for "
            "the only file of that name"
        )
    if s.rows_without_image:
        yield f"{s.rows_without_image} of {s.rows} rows name no image"
    used = {value for name, value in s.settings if name.endswith("column") and value is not None}
    for column in s.columns:
        name, missing = repr(column.name), s.rows - column.filled
        if column.role == "empty":
            yield f"column {name} is empty"
        elif column.role == "split":
            yield (
                f"column {name} parts the images already; they are parted anew, by patient and a "
                f"secret draw. Named as `split_column`, it is checked for patients on two sides"
            )
        elif column.role == "day":
            yield (
                f"column {name} holds days and is not used; if they say since when the label is "
                "known, name it as `known_since_column`"
            )
        elif column.role == "identity":
            yield f"column {name} may hold identities; it is not used, nor copied anywhere"
        elif column.distinct == 1 and column.name not in used:
            yield f"column {name} says the same in every row"
        elif column.name in used and missing:
            yield f"column {name} says nothing in {missing} of {s.rows} rows"
        by_image = s.settings.key in ("file", "SOPInstanceUID")
        if by_image and column.name == s.settings.patient_column and column.distinct == s.rows:
            yield f"column {name} never repeats: right only if nobody has two images"


def _count(n: int, one: str, several: str) -> str:
    return f"{n} {one if n == 1 else several}"


def _list(counts: dict[str, int], names: list[str]) -> str:
    return ", ".join(f"{counts[name]} {name}" for name in names)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:].rstrip(".")
