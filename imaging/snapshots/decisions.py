"""What takes a look at more than one file: conflicts, copies, labels, and who comes before whom."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from imaging.deidentification.pseudonyms import Names
from imaging.labelling.labels import Label, Mask
from imaging.snapshots.ingested import unseal
from lineage.errors import BadInput


@dataclass(slots=True)
class Image:
    """What the decisions need to know of a file; of 100,000 of them, all at once.

    Attributes:
        file: Its path in the source.
        reason: Why it is set aside, or "".
        key: The labels table's key for it.
        content, instance, pixels: The file's digest, its new instance UID, its pixels' digest.
        patient: Its patient's pseudonym, where the header names one.
        mask: The label's mask, where it fits.
    """

    file: str
    reason: str
    key: str | None = None
    content: str = ""
    instance: str = ""
    pixels: str = ""
    patient: str | None = None
    mask: Mask | None = None


def decide(images: Sequence[Image], label_of: dict[str, Label], names: Names) -> None:
    """Add the reasons that take a look at more than one file."""
    conflicting_instances(images)
    for image in images:
        if image.reason:
            continue
        label = label_of[image.key] if image.key is not None else None
        if label is not None and label.conflict:
            image.reason = "label_conflict"
        elif label is not None and label.reason:
            image.reason = label.reason
        elif label is None or label.label is None:
            image.reason = "unlabelled" if label is None else "other_class"
        elif not (image.patient or label.patient_id):
            image.reason = "no_patient_id"
        elif label.mask and not image.mask:
            image.reason = "mask_mismatch"
    for group in groups(images, lambda image: image.pixels):
        if len({_told(label_of[str(image.key)]) for image in group}) > 1:
            for image in group:
                image.reason = "label_conflict"
            continue
        if len(group) > 1 and len({_whose(i, label_of[str(i.key)], names) for i in group}) > 1:
            for image in group:
                image.reason = "pixels_of_several_patients"
            continue
        seen = {group[0].content}
        for image in group[1:]:
            image.reason = "duplicate_file" if image.content in seen else "duplicate_pixels"
            seen.add(image.content)


def _told(label: Label) -> tuple[int | None, str]:
    return label.label, label.mask.sha256 if label.mask else ""


def _whose(image: Image, label: Label, names: Names) -> str:
    return image.patient or names.patient(label.patient_id or "")


def refuse_parted_patients(
    images: Sequence[Image], label_of: dict[str, Label], names: Names
) -> None:
    """Refuse a labels table in which one patient is several by the headers, whose word counts.

    Raises:
        BadInput: They would be parted, and one person could be trained and tested on.
    """
    named: dict[str, set[str]] = defaultdict(set)
    for image in images:
        label = label_of[str(image.key)]
        if label.patient_id:
            named[label.patient_id].add(_whose(image, label, names))
    if parted := sum(len(patients) > 1 for patients in named.values()):
        raise BadInput(
            f"ingestion.labels.patient_column: {parted} patients of that column are several by the "
            "PatientIDs of their files, which count, so that one person could be trained and "
            "tested on: leave the setting out if the PatientIDs are right, or mend the files"
        )


def conflicting_instances(images: Sequence[Image]) -> None:
    """Set aside different files with the same SOP Instance UID: nobody knows which is true."""
    for group in groups(images, lambda image: image.instance):
        if len({image.content for image in group}) > 1:
            for image in group:
                image.reason = "conflicting_instance_uid"


def groups(images: Sequence[Image], key: Callable[[Image], str]) -> list[list[Image]]:
    """Images still in, grouped; in the order of the files."""
    found: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        if not image.reason:
            found[key(image)].append(image)
    return list(found.values())


def original_ids(
    images: Sequence[Image], label_of: dict[str, Label], sealed: dict[str, str], names: Names
) -> dict[str, str]:
    """Each patient's own identifier, by pseudonym; for memory only."""
    found: dict[str, str] = {}
    for image in images:
        if image.patient is None:
            patient_id = label_of[str(image.key)].patient_id or ""
            found[names.patient(patient_id)] = patient_id
        elif image.patient not in found:
            found[image.patient] = unseal(names.key, sealed[image.patient])
    return found


def alike(original: dict[str, str]) -> int:
    """How many patients have a PatientID that is another's but for leading zeros, case or spaces.

    12 and 0012 are two patients here, for nobody can say that they are one; but it is likely.
    """
    spelled = Counter(tuple(_numbers_in(" ".join(i.casefold().split()))) for i in original.values())
    return sum(count for count in spelled.values() if count > 1)


def ranks(original: dict[str, str]) -> dict[str, int]:
    """Where each patient stands in the order of the original identifiers."""
    ordered = sorted(original, key=lambda patient: (_numbers_in(original[patient]), patient))
    return {patient: i for i, patient in enumerate(ordered)}


def _numbers_in(text: str) -> list[tuple[int, str]]:
    """To sort by: P9 comes before P10."""
    parts = re.split(r"0*([0-9]+)", text)  # texts and numbers by turns
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)]
