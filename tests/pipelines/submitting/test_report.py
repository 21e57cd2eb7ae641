import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from small_lifecycle import small_lifecycle

from lineage.errors import BadInput
from pipelines.runs import Run
from pipelines.submitting.record import Submission, submitted
from pipelines.submitting.report import as_junit, as_report, in_words, write

SUBMISSION = Submission("kubeflow", "id-1", "k.yaml", "toy-1", "https://kfp.example/1")


def ended(outcome: str = "refused", code: int | None = 3, reason: str = "auroc 0.5") -> Run:
    pipeline = small_lifecycle()
    run = submitted(pipeline, "a.yaml", ("a.b=1",))
    run.started_at, run.ended_at = "2026-01-02T03:00:00.000+00:00", "2026-01-02T03:01:30.500+00:00"
    run.outcome, run.exit_code, run.reason = outcome, code, reason
    for name, state in {"take_in": "ran", "fit": "reused", "evaluate": "failed"}.items():
        run.step(name).state = state
    run.step("fit").seconds = 12.3456
    return run


def cases(run: Run) -> dict[str, Any]:
    suite = ElementTree.fromstring(as_junit(run))
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
    assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))
    assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    return {case.attrib["name"]: case for case in suite.findall("testcase")}


def test_a_case_per_step_and_one_for_the_end() -> None:
    run = ended()
    told = cases(run)
    assert list(told) == [*(step.name for step in run.steps), "outcome"]
    assert told["fit"].attrib == {"name": "fit", "classname": "small-lifecycle", "time": "12.346"}
    assert [child.tag for child in told["fit"]] == []
    assert [child.tag for child in told["enter"]] == ["skipped"]
    assert [child.tag for child in told["evaluate"]] == ["failure"]
    # A run whose steps all went well and whose model was refused is not green.
    assert told["outcome"].find("failure").attrib == {"message": "auroc 0.5", "type": "refused"}
    assert list(cases(ended("done", 0, ""))["outcome"]) == []


@pytest.mark.parametrize(
    "reason", ["a & b < c ]]> \"d\" 'e'", "bell \x07 and \ud800 end", "zwei\nü"]
)
def test_any_reason_can_be_written(reason) -> None:
    told = cases(ended(reason=reason))["outcome"].find("failure").text
    expected = reason.replace("\x07", "\ufffd").replace("\ud800", "\ufffd")
    assert told == expected


@pytest.mark.parametrize(
    "run", [ended(), ended("done", 0, ""), ended("failed", 1, "<&>\x00"), ended("submitted", None)]
)
def test_it_is_what_ci_servers_read(run) -> None:
    import xmlschema

    schema = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))
    schema.validate(as_junit(run))
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        schema.validate(as_junit(run).replace("hostname=", "host="))


def test_a_report_says_it_all() -> None:
    run = ended()
    run.step("evaluate").values = {"passed": False}
    told = as_report(run, SUBMISSION)
    assert (told["engine"], told["engine_id"]) == ("kubeflow", "id-1")
    assert told["url"] == "https://kfp.example/1"
    assert told["overrides"] == ["a.b=1"]
    assert told["steps"][1] == {
        "name": "fit",
        "state": "reused",
        "seconds": 12.3456,
        "why": "",
        "values": {},
    }
    assert told["gate"] is None  # no step of that name
    assert as_report(run, None)["engine"] == "local"


def test_words_end_with_what_to_type_next() -> None:
    run = ended()
    assert "--again" in in_words(run, SUBMISSION).plain
    run.exit_code, run.ended_at = None, None
    assert f"lightbox attach {run.id}" in in_words(run, SUBMISSION).plain
    assert "next" not in in_words(ended("done", 0, ""), SUBMISSION).plain


def test_files_are_written_where_asked(tmp_path) -> None:
    write(ended(), SUBMISSION, tmp_path / "a" / "r.json", tmp_path / "b" / "j.xml")
    assert json.loads((tmp_path / "a" / "r.json").read_text())["exit_code"] == 3
    assert (tmp_path / "b" / "j.xml").read_text().startswith("<?xml version='1.0'")
    write(ended(), SUBMISSION, None, None)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        write(ended(), SUBMISSION, tmp_path / "file" / "r.json", None)
