"""A made-up cohort of chest radiographs, so that anybody can run everything without a real scan.

Patients come in matched pairs: one with the finding, one without, a fair coin says who. A pair
shares whatever could give the answer away without looking at the lungs: scanner, time, sex, date
of birth, number of images, encoding, staff, exposure, habitus. Names and numbers of a person are
nobody else's. So no such thing predicts the label, by construction and not by luck. Anatomy, and
marks that merely resemble a finding, are drawn for each patient without regard to the coin.

The headers are full of invented identities, in nested sequences and private elements too: what
de-identification has to find.
"""

import csv
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lineage.progress import Report

CLASSES = ("absent", "present")
BITS_STORED = 12


@dataclass(frozen=True, kw_only=True)
class Scanner:
    """One X-ray room.

    Attributes:
        rows, columns: Matrix size.
        pixel_spacing_mm: Detector pitch.
        gamma: Exponent on brightness 0..1; above 1 darkens the middle greys.
        noise: Standard deviation of the quantum noise in mid grey, as a share of full scale.
        blur_mm: Standard deviation of the point spread.
    """

    name: str
    manufacturer: str
    model: str
    rows: int
    columns: int
    pixel_spacing_mm: float
    gamma: float
    noise: float
    blur_mm: float


# Two ordinary rooms, and a mobile unit whose images look clearly different.
SCANNERS = (
    Scanner(
        name="ROOM1",
        manufacturer="Aldebaran Imaging",
        model="Clarus 3",
        rows=96,
        columns=96,
        pixel_spacing_mm=3.7,
        gamma=1.0,
        noise=0.015,
        blur_mm=2.0,
    ),
    Scanner(
        name="ROOM2",
        manufacturer="Borealis Medical",
        model="Thorax One",
        rows=112,
        columns=112,
        pixel_spacing_mm=3.2,
        gamma=1.15,
        noise=0.02,
        blur_mm=2.2,
    ),
    Scanner(
        name="MOBILE1",
        manufacturer="Cassiopeia Devices",
        model="Rover DR",
        rows=80,
        columns=80,
        pixel_spacing_mm=4.5,
        gamma=1.7,
        noise=0.06,
        blur_mm=6.0,
    ),
)


def write_cohort(
    directory: Path,
    *,
    seed: int,
    patients: int,
    scanners: Sequence[Scanner],
    first_patient: int = 0,
    report: Report | None = None,
) -> Path:
    """Write the scans of some patients, and beside the directory a table of labels.

    A patient depends on the seed, its own number and `scanners` only: a cohort that grows, by
    larger `patients` or by a second call with `first_patient`, keeps its earlier files byte for
    byte. Every other patient has the finding, so ask for an even number.

    Args:
        directory: Where the scans go, in subfolders; made if it is missing.
        seed: The same seed writes the same bytes.
        patients: How many to write; each has one or two images.
        scanners: Each pair of patients is scanned on one of these.
        first_patient: The number of the first patient to write.
        report: Called as (done, total, "") after each patient.

    Returns:
        The table `<directory>-labels.csv` beside the directory: SOPInstanceUID, PatientID,
        finding ("absent" or "present"). A table already there keeps its other rows.
    """
    table = directory.parent / f"{directory.name}-labels.csv"
    header = ("SOPInstanceUID", "PatientID", "finding")
    labels: dict[str, list[str]] = {}
    if table.exists():
        with table.open(newline="") as file:
            labels = {row[header[0]]: [row[h] for h in header] for row in csv.DictReader(file)}
    for done, number in enumerate(range(first_patient, first_patient + patients), 1):
        for path, scan, finding in _scans(seed, number, scanners):
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            scan.save_as(target, enforce_file_format=True)
            row = [str(scan.SOPInstanceUID), str(scan.PatientID), CLASSES[finding]]
            labels[row[0]] = row
        if report:
            report(done, patients, "")
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([header, *sorted(labels.values())])
    return table


# --- who: the pair, the patient -------------------------------------------------------------


@dataclass(frozen=True)
class _Pair:
    """What two patients have in common."""

    scanner: Scanner
    sex: str
    age: int
    born: date
    day: date
    hour: int
    views: tuple[str, ...]
    compressed: bool
    inverted: bool
    layout: int
    referrer: str
    operator: str
    kvp: int
    exposure: float  # brightness offset
    habitus: float  # -1 slight … 1 stout
    first_has_finding: bool


def _pair(seed: int, number: int, scanners: Sequence[Scanner]) -> _Pair:
    rng = np.random.default_rng([seed, 1, number])
    age = int(np.clip(rng.normal(58, 16), 20, 92))
    day = date(2024, 1, 8) + timedelta(days=int(rng.integers(500)))
    return _Pair(
        scanner=scanners[int(rng.integers(len(scanners)))],
        sex=str(rng.choice(["F", "M"])),
        age=age,
        born=day - timedelta(days=int(365.25 * age + rng.integers(1, 365))),
        day=day,
        hour=int(rng.integers(7, 20)),
        views=("PA", "AP")[: int(rng.integers(1, 3))] if rng.random() < 0.8 else ("AP",),
        compressed=bool(rng.random() < 0.5),
        inverted=bool(rng.random() < 0.3),
        layout=int(rng.integers(3)),
        referrer=f"{_word(int(rng.integers(40)))}^{_word(41)}",
        operator=f"{_word(int(rng.integers(50, 60)))}^{_word(61)}",
        kvp=int(rng.integers(100, 131)),
        exposure=float(rng.normal(0, 0.03)),
        habitus=float(np.clip(rng.normal(0, 0.5), -1, 1)),
        first_has_finding=bool(rng.random() < 0.5),
    )


def _word(number: int, vowels: str = "aeiou") -> str:
    """A made-up name of three syllables; different numbers below 300,000 give different ones."""
    scattered = number * 104729 % (14 * len(vowels)) ** 3
    syllables = [c + v for c in "bdfghklmnprstv" for v in vowels]
    n = len(syllables)
    parts = scattered // n**2, scattered // n % n, scattered % n
    return "".join(syllables[part] for part in parts).capitalize()


def _scans(seed: int, number: int, scanners: Sequence[Scanner]) -> Iterator[tuple[Path, Any, bool]]:
    """Yield (path below the cohort, pydicom Dataset, has the finding) for one patient."""
    pair = _pair(seed, number // 2, scanners)
    rng = np.random.default_rng([seed, 2, number])
    finding = pair.first_has_finding == (number % 2 == 0)
    person = _person(seed, number)
    anatomy = _anatomy(rng, pair)
    for image, view in enumerate(pair.views, 1):
        brightness = _expose(rng, pair, _radiograph(rng, pair, anatomy, finding))
        scan = _dicom(pair, person, seed, number, image, view, brightness)
        yield _path(pair, person, number, image), scan, finding


@dataclass(frozen=True)
class _Person:
    name: str
    identity: str
    address: str
    phone: str
    accession: str


def _person(seed: int, number: int) -> _Person:
    return _Person(
        name=f"{_word(100 + number)}^{_word(number, vowels='aeiouü')}",
        identity=f"MRN{seed:03d}{number:06d}",
        address=f"{number + 1:05d} Birch Street, Nowhere",
        phone=f"555-{number:05d}",
        accession=f"A{_uid(seed, 'accession', number)[-10:]}",
    )


def _path(pair: _Pair, person: _Person, number: int, image: int) -> Path:
    """Exports never look alike; some put a name into the path."""
    family = person.name.partition("^")[0]
    return (
        Path(pair.scanner.name)
        / f"{family}_{person.identity}"
        / f"{pair.day}"
        / f"IM{image:04d}.dcm",
        Path("DICOM") / f"P{number:05d}" / f"I{image:05d}",
        Path(f"export {pair.day:%Y-%m}") / f"{person.identity}-{image}.DCM",
    )[pair.layout]


# --- what the detector sees ------------------------------------------------------------------
#
# Coordinates: x to the right, y downward, in units of 180 mm from the middle of the image, so
# that one anatomy looks alike on every matrix. Values add up like attenuation: 0 is air.


@dataclass(frozen=True)
class _Anatomy:
    lung_x: list[float]  # centres
    lung_width: list[float]  # half widths
    diaphragm: list[float]  # heights of the domes
    apex: float
    heart: tuple[float, float, float, float]  # x, y, half width, half height
    rib_spacing: float
    rib_slope: float
    rib_phase: float
    rib_strength: float
    vessels: list[list[float]]  # x0, y0, angle, length, width
    marks: list[list[float]]  # x, y, radius, contrast; harmless dots: vessel ends, nipples
    smooth: np.ndarray  # (k, k) coefficients of large-scale variation
    nodule: tuple[float, float, float, float, float]  # x, y, radius, contrast, stretch


def _anatomy(rng: np.random.Generator, pair: _Pair) -> _Anatomy:
    lung_x = [-0.44 + rng.normal(0, 0.015), 0.46 + rng.normal(0, 0.015)]
    lung_width = [w - 0.02 * pair.habitus + rng.normal(0, 0.015) for w in (0.335, 0.315)]
    diaphragm = [h - 0.04 * pair.habitus + rng.normal(0, 0.04) for h in (0.52, 0.57)]
    apex = -0.80 + rng.normal(0, 0.02)

    side = rng.integers(0, 2, 16)
    out = np.where(side == 0, -1, 1)
    vessels = np.stack(
        [
            out * rng.uniform(0.15, 0.24, 16),
            rng.uniform(-0.15, 0.15, 16),
            rng.uniform(-1.2, 1.2, 16),
            rng.uniform(0.2, 0.5, 16),
            rng.uniform(0.010, 0.020, 16),
        ],
        axis=1,
    )
    ends = np.stack(  # vessels seen end on: small, sharp and bright, near the hilum
        [
            np.where(rng.random(4) < 0.5, -1, 1) * rng.uniform(0.2, 0.42, 4),
            rng.uniform(-0.25, 0.25, 4),
            rng.uniform(0.015, 0.028, 4),
            rng.uniform(0.08, 0.2, 4),
        ],
        axis=1,
    )
    height = rng.uniform(0.28, 0.42)
    visible = rng.random() < 0.5
    nipples = np.array(
        [
            [s * rng.uniform(0.45, 0.55), height + rng.normal(0, 0.02), 0.035, 0.1 * visible]
            for s in (-1, 1)
        ]
    )
    lung = int(rng.integers(2))
    return _Anatomy(
        lung_x=lung_x,
        lung_width=lung_width,
        diaphragm=diaphragm,
        apex=apex,
        heart=(
            0.10 + rng.normal(0, 0.02),
            0.30 + rng.normal(0, 0.03),
            0.26 + 0.04 * pair.habitus + rng.normal(0, 0.02),
            0.30 + rng.normal(0, 0.02),
        ),
        rib_spacing=rng.uniform(0.155, 0.185),
        rib_slope=rng.uniform(0.25, 0.5),
        rib_phase=rng.uniform(0, 1),
        rib_strength=rng.uniform(0.09, 0.14),
        vessels=vessels.tolist(),
        marks=np.concatenate([ends, nipples]).tolist(),
        smooth=rng.normal(0, 0.012, (5, 5)),
        nodule=(
            lung_x[lung] + lung_width[lung] * rng.uniform(-0.5, 0.6) * (1 if lung else -1),
            rng.uniform(apex + 0.3, diaphragm[lung] - 0.12),
            rng.uniform(0.07, 0.15),
            rng.uniform(0.12, 0.45),
            rng.uniform(0.8, 1.25),
        ),
    )


def _radiograph(
    rng: np.random.Generator, pair: _Pair, anatomy: _Anatomy, finding: bool
) -> np.ndarray:
    """Attenuation, float32 (rows, columns), about 0 (air) to 1.2 (spine behind the heart)."""
    a = anatomy
    scanner = pair.scanner
    x, y = _grid(scanner)
    turn, dx, dy = (rng.normal(0, 0.02) for _ in range(3))
    x, y = x - dx + turn * y, y - dy - turn * x
    across = np.abs(x)

    shoulders = -1.12 + 0.3 * _edge(across - 0.38, 0.12) + 0.4 * np.maximum(across - 0.4, 0)
    body = _edge(y - shoulders, 0.02) * _edge(0.93 + 0.04 * pair.habitus - across, 0.02)
    tissue = body * (0.62 + 0.05 * pair.habitus)

    lungs = np.zeros_like(x)
    for lung in range(2):
        height = (y - 0.05) / (0.05 - a.apex)
        narrow = 1 - 0.38 * np.clip(-height, 0, 1) ** 2
        u = (x - a.lung_x[lung]) / (a.lung_width[lung] * narrow)
        inside = 1 - np.abs(u) ** 2.4 - np.clip(-height, 0, 2) ** 4
        dome = a.diaphragm[lung] + 0.16 * u**2 - y
        lungs = np.maximum(lungs, _edge(inside, 0.09) * _edge(dome, 0.02))

    hx, hy, hw, hh = a.heart
    heart = _edge(1 - ((x - hx) / hw) ** 2 - ((y - hy) / hh) ** 2, 0.2)
    knob = _edge(1 - ((x - 0.1) / 0.1) ** 2 - ((y + 0.28) / 0.12) ** 2, 0.3)
    column = _edge(0.12 + 0.03 * np.maximum(y, 0) - across, 0.02)
    spine = column * (1 + 0.3 * np.cos(2 * np.pi * y / 0.14))
    airway = _edge(0.035 - np.abs(x), 0.012) * _edge(-0.18 - y, 0.03)

    # Ribs: the back arches fall away from the spine, the front ones rise toward it, and cross.
    sag = a.rib_slope * (across - 0.15) ** 2
    back = _rib((y + 0.3 * across - 2.2 * sag) / a.rib_spacing + a.rib_phase)
    front = _rib((y + 0.9 * across - sag) / (1.3 * a.rib_spacing) + 1.7 * a.rib_phase)
    cage = _edge(across - 0.12, 0.03) * _edge(0.86 - across, 0.04)
    ribs = cage * (back + 0.35 * front * _edge(across - 0.3, 0.05))
    clavicle = _edge(0.028 - np.abs(y + 0.62 + 0.22 * (across - 0.4)), 0.01)
    clavicle = clavicle * _edge(across - 0.08, 0.02) * _edge(0.7 - across, 0.03)

    lung_detail = np.zeros_like(x)
    for x0, y0, angle, length, width in a.vessels:
        along = np.sign(x0) * (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
        aside = -np.sign(x0) * (x - x0) * np.sin(angle) + (y - y0) * np.cos(angle)
        taper = np.clip(1 - along / length, 0, 1) * (along > 0)
        lung_detail += 0.13 * taper * np.exp(-((aside / width) ** 2))
    for mx, my, radius, contrast in a.marks:
        lung_detail += contrast * _bump(x - mx, y - my, radius)
    if finding:
        nx, ny, radius, contrast, stretch = a.nodule
        off = np.hypot((x - nx) * stretch, (y - ny) / stretch)
        lung_detail += contrast * _edge(radius - off, 0.2 * radius)

    texture = _waves(scanner, rng.normal(0, 0.0025, (22, 22)))
    attenuation = (
        tissue
        - 0.42 * lungs * (1 - 0.75 * np.maximum(heart, knob)) * body
        + 0.10 * heart * body
        + 0.11 * spine * body
        - 0.10 * airway
        + a.rib_strength * ribs * body
        + 0.09 * clavicle * body
        + lungs * (lung_detail + texture)
        + body * _waves(scanner, a.smooth)
    )
    return np.asarray(attenuation, dtype=np.float32)


def _expose(rng: np.random.Generator, pair: _Pair, attenuation: np.ndarray) -> np.ndarray:
    """Blur, scale, bend and add noise: brightness 0..1, float32, bone bright."""
    from scipy.ndimage import gaussian_filter

    s = pair.scanner
    sharp = 0.06 + 0.82 * attenuation + pair.exposure + rng.normal(0, 0.008)
    seen = np.clip(gaussian_filter(sharp, s.blur_mm / s.pixel_spacing_mm), 0, 1)
    dose = np.sqrt(0.5 + seen)  # fewer quanta behind dense tissue
    noisy = seen**s.gamma + s.noise * dose * rng.standard_normal(seen.shape, dtype=np.float32)
    return np.asarray(np.clip(noisy, 0, 1), dtype=np.float32)


@cache
def _grid(scanner: Scanner) -> tuple[np.ndarray, np.ndarray]:
    unit = scanner.pixel_spacing_mm / 180
    y = (np.arange(scanner.rows, dtype=np.float32) - (scanner.rows - 1) / 2) * unit
    x = (np.arange(scanner.columns, dtype=np.float32) - (scanner.columns - 1) / 2) * unit
    return np.broadcast_to(x, (len(y), len(x))), np.broadcast_to(y[:, None], (len(y), len(x)))


def _edge(inside: np.ndarray, width: float) -> np.ndarray:
    """0 to 1 across a soft border: 0.5 where `inside` is 0."""
    return 0.5 + 0.5 * np.tanh(inside / width)


def _bump(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(np.exp(-(x**2 + y**2) / radius**2))


def _rib(phase: np.ndarray) -> np.ndarray:
    """A ridge at each whole phase, brighter at its rims as cortical bone is."""
    off = np.abs(phase - np.round(phase))
    return np.asarray(_edge(0.21 - off, 0.04) * (0.7 + 2.0 * off))


def _waves(scanner: Scanner, coefficients: np.ndarray) -> np.ndarray:
    """A smooth random field: a sum of cosines, two small matrix products."""
    k = len(coefficients)
    field = _cosines(scanner.rows, k) @ coefficients @ _cosines(scanner.columns, k).T
    return np.asarray(field, dtype=np.float32)


@cache
def _cosines(n: int, k: int) -> np.ndarray:
    return np.asarray(np.cos(np.pi * np.arange(k) * (np.arange(n)[:, None] + 0.5) / n))


# --- how it is stored ------------------------------------------------------------------------


def _dicom(
    pair: _Pair,
    person: _Person,
    seed: int,
    number: int,
    image: int,
    view: str,
    brightness: np.ndarray,
) -> Any:
    """A Digital X-Ray Image (PS3.3 A.26), 12 bits stored in 16."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import DigitalXRayImageStorageForPresentation as DX
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    top = 2**BITS_STORED - 1
    stored = np.round(brightness * top).astype(np.uint16)
    stored = top - stored if pair.inverted else stored

    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.SOPClassUID = DX
    ds.SOPInstanceUID = _uid(seed, "instance", number, image)
    ds.StudyInstanceUID = _uid(seed, "study", number)
    ds.SeriesInstanceUID = _uid(seed, "series", number)
    ds.StudyID = "1"
    ds.SeriesNumber, ds.InstanceNumber = 1, image
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = f"{pair.day:%Y%m%d}"
    ds.StudyTime = f"{pair.hour:02d}0000"
    ds.AccessionNumber = person.accession
    ds.Modality = "DX"
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.Manufacturer = pair.scanner.manufacturer
    ds.ManufacturerModelName = pair.scanner.model
    ds.StationName = pair.scanner.name
    ds.DeviceSerialNumber = f"SN-{pair.scanner.name}"
    ds.InstitutionName = "Phantom General Hospital"
    ds.InstitutionAddress = "1 Invented Square, Nowhere"
    ds.ReferringPhysicianName = pair.referrer
    ds.OperatorsName = pair.operator
    ds.StudyDescription = "Chest"

    ds.PatientName = person.name
    ds.PatientID = person.identity
    ds.PatientBirthDate = f"{pair.born:%Y%m%d}"
    ds.PatientSex = pair.sex
    ds.PatientAge = f"{pair.age:03d}Y"
    ds.PatientAddress = person.address
    ds.PatientTelephoneNumbers = person.phone
    ds.PatientIdentityRemoved = "NO"
    _nested_identities(ds, pair, person)
    private = ds.private_block(0x0019, "PHANTOM VENDOR 1.0", create=True)
    private.add_new(0x01, "LO", f"{person.name} {person.identity}")
    private.add_new(0x02, "SH", person.phone)

    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = view
    ds.PatientOrientation = ["L", "F"]
    ds.ImageLaterality = "U"
    ds.KVP = str(pair.kvp)
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME1" if pair.inverted else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if pair.inverted else "IDENTITY"
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if pair.inverted else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.Rows, ds.Columns = stored.shape
    ds.ImagerPixelSpacing = ds.PixelSpacing = [str(pair.scanner.pixel_spacing_mm)] * 2
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, BITS_STORED, BITS_STORED - 1
    ds.PixelRepresentation = 0

    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = DX
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = RLELossless if pair.compressed else ExplicitVRLittleEndian
    if pair.compressed:
        ds.PixelData = encapsulate([_run_length(stored)])
        ds["PixelData"].VR = "OB"
    else:
        ds.PixelData = stored.astype("<u2").tobytes()
        ds["PixelData"].VR = "OW"
    return ds


def _nested_identities(ds: Any, pair: _Pair, person: _Person) -> None:
    """Identities two and three levels deep, where real archives hide them too."""
    from pydicom.dataset import Dataset

    other = Dataset()
    other.PatientID, other.TypeOfPatientID = f"OLD-{person.identity}", "TEXT"
    former = Dataset()
    former.PatientName, former.OtherPatientIDsSequence = person.name, [other]
    change = Dataset()
    change.ModifyingSystem, change.SourceOfPreviousValues = "PACS1", "ARCHIVE"
    change.ReasonForTheAttributeModification = "COERCE"
    change.AttributeModificationDateTime = f"{pair.day:%Y%m%d}{pair.hour:02d}0000"
    change.ModifiedAttributesSequence = [former]
    ds.OriginalAttributesSequence = [change]

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "CXR", "99PHANTOM"
    code.CodeMeaning = f"Chest for {pair.referrer.replace('^', ' ')}"
    request = Dataset()
    request.AccessionNumber = person.accession
    request.RequestedProcedureDescription = f"Chest, {person.name.partition('^')[0]}"
    request.RequestedProcedureID, request.ScheduledProcedureStepID = "R1", "S1"
    request.ScheduledProtocolCodeSequence = [code]
    ds.RequestAttributesSequence = [request]


def _uid(*parts: object) -> str:
    """A UID derived from a UUID (PS3.5 B.2), the same for the same parts."""
    name = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(name[:16], 'big')}"


def _run_length(stored: np.ndarray) -> bytes:
    """RLE Lossless (PS3.5 annex G) of uint16 (rows, columns <= 128), every row one literal run.

    Permitted, and on purpose: noise hardly compresses, and so a file's size depends on its
    matrix alone and can tell nothing about what is in it.
    """
    rows, columns = stored.shape
    planes = []
    for plane in (stored >> 8, stored & 0xFF):  # the most significant byte comes first
        runs = np.empty((rows, columns + 1), dtype=np.uint8)
        runs[:, 0], runs[:, 1:] = columns - 1, plane
        planes.append(runs.tobytes() + b"\0" * (runs.size % 2))
    offsets = [2, 64, 64 + len(planes[0])] + [0] * 13
    return np.array(offsets, dtype="<u4").tobytes() + b"".join(planes)
