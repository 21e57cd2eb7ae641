from pydicom.dataset import Dataset

from imaging.acquisition import acquisition
from imaging.manifest import HEADER_FIELDS


def test_it_tells_every_header_field_but_the_size() -> None:
    assert set(acquisition(Dataset())) == set(HEADER_FIELDS) - {"rows", "columns"}
    assert set(acquisition(Dataset()).values()) == {None}


def test_what_is_no_maker_and_no_model_is_not_told() -> None:
    header = Dataset()
    header.Manufacturer, header.ManufacturerModelName = "A & B", "Doe^Jane"
    header.ImagerPixelSpacing, header.PixelSpacing = [0.2, 0.2], [0.14, 0.15]
    header.BitsAllocated = 16
    found = acquisition(header)
    assert (found["manufacturer"], found["model_name"]) == ("A & B", None)
    assert found["scanner"] == "A & B"
    assert (found["pixel_spacing_mm"], found["bits_stored"]) == (0.14, 16)
