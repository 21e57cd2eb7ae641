"""Small DICOM and pictures, made on the spot."""

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

Made = Callable[..., Dataset]


def make_dicom(
    pixels: Any = None, syntax: str = ExplicitVRLittleEndian, **attributes: Any
) -> Dataset:
    """A digital radiograph of 8 x 6 pixels, 12 bits; None removes an attribute."""
    if pixels is None:
        pixels = np.arange(48, dtype=np.uint16).reshape(8, 6) * 85
    dataset = Dataset()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.826.0.1.3680043.9.7.1"
    dataset.StudyInstanceUID = "1.2.826.0.1.3680043.9.7.2"
    dataset.SeriesInstanceUID = "1.2.826.0.1.3680043.9.7.3"
    dataset.PatientID, dataset.PatientName = "MRN-0012345", "Quernstein^Adalbert"
    dataset.PatientSex, dataset.PatientAge = "F", "047Y"
    dataset.StudyDate, dataset.StudyTime = "20190305", "101500"
    dataset.Modality, dataset.ViewPosition = "DX", "PA"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Aldebaran", "Clarus 3"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored = 8 * pixels.itemsize, min(12, 8 * pixels.itemsize)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def to_bytes(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def dicom_dataset() -> Made:
    return make_dicom


@pytest.fixture
def dicom_bytes() -> Callable[..., bytes]:
    return lambda *args, **kwargs: to_bytes(make_dicom(*args, **kwargs))


@pytest.fixture
def encoded() -> Callable[[Dataset], bytes]:
    return to_bytes
