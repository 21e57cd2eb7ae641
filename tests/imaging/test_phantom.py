"""The cohort: valid DICOM, the same bytes each time, full of identities, and without shortcuts."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.datadict import keyword_for_tag
from scipy.stats import norm

from imaging.phantom import SCANNERS, write_cohort
from imaging.reading.pixels import read_pixels
from imaging.statistics import image_statistics

PATIENTS = 540  # about 800 images


def read(directory: Path, table: Path):
    """(path, dataset, label) of every file, by patient number."""
    with table.open(newline="") as file:
        labels = {r["SOPInstanceUID"]: int(r["finding"] == "present") for r in csv.DictReader(file)}
    files = [p for p in directory.rglob("*") if p.is_file()]
    scans = [(p, pydicom.dcmread(p)) for p in files]
    rows = [(p, ds, labels.pop(ds.SOPInstanceUID)) for p, ds in scans]
    assert not labels, "every labelled image was written"
    return sorted(rows, key=lambda row: (row[1].PatientID, row[1].InstanceNumber))


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {
        p.relative_to(directory).as_posix(): p.read_bytes()
        for p in directory.rglob("*")
        if p.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    directory = tmp_path_factory.mktemp("phantom") / "scans"
    table = write_cohort(directory, seed=11, patients=PATIENTS, scanners=SCANNERS)
    assert table == directory.parent / "scans-labels.csv"
    return read(directory, table)


def test_a_cohort_grows_without_touching_its_earlier_files(tmp_path):
    kind = {"seed": 5, "scanners": SCANNERS[:2]}
    seen = []
    write_cohort(tmp_path / "small", patients=6, report=lambda *a: seen.append(a), **kind)
    whole = write_cohort(tmp_path / "whole", patients=10, **kind)
    small = bytes_of(tmp_path / "small")
    large = bytes_of(tmp_path / "whole")
    assert small.items() < large.items()
    assert seen == [(i, 6, "") for i in range(1, 7)]

    grown = write_cohort(tmp_path / "small", patients=4, first_patient=6, **kind)
    assert bytes_of(tmp_path / "small") == large
    assert grown.read_bytes() == whole.read_bytes()


def test_another_seed_writes_other_patients(tmp_path):
    for seed in (1, 2):
        write_cohort(tmp_path / str(seed), seed=seed, patients=4, scanners=SCANNERS)
    one, two = (set(bytes_of(tmp_path / str(seed)).values()) for seed in (1, 2))
    assert not one & two


def test_files_are_varied_and_well_formed(cohort):
    for path, ds, _ in cohort:
        assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (16, 12, 11)
        assert (ds.Modality, ds.BurnedInAnnotation) == ("DX", "NO")
        assert ds.pixel_array.max() < 2**12
        pixels = read_pixels(path)
        assert pixels.shape == (ds.Rows, ds.Columns)
        assert pixels.max() <= 1
    syntaxes = {ds.file_meta.TransferSyntaxUID.name for _, ds, _ in cohort}
    assert syntaxes == {"Explicit VR Little Endian", "RLE Lossless"}
    assert {ds.PhotometricInterpretation for _, ds, _ in cohort} == {"MONOCHROME1", "MONOCHROME2"}
    assert {(ds.Rows, ds.Columns) for _, ds, _ in cohort} == {(96, 96), (112, 112), (80, 80)}
    assert len({ds.SOPInstanceUID for _, ds, _ in cohort}) == len(cohort)
    per_patient = np.unique([ds.PatientID for _, ds, _ in cohort], return_counts=True)[1]
    assert len(per_patient) == PATIENTS
    assert set(per_patient) == {1, 2}
    assert 0.4 <= np.mean([label for _, _, label in cohort]) <= 0.5


def test_a_reader_sees_the_same_whatever_the_encoding(cohort):
    """Lungs are darker than the spine, in MONOCHROME1 and 2, compressed or not."""
    kinds = set()
    for path, ds, _ in cohort[:60]:
        pixels = read_pixels(path)
        rows, columns = pixels.shape
        band = pixels[int(0.4 * rows) : int(0.6 * rows)]
        spine = band[:, int(0.47 * columns) : int(0.53 * columns)].mean()
        lung = band[:, int(0.2 * columns) : int(0.35 * columns)].mean()
        assert spine > lung + 0.1
        kinds.add((ds.PhotometricInterpretation, ds.file_meta.TransferSyntaxUID))
    assert len(kinds) == 4


def test_identities_hide_at_depth_and_in_private_elements(cohort):
    for _, ds, _ in cohort[:40]:
        former = ds.OriginalAttributesSequence[0].ModifiedAttributesSequence[0]
        assert former.PatientName == ds.PatientName
        assert ds.PatientID in former.OtherPatientIDsSequence[0].PatientID
        code = ds.RequestAttributesSequence[0].ScheduledProtocolCodeSequence[0]
        assert str(ds.ReferringPhysicianName).replace("^", " ") in code.CodeMeaning
        block = ds.private_block(0x0019, "PHANTOM VENDOR 1.0")
        assert str(ds.PatientName) in block[0x01].value


def test_the_changed_scanner_looks_different(cohort):
    seen: dict[str, list[dict[str, float]]] = {scanner.name: [] for scanner in SCANNERS}
    for path, ds, _ in cohort[:240]:
        seen[ds.StationName].append(image_statistics(read_pixels(path)))
    for name in ("noise_sigma", "intensity_p50", "intensity_mean"):
        *ordinary, changed = ([s[name] for s in statistics] for statistics in seen.values())
        usual = np.percentile(ordinary[0] + ordinary[1], [10, 90])
        assert not usual[0] <= np.median(changed) <= usual[1], name


# --- no shortcut -----------------------------------------------------------------------------


def interval(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> tuple[float, float]:
    """95 % interval of the AUROC, images clustered in patients.

    Obuchowski, Biometrics 53:567 (1997): DeLong's placements summed within patients.
    """
    positive, negative = scores[labels == 1], scores[labels == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    area = wins.mean()
    placed = np.empty(len(scores))
    placed[labels == 1] = (wins.mean(axis=1) - area) / len(positive)
    placed[labels == 0] = (wins.mean(axis=0) - area) / len(negative)
    spread = norm.ppf(0.975) * np.sqrt((np.bincount(patients, placed) ** 2).sum())
    return float(area - spread), float(area + spread)


def flat(dataset, prefix=""):
    """Every element, however deep, as (place, text)."""
    for element in dataset:
        place = f"{prefix}{keyword_for_tag(element.tag) or element.tag}"
        if element.VR == "SQ":
            for i, item in enumerate(element.value):
                yield from flat(item, f"{place}[{i}].")
        elif element.keyword != "PixelData":
            yield place, str(element.value)


def as_number(text: str) -> float | None:
    try:
        return float(text.rstrip("Y") if text[:-1].isdigit() else text)
    except ValueError:
        return None


def encoded(levels: list[str], labels: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Mean label of each level, learnt on the other folds.

    Folds are runs of neighbouring patients: a fold that tore a matched pair apart would see the
    partner's label and be wrong on purpose.
    """
    folds = patients // 54
    scores = np.empty(len(labels))
    for fold in np.unique(folds):
        inside = folds == fold
        prior = labels[~inside].mean()
        seen: dict[str, list[int]] = {}
        for level, label in zip(np.array(levels)[~inside], labels[~inside], strict=True):
            seen.setdefault(level, []).append(label)
        scores[inside] = [
            np.mean(seen[level]) if level in seen else prior for level in np.array(levels)[inside]
        ]
    return scores


def around(cohort) -> dict[str, np.ndarray]:
    """File size, and mean and spread of the outermost 5 % of the pixels, per image."""
    rows = []
    for path, _, _ in cohort:
        pixels = read_pixels(path)
        y, x = (round(0.05 * n) for n in pixels.shape)
        border = np.ones(pixels.shape, dtype=bool)
        border[y:-y, x:-x] = False
        rows.append((path.stat().st_size, pixels[border].mean(), pixels[border].std()))
    return dict(zip(("file size", "border mean", "border std"), np.array(rows).T, strict=True))


def shortcuts(cohort) -> dict[str, tuple[float, float]]:
    """AUROC intervals of everything that is not the inside of the image."""
    labels = np.array([label for _, _, label in cohort])
    patients = np.unique([ds.PatientID for _, ds, _ in cohort], return_inverse=True)[1]
    found = {k: interval(v, labels, patients) for k, v in around(cohort).items()}
    headers = [
        dict(flat(ds.file_meta)) | dict(flat(ds)) | {"path depth": str(len(path.parts))}
        for path, ds, _ in cohort
    ]
    for place in sorted(set().union(*headers)):
        levels = [header.get(place, "absent") for header in headers]
        values = [as_number(level) for level in levels]
        is_uid = place.endswith("UID")  # a digest: its digits are a level, not a size
        if not is_uid and None not in values:
            found[place] = interval(np.array(values), labels, patients)
        found[f"{place} (level)"] = interval(encoded(levels, labels, patients), labels, patients)
    return found


def test_nothing_but_the_lungs_tells_the_label(cohort):
    """All of some hundred intervals hold 0.5, without a correction for looking at many.

    That is no luck: patients are matched in pairs that share what is tested here, so the
    areas scatter much less than the intervals, which know nothing of the pairs, allow.
    """
    found = shortcuts(cohort)
    assert {"file size", "border mean", "Rows", "StudyDate", "PatientAge"} <= found.keys()
    assert len(found) > 80
    told = {k: v for k, v in found.items() if not v[0] <= 0.5 <= v[1]}
    assert not told


def test_a_planted_shortcut_is_found(cohort):
    """The check above can fail: two faint ones, in a number and in a level."""
    rng = np.random.default_rng(0)
    planted = []
    for path, ds, label in cohort:
        copy = pydicom.Dataset(ds)
        copy.file_meta = ds.file_meta
        copy.KVP = str(100 + 3 * label + int(rng.integers(20)))
        copy.OperatorsName = "Early^Riser" if rng.random() < 0.3 + 0.15 * label else "Night^Owl"
        planted.append((path, copy, label))
    found = shortcuts(planted)
    assert found["KVP"][0] > 0.5
    assert found["OperatorsName (level)"][0] > 0.5


def test_within_pairs_the_surroundings_do_not_differ(cohort):
    """The sharper look at pixels: partners share scanner and exposure, so little else varies."""
    labels = np.array([label for _, _, label in cohort])
    pairs = np.array([int(ds.PatientID[6:]) // 2 for _, ds, _ in cohort])
    for name, values in around(cohort).items():
        difference = np.array(
            [
                values[(pairs == p) & (labels == 1)].mean()
                - values[(pairs == p) & (labels == 0)].mean()
                for p in np.unique(pairs)
            ]
        )
        bound = 2.6 * difference.std() / np.sqrt(len(difference))  # 99 %
        assert abs(difference.mean()) <= bound, name
