import gzip
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from imaging.config import Range
from imaging.reading import pixels, volumes
from imaging.reading.volumes import (
    Volume,
    as_seen,
    encode,
    same_grid,
    stored_digest,
    stored_volume,
    verify_volume,
)
from imaging.reasons import SetAside

SECRET = b"Quernstein^Adalbert"


def nifti(array: Any, affine: Any = None, kind: Any = nibabel.Nifti1Image, **fields: Any) -> bytes:
    """As nibabel writes it, with a patient's name wherever text fits."""
    image = kind(array, np.diag([2.0, 3, 4, 1]) if affine is None else affine)
    image.header["descrip"], image.header["aux_file"] = SECRET, SECRET
    extension = nibabel.nifti1.Nifti1Extension("comment", SECRET)
    image.header.extensions.append(extension)
    for name, value in fields.items():
        image.header[name] = value
    return bytes(image.to_bytes())


def numbered(shape: tuple[int, ...], dtype: Any = np.int16) -> Any:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def reason(data: bytes) -> str:
    with pytest.raises(SetAside) as caught:
        stored_volume(data)
    return caught.value.reason


def test_axes_run_as_in_an_axial_dicom_series_however_they_were_stored() -> None:
    array = numbered((5, 4, 3))  # to the right, anterior, superior
    volume = stored_volume(nifti(array))
    assert volume.array.shape == (3, 4, 5)
    # Frame 0 is the lowest; row 0 the foremost; column 0 the rightmost.
    assert volume.array[0, 0, 0] == array[4, 3, 0]
    assert volume.array[2, 3, 4] == array[0, 0, 2]
    assert volume.spacing_mm == (4, 3, 2)
    assert volume.orientation == "L\\P"

    for codes in ("LPS", "SRA", "PIL", "ARS"):
        turned = nibabel.Nifti1Image(array, np.diag([2.0, 3, 4, 1]))
        start = nibabel.orientations.io_orientation(turned.affine)
        way = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(codes))
        again = stored_volume(bytes(turned.as_reoriented(way).to_bytes()))
        assert np.array_equal(again.array, volume.array), codes
        assert same_grid(again.geometry, volume.geometry), codes


@settings(max_examples=30, deadline=None)
@given(
    array=arrays.arrays(
        st.sampled_from([np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64]),
        st.tuples(*[st.integers(1, 5)] * 3),
    ),
    compressed=st.booleans(),
    kind=st.sampled_from([nibabel.Nifti1Image, nibabel.Nifti2Image]),
    turn=st.permutations(range(3)),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_what_is_written_says_the_same_to_another_reader(
    array: Any, compressed: bool, kind: Any, turn: list[int], flips: tuple[int, ...]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * flips * (1, 2, 3))[turn]
    affine[:3, 3] = (10, -20, 30)
    data = nifti(array, affine, kind)
    written = encode(stored_volume(gzip.compress(data) if compressed else data))
    assert SECRET not in data.replace(SECRET, b"") + gzip.decompress(written)
    one, other = (
        nibabel.as_closest_canonical(image)
        for image in (
            kind.from_bytes(data),
            nibabel.Nifti1Image.from_bytes(gzip.decompress(written)),
        )
    )
    assert np.array_equal(one.dataobj, other.dataobj, equal_nan=True)
    assert np.allclose(one.affine, other.affine)
    assert written == encode(stored_volume(written))


def test_scale_is_kept_and_applied_once() -> None:
    array = numbered((2, 2, 2))
    volume = stored_volume(nifti(array, scl_slope=2, scl_inter=-10))
    assert (volume.slope, volume.intercept) == (2, -10)
    again = nibabel.Nifti1Image.from_bytes(gzip.decompress(encode(volume)))
    # Values 2 * 0 - 10 to 2 * 7 - 10, whatever their order.
    assert sorted(again.get_fdata().ravel()) == list(range(-10, 5, 2))
    assert sorted(as_seen(volume, Range(low=-10, high=4)).ravel()) == pytest.approx(
        [i / 7 for i in range(8)]
    )


def test_the_check_passes_a_scale_of_more_digits_than_are_written(tmp_path: Path) -> None:
    """NIfTI-2 has 64 bits for what NIfTI-1 says in 32."""
    scaled = nifti(numbered((5, 4, 3)), kind=nibabel.Nifti2Image)
    scaled = put(scaled, 176, "<2d", 0.1, -1000.3)
    shown = nifti(numbered((5, 4, 3), np.float64), kind=nibabel.Nifti2Image)
    shown = put(shown, 192, "<2d", 41.7, 0.3)  # cal_max, cal_min
    for data, value_range in ((scaled, Range(low=-1000, high=-990)), (shown, None)):
        volume = stored_volume(data)
        path = written(tmp_path, encode(volume))
        assert verify_volume(path, stored_digest(volume)) == []
        again = as_seen(stored_volume(path.read_bytes()), value_range)
        assert np.array_equal(again, as_seen(volume, value_range))
    for slope, intercept in ((1e300, 0), (1e-300, 0), (1, 1e300)):
        assert reason(put(scaled, 176, "<2d", slope, intercept)) == "unreadable_header"


def test_integers_are_seen_by_their_type_and_a_negative_slope_inverts() -> None:
    array = np.array([0, 255], np.uint8).reshape(2, 1, 1)
    assert as_seen(stored_volume(nifti(array))).ravel().tolist() == [1, 0]  # right to left
    inverted = stored_volume(nifti(array, scl_slope=-1, scl_inter=0))
    assert as_seen(inverted).ravel().tolist() == [0, 1]
    signed = np.array([-32768, 32767], np.int16).reshape(2, 1, 1)
    assert as_seen(stored_volume(nifti(signed))).ravel().tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_values_without_a_range_need_one(dtype: Any) -> None:
    array = np.array([-50, 0, 50, 200], dtype).reshape(4, 1, 1)
    with pytest.raises(SetAside) as caught:
        as_seen(stored_volume(nifti(array)))
    assert caught.value.reason == "float_pixels"
    asked = as_seen(stored_volume(nifti(array)), Range(low=0, high=100))
    assert asked.ravel().tolist() == [1, 0.5, 0, 0]
    declared = as_seen(stored_volume(nifti(array, cal_min=-50, cal_max=50)))
    assert declared.ravel().tolist() == [1, 1, 0.5, 0]


def test_what_is_no_number_counts_as_the_lowest() -> None:
    array = np.array([np.nan, np.inf, -np.inf, 50], np.float32).reshape(4, 1, 1)
    seen = as_seen(stored_volume(nifti(array)), Range(low=0, high=100))
    assert seen.ravel().tolist() == [0.5, 0, 1, 0]


def test_without_a_place_in_space_axes_stay_and_no_orientation_is_told() -> None:
    array = numbered((5, 4, 3))
    volume = stored_volume(put(nifti(array), 252, "<2h", 0, 0))
    assert np.array_equal(volume.array, array.T)
    assert (volume.orientation, volume.spacing_mm) == (None, (4, 3, 2))
    placed = stored_volume(nifti(array))
    assert not same_grid(volume.geometry, placed.geometry)
    assert same_grid(volume.geometry, stored_volume(encode(volume)).geometry)


def test_grids_differ_by_place_or_spacing_not_by_rounding() -> None:
    grid = Volume(np.zeros((3, 4, 5)), np.diag([2.0, 3, 4, 1]), 1)
    moved, stretched, rounded = (grid.affine.copy() for _ in range(3))
    moved[0, 3], stretched[1, 1], rounded[2, 2] = 1, 3.1, 4.00001
    for affine, same in ((moved, False), (stretched, False), (rounded, True)):
        other = Volume(grid.array, affine, 1)
        assert same_grid(grid.geometry, other.geometry) is same


def test_a_space_without_a_name_is_still_a_space() -> None:
    for code in (77, -1):
        volume = stored_volume(put(nifti(numbered((5, 4, 3))), 254, "<h", code))
        assert stored_volume(encode(volume)).orientation == "L\\P"


def test_metres_and_microns_become_millimetres() -> None:
    array = numbered((2, 2, 2))
    image = nibabel.Nifti1Image(array, np.diag([0.002, 0.003, 0.004, 1]))
    image.header.set_xyzt_units(xyz="meter")
    assert stored_volume(bytes(image.to_bytes())).spacing_mm == pytest.approx((4, 3, 2))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:351], "truncated"),
        (lambda data: data[:340], "not_an_image"),
        (lambda data: put(data, 40, "<h", 0), "unreadable_header"),  # no dimension
        (lambda data: put(data, 40, "<h", 2000), "unreadable_header"),
        (lambda data: put(data, 42, "<h", -3), "unreadable_header"),
        (lambda data: put(data, 48, "<h", 2, at_40=4), "four_dimensional"),
        (lambda data: put(data, 42, "<3h", 32767, 32767, 32767), "too_large"),
        (lambda data: put(data, 70, "<h", 128), "colour"),
        (lambda data: put(data, 70, "<h", 32), "undecodable_pixels"),  # complex
        (lambda data: put(data, 70, "<h", 1), "undecodable_pixels"),  # bits
        (lambda data: put(data, 70, "<h", 999), "unreadable_header"),
        (lambda data: put(data, 108, "<f", float("nan")), "unreadable_header"),
        (lambda data: put(data, 108, "<f", -1e30), "unreadable_header"),
        (lambda data: put(data, 108, "<f", 1e30), "too_large"),
        (lambda data: put(data, 280, "<4f", 0, 0, 0, 0), "unreadable_header"),  # a flat volume
        (lambda data: put(data, 280, "<f", float("inf")), "unreadable_header"),
        (lambda data: put(data, 112, "<2f", 1, float("inf")), "unreadable_header"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_bad_file_gets_its_true_reason(
    change: Callable[[bytes], bytes], told: str, compressed: bool
) -> None:
    data = change(nifti(numbered((5, 4, 3))))
    assert reason(gzip.compress(data) if compressed else data) == told


def put(data: bytes, position: int, form: str, *values: Any, at_40: int | None = None) -> bytes:
    whole = bytearray(data)
    struct.pack_into(form, whole, position, *values)
    if at_40 is not None:
        struct.pack_into("<h", whole, 40, at_40)
    return bytes(whole)


def test_a_small_file_that_inflates_to_a_gibibyte_is_inflated_no_further_than_it_declares() -> None:
    head = nifti(np.zeros((8, 8, 8), np.uint8))[:352]
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(
        [packer.compress(head), *(packer.compress(bytes(2**24)) for _ in range(64)), packer.flush()]
    )
    assert len(bomb) < 2**21
    tracemalloc.start()
    try:
        assert stored_volume(bomb).array.shape == (8, 8, 8)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    claims_more = nifti(np.zeros((8, 8, 8), np.uint8))
    assert reason(gzip.compress(put(claims_more, 42, "<3h", 2000, 2000, 2000))) == "too_large"


@settings(max_examples=200, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(0, 500),
)
def test_any_header_is_read_or_set_aside(edits: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(nifti(numbered((5, 4, 3))))
    for position, value in edits:
        data[position] = value
    try:
        volume = stored_volume(bytes(data[: len(data) - cut]))
        seen = as_seen(volume, Range(low=0, high=1))
        assert np.array_equal(stored_volume(encode(volume)).array, volume.array, equal_nan=True)
    except SetAside:
        return
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_it_is_told_by_its_first_bytes() -> None:
    for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
        data = nifti(numbered((5, 4, 3)), kind=kind)
        named = gzip.GzipFile("Quernstein.nii", "wb", fileobj=(stream := _Stream()))
        named.write(data)
        named.close()
        for head in (data, gzip.compress(data), bytes(stream.data)):
            assert pixels.media_type(head[: volumes.HEAD_BYTES]) == volumes.NIFTI
    assert not volumes.looks_like_nifti(gzip.compress(b"a table"))
    assert not volumes.looks_like_nifti(b"\x1f\x8b\x08 no gzip")


class _Stream:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def flush(self) -> None:
        pass


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "written"
    path.write_bytes(data)
    return path


def test_the_check_of_a_written_volume_finds_what_should_not_be_there(tmp_path: Path) -> None:
    volume = stored_volume(nifti(numbered((5, 4, 3))))
    digest, clean = stored_digest(volume), encode(volume)
    whole = gzip.decompress(clean)
    named = bytearray(clean)
    named[3], named[10:10] = 8, b"Quernstein\0"  # FNAME
    tampered = bytearray(whole)
    tampered[400] ^= 1
    for data, attributes in (
        (clean, []),
        (bytes(named), ["gzip header"]),
        (gzip.compress(whole, mtime=1), ["gzip header"]),
        (gzip.compress(put(whole, 148, "10s", b"Quernstein"), mtime=0), ["descrip"]),
        (gzip.compress(put(whole, 228, "10s", b"Quernstein"), mtime=0), ["aux_file"]),
        (gzip.compress(put(whole, 14, "10s", b"Quernstein"), mtime=0), ["db_name"]),
        (gzip.compress(put(whole, 348, "b", 1), mtime=0), ["extensions"]),
        (gzip.compress(whole + SECRET, mtime=0), ["extensions"]),
        (clean + SECRET, ["bytes behind the volume"]),
        (gzip.compress(bytes(tampered), mtime=0), ["PixelData"]),
        (gzip.compress(put(whole, 112, "<f", 2), mtime=0), ["PixelData"]),  # the scale
        (gzip.compress(put(whole, 70, "<h", 512), mtime=0), ["PixelData"]),  # another type
    ):
        leaks = verify_volume(written(tmp_path, data), digest)
        assert [leak.attribute for leak in leaks] == attributes


def test_the_check_passes_a_volume_that_lies_between_two_axes(tmp_path: Path) -> None:
    """At 45 degrees the last digit decides which way an axis runs, and writing rounds it."""
    half = np.sqrt(0.5)
    about_x = np.array([[1, 0, 0, 0], [0, half, -half, 0], [0, half, half, 0], [0, 0, 0, 1]])
    about_y = np.array([[half, 0, -half, 0], [0, 1, 0, 0], [half, 0, half, 0], [0, 0, 0, 1]])
    for affine in (about_x, about_y, about_x @ about_y, about_y @ about_x):
        volume = stored_volume(nifti(numbered((5, 4, 3)), affine))
        assert verify_volume(written(tmp_path, encode(volume)), stored_digest(volume)) == []


def test_real_volumes_come_out_as_another_reader_sees_them(real_data: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    files = sorted((real_data / "hippocampus" / "images").iterdir())[:8]
    for file in files:
        volume = stored_volume(file.read_bytes())
        image = sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPS")
        assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)
        assert image.GetSpacing()[::-1] == pytest.approx(volume.spacing_mm)
    assert len(files) == 8
