"""The ROC curve and the calibration of a model as points, for those who draw them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from evaluation.calibration import equal_mass
from evaluation.config import EvaluationConfig
from evaluation.intervals import proportion

POINTS = 200  # of a ROC curve: more than a page can show


def curves(
    labels: ArrayLike, scores: ArrayLike, patients: ArrayLike, config: EvaluationConfig
) -> dict[str, Any]:
    """Both curves of one model on one set of images, as JSON values.

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) probabilities.
        patients: (N,) any identifiers.
        config: Says how many bins.

    Returns:
        roc: [1 - specificity, sensitivity] from (0, 0) to (1, 1), empty with one class only.
        calibration: per equal-mass bin: mean `score`, observed `frequency` with its interval
            `low` and `high` (None for a single patient), `n` images.
    """
    y, s, who = np.asarray(labels).astype(bool), np.asarray(scores), np.asarray(patients)
    return {"roc": _roc(y, s), "calibration": _calibration(y, s, who, config.calibration_bins)}


def _roc(y: np.ndarray, s: np.ndarray) -> list[list[float]]:
    if y.all() or not y.any():
        return []
    order = np.argsort(-s, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(s[order])), len(s) - 1]  # tied scores are one step
    hits, alarms = np.cumsum(y[order])[ends] / y.sum(), np.cumsum(~y[order])[ends] / (~y).sum()
    points = np.r_[[[0.0, 0.0]], np.c_[alarms, hits]]
    chosen = np.unique(
        np.linspace(0, len(points) - 1, min(len(points), POINTS)).round().astype(int)
    )
    return [[float(x), float(y)] for x, y in points[chosen]]


def _calibration(y: np.ndarray, s: np.ndarray, who: np.ndarray, bins: int) -> list[dict[str, Any]]:
    if not len(y):
        return []
    bin_of, count = equal_mass(s, bins)
    found = []
    for number in range(count):
        here = bin_of == number
        seen = proportion(y[here], who[here])
        frequency = float(y[here].mean())
        found.append(
            {
                "score": float(s[here].mean()),
                "frequency": frequency,
                "low": seen.low,
                "high": seen.high,
                "n": int(here.sum()),
            }
        )
    return found
