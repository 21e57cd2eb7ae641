"""How often do our intervals hold the truth? Simulated patients with one or two images each.

    python benchmarks/intervals.py > intervals.md

Scores are clustered binormal: half of the variance belongs to the patient, half to the image; a
third of the patients are positive (or, "mixed", a third of the images, whoever they belong to).
"""

import platform
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
from scipy.special import expit, ndtr, ndtri

from evaluation.calibration import expected_calibration_error
from evaluation.intervals import Interval, auroc, auroc_difference, proportion

REPETITIONS = 1000
PATIENTS = (60, 120, 300)
MARGIN = 0.03
Rng = np.random.Generator


def patients_and_noise(rng: Rng, n: int, count: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Patient of each image, and `count` standard normal variables with ICC 0.5."""
    who = np.repeat(np.arange(n), rng.integers(1, 3, n))
    variables = [
        np.sqrt(0.5) * (rng.standard_normal(n)[who] + rng.standard_normal(len(who)))
        for _ in range(count)
    ]
    return who, variables


def binormal(rng: Rng, n: int, areas: tuple[float, ...], correlation: float, mixed: bool):
    """Labels, patients, and one set of scores per AUROC, correlated as given."""
    who, (first, *rest) = patients_and_noise(rng, n, len(areas))
    positive = rng.random(len(who)) < 0.35 if mixed else (rng.random(n) < 0.35)[who]
    noise = [first, *(correlation * first + np.sqrt(1 - correlation**2) * e for e in rest)]
    scores = [e + positive * np.sqrt(2) * ndtri(a) for e, a in zip(noise, areas, strict=True)]
    return positive, who, scores


def calibrated(rng: Rng, n: int, spread: float, shift: float, slope: float):
    """True probabilities, labels drawn by them, and scores that are off by shift and slope."""
    who, (latent, luck) = patients_and_noise(rng, n, 2)
    truth = spread * latent - 0.6
    return who, expit(truth), ndtr(luck) < expit(truth), expit(shift + slope * truth)


def true_calibration_error(case: tuple[float, float, float], bins: int) -> float:
    _, probability, _, score = calibrated(np.random.default_rng(0), 200_000, *case)
    order = np.argsort(score)
    return sum(
        abs((probability - score)[part].sum()) for part in np.array_split(order, bins)
    ) / len(score)


def row(what: str, n: int, truth: float, draw: Callable[[Rng], Interval], repetitions: int) -> str:
    rng = np.random.default_rng(list(f"{what} {n} {truth}".encode()))  # rows are independent
    found = [draw(rng) for _ in range(repetitions)]
    given = [i for i in found if i.estimate is not None]
    low, high = (np.array([getattr(i, side) for i in given]) for side in ("low", "high"))
    mean = np.mean([i.estimate for i in given])
    return (
        f"| {what} | {n} | {truth:.3f} | {mean:.3f} "
        f"| {100 * np.mean((low <= truth + 1e-9) & (truth <= high)):.1f} "
        f"| {100 * np.mean(low > truth + 1e-9):.1f} | {100 * np.mean(high < truth):.1f} "
        f"| {np.mean(high - low):.3f} | {len(given)} |"
    )


def rows() -> Iterator[str]:
    for n in PATIENTS:
        for area in (0.80, 0.90, 0.95, 0.98):
            for mixed in (False, True):

                def draw(rng: Rng, n=n, area=area, mixed=mixed) -> Interval:
                    positive, who, (scores,) = binormal(rng, n, (area,), 0, mixed)
                    return auroc(positive, scores, who)

                yield row("AUROC" + ", mixed" * mixed, n, area, draw, 2 * REPETITIONS)
    for n in PATIENTS:
        for share in (0.70, 0.85, 0.95):

            def draw(rng: Rng, n=n, share=share) -> Interval:
                who, (latent,) = patients_and_noise(rng, n, 1)
                return proportion(latent < ndtri(share), who)

            yield row("proportion", n, share, draw, 2 * REPETITIONS)
    for n in PATIENTS:
        for area in (0.83, 0.90, 0.97):
            for correlation in (0.6, 0.9):

                def draw(rng: Rng, n=n, area=area, correlation=correlation) -> Interval:
                    areas = (area - MARGIN, area)
                    positive, who, scores = binormal(rng, n, areas, correlation, False)
                    return auroc_difference(positive, *scores, who)

                what = f"difference at the margin, champion {area:.2f}, r {correlation}"
                yield row(what, n, -MARGIN, draw, 2 * REPETITIONS)
    for spread, kind in ((1.5, "soft"), (5.0, "sharp")):
        for n in PATIENTS:
            for shift, slope in ((0, 1), (0.3, 1), (0, 2), (1, 1)):
                bins = min(10, int(1.5 * n) // 20)

                def draw(rng: Rng, n=n, case=(spread, shift, slope)) -> Interval:
                    who, _, positive, scores = calibrated(rng, n, *case)
                    seed = int(rng.integers(2**31))
                    return expected_calibration_error(
                        positive, scores, who, repetitions=200, seed=seed
                    )

                truth = true_calibration_error((spread, shift, slope), bins)
                what = f"ECE, {kind}, shift {shift}, slope {slope}"
                yield row(what, n, truth, draw, REPETITIONS)


def main() -> None:
    start = time.perf_counter()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy"))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {versions}; "
        f"95 % intervals, {2 * REPETITIONS} repetitions a row ({REPETITIONS} for the ECE); Monte "
        "Carlo standard error of a coverage of 95 %: 0.5 (0.7) points. The gate's "
        'type-I error at the margin is the column "too high" of the difference, nominally 2.5.\n'
    )
    print("| what | patients | truth | mean estimate | coverage % | too high % | too low % "
          "| mean width | given |\n|" + "---|" * 9)  # fmt: skip
    for line in rows():
        print(line, flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
