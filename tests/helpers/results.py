"""A finished run of the lifecycle with files of the real form, without the minutes it takes."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from evaluation.config import EvaluationConfig
from evaluation.metrics import measure
from lineage.digest import digest
from lineage.files import write_json
from lineage.workspace import Workspace
from pipelines.notebook.result import Result
from pipelines.runs import Run, RunFolder, StepState

HISTORY = [
    {"epoch": 1, "train_loss": 0.7, "validation_loss": 0.7, "validation_auroc": 0.6},
    {"epoch": 2, "train_loss": 0.5, "validation_loss": 0.6, "validation_auroc": 0.8},
]
RULES = [{"rule": "lower_bound", "outcome": "fail", "sentence": "auroc <b>", "measured": True}]


def refused(
    home: Workspace, name: str, *, skill: float, test_set: str = "same", epochs: int = 2
) -> Result:
    """A run that ended as refused; `skill`, 0 to 1, says how well its scores tell the classes."""
    rng = np.random.default_rng(5)
    label = rng.integers(0, 2, 120)
    score = skill * label + (1 - skill) * rng.random(120)
    patients = [f"p{n // 2}" for n in range(120)]
    cases = pd.DataFrame({"instance_uid": np.arange(120).astype(str), "patient_id": patients})
    cases = cases.assign(label=label, score=score, champion_score=np.nan)
    found = measure(label, score, patients, 0.5, EvaluationConfig(bootstrap_repetitions=200))
    facts = {"metrics": found, "comparison": None, "test_set_digest": test_set}

    steps = [
        _made(home, name, "train", {"max_epochs": epochs}, best_epoch=2, history=HISTORY),
        _made(home, name, "evaluate", {"bins": {"most": 10}}, metrics=facts),
        _made(home, name, "gate", {}, passed=False, verdict={"rules": RULES}),
        StepState("promote", state="skipped"),
    ]
    cases.to_parquet(home.store / "objects" / steps[1].outputs["metrics"] / "predictions.parquet")
    nodes = [{"step": step.name} for step in steps[:-1]]
    nodes.append({"when": "gate.passed", "then": [{"step": "promote"}], "otherwise": []})
    run = Run(
        id=name,
        pipeline="model-lifecycle",
        config="(Python)",
        config_digest="",
        pid=1,
        started_at="2026-01-01T00:00:00+00:00",
        steps=steps,
        graph={"name": "model-lifecycle", "nodes": nodes},
        outcome="refused",
        exit_code=3,
        reason="auroc <b> too low",
    )
    RunFolder(home.runs / name).begin(run)
    return Result(run, home)


OUTPUTS = {"history": "model"}  # the file that lies in an output of another name


def _made(home: Workspace, run: str, step: str, config: dict[str, Any], **facts: Any) -> StepState:
    """A step that ran: facts that are files become outputs, the others values."""
    state = StepState(step, "ran", "first time", seconds=1.234, key=digest("key", run, step))
    state.made_by = run
    for name, value in facts.items():
        if not isinstance(value, dict | list):
            state.values[name] = value
            continue
        output = OUTPUTS.get(name, name)
        state.outputs[output] = digest("object", run, step, name)
        folder = home.store / "objects" / state.outputs[output]
        folder.mkdir(parents=True)
        (folder / f"{name}.json").write_text(json.dumps(value, default=asdict))
    records = home.store / "steps"
    records.mkdir(parents=True, exist_ok=True)
    write_json(records / f"{state.key}.json", {"parts": {"config": config}})
    return state
