"""How a run ended, for those who branch on it: a JSON report, and JUnit XML for CI's own pages."""

import re
import xml.etree.ElementTree as ElementTree
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineage.errors import BadInput
from lineage.files import write_json
from pipelines.runs import Run, StepState
from pipelines.submitting.record import Submission
from pipelines.tell import reason, result

if TYPE_CHECKING:
    from rich.text import Text

# XML 1.0 has no way to write these, escaped or not.
UNWRITABLE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_report(run: Run, submission: Submission | None) -> dict[str, Any]:
    """The whole of it; a local run has no engine's fields."""
    identity = submission.identity if submission else {}
    return {
        "run": run.id,
        "pipeline": run.pipeline,
        "engine": submission.engine if submission else "local",
        "engine_id": submission.engine_id if submission else None,
        "name": submission.name if submission else None,
        "url": submission.url if submission else None,
        "outcome": run.outcome,
        "exit_code": run.exit_code,
        "reason": run.reason,
        "gate": _gate(run),
        "steps": [_step(step) for step in run.steps],
        "config": run.config,
        "overrides": run.overrides,
        "config_digest": run.config_digest,
        "commit": identity.get("commit"),
        "patch": identity.get("patch"),
        "sources": identity.get("sources", {}),
        "started_at": run.started_at,
        "ended_at": run.ended_at,
    }


def _gate(run: Run) -> dict[str, Any] | None:
    """What the gate said; None if it was not reached."""
    step = next((s for s in run.steps if s.name == "gate" and "passed" in s.values), None)
    if step is None:
        return None
    passed = step.values["passed"]
    return {"passed": passed, "reason": step.values.get("reason", "" if passed else run.reason)}


def _step(step: StepState) -> dict[str, Any]:
    return {
        "name": step.name,
        "state": step.state,
        "seconds": step.seconds,
        "why": step.why,
        "values": step.values,
    }


def in_words(run: Run, submission: Submission) -> "Text":
    """How it ended, what it found, where to look, and what to type next."""
    from rich.text import Text

    why = reason(run)
    text = Text(f"{run.outcome}: {why}" if why else run.outcome)
    text.stylize("green" if run.exit_code == 0 else "red" if run.ended_at else "yellow")
    text.append(f"  ({submission.name}; run {run.id})", "dim")
    following = {None: f"lightbox attach {run.id}", 0: ""}
    rows = {
        "result": result(run),
        "page": submission.url,
        "next": following.get(run.exit_code, "the same with --again starts it anew"),
    }
    for label, row in rows.items():
        if row:
            text.append(f"\n  {label}:  {row}")
    return text


def as_junit(run: Run) -> str:
    """One test case per step, and one for how the run ended."""
    suite = ElementTree.Element("testsuite")
    ElementTree.SubElement(suite, "properties")
    for step in run.steps:
        case = _case(suite, run, step.name, step.seconds)
        if step.state == "failed":
            _add(case, "failure", step.why or reason(run), "failed")
        elif step.state not in ("ran", "reused"):
            ElementTree.SubElement(case, "skipped")
    # All steps of a refused run went well; CI must not show it as green.
    if run.exit_code != 0:
        _add(_case(suite, run, "outcome", 0), "failure", reason(run), run.outcome)
    else:
        _case(suite, run, "outcome", 0)
    for name in ("system-out", "system-err"):
        ElementTree.SubElement(suite, name).text = ""
    counts = {kind: len(suite.findall(f"testcase/{kind}")) for kind in ("failure", "skipped")}
    suite.attrib |= {
        "name": run.pipeline,
        "timestamp": run.started_at[:19],
        "hostname": "localhost",  # the engine's machines are not ours to name
        "tests": str(len(suite.findall("testcase"))),
        "failures": str(counts["failure"]),
        "errors": "0",
        "skipped": str(counts["skipped"]),
        "time": f"{_seconds(run):.3f}",
    }
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ElementTree.Element, run: Run, name: str, seconds: float) -> ElementTree.Element:
    told = {"name": name, "classname": run.pipeline, "time": f"{seconds:.3f}"}
    return ElementTree.SubElement(suite, "testcase", told)


def _add(case: ElementTree.Element, kind: str, text: str, type: str) -> None:
    text = UNWRITABLE.sub("\ufffd", text)
    ElementTree.SubElement(case, kind, {"message": text, "type": type}).text = text


def _seconds(run: Run) -> float:
    if run.ended_at is None:
        return 0.0
    began, ended = map(datetime.fromisoformat, (run.started_at, run.ended_at))
    return max(0.0, (ended - began).total_seconds())


def write(run: Run, submission: Submission | None, report: Path | None, junit: Path | None) -> None:
    """Write those that are asked for.

    Raises:
        BadInput: There is no such folder, or it cannot be written.
    """
    try:
        if report:
            write_json(report, as_report(run, submission))
        if junit:
            junit.parent.mkdir(parents=True, exist_ok=True)
            junit.write_text(as_junit(run), encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{error.filename}: cannot be written ({error.strerror})") from None
