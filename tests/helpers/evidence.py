"""What registration is handed by the steps before it, small but real in form, for tests."""

import atexit
import json
import os
import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from lineage.digest import tree_digest
from lineage.record import leave_record
from lineage.workspace import Workspace

PARTS = ("model", "metrics", "verdict", "reference", "snapshot", "splits", "validation")


def prepare_registry(home: Workspace) -> Workspace:
    """Give a workspace MLflow's empty tables: making them costs seconds, copying them nothing."""
    home.home.mkdir(parents=True)
    shutil.copyfile(_empty_registry(), home.home / "mlflow.db")
    return home


@cache
def _empty_registry() -> Path:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    path = Path(mkdtemp()) / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    MlflowClient(f"sqlite:///{path}").search_experiments()
    atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    return path


def parts(folder: Path, *, seed: int = 1, outcome: str = "pass") -> dict[str, Path]:
    """One directory per part, each with its record; another seed is another model."""
    made = {name: folder / name for name in PARTS}
    for path in made.values():
        path.mkdir(parents=True)
    pd.DataFrame({"instance_uid": ["2.25.1"]}).to_parquet(made["snapshot"] / "manifest.parquet")
    counts = {"found": 61, "read": 60, "set_aside": 1, "reasons": {"no_label": 1}, "patients": 40}
    _write(made["snapshot"] / "counts.json", counts)
    marks = {"verified": True, "dicom": 60, "pictures": 0}
    marks |= {"profile_edition": "2026c", "options": {"113107": "Modified Dates Option"}}
    _write(made["snapshot"] / "deidentification.json", marks)
    _write(made["splits"] / "splits.json", {"train": 30, "validation": 15, "test": 15})
    _write(
        made["validation"] / "validation.json",
        {
            "passed": True,
            "warnings": ["scanner: alone tells the classes apart"],
            "expectations": [{"outcome": "passed"}, {"outcome": "nothing to check"}],
            "shortcuts": [{"field": "scanner", "strong": True}, {"field": "site", "strong": False}],
        },
    )
    (made["validation"] / "validation.html").write_text("a page")
    save_file({"weight": np.full(3, seed, np.float32)}, made["model"] / "model.safetensors")
    (made["model"] / "model.onnx").write_bytes(b"\x08\x0a" + bytes(8))
    _write(made["model"] / "model.json", _model(seed))
    epochs = [{"epoch": 1, "train_loss": 0.7}, {"epoch": 2, "train_loss": 0.4}]
    _write(made["model"] / "history.json", epochs)
    digest = tree_digest(made["model"])
    _write(made["metrics"] / "metrics.json", _metrics(digest))
    _write(made["reference"] / "reference.json", {"model_digest": digest})
    judge(made["verdict"], outcome)
    steps = {
        "snapshot": ("ingest", {}),
        "splits": ("split", {}),
        "validation": ("validate", {}),
        "model": ("train", {"epochs": 2, "network": {"name": "DenseNet", "args": {"growth": 8}}}),
        "metrics": ("evaluate", {}),
        "reference": ("evaluate", {}),
        "verdict": ("gate", {"minimum": {"auroc": 0.8}}),
    }
    for name, (step, config) in steps.items():
        environment = {"python": "3.11.9", "lock": "c" * 64}
        facts = {"code": "a" * 64, "config": config, "environment": environment, "inputs": {}}
        leave_record(made[name], step=step, **facts)
    return made


def judge(folder: Path, outcome: str) -> None:
    """Write a gate's verdict, and its record anew if it has one."""
    sentence = f"AUROC is 0.910 (0.850–0.950), at least 0.800 was asked: {outcome}"
    rule = {"rule": "minimum auroc", "outcome": outcome, "sentence": sentence}
    verdict = {"outcome": outcome, "passed": outcome == "pass", "rules": [rule], "reason": sentence}
    (folder / ".lineage.json").unlink(missing_ok=True)
    _write(folder / "verdict.json", verdict)


def _model(seed: int) -> dict[str, Any]:
    return {
        "format": 1,
        "classes": ["normal", "effusion"],
        "network": {"name": "DenseNet", "args": {"growth": 8}},
        "preprocess": [{"name": "Resize", "args": {"spatial_size": [64, 64]}}],
        "input_shape": [1, 64, 64],
        "threshold": 0.42,
        "target_specificity": 0.9,
        "seed": seed,
        "trained_on": {"images": 30, "patients": 20},
    }


def _metrics(model_digest: str) -> dict[str, Any]:
    def found(estimate: float, low: float, high: float, n: int) -> dict[str, Any]:
        bounds = {"estimate": estimate, "low": low, "high": high, "n": n}
        return bounds | {"n_patients": n - 5, "method": "patient bootstrap", "level": 0.95}

    empty = {"estimate": None, "low": None, "high": None, "n": 2, "method": None}
    empty |= {"n_patients": 2, "level": 0.95, "reason": "2 patients, 10 are needed"}
    return {
        "candidate": {"digest": model_digest},
        "champion": {"digest": "d" * 64},
        "test_set_digest": "e" * 64,
        "n_images": 150,
        "n_patients": 120,
        "n_positive": 50,
        "metrics": {
            "auroc": found(0.91, 0.85, 0.95, 150),
            "sensitivity": found(0.82, 0.70, 0.91, 50),
            "specificity": found(0.90, 0.83, 0.95, 100),
            "expected_calibration_error": found(0.05, 0.03, 0.08, 150),
        },
        "subgroups": {
            "sex": {
                "F": {
                    "auroc": found(0.93, 0.86, 0.97, 80),
                    "sensitivity": found(0.85, 0.70, 0.94, 27),
                    "specificity": found(0.92, 0.82, 0.97, 53),
                },
                "M": {
                    "auroc": found(0.88, 0.78, 0.94, 70),
                    "sensitivity": found(0.78, 0.58, 0.91, 23),
                    "specificity": found(0.87, 0.75, 0.95, 47),
                },
            },
            "age_band": {"<40": {"auroc": empty, "sensitivity": empty, "specificity": empty}},
        },
        "comparison": {"auroc_difference": found(0.02, -0.01, 0.05, 150)},
    }


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
