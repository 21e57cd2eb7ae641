"""Our values, pixel by pixel, against readers that share no code with ours: GDCM and DCMTK.

GDCM is the one inside of SimpleITK; DCMTK's part is skipped where its programs are not installed.
Where they differ, the table says by what and why; a difference that goes away fails, too.
"""

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from imaging.reading import dicom
from imaging.reasons import SetAside
from lineage.digest import file_digest

# How ITK's GDCM differs, by the file name's beginning. What both leave alone is not listed.
BITS = "GDCM gives bits as 0 and 255"
INVERTED = "ITK inverts MONOCHROME1, and we do so for display only"
WORDS = "GDCM misreads run lengths of more than 8 bits; DCMTK agrees with us"
HALVES = "words of 32 bits in OW and big endian: the two halves are swapped, or not"
DOSE = "GDCM leaves out Dose Grid Scaling"
NO_LUT = "ITK leaves out the Modality LUT"
PALETTE = "ITK cuts a palette of 16 bits to 8"
GDCM = {
    "liver": BITS,
    "segmentations_24x38x3_seg_label": BITS,
    "segmentations_liver": BITS,
    "segmentations_partial_overlaps": BITS,
    "sr-example_seg": BITS,
    "6154": INVERTED,
    "6247": INVERTED,
    "6278": INVERTED,
    "RG1_J2KI": INVERTED,
    "RG3_J2KI": INVERTED,
    "SC_rgb_rle_16bit": WORDS,
    "SC_rgb_rle_32bit": WORDS,
    "rtdose_expb": HALVES,
    "rtdose": DOSE,
    "mlut_18": NO_LUT,
    "examples_palette": PALETTE,
    "9546_OBXXXX1A_expb": PALETTE,
    "OBXXXX1A": PALETTE,
    "OT-PAL-8-face": PALETTE,
}
DCMTK = {"rtdose_expb": HALVES}

Read = tuple[Path, Dataset, NDArray[Any]]


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


@pytest.fixture(params=["pydicom", "dicom-odd"])
def images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Read]:
    """What we read of a collection; of the second, what the first does not have."""
    root, known = Path(pydicom.__file__).parent / "data", set[str]()
    if request.param == "dicom-odd":
        known = {file_digest(path) for path in files(root)}
        root = request.getfixturevalue("real_data") / "dicom-odd"
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)

    def read() -> Iterator[Read]:
        for path in files(root):
            if file_digest(path) in known:
                continue
            try:
                dataset = dicom.parse(path.read_bytes())
                yield path, dataset, dicom.stored_pixels(dataset)
            except SetAside:
                continue

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield read()


def grey(dataset: Dataset) -> bool:
    return dataset.PhotometricInterpretation in dicom.GREY


def explained(path: Path, table: dict[str, str]) -> str | None:
    return next((why for name, why in table.items() if path.name.startswith(name)), None)


def test_values_are_those_that_gdcm_reads(images: Iterator[Read]) -> None:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    compared, differing = 0, {}
    for path, dataset, stored in images:
        try:
            theirs = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        except RuntimeError:
            continue  # GDCM does not read it
        ours = dicom.modality_values(dataset, stored) if grey(dataset) else stored
        theirs = theirs if theirs.ndim == ours.ndim else theirs[0]
        assert theirs.shape == ours.shape, path.name
        compared += 1
        # Theirs are float64 where there is a slope, ours float32.
        if not np.allclose(theirs.astype(np.float64), ours.astype(np.float64), rtol=1e-6, atol=0):
            differing[path.name] = explained(path, GDCM)
        else:
            assert explained(path, GDCM) is None, f"{path.name} does not differ any more"
    assert compared > 60
    assert [name for name, why in differing.items() if why is None] == []


def run(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def by_dcmtk(path: Path, target: Path) -> Dataset | None:
    for program in (["dcmdjpeg"], ["dcmdrle"], ["dcmconv", "+te"]):
        if run(*program, path, target):
            dataset = pydicom.dcmread(target)
            if not dataset.file_meta.TransferSyntaxUID.is_compressed:
                return dataset
    return None


@pytest.mark.skipif(not shutil.which("dcmj2pnm"), reason="DCMTK is not installed")
def test_stored_values_are_those_that_dcmtk_reads(images: Iterator[Read], tmp_path: Path) -> None:
    compared, differing = 0, {}
    for path, dataset, stored in images:
        written = by_dcmtk(path, tmp_path / "raw.dcm")
        if written is None or dataset.PhotometricInterpretation == "PALETTE COLOR":
            continue
        compared += 1
        if not np.array_equal(written.pixel_array, stored):
            differing[path.name] = explained(path, DCMTK)
    assert compared > 40
    assert [name for name, why in differing.items() if why is None] == []


@pytest.mark.skipif(not shutil.which("dcmj2pnm"), reason="DCMTK is not installed")
def test_display_is_that_of_dcmtk(images: Iterator[Read], tmp_path: Path) -> None:
    """To a two-thousandth of the range: DCMTK rounds after the Modality LUT.

    Of frames without a window it stretches each by itself; we stretch them alike.
    """
    shown, compared = tmp_path / "shown.png", 0
    for path, dataset, stored in images:
        windowed = dataset.get("WindowCenter") is not None
        if not grey(dataset) or explained(path, DCMTK) or (stored.ndim == 3 and not windowed):
            continue
        view = ["+Wl", "1"] if dataset.get("VOILUTSequence") else ["+Wi", "1"]
        options = view if windowed or view[0] == "+Wl" else ["+Wm"]
        if not run("dcmj2pnm", "-O", "+on2", *options, path, shown):
            continue
        compared += 1
        theirs = np.asarray(Image.open(shown)) / 65535
        ours = dicom.displayed(dataset, stored)
        ours = ours if ours.ndim == 2 else ours[0]
        assert np.abs(ours - theirs).max() < 5e-4, path.name
    assert compared > 12
