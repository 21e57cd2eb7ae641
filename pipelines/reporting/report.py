"""One page per run: how it ended and why, what ran, and what was found. It opens offline.

The page holds aggregates and names of settings only: no identifier of a patient or an image, no
value of a header, and no path of this machine.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from components.progress import duration
from lineage.code import LOCK
from lineage.digest import file_digest
from lineage.workspace import Workspace
from pipelines.explain import explain
from pipelines.reporting.charts import bar
from pipelines.reporting.findings import SECTIONS
from pipelines.reporting.sections import Cell, Outputs, Section, Table
from pipelines.runs import Run, StepState
from pipelines.tell import MARKS, next_commands, result, state_of
from pipelines.tell import reason as told_reason

PAGE = "report.html"
TEMPLATE = Path(__file__).with_name(PAGE)
STYLE = Path(__file__).with_name("style.css")
SIGNS = {**MARKS, "pass": "✓", "fail": "✗", "inconclusive": "?"}
PARTS = {"config": "setting"}  # of a step's key, where they are called otherwise
# The packages whose versions a reader asks for first; the lock file pins them all.
PACKAGES = ("torch", "monai", "mlflow", "great-expectations", "evidently", "pydicom")
# What a file lacks, or holds in another form, that another version of its step wrote.
OTHER_VERSION = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def write_report(run: Run, workspace: Workspace) -> Path:
    """Write `report.html` into the run's folder, replacing an earlier one in one go.

    Raises:
        OSError: The workspace is full or cannot be written; an earlier page stays.
    """
    path = workspace.runs / run.id / PAGE
    draft = path.with_name(f".{PAGE}.{os.getpid()}")
    try:
        draft.write_text(page(run, workspace), encoding="utf-8")
        draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return path


def page(run: Run, workspace: Workspace, *, links: bool = True) -> str:
    """The report of a run as one HTML page that loads nothing from elsewhere.

    Args:
        run: Also one that still goes on, or was killed: it shows what is there.
        workspace: Where its folder lies.
        links: Link to other files in that folder; pointless in a copy that leaves it.
    """
    from jinja2 import Environment, StrictUndefined

    outputs = Outputs(run, workspace.runs / run.id)
    sections, unreadable = _sections(outputs)
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    engine.filters["took"] = duration
    rendered = engine.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run,
        settings=_settings(run),
        result=result(run),
        headline=_headline(run, outputs),
        mark=_mark(run),
        reason=_pathless(_reason(run), run, workspace),
        whys={name: _pathless(why, run, workspace) for name, why in _whys(run)},
        next_commands=next_commands(
            replace(run, config=Path(run.config).name, overrides=_overrides(run))
        ),
        seconds=_seconds(run),
        style=STYLE.read_text(encoding="utf-8"),
        states={step.name: step for step in run.steps},
        nodes=run.graph.get("nodes") or [{"step": step.name} for step in run.steps],
        state_of=state_of,
        slowest=max((max(step.seconds, step.made_seconds) for step in run.steps), default=0.0),
        taken=lambda port: _taken(run, port),
        bar=bar,
        links=links,
        sections=sections,
        unreadable=unreadable,
        logs=_logs(outputs) if links else {},
        signs=SIGNS,
    )
    return rendered.encode(errors="replace").decode()  # a file's name may hold half a character


def _sections(outputs: Outputs) -> tuple[list[Section], list[str]]:
    """What can be told, and the names of sections whose files cannot be read any more."""
    told, unreadable = [], []
    for tell in (*SECTIONS, _model, _changes, _origins):
        try:
            section = tell(outputs)
        except OTHER_VERSION:
            unreadable.append(tell.__name__.strip("_"))
        else:
            told += [section] if section else []
    return told, unreadable


def _headline(run: Run, outputs: Outputs) -> str:
    """How the run ended, in a few words."""
    model = _version(run) or "the model"
    at = next((step.name for step in run.steps if step.state in ("failed", "running")), None)
    if run.outcome == "done":
        return _done(run, model)
    sayings = {
        "stopped": f"Stopped {run.reason.partition(',')[0]}",
        "refused": f"The gate refused {model}",
        "waiting for approval": f"{model} waits for approval",
        "rolled back": f"{model} was not released: the canary was withdrawn",
        "failed": f"Failed at {at}" if at else "Failed",
        "bad input": f"Bad input for {at}" if at else "Bad input",
        "interrupted": f"Interrupted at {at}" if at else "Interrupted",
        "running": f"Still running, at {at}" if at else "Still running",
    }
    return sayings.get(run.outcome, run.outcome.capitalize())


def _done(run: Run, model: str) -> str:
    values = {step.name: step.values for step in run.steps}
    if values.get("deploy_canary", {}).get("released"):
        return f"{model} passed the gate and is in service"
    if verdict := values.get("monitor_drift", {}).get("verdict"):
        asked = values.get("retrain", {}).get("requested")
        told = {"drift": "Drift", "no drift": "No drift"}.get(verdict, "Too little to judge drift")
        return f"{told}; a retraining was asked for" if asked else told
    return "Done"


def _mark(run: Run) -> str:
    if run.exit_code == 0:
        return "inconclusive" if any(s.values.get("drifted") for s in run.steps) else "pass"
    waits = run.outcome in ("running", "waiting for approval", "interrupted")
    return "inconclusive" if waits else "fail"


def _reason(run: Run) -> str:
    """Why it ended so, in the words of the step that spoke last."""
    said = [s.values["reason"] for s in run.steps if isinstance(s.values.get("reason"), str)]
    return told_reason(run) or (said[-1] if said else "")


def _whys(run: Run) -> Iterator[tuple[str, str]]:
    """Why each step ran, was reused or was not reached; why one failed, or why all were not
    reached, stands above them all."""
    nothing = all(step.state == "skipped" for step in run.steps)
    for told in explain(run):
        failed = told.state in ("failed", "stopped")
        yield told.step, "" if nothing else run.step(told.step).why if failed else told.why


def _settings(run: Run) -> str:
    """The file's name, and what was set otherwise."""
    return ", ".join((Path(run.config).name, *_overrides(run))) if run.config else ""


def _overrides(run: Run) -> list[str]:
    """Where data lies may name a patient or a person."""
    split = (override.partition("=") for override in run.overrides)
    return [f"{k}={'…' if k.startswith('sources') or '/' in v else v}" for k, _, v in split]


def _pathless(text: str, run: Run, workspace: Workspace) -> str:
    """A path may name a patient or a person, so the name of what lies there stands for it."""
    places = {uri: f"({name})" for name, uri in run.graph.get("sources", {}).items() if uri}
    places[str(workspace.home)] = "(workspace)"
    for place, name in places.items():
        text = text.replace(place, name)
    return text


def _version(run: Run) -> str | None:
    return next((s.values["model_version"] for s in run.steps if "model_version" in s.values), None)


def _seconds(run: Run) -> float | None:
    if run.ended_at is None:
        return None
    started, ended = (datetime.fromisoformat(at) for at in (run.started_at, run.ended_at))
    return (ended - started).total_seconds()


def _taken(run: Run, port: str) -> bool | None:
    """What a branch's condition was, or None if it was never asked."""
    step, _, value = port.rpartition(".")
    found = next((s.values.get(value) for s in run.steps if s.name == step), None)
    return None if found is None else bool(found)


def _logs(outputs: Outputs) -> dict[str, str]:
    """The logs that are there, by step, as paths in the run's folder."""
    names = [step.name for step in outputs.run.steps]
    return {n: f"logs/{n}.log" for n in names if (outputs.folder / "logs" / f"{n}.log").is_file()}


def _model(outputs: Outputs) -> Section | None:
    """Under which name and version the model was registered."""
    found = outputs.json("register", "version", "version.json")
    if found is None:
        return None
    model = f"{found['name']}:{found['version']}"
    lead = [f"Registered as {model}, model {found['model_digest'][:12]}."]
    links = outputs.links(
        ("Model card", "train", "model", "model.json"),
        ("Metrics", "evaluate", "metrics", "metrics.json"),
        ("Verdict", "gate", "verdict", "verdict.json"),
    )
    return Section("Registered model", lead, links=links)


def _changes(outputs: Outputs) -> Section | None:
    """Settings, code and environment that differ from each step's last result."""
    steps: dict[tuple[str, ...], list[str]] = {}
    for step in outputs.run.steps:
        for c in step.changed:
            if c["part"] != "inputs":  # they follow from the rest; each step's card names them
                what = f"{PARTS.get(c['part'], c['part'])} {c['name']}".strip()
                change = (what, _value(c["before"]), _value(c["after"]))
                steps.setdefault(change, []).append(step.name)
    if not steps:
        return None
    rows = [(*map(Cell, change), Cell(", ".join(names))) for change, names in steps.items()]
    heads = ("What", "Before", "Now", "Steps")
    lead = ["Compared with the last time that each step was due in this workspace."]
    caption = "Settings, code and environment"
    return Section("What changed", lead, tables=[Table(caption, heads, rows)])


def _value(value: Any) -> str:
    text = "–" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _origins(outputs: Outputs) -> Section | None:
    """Versions, and everything by digest: code, environment, outputs."""
    made = [
        (step, name, content, outputs.record(step.name, name))
        for step in outputs.run.steps
        for name, content in step.outputs.items()
    ]
    rows = [
        (
            Cell(f"{step.name}.{name}"),
            _digest(content),
            _digest(record.get("code")),
            Cell(_maker(step, outputs.run)),
        )
        for step, name, content, record in made
    ]
    heads = ("Output", "Content", "Code", "Made by")
    tables = [Table("Outputs", heads, rows)] if rows else []
    locks = {record["environment"]["lock"] for *_, record in made if "environment" in record}
    pythons = {record["environment"]["python"] for *_, record in made if "environment" in record}
    facts = [(Cell("settings"), _digest(outputs.run.config_digest))]
    facts += [(Cell("lock file"), _digest(lock)) for lock in sorted(locks)]
    facts += [(Cell("Python"), Cell(python)) for python in sorted(pythons)]
    facts += [(Cell(name), Cell(pin)) for name, pin in _pins(locks)]
    tables.append(Table("Versions", ("What", "Which"), facts))
    lead = ["Digests are cut to 12 digits; hover to see the whole."]
    return Section("Versions and digests", lead, tables=tables)


def _maker(step: StepState, run: Run) -> str:
    return "this run" if step.made_by in ("", run.id) else f"run {step.made_by}"


def _digest(text: str | None) -> Cell:
    return Cell(text[:12], full=text) if text else Cell("unknown")


def _pins(locks: set[str]) -> Iterator[tuple[str, str]]:
    """Versions out of the lock file, as long as it is the one that the outputs were made with."""
    if not LOCK.is_file() or locks != {file_digest(LOCK)}:
        return
    for line in LOCK.read_text().splitlines():
        name, pinned, version = line.partition("==")
        if pinned and name in PACKAGES:
            yield name, version.strip()
