"""NIfTI volumes that nobody vouches for: read within bounds, turned one way, written without text.

The header is 348 or 540 bytes and may hold free text (`descrip`, `aux_file`, `db_name`), and the
extensions behind it whole DICOM headers. Neither is parsed, let alone written.
"""

import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.reasons import SetAside

if TYPE_CHECKING:
    from imaging.config import Range
    from imaging.deidentification.verifying.verify import Leak

NIFTI = "application/x-nifti"
MAX_BYTES = 2**29  # of voxels, unpacked: a CT of 1000 slices
HEAD_BYTES = 512  # of a file, compressed or not, that are enough to tell it by

_GZIP = b"\x1f\x8b\x08"
_SINGLE_FILE = {1: (344, b"n+1\0"), 2: (4, b"n+2\0\r\n\x1a\n")}  # where the magic number stands
_HEADER_BYTES = {1: 348, 2: 540}
_TEXTS = ("data_type", "db_name", "intent_name", "descrip", "aux_file")
_TO_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
PLACED_BY_DICOM = 2.0  # in place of `space > 0` in a geometry, which NIfTI gives otherwise
_CLOSE_MM = 0.05  # between the corners of two grids that are the same


@dataclass(frozen=True, eq=False)
class Volume:
    """A volume as stored: its values are `slope * array + intercept`.

    Attributes:
        array: (F, H, W), integers or floats. Columns run to the patient's left, rows to the back
            and frames to the head, as in an axial DICOM series, unless `space` is 0.
        affine: (4, 4), from column, row and frame to millimetres right, anterior, superior (RAS+,
            as NIfTI has it).
        space: NIfTI's code of what the affine refers to (1 scanner, 2 aligned, 3 Talairach,
            4 MNI 152); 0: nothing says how the patient lies, and axes are as they were stored.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    space: int
    slope: float = 1.0
    intercept: float = 0.0
    declared: tuple[float, float] | None = None  # the range of values that the file asks to show

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Between frames, rows and columns."""
        column, row, frame = (float(np.linalg.norm(self.affine[:3, i])) for i in range(3))
        return frame, row, column

    @property
    def orientation(self) -> str | None:
        """As in (0020,0020): where columns and rows run to."""
        return "L\\P" if self.space else None

    @property
    def geometry(self) -> list[float]:
        """What two volumes on the same grid have in common, for `same_grid`."""
        return [float(v) for v in (*self.array.shape, self.space > 0, *self.affine[:3].ravel())]


def same_grid(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two `Volume.geometry` put each voxel at the same place, to 0.05 mm."""
    if list(one[:4]) != list(other[:4]):
        return False
    if not one[3]:  # without a place in the patient, equal axes are all that can be asked for
        return True
    frames, rows, columns = one[:3]
    corners = np.array([[0, 0, 0, 1], [columns, 0, 0, 1], [0, rows, 0, 1], [0, 0, frames, 1]]).T
    places = [np.reshape(g[4:], (3, 4)) @ corners for g in (one, other)]
    return bool(np.abs(places[0] - places[1]).max() < _CLOSE_MM)


def looks_like_nifti(head: bytes) -> bool:
    """True for a single-file NIfTI-1 or -2, plain or compressed, by its first 512 bytes."""
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(31).decompress(head, HEAD_BYTES)
        except zlib.error:
            return False
    return _version(head) is not None


def stored_volume(data: bytes) -> Volume:
    """Read one NIfTI file: its declared size is checked before anything of that size is made.

    Raises:
        SetAside: not_an_image, unreadable_header, too_large, truncated, four_dimensional, colour
            or undecodable_pixels.
    """
    header, shape, dtype, offset = _checked_header(data)
    array_bytes = math.prod(shape) * dtype.itemsize
    if array_bytes > MAX_BYTES or offset > 2**20:
        raise SetAside("too_large")
    whole = _unpacked(data, offset + array_bytes)
    if len(whole) < offset + array_bytes:
        raise SetAside("truncated")
    array = np.frombuffer(whole, dtype, math.prod(shape), offset).reshape(shape[::-1])
    with _honest_header():
        return _turned(array.astype(dtype.newbyteorder("="), copy=False), header)


def as_seen(volume: Volume, value_range: "Range | None" = None) -> NDArray[np.float32]:
    """Scale to float32 (F, H, W) in 0..1, by `value_range` where it is given.

    Otherwise integers of up to 16 bits have the range of their type, as DICOM's have; wider ones
    and floating-point values the one that the header asks to show (`cal_min`, `cal_max`). What is
    no number counts as the lowest.

    Raises:
        SetAside: float_pixels, where there is no such range.
    """
    dtype = volume.array.dtype
    if value_range is None and dtype.kind in "iu" and dtype.itemsize <= 2:
        limits = np.iinfo(dtype)
        seen = (volume.array.astype(np.float32) - limits.min) / np.float32(limits.max - limits.min)
        return 1 - seen if volume.slope < 0 else seen
    span = (value_range.low, value_range.high) if value_range else volume.declared
    if span is None or not span[0] < span[1]:
        raise SetAside("float_pixels")
    low, high = span
    with np.errstate(all="ignore"):
        seen = (volume.array * volume.slope + (volume.intercept - low)) / (high - low)
    return np.clip(np.nan_to_num(seen, nan=0, posinf=1, neginf=0), 0, 1).astype(np.float32)


def encode(volume: Volume) -> bytes:
    """A compressed NIfTI-1 file that says nothing but grid, scale and values.

    Raises:
        SetAside: too_large, for a side of more than NIfTI-1 can count.
    """
    import nibabel

    if max(volume.array.shape) > np.iinfo(np.int16).max:
        raise SetAside("too_large")
    array = volume.array.astype(volume.array.dtype.newbyteorder("<"), copy=False)
    header = nibabel.Nifti1Header(endianness="<")
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape[::-1])
    header.set_sform(volume.affine, code=volume.space)
    header.set_qform(volume.affine, code=volume.space)  # leaves shears to the sform
    header.set_xyzt_units(xyz="mm")
    header["scl_slope"], header["scl_inter"] = volume.slope, volume.intercept
    header["cal_min"], header["cal_max"] = volume.declared or (0, 0)
    header["magic"], header["vox_offset"] = b"n+1", 352
    no_extensions = bytes(4)
    whole = header.binaryblock + no_extensions + np.ascontiguousarray(array).tobytes()
    return gzip.compress(whole, compresslevel=1, mtime=0)


def stored_digest(volume: Volume) -> str:
    """SHA-256 of the voxels as `encode` stores them, and of their scale."""
    array = np.ascontiguousarray(volume.array, volume.array.dtype.newbyteorder("<"))
    return _digest(array.shape, array.dtype, volume.slope, volume.intercept, array.data)


def verify_volume(path: Path, stored: str) -> "list[Leak]":
    """Open a written volume again: its voxels are as they were, and nothing else is in it.

    They are compared as they lie in the file: at 45 degrees rounding decides how axes are turned.

    Args:
        path: The written file.
        stored: The `stored_digest` of what was to be written.
    """
    import nibabel

    from imaging.deidentification.verifying.verify import Leak

    data = path.read_bytes()
    leaks = []
    # RFC 1952: flags (name, comment, extra field) and the time of making are nought.
    if data[3:8] != bytes(5):
        leaks.append(Leak("attributes", "gzip header"))
    unpacker = zlib.decompressobj(31)
    whole = unpacker.decompress(data)
    header = nibabel.Nifti1Header(whole[:348])
    leaks += [Leak("attributes", name) for name in _TEXTS if header[name].tobytes().strip(b"\0")]
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    offset = int(header["vox_offset"])
    end = offset + math.prod(shape) * dtype.itemsize
    if offset != 352 or any(whole[348:352]) or len(whole) != end:
        leaks.append(Leak("attributes", "extensions"))
    if unpacker.unused_data or not unpacker.eof:
        leaks.append(Leak("attributes", "bytes behind the volume"))
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if _digest(shape[::-1], dtype, slope, intercept, whole[offset:end]) != stored:
        leaks.append(Leak("pixels", "PixelData"))
    return sorted(leaks)


def _digest(
    shape: tuple[int, ...], dtype: np.dtype[Any], slope: float, intercept: float, voxels: Any
) -> str:
    digest = hashlib.sha256(f"{shape} {dtype.str} {slope} {intercept} ".encode())
    digest.update(voxels)
    return digest.hexdigest()


def declared_shape(data: bytes) -> tuple[int, int, int]:
    """Frames, rows and columns as they are stored, by the header alone.

    Raises:
        SetAside: As `stored_volume`, but for the voxels.
    """
    _, shape, _, _ = _checked_header(data)
    return shape[2], shape[1], shape[0]


def _checked_header(data: bytes) -> tuple[Any, tuple[int, int, int], np.dtype[Any], int]:
    """The header, and what it declares of the voxels."""
    head = _unpacked(data, max(_HEADER_BYTES.values()))
    version = _version(head)
    if version is None:
        raise SetAside("not_an_image")
    with _honest_header():
        header = _header(head, version)
        return header, *_declared(header)


def _version(head: bytes) -> int | None:
    for version, (place, magic) in _SINGLE_FILE.items():
        if head[place : place + len(magic)] == magic:
            return version
    return None


def _unpacked(data: bytes, at_most: int) -> bytes:
    if not data.startswith(_GZIP):
        return data[:at_most]
    try:
        return zlib.decompressobj(31).decompress(data, at_most)
    except zlib.error:
        raise SetAside("undecodable_pixels") from None


@contextmanager
def _honest_header() -> Iterator[None]:
    try:
        yield
    except SetAside:
        raise
    except MemoryError:
        raise SetAside("too_large") from None
    except Exception:  # nibabel has many; what they say may quote the header
        raise SetAside("unreadable_header") from None


def _header(head: bytes, version: int) -> Any:
    import nibabel

    block = head[: _HEADER_BYTES[version]]
    kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    return kind(block, check=False)  # its checks log what they find


def _declared(header: Any) -> tuple[tuple[int, int, int], np.dtype[Any], int]:
    """Columns, rows and frames; the type of a voxel; where they start."""
    dimensions, *sizes = map(int, header["dim"])
    shape = sizes[:dimensions]
    if not 2 <= dimensions <= 7 or min(shape) < 1:
        raise SetAside("unreadable_header")
    if max(shape[3:], default=1) > 1:
        raise SetAside("four_dimensional")
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.names:  # red, green and blue
        raise SetAside("colour")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise SetAside("undecodable_pixels")
    offset = float(header["vox_offset"])
    if not len(header.binaryblock) <= offset:  # nor no number
        raise SetAside("unreadable_header")
    columns, rows, frames = (*shape, 1)[:3]
    return (columns, rows, frames), dtype, int(min(offset, MAX_BYTES))


def _space(code: int) -> int:
    """A code that NIfTI has no name for says just that the volume lies somewhere."""
    return int(code) if 0 <= code <= 5 else 2  # 5 is a template


def _single(value: float) -> float:
    """As NIfTI-1 says it, in which the volume is written; NIfTI-2 has twice the digits."""
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def _turned(array: NDArray[Any], header: Any) -> Volume:
    """Flip and swap axes, without interpolation, so that they run as `Volume` promises."""
    from nibabel import orientations

    affine, space = header.get_sform(coded=True)
    if not space:
        affine, space = header.get_qform(coded=True)
    if not space:
        affine = header.get_base_affine()
    affine = np.array(affine, dtype=np.float64)
    affine[:3] *= _TO_MM.get(header.get_xyzt_units()[0], 1.0)
    slope, intercept = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (_single(slope), _single(intercept))
    determinant = float(np.linalg.det(affine[:3, :3]))  # not finite if any part is not
    scaled = 0 < abs(slope) < math.inf and math.isfinite(intercept)
    if not (0 < abs(determinant) < math.inf and np.isfinite(affine).all() and scaled):
        raise SetAside("unreadable_header")
    low, high = _single(header["cal_min"]), _single(header["cal_max"])
    declared = (low, high) if -math.inf < low < high < math.inf else None
    if space:
        turn = orientations.ornt_transform(
            orientations.io_orientation(affine), orientations.axcodes2ornt("LPS")
        )
        affine = affine @ orientations.inv_ornt_aff(turn, array.shape[::-1])
        array = orientations.apply_orientation(array.T, turn).T
    return Volume(np.ascontiguousarray(array), affine, _space(space), slope, intercept, declared)
