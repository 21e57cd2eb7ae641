"""Modality, VOI and polarity by the standard's formulas, written out by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from imaging.reading import dicom

Made = Callable[..., Dataset]
ROW = np.array([[0, 1, 40, 100, 4095]], np.uint16)


def lut(first: int, entries: list[int], bits: int = 16) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def shown(dataset: Dataset) -> np.ndarray:
    return dicom.displayed(dataset, dicom.stored_pixels(dataset))


@pytest.fixture
def made(dicom_dataset: Made) -> Made:
    def make(pixels: Any = ROW, **attributes: Any) -> Dataset:
        dataset = dicom_dataset(pixels, **attributes)
        dataset.set_original_encoding(False, True)
        return dataset

    return make


def test_rescale_is_applied_once(made: Made) -> None:
    dataset = made(RescaleSlope="2.5", RescaleIntercept="-1024")
    values = dicom.modality_values(dataset, ROW)
    assert values == pytest.approx(ROW * 2.5 - 1024)
    assert values.dtype == np.float32
    assert dicom.modality_values(made(RescaleSlope="3"), ROW) == pytest.approx(ROW * 3)


def test_a_dose_grid_is_scaled_to_its_unit(made: Made) -> None:
    assert dicom.modality_values(made(DoseGridScaling="1e-3"), ROW) == pytest.approx(ROW / 1000)


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        (None, lambda x: np.clip((x - 49.5) / 99 + 0.5, 0, 1)),
        ("LINEAR", lambda x: np.clip((x - 49.5) / 99 + 0.5, 0, 1)),
        ("LINEAR_EXACT", lambda x: np.clip((x - 50) / 100 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 50) / 100))),
    ],
)
def test_windows_are_those_of_the_standard(made: Made, function: str | None, formula: Any) -> None:
    window = {"WindowCenter": ["50", "7"], "WindowWidth": ["100", "7"]}
    dataset = made(**window, RescaleSlope="2", RescaleIntercept="-5")
    if function:
        dataset.VOILUTFunction = function
    assert shown(dataset) == pytest.approx(formula(ROW * 2.0 - 5), abs=1e-6)


def test_a_window_one_wide_is_a_threshold(made: Made) -> None:
    assert shown(made(WindowCenter="40", WindowWidth="1")).tolist() == [[0, 0, 1, 1, 1]]


@pytest.mark.parametrize("width", ["0", "-3", "0.5"])
def test_without_a_usable_window_darkest_to_brightest(made: Made, width: str) -> None:
    assert shown(made()) == pytest.approx(ROW / 4095)
    assert shown(made(WindowCenter="40", WindowWidth=width)) == pytest.approx(ROW / 4095)


def test_a_voi_lut_comes_before_a_window(made: Made) -> None:
    dataset = made(VOILUTSequence=[lut(1, [10, 20, 255], 8)], WindowCenter="1", WindowWidth="2")
    assert shown(dataset) == pytest.approx(np.array([[10, 10, 255, 255, 255]]) / 255)


def test_a_modality_lut_may_start_below_nought(made: Made) -> None:
    pixels = np.array([[-9, -2, -1, 0, 9]], np.int16)
    dataset = made(pixels, ModalityLUTSequence=[lut(0xFFFE, [7, 8, 9])])  # -2, as unsigned
    assert dicom.modality_values(dataset, pixels).tolist() == [[7, 7, 8, 9, 9]]


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_polarity_counts_once(
    made: Made, photometric: str, shape: str | None, inverted: bool
) -> None:
    dataset = made(PhotometricInterpretation=photometric)
    if shape:
        dataset.PresentationLUTShape = shape
    assert shown(dataset) == pytest.approx(1 - ROW / 4095 if inverted else ROW / 4095)


def test_each_frame_has_its_own_rescale_and_window(made: Made) -> None:
    frames = np.stack([ROW, ROW])
    groups = []
    for slope, centre in (("1", "20"), ("-2", "-60")):
        transformation, window, group = Dataset(), Dataset(), Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, "0"
        window.WindowCenter, window.WindowWidth = centre, "40"
        group.PixelValueTransformationSequence, group.FrameVOILUTSequence = (
            [transformation],
            [window],
        )
        groups.append(group)
    dataset = made(frames, NumberOfFrames=2, PerFrameFunctionalGroupsSequence=groups)
    assert dicom.modality_values(dataset, frames)[1] == pytest.approx(ROW * -2.0)
    ours = shown(dataset)
    assert ours[0] == pytest.approx(np.clip((ROW - 19.5) / 39 + 0.5, 0, 1), abs=1e-6)
    assert ours[1] == pytest.approx(np.clip((ROW * -2.0 + 60.5) / 39 + 0.5, 0, 1), abs=1e-6)
    seen = dicom.as_seen(dataset, frames)
    assert seen[1] == pytest.approx(1 - seen[0])


@pytest.mark.parametrize("planar", [0, 1])
def test_colour_is_shown_as_it_is_stored(made: Made, planar: int) -> None:
    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    stored = colour if planar == 0 else colour.transpose(2, 0, 1)
    dataset = made(
        np.ascontiguousarray(stored),
        Rows=2,
        Columns=3,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=planar,
        BitsStored=8,
        HighBit=7,
    )
    assert (dicom.stored_pixels(dataset) == colour).all()
    assert shown(dataset) == pytest.approx(colour / 255)


def test_a_palette_of_16_bits_over_values_of_8(made: Made) -> None:
    """pydicom looks up by bytes where the entries are bytes, and wraps around."""
    pixels = np.array([[0, 299, 300, 4000]], np.uint16)
    dataset = made(pixels, PhotometricInterpretation="PALETTE COLOR", BitsStored=16, HighBit=15)
    for colour, step in (("Red", 0), ("Green", 1), ("Blue", 255)):
        entries = bytes(min(255, i * step) for i in range(302))
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [302, 0, 8])
        setattr(dataset, f"{colour}PaletteColorLookupTableData", entries)
    stored = dicom.stored_pixels(dataset)
    assert stored.dtype == np.uint8
    assert stored[0].tolist() == [[0, 0, 0], [0, 255, 255], [0, 255, 255], [0, 255, 255]]
