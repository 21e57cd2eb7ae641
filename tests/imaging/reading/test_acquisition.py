import pytest
from pydicom.dataset import Dataset

from imaging.manifest import HEADER_FIELDS, schema
from imaging.reading.acquisition import acquisition

MORE = {
    "body_part",
    "laterality",
    "patient_orientation",
    "column_spacing_mm",
    "slice_spacing_mm",
    "series_number",
    "acquisition_number",
    "instance_number",
}


def test_it_tells_every_header_field_but_the_size() -> None:
    assert set(acquisition(Dataset())) == set(HEADER_FIELDS) - {"rows", "columns"} | MORE
    assert set(acquisition(Dataset()).values()) == {None}
    assert set(acquisition(Dataset())) <= set(schema().names)


def test_what_is_no_maker_and_no_model_is_not_told() -> None:
    header = Dataset()
    header.Manufacturer, header.ManufacturerModelName = "A & B", "Doe^Jane"
    header.ImagerPixelSpacing, header.PixelSpacing = [0.2, 0.2], [0.14, 0.15]
    header.BitsAllocated = 16
    found = acquisition(header)
    assert (found["manufacturer"], found["model_name"]) == ("A & B", None)
    assert found["scanner"] == "A & B"
    assert (found["pixel_spacing_mm"], found["bits_stored"]) == (0.14, 16)
    assert found["column_spacing_mm"] == 0.15


def test_numbers_sides_and_spacing_between_slices() -> None:
    header = Dataset()
    header.SeriesNumber, header.AcquisitionNumber, header.InstanceNumber = 3, 2, 17
    header.Laterality, header.BodyPartExamined = "L", "BREAST"
    header.SliceThickness = 5.0
    found = acquisition(header)
    assert [found[f"{n}_number"] for n in ("series", "acquisition", "instance")] == [3, 2, 17]
    assert (found["laterality"], found["body_part"]) == ("L", "BREAST")
    assert found["slice_spacing_mm"] == 5
    header.ImageLaterality, header.SpacingBetweenSlices = "r", 2.5
    assert acquisition(header)["laterality"] == "R"  # of the image, not of the body part
    assert acquisition(header)["slice_spacing_mm"] == 2.5  # slices may overlap
    header.ImageLaterality = "sinister"
    assert acquisition(header)["laterality"] is None


@pytest.mark.parametrize(
    ("cosines", "told"),
    [
        ([1, 0, 0, 0, 1, 0], "L\\P"),  # axial, as it is usually shown
        ([0, 1, 0, 0, 0, -1], "P\\F"),  # sagittal
        ([0.98, 0.17, 0, 0, 0, -1], "L\\F"),  # coronal, a little turned
        ([-1, 0, 0, 0, -1, 0], "R\\A"),
        ([0, 0, 0, 0, 1, 0], None),
        ([float("nan")] * 6, None),
    ],
)
def test_orientation_is_derived_where_it_is_not_told(cosines, told) -> None:
    header = Dataset()
    header.ImageOrientationPatient = cosines
    assert acquisition(header)["patient_orientation"] == told
    header.PatientOrientation = ["A", "FR"]
    assert acquisition(header)["patient_orientation"] == "A\\FR"
    header.PatientOrientation = ["Doe", "Jane"]
    assert acquisition(header)["patient_orientation"] == told


def test_enhanced_objects_tell_once_for_all_frames() -> None:
    header, group, measures, plane = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.6], 3.0
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    group.PixelMeasuresSequence, group.PlaneOrientationSequence = [measures], [plane]
    header.SharedFunctionalGroupsSequence = [group]
    found = acquisition(header)
    assert (found["pixel_spacing_mm"], found["column_spacing_mm"]) == (0.5, 0.6)
    assert (found["slice_spacing_mm"], found["patient_orientation"]) == (3, "L\\P")
