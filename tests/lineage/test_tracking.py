"""MLflow's database is there whole, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lineage.code import ROOT
from lineage.tracking import tracking_uri

# A process of its own, because MLflow must be imported before a fork, and nothing else.
KILLED_OVER_AND_OVER = """
import os, signal, sys
from pathlib import Path
from lineage.tracking import tracking_uri
from lineage.workspace import Workspace
import mlflow, mlflow.store.tracking.sqlalchemy_store
home = Workspace(Path(sys.argv[1]))
deaths = 0
for after_s in [0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2]:
    pid = os.fork()
    if pid == 0:
        signal.setitimer(signal.ITIMER_REAL, after_s)
        tracking_uri(home)
        os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        break
    assert not (home.home / "mlflow.db").exists()
    deaths += 1
print(deaths)
from mlflow import MlflowClient
client = MlflowClient(tracking_uri(home))
client.create_registered_model("m")
print(client.search_experiments()[0].name)
"""


def test_a_kill_while_it_is_made_leaves_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_OVER_AND_OVER, str(tmp_path / "home")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    deaths, experiment = done.stdout.split()
    assert int(deaths) >= 3, "made too quickly to be killed: the moments are to be earlier"
    assert experiment == "Default"


def test_a_server_is_left_alone(home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert tracking_uri(home) == "http://127.0.0.1:9"
    assert not home.home.exists()
