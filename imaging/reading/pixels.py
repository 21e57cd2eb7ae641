"""Pixels as a reader would see them: one function for training, evaluation and serving alike."""

import hashlib
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.reading import dicom, volumes
from imaging.reasons import SetAside
from lineage.errors import BadInput

DICOM, PNG, JPEG = "application/dicom", "image/png", "image/jpeg"


def media_type(data: bytes) -> str | None:
    """Tell DICOM, PNG, JPEG and NIfTI by the first 512 bytes; file names are not to be trusted."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if volumes.looks_like_nifti(data):
        return volumes.NIFTI
    return DICOM if dicom.looks_like_dicom(data) else None


def read_pixels(path: Path) -> NDArray[np.float32]:
    """Read one image file: float32 (H, W) in 0..1; see `decode`."""
    data = path.read_bytes()
    kind = media_type(data)
    if kind is None:
        raise SetAside("not_an_image")
    return decode(data, kind)


def decode(data: bytes, media_type: str) -> NDArray[np.float32]:
    """Decode one image of one grey frame, as training and serving want them.

    Args:
        data: The file's bytes.
        media_type: application/dicom, image/png or image/jpeg.

    Returns:
        float32 (H, W) in 0..1 of the declared range (`dicom.as_seen`; 8 or 16 bits for
        PNG, 8 for JPEG), MONOCHROME1 inverted, a JPEG turned as its EXIF orientation asks.

    Raises:
        SetAside: A BadInput whose `reason` says what is wrong with this image.
        BadInput: Another media type.
    """
    if media_type == DICOM:
        dataset = dicom.parse(data)
        return dicom.as_seen(dataset, dicom.one_grey_frame(dataset))
    if media_type in (PNG, JPEG):
        return scale_picture(stored_picture(data))
    raise BadInput(f"images come as {DICOM}, {PNG} or {JPEG}, not as another media type")


def pixel_digest(pixels: NDArray[np.float32]) -> str:
    """SHA-256 of an image's shape and values: equal for the same picture in another file."""
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def scale_picture(stored: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 or uint16 to float32 in 0..1, in the same shape."""
    return stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)


def stored_picture(data: bytes, colour: bool = False) -> NDArray[Any]:
    """Decode a PNG or JPEG to its grey values, uint8 or uint16 (H, W).

    A colour picture whose three channels are equal is grey; an opaque alpha channel is nothing.

    Args:
        data: The file's bytes.
        colour: Answer uint8 (H, W, 3), RGB, where there is colour. What is transparent is refused
            all the same: nothing says what lies behind it.

    Raises:
        SetAside: too_large, multi_frame, colour, truncated, unreadable_header, undecodable_pixels.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Our own bound comes right after; Pillow only warns between its bound and twice that.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(BytesIO(data), formats=("PNG", "JPEG"))
        if image.width * image.height > dicom.MAX_PIXELS:
            raise SetAside("too_large")
        if getattr(image, "n_frames", 1) > 1:
            raise SetAside("multi_frame")
        image.load()
        image = ImageOps.exif_transpose(image)
    except SetAside:
        raise
    except (MemoryError, Image.DecompressionBombError):
        raise SetAside("too_large") from None
    except UnidentifiedImageError:
        raise SetAside("unreadable_header") from None
    except Exception as error:
        # Pillow's sentence holds counts of bytes, never content.
        raise SetAside(
            "truncated" if "truncated" in str(error).lower() else "undecodable_pixels"
        ) from None
    if image.mode in ("I", "I;16", "I;16B"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))
    channels = np.asarray(image.convert("RGBA"))
    grey = channels[..., 0]
    coloured = (channels[..., 1:3] != grey[..., None]).any()
    if (coloured and not colour) or (channels[..., 3] != 255).any():
        raise SetAside("colour")
    return np.ascontiguousarray(channels[..., :3] if coloured else grey)
