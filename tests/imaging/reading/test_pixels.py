import gzip
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from imaging.reading.pixels import (
    DICOM,
    JPEG,
    PNG,
    decode,
    media_type,
    pixel_digest,
    read_pixels,
    stored_picture,
)
from imaging.reasons import SetAside
from lineage.errors import BadInput

Bytes = Callable[..., bytes]
GREYS = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def picture(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def reason(data: bytes, kind: str) -> str:
    with pytest.raises(SetAside) as caught:
        decode(data, kind)
    return caught.value.reason


def test_dicom_is_scaled_by_its_declared_range_not_by_what_occurs(dicom_bytes: Bytes) -> None:
    pixels = decode(dicom_bytes(np.array([[0, 2048], [1, 4095]], np.uint16)), DICOM)
    assert pixels.dtype == np.float32
    assert pixels == pytest.approx(np.array([[0, 2048], [1, 4095]]) / 4095)


def test_signed_values_are_scaled_from_their_least(dicom_bytes: Bytes) -> None:
    pixels = decode(dicom_bytes(np.array([[-2048, 0, 2047]], np.int16)), DICOM)
    assert pixels == pytest.approx(np.array([[0, 2048 / 4095, 1]]))


def test_monochrome1_is_inverted_and_a_negative_slope_too(dicom_bytes: Bytes) -> None:
    plain = decode(dicom_bytes(), DICOM)
    mono1 = {"PhotometricInterpretation": "MONOCHROME1"}
    down = {"RescaleSlope": "-2", "RescaleIntercept": "100"}
    assert decode(dicom_bytes(**mono1), DICOM) == pytest.approx(1 - plain)
    assert decode(dicom_bytes(**down), DICOM) == pytest.approx(1 - plain)
    assert decode(dicom_bytes(**mono1, **down), DICOM) == pytest.approx(plain)


def test_a_window_and_a_linear_rescale_change_nothing(dicom_bytes: Bytes) -> None:
    viewed = {
        "WindowCenter": "40",
        "WindowWidth": "80",
        "RescaleSlope": "2.5",
        "RescaleIntercept": "-9",
    }
    assert decode(dicom_bytes(**viewed), DICOM) == pytest.approx(decode(dicom_bytes(), DICOM))


def test_a_modality_lut_is_applied(dicom_bytes: Bytes) -> None:
    lut = Dataset()
    lut.LUTDescriptor, lut.ModalityLUTType, lut.LUTData = [4, 0, 8], "US", [255, 128, 64, 0]
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    pixels = np.array([[0, 1, 2, 3]], np.uint16)
    seen = decode(dicom_bytes(pixels, ModalityLUTSequence=[lut]), DICOM)
    assert seen == pytest.approx(np.array([[255, 128, 64, 0]]) / 255)


def test_png_by_its_bit_depth() -> None:
    assert decode(picture(GREYS), PNG) == pytest.approx(GREYS / 255)
    deep = GREYS.astype(np.uint16) * 257
    assert decode(picture(deep), PNG) == pytest.approx(GREYS / 255)
    assert decode(picture(Image.fromarray(GREYS).convert("1")), PNG).max() == 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colour_with_equal_channels_is_grey(mode: str) -> None:
    assert decode(picture(Image.fromarray(GREYS).convert(mode)), PNG) == pytest.approx(GREYS / 255)


def test_colour_and_transparency_are_refused() -> None:
    channels = np.stack([GREYS, GREYS, GREYS, np.full_like(GREYS, 255)], axis=-1)
    red, glass = channels.copy(), channels.copy()
    red[0, 0, 0] += 1
    glass[0, 0, 3] = 254
    assert reason(picture(red), PNG) == reason(picture(glass), PNG) == "colour"


def test_jpeg_is_turned_as_its_orientation_asks() -> None:
    image = Image.fromarray(np.repeat(np.repeat(GREYS, 8, 0), 8, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode(picture(image, "JPEG", quality=95), JPEG)
    turned = decode(picture(image, "JPEG", quality=95, exif=exif), JPEG)
    assert turned == pytest.approx(np.rot90(upright, -1), abs=0.02)


@pytest.mark.parametrize(("kind", "media"), [("PNG", PNG), ("JPEG", JPEG)])
def test_half_a_picture_is_truncated(kind: str, media: str) -> None:
    whole = picture(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), kind)
    assert reason(whole[: len(whole) // 2], media) == "truncated"
    assert reason(whole[:20], media) in ("truncated", "unreadable_header")


def test_a_huge_picture_is_refused_before_it_is_unpacked() -> None:
    header = picture(GREYS)
    huge = header[:16] + (60000).to_bytes(4, "big") * 2 + header[24:]
    huge = huge[:29] + zlib.crc32(huge[12:29]).to_bytes(4, "big") + huge[33:]
    assert reason(huge, PNG) == "too_large"


def test_content_decides_not_the_name(tmp_path: Path, dicom_bytes: Bytes) -> None:
    assert media_type(dicom_bytes()) == DICOM
    assert media_type(dicom_bytes()[132:]) == DICOM  # no prefix: group 2 comes first
    assert media_type(b"II*\0") is None
    (tmp_path / "scan.png").write_bytes(dicom_bytes())
    assert read_pixels(tmp_path / "scan.png").shape == (8, 6)


def test_another_media_type_is_bad_input() -> None:
    with pytest.raises(BadInput, match="application/dicom"):
        decode(b"", "image/gif")


def test_equal_pixels_have_equal_digests_and_shape_counts() -> None:
    flat = np.zeros((2, 6), np.float32)
    assert pixel_digest(flat) == pixel_digest(flat.copy()) != pixel_digest(flat.reshape(3, 4))


def test_colour_is_kept_on_request_but_not_glass() -> None:
    channels = np.stack([GREYS, GREYS, GREYS, np.full_like(GREYS, 255)], axis=-1)
    assert stored_picture(picture(channels), colour=True).shape == GREYS.shape
    red, glass = channels.copy(), channels.copy()
    red[0, 0, 0] += 1
    glass[0, 0, 3] = 254
    assert (stored_picture(picture(red), colour=True) == red[..., :3]).all()
    with pytest.raises(SetAside, match="transparency"):
        stored_picture(picture(glass), colour=True)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_nifti_is_told_by_its_content(pack: Callable[[bytes], bytes]) -> None:
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    assert media_type(pack(image.to_bytes())[:512]) == "application/x-nifti"
    assert media_type(pack(b"no volume " * 100)[:512]) is None
