import numpy as np
import pandas as pd
import pytest

from imaging.config import Drift
from imaging.validation.snapshot_drift import MISSING, changes


def snapshot(seed, patients=100, each=2, first=0, shift=0.0, shares=(0.5, 0.5), gaps=0.0):
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(patients), each)
    ages = rng.normal(50 + 10 * shift, 10, patients)[of]
    return pd.DataFrame(
        {
            "patient_id": [f"p{first + i}" for i in of],
            "age_years": np.where(rng.random(patients)[of] < gaps, np.nan, ages),
            "noise_sigma": rng.normal(size=patients)[of],
            "scanner": rng.choice(["A", "B"], patients, p=shares)[of],
            "label": rng.integers(2, size=patients)[of],
        }
    )


def drifted(*args, **bounds):
    return {c.column for c in changes(*args, Drift(**bounds)) if c.drifted}


def test_what_changed_is_named_and_what_did_not_is_not():
    before = snapshot(0)
    assert drifted(before, snapshot(1, first=1000)) == set()
    assert drifted(before, snapshot(2, first=1000, shift=1.0)) == {"age_years"}
    assert drifted(before, snapshot(3, first=1000, shares=(0.1, 0.9))) == {"scanner"}
    assert drifted(before, snapshot(7, first=1000, gaps=0.7)) == {"age_years, missing or not"}


def test_patients_in_both_neither_count_nor_hide_a_change():
    before = snapshot(0)
    assert changes(before, before, Drift()) == []
    grown = pd.concat([before, snapshot(5, patients=30, first=1000, shares=(0.0, 1.0))])
    (scanner,) = [c for c in changes(before, grown, Drift()) if c.drifted]
    assert (scanner.column, scanner.patients_before, scanner.patients_now) == ("scanner", 100, 30)


def test_many_images_of_a_patient_are_one_patients_evidence():
    one, many = snapshot(0, each=1), snapshot(0, each=20)
    new, news = snapshot(6, first=1000, each=1), snapshot(6, first=1000, each=20)
    alone = {c.column: c.p_value for c in changes(one, new, Drift())}
    assert alone == pytest.approx({c.column: c.p_value for c in changes(many, news, Drift())})


def test_a_visible_effect_is_asked_beside_a_small_p():
    before, now = snapshot(0, patients=4000), snapshot(1, patients=4000, first=9000, shift=0.2)
    (age,) = [c for c in changes(before, now, Drift()) if c.column == "age_years"]
    assert age.adjusted_p_value < 0.01
    assert not age.drifted
    assert drifted(before, now, effect=0.05) == {"age_years"}


def test_too_few_patients_say_nothing():
    assert changes(None, snapshot(0), Drift()) == []
    assert changes(snapshot(0), snapshot(1, patients=19, first=1000), Drift()) == []


def test_a_value_that_is_missing_is_a_value():
    before = snapshot(0)
    now = snapshot(1, first=1000).assign(scanner=None)
    assert drifted(before, now) == {"scanner"}
    assert MISSING not in set(before["scanner"])
