"""Made-up images of seven modalities, and what must have become of each value in them.

After the manner of the MIDI-B challenge (ten kinds of answers): not only that identities are gone,
but that what a researcher needs is still there. The names are drawn from syllables, so that no
dictionary knows them; a seed gives the same files on every machine.
"""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

ACTIONS = (
    "tag_retained", "text_notnull", "text_retained", "text_removed", "date_shifted",
    "uid_changed", "uid_consistent", "patid_consistent", "pixels_hidden", "pixels_retained",
)  # fmt: skip
BANNER = (0, 0, 96, 16)  # x, y, width, height of what the ultrasound device writes
ULTRASOUND = {"modality": "US", "manufacturer": "Lyra Ultrasound", "model_name": "Vega 2"}
PRIVATE = ("GEMS_PARM_01", 0x0043, 0x39)  # the b-value of a diffusion image
# Ours is told which words and private elements may stay, as a site would tell it.
POLICY = {
    "descriptors": [
        "abdomen", "ap", "axial", "brain", "breast", "cc", "chest", "contrast", "coronal", "ct",
        "delayed", "fdg", "head", "kidney", "lateral", "left", "liver", "lung", "mammogram", "mlo",
        "mr", "pa", "pelvis", "pet", "phase", "right", "sagittal", "spine", "t1", "t2",
        "ultrasound", "venous", "with", "without",
    ],
    "safe_private": {PRIVATE[0]: [f"({PRIVATE[1]:04X},xx{PRIVATE[2]:02X})"]},
    "text_in_pixels": {
        "action": "mask",
        "devices": [
            ULTRASOUND
            | {"regions": [dict(zip(("x", "y", "width", "height"), BANNER, strict=True))]}
        ],
    },
}  # fmt: skip
# SOP class, words of its descriptions, and numbers that must stay.
MODALITIES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "CR": ("1", ("chest", "pa"), {"KVP": "120", "ViewPosition": "PA"}),
    "DX": ("1.1", ("pelvis", "ap"), {"KVP": "75", "ViewPosition": "AP", "ExposureTime": "12"}),
    "MG": ("1.2", ("breast", "left", "mlo"), {"KVP": "29", "ImageLaterality": "L"}),
    "CT": ("2", ("abdomen", "venous", "phase"), {"SliceThickness": "1.25", "KVP": "100"}),
    "MR": ("4", ("brain", "axial", "t2"), {"RepetitionTime": "4100", "EchoTime": "92"}),
    "PT": ("128", ("lung", "fdg"), {"SliceThickness": "3", "DecayFactor": "1.01"}),
    "US": ("6.1", ("liver", "kidney"), {"TransducerType": "CURVED LINEAR"}),
}
SYLLABLES = (
    "za", "qu", "vor", "ny", "thel", "wix", "bru", "jom", "kep", "fli",
    "gaz", "hod", "xan", "yur", "dwe", "cli", "sko", "pru", "mog", "nif",
)  # fmt: skip

Place = tuple[str | int, ...]  # keywords, and numbers of items


@dataclass(frozen=True)
class Answer:
    """What must be true of one place in one written file; `text` is what the source said there."""

    file: str
    action: str
    place: Place = ()
    text: str = ""
    patient: str = ""


@dataclass
class _Person:
    name: str
    number: str
    born: date
    sex: str
    age: str


def make(folder: Path, seed: int = 1, patients: int = 21) -> list[Answer]:
    """Write the images, two studies of two for each patient; the answers to them."""
    draw = random.Random(seed)
    answers: list[Answer] = []
    for number in range(patients):
        person = _person(draw)
        kind = list(MODALITIES)[number % len(MODALITIES)]
        first = date(2012, 1, 1) + timedelta(days=draw.randrange(4000))
        for study in range(2):
            day = first + timedelta(days=91 * study)
            study_uid = _uid(draw)
            for image in range(2):
                file = f"{number:03}-{study}-{image}.dcm"
                answers += _image(folder / file, draw, person, kind, day, study_uid)
    return answers


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(SYLLABLES, k=3)).capitalize()


def _uid(draw: random.Random) -> str:
    return f"1.2.826.0.1.3680043.10.{draw.randrange(10**9)}.{draw.randrange(10**12)}"


def _person(draw: random.Random) -> _Person:
    number = f"{draw.choice(('MRN', 'P', 'H'))}{draw.randrange(10**7, 10**8)}"
    years = draw.randrange(20, 89)
    born = date(2012 - years, draw.randrange(1, 13), draw.randrange(1, 28))
    return _Person(f"{_word(draw)}^{_word(draw)}", number, born, draw.choice("FM"), f"{years:03}Y")


def _image(
    path: Path, draw: random.Random, person: _Person, kind: str, day: date, study_uid: str
) -> Iterator[Answer]:
    """Write one image; its answers."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    file, dataset = path.name, Dataset()
    sop_class, words, numbers = MODALITIES[kind]
    doctor, hospital, uid = _word(draw), f"{_word(draw)} Hospital", _uid(draw)
    accession, serial = f"A{draw.randrange(10**7, 10**8)}", f"SN{draw.randrange(10**6, 10**7)}"
    family, given = person.name.split("^")
    described = f"{' '.join(words).upper()} {family} seen by Dr {doctor}"
    shown = f"{day:%Y%m%d}"
    plain = {
        "SOPClassUID": f"1.2.840.10008.5.1.4.1.1.{sop_class}", "SOPInstanceUID": uid,
        "StudyInstanceUID": study_uid, "SeriesInstanceUID": _uid(draw),
        "FrameOfReferenceUID": _uid(draw),
        "PatientName": person.name, "PatientID": person.number, "PatientSex": person.sex,
        "PatientBirthDate": f"{person.born:%Y%m%d}", "PatientAge": person.age,
        "PatientAddress": f"{draw.randrange(1, 99)} {_word(draw)} Street",
        "PatientTelephoneNumbers": f"555-{draw.randrange(10**6, 10**7)}",
        "StudyDate": shown, "SeriesDate": shown, "ContentDate": shown, "AcquisitionDate": shown,
        "AcquisitionDateTime": f"{shown}101500.000000+0200", "StudyTime": "101500",
        "Modality": kind, "Manufacturer": "Aldebaran", "ManufacturerModelName": "Clarus 3",
        "AccessionNumber": accession, "ReferringPhysicianName": f"{doctor}^{_word(draw)}",
        "PerformingPhysicianName": f"{doctor}^{_word(draw)}", "OperatorsName": _word(draw),
        "InstitutionName": hospital, "InstitutionAddress": f"1 {_word(draw)} Road",
        "StationName": f"{_word(draw)[:8].upper()}1", "DeviceSerialNumber": serial,
        "StudyID": accession[1:], "StudyDescription": described, "SeriesDescription": described,
        "ProtocolName": described, "ImageComments": f"{family} on {day:%d.%m.%Y}, call 555-123456",
        "BodyPartExamined": words[0].upper(), "SeriesNumber": "3", "InstanceNumber": "7",
        "ImageType": ["ORIGINAL", "PRIMARY"], "WindowCenter": "400", "WindowWidth": "1500",
        "PixelSpacing": ["0.5", "0.5"], "RescaleSlope": "1", "RescaleIntercept": "0",
        "BurnedInAnnotation": "YES" if kind == "US" else "NO",
    }  # fmt: skip
    if kind == "US":
        plain |= {"Manufacturer": ULTRASOUND["manufacturer"]}
        plain |= {"ManufacturerModelName": ULTRASOUND["model_name"]}
    for keyword, value in {**plain, **numbers}.items():
        setattr(dataset, keyword, value)

    request = Dataset()
    request.RequestedProcedureID, request.ScheduledProcedureStepID = accession, accession
    request.RequestedProcedureDescription = described
    dataset.RequestAttributesSequence = [request]
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = plain["SOPClassUID"], uid
    dataset.SourceImageSequence = [reference]
    creator, group, element = PRIVATE
    block = dataset.private_block(group, creator, create=True)
    block.add_new(element, "IS", ["1000", "8", "0", "0"])
    dataset.private_block(0x0029, "ALDEBARAN_NOTES", create=True).add_new(1, "LO", family)
    _put_pixels(dataset, draw, f"{family} {person.number}" if kind == "US" else "")

    dataset.file_meta = FileMetaDataset()
    syntax = draw.choice((ExplicitVRLittleEndian, ImplicitVRLittleEndian))
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, enforce_file_format=True)

    def answer(action: str, *place: str | int, text: str = "") -> Answer:
        return Answer(file, action, place, text, person.number)

    kept = ("Modality", "PatientSex", "PatientAge", "Manufacturer", "ManufacturerModelName",
            "SOPClassUID", "BodyPartExamined", "SeriesNumber", "InstanceNumber", "WindowCenter",
            "WindowWidth", "RescaleSlope", "RescaleIntercept", *numbers)  # fmt: skip
    for keyword in kept:
        yield answer("tag_retained", keyword)
        yield answer("text_retained", keyword, text=str(dataset[keyword].value))
    for keyword in ("ImageType", "PixelSpacing", "Rows", "Columns", "BitsStored",
                    "PhotometricInterpretation", "StudyDescription", "SeriesDescription",
                    "SourceImageSequence"):  # fmt: skip
        yield answer("tag_retained", keyword)
    yield answer("tag_retained", f"{creator}:{group}:{element}")
    for keyword in ("PatientID", "StudyDate", "SOPInstanceUID", "StudyInstanceUID",
                    "SeriesInstanceUID", "FrameOfReferenceUID", "ImageType"):  # fmt: skip
        yield answer("text_notnull", keyword)
    request_at = ("RequestAttributesSequence", 0, "RequestedProcedureDescription")
    for place in (("StudyDescription",), ("SeriesDescription",), ("ProtocolName",), request_at):
        for word in () if place is request_at else words:  # the basic profile removes the request
            yield answer("text_retained", *place, text=word.upper())
        for secret in (family, doctor):
            yield answer("text_removed", *place, text=secret)
    for keyword in ("PatientName", "PatientID", "PatientAddress", "PatientTelephoneNumbers",
                    "AccessionNumber", "ReferringPhysicianName", "PerformingPhysicianName",
                    "OperatorsName", "InstitutionName", "InstitutionAddress", "StationName",
                    "DeviceSerialNumber", "StudyID", "PatientBirthDate"):  # fmt: skip
        yield answer("text_removed", keyword, text=str(plain[keyword]))
    for secret in (family, given, person.number, doctor, accession, serial, uid):
        yield answer("text_removed", text=secret)  # anywhere in the file, outside the pixels
    yield answer("text_removed", *request_at[:2], "RequestedProcedureID", text=accession)
    for keyword in ("StudyDate", "SeriesDate", "ContentDate", "AcquisitionDate",
                    "AcquisitionDateTime"):  # fmt: skip
        yield answer("date_shifted", keyword, text=shown)
    uids: tuple[Place, ...] = (
        ("SOPInstanceUID",), ("StudyInstanceUID",), ("SeriesInstanceUID",),
        ("FrameOfReferenceUID",), ("SourceImageSequence", 0, "ReferencedSOPInstanceUID"),
    )  # fmt: skip
    for place in uids:
        old = str(_at(dataset, place))
        yield answer("uid_changed", *place, text=old)
        yield answer("uid_consistent", *place, text=old)
    yield answer("patid_consistent", "PatientID", text=person.number)
    if kind == "US":
        yield answer("pixels_hidden")
    yield answer("pixels_retained")


def _put_pixels(dataset: Any, draw: random.Random, banner: str) -> None:
    noise = np.random.default_rng(draw.randrange(2**32))
    pixels = noise.integers(0, 4096, (96, 96), dtype=np.uint16)
    if banner:
        from PIL import Image, ImageDraw

        x, y, width, height = BANNER
        picture = Image.new("L", (width, height))
        ImageDraw.Draw(picture).text((1, 2), banner, fill=255)
        pixels[y : y + height, x : x + width] = np.asarray(picture).astype(np.uint16) * 16
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.add_new("PixelData", "OW", pixels.tobytes())


def score(answers: list[Answer], sources: Path, written: Path) -> dict[str, tuple[int, int]]:
    """Right answers and all, by action; a file that is not there has no right ones."""
    import pydicom

    by_file: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_file[answer.file].append(answer)
    found = {action: [0, 0] for action in ACTIONS}
    memory = _Memory({}, {}, {})
    for file, wanted in sorted(by_file.items()):
        target = written / file
        dataset = pydicom.dcmread(target, force=True) if target.exists() else None
        source = pydicom.dcmread(sources / file)
        for answer in wanted:
            found[answer.action][1] += 1
            if dataset is not None:
                found[answer.action][0] += _right(answer, source, dataset, target, memory)
    return {action: (right, of) for action, (right, of) in found.items()}


@dataclass
class _Memory:
    """What was seen in other files: consistency is a matter of more than one."""

    uids: dict[str, str]
    patients: dict[str, str]
    shifts: dict[str, int]


def _right(answer: Answer, source: Any, dataset: Any, path: Path, memory: _Memory) -> bool:
    value = _at(dataset, answer.place)
    text = "" if value is None else str(value)
    match answer.action:
        case "tag_retained":
            return value is not None
        case "text_notnull":
            return bool(text)
        case "text_retained":
            return answer.text.lower() in text.lower()
        case "text_removed":
            return answer.text.lower() not in (text if answer.place else _outside(path)).lower()
        case "date_shifted":
            moved = _days_between(text, answer.text)
            return bool(moved) and memory.shifts.setdefault(answer.patient, moved) == moved
        case "uid_changed":
            return text not in ("", answer.text)
        case "uid_consistent":
            return bool(text) and _one_to_one(memory.uids, answer.text, text)
        case "patid_consistent":
            return text not in ("", answer.text) and _one_to_one(memory.patients, answer.text, text)
        case _:
            return _right_pixels(answer.action, source, dataset)


def _right_pixels(action: str, source: Any, dataset: Any) -> bool:
    before, after = source.pixel_array, dataset.pixel_array
    if before.shape != after.shape:
        return False
    x, y, width, height = BANNER
    banner = np.zeros(before.shape, dtype=bool)
    if source.Modality == "US":
        banner[y : y + height, x : x + width] = True
    if action == "pixels_hidden":
        return len(np.unique(after[banner])) == 1
    return bool((before == after)[~banner].all())


def _one_to_one(memory: dict[str, str], old: str, new: str) -> bool:
    """The same name for the same, and for nothing else."""
    known = memory.setdefault(old, new)
    return known == new and list(memory.values()).count(new) == 1


def _at(dataset: Any, place: Place) -> Any:
    for step in place:
        if dataset is None:
            return None
        if isinstance(step, int):
            dataset = dataset[step] if len(dataset) > step else None
        elif ":" in step:
            creator, group, element = step.split(":")
            try:
                dataset = dataset.private_block(int(group), creator)[int(element)].value
            except KeyError:
                return None
        else:
            dataset = dataset.get(step)
    return dataset


def _days_between(*texts: str) -> int:
    """0, too, where one of them is no date."""
    try:
        first, last = (date(int(t[:4]), int(t[4:6]), int(t[6:8])) for t in texts)
    except ValueError:
        return 0
    return (last - first).days


def _outside(path: Path) -> str:
    """The bytes of a file outside its pixels."""
    import pydicom

    pixels = pydicom.dcmread(path, force=True).get("PixelData", b"")
    data = path.read_bytes()
    return (data.replace(pixels, b"") if pixels else data).decode("latin-1")
