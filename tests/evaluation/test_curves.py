import json

import numpy as np
import pytest
from scipy.special import expit

from evaluation.config import EvaluationConfig
from evaluation.curves import POINTS, curves
from evaluation.intervals import auroc


def cohort(n: int):
    rng = np.random.default_rng(0)
    logit = 1.5 * rng.standard_normal(n)
    return (rng.random(n) < expit(logit)).astype(int), expit(logit), np.arange(n)


def test_the_area_under_the_curve_is_the_auroc_ties_too():
    labels, scores, who = cohort(150)
    scores = scores.round(1)
    x, y = np.array(curves(labels, scores, who, EvaluationConfig())["roc"]).T
    assert np.trapezoid(y, x) == pytest.approx(auroc(labels, scores, who).estimate)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)


def test_a_large_test_set_makes_no_large_file():
    found = curves(*cohort(20_000), EvaluationConfig())
    assert len(found["roc"]) <= POINTS
    assert len(json.dumps(found, allow_nan=False)) < 20_000


def test_a_calibrated_model_lies_on_the_diagonal_and_bins_hold_all_images():
    bins = curves(*cohort(20_000), EvaluationConfig())["calibration"]
    assert sum(b["n"] for b in bins) == 20_000
    assert len(bins) == 10
    for b in bins:
        assert b["score"] == pytest.approx(b["frequency"], abs=0.03)
        assert b["low"] <= b["frequency"] <= b["high"]


def test_one_class_only_has_no_roc_curve():
    assert curves([1, 1], [0.2, 0.9], [1, 2], EvaluationConfig())["roc"] == []
