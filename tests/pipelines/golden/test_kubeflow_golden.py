"""What a change of the DAG, its settings or the lowering does to the packages for Kubeflow."""

import os
import subprocess
import sys
from pathlib import Path

from lineage.code import ROOT

GOLDEN = Path(__file__).with_name("kubeflow")
SCRIPT = Path(__file__).with_name("renew.py")


def test_the_packages_are_those_that_were_reviewed(tmp_path: Path) -> None:
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
        [sys.executable, str(SCRIPT), "kubeflow", str(made)],
        env=environment,
        cwd=tmp_path,
        check=True,
    )
    command = f"python {SCRIPT.relative_to(ROOT)} kubeflow"
    assert {p.name for p in made.iterdir()} == {p.name for p in GOLDEN.iterdir()}
    for path in made.iterdir():
        same = path.read_bytes() == (GOLDEN / path.name).read_bytes()
        assert same, (
            f"{path.name} differs; if it is meant to, run `{command}` and commit what it changes"
        )
