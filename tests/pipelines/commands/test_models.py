"""Registered models, as the command lists them."""

from pathlib import Path

import boto3
import pytest
from click.testing import CliRunner
from evidence import parts, prepare_registry

from pipelines.commands.models import approve, lineage, models
from registry import audit_log
from registry.mlflow_registry import register_model
from registry.registration import register

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


def test_a_reviewer_elsewhere_approves_in_the_audit_log_that_jobs_read(
    home, aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.client("s3").create_bucket(Bucket="lightbox")
    prepare_registry(home)
    register("chest", **parts(tmp_path / "parts"))
    boto3.client("s3").upload_file(str(home.audit_log), "lightbox", "workspace/audit.db")

    def run(command, *args: str):
        return CliRunner().invoke(command, args, catch_exceptions=False)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.mlflow_uri)
    monkeypatch.setenv("LIGHTBOX_STATE", "s3://lightbox/workspace")
    for reader in ("reviewer", "reader"):
        monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / reader))
        if reader == "reviewer":
            run(approve, "chest:1", "--reason", "figures reviewed", "--actor", "ada")
        assert "figures reviewed" in run(lineage, "chest:1").output
        entries = audit_log.entries("chest:1")
        assert [entry.actor for entry in entries][-1] == "person:ada"
        assert audit_log.verify() is None
