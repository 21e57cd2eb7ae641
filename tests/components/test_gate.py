import json

import pytest

from components.gate import gate
from evaluation.config import GatingConfig, LowerBound
from lineage.errors import BadInput

RULES = GatingConfig(rules=(LowerBound(metric="auroc", at_least=0.8),))


def run(tmp_path, content, config=RULES):
    metrics, verdict = tmp_path / "metrics", tmp_path / "verdict"
    metrics.mkdir(exist_ok=True)
    verdict.mkdir(exist_ok=True)
    if content is not None:
        (metrics / "metrics.json").write_text(content)
    values = gate(config, metrics=metrics, verdict=verdict)
    return values, json.loads((verdict / "verdict.json").read_text())


def auroc(low, estimate, high) -> str:
    entry = {"estimate": estimate, "low": low, "high": high, "n": 120, "n_patients": 80}
    return json.dumps({"metrics": {"auroc": entry}})


@pytest.mark.parametrize(
    ("metrics", "outcome"),
    [
        (auroc(0.81, 0.9, 0.95), "pass"),
        (auroc(0.7, 0.9, 0.95), "inconclusive"),
        (auroc(0.6, 0.7, 0.79), "fail"),
        (auroc(float("nan"), float("nan"), float("nan")), "inconclusive"),
        ("{}", "inconclusive"),
        ("[]", "inconclusive"),
    ],
)
def test_values_and_file_say_the_same(tmp_path, metrics, outcome):
    values, verdict = run(tmp_path, metrics)
    assert verdict["outcome"] == outcome
    assert values.passed is verdict["passed"] is (outcome == "pass")
    assert values.reason == verdict["reason"]
    assert [rule["rule"] for rule in verdict["rules"]] == ["lower_bound"]
    assert verdict["rules"][0]["sentence"] in verdict["reason"]


def test_no_rules_no_pass(tmp_path):
    values, verdict = run(tmp_path, auroc(0.9, 0.95, 0.99), GatingConfig(rules=()))
    assert not values.passed
    assert verdict["outcome"] == "inconclusive"


@pytest.mark.parametrize("content", [None, "", "{broken", "\xff"])
def test_no_metrics_file_is_bad_input(tmp_path, content):
    with pytest.raises(BadInput, match="run the evaluate step again"):
        run(tmp_path, content)


def test_the_contract_is_what_the_pipeline_expects():
    assert (gate.inputs, gate.outputs) == (("metrics",), ("verdict",))
    assert gate.values == {"passed": bool, "reason": str}
    assert not gate.effect
