"""Whether a score of 0.8 means that eight in ten such images are positive."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evaluation.intervals import LEVEL, Interval, absent

_TAIL = (1 - LEVEL) / 2
_IMAGES_PER_BIN = 20
_BLOCK = 4_000_000  # resampled patients held at once


def expected_calibration_error(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike,
    *,
    bins: int = 10,
    repetitions: int = 2000,
    seed: int = 0,
    minimum: int = 2,
) -> Interval:
    """Mean distance between score and observed frequency, over equal-mass bins of the scores.

    What is estimated is the sum over bins of |share of positives - mean score|, weighted by the
    bin's share of images. The plain sum T is biased upwards, for noise has no negative length, and
    its percentile bootstrap twice so: on a perfectly calibrated model that interval never held
    the truth. So the bootstrap over patients only supplies the noise, and the interval is the set
    of errors under which the T that was seen is not surprising (test inversion: Carpenter 1999,
    J. R. Statist. Soc. B 61:159). The estimate is the error under which T is the median.
    Three choices, all towards the longer interval:

    - which bins hold the error is unknown: for the lower limit it lies as observed, for the upper
      spread evenly, the arrangement that hides most of it;
    - a bin without a single error among its images shows no noise of its own: it gets at least a
      binomial's, at the rate with one success and one failure added, patients counted;
    - a T below what noise alone would give must not read as certainty: for the upper limit T is
      at least the median of noise.

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) probabilities.
        patients: (N,) any identifiers.
        bins: At most this many, and 20 images each on average.
        repetitions: Bootstrap samples of patients.
        seed: Same seed, same interval.
        minimum: Patients needed.
    """
    y, s = np.asarray(labels, dtype=float), np.asarray(scores, dtype=float)
    _, codes = np.unique(np.asarray(patients), return_inverse=True)
    clusters = int(codes.max()) + 1 if len(y) else 0
    if clusters < minimum:
        reason = f"n too small: {clusters} patients, {minimum} needed" if clusters else "no images"
        return absent(reason, patients)

    bin_of, count = equal_mass(s, bins)
    gaps = np.zeros((clusters, count))
    np.add.at(gaps, (codes, bin_of), y - s)
    images = np.bincount(codes).astype(float)
    gap = gaps.sum(axis=0) / len(y)
    rng = np.random.default_rng(seed)
    noise = _resampled(gaps, images, repetitions, rng) - gap

    weight = np.bincount(bin_of) / len(y)
    rate = np.bincount(bin_of, y) / np.bincount(bin_of)
    here = np.array([len(np.unique(codes[bin_of == b])) for b in range(count)])
    noise *= np.sqrt(here / np.maximum(here - 1, 1))  # resampling k patients shows (k-1)/k of it
    guess = (rate * here + 1) / (here + 2)
    missing = weight**2 * guess * (1 - guess) / here - noise.var(axis=0)
    wide = noise + np.sqrt(missing.clip(min=0)) * rng.standard_normal(noise.shape)

    seen = float(np.abs(gap).sum())
    as_observed = gap / seen if seen else weight
    spread = weight * np.where(gap < 0, -1, 1)
    floor = float(np.median(np.abs(wide).sum(axis=1)))
    estimate = _error_where(seen, noise, as_observed, 0.5)
    return Interval(
        estimate=estimate,
        low=min(estimate, _error_where(seen, wide, as_observed, 1 - _TAIL)),
        high=max(estimate, _error_where(max(seen, floor), wide, spread, _TAIL)),
        n=len(y),
        n_patients=clusters,
        method=f"{count} equal-mass bins, bootstrap over patients by test inversion",
    )


def equal_mass(scores: NDArray[np.float64], bins: int) -> tuple[NDArray[np.int64], int]:
    """Bin of each image, by rank, and how many: at most `bins`, and 20 images each on average.

    Equal scores share a bin, so the order of rows is no matter.
    """
    from scipy.stats import rankdata

    bins = min(bins, max(1, len(scores) // _IMAGES_PER_BIN))
    place = (rankdata(scores) - 0.5) / len(scores) * bins
    found, bin_of = np.unique(place.astype(int), return_inverse=True)
    return bin_of, len(found)


def _resampled(
    gaps: NDArray[np.float64],
    images: NDArray[np.float64],
    repetitions: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Weighted gap per bin in samples of patients drawn with replacement: (repetitions, bins)."""
    clusters = len(images)
    block = max(1, _BLOCK // clusters)
    parts = []
    for start in range(0, repetitions, block):
        rows = min(block, repetitions - start)
        drawn = rng.integers(clusters, size=(rows, clusters))
        drawn += np.arange(rows)[:, np.newaxis] * clusters
        times = np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        parts.append(times @ gaps / (times @ images)[:, np.newaxis])
    return np.concatenate(parts)


def _error_where(
    seen: float, noise: NDArray[np.float64], direction: NDArray[np.float64], share: float
) -> float:
    """The error, 0..1, at which `share` of the samples show at most `seen`; they fall with it."""

    def at_most(error: float) -> float:
        return float(np.mean(np.abs(noise + error * direction).sum(axis=1) <= seen))

    low, high = 0.0, 1.0
    if at_most(low) <= share:
        return low
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (middle, high) if at_most(middle) > share else (low, middle)
    return (low + high) / 2
