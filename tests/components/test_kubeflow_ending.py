import json
from pathlib import Path

import pytest

from components.kubeflow_ending import main


@pytest.fixture
def endings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTBOX_HOME", str(tmp_path))
    return tmp_path / "endings"


def refuse(reason: str = "AUROC 0.61 is below 0.8") -> None:
    main(["fail", "--run=r-1", "--outcome=refused", f"--reason={reason}", "--exit-code=3"])


def end(state: str, message: str = "") -> None:
    status = {"state": state, "pipelineTaskName": "exit-handler-1", "error": {"message": message}}
    main(["end", "--run=r-1", "--name=nightly", f"--status={json.dumps(status)}"])


@pytest.mark.parametrize(
    ("state", "outcome"),
    [("SUCCEEDED", "done"), ("COMPLETE", "done"), ("FAILED", "failed"), ("RUNNING", "unknown")],
)
def test_the_engine_s_state_and_words_are_kept(endings: Path, state: str, outcome: str) -> None:
    end(state, "evaluate failed")
    kept = json.loads((endings / "r-1.json").read_text())
    assert kept.pop("at")
    assert kept == {
        "run": "r-1",
        "name": "nightly",
        "outcome": outcome,
        "state": state,
        "error": "evaluate failed",
    }


def test_a_status_without_an_error_is_one_too(endings: Path) -> None:
    main(["end", "--run=r-1", "--name=n", '--status={"state": "SUCCEEDED"}'])
    assert json.loads((endings / "r-1.json").read_text())["error"] is None


def test_a_refusal_is_kept_as_one_though_the_engine_calls_it_a_failure(
    endings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        refuse()
    assert ended.value.code == 3
    assert capsys.readouterr().err == "AUROC 0.61 is below 0.8\n"
    end("FAILED")
    kept = json.loads((endings / "r-1.json").read_text())
    assert (kept["outcome"], kept["exit_code"], kept["state"]) == ("refused", 3, "FAILED")
    assert kept["reason"] == "AUROC 0.61 is below 0.8"


def test_a_run_that_was_tried_again_and_went_well_is_done(endings: Path) -> None:
    with pytest.raises(SystemExit):
        refuse()
    end("SUCCEEDED")
    kept = json.loads((endings / "r-1.json").read_text())
    assert kept["outcome"] == "done"
    assert "reason" not in kept


def test_a_refusal_stays_one_where_the_workspace_cannot_be_written(
    endings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endings.write_text("a file, where the folder should be")
    with pytest.raises(SystemExit) as ended:
        refuse()
    assert ended.value.code == 3
    assert "the workspace keeps no record of it" in capsys.readouterr().err


def test_what_is_no_run_id_names_no_file(endings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["end", "--run=../../etc", "--name=n", '--status={"state": "FAILED"}'])
    assert ended.value.code == 2
    assert "is not the id of a run" in capsys.readouterr().err
    assert not endings.exists()
