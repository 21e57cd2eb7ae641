"""Finding text in pixels with PP-OCR's text detector, whose model the extra `ocr` brings.

Only the detector runs: what a text says is never read, so nothing of it can leak. Its network is
run by onnxruntime, which is here anyway; the package's own code would load OpenCV, and with that
libGL, which a server's image lacks. Network: M. Liao et al., "Real-time scene text detection with
differentiable binarization", AAAI 2020, as trained for PP-OCRv4 (Apache 2.0).
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.deidentification.policy import Region
from lineage.errors import BadInput

PACKAGE = "rapidocr_onnxruntime"
MODEL = "models/ch_PP-OCRv4_det_infer.onnx"
MODEL_SHA256 = "d2a7720d45a54257208b1e13e36a8479894cb74155a5efe29462512d42f49da9"

SHORT_SIDE, LONG_SIDE = 736, 2048  # pixels that an image is brought between before it is searched
TILE, OVERLAP = 1024, 128  # pixels; a tile bounds the memory that the network takes
STRIDE = 32  # of the network: a tile's sides are multiples of it
# Faint text on a bright chest is found, and fewer ribs are, once all places have the same contrast.
NEAR, AROUND = 12, 24  # pixels: standard deviations of what brightness and contrast are taken over
FLAT = 0.01  # of the image's range: noise below it is not blown up
TEXT = 0.3  # the network's probability from which a pixel belongs to text
SURE = 0.5  # mean probability of a group of such pixels that counts
SHORTEST, LONGEST = 3, 8  # pixels, of a group's sides, at least: noise makes smaller ones
# The network marks the core of a line of text, about 0.35 of its letters' height.
THICKEST = 0.04  # of the image's short side: letters of a ninth of it; ribs are broader
GROWTH = 3.0  # of area over perimeter, from core to line; PP-OCR takes 1.6, and cuts letters
REACH = 5.0  # of the core's breadth, at both ends: faint letters there are overlooked
OUTLYING = 10  # times the range of nearly all pixels: then that one is searched, too
FRAMES = 3  # of a multi-frame image, besides what is brightest and darkest over all


def warm_up() -> None:
    """Load the model; a worker does so before its memory is bounded.

    Raises:
        BadInput: The extra `ocr` is not installed, or its model is not the one measured here.
    """
    _detector()


def find_text(displayed: NDArray[np.float32]) -> tuple[Region, ...]:
    """Where text seems to be.

    Args:
        displayed: (H, W), (H, W, 3), (F, H, W) or (F, H, W, 3), dark to bright in any range.
            Of many frames the first, the middle and the last are searched, and what is brightest
            and darkest over all, where a text that stays shows.

    Returns:
        Rectangles in pixels of the image, in the order of the scan; the same for all frames.

    Raises:
        BadInput: The extra `ocr` is not installed.
    """
    found = {region for picture in _pictures(displayed) for region in _search(picture)}
    return tuple(sorted(found, key=lambda r: (r.y, r.x, r.height, r.width)))


def _pictures(displayed: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The grey pictures (H, W) in 0..1 to search."""
    if displayed.ndim > 2 and displayed.shape[-1] == 3:
        displayed = displayed.max(axis=-1)  # a text of pure blue is as bright as a white one
    numbers = displayed[np.isfinite(displayed)]
    if 0 < numbers.size < displayed.size:
        low, high = float(numbers.min()), float(numbers.max())
        displayed = np.nan_to_num(displayed, nan=low, posinf=high, neginf=low)
    frames = displayed if displayed.ndim == 3 else displayed[None]
    chosen = sorted({round(i) for i in np.linspace(0, len(frames) - 1, FRAMES)})
    pictures = [frames[i] for i in chosen]
    if len(frames) > 1:
        pictures += [frames.max(axis=0), frames.min(axis=0)]
    for picture in pictures:
        low, *most, high = np.percentile(picture.astype(np.float64), (0, 0.1, 99.9, 100))
        ranges = [(low, high)]
        if high - low > OUTLYING * (most[1] - most[0]):  # a hot pixel, beside which all is dark
            ranges.append((most[0], most[1]))
        for darkest, brightest in ranges:
            if brightest > darkest:
                scaled = (picture.astype(np.float64) - darkest) / (brightest - darkest)
                yield np.clip(scaled, 0, 1).astype(np.float32)


def _search(picture: NDArray[np.float32]) -> Iterator[Region]:
    """Search one picture, scaled and cut into tiles."""
    from PIL import Image

    height, width = picture.shape
    scale = min(max(1.0, SHORT_SIDE / min(height, width)), LONG_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = _even(np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)))
    for top in _starts(size[1]):
        for left in _starts(size[0]):
            tile = scaled[top : top + TILE, left : left + TILE]
            for y0, x0, y1, x1 in _boxes(_probabilities(tile), THICKEST * min(size)):
                # Whole pixels of the image that the box touches, and one more on each side.
                y, x = int((top + y0) / scale) - 1, int((left + x0) / scale) - 1
                bottom, right = -int(-(top + y1) // scale) + 1, -int(-(left + x1) // scale) + 1
                y, x, bottom, right = max(y, 0), max(x, 0), min(bottom, height), min(right, width)
                if y < bottom and x < right:
                    yield Region(x=x, y=y, width=right - x, height=bottom - y)


def _even(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same brightness and contrast everywhere: three deviations from the mean fill 0..1."""
    from scipy.ndimage import gaussian_filter

    detail = picture - gaussian_filter(picture, NEAR)
    contrast = np.sqrt(gaussian_filter(detail**2, AROUND)) + FLAT
    return np.asarray(np.clip(0.5 + detail / contrast / 6, 0, 1), dtype=np.float32)


def _starts(length: int) -> list[int]:
    """Where tiles begin, so that each pixel and each seam lies well within one."""
    if length <= TILE:
        return [0]
    count = -(-(length - OVERLAP) // (TILE - OVERLAP))
    return [round(i * (length - TILE) / (count - 1)) for i in range(count)]


def _probabilities(tile: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely each pixel of a tile lies in the core of a text."""
    height, width = tile.shape
    padded = np.pad(tile, ((0, -height % STRIDE), (0, -width % STRIDE)), mode="edge")
    grey = np.broadcast_to(2 * padded - 1, (1, 3, *padded.shape))
    (found,) = _detector().run(None, {"x": np.ascontiguousarray(grey, dtype=np.float32)})
    return np.asarray(found[0, 0, :height, :width], dtype=np.float32)


def _boxes(
    probability: NDArray[np.float32], thickest: float
) -> Iterator[tuple[float, float, float, float]]:
    """Top, left, bottom and right of each line of text, grown from its core to its whole."""
    from scipy import ndimage

    cores, count = ndimage.label(probability > TEXT, structure=np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    means = ndimage.mean(probability, cores, numbers)
    areas = np.bincount(cores.ravel())[1:]
    for (rows, columns), mean, area in zip(ndimage.find_objects(cores), means, areas, strict=True):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if min(height, width) < SHORTEST or max(height, width) < LONGEST:
            continue
        length = float(np.hypot(height, width))
        thickness = area / length  # of a line at any angle
        if mean < SURE or thickness > thickest:
            continue
        out = GROWTH * area / (2 * (length + thickness))
        down, across = out, out
        if width > height:
            across += REACH * thickness
        else:
            down += REACH * thickness
        yield rows.start - down, columns.start - across, rows.stop + down, columns.stop + across


@cache
def _detector() -> Any:
    """The network, with one thread and no arena: memory that it kept would count against a file."""
    import onnxruntime

    package = find_spec(PACKAGE)  # found, not imported
    if package is None or package.origin is None:
        raise BadInput(
            "text_in_pixels.ocr needs a text detector that is not installed: "
            "pip install 'lightbox-mlops[ocr]', or set ocr to false"
        )
    model = (Path(package.origin).parent / MODEL).read_bytes()
    if hashlib.sha256(model).hexdigest() != MODEL_SHA256:
        raise BadInput(
            f"text_in_pixels.ocr: {MODEL} of the package {PACKAGE} is not the text detector that "
            "was measured; install 'lightbox-mlops[ocr]' with the pins of requirements.lock"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
