import json

import numpy as np
import pandas as pd
import pytest

from components.monitor_drift import monitor_drift
from imaging.manifest import STATISTICS
from monitoring.config import MonitoringConfig

CONFIG = MonitoringConfig()


def table(seed, n, shift=0.0):
    rng = np.random.default_rng(seed)
    columns = {name: rng.normal(0.5 + shift, 0.1, n).astype("float32") for name in STATISTICS}
    return pd.DataFrame(
        {**columns, "score": rng.random(n), "manufacturer": "A", "rows": 64, "scanner": None}
    )


@pytest.fixture
def reference(tmp_path):
    path = tmp_path / "reference"
    path.mkdir()
    rows = table(0, 300)
    rows.loc[:199, "score"] = np.nan
    rows.to_parquet(path / "reference.parquet")
    (path / "reference.json").write_text('{"model_digest": "m1"}')
    return path


def watch(tmp_path, reference, live):
    """Run the step on live requests, shifted replayed ones, and shifted ones to another model."""
    traffic, report = tmp_path / "traffic", tmp_path / "report"
    (traffic / "captured").mkdir(parents=True)
    report.mkdir()
    strange = table(9, 100, shift=1.0)
    with (traffic / "captured" / "2026-01-01.jsonl").open("w") as file:
        for rows, tag, model in ((live, "live", "m1"), (strange, "replay", "m1")):
            for row in json.loads(rows.to_json(orient="records", double_precision=15)):
                facts = {"tag": tag, "model_digest": model, "error": None, "at": "2026"}
                file.write(json.dumps({**row, **facts}) + "\n")
        for row in json.loads(strange.to_json(orient="records")):
            file.write(json.dumps({**row, "tag": "live", "model_digest": "m0"}) + "\n")
    values = monitor_drift(CONFIG, reference=reference, traffic=traffic, report=report)
    return values, json.loads((report / "drift.json").read_text())


def test_like_traffic_is_no_drift(tmp_path, reference):
    values, facts = watch(tmp_path, reference, table(1, 120))
    assert values[:2] == (False, "no drift")
    assert facts["n_current"] == 120
    assert facts["model_digest"] == "m1"
    assert facts["passed_over"]["other tag"] == 100
    assert facts["passed_over"]["other model"] == 100
    assert facts["columns"]["score"]["n_reference"] == 100
    assert "manufacturer" in facts["columns"]
    assert "scanner" not in facts["columns"]


def test_other_traffic_is_drift(tmp_path, reference):
    values, facts = watch(tmp_path, reference, table(1, 60, shift=0.1))
    assert values[:2] == (True, "drift")
    assert {n for n, c in facts["columns"].items() if c["drifted"]} == set(STATISTICS)
    assert (tmp_path / "report" / "drift.html").stat().st_size > 1_000_000


def test_little_traffic_is_insufficient_however_strange(tmp_path, reference):
    values, facts = watch(tmp_path, reference, table(1, 49, shift=1.0))
    assert values == (False, "insufficient", "insufficient: 49 requests count, 50 are needed")
    assert facts["columns"] == {}


def test_before_the_first_champion_and_its_first_request(tmp_path):
    folders = {name: tmp_path / name for name in ("reference", "traffic", "report")}
    for path in folders.values():
        path.mkdir()
    assert monitor_drift(CONFIG, **folders).verdict == "insufficient"
    assert "0 requests" in (folders["report"] / "drift.html").read_text()
