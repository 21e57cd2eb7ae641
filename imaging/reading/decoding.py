"""Pixels out of a data set, as they are stored: what it declares is checked before any decoder."""

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.reading import codestreams
from imaging.reading.lookup import palette
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder

MAX_PIXELS = 2**26  # per frame: a mammogram has 2**25
MAX_SAMPLES = 2**27  # in all frames: 256 MiB of 16 bits, and twice that where they are float32

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

RLE = "1.2.840.10008.1.2.5"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"

LAST_BYTES = 1024  # of a frame: in them its end marker, and what writers pad it with

# In the order of preference: Pillow refuses JPEG 2000 that pylibjpeg's OpenJPEG reads. GDCM aborts
# its process on a few files, so it reads only what nothing else here does: JPEG Lossless, and JPEG
# Extended of 12 bits.
DECODERS = ("pyjpegls", "pylibjpeg", "pillow", "pydicom")
LAST_RESORT = "gdcm"


@dataclass(frozen=True)
class Layout:
    """What a header declares of its pixels (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str

    @property
    def samples_per_frame(self) -> int:
        """One for each pixel, or three."""
        return self.rows * self.columns * self.samples


def one_grey_frame(dataset: "Dataset") -> NDArray[Any]:
    """`stored_pixels` of what models are trained on and serve: integers (H, W).

    Raises:
        SetAside: colour, multi_frame, or a reason of `stored_pixels`.
    """
    with honest_header():
        declared = layout(dataset)
        if declared.photometric not in GREY:
            raise SetAside("colour")
        if declared.frames != 1:
            raise SetAside("multi_frame")
    return stored_pixels(dataset)


def stored_pixels(dataset: "Dataset") -> NDArray[Any]:
    """Decode all frames: integers as stored, before rescaling, in this machine's byte order.

    Returns:
        (H, W) or (H, W, 3); (F, H, W) or (F, H, W, 3) of more than one frame. Colour is RGB,
        whatever it was stored as; a palette is applied.

    Raises:
        SetAside: no_pixel_data, float_pixels, too_large, truncated, incomplete_header,
            unreadable_header, unsupported_transfer_syntax or undecodable_pixels.
    """
    with honest_header():
        declared = layout(dataset)
        colours = palette(dataset) if declared.photometric == PALETTE else None
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        decoder = _decoder(syntax, declared)
        if decoder.is_encapsulated:
            _check_codestreams(dataset, syntax, declared)
        elif syntax != DEFLATED_FRAMES:
            _check_words(dataset, declared)
    try:
        data = _inflated(dataset, declared) if syntax == DEFLATED_FRAMES else dataset.PixelData
        array = _decoded(data, dataset, decoder, declared)
        if colours is None:
            return array
        return np.stack([colour.of(array) for colour in colours], axis=-1)
    except SetAside:
        raise
    except MemoryError:
        raise SetAside("too_large") from None
    except Exception:  # decoders raise anything
        raise SetAside("undecodable_pixels") from None


@contextmanager
def honest_header() -> Iterator[None]:
    """Say of a header that lacks an attribute, or holds nonsense in one, just that."""
    try:
        yield
    except SetAside:
        raise
    except AttributeError:
        raise SetAside("incomplete_header") from None
    except (
        ArithmeticError,
        LookupError,
        NotImplementedError,
        TypeError,
        ValueError,
        struct.error,
    ):
        raise SetAside("unreadable_header") from None


def layout(dataset: "Dataset") -> Layout:
    """What the header declares, within bounds.

    Raises:
        SetAside: float_pixels, no_pixel_data, undecodable_pixels, unreadable_header or too_large.
        AttributeError, TypeError, ValueError: See `honest_header`.
    """
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise SetAside("float_pixels")
    if "PixelData" not in dataset or not dataset.PixelData:
        raise SetAside("no_pixel_data")
    photometric = str(dataset.PhotometricInterpretation or "")
    if not photometric:
        raise SetAside("incomplete_header")
    allocated = int(dataset.BitsAllocated)
    declared = Layout(
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(dataset.get("NumberOfFrames") or 1),
        samples=int(dataset.get("SamplesPerPixel") or (3 if photometric in COLOUR else 1)),
        bits_allocated=allocated,
        bits_stored=int(dataset.get("BitsStored") or allocated),
        signed=bool(int(dataset.get("PixelRepresentation") or 0)),
        photometric=photometric,
    )
    if declared.photometric not in (*GREY, PALETTE, *COLOUR):  # retired, or film's
        raise SetAside("undecodable_pixels")
    if (
        min(declared.rows, declared.columns, declared.frames) < 1
        or declared.samples != (3 if declared.photometric in COLOUR else 1)
        or allocated not in (1, 8, 16, 32)
        or (allocated == 1 and declared.signed)  # decoders disagree on what such a bit says
        or not 1 <= declared.bits_stored <= allocated
    ):
        raise SetAside("unreadable_header")
    samples = declared.samples_per_frame * declared.frames
    if declared.rows * declared.columns > MAX_PIXELS or samples > MAX_SAMPLES:
        raise SetAside("too_large")
    return declared


def _decoder(syntax: str, declared: Layout) -> "Decoder":
    from pydicom.pixels import get_decoder

    if syntax == DEFLATED_FRAMES:  # which we inflate ourselves
        syntax = EXPLICIT
    elif syntax == JPEG_EXTENDED and declared.bits_stored > 8:
        # GDCM goes by what the codestream says of itself, and reads this one only by another name.
        syntax = JPEG_LOSSLESS
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise SetAside("unsupported_transfer_syntax") from None
    if not decoder.is_available:
        raise SetAside("unsupported_transfer_syntax")
    return decoder


def _check_words(dataset: "Dataset", declared: Layout) -> None:
    """Refuse uncompressed pixels that are fewer than declared, or not where PS3.5 8.1.1 says."""
    samples = declared.samples_per_frame * declared.frames
    if declared.photometric == "YBR_FULL_422":  # every other pixel has its own brightness only
        samples = samples // 3 * 2
    if len(dataset.PixelData) * 8 < samples * declared.bits_allocated:
        raise SetAside("truncated")
    # Values that lie elsewhere in their words would lose their upper bits.
    if dataset.get("HighBit") is not None and int(dataset.HighBit) != declared.bits_stored - 1:
        raise SetAside("unreadable_header")


def _check_codestreams(dataset: "Dataset", syntax: str, declared: Layout) -> None:
    """Refuse a codestream that is not of what the header declares.

    5 kB of JPEG 2000 may ask for gigabytes, which a decoder takes before it looks at the data.
    """
    found = 0
    try:
        for frame in itertools.islice(_fragments(dataset, declared), declared.frames):
            found += 1
            if syntax == RLE:
                fits = _runs_fit(frame, declared)
            else:
                fits = _header_fits(frame, declared)
                if fits and codestreams.END not in frame[-LAST_BYTES:]:
                    raise SetAside("truncated")
            if not fits:
                raise SetAside("undecodable_pixels")
    except SetAside:
        raise
    except Exception:  # what is no codestream has no such structure
        raise SetAside("undecodable_pixels") from None
    if found < declared.frames:
        raise SetAside("truncated")


def _runs_fit(frame: bytes, declared: Layout) -> bool:
    """Run lengths name no size, but add a byte to 128 at worst; more could unpack to anything."""
    word_bytes = math.ceil(declared.bits_allocated / 8)
    return len(frame) <= 1024 + 2 * declared.samples_per_frame * word_bytes


def _header_fits(frame: bytes, declared: Layout) -> bool:
    size = (declared.rows, declared.columns, declared.samples)
    most_bits = max(8, declared.bits_allocated)
    fit = [
        (header.rows, header.columns, header.components) == size and header.bits <= most_bits
        for header in codestreams.headers(frame)
    ]
    return bool(fit) and all(fit)


def _fragments(dataset: "Dataset", declared: Layout) -> Iterator[bytes]:
    from pydicom.encaps import generate_frames

    fragments: Iterator[bytes] = generate_frames(
        dataset.PixelData,
        number_of_frames=declared.frames,
        extended_offsets=_extended_offsets(dataset),
    )
    return fragments


def _extended_offsets(dataset: "Dataset") -> tuple[bytes, bytes] | None:
    if "ExtendedOffsetTable" not in dataset:
        return None
    return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths


def _inflated(dataset: "Dataset", declared: Layout) -> bytes:
    """Frames that are deflated one by one (PS3.5 A.4.14), one after the other."""
    length = math.ceil(declared.samples_per_frame * declared.bits_allocated / 8)
    frames = []
    for fragment in itertools.islice(_fragments(dataset, declared), declared.frames):
        frame = zlib.decompressobj(-zlib.MAX_WBITS).decompress(fragment, length)
        if len(frame) != length:
            raise SetAside("truncated")
        frames.append(frame)
    if len(frames) != declared.frames:
        raise SetAside("truncated")
    return b"".join(frames)


def _decoded(data: bytes, dataset: "Dataset", decoder: "Decoder", declared: Layout) -> NDArray[Any]:
    """All frames, by the decoder that is safest for their encoding."""
    options: dict[str, Any] = {
        "rows": declared.rows,
        "columns": declared.columns,
        "number_of_frames": declared.frames,
        "samples_per_pixel": declared.samples,
        "bits_allocated": declared.bits_allocated,
        "bits_stored": declared.bits_stored,
        "pixel_representation": int(declared.signed),
        "photometric_interpretation": declared.photometric,
        "pixel_keyword": "PixelData",
        "pixel_vr": dataset["PixelData"].VR,
        "allow_excess_frames": False,
    }
    if declared.samples > 1:
        options["planar_configuration"] = int(dataset.get("PlanarConfiguration") or 0)
    if offsets := _extended_offsets(dataset):
        options["extended_offsets"] = offsets
    if decoder.is_encapsulated:
        options["decoding_plugin"] = next(
            (name for name in DECODERS if name in decoder.available_plugins), LAST_RESORT
        )
    # Bits that are packed frame by frame are decoded as the bytes that they are packed in.
    packed = declared.bits_allocated == 1 and (decoder.UID == RLE or data is not dataset.PixelData)
    if packed:
        length = math.ceil(declared.samples_per_frame / 8)
        options |= {"rows": 1, "columns": length, "bits_allocated": 8, "bits_stored": 8}
    array, _ = decoder.as_array(data, **options)
    if decoder.is_encapsulated and not packed and not _in_range(array, declared):
        raise SetAside("undecodable_pixels")
    if packed:
        by_frame = array.reshape(declared.frames, length)
        bits = np.unpackbits(by_frame, axis=1, count=declared.samples_per_frame, bitorder="little")
        array = bits.reshape((declared.frames, declared.rows, declared.columns))
        array = array if declared.frames > 1 else array[0]
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _in_range(array: NDArray[Any], declared: Layout) -> bool:
    """Whether a codestream held only values that Bits Stored has room for (PS3.3 C.7.6.3.1).

    Others are overlays in the upper bits, or damage; written as they are, they would be read as
    another picture.
    """
    bits = declared.bits_stored
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if declared.signed else (0, (1 << bits) - 1)
    return bool(array.min() >= low and array.max() <= high)
