"""What Kubeflow's own pages draw of a step: numbers as a table, a ROC curve, an HTML report.

A container tells KFP about its artifacts in one JSON file, whose place the executor input names.
"""

import json
import re
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

from lineage.files import read_json, write_json
from lineage.record import read_record

Values = dict[str, Any]

# For an output of this name: which artifacts beside it, named OUTPUT_PAGE, KFP draws.
PAGES = {"metrics": ("numbers", "roc"), "report": ("page",)}
FOLDERS = {"s3": "/s3/", "minio": "/minio/", "gs": "/gcs/"}


def leave_pages(executor_input: str, outputs: dict[str, Path], values: Values) -> None:
    """Tell KFP what to draw, and the digest of each output.

    Args:
        executor_input: What KFP puts for `{{$}}`: the task's inputs and the places of its outputs.
        outputs: The filled directories.
        values: What the step reported.
    """
    told = json.loads(executor_input)["outputs"]
    artifacts = {}
    for name, listed in told.get("artifacts", {}).items():
        (artifact,) = listed["artifacts"]
        output, _, page = name.rpartition("_")
        if name in outputs:
            metadata = {"digest": read_record(outputs[name]).get("content", "")}
        else:
            metadata = _DRAWN[page](outputs[output], local_path(artifact["uri"]), values)
        artifacts[name] = {"artifacts": [artifact | {"metadata": metadata}]}
    write_json(Path(told["outputFile"]), {"artifacts": artifacts})


def local_path(uri: str) -> Path:
    """Where KFP's launcher takes the bytes of an artifact from, to upload them to that URI."""
    return Path(re.sub("^(s3|minio|gs)://", lambda scheme: FOLDERS[scheme[1]], uri))


def _numbers(folder: Path, target: Path, values: Values) -> Values:
    """Each metric with the ends of its interval, and each number that the step reported."""
    found = {name: value for name, value in values.items() if not isinstance(value, bool)}
    for name, metric in (read_json(folder / "metrics.json") or {}).get("metrics", {}).items():
        told = metric if isinstance(metric, dict) else {"estimate": metric}
        found[name] = told.get("estimate")
        found |= {f"{name}_{end}": told.get(end) for end in ("low", "high")}
    return {n: v for n, v in found.items() if isinstance(v, int | float) and isfinite(v)}


def _roc(folder: Path, target: Path, values: Values) -> Values:
    """The points of the ROC curve, each with the score from which on an image reads as positive.

    The curve holds no scores; at each of its points as many images read as positive as lie at or
    above the score, so the score of the last of them is it.
    """
    from pyarrow.parquet import read_table

    points = (read_json(folder / "curves.json") or {}).get("roc", [])
    if not points:
        return {"note": "no curve was drawn"}  # KFP's server refuses such an artifact without any
    cases = read_table(folder / "predictions.parquet", columns=["label", "score"]).to_pydict()
    scores = sorted(cases["score"], reverse=True)
    positives = sum(cases["label"])
    negatives = len(scores) - positives
    metrics = []
    for false_positives, true_positives in points:
        count = round(true_positives * positives + false_positives * negatives)
        metrics.append(
            {
                "confidenceThreshold": scores[count - 1] if count else 1.0,  # JSON has no infinity
                "recall": true_positives,
                "falsePositiveRate": false_positives,
            }
        )
    return {"confidenceMetrics": metrics}


def _page(folder: Path, target: Path, values: Values) -> Values:
    pages = sorted(folder.glob("*.html"))
    text = pages[0].read_text() if pages else "<p>This step left no page.</p>\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    return {}


_DRAWN: dict[str, Callable[[Path, Path, Values], Values]] = {
    "numbers": _numbers,
    "roc": _roc,
    "page": _page,
}
