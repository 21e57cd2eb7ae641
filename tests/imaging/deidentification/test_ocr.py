"""Text is found where it is drawn, also in a confined worker; none where there is none."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from imaging import worker
from imaging.deidentification import ocr
from imaging.deidentification.burned_in import masked, text_regions
from imaging.deidentification.policy import Region, TextInPixels
from imaging.reading.pixels import read_pixels
from lineage.errors import BadInput

NAME = "QUERNSTEIN 1957"
LOOKING = TextInPixels(action="mask", ocr=True, trust_ocr=True)


def radiograph(size: tuple[int, int] = (300, 400)) -> Any:
    """Smooth shades with noise, 0..1."""
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    noise = np.random.default_rng(0).normal(0, 0.01, size)
    return (0.4 + 0.2 * np.sin(7 * x) * np.cos(5 * y) + noise).astype(np.float32)


def written(
    image: Any, x: int, y: int, letters: int = 14, value: float = 1.0, angle: int = 0
) -> tuple[Any, Any]:
    """The image with a name in it, and where its ink lies."""
    stamp = Image.new("L", (letters * 12, letters * 2))
    font = ImageFont.load_default(size=letters)
    ImageDraw.Draw(stamp).text((2, 2), NAME, font=font, fill=255)
    stamp = stamp.crop(stamp.getbbox()).rotate(angle, expand=True)
    layer = Image.new("L", image.shape[::-1])
    layer.paste(stamp, (x, y))
    ink = np.asarray(layer, np.float32) / 255
    return (image * (1 - ink) + value * ink).astype(np.float32), ink > 0.5


def covered(ink: Any, regions: tuple[Region, ...]) -> float:
    found = np.zeros(ink.shape, bool)
    for r in regions:
        found[r.y : r.y + r.height, r.x : r.x + r.width] = True
    return float((ink & found).sum() / ink.sum())


@pytest.mark.parametrize(
    ("letters", "value", "angle"),
    [(10, 1.0, 0), (14, 0.0, 0), (24, 1.0, 0), (14, 0.75, 0), (14, 1.0, 90), (14, 1.0, 30)],
)
def test_text_is_found_and_not_all_is_text(letters: int, value: float, angle: int) -> None:
    image, ink = written(radiograph(), 60, 50, letters, value, angle)
    regions = ocr.find_text(image)
    assert covered(ink, regions) >= 0.95
    assert sum(r.width * r.height for r in regions) < image.size / 3
    copy = masked(image, regions)
    assert (copy[ink] == copy.min()).mean() >= 0.95


def test_no_text_in_a_picture_without() -> None:
    assert ocr.find_text(radiograph()) == ()
    assert ocr.find_text(np.full((50, 40), 0.5, np.float32)) == ()


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (40, 30)])
def test_any_shape_is_looked_at(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(shape).astype(np.float32)
    for r in ocr.find_text(image):
        assert 0 <= r.y < r.y + r.height <= shape[0]
        assert 0 <= r.x < r.x + r.width <= shape[1]


@pytest.mark.parametrize(("x", "y"), [(850, 30), (900, 600), (1500, 880)])
def test_a_large_image_is_looked_at_in_tiles(x: int, y: int) -> None:
    image, ink = written(radiograph((950, 1800)), x, y)
    assert covered(ink, ocr.find_text(image)) >= 0.95


def test_tiles_cover_everything_and_overlap() -> None:
    for length in (1, ocr.TILE, ocr.TILE + 1, 1900, ocr.LONG_SIDE):
        starts = ocr._starts(length)
        assert starts[0] == 0
        assert starts[-1] == max(0, length - ocr.TILE)
        steps = np.diff(starts)
        assert (steps <= ocr.TILE - ocr.OVERLAP).all()


def test_text_of_one_colour_and_of_one_frame() -> None:
    image, ink = written(np.full((120, 260), 0.2, np.float32), 30, 40)
    blue = np.stack([np.full_like(image, 0.2), np.full_like(image, 0.2), image], axis=-1)
    assert covered(ink, ocr.find_text(blue)) >= 0.95
    plain = np.full_like(image, 0.2)
    frames = np.stack([plain, image, plain, plain, plain, plain, plain])
    assert covered(ink, ocr.find_text(frames)) >= 0.95  # the brightest over all frames
    assert covered(ink, ocr.find_text(1 - frames)) >= 0.95  # the darkest


def test_values_that_are_no_numbers_hide_no_text() -> None:
    """Floating-point volumes commonly say so of what lies outside the body."""
    image, ink = written(radiograph(), 60, 50)
    image[-40:] = np.nan
    image[0, :3] = np.inf, -np.inf, np.nan
    assert covered(ink, ocr.find_text(image)) >= 0.95
    assert covered(ink, ocr.find_text(np.stack([image, image]))) >= 0.95
    assert ocr.find_text(np.full((2, 40, 40), np.nan, np.float32)) == ()


def test_a_few_extreme_values_hide_no_text() -> None:
    image, ink = written(radiograph(), 60, 50)
    image[3, 3], image[-4, -4] = 1e30, -1e30
    assert covered(ink, ocr.find_text(image)) >= 0.95


def test_numbers_of_any_range(dicom_dataset: Callable[..., Any]) -> None:
    """A dim signed image, its polarity turned, is searched as a reader would see it."""
    image, ink = written(radiograph(), 60, 50)
    stored = (image * 300 - 900).astype(np.int16)
    source = dicom_dataset(
        stored, PhotometricInterpretation="MONOCHROME1", BurnedInAnnotation="YES"
    )
    regions = text_regions(source, stored, LOOKING)
    assert covered(ink, regions) >= 0.95
    copy = masked(stored, regions, source)
    assert (copy[ink] == stored.max()).mean() >= 0.95


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "PACKAGE", "no_such_detector")
    ocr._detector.cache_clear()
    with pytest.raises(BadInput, match=r"lightbox-mlops\[ocr\]"):
        ocr.warm_up()
    monkeypatch.undo()
    ocr.warm_up()


def test_another_model_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "MODEL", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    ocr._detector.cache_clear()
    with pytest.raises(BadInput, match="not the text detector that was measured"):
        ocr.warm_up()


def test_neither_opencv_nor_a_display_is_needed() -> None:
    code = (
        "import sys; from imaging.deidentification import ocr; ocr.warm_up(); "
        "print([m for m in ('cv2', 'rapidocr_onnxruntime') if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == "[]"


def searcher(setup: str) -> Callable[[str], Any]:
    """The task of a worker: how much of a saved image's ink is found."""
    from imaging.deidentification import ocr

    ocr.warm_up()

    def search(name: str) -> Any:
        with np.load(Path(setup) / name) as saved:
            return covered(saved["ink"], ocr.find_text(saved["image"]))

    return search


def test_it_runs_in_a_confined_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, ink = written(radiograph((1100, 1060)), 300, 500, 24)
    np.savez(tmp_path / "large.npz", image=image, ink=ink)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (answer,) = worker.map_isolated(
        "test_ocr:searcher",
        str(tmp_path),
        ["large.npz"],
        timeout_s=120,
        memory_gib=1.0,
        processes=1,
    )
    assert isinstance(answer, float), answer
    assert answer >= 0.95


def test_real_radiographs_keep_their_lungs(real_data: Path) -> None:
    """What it takes for text is markers: letters at the margins, few and small."""
    images = [read_pixels(p) for p in sorted((real_data / "chest" / "images").glob("*.png"))[::180]]
    shares = []
    for image in images:
        found = np.zeros(image.shape, bool)
        for r in ocr.find_text(image):
            found[r.y : r.y + r.height, r.x : r.x + r.width] = True
        shares.append(found.mean())
    assert np.mean(shares) < 0.03
