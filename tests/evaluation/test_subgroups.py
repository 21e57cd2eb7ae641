import numpy as np
import pandas as pd
import pytest

from evaluation.config import EvaluationConfig
from evaluation.metrics import METRICS, measure
from evaluation.subgroups import measure_subgroups

CONFIG = EvaluationConfig(
    subgroups=("sex", "scanner"), subgroup_minimum=10, bootstrap_repetitions=200
)


@pytest.fixture
def cases() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], 60)
    return pd.DataFrame(
        {
            "label": labels,
            "score": np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1),
            "patient_id": [f"p{i}" for i in range(120)],
            "sex": ["F"] * 60 + ["M"] * 40 + [None] * 20,
            "scanner": ["A"] * 108 + ["B"] * 12,
        }
    )


def test_each_subgroup_is_measured_by_itself(cases):
    found = measure_subgroups(cases, 0.5, CONFIG)
    assert {by: set(groups) for by, groups in found.items()} == {
        "sex": {"F", "M", "unknown"},
        "scanner": {"A", "B"},
    }
    women = cases[cases["sex"] == "F"]
    alone = measure(women["label"], women["score"], women["patient_id"], 0.5, CONFIG)
    assert found["sex"]["F"] == alone
    assert found["sex"]["unknown"]["auroc"].n == 20


def test_too_few_patients_give_no_number(cases):
    small = measure_subgroups(cases, 0.5, CONFIG)["scanner"]["B"]
    assert set(small) == set(METRICS)
    assert small["expected_calibration_error"].estimate is not None  # 12 patients
    for name in ("auroc", "sensitivity", "specificity"):  # 6 of each class
        assert small[name].estimate is None
        assert small[name].reason.startswith("n too small: 6 patients")


def test_one_class_only_says_so(cases):
    found = measure_subgroups(cases[cases["label"] == 1], 0.5, CONFIG)
    assert found["sex"]["F"]["auroc"].reason == "only one class"
    assert found["sex"]["F"]["sensitivity"].estimate is not None


def test_no_cases_no_subgroups(cases):
    assert measure_subgroups(cases.iloc[:0], 0.5, CONFIG) == {"sex": {}, "scanner": {}}
