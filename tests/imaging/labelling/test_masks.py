import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from imaging.config import Labels
from imaging.labelling.labels import Label, Mask
from imaging.labelling.masks import examiner, fitted, match_files, read_masks
from imaging.reading import pixels, volumes
from imaging.snapshots import examined, ingested
from imaging.snapshots.ingested import Ingested
from lineage.errors import BadInput

KEY = b"k" * 32
NAMED = {"key": "mask", "classes": ["no", "yes"]}


def png(array: Any, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.asarray(array))
    if mode:
        image = image.convert(mode)
    image.save(buffer, "PNG")
    return buffer.getvalue()


def nifti(array: Any, affine: Any = None, **fields: Any) -> bytes:
    image = nibabel.Nifti1Image(np.asarray(array), np.eye(4) if affine is None else affine)
    image.header["descrip"] = b"Quernstein^Adalbert"
    for name, value in fields.items():
        image.header[name] = value
    return gzip.compress(bytes(image.to_bytes()))


def square(value: int = 1, dtype: Any = np.uint8) -> Any:
    array = np.zeros((6, 8), dtype)
    array[2:4, 3:6] = value
    return array


def read(
    folder: Path,
    tmp_path: Path,
    to: str = "snapshot",
    cache: Path | None = None,
    memory_gib: float = 2,
    **changes: Any,
) -> dict[str, Label]:
    snapshot = tmp_path / to
    snapshot.mkdir(exist_ok=True)
    config = Labels.model_validate(NAMED | changes)
    bounds: Any = {"timeout_s": 60, "memory_gib": memory_gib}
    return read_masks(folder, config, snapshot, key=KEY, cache=cache, **bounds)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "masks"
    path.mkdir()
    return path


def facts(folder: Path, data: bytes, segments: tuple[int | str, ...] = ()) -> dict[str, Any]:
    """What a worker makes of one file; JSON, as it travels."""
    (folder / "mask").write_bytes(data)
    Ingested(folder / "out").close()
    setup = {"masks": str(folder), "folder": str(folder / "out"), "key": KEY.hex()}
    setup |= {"segments": segments}
    return dict(json.loads(json.dumps(examiner(setup)("mask"))))


def written(folder: Path, found: dict[str, Any]) -> Any:
    path = folder / "out" / found["masks"][0]["path"]
    data = path.read_bytes()
    assert b"Quernstein" not in (data if path.suffix == ".png" else gzip.decompress(data))
    if path.suffix == ".png":
        return pixels.stored_picture(data)
    return volumes.stored_volume(data).array


def test_an_image_is_positive_if_its_mask_marks_anything(folder: Path, tmp_path: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "a.png").write_bytes(png(square()))
    (folder / "b.nii.gz").write_bytes(nifti(np.zeros((3, 4, 5), np.uint8)))
    (folder / "deep" / "c.nii").write_bytes(gzip.decompress(nifti(np.ones((3, 4, 5), np.uint8))))
    (folder / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "README.txt").write_text("Masks of Quernstein, Adalbert")
    found = read(folder, tmp_path)
    assert {key: (label.label, label.reason) for key, label in found.items()} == {
        "a": (1, None),
        "b": (0, None),
        "deep/c": (1, None),
        "d": (None, "mask_unreadable"),
    }
    mask = found["a"].mask
    assert mask is not None
    assert (mask.voxels, mask.shape, mask.geometry) == (6, (1, 6, 8), None)
    assert mask.path == f"masks/{mask.sha256[:2]}/{mask.sha256}.png"
    assert np.array_equal(Image.open(tmp_path / "snapshot" / mask.path), square())
    kept = [p for p in (tmp_path / "snapshot").rglob("*") if p.is_file()]
    assert len(kept) == 3


def test_two_masks_for_one_image_must_say_the_same(folder: Path, tmp_path: Path) -> None:
    for name, value in (("a.png", 1), ("a.nii.gz", 1), ("b.png", 0)):
        data = png(square(value)) if name.endswith("png") else nifti(np.ones((3, 4, 5), np.uint8))
        (folder / name).write_bytes(data)
    found = read(folder, tmp_path)
    assert [found[key].conflict for key in ("a", "b")] == [True, False]


def test_a_table_beside_the_masks_says_whose_the_images_are(folder: Path, tmp_path: Path) -> None:
    for name in "abc":
        (folder / f"{name}.png").write_bytes(png(square()))
    (folder / "who.csv").write_text("image,who,sex\nx/a.nii.gz,P1,F\nb.jpeg,P2,M\nb,P3,M\n")
    found = read(folder, tmp_path, key_column="image", patient_column="who", sex_column="sex")
    assert (found["a"].label, found["a"].patient_id, found["a"].sex) == (1, "P1", "F")
    assert found["a"].mask is not None
    assert found["c"].patient_id is None
    (folder / "who.csv").write_text("image,who\na,P1\na,P2\n")
    assert read(folder, tmp_path, key_column="image", patient_column="who")["a"].conflict


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that workers were given; they work in this process."""
    given: list[str] = []

    def here(_: str, setup: Any, items: list[str], **__: Any) -> Iterator[Any]:
        given.extend(items)
        return enumerate(json.loads(json.dumps([*map(examiner(setup), items)])))

    monkeypatch.setattr(examined, "each_isolated", here)
    monkeypatch.setattr(ingested, "AT_REST_NS", 0)  # the tests do not wait
    return given


def test_of_a_grown_folder_only_new_masks_are_opened(
    folder: Path, tmp_path: Path, opened: list[str]
) -> None:
    for name, value in (("a", 1), ("empty", 0)):
        (folder / f"{name}.png").write_bytes(png(square(value)))
    (folder / "empty too.png").write_bytes(png(square(0), "P"))  # other bytes, the same mask
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    first = read(folder, tmp_path, "first", tmp_path / "cache")
    assert len(opened) == 4
    opened.clear()
    (folder / "new.png").write_bytes(png(square(3)))
    grown = read(folder, tmp_path, "grown", tmp_path / "cache")
    assert opened == ["new.png"]
    assert grown == first | {"new": grown["new"]} == read(folder, tmp_path)
    masks = [label.mask for label in grown.values() if label.mask]
    assert len(masks) == 4 and all((tmp_path / "grown" / mask.path).is_file() for mask in masks)


def test_a_kept_mask_that_is_not_as_it_was_written_is_never_used(
    folder: Path, tmp_path: Path, opened: list[str]
) -> None:
    (folder / "a.png").write_bytes(png(square()))
    read(folder, tmp_path, "first", tmp_path / "cache")
    (kept,) = (tmp_path / "cache").glob("*/masks/*/*.png")
    kept.chmod(0o600)
    kept.write_bytes(png(square(9)))
    opened.clear()
    again = read(folder, tmp_path, "again", tmp_path / "cache")["a"].mask
    assert opened == ["a.png"] and again
    assert np.array_equal(Image.open(tmp_path / "again" / again.path), square())


def test_a_mask_that_was_too_large_is_tried_again_with_more_memory(
    folder: Path, tmp_path: Path, opened: list[str]
) -> None:
    (folder / "a.png").write_bytes(png(square()))
    read(folder, tmp_path, "first", tmp_path / "cache")
    opened.clear()
    read(folder, tmp_path, "again", tmp_path / "cache", memory_gib=4)
    assert opened == ["a.png"]


def test_no_memory_holds_whose_image_a_mask_is_of(
    folder: Path, tmp_path: Path, real_data: Path
) -> None:
    """UIDs of segmentations are encrypted; so one key's memory is not another's."""
    source = real_data / "dicom-odd" / "dcmqi" / "segmentations_liver.dcm"
    (folder / "a.dcm").write_bytes(source.read_bytes())
    found = read(folder, tmp_path, cache=tmp_path / "cache")
    kept = b"".join(p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())
    assert found and not any(uid.encode() in kept for uid in found)
    assert read(folder, tmp_path, "again", tmp_path / "cache") == found


def test_no_mask_at_all(folder: Path, tmp_path: Path) -> None:
    (folder / "Quernstein.txt").write_text("no mask")
    for place, says in ((folder, "none of the 1 files"), (folder / "Quernstein.txt", "a folder")):
        with pytest.raises(BadInput, match=says) as caught:
            read(place, tmp_path)
        assert "Quernstein" not in str(caught.value)


def test_images_are_named_as_their_masks_but_for_the_suffix() -> None:
    files = ["x.nii.gz", "deep/y.png", "z.dcm", "1.2.3.4"]
    keys = ["x", "y", "1.2.3.4", "1.2.3"]
    assert match_files(files, keys) == {"x.nii.gz": "x", "deep/y.png": "y", "1.2.3.4": "1.2.3.4"}
    assert match_files(["x.png", "x.dcm", "a/y.png", "b/y.png"], keys) == {}


@pytest.mark.parametrize(
    ("array", "fields"),
    [
        (square(1)[None], {}),
        (square(1, np.float32)[None], {}),
        (square(1, np.int16)[None] * 2, {"scl_slope": 0.5, "scl_inter": 0}),
        (square(1, np.int32)[None], {}),
    ],
)
def test_numbers_mean_what_they_say_however_they_are_stored(
    folder: Path, array: Any, fields: dict[str, Any]
) -> None:
    found = facts(folder, nifti(array, **fields))
    assert found["masks"][0]["voxels"] == 6
    assert written(folder, found).dtype == np.uint8
    assert set(np.unique(written(folder, found))) == {0, 1}


@pytest.mark.parametrize(
    "data",
    [
        nifti(square(1, np.float32)[None] * 0.5),  # a probability
        nifti(-square(1, np.int16)[None]),
        nifti(square(1, np.int32)[None] * 70_000),
        nifti(square(1, np.float32)[None] * np.float32("nan")),
        b"\xff\xd8\xff and the rest of a JPEG",
    ],
    ids=["probability", "negative", "70,000 labels", "not a number", "jpeg"],
)
def test_what_is_no_map_of_whole_numbers_is_told_so(folder: Path, data: bytes) -> None:
    assert facts(folder, data)["reason"] == "mask_unreadable"


def test_more_than_255_labels_and_a_palette_are_read(folder: Path) -> None:
    assert written(folder, facts(folder, nifti(square(1000, np.uint16)[None]))).max() == 1000
    found = facts(folder, png(square(1000, np.uint16)))
    assert written(folder, found).max() == 1000
    image = Image.fromarray(square(3)).convert("P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert set(np.unique(written(folder, facts(folder, buffer.getvalue())))) == {0, 3}


def test_segments_are_picked_by_number(folder: Path) -> None:
    array = square(2)
    array[0] = 5
    assert set(np.unique(written(folder, facts(folder, png(array), (5,))))) == {0, 1}
    assert set(np.unique(written(folder, facts(folder, png(array), (7, 2, 5))))) == {0, 2, 3}
    assert facts(folder, png(array), (7,))["masks"][0]["voxels"] == 0


def mask(shape: tuple[int, int, int], geometry: list[float] | None = None, **more: Any) -> Mask:
    return Mask("masks/x.png", "x", 1, shape, tuple(geometry) if geometry else None, **more)


def test_a_mask_fits_its_image_s_size_and_place(tmp_path: Path) -> None:
    volume = volumes.Volume(np.zeros((3, 4, 5)), np.eye(4), 1)
    moved = volumes.Volume(volume.array, np.diag([1.0, 1, 2, 1]), 1)
    here, there = volume.geometry, moved.geometry
    dicom = [*here[:3], volumes.PLACED_BY_DICOM, *here[4:]]
    for given, geometry, fits in (
        (mask((1, 6, 8)), None, True),
        (mask((1, 8, 6)), None, False),
        (mask((3, 4, 5), here), here, True),
        (mask((3, 4, 5), there), here, False),
        (mask((3, 4, 5)), here, False),  # a picture's mask on a volume
        (mask((3, 4, 5), here), None, False),
        (mask((3, 4, 5)), dicom, True),  # a PNG on a DICOM image
        (mask((3, 4, 5), here), dicom, False),
        (mask((3, 4, 5), dicom), dicom, True),
        (mask((3, 4, 5), dicom), None, True),
    ):
        shape = (1, 6, 8) if given.shape[0] == 1 else (3, 4, 5)
        assert (fitted(given, shape, geometry, tmp_path) is not None) is fits


def test_frames_behind_the_last_marked_one_are_background(folder: Path) -> None:
    found = facts(folder, nifti(np.ones((5, 4, 2), np.uint8)))["masks"][0]
    marked = Mask(found["path"], found["sha256"], found["voxels"], (2, 4, 5), by_frame=True)
    whole = fitted(marked, (4, 4, 5), None, folder / "out")
    assert whole is not None
    values = volumes.stored_volume((folder / "out" / whole.path).read_bytes()).array
    assert [int(frame.max()) for frame in values] == [1, 1, 0, 0]
    assert whole.sha256 in whole.path
    assert whole.voxels == marked.voxels
    assert fitted(marked, (1, 4, 5), None, folder / "out") is None
    assert fitted(mask((2, 4, 5)), (4, 4, 5), None, folder / "out") is None


def test_dicom_that_is_no_segmentation_is_passed_over(
    folder: Path, tmp_path: Path, dicom_bytes: Callable[..., bytes]
) -> None:
    (folder / "a.dcm").write_bytes(dicom_bytes())
    (folder / "b.png").write_bytes(png(square()))
    assert list(read(folder, tmp_path)) == ["b"]


def test_real_masks_lie_on_their_real_volumes(real_data: Path, folder: Path) -> None:
    images = sorted((real_data / "hippocampus" / "images").iterdir())[:5]
    for image in images:
        volume = volumes.stored_volume(image.read_bytes())
        data = (image.parents[1] / "masks" / image.name).read_bytes()
        found = facts(folder, data)["masks"][0]
        made = Mask(
            found["path"], found["sha256"], found["voxels"], tuple(found["shape"]),
            tuple(found["geometry"]),
        )  # fmt: skip
        assert fitted(made, volume.array.shape, volume.geometry, folder / "out") == made
        other = nibabel.Nifti1Image.from_bytes(gzip.decompress(data)).get_fdata()
        assert found["voxels"] == np.count_nonzero(other)
    assert len(images) == 5
