"""The page that CI shows: from the report that `lightbox submit` really writes."""

import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from pipelines.runs import Run, StepState
from pipelines.submitting.record import Submission
from pipelines.submitting.report import as_report

WAITS = "no person has decided yet: lightbox approve chest:12 --reason …"


@pytest.fixture
def page(script: Callable[[str], ModuleType]) -> ModuleType:
    return script(".ci/summary.py")


def report(exit_code: int = 0, reason: str = "", *steps: StepState) -> dict[str, Any]:
    run = Run("20261121-1", "model_lifecycle", "configs/chest.yaml", "ab12", 1, "", list(steps))
    run.exit_code, run.reason, run.outcome = exit_code, reason, "ended"
    run.overrides = ["training.epochs=2"]
    submission = Submission(
        **{
            field: {"commit": "c0ffee", "patch": "feed", "sources": {"scans": "5ca7"}}
            if field == "identity"
            else f"the {field}"
            for field in Submission.__dataclass_fields__
        }
    )
    return as_report(run, submission)


def test_it_says_how_the_run_ended_and_what_it_was_made_of(page: ModuleType) -> None:
    gate = StepState("gate", "ran", seconds=61.4, values={"passed": False, "reason": "AUROC 0.5"})
    text = page.summary(report(3, "AUROC 0.5 is below 0.8", gate))
    assert text.startswith("## ⛔ refused by the gate: model\\_lifecycle\n\nAUROC 0.5 is below 0.8")
    assert "**Gate:** did not pass. AUROC 0.5\n" in text
    assert "| gate | ran | 61 s |  |" in text
    for told in ("20261121-1", "c0ffee", "feed", "5ca7", "ab12", "training.epochs=2"):
        assert f"<code>{told}</code>" in text


@pytest.mark.parametrize("exit_code", range(6))
def test_each_exit_code_has_words_of_its_own(page: ModuleType, exit_code: int) -> None:
    titles = {page.summary(report(code)).splitlines()[0] for code in range(6)}
    assert len(titles) == 6
    assert "✅" in page.summary(report(0)) and "✅" not in page.summary(report(1 + exit_code))


def test_words_of_an_engine_become_no_markup(page: ModuleType) -> None:
    hostile = "<script>x</script> | [click](https://evil.example) `rm`\n# title\n**bold**"
    text = page.summary(report(1, hostile, StepState("train", "failed", why=hostile)))
    assert "<script>" not in text and "\n# title" not in text
    assert not re.search(r"(?<!\\)(?:\[click|`rm|\*\*bold)", text)
    (row,) = [line for line in text.splitlines() if line.startswith("| train")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 5


def test_it_names_the_model_that_waits(page: ModuleType) -> None:
    assert page.waiting(report(4, WAITS)) == "chest:12"
    assert page.waiting(report(1, WAITS)) == page.waiting(report(4, "see the log")) == ""
