import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag

from imaging.labelling.segmentations import LabelMap, grid, label_maps
from imaging.reading import dicom
from imaging.reading.volumes import same_grid
from imaging.reasons import SetAside

Made = Callable[..., Dataset]
Encoded = Callable[[Dataset], bytes]
ROWS, COLUMNS = 6, 8


@pytest.fixture
def series(dicom_dataset: Made) -> list[Dataset]:
    """Three axial slices."""
    return [
        dicom_dataset(
            np.zeros((ROWS, COLUMNS), np.uint16),
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
            SOPInstanceUID=f"1.2.826.0.1.3680043.9.7.1.{i}",
            FrameOfReferenceUID="1.2.826.0.1.3680043.9.7.4",
            Modality="CT",
            PatientBirthDate="19720101",
            StudyID="1",
            AccessionNumber="A1",
            InstanceNumber=i,
            ImagePositionPatient=[-10, -20, 5 * i],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            PixelSpacing=[0.8, 0.7],
            SliceThickness=5,
        )
        for i in range(3)
    ]


def segment(number: int, label: str, code: Any) -> Any:
    return hd.seg.SegmentDescription(
        number, label, codes.SCT.Organ, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL
    )


def segmentation(series: list[Dataset], pixels: Any, kind: str = "BINARY", **more: Any) -> Any:
    made = hd.seg.Segmentation(
        source_images=series,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[
            segment(1, "Liver", codes.SCT.Liver),
            segment(2, "The spleen", codes.SCT.Spleen),
        ],
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="M",
        manufacturer_model_name="N",
        software_versions="1",
        device_serial_number="1",
        **more,
    )
    return _unshared(made)


def _unshared(made: Dataset) -> Dataset:
    """Groups of several frames share items as they are made."""
    buffer = io.BytesIO()
    made.save_as(buffer)
    return pydicom.dcmread(io.BytesIO(buffer.getvalue()))


def drawn() -> Any:
    """Two segments apart in the first slice, one in the second, none in the third."""
    pixels = np.zeros((3, ROWS, COLUMNS), np.uint8)
    pixels[0, :2], pixels[0, 4:], pixels[1, 1, 1] = 1, 2, 2
    return pixels


def by_uid(data: bytes, segments: tuple[int | str, ...] = ()) -> dict[str, LabelMap]:
    return {found.instance_uid: found for found in label_maps(data, segments)}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_each_image_gets_what_was_drawn_on_it(
    series: list[Dataset], encoded: Encoded, kind: str
) -> None:
    pixels = drawn()
    more = {}
    if kind == "FRACTIONAL":
        more = {"fractional_type": "PROBABILITY", "max_fractional_value": 200}
        pixels = np.stack([(pixels == 1) * 0.9, (pixels == 2) * 0.5], axis=-1)
        pixels[2, ..., 0] = 0.4  # less than half: not marked
    found = by_uid(encoded(segmentation(series, pixels, kind, **more)))
    for image, expected in zip(series, drawn(), strict=True):
        made = found[image.SOPInstanceUID]
        assert made.values is not None
        assert np.array_equal(made.values[0], expected)
        assert made.reason is None
    assert len(found) == 3  # the third was looked at, and nothing was found on it


def test_only_the_segments_asked_for_are_marked_by_their_place_in_the_list(
    series: list[Dataset], encoded: Encoded
) -> None:
    data = encoded(segmentation(series, drawn()))
    first = series[0].SOPInstanceUID
    for asked, expected in (
        ((2,), {0, 1}),
        ((2, 1), {0, 1, 2}),
        (("LIVER",), {0, 1}),
        (("SCT|78961009",), {0, 1}),  # spleen
        (("kidney",), {0}),
        ((7, "the spleen"), {0, 2}),
    ):
        values = by_uid(data, asked)[first].values
        assert values is not None
        assert set(np.unique(values)) == expected, asked
    swapped = by_uid(data, ("The spleen", "liver"))[first].values
    assert swapped is not None
    assert (swapped[0, 0, 0], swapped[0, 5, 0]) == (2, 1)


def test_what_two_segments_claim_is_not_decided_here(
    series: list[Dataset], encoded: Encoded
) -> None:
    pixels = np.stack([drawn() == 1, drawn() == 2], axis=-1).astype(np.uint8)
    pixels[0, 0, 0, 1] = 1
    data = encoded(segmentation(series, pixels))
    first, second = (by_uid(data)[series[i].SOPInstanceUID] for i in (0, 1))
    assert (first.values, first.reason) == (None, "overlapping_segments")
    assert second.reason is None
    one = by_uid(data, ("Liver",))[series[0].SOPInstanceUID]
    assert one.values is not None
    assert np.array_equal(one.values[0], drawn()[0] == 1)


def test_it_says_where_it_lies_so_that_another_grid_of_that_size_is_told_apart(
    series: list[Dataset], encoded: Encoded
) -> None:
    data = encoded(segmentation(series, drawn()))
    for image in series[:2]:
        lies = by_uid(data)[image.SOPInstanceUID].geometry
        there = grid(image)
        assert lies is not None
        assert there is not None
        assert same_grid(lies, there)
        image.ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]
        assert not same_grid(lies, grid(image) or ())
    del series[0].PixelSpacing
    assert grid(series[0]) is None
    damaged = RawDataElement(
        Tag("ImagePositionPatient"), "\x13\x44", 6, b"0\\0\\0 ", 0, False, True
    )
    series[1]._dict[damaged.tag] = damaged
    assert grid(series[1]) is None


def test_frames_of_one_image_are_marked_by_their_number(
    series: list[Dataset], encoded: Encoded
) -> None:
    source = segmentation(series, drawn())
    for number, group in enumerate(source.PerFrameFunctionalGroupsSequence, start=1):
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber = "1.2.3", 2 * number
    made = by_uid(encoded(source))["1.2.3"]
    assert made.by_frame
    assert made.values is not None
    assert made.values.shape == (2 * len(source.PerFrameFunctionalGroupsSequence), ROWS, COLUMNS)
    assert [int(frame.max()) for frame in made.values] == [0, 1, 0, 2, 0, 2]


def test_frames_that_do_not_lie_on_one_image_are_not_used(
    series: list[Dataset], encoded: Encoded
) -> None:
    def image_of(source: Dataset) -> Any:
        group = source.PerFrameFunctionalGroupsSequence[0]
        return group.DerivationImageSequence[0].SourceImageSequence

    moved = segmentation(series, drawn())
    image_of(moved)[0].SpatialLocationsPreserved = "NO"
    several = segmentation(series, drawn())
    image_of(several).append(image_of(several)[0])
    apart = segmentation(series, drawn())
    place = apart.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    place.ImagePositionPatient = [0, 0, 0]  # of one of the two segments on that image
    for source in (moved, several, apart):
        assert by_uid(encoded(source))[series[0].SOPInstanceUID].reason == "mask_mismatch"


@pytest.mark.parametrize(
    "break_it",
    [
        lambda s: setattr(s, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"),
        lambda s: setattr(s, "SegmentationType", "OTHER"),
        lambda s: delattr(s, "SegmentSequence"),
        lambda s: delattr(s.SegmentSequence[0], "SegmentNumber"),
        lambda s: setattr(s.SegmentSequence[0], "SegmentNumber", None),
        lambda s: s.PerFrameFunctionalGroupsSequence.pop(),
        lambda s: delattr(s.PerFrameFunctionalGroupsSequence[0], "SegmentIdentificationSequence"),
        lambda s: delattr(
            s.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0],
            "ReferencedSOPInstanceUID",
        ),
    ],
)
def test_what_breaks_the_standard_is_set_aside(
    series: list[Dataset], encoded: Encoded, break_it: Callable[[Any], Any]
) -> None:
    source = segmentation(series, drawn())
    break_it(source)
    with pytest.raises(SetAside) as caught:
        list(label_maps(encoded(source)))
    assert caught.value.reason == "mask_unreadable"


@pytest.mark.parametrize(
    ("number", "reason"),
    [(2**31 - 1, "mask_unreadable"), (2**27, "too_large"), (0, "mask_unreadable")],
)
def test_a_frame_number_asks_for_no_memory(
    series: list[Dataset], encoded: Encoded, number: int, reason: str
) -> None:
    source = segmentation(series, drawn())
    group = source.PerFrameFunctionalGroupsSequence[0]
    group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number
    with pytest.raises(SetAside) as caught:
        list(label_maps(encoded(source)))
    assert caught.value.reason == reason


def test_any_bytes_are_read_or_set_aside(series: list[Dataset], encoded: Encoded) -> None:
    whole = encoded(segmentation(series, drawn()))

    @settings(max_examples=60, deadline=None)
    @given(edits=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=8))
    def holds(edits: list[tuple[int, int]]) -> None:
        data = bytearray(whole)
        for position, value in edits:
            data[132 + position % (len(data) - 132)] = value
        with suppress(SetAside):
            list(label_maps(bytes(data)))

    holds()


@pytest.mark.parametrize(
    "name",
    [
        "dcmqi/segmentations_24x38x3_seg_label.seg",
        "dcmqi/segmentations_liver.dcm",
        "dcmqi/segmentations_partial_overlaps.dcm",
        "dcmqi/sr-example_seg.dcm",
        "pydicom-data/liver_nonbyte_aligned.dcm",
        "pydicom-data/liver_nonbyte_aligned_j2k.dcm",
    ],
)
def test_real_ones_come_out_as_another_reader_sees_them(real_data: Path, name: str) -> None:
    path = real_data / "dicom-odd" / name
    other = hd.seg.segread(path)
    found = list(label_maps(path.read_bytes()))
    assert found
    for made in found:

        def theirs(uid: str = made.instance_uid) -> Any:
            return other.get_pixels_by_source_instance(
                [uid],
                combine_segments=True,
                assert_missing_frames_are_empty=True,
                ignore_spatial_locations=True,
            )

        if made.reason:
            with pytest.raises(RuntimeError, match="segments overlap"):
                theirs()
        else:
            assert np.array_equal(theirs(), made.values)


def test_a_real_mask_lies_on_its_real_image(real_data: Path) -> None:
    folder = real_data / "dicom-odd" / "dcmqi"
    image = dicom.parse((folder / "segmentations_24x38x3_image_IMG0001.dcm").read_bytes())
    mask = by_uid((folder / "segmentations_24x38x3_seg_label.seg").read_bytes())
    there = grid(image)
    assert there is not None
    assert same_grid(there, mask[image.SOPInstanceUID].geometry or ())
