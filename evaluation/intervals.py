"""Estimates with intervals that know that a patient's images are not independent of each other.

Every function takes one row per image and the patient it belongs to; patients are the clusters.
How often these intervals hold the truth was simulated: benchmarks/intervals.py.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Interval:
    """A number with how sure we are of it; or no number, and the reason why not.

    Attributes:
        estimate, low, high: All given, or all None.
        n, n_patients: Images and patients behind it.
        method: How the interval was made.
        reason: Why there is no number.
    """

    estimate: float | None
    low: float | None
    high: float | None
    n: int
    n_patients: int
    method: str | None
    level: float = LEVEL
    reason: str | None = None


def absent(reason: str, patients: ArrayLike) -> Interval:
    """No number, because of `reason`."""
    patients = np.asarray(patients)
    return Interval(None, None, None, len(patients), len(np.unique(patients)), None, reason=reason)


def auroc(labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, minimum: int = 2) -> Interval:
    """Area under the ROC curve over images; ties between the classes count half.

    Variance: DeLong's, extended to clusters (Obuchowski 1997, Biometrics 53:567). Interval:
    symmetric on the logit scale (Pepe 2003, p. 107), Student's t with one less than the patients
    in the smaller class, for normal quantiles were too short below 100 patients. With perfect
    separation that variance is 0 and says nothing. Then: among k disjoint pairs of a patient of
    one class and a patient of the other all are in order, which has probability AUROC^k at most,
    so that 0.025^(1/k) is an exact, conservative lower limit (Clopper and Pearson's for k of k).

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) finite.
        patients: (N,) any identifiers.
        minimum: Patients needed in each class.
    """
    return _aurocs(labels, [scores], patients, minimum)[0][0]


def auroc_difference(
    labels: ArrayLike,
    scores: ArrayLike,
    others: ArrayLike,
    patients: ArrayLike,
    minimum: int = 2,
) -> Interval:
    """AUROC of `scores` minus AUROC of `others`, on the same images.

    The two intervals of `auroc` are combined by MOVER (Zou 2007, Psychological Methods 12:399)
    under the correlation that the clustered DeLong covariance gives. The plain interval,
    difference ± t · standard error, let a model that is worse by exactly the margin pass in up
    to 10 % of cases near AUROC 0.97, instead of 2.5 %.
    """
    (one, other), correlation = _aurocs(labels, [scores, others], patients, minimum)
    if one.estimate is None or other.estimate is None:
        return absent(one.reason or other.reason or "", patients)
    down, up = _arms(one)
    other_down, other_up = _arms(other)
    difference = one.estimate - other.estimate
    return Interval(
        estimate=difference,
        low=difference - _combine(down, other_up, correlation),
        high=difference + _combine(up, other_down, correlation),
        n=one.n,
        n_patients=one.n_patients,
        method="MOVER of two clustered DeLong intervals, paired",
    )


def proportion(successes: ArrayLike, patients: ArrayLike, minimum: int = 2) -> Interval:
    """Share of images that are successes.

    Wilson's score interval (1927) with the number of images replaced by an effective one: divided
    by the design effect of the ratio estimator (Rao and Scott 1992, Biometrics 48:577), never
    below 1, and corrected for the number of patients (Korn and Graubard 1998, Survey Methodology
    24:193). Without a single failure, or success, the design effect is unknown: patients count
    instead of images. With one image per patient this is Wilson's interval.

    Args:
        successes: (N,) 0 or 1.
        patients: (N,) any identifiers.
        minimum: Patients needed.
    """
    from scipy.special import ndtri, stdtrit

    x = np.asarray(successes, dtype=float)
    n = len(x)
    _, codes = np.unique(np.asarray(patients), return_inverse=True)
    clusters = int(codes.max()) + 1 if n else 0
    if clusters < minimum:
        return absent(_too_small(clusters, minimum), patients)
    p = float(x.mean())
    if 0 < p < 1:
        residuals = np.bincount(codes, x - p)
        variance = clusters / (clusters - 1) * float(residuals @ residuals) / n**2
        design_effect = max(1.0, variance / (p * (1 - p) / (n - 1)))
        effective = n / design_effect
    else:
        effective = float(clusters)
    effective *= (stdtrit(n - 1, _TAIL) / stdtrit(clusters - 1, _TAIL)) ** 2
    z = float(ndtri(1 - _TAIL))
    centre = (p + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * np.sqrt(p * (1 - p) / effective + (z / 2 / effective) ** 2)
    low, high = max(0.0, float(centre - half)), min(1.0, float(centre + half))
    method = "Wilson on the effective number of images (design effect)"
    # Rounding must not move a limit past an estimate of exactly 0 or 1.
    return Interval(p, min(low, p), max(high, p), n, clusters, method)


def _aurocs(
    labels: ArrayLike, many_scores: list[ArrayLike], patients: ArrayLike, minimum: int
) -> tuple[list[Interval], float]:
    """One interval per set of scores, and the correlation of the first two estimates."""
    positive = np.asarray(labels).astype(bool)
    _, codes = np.unique(np.asarray(patients), return_inverse=True)
    clusters = int(codes.max()) + 1 if len(codes) else 0
    # Patients with at least one image of the class; a patient may count in both.
    with_positive = len(np.unique(codes[positive]))
    with_negative = len(np.unique(codes[~positive]))
    smaller = min(with_positive, with_negative)
    if not smaller:
        nothing = absent("no images" if not clusters else "only one class", patients)
        return [nothing] * len(many_scores), 0.0
    if smaller < minimum:
        nothing = absent(_too_small(smaller, minimum, " in one class"), patients)
        return [nothing] * len(many_scores), 0.0

    areas: list[float] = []
    from_positives: list[NDArray[np.float64]] = []
    from_negatives: list[NDArray[np.float64]] = []
    for scores in many_scores:
        placements = _placements(positive, np.asarray(scores, dtype=float))
        area = float(placements[positive].mean())
        deviations = placements - area
        areas.append(area)
        for sums, chosen in ((from_positives, positive), (from_negatives, ~positive)):
            sums.append(np.bincount(codes[chosen], deviations[chosen], clusters) / chosen.sum())
    p, q = np.array(from_positives), np.array(from_negatives)
    covariance = (
        with_positive / (with_positive - 1) * p @ p.T
        + with_negative / (with_negative - 1) * q @ q.T
        + clusters / (clusters - 1) * (p @ q.T + q @ p.T)
    )
    pairs = min(smaller, clusters // 2)  # a patient with images of both classes is in one pair
    intervals = [
        _auroc_interval(area, float(variance), smaller, pairs, len(codes), clusters, patients)
        for area, variance in zip(areas, covariance.diagonal(), strict=True)
    ]
    spread = np.sqrt(covariance.diagonal().clip(min=0))
    if len(areas) < 2 or not spread.all():
        return intervals, 0.0
    return intervals, float(np.clip(covariance[0, 1] / (spread[0] * spread[1]), -1, 1))


def _auroc_interval(
    area: float,
    variance: float,
    smaller: int,
    pairs: int,
    n: int,
    clusters: int,
    patients: ArrayLike,
) -> Interval:
    from scipy.special import expit, logit, stdtrit

    if area in (0.0, 1.0):
        low, high = (_TAIL ** (1 / pairs), 1.0) if area else (0.0, 1 - _TAIL ** (1 / pairs))
        method = "perfect separation: exact limit from disjoint patient pairs"
        return Interval(area, low, high, n, clusters, method)
    if variance <= 0:
        return absent("the scores do not vary", patients)
    half = -stdtrit(smaller - 1, _TAIL) * np.sqrt(variance) / (area * (1 - area))
    low, high = (float(expit(logit(area) + sign * half)) for sign in (-1, 1))
    return Interval(area, low, high, n, clusters, "clustered DeLong on the logit scale, t")


def _placements(positive: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each image's share of images of the other class that lie on the right side; ties half."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    placements = np.empty(len(scores))
    for chosen in (positive, ~positive):
        below = ranks[chosen] - rankdata(scores[chosen])
        placements[chosen] = below / (~chosen).sum()
    placements[~positive] = 1 - placements[~positive]
    return placements


def _arms(interval: Interval) -> tuple[float, float]:
    assert interval.estimate is not None
    assert interval.low is not None
    assert interval.high is not None
    return interval.estimate - interval.low, interval.high - interval.estimate


def _combine(one: float, other: float, correlation: float) -> float:
    return float(np.sqrt(max(0.0, one**2 + other**2 - 2 * correlation * one * other)))


def _too_small(found: int, needed: int, where: str = "") -> str:
    return f"n too small: {found} patients{where}, {needed} needed"
