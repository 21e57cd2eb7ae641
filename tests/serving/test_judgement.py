"""The judgement on made-up samples."""

import numpy as np
import pytest
from scipy import stats

from serving.config import DeploymentConfig
from serving.judgement import Sample, clopper_pearson, hodges_lehmann, judge, newcombe
from serving.target import Answer

NEW = "d" * 64
CONFIG = DeploymentConfig()


def samples(n, *, errors=0, seed=0, scale=1.0, shift=0.0, skew=0.0, digest=NEW, expected=True):
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        score = float(np.clip(rng.beta(2, 3) + shift, 0, 1))
        latency = float(5 * scale * rng.lognormal(0, 0.3))
        wrong = i < errors
        answer = Answer(
            "v2",
            digest,
            None if wrong else score,
            None if wrong else score >= 0.5,
            latency,
            "500" if wrong else None,
        )
        made.append(Sample(answer, score + skew if expected else None))
    return made


def outcomes(judgement):
    return {check.name: check.outcome for check in judgement.checks}


def test_a_challenger_that_behaves_as_the_champion_passes():
    judgement = judge(samples(300), samples(105, seed=1), NEW, CONFIG, looks=6)
    assert judgement.outcome == "pass"
    assert [c.name for c in judgement.checks] == [
        "identity",
        "errors",
        "training-serving skew",
        "latency",
        "scores",
        "flags",
    ]
    assert all(str(c.n) and c.sentence and c.method for c in judgement.checks)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ({"errors": 25}, "errors"),
        ({"scale": 4.0}, "latency"),
        ({"shift": 0.6}, "scores"),
        ({"shift": 0.6}, "flags"),
        ({"skew": 0.001}, "training-serving skew"),
        ({"digest": "e" * 64}, "identity"),
    ],
)
def test_each_fault_fails_its_own_check(fault, check):
    judgement = judge(samples(300), samples(105, seed=1, **fault), NEW, CONFIG, looks=6)
    assert judgement.outcome == "fail" and outcomes(judgement)[check] == "fail"


def test_one_wrong_score_or_one_stranger_is_enough():
    good = samples(105, seed=1)
    for fault in ({"skew": 0.01}, {"digest": "e" * 64}):
        assert judge(samples(300), [*good, *samples(1, **fault)], NEW, CONFIG).outcome == "fail"


def test_one_slow_request_changes_nothing():
    slow = samples(105, seed=1) + samples(1, scale=1000.0)
    assert judge(samples(300), slow, NEW, CONFIG, looks=6).outcome == "pass"


def test_latencies_are_compared_side_by_side_only():
    later = [
        Sample(s.answer, s.expected, side_by_side=False) for s in samples(70, scale=20.0, seed=2)
    ]
    assert judge(samples(300), samples(70, seed=1) + later, NEW, CONFIG).outcome == "pass"
    alone = judge(samples(300), later, NEW, CONFIG)
    assert outcomes(alone)["latency"] == "inconclusive" and alone.outcome == "inconclusive"


@pytest.mark.parametrize(("baseline", "canary"), [(0, 0), (300, 0), (0, 105), (300, 3), (3, 105)])
def test_too_little_data_never_passes(baseline, canary):
    judgement = judge(samples(baseline), samples(canary, seed=1), NEW, CONFIG, looks=6)
    assert judgement.outcome == "inconclusive"


def test_a_first_release_is_held_against_absolute_bounds():
    assert judge(None, samples(105), NEW, CONFIG).outcome == "pass"
    assert judge(None, samples(105, errors=40), NEW, CONFIG).outcome == "fail"
    assert judge(None, samples(105, errors=6), NEW, CONFIG).outcome == "inconclusive"
    assert judge(None, samples(20), NEW, CONFIG).outcome == "inconclusive"
    unknown = judge(None, samples(105, expected=False), NEW, CONFIG)
    assert unknown.outcome == "inconclusive"


def test_looks_share_the_chance_of_a_false_rollback():
    few = samples(105, errors=7, seed=1)
    assert judge(samples(300), few, NEW, CONFIG, looks=1).outcome == "fail"
    assert judge(samples(300), few, NEW, CONFIG, looks=10_000).outcome != "fail"


def test_intervals_are_those_of_the_literature():
    # Newcombe 1998, table II, method 10, case (a): 56/70 - 48/80 and (g): 9/10 - 3/10.
    assert newcombe(56, 70, 48, 80, 0.05) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    assert newcombe(9, 10, 3, 10, 0.05) == pytest.approx((0.1705, 0.8090), abs=1e-4)
    exact = stats.binomtest(7, 105).proportion_ci(0.99, "exact")
    assert clopper_pearson(7, 105, 0.01) == pytest.approx((exact.low, exact.high))
    assert clopper_pearson(0, 10, 0.05)[0] == 0 and clopper_pearson(10, 10, 0.05)[1] == 1


def test_the_shift_and_its_interval_invert_the_mann_whitney_test():
    rng = np.random.default_rng(5)
    a, b = rng.normal(0, 1, 40), rng.normal(0.4, 1, 25)
    estimate, low, high = hodges_lehmann(a, b, 0.05)
    assert estimate == pytest.approx(np.median(np.subtract.outer(b, a)))
    for bound in (low, high):
        p = stats.mannwhitneyu(b - bound, a, method="asymptotic", use_continuity=False).pvalue
        assert p == pytest.approx(0.05, abs=0.01)
    assert hodges_lehmann(a[:2], b[:2], 0.05)[1:] == (-np.inf, np.inf)
