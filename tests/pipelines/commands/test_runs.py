"""Past runs, as commands tell of them."""

from click.testing import CliRunner

from lineage.workspace import Workspace
from pipelines.commands.plans import explain
from pipelines.commands.runs import run, runs
from pipelines.runs import Run, RunFolder, StepState


def past(home: Workspace, outcome: str, reason: str, *steps: StepState, **more) -> Run:
    began = "2026-01-01T10:00:00.000+00:00"
    made = Run("20260101-100000-abcd", "life", "configs/a.yaml", "", 1, began, [*steps], **more)
    folder = RunFolder(home.runs / made.id)
    folder.begin(made)
    made.outcome, made.reason = outcome, reason
    folder.end(made)
    return made


def test_a_row_says_what_was_set_and_what_came_of_it(home) -> None:
    values = {"auroc": "0.957 (0.924 to 0.976)", "images": 284, "patients": 96}
    evaluated = StepState("evaluate", "ran", values=values)
    past(home, "done", "", evaluated, overrides=["training.max_epochs=5"])
    heads, row = CliRunner().invoke(runs).output.splitlines()
    assert heads.split()[2:5] == ["settings", "outcome", "AUROC"]
    assert "a.yaml training.max_epochs=5  done     0.957  1 ran, 0 reused" in row
    assert "configs/a.yaml  training.max_epochs=5" in CliRunner().invoke(explain).output


def test_a_reason_with_brackets_hides_no_run(home) -> None:
    past(home, "bad input", "/tmp/[/x] does not exist", StepState("ingest", "skipped"))
    assert "/tmp/[/x] does not exist" in CliRunner().invoke(runs).output


def test_why_nothing_was_reached_is_explained_once(home) -> None:
    steps = [StepState(name, "skipped") for name in ("ingest", "train", "gate")]
    past(home, "bad input", "/tmp/[/x] does not exist", *steps)
    told = CliRunner().invoke(explain).output.splitlines()
    assert told[1:] == ["no step was reached: /tmp/[/x] does not exist"]


def test_a_cluster_is_not_asked_to_stop_halfway() -> None:
    told = CliRunner().invoke(run, ["a.yaml", "--until", "split", "--on", "kubeflow"])
    assert told.exit_code == 2 and "--until is for runs on this machine" in told.output
