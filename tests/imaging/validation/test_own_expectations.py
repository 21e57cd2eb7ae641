import pytest
from checked_rows import CONFIG, N, outcomes

from imaging.config import Expectation
from imaging.validation.expectations import failures, flawless
from imaging.validation.own_expectations import check_settings
from lineage.errors import BadInput


def wanted(**changes):
    adults = {"expectation": "expect_column_values_to_be_between", "column": "age_years"}
    demand = adults | {"min_value": 30, "why": "adults"} | changes
    return CONFIG.model_copy(update={"expectations": (Expectation(**demand),)})


def of_sexes(what, **arguments):
    demand = Expectation(expectation=f"expect_column_values_to_{what}", column="sex", **arguments)
    return CONFIG.model_copy(update={"expectations": (demand,)})


def test_own_expectations_are_asked_with_their_severity(tmp_path):
    config = wanted()
    two = (
        *config.expectations,
        Expectation(**config.expectations[0].model_dump() | {"min_value": 0}),
    )
    manifest, found = outcomes(tmp_path, config=config.model_copy(update={"expectations": two}))
    own = [o for o in found if o["rule"] == "own"]
    assert [o["outcome"] for o in own] == ["failed", "passed"]
    assert own[0]["unexpected"] == 10
    assert "age_years (adults): 10 unexpected, min_value=30" in failures(found)[0]
    assert len(flawless(manifest, found)) == N - 10
    assert failures(outcomes(tmp_path, config=wanted(severity="warn"))[1]) == []


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            wanted(expectation="expect_column_value_to_be_between"),
            r"expectations.0.expectation: .*did you mean 'expect_column_values_to_be_between'",
        ),
        (
            wanted(column="age"),
            "expectations.0.column: .*no column 'age'; did you mean 'age_years'",
        ),
        (wanted(minvalue=3), "expectations.0.minvalue: .*did you mean 'min_value'"),
        (wanted(min_value="many"), "expectations.0.min_value: expected a number or a date$"),
        (wanted(mostly="all"), "expectations.0.mostly: expected a number$"),
        (wanted(mostly=1.5), "expectations.0.mostly: must be less than or equal to 1.0$"),
        (wanted(min_value=None), "expectations.0: min_value and max_value cannot both be None$"),
        (wanted(column=5), "expectations.0.column: the manifest has no column 5"),
        (of_sexes("match_regex", regex="(["), "expectations.0.regex: no regular expression"),
        (of_sexes("match_regex", regex=["a"]), "expectations.0.regex: expected text$"),
        (of_sexes("be_in_set"), "expectations.0.value_set is missing; add it$"),
        (wanted(expectation="expect_column_values_to_be_unique"), "expectations.0.min_value"),
        (
            wanted(expectation="expect_query_results_to_match_comparison"),
            "expectations.0.expectation: .* table",
        ),
        (
            CONFIG.model_copy(update={"severity": {"blank_image": "warn"}}),
            "severity.blank_image: .*did you mean 'blank_images'",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_way_out(config, words):
    with pytest.raises(BadInput, match=f"validation.{words}"):
        check_settings(config)
    check_settings(wanted())
