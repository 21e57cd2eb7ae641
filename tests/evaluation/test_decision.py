"""The gate's rules. What matters most: nothing that is not evidence ever passes."""

import copy
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from evaluation.config import (
    GatingConfig,
    LowerBound,
    MinimumN,
    NotWorseThanChampion,
    Rule,
    SubgroupLowerBound,
    UpperBound,
)
from evaluation.decision import decide

NAN = float("nan")


def interval(low, estimate, high, n=120, n_patients=80):
    return {"estimate": estimate, "low": low, "high": high, "n": n, "n_patients": n_patients}


def nothing(reason="n too small: 3 patients, 10 needed"):
    return {**interval(None, None, None, 4, 3), "reason": reason}


def evidence(**changes):
    return {
        "candidate": {"digest": "a" * 64},
        "champion": {"digest": "b" * 64},
        "n_images": 120,
        "n_patients": 80,
        "n_positive": 50,
        "metrics": {
            "auroc": interval(0.85, 0.9, 0.94),
            "sensitivity": interval(0.7, 0.8, 0.88),
            "specificity": interval(0.8, 0.9, 0.95),
            "expected_calibration_error": interval(0.01, 0.03, 0.08),
        },
        "subgroups": {
            "sex": {
                "F": {"auroc": interval(0.8, 0.9, 0.95, 60, 40)},
                "M": {"auroc": interval(0.7, 0.85, 0.93, 60, 40)},
            }
        },
        "comparison": {"auroc_difference": interval(-0.01, 0.02, 0.05)},
        **changes,
    }


def outcome(metrics, *rules):
    return decide(metrics, rules).outcome


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [(0.85, "pass"), (0.8501, "inconclusive"), (0.94, "inconclusive"), (0.9401, "fail")],
)
def test_lower_bound_judges_the_interval_not_the_estimate(at_least, expected):
    verdict = decide(evidence(), [LowerBound(metric="auroc", at_least=at_least)])
    assert verdict.outcome == expected
    assert verdict.passed is (expected == "pass")
    for number in ("0.9000", "0.8500", "0.9400", "120", "80", f"{at_least:g}"):
        assert number in verdict.rules[0].sentence


@pytest.mark.parametrize(
    ("at_most", "expected"),
    [(0.08, "pass"), (0.0799, "inconclusive"), (0.01, "inconclusive"), (0.0099, "fail")],
)
def test_upper_bound(at_most, expected):
    verdict = decide(evidence(), [UpperBound(at_most=at_most)])
    assert verdict.outcome == expected
    assert "0.0300 [0.0100, 0.0800]" in verdict.reason


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (MinimumN(patients=80, positives=50, negatives=70), "pass"),
        (MinimumN(patients=81, positives=50, negatives=70), "inconclusive"),
        (MinimumN(patients=80, positives=51, negatives=70), "inconclusive"),
        (MinimumN(patients=80, positives=50, negatives=71), "inconclusive"),
    ],
)
def test_minimum_n_never_fails_it_only_asks_for_more(rule, expected):
    verdict = decide(evidence(), [rule])
    assert verdict.outcome == expected
    assert f"80 patients (needed {rule.patients})" in verdict.reason


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.0299, 0.05, "pass"),
        (-0.03, 0.05, "inconclusive"),
        (-0.05, -0.03, "inconclusive"),
        (-0.08, -0.0301, "fail"),
    ],
)
def test_not_worse_than_champion(low, high, expected):
    metrics = evidence(comparison={"auroc_difference": interval(low, (low + high) / 2, high)})
    verdict = decide(metrics, [NotWorseThanChampion(margin=0.03)])
    assert verdict.outcome == expected
    assert "-0.03" in verdict.reason
    assert f"{low:.4f}" in verdict.reason


def test_without_a_champion_the_rule_passes_but_alone_it_is_no_evidence():
    first = evidence(champion=None, comparison=None)
    bound, compare = LowerBound(metric="auroc", at_least=0.8), NotWorseThanChampion(margin=0.03)
    verdict = decide(first, [bound, compare])
    assert verdict.passed
    assert verdict.rules[1].sentence == "there is no champion to compare with yet"
    assert outcome(first, compare) == "inconclusive"


def test_the_champion_itself_is_not_worse_than_itself():
    same = evidence(champion={"digest": "a" * 64})
    verdict = decide(
        same, [LowerBound(metric="auroc", at_least=0.8), NotWorseThanChampion(margin=0)]
    )
    assert verdict.passed
    assert verdict.rules[1].sentence == "the champion is this very model"


@pytest.mark.parametrize(
    "broken",
    [
        {"champion": {}},
        {"champion": {"digest": None}},
        {"candidate": {}, "champion": {}},
        {"comparison": None},
        {"comparison": {"auroc_difference": nothing()}},
    ],
)
def test_a_comparison_that_was_not_made_is_inconclusive(broken):
    rule = NotWorseThanChampion(margin=0.03)
    assert decide(evidence(**broken), [rule]).rules[0].outcome == "inconclusive"


def test_an_unmentioned_champion_is_not_an_absent_one():
    metrics = evidence()
    del metrics["champion"]
    verdict = decide(metrics, [NotWorseThanChampion(margin=0.03)])
    assert verdict.rules[0].outcome == "inconclusive"


def test_every_subgroup_must_hold():
    def rule(at_least, **more):
        return SubgroupLowerBound(by="sex", metric="auroc", at_least=at_least, **more)

    assert outcome(evidence(), rule(0.70)) == "pass"
    assert outcome(evidence(), rule(0.75)) == "inconclusive"
    verdict = decide(evidence(), [rule(0.94)])
    assert verdict.outcome == "fail"
    assert verdict.rules[0].sentence.startswith("sex M auroc 0.8500 [0.7000, 0.9300]")


@pytest.mark.parametrize(
    "small",
    [interval(0.1, 0.5, 0.9, 9, 5), nothing(), {**nothing("only one class"), "n_patients": 40}],
)
def test_small_subgroups_hold_up_or_are_reported_as_configured(small):
    metrics = evidence()
    metrics["subgroups"]["sex"]["O"] = {"auroc": small}
    strict = SubgroupLowerBound(by="sex", metric="auroc", at_least=0.7)
    lenient = strict.model_copy(update={"on_small": "report"})
    assert outcome(metrics, strict) == "inconclusive"
    verdict = decide(metrics, [lenient])
    assert verdict.passed
    assert "sex O auroc" in verdict.reason
    assert "too small to judge" in verdict.reason
    only_small = evidence(subgroups={"sex": {"O": {"auroc": small}}})
    assert outcome(only_small, lenient) == "inconclusive"


@pytest.mark.parametrize("subgroups", [None, {}, {"sex": {}}, {"sex": None}, {"age_band": {}}])
def test_missing_subgroups_are_inconclusive(subgroups):
    rule = SubgroupLowerBound(by="sex", metric="auroc", at_least=0.0, on_small="report")
    assert outcome(evidence(subgroups=subgroups), rule) == "inconclusive"


def test_a_subgroup_with_nan_is_inconclusive_even_when_small_ones_are_only_reported():
    metrics = evidence()
    metrics["subgroups"]["sex"]["O"] = {"auroc": interval(NAN, NAN, NAN)}
    rule = SubgroupLowerBound(by="sex", metric="auroc", at_least=0.7, on_small="report")
    assert outcome(metrics, rule) == "inconclusive"


def test_fail_outweighs_inconclusive_outweighs_pass():
    passes = LowerBound(metric="auroc", at_least=0.5)
    open_ = LowerBound(metric="auroc", at_least=0.9)
    fails = LowerBound(metric="auroc", at_least=0.99)
    assert outcome(evidence(), passes, open_, fails) == "fail"
    assert outcome(evidence(), passes, open_) == "inconclusive"
    assert outcome(evidence(), passes) == "pass"
    reason = decide(evidence(), [passes, open_, fails]).reason
    assert reason.startswith("fail: auroc")
    assert "0.99" in reason
    assert "0.5" not in reason  # the decisive rule only


def test_no_rules_never_pass():
    verdict = decide(evidence(), [])
    assert (verdict.outcome, verdict.passed) == ("inconclusive", False)
    assert "no evidence" in verdict.reason


def test_the_reason_stays_short():
    metrics = evidence()
    groups = metrics["subgroups"]["sex"]
    groups |= {f"group {i}": copy.deepcopy(groups["F"]) for i in range(50)}
    rule = SubgroupLowerBound(by="sex", metric="auroc", at_least=0.7)
    verdict = decide(metrics, [rule])
    assert len(verdict.reason) == 500
    assert len(verdict.rules[0].sentence) > 500


RULES = (
    LowerBound(metric="auroc", at_least=0.0),
    UpperBound(at_most=1.0),
    MinimumN(patients=1, positives=1, negatives=1),
    NotWorseThanChampion(margin=1.0),
    SubgroupLowerBound(by="sex", metric="auroc", at_least=0.0, minimum_n=1, on_small="report"),
)
# What each of these easiest of rules rests on.
PLACES = (
    (("metrics", "auroc"), ("estimate", "low", "high", "n")),
    (("metrics", "expected_calibration_error"), ("estimate", "low", "high", "n")),
    ((), ("n_images", "n_patients", "n_positive")),
    (("comparison", "auroc_difference"), ("estimate", "low", "high", "n")),
    (("subgroups", "sex", "M", "auroc"), ("estimate", "low", "high", "n")),
)
NO_NUMBER = st.sampled_from([NAN, math.inf, -math.inf, None, "0.9", True, [], {}, -7.0])


def test_the_easiest_rules_pass_on_sound_evidence():
    assert [outcome(evidence(), rule) for rule in RULES] == ["pass"] * len(RULES)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), which=st.sampled_from(range(len(RULES))), bad=NO_NUMBER)
def test_nothing_that_is_no_number_passes(data, which, bad):
    path, keys = PLACES[which]
    key = data.draw(st.sampled_from(keys))
    metrics = evidence()
    place = metrics
    for step in path:
        place = place[step]
    if data.draw(st.booleans()):
        del place[key]
    else:
        place[key] = bad
    verdict = decide(metrics, RULES)
    assert verdict.rules[which].outcome != "pass"
    assert not verdict.passed


anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def is_sound(section, value):
    """What the strategy draws by chance and the gate must take: a count, or no champion yet."""
    if section.startswith("n_"):
        return isinstance(value, float) and 1 <= value < math.inf
    return section == "champion" and value is None


@settings(max_examples=60, deadline=None)
@given(anything, st.sampled_from(list(evidence())))
def test_garbage_never_passes_and_never_breaks_the_gate(garbage, section):
    assert not decide(garbage, RULES).passed
    verdict = decide({**evidence(), section: garbage}, RULES)
    assert is_sound(section, garbage) or not verdict.passed
    assert len(verdict.reason) <= 500


@settings(max_examples=200, deadline=None)
@given(*[st.floats(allow_nan=True)] * 4)
def test_a_pass_means_a_sound_interval_above_the_bound(low, estimate, high, bound):
    try:
        rule = LowerBound(metric="auroc", at_least=bound)
    except ValidationError:
        assert not 0 <= bound <= 1
        return
    metrics = evidence(metrics={"auroc": interval(low, estimate, high)})
    if outcome(metrics, rule) == "pass":
        assert bound <= low <= estimate <= high <= 1


@pytest.mark.parametrize(
    "bad",
    [
        {"rule": "lower_bound", "metric": "auroc"},
        {"rule": "lower_bound", "metric": "auroc", "at_least": NAN},
        {"rule": "lower_bound", "metric": "auroc", "at_least": 80},
        {"rule": "lower_bound", "metric": "expected_calibration_error", "at_least": 0.1},
        {"rule": "upper_bound", "metric": "auroc", "at_most": 0.1},
        {"rule": "not_worse_than_champion", "margin": -0.1},
        {"rule": "always_pass"},
        {"rule": "minimum_n", "patients": 0},
    ],
)
def test_rules_that_make_no_sense_are_refused_at_load(bad):
    with pytest.raises(ValidationError):
        TypeAdapter(Rule).validate_python(bad)


def test_the_default_rules_survive_a_round_trip_and_judge():
    config = GatingConfig()
    assert GatingConfig.model_validate_json(config.model_dump_json()) == config
    assert decide(evidence(), config.rules).passed
    assert decide(json.loads(json.dumps(evidence(n_patients=49))), config.rules).outcome == (
        "inconclusive"
    )


@pytest.mark.parametrize("unknown", [None, NAN, "40", True])
def test_a_subgroup_of_unknown_size_is_no_evidence(unknown):
    rule = SubgroupLowerBound(by="sex", metric="auroc", at_least=0.6, on_small="report")
    group = {"auroc": interval(0.8, 0.9, 0.95, 60, unknown)}
    assert outcome(evidence(subgroups={"sex": {"F": group}}), rule) == "inconclusive"


@pytest.mark.parametrize(
    "switch",
    [
        {"rule": "lower_bound", "metric": "auroc", "at_least": False},
        {"rule": "upper_bound", "at_most": True},
        {"rule": "not_worse_than_champion", "margin": True},
        {"rule": "minimum_n", "patients": True},
    ],
)
def test_yes_and_no_are_no_bounds(switch):
    """YAML reads `no` and `off` as false, and false would count as 0."""
    with pytest.raises(ValidationError, match="a number is wanted"):
        TypeAdapter(Rule).validate_python(switch)
