"""What a change of the DAG, its settings or the lowering does to what each engine gets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lineage.code import ROOT

SCRIPT = Path(__file__).with_name("renew.py")


@pytest.mark.parametrize("engine", ["kubeflow", "sagemaker"])
def test_what_an_engine_gets_is_what_was_reviewed(engine: str, tmp_path: Path) -> None:
    # Another folder, home and order of hashing: none of them may show.
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": "7",
        "HOME": str(tmp_path / "home"),
    }
    made = tmp_path / "made"
    made.mkdir()
    subprocess.run(
        [sys.executable, str(SCRIPT), engine, str(made)],
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    command = f"python {SCRIPT.relative_to(ROOT)} {engine}"
    golden = SCRIPT.with_name(engine)
    assert {p.name for p in made.iterdir()} == {p.name for p in golden.iterdir()}
    for path in made.iterdir():
        same = path.read_bytes() == (golden / path.name).read_bytes()
        assert same, (
            f"{path.name} differs; if it is meant to, run `{command}` and commit what it changes"
        )
