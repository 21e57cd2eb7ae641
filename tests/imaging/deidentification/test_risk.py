"""How many patients share what is kept of them."""

import json
from dataclasses import asdict
from datetime import date
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.deidentification.policy import DeidentificationPolicy
from imaging.deidentification.risk import QUASI_IDENTIFIERS, fragment, retained, risk_summary


def table(*rows: tuple[str, str | None, float | None, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["patient_id", "sex", "age_years", "site"])


def test_a_small_cohort_counted_by_hand() -> None:
    rows = table(
        ("a", "F", 50, "X"),
        ("b", "F", 50, "X"),
        ("c", "F", 51, "X"),
        ("d", "M", 50, "X"),
        ("e", "M", 50, "X"),
        ("e", "M", 50, "X"),  # a second image adds no patient
    )
    risk = risk_summary(rows)
    assert risk.patients == 5
    assert risk.quasi_identifiers == ("sex", "age_years", "site")
    whole = risk.classes  # {a, b}, {c}, {d, e}
    assert (whole.k_minimum, whole.unique_patients, whole.maximum_risk) == (1, 1, 1.0)
    assert whole.mean_risk == 3 / 5
    assert whole.share_below_5 == whole.share_below_11 == 1.0
    changes = {c.change: c.classes for c in risk.changes}
    assert changes["without site"] == whole
    assert (changes["without age_years"].k_minimum, changes["without age_years"].mean_risk) == (
        2,
        2 / 5,
    )
    assert changes["without sex"].unique_patients == 1
    assert changes["age_years in bands"].k_minimum == 2
    helped = [change.classes.mean_risk for change in risk.changes]
    assert helped == [2 / 5, 2 / 5, 2 / 5, 3 / 5]  # what helps most comes first


def test_classes_of_five_and_eleven_are_not_below() -> None:
    def shares(n: int) -> tuple[float, float]:
        whole = risk_summary(table(*[(str(i), "F", 50, "X") for i in range(n)])).classes
        return whole.share_below_5, whole.share_below_11

    assert [shares(n) for n in (4, 5, 10, 11)] == [(1, 1), (0, 1), (0, 1), (0, 0)]


def test_all_that_a_patients_images_say_counts() -> None:
    rows = table(("a", "F", 50, "X"), ("a", "F", 52, "X"), ("b", "F", 50, "X"), ("c", "F", 50, "X"))
    assert risk_summary(rows).classes.unique_patients == 1


def test_what_the_data_do_not_hold_is_not_counted() -> None:
    rows = table(("a", None, 50, None), ("b", None, float("nan"), None))
    risk = risk_summary(rows)
    assert risk.quasi_identifiers == ("age_years",)
    assert risk.classes.k_minimum == 1  # that an age is missing tells, too
    assert risk_summary(rows, ("sex",)).classes.k_minimum == 2
    assert risk_summary(rows.iloc[:0]).classes.k_minimum == 0


def test_years_count_where_dates_are_true() -> None:
    rows = table(("a", "F", 50, "X"), ("b", "F", 50, "X"))
    for days in ([date(2019, 3, 5), date(2020, 1, 1)], ["20190305", "20200101"]):
        dated = rows.assign(study_date=days)
        assert risk_summary(dated, retained(DeidentificationPolicy())).classes.k_minimum == 2
        full = retained(DeidentificationPolicy(dates="full"))
        assert risk_summary(dated, full).classes.k_minimum == 1


def test_a_page_is_warned_of_small_classes_only() -> None:
    few = fragment(risk_summary(table(("a", "F", 50, "X"), ("b", "F", 51, "X"))))
    assert few["warning"].startswith("100.0% of 2 patients")
    assert "2 are alone" in few["warning"]
    assert all(len(row) == len(few["columns"]) for row in few["rows"])
    many = fragment(risk_summary(table(*[(str(i), "F", 50, "X") for i in range(5)])))
    assert many["warning"] is None
    assert fragment(risk_summary(table()))["warning"] is None


people = st.lists(
    st.tuples(
        st.sampled_from("abcdefghij"),
        st.sampled_from(["F", "M", None]),
        st.sampled_from([30.0, 50.0, 51.5, None]),
        st.sampled_from(["X", "Y"]),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None)
@given(people, st.permutations(["sex", "age_years", "site"]))
def test_an_attribute_more_never_hides_anybody(
    rows: list[tuple[str, str | None, float | None, str | None]], order: list[str]
) -> None:
    data = table(*rows)
    steps = [risk_summary(data, order[:i]).classes for i in range(4)]
    assert steps[0].k_minimum == data.patient_id.nunique()
    for less, more in pairwise(steps):
        assert more.k_minimum <= less.k_minimum
        assert more.unique_patients >= less.unique_patients
        assert more.mean_risk >= less.mean_risk
        assert more.share_below_5 >= less.share_below_5


@settings(deadline=None)
@given(people)
def test_a_summary_adds_up_and_is_json(
    rows: list[tuple[str, str | None, float | None, str | None]],
) -> None:
    risk = risk_summary(table(*rows))
    whole = risk.classes
    assert whole.maximum_risk == pytest.approx(1 / whole.k_minimum)
    assert 0 < whole.mean_risk <= whole.maximum_risk <= 1
    assert whole.share_below_5 <= whole.share_below_11
    assert (whole.unique_patients > 0) == (whole.k_minimum == 1)
    assert all(change.classes.mean_risk <= whole.mean_risk for change in risk.changes)
    told = json.loads(json.dumps(asdict(risk)))
    assert told["patients"] == len({row[0] for row in rows})
    assert set(told["quasi_identifiers"]) <= set(QUASI_IDENTIFIERS)
    assert risk_summary(table(*reversed(rows))) == risk
