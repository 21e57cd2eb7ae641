"""Registered models, as the command lists them."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from evidence import prepare_registry

from pipelines.commands.models import models
from registry.mlflow_registry import register_model

INTERVAL = {"auroc": 0.9571, "auroc_low": 0.924, "auroc_high": 0.976}


@pytest.mark.parametrize(
    ("metrics", "told"), [(INTERVAL, "0.957 (0.924 to 0.976)"), ({}, "unknown")]
)
def test_a_model_is_listed_with_its_figure(home, tmp_path: Path, metrics, told) -> None:
    prepare_registry(home)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "file.json").write_text("weights")
    register_model("chest", tmp_path / "model", {"verdict": "pass"}, {}, metrics=metrics)
    _, row = CliRunner().invoke(models).output.splitlines()
    assert f"chest:1  pass     {told}" in row
