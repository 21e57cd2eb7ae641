import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf import json_format
from kfp import dsl
from kfp.pipeline_spec import pipeline_spec_pb2

from components.kubeflow_pages import PAGES, leave_pages, local_path
from evaluation.config import EvaluationConfig
from evaluation.curves import curves
from lineage.files import write_json
from lineage.record import leave_record


def told(tmp_path: Path, outputs: dict[str, Path], values: dict[str, Any]) -> dict[str, Any]:
    """The metadata of each artifact, as KFP reads it from the file that it named."""
    names = [*outputs, *(f"{o}_{page}" for o in outputs for page in PAGES.get(o, ()))]
    places = {n: {"artifacts": [{"name": n, "uri": f"{tmp_path}/made/{n}"}]} for n in names}
    file = tmp_path / "executor_output.json"
    given = {"inputs": {}, "outputs": {"artifacts": places, "outputFile": str(file)}}
    leave_pages(json.dumps(given), outputs, values)
    json_format.Parse(file.read_text(), pipeline_spec_pb2.ExecutorOutput())
    artifacts = json.loads(file.read_text())["artifacts"]
    for name, listed in artifacts.items():
        assert {**listed["artifacts"][0], "metadata": 0} == {
            **places[name]["artifacts"][0],
            "metadata": 0,
        }
    return {name: listed["artifacts"][0]["metadata"] for name, listed in artifacts.items()}


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def test_numbers_are_the_metrics_with_their_intervals_and_what_the_step_reported(
    tmp_path: Path,
) -> None:
    metrics = folder(tmp_path, "metrics")
    known = {"estimate": 0.9, "low": 0.8, "high": 0.95, "n": 40, "reason": None}
    absent = {"estimate": None, "low": None, "high": None, "n": 0, "reason": "one class only"}
    write_json(metrics / "metrics.json", {"metrics": {"auroc": known, "sensitivity": absent}})
    values = {"images": 40, "passed": True, "auroc": "0.900", "said": "good", "loss": float("nan")}
    found = told(tmp_path, {"metrics": metrics}, values)
    assert found["metrics_numbers"] == {
        "auroc": 0.9,
        "auroc_low": 0.8,
        "auroc_high": 0.95,
        "images": 40,
    }


def test_the_roc_curve_is_what_kfp_would_log_with_the_scores_as_thresholds(tmp_path: Path) -> None:
    metrics = folder(tmp_path, "metrics")
    labels = np.array([0, 0, 1, 0, 1, 1, 0, 1])
    scores = np.array([0.1, 0.2, 0.2, 0.4, 0.4, 0.7, 0.7, 0.9])
    drawn = curves(labels, scores, np.arange(8), EvaluationConfig())
    write_json(metrics / "curves.json", drawn)
    pd.DataFrame({"label": labels, "score": scores, "patient_id": "p"}).to_parquet(
        metrics / "predictions.parquet", index=False
    )
    found = told(tmp_path, {"metrics": metrics}, {})["metrics_roc"]
    thresholds = [1.0, 0.9, 0.7, 0.4, 0.2, 0.1]
    logged = dsl.ClassificationMetrics()
    logged.log_roc_curve(
        fpr=[float((scores[labels == 0] >= t).mean()) for t in thresholds],
        tpr=[float((scores[labels == 1] >= t).mean()) for t in thresholds],
        threshold=thresholds,
    )
    assert found == logged.metadata


def test_an_html_report_lies_where_kfp_looks_for_it(tmp_path: Path) -> None:
    report = folder(tmp_path, "report")
    (report / "drift.html").write_text("<h1>No drift</h1>")
    told(tmp_path, {"report": report}, {})
    assert (tmp_path / "made/report_page").read_text() == "<h1>No drift</h1>"


@pytest.mark.parametrize("scheme", ["s3", "minio", "gs"])
def test_in_a_bucket_kfp_looks_below_a_folder_of_its_name(scheme: str) -> None:
    uri = f"{scheme}://bucket/run/report_page"
    assert local_path(uri) == Path(dsl.HTML(uri=uri).path)


def test_other_outputs_are_named_by_their_digest(tmp_path: Path) -> None:
    model = folder(tmp_path, "model")
    (model / "weights").write_text("1")
    digest = leave_record(model)
    assert told(tmp_path, {"model": model}, {}) == {"model": {"digest": digest}}


def test_a_step_with_nothing_to_draw_says_so(tmp_path: Path) -> None:
    metrics, report = folder(tmp_path, "metrics"), folder(tmp_path, "report")
    found = told(tmp_path, {"metrics": metrics, "report": report}, {})
    assert found["metrics_numbers"] == {}
    assert found["metrics_roc"] == {"note": "no curve was drawn"}
    assert (tmp_path / "made/report_page").read_text() == "<p>This step left no page.</p>\n"
