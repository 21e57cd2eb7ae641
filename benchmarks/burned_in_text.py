"""How much of a text in the pixels the detector finds, and what else it takes for one.

    python benchmarks/burned_in_text.py [--draws 25] [--radiographs FOLDER] > burned_in_text.md

Invented names, dates and numbers are drawn at random places into phantom radiographs (512 x 512)
and, where a folder of PNG is given, into real ones. Letters are lighter than their place by a
contrast that is a share of the image's whole range (darker, where the place is bright). A text
counts as masked if at least 95 % of its ink lies in the regions found, as missed below 50 %.
Intervals are Wilson's, 95 %.

Beside it, where they are at hand: the package's own pipeline (OpenCV, reading included), and
Tesseract. All run on one thread.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

os.environ["OMP_THREAD_LIMIT"] = os.environ["OMP_NUM_THREADS"] = "1"

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imaging import phantom
from imaging.deidentification import burned_in, ocr
from imaging.deidentification.policy import Region
from imaging.phantom import SCANNERS
from imaging.reading.pixels import read_pixels

FONTS = ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "DejaVuSansMono.ttf", "DejaVuSerif.ttf",
         "STIXGeneral.ttf")  # fmt: skip
FONT_FOLDER = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
TEXTS = ("QUERNSTEIN^ADALBERT", "Quernstein, Adalbert", "MRN 7651234", "03.04.1957", "1957-04-03",
         "Dr. Ilse Vandermeer", "ID: 00-4471-9", "F 62Y")  # fmt: skip
CONTRASTS = (0.1, 0.2, 0.4, 0.8)
MASKED, MISSED = 0.95, 0.5  # shares of ink
Finder = Callable[[np.ndarray], Sequence[Region]]


def share(k: int, n: int) -> str:
    low, high = binomtest(k, n).proportion_ci(method="wilson")
    return f"{k / n:.0%} ({low:.0%}–{high:.0%})"


def draw(image, text, font, letters, contrast, angle, rng):
    """The image with a text whose capitals are so many pixels high, and where its ink lies."""
    face = ImageFont.truetype(str(FONT_FOLDER / font), 100)
    face = face.font_variant(
        size=round(100 * letters / (face.getbbox("H")[3] - face.getbbox("H")[1]))
    )
    left, top, right, bottom = face.getbbox(text)
    stamp = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(stamp).text((-left, -top), text, font=face, fill=255)
    stamp = stamp.rotate(angle, resample=Image.Resampling.BICUBIC, expand=True)
    height, width = image.shape
    if stamp.width > width or stamp.height > height:
        stamp = stamp.crop((0, 0, min(stamp.width, width), min(stamp.height, height)))
    x = int(rng.integers(0, width - stamp.width + 1))
    y = int(rng.integers(0, height - stamp.height + 1))
    ink = np.zeros(image.shape, np.float32)
    ink[y : y + stamp.height, x : x + stamp.width] = np.asarray(stamp, np.float32) / 255
    place = image[y : y + stamp.height, x : x + stamp.width].mean()
    value = place + contrast if place < 0.5 else place - contrast
    return (image * (1 - ink) + ink * np.clip(value, 0, 1)).astype(np.float32), ink > 0.5


def covered(ink: np.ndarray, regions: Sequence[Region]) -> float:
    found = np.zeros(ink.shape, bool)
    for r in regions:
        found[r.y : r.y + r.height, r.x : r.x + r.width] = True
    return float((ink & found).sum() / ink.sum())


def phantoms(count: int) -> list[np.ndarray]:
    """As the cohort's, without their files: those hold 128 columns at most."""
    fine = replace(SCANNERS[0], rows=512, columns=512, pixel_spacing_mm=0.7, blur_mm=0.7)
    images = []
    for number in range(count):
        rng, pair = np.random.default_rng(number), phantom._pair(0, number, [fine])
        drawn = phantom._radiograph(rng, pair, phantom._anatomy(rng, pair), finding=False)
        images.append(phantom._expose(rng, pair, drawn))
    return images


def radiographs(folder: Path, count: int) -> list[np.ndarray]:
    files = sorted(folder.rglob("*.png"))
    return [read_pixels(path) for path in files[:: max(1, len(files) // count)][:count]]


def cases(images, draws, letters, contrast, rng, angle=None, font=None) -> Iterator:
    for i in range(draws):
        text = TEXTS[i % len(TEXTS)]
        yield draw(images[i % len(images)], text, font or str(rng.choice(FONTS)), letters, contrast,
                   0 if angle is None else angle, rng)  # fmt: skip


def by_size_and_contrast(images, sizes, draws, rng) -> None:
    print("| letters, pixels | contrast | masked | missed | masked by a second look, too |")
    print("|---|---|---|---|---|")
    for letters in sizes:
        for contrast in CONTRASTS:
            shares, again = [], []
            for image, ink in cases(images, draws, letters, contrast, rng):
                regions = ocr.find_text(image)
                shares.append(covered(ink, regions))
                if contrast == CONTRASTS[1]:
                    more = ocr.find_text(burned_in.masked(image, regions))
                    again.append(covered(ink, regions + more) >= MASKED)
            k, missed = sum(s >= MASKED for s in shares), sum(s < MISSED for s in shares)
            second = share(sum(again), len(again)) if again else ""
            print(f"| {letters} | {contrast} | {share(k, draws)} | {share(missed, draws)} "
                  f"| {second} |", flush=True)  # fmt: skip


def by_angle_and_font(images, letters, draws, rng) -> None:
    print("| changed | masked |\n|---|---|")
    rows = [(f"turned by {a}°", {"angle": a}) for a in (5, 15, 45, 90, 180)]
    rows += [(f"font {f.removesuffix('.ttf')}", {"font": f}) for f in FONTS]
    for name, change in rows:
        drawn = cases(images, draws, letters, 0.4, rng, **change)
        k = sum(covered(ink, ocr.find_text(image)) >= MASKED for image, ink in drawn)
        print(f"| {name} | {share(k, draws)} |", flush=True)


def finders() -> dict[str, Finder]:
    found: dict[str, Finder] = {"**ours** (detector only)": ocr.find_text}
    try:
        from rapidocr_onnxruntime import RapidOCR

        whole = RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1)
        found["rapidocr-onnxruntime 1.4.4, whole"] = lambda image: [
            around(box) for box, *_ in whole((image * 255).astype(np.uint8))[0] or ()
        ]
    except ImportError:  # the extra is missing, or libGL is
        pass
    if shutil.which("tesseract"):
        version = subprocess.run(["tesseract", "--version"], capture_output=True, text=True).stdout
        found[" ".join(version.split()[:2])] = tesseract
    return found


def around(box: Sequence[Sequence[float]]) -> Region:
    x, y = (int(min(p[i] for p in box)) for i in (0, 1))
    right, bottom = (int(max(p[i] for p in box)) for i in (0, 1))
    return Region(x=max(x, 0), y=max(y, 0), width=max(1, right - x), height=max(1, bottom - y))


def tesseract(image: np.ndarray) -> list[Region]:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        Image.fromarray((image * 255).astype(np.uint8)).save(file.name)
        told = subprocess.run(
            ["tesseract", file.name, "-", "--psm", "11", "tsv"], capture_output=True, text=True
        ).stdout
    words = csv.DictReader(StringIO(told), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [
        Region(x=int(w["left"]), y=int(w["top"]), width=int(w["width"]), height=int(w["height"]))
        for w in words
        if (w["text"] or "").strip() and float(w["conf"]) >= 0
    ]


def side_by_side(sets: dict[str, list[np.ndarray]], letters: int, draws: int) -> None:
    print("| what | images | masked | regions where nothing was drawn | their area | s per image |")
    print("|---|---|---|---|---|---|")
    for images_name, images in sets.items():
        for name, find in finders().items():
            rng = np.random.default_rng(7)  # the same texts for each
            drawn = [c for contrast in CONTRASTS[1:] for c in
                     cases(images, draws, letters, contrast, rng)]  # fmt: skip
            find(images[0])
            start = time.perf_counter()
            k = sum(covered(ink, find(image)) >= MASKED for image, ink in drawn)
            seconds = (time.perf_counter() - start) / len(drawn)
            clean = [find(image) for image in images]
            count = np.mean([len(regions) for regions in clean])
            area = np.mean([covered(np.ones(i.shape, bool), r)
                            for i, r in zip(images, clean, strict=True)])  # fmt: skip
            print(f"| {name} | {images_name} | {share(k, len(drawn))} | {count:.2f} per image "
                  f"| {area:.2%} | {seconds:.2f} |", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=25)
    parser.add_argument("--images", type=int, default=25)
    parser.add_argument("--radiographs", type=Path, help="a folder of real ones, as PNG")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    made = {"phantom, 512 x 512": (phantoms(asked.images), (8, 16, 32))}
    if asked.radiographs:
        real = radiographs(asked.radiographs, asked.images)
        made[f"real, {real[0].shape[1]} x {real[0].shape[0]}"] = (real, (6, 10, 16, 24))
    for name, (images, sizes) in made.items():
        print(f"\n#### By size and contrast: {name}, {asked.draws} texts a row\n")
        by_size_and_contrast(images, sizes, asked.draws, rng)
    letters = sizes[len(sizes) // 2]
    print(f"\n#### Turned, and by font: {name}, {letters} pixels, contrast 0.4\n")
    by_angle_and_font(images, letters, asked.draws, rng)
    print("\n#### Side by side, contrasts 0.2 to 0.8\n")
    side_by_side({name: images for name, (images, _) in made.items()}, 16, asked.draws)


if __name__ == "__main__":
    main()
