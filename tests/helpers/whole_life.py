"""The run of a model that was released: its record, and what each of its steps left behind."""

import json
import shutil
from pathlib import Path
from typing import Any

from evidence import parts

from lineage.workspace import Workspace
from pipelines.runs import Run, StepState

# What each step leaves, beside what tests/helpers/evidence.py makes.
FILES: dict[str, Any] = {
    "validate.report/validation.json": {
        "passed": True,
        "images": 60,
        "expectations": [
            {
                **{"expectation": "e", "column": "age_years", "arguments": {}, "observed": None},
                **{"why": "a plausible age", "passed": passed, "unexpected": unexpected},
                **{"instance_uids": ["2.25.77"], "severity": severity},
            }
            for passed, unexpected, severity in (
                *((False, 5, "stop"), (False, 2, "warn"), (True, 3, "stop"), (True, 0, "stop")),
                (None, None, "warn"),
            )
        ],
        "shortcuts": [
            {
                **{"field": field, "exempt": exempt, "strong": strong},
                "auroc": {"estimate": 0.8, "low": 0.75, "high": 0.85, "n": 60},
            }
            for field, exempt, strong in (("scanner", False, True), ("sex", True, False))
        ],
    },
    "validate.report/validation.html": "a page",
    "split.splits/splits.json": {
        "sides": {
            side: {"patients": 20, "positive_patients": 8, "images": 30, "positive_images": 11}
            for side in ("train", "validation", "test")
        }
    },
    "evaluate.metrics/curves.json": {
        "roc": [[0, 0], [0.1, 0.8], [1, 1]],
        "calibration": [
            {"score": 0.2, "frequency": 0.25, "low": 0.1, "high": 0.4, "n": 20},
            {"score": 0.8, "frequency": 1.0, "low": None, "high": None, "n": 1},
        ],
    },
    "promote.approval/approval.json": {
        **{"approved": True, "actor": "person:Ada", "reason": "figures reviewed", "at": "2026"},
        **{"name": "chest", "version": "2"},
    },
    "deploy_canary.release/release.json": {
        **{"name": "chest", "version": "2", "outcome": "released", "released": True},
        **{"reason": "all 2 checks passed", "previous_champion": {"version": "1"}},
        "looks": [
            {
                **{"share": share, "requests": requests, "challenger_answers": 7},
                "judgement": {
                    "outcome": "pass",
                    "checks": [{"name": "errors", "outcome": "pass", "sentence": "0 of 7 failed"}],
                },
            }
            for share, requests in ((0.1, 70), (1.0, 140))
        ],
    },
    "monitor_drift.report/drift.json": {
        "sentence": "drift: 1 of 2 columns drifted over 60 requests",
        "columns": {
            name: {
                **{"adjusted_p_value": 0.0001, "effect": 2.5, "drifted": drifted},
                **{"n_reference": 30, "n_current": 60},
            }
            for name, drifted in (("sharpness", True), ("rows", False))
        },
    },
    "retrain.request/request.json": {
        **{"status": "requested", "reason": "drift, and 12 newly labelled patients"},
        **{"newly_labelled": 12, "unit": "patients"},
    },
    "register.version/version.json": {"name": "chest", "version": "2", "model_digest": "d" * 64},
}
STEPS = {
    **{"ingest": "snapshot", "validate": "report", "split": "splits", "train": "model"},
    **{"evaluate": "metrics", "gate": "verdict", "register": "version", "promote": "approval"},
    **{"deploy_canary": "release", "monitor_drift": "report", "retrain": "request"},
}
MADE = {"ingest": "snapshot", "train": "model", "evaluate": "metrics", "gate": "verdict"}


def whole_life(home: Workspace, folder: Path) -> Run:
    """A released model's run, with a small file of every kind that a report reads."""
    made = parts(folder)
    folder = home.runs / "20260101-120000-abcd"
    for step, name in MADE.items():
        shutil.copytree(made[name], folder / f"{step}.{name}")
    for name, value in FILES.items():
        put(folder / name, value)
    put(folder / "logs/train.log", "said")
    steps = [StepState(n, "ran", "first time", outputs={o: "c" * 64}) for n, o in STEPS.items()]
    steps[6].values = {"model_version": "chest:2"}
    steps[8].values = {"released": True, "reason": "released: all 2 checks passed"}
    return Run(
        id=folder.name,
        pipeline="model-lifecycle",
        config="configs/chest.yaml",
        config_digest="a" * 64,
        pid=1,
        started_at="2026-01-01T12:00:00.000+00:00",
        steps=steps,
        graph={
            "sources": {"scans": "/clinic/Mueller^Hans/scans"},
            "nodes": [node(s) for s in steps],
        },
        ended_at="2026-01-01T12:01:15.500+00:00",
        outcome="done",
        exit_code=0,
    )


def node(step: StepState) -> dict[str, Any]:
    return {"step": step.name, "inputs": {}}


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
