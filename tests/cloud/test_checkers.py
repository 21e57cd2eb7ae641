"""The stock checkers, run for real: they pass what is shipped, and each refuses something."""

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = Path(__file__).parent / "fixtures"
TEMPLATES = sorted((ROOT / "configs" / "aws").glob("*.yaml"))
MANIFESTS = sorted((ROOT / "configs" / "kubernetes").glob("*.yaml"))


def failed(checkov_said: str) -> list[str]:
    """The checks that failed; checkov prints a list if it looked with several frameworks."""
    reports: Any = json.loads(checkov_said)
    reports = reports if isinstance(reports, list) else [reports]
    assert all(report["summary"]["parsing_errors"] == 0 for report in reports)
    return [check["check_id"] for r in reports for check in r["results"]["failed_checks"]]


def test_cfn_lint_has_nothing_to_say(checker) -> None:
    assert len(TEMPLATES) >= 5
    ran = checker("cfn-lint", *TEMPLATES)
    assert (ran.returncode, ran.stdout) == (0, "")


def test_cfn_lint_refuses_an_unknown_property(checker) -> None:
    ran = checker("cfn-lint", FIXTURES / "refused.yaml")
    assert ran.returncode != 0
    assert "Additional properties are not allowed ('Colour' was unexpected)" in ran.stdout


def test_checkov_has_nothing_to_say(checker) -> None:
    ran = checker("checkov", "--config-file", "configs/policies/checkov.yaml", "-o", "json")
    assert failed(ran.stdout) == []
    assert ran.returncode == 0
    looked = {report["check_type"]: report["summary"] for report in json.loads(ran.stdout)}
    assert looked.keys() == {"cloudformation", "kubernetes"}
    assert all(summary["passed"] for summary in looked.values())


def test_checkov_refuses_an_open_bucket_and_a_role_that_may_do_everything(checker) -> None:
    bad = FIXTURES / "refused.yaml"
    ran = checker("checkov", "-f", bad, "--skip-download", "--quiet", "-o", "json")
    assert ran.returncode != 0
    assert {"CKV_AWS_20", "CKV_AWS_21", "CKV_AWS_60", "CKV_AWS_107"} <= set(failed(ran.stdout))


def test_each_skipped_check_has_its_reason() -> None:
    config = yaml.safe_load((ROOT / "configs" / "policies" / "checkov.yaml").read_text())
    assert "skip-check" not in config  # for one resource, never for all
    texts = [path.read_text() for path in [*TEMPLATES, *MANIFESTS]]
    skips = sum(text.count("- id: CKV") for text in texts)
    reasons = sum(text.count("comment: ") for text in texts)
    assert skips == reasons


def test_kubernetes_validate_refuses_an_unknown_field(checker) -> None:
    ran = checker("kubernetes-validate", "--strict", FIXTURES / "refused-pod.yaml")
    assert ran.returncode != 0
    assert "colour" in ran.stdout + ran.stderr
