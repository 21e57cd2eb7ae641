import numpy as np
import pandas as pd
import pytest

from imaging.manifest import STATISTICS
from monitoring.alarms import judge
from monitoring.config import MonitoringConfig
from monitoring.drift import Difference, comparable, differences

CONFIG = MonitoringConfig()


def difference(p, effect=1.0, kind="number", column="sharpness"):
    return Difference(
        column=column,
        kind=kind,
        method="ks",
        p_value=p,
        effect=effect,
        n_reference=300,
        n_current=300,
    )


def test_too_few_requests_give_no_verdict():
    verdict = judge([difference(1e-9)], 49, CONFIG)
    assert verdict.outcome == "insufficient"
    assert verdict.sentence == "insufficient: 49 requests count, 50 are needed"
    assert judge([difference(1e-9)], 50, CONFIG).outcome == "drift"
    assert judge([], 50, CONFIG).outcome == "insufficient"


@pytest.mark.parametrize("kind", ["number", "category"])
def test_what_is_sure_but_small_is_no_drift(kind):
    assert judge([difference(1e-9, 0.09, kind)], 300, CONFIG).outcome == "no drift"
    assert judge([difference(1e-9, 0.11, kind)], 300, CONFIG).outcome == "drift"


def test_p_values_are_corrected_for_their_number():
    assert judge([difference(0.005)], 300, CONFIG).outcome == "drift"
    many = [difference(0.005), *(difference(0.5) for _ in range(19))]
    verdict = judge(many, 300, CONFIG)
    assert verdict.outcome == "no drift"
    assert verdict.columns[0].adjusted_p == pytest.approx(0.1)
    # Step-up: four that are small together hold each other up, 4 * 0.001 * 20 / 4 = 0.02 > 0.01.
    few = [*(difference(0.0004 * i) for i in range(1, 5)), *(difference(0.5) for _ in range(16))]
    assert [j.drifted for j in judge(few, 300, CONFIG).columns[:4]] == [True] * 4


def test_an_alarm_can_demand_several_columns():
    config = MonitoringConfig(minimum_drifted_columns=2)
    one = [difference(1e-9, column="a"), difference(0.9, column="b")]
    assert judge(one, 300, config).outcome == "no drift"
    two = [difference(1e-9, column="a"), difference(1e-8, 0.3, column="b")]
    verdict = judge(two, 300, config)
    assert verdict.outcome == "drift"
    assert verdict.sentence == (
        "drift: 2 of 2 columns drifted over 300 requests; an alarm takes 2; "
        "a (effect 1, adjusted p < 0.001); b (effect 0.3, adjusted p < 0.001)"
    )


def sample(rng, n, shift=0.0):
    common = rng.normal(size=(n, 1))
    own = rng.normal(size=(n, len(STATISTICS)))
    table = pd.DataFrame(np.sqrt(0.7) * common + np.sqrt(0.3) * own, columns=list(STATISTICS))
    return (table + shift).assign(manufacturer=rng.choice(["A", "B"], n))


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0, 6), (0.6, 95, 100)])
def test_alarms_are_rare_without_and_common_with_a_change(shift, low, high):
    """100 draws; at the promised 1 %, more than 6 false alarms have probability 7e-5."""
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        columns, _ = comparable(sample(rng, 300), sample(rng, 150, shift))
        alarms += judge(differences(columns), 150, CONFIG).outcome == "drift"
    assert low <= alarms <= high
