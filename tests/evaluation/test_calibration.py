import numpy as np
import pytest
from scipy.special import expit

from evaluation.calibration import expected_calibration_error


def cohort(seed: int, patients: int, shift: float = 0.0, spread: float = 1.5):
    """Labels drawn from true probabilities, and scores that are off by `shift` on the logit."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), rng.integers(1, 3, patients))
    logit = spread * rng.standard_normal(len(who))
    return (rng.random(len(who)) < expit(logit)).astype(int), expit(logit + shift), who


def test_a_calibrated_model_is_not_called_uncalibrated():
    """The plain estimate is about 0.06 here although the truth is 0."""
    found = [expected_calibration_error(*cohort(seed, 150)) for seed in range(20)]
    assert sum(i.low == 0 for i in found) >= 17
    assert np.mean([i.estimate for i in found]) < 0.03


def test_a_constant_shift_is_found_at_its_size():
    labels, scores, who = cohort(0, 4000, shift=1.0)
    found = expected_calibration_error(labels, scores, who)
    truth = np.abs(scores - expit(np.log(scores / (1 - scores)) - 1.0)).mean()
    assert found.estimate == pytest.approx(truth, abs=0.02)
    assert found.low < truth < found.high
    assert found.high - found.low < 0.05


def test_a_known_gap_without_noise():
    """Half of the images at 0.3 and half at 0.9, of which 0.2 and 0.8 are positive: 0.1."""
    labels = np.r_[np.tile([1, 0, 0, 0, 0], 400), np.tile([1, 1, 1, 1, 0], 400)]
    scores = np.r_[np.full(2000, 0.3), np.full(2000, 0.9)]
    found = expected_calibration_error(labels, scores, range(4000))
    assert found.estimate == pytest.approx(0.1, abs=0.003)
    assert found.method.startswith("2 equal-mass bins")  # ties share a bin


def test_same_seed_same_interval_another_seed_nearly_so():
    case = cohort(1, 100, shift=0.5)
    one, again = (expected_calibration_error(*case, seed=3) for _ in range(2))
    other = expected_calibration_error(*case, seed=4)
    assert one == again
    assert other != one
    assert other.high == pytest.approx(one.high, abs=0.02)


def test_row_order_does_not_matter_even_with_ties():
    labels, scores, who = cohort(2, 100, shift=0.5)
    scores = scores.round(1)
    shuffled = np.random.default_rng(0).permutation(len(who))
    one = expected_calibration_error(labels, scores, who)
    two = expected_calibration_error(labels[shuffled], scores[shuffled], who[shuffled])
    assert (one.estimate, one.low, one.high) == pytest.approx((two.estimate, two.low, two.high))


def test_copies_of_images_add_no_certainty():
    labels, scores, _ = cohort(3, 100, shift=1.0)
    who = np.arange(len(labels))
    tripled = (np.repeat(labels, 3), np.repeat(scores, 3))
    once = expected_calibration_error(labels, scores, who, bins=5)
    copies = expected_calibration_error(*tripled, np.repeat(who, 3), bins=5)
    as_if_new = expected_calibration_error(*tripled, np.arange(3 * len(who)), bins=5)
    assert copies.high - copies.low == pytest.approx(once.high - once.low, rel=0.1)
    assert as_if_new.high - as_if_new.low < 0.75 * (once.high - once.low)


def test_no_observed_error_is_not_certainty():
    labels = np.repeat([0, 1], 30)
    found = expected_calibration_error(labels, labels.astype(float), range(60))
    assert found.low == 0
    assert found.estimate == pytest.approx(0, abs=1e-4)
    assert 0.02 < found.high < 0.2  # the rule of three speaks of 0.05 to 0.1 here


def test_one_class_and_constant_scores_still_have_an_answer():
    found = expected_calibration_error([0] * 40, [0.7] * 40, range(40))
    assert found.low < 0.7 <= found.high
    assert found.estimate == pytest.approx(0.7, abs=0.01)


def test_large_sets_are_resampled_in_blocks(monkeypatch):
    import evaluation.calibration as calibration

    case = cohort(5, 60, shift=0.5)
    whole = expected_calibration_error(*case)
    monkeypatch.setattr(calibration, "_BLOCK", 60 * 7)  # numpy draws the same numbers in parts
    assert expected_calibration_error(*case) == whole


@pytest.mark.parametrize("count", [0, 1])
def test_nobody_and_one_patient(count):
    found = expected_calibration_error([1] * count, [0.5] * count, ["a"] * count)
    assert (found.estimate, found.low, found.high) == (None, None, None)
    assert found.reason
