"""MLflow's database is there whole, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lineage.code import ROOT
from lineage.errors import BadInput
from lineage.tracking import ask, tracking_uri
from lineage.workspace import workspace

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


def test_odd_names_of_folders_hold_a_whole_workspace(tmp_path: Path, monkeypatch) -> None:
    from mlflow import MlflowClient

    odd = " pläin #@:&;'\"[]{}$~\\!*|<>^`+=,100%x%2\n${HOME}"
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path / odd / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    here = workspace()
    client = MlflowClient(tracking_uri(here))
    experiment = client.create_experiment("e", here.mlflow_artifacts.as_uri())
    run = client.create_run(experiment).info.run_id
    (tmp_path / "facts.json").write_text("{}")
    client.log_artifact(run, str(tmp_path / "facts.json"))
    assert Path(client.download_artifacts(run, "facts.json", str(tmp_path / odd))).is_file()
    assert sorted(path.name for path in here.home.iterdir()) == ["mlartifacts", "mlflow.db"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [odd, "facts.json"]


def rubbish(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


@pytest.mark.parametrize("spoil", [rubbish, Path.mkdir], ids=["rubbish", "a folder"])
def test_a_database_that_is_none_is_bad_input_at_once(home, spoil) -> None:
    """MLflow itself would try for minutes, and then call it an error of its own."""
    home.home.mkdir()
    spoil(home.home / "mlflow.db")
    with pytest.raises(BadInput, match="restore it from a backup; `lightbox doctor`"):
        tracking_uri(home)


def test_tables_that_are_unknown_to_us_are_left_to_mlflow(home) -> None:
    home.home.mkdir()
    (home.home / "mlflow.db").touch()
    assert ask(home.home / "mlflow.db", "SELECT * FROM model_version_tags") is None
    assert ask(home.home / "mlflow.db", "SELECT ?", (1,)) == [(1,)]
