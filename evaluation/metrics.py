"""The metrics of one model on one set of images, and of its subgroups."""

import numpy as np
from numpy.typing import ArrayLike

from evaluation.calibration import expected_calibration_error
from evaluation.config import EvaluationConfig
from evaluation.intervals import Interval, auroc, proportion

METRICS = ("auroc", "sensitivity", "specificity", "expected_calibration_error")


def measure(
    labels: ArrayLike,
    scores: ArrayLike,
    patients: ArrayLike,
    threshold: float,
    config: EvaluationConfig,
    minimum: int = 2,
) -> dict[str, Interval]:
    """Every metric in `METRICS`, each with its interval or the reason why there is none.

    Args:
        labels: (N,) 0 or 1.
        scores: (N,) probabilities of the positive class.
        patients: (N,) any identifiers.
        threshold: A score at or above it reads as positive. It must come from other data than
            these, or sensitivity and specificity are too good.
        minimum: Patients needed behind each number.

    Raises:
        ValueError: A score that is not a probability.
    """
    positive, s, who = np.asarray(labels).astype(bool), np.asarray(scores), np.asarray(patients)
    if not ((s >= 0) & (s <= 1)).all():
        raise ValueError("scores must be probabilities, 0..1")
    read_positive = s >= threshold
    return {
        "auroc": auroc(positive, s, who, minimum),
        "sensitivity": proportion(read_positive[positive], who[positive], minimum),
        "specificity": proportion(~read_positive[~positive], who[~positive], minimum),
        "expected_calibration_error": expected_calibration_error(
            positive,
            s,
            who,
            bins=config.calibration_bins,
            repetitions=config.bootstrap_repetitions,
            seed=config.seed,
            minimum=minimum,
        ),
    }
