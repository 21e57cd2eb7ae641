"""Which altered copies of radiographs the perceptual hash finds, and which strangers it mistakes.

    python benchmarks/near_duplicates.py FOLDER [--patients TABLE] > near_duplicates.md

FOLDER holds PNG or JPEG images; TABLE is a CSV with the columns `image` and `patient_id`. Each
image is altered in each way, and counts as found if its hash lies within the distance. Intervals
are Clopper and Pearson's, 95 %; of pairs, which are not independent, they are too short.
"""

import argparse
import sys
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from imaging.validation.near_duplicates import MAX_DISTANCE, near_pairs, perceptual_hash

DISTANCES = (16, MAX_DISTANCE, 40)


def as_jpeg(image, quality):
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("L")


def cut(image, share):
    width, height = image.size
    x, y = round(width * share / 2), round(height * share / 2)
    return image.crop((x, y, width - x, height - y))


COPIES = {
    "JPEG, quality 95": lambda i: as_jpeg(i, 95),
    "JPEG, quality 50": lambda i: as_jpeg(i, 50),
    "half the size": lambda i: i.resize((i.width // 2, i.height // 2)),
    "a quarter of the size": lambda i: i.resize((i.width // 4, i.height // 4)),
    "brighter by 10 % of the range": lambda i: i.point([min(255, v + 25) for v in range(256)]),
    "contrast x 1.2": lambda i: i.point([min(255, round(v * 1.2)) for v in range(256)]),
    "gamma 0.8": lambda i: i.point([round(255 * (v / 255) ** 0.8) for v in range(256)]),
    "cut by 2 %": lambda i: cut(i, 0.02),
    "cut by 5 %": lambda i: cut(i, 0.05),
    "turned by 1 degree": lambda i: i.rotate(1, Image.Resampling.BILINEAR),
    "turned by 3 degrees": lambda i: i.rotate(3, Image.Resampling.BILINEAR),
    "mirrored (not meant to be found)": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "inverted (not meant to be found)": lambda i: i.point([255 - v for v in range(256)]),
}


def hashed(image):
    return perceptual_hash(np.asarray(image, dtype=np.float32) / 255)


def exact(k, n):
    from scipy.stats import beta

    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return low, high


def share(k, n):
    low, high = exact(k, n)
    return f"{k / n:.1%} ({low:.1%} to {high:.1%})"


def bits(hashes):
    return np.array([np.frombuffer(bytes.fromhex(h), np.uint64) for h in hashes])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=Path)
    arguments = parser.parse_args()
    paths = sorted(p for p in arguments.folder.rglob("*") if p.suffix in (".png", ".jpg"))
    images = [Image.open(path).convert("L") for path in paths]
    start = time.perf_counter()
    originals = [hashed(image) for image in images]
    each_ms = (time.perf_counter() - start) / len(images) * 1000
    print(f"{len(images)} images; {each_ms:.1f} ms for each hash.\n")

    heads = [f"found within {d} of 256 bits" for d in DISTANCES]
    print(f"| copy | {' | '.join(heads)} | bits, median | bits, most |")
    print("|---" * (len(DISTANCES) + 3) + "|")
    own = bits(originals)
    for name, alter in COPIES.items():
        copies = bits([hashed(alter(image)) for image in images])
        apart = np.bitwise_count(own ^ copies).sum(axis=1)
        cells = [share(int((apart <= d).sum()), len(apart)) for d in DISTANCES]
        print(f"| {name} | {' | '.join(cells)} | {np.median(apart):.0f} | {apart.max()} |")

    if arguments.patients:
        table = pd.read_csv(arguments.patients)
        of = {Path(i).name: p for i, p in zip(table["image"], table["patient_id"], strict=True)}
        patients = np.array([of[path.name] for path in paths])
        first, second = np.triu_indices(len(paths), 1)
        apart = np.bitwise_count(own[first] ^ own[second]).sum(axis=1)
        print(f"\n| pairs | number | closest | {' | '.join(heads)} |\n|---|---|---|---|---|---|")
        for name, chosen in (
            ("different patients", patients[first] != patients[second]),
            ("one patient, other images", patients[first] == patients[second]),
        ):
            cells = [share(int((apart[chosen] <= d).sum()), chosen.sum()) for d in DISTANCES]
            print(f"| {name} | {chosen.sum()} | {apart[chosen].min()} | {' | '.join(cells)} |")

    print("\n| hashes | near pairs found | seconds, all pairs within the default |\n|---|---|---|")
    rng = np.random.default_rng(0)
    for n in (1_000, 10_000, 100_000):
        # Drawn around the real ones, so that buckets fill unevenly and some pairs are near.
        drawn = own[rng.integers(len(own), size=n)].copy()
        flips = np.packbits(rng.random((n, 256)) < 0.1, axis=1).view(np.uint64)
        names = [row.tobytes().hex() for row in drawn ^ flips]
        start = time.perf_counter()
        pairs = near_pairs(names)
        print(f"| {n} | {len(pairs)} | {time.perf_counter() - start:.1f} |", flush=True)


if __name__ == "__main__":
    main()
