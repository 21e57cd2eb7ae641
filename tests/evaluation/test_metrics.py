import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from evaluation.config import EvaluationConfig
from evaluation.metrics import METRICS, measure

CONFIG = EvaluationConfig(bootstrap_repetitions=200)


def test_every_metric_against_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    scores = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(2)
    who = rng.integers(0, 80, 120)
    found = measure(labels, scores, who, 0.5, CONFIG)
    (tn, fp), (fn, tp) = confusion_matrix(labels, scores >= 0.5)
    assert tuple(found) == METRICS
    assert found["auroc"].estimate == pytest.approx(roc_auc_score(labels, scores))
    assert found["sensitivity"].estimate == pytest.approx(tp / (tp + fn))
    assert found["specificity"].estimate == pytest.approx(tn / (tn + fp))
    assert found["sensitivity"].n_patients == len(set(who[labels == 1]))
    assert all(i.low <= i.estimate <= i.high for i in found.values())


def test_a_score_at_the_threshold_reads_as_positive():
    found = measure([1, 1, 0, 0], [0.5, 0.4, 0.5, 0.4], range(4), 0.5, CONFIG)
    assert (found["sensitivity"].estimate, found["specificity"].estimate) == (0.5, 0.5)


def test_one_class_only_gives_what_it_can():
    found = measure([1] * 6, np.linspace(0.1, 0.9, 6), range(6), 0.5, CONFIG)
    assert found["auroc"].reason == "only one class"
    assert found["specificity"].estimate is None
    assert found["sensitivity"].estimate == 0.5


def test_nobody_at_all():
    found = measure([], [], [], 0.5, CONFIG)
    assert all(i.estimate is None and i.reason for i in found.values())


@pytest.mark.parametrize("bad", [float("nan"), 1.2, -0.1])
def test_a_score_that_is_no_probability_is_refused(bad):
    with pytest.raises(ValueError, match="probabilities"):
        measure([1, 0], [0.5, bad], [1, 2], 0.5, CONFIG)
