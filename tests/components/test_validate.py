import json

import pandas as pd
import pytest
from manifest_rows import manifest_row

from components.validate import validate
from imaging.config import ValidationConfig
from imaging.manifest import write_manifest
from lineage.errors import StepFailed

CONFIG = ValidationConfig(minimum_images=4)


def snapshot(directory, blank=()):
    rows = [manifest_row(i, intensity_std=0.0 if i in blank else 0.3) for i in range(1, 9)]
    directory.mkdir()
    write_manifest(rows, directory)
    (directory / "counts.json").write_text(json.dumps({"found": 8, "read": 8, "set_aside": 0}))
    return directory


def folders(tmp_path):
    paths = {name: tmp_path / name for name in ("accepted", "report")}
    for path in paths.values():
        path.mkdir()
    return paths


def test_a_good_snapshot_is_accepted(tmp_path):
    out = folders(tmp_path)
    validate(CONFIG, snapshot=snapshot(tmp_path / "snapshot"), **out)
    accepted = pd.read_parquet(out["accepted"] / "accepted.parquet")
    assert accepted["instance_uid"].tolist() == [f"2.25.{i}" for i in range(1, 9)]
    assert list(accepted.columns) == ["instance_uid"]
    assert json.loads((out["report"] / "validation.json").read_text())["passed"] is True


def test_a_refusal_names_the_image_and_leaves_a_whole_report(tmp_path):
    out = folders(tmp_path)
    with pytest.raises(StepFailed) as refusal:
        validate(CONFIG, snapshot=snapshot(tmp_path / "snapshot", blank={3, 5}), **out)
    sentence = str(refusal.value)
    assert "expect_column_values_to_be_between on intensity_std" in sentence
    assert "2 unexpected" in sentence
    assert "2.25.3, 2.25.5" in sentence
    assert "2.25.5" in (out["report"] / "validation.html").read_text()
    assert (out["report"] / "data_docs" / "index.html").is_file()
    assert not list(out["accepted"].iterdir())
