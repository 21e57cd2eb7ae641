"""Register a trained model with everything a reviewer asks of it: what it was made from, and how.

Every model is registered with its verdict, the refused ones too; only promotion and deployment
are guarded. The lineage document says the same as the records beside the files, in one place.
"""

import json
import platform
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lineage.code import environment
from lineage.digest import RECORD, file_digest, tree_digest
from lineage.errors import BadInput
from lineage.files import write_json
from lineage.model_files import refuse_executable
from lineage.record import read_record
from registry.mlflow_registry import Version, register_model

PACKAGES = (
    "sagemaker",
    "kfp",
    "torch",
    "monai",
    "mlflow",
    "great-expectations",
    "evidently",
    "pydicom",
)


def register(
    name: str,
    *,
    model: Path,
    metrics: Path,
    verdict: Path,
    reference: Path,
    snapshot: Path,
    splits: Path,
    validation: Path,
) -> Version:
    """Register a model with its evidence; twice the same is one version.

    Args:
        name: The registered model.
        model: What train made.
        metrics: What evaluate found on the sealed test split.
        verdict: What the gate said to it.
        reference: What drift is measured against.
        snapshot: The de-identified data; its images stay where they are.
        splits: Who was in which split.
        validation: The report on the data, with Great Expectations' own pages.

    Raises:
        BadInput: The model holds a file that could run code, or the parts do not belong together.
    """
    parts = {
        "model": model,
        "metrics": metrics,
        "verdict": verdict,
        "reference": reference,
        "snapshot": snapshot,
        "splits": splits,
        "validation": validation,
    }
    refuse_executable(model)
    document = lineage_document(parts)
    gate, measured = document["verdict"], document["evaluation"]
    with TemporaryDirectory() as folder:
        data, told = Path(folder) / "manifest", Path(folder) / "lineage"
        write_json(told / "lineage.json", document)
        data.mkdir()
        for kept in ("manifest.parquet", "counts.json", "deidentification.json"):
            shutil.copyfile(snapshot / kept, data / kept)  # never the images themselves
        return register_model(
            name,
            model,
            tags={
                "verdict": gate["outcome"],
                "reason": gate["reason"],
                "test_patients": str(measured["n_patients"]),
                "test_set_digest": measured["test_set_digest"],
                "snapshot_digest": document["data"]["snapshot_digest"],
                "splits_digest": document["data"]["splits_digest"],
                "compared_with": (measured["champion"] or {}).get("digest", "none"),
            },
            artifacts={
                "metrics": metrics,
                "verdict": verdict,
                "reference": reference,
                "validation": validation,
                "lineage": told,
                "manifest": data,
            },
            params=dict(_flat({step: made["config"] for step, made in document["steps"].items()})),
            metrics={**dict(numbers(measured)), **_curves(model)},
        )


def lineage_document(parts: Mapping[str, Path]) -> dict[str, Any]:
    """Gather what a model was made from: data, code, settings, environment, evidence.

    Holds no time, so that the same model has the same document; the records beside the files
    tell when each was made. A step's `inputs` are those of the run that first made these bytes: a
    later run that came to equal bytes from other inputs leaves no second record, so they are
    told, not compared.

    Raises:
        BadInput: A part was changed since it was made, or the evidence is of another model.
    """
    records = {name: read_record(path) for name, path in parts.items()}
    # The images are not read again: the manifest names each of them by its digest.
    digests = {
        name: (name == "snapshot" and records[name].get("content")) or tree_digest(path)
        for name, path in parts.items()
    }
    evaluation = _read(parts["metrics"] / "metrics.json")
    tested = {
        "metrics": evaluation["candidate"]["digest"],
        "reference": _read(parts["reference"] / "reference.json")["model_digest"],
    }
    for name, record in records.items():
        if record and record["content"] != digests[name]:
            raise BadInput(f"{name} was changed after {record['step']} made it: make it again")
    for name, digest in tested.items():
        if digest != digests["model"]:
            raise BadInput(f"{name} tells of another model: evaluate this one, then register it")

    steps: dict[str, Any] = {}
    for name, record in records.items():
        if record:
            step = steps.setdefault(
                record["step"],
                {k: record[k] for k in ("config", "code", "environment", "inputs")} | {"made": {}},
            )
            step["made"][name] = digests[name]
    model, snapshot = parts["model"], parts["snapshot"]
    return {
        "format": 1,
        "model": {
            "digest": digests["model"],
            "files": {p.relative_to(model).as_posix(): file_digest(p) for p in _files(model)},
            "description": _read(model / "model.json"),
        },
        "data": {
            "snapshot_digest": digests["snapshot"],
            "manifest_digest": file_digest(snapshot / "manifest.parquet"),
            "splits_digest": digests["splits"],
            "test_set_digest": evaluation["test_set_digest"],
            "counts": _read(snapshot / "counts.json"),
            "deidentification": _read(snapshot / "deidentification.json"),
            "splits": _read(parts["splits"] / "splits.json"),
            "validation": _validated(_read(parts["validation"] / "validation.json")),
        },
        "evaluation": evaluation,
        "verdict": _read(parts["verdict"] / "verdict.json"),
        "steps": steps,
        "environment": {
            **environment(),
            "platform": f"{platform.system()} {platform.machine()}",
            "packages": {package: _installed(package) for package in PACKAGES},
        },
    }


def _validated(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a reviewer wants to know of the data before looking into the report."""
    outcomes = Counter(e["outcome"] for e in found["expectations"])
    return {
        "expectations": dict(sorted(outcomes.items())),
        "warnings": found["warnings"],
        "shortcuts": [s["field"] for s in found["shortcuts"] if s["strong"]],
    }


def numbers(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Each metric as `auroc`, `auroc_low`, `auroc_high`, `auroc_n`; subgroups as `sex/F/auroc`."""
    groups = [("", evaluation["metrics"]), ("", evaluation.get("comparison") or {})]
    for axis, values in evaluation.get("subgroups", {}).items():
        groups += [(f"{axis}/{value}/", found) for value, found in values.items()]
    for prefix, found in groups:
        for metric, interval in found.items():
            for key, suffix in (("estimate", ""), ("low", "_low"), ("high", "_high"), ("n", "_n")):
                if isinstance(number := interval.get(key), int | float):
                    yield f"{prefix}{metric}{suffix}", float(number)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Spell nested settings as `train.network.name`; lists stay whole."""
    if not isinstance(value, dict):
        yield prefix, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{prefix}.{key}" if prefix else key)


def _curves(model: Path) -> dict[str, list[float]]:
    """Losses and the like by epoch, as `training/train_loss`."""
    epochs = _read(model / "history.json")
    keys = sorted({key for epoch in epochs for key in epoch} - {"epoch"})
    curves = {f"training/{key}": [epoch.get(key) for epoch in epochs] for key in keys}
    return {key: curve for key, curve in curves.items() if None not in curve}


def _files(model: Path) -> list[Path]:
    """All files that the model's digest names."""
    record = model / RECORD
    return sorted(path for path in model.rglob("*") if path.is_file() and path != record)


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _installed(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "absent"
