"""What a person is told of a run where there is no terminal, and when it has ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from toys import Settings, breaks, judge, read

from components.progress import progress
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.graph import Pipeline, Source, Step
from pipelines.runs import Run, StepState, past_runs
from pipelines.tell import Narrator, notes, summary

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "in.txt").write_text("x" * 60)
    config = Settings(journal=str(tmp_path / "journal.txt"))
    first = Step(read, config, source=Source("source", str(folder)))
    second = Step(judge, config, words=first["words"])
    return Pipeline("toy", [first, second, Step(breaks, config, words=first["words"])])


def walk(pipeline: Pipeline, home: Workspace, narrator: Narrator) -> Run:
    return local.run(pipeline, home, lambda source: Path(source.uri), tell=narrator.tell)


def test_each_step_is_a_line_and_there_are_no_codes(home, pipeline, capsys) -> None:
    with Narrator() as narrator:
        walk(pipeline, home, narrator)
    out, err = capsys.readouterr()
    assert (out, "\x1b" in err) == ("", False)
    assert [line.split()[:2] for line in err.splitlines()] == [
        ["ran", "read"],
        ["ran", "judge"],
        ["failed", "breaks"],
    ]
    assert "passed=True  reason=share 0.65 against 0.5" in err


def test_a_digest_is_told_by_its_beginning(home) -> None:
    state = StepState("register", "ran", values={"model_digest": "ab" * 32, "at": "2026"})
    assert "model_digest=abababababab  at=2026" in notes(state)


def test_where_a_machine_reads_nothing_is_told(home, pipeline, capsys) -> None:
    with Narrator(quiet=True) as narrator:
        walk(pipeline, home, narrator)
    assert capsys.readouterr() == ("", "")


def test_the_work_inside_a_long_step_is_told_now_and_then(monkeypatch, capsys) -> None:
    monkeypatch.setattr(
        "pipelines.tell.now_and_then",
        lambda write: lambda work: write(f"{work.title}  {work.done}/{work.total}"),
    )
    with Narrator() as narrator:
        narrator.tell(run_of("running"), StepState("train", "running"))
        with progress("read [images]") as report:
            report(5, 20, "")
        with progress("train") as report:
            report(2, 5, "")
    told = capsys.readouterr().err
    assert "          train:  read [images]  5/20\n" in told
    assert "          train:  2/5\n" in told


def test_a_blocked_step_is_told_at_once(capsys) -> None:
    with Narrator() as narrator:
        narrator.tell(run_of("running"), StepState("train", "blocked"))
        assert "train  another run is making this; waiting" in capsys.readouterr().err


def test_an_error_nobody_foresaw_names_the_log(home, capsys) -> None:
    run = run_of("running", train="failed")
    log = home.runs / run.id / "logs" / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text("frames\n")
    with pytest.raises(KeyError), Narrator() as narrator:
        narrator.tell(run, StepState("train", "running"))
        raise KeyError("Mueller")
    told = capsys.readouterr().err
    assert f"log: {log}" in told
    assert "Mueller" not in told


PROGRAM = """
import os
import subprocess
import sys
from pathlib import Path
from pydantic import BaseModel
from components.contract import Output, component
from components.progress import progress
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.commands.options import print_rich
from pipelines.graph import Pipeline, Step
from pipelines.tell import Narrator, notes, summary

class Settings(BaseModel):
    pass

@component()
def train(config: Settings, model: Output) -> None:
    ...

with Narrator() as narrator:
    run = local.run(Pipeline("life", [Step(train, Settings())]), Workspace(Path(sys.argv[1])), None,
                    tell=narrator.tell)
print_rich(summary(run))
"""


@pytest.mark.parametrize("broken", ["stdout", "stderr"])
def test_a_screen_that_has_gone_ends_no_run(home, tmp_path, broken) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)  # a module on disk, as every component is
    ours, theirs = os.pipe()
    os.close(ours)  # as `head` does when it has seen enough
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, broken: theirs}
    ended = subprocess.run(
        [sys.executable, str(program), str(home.home)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        **streams,
    )
    os.close(theirs)
    assert ended.returncode == 0
    assert not ended.stderr or "Error" not in ended.stderr
    assert ended.stdout is None or ended.stdout.startswith("done")
    (run,) = past_runs(home)
    assert run.outcome == "done"


def test_a_closed_standard_error_is_no_trouble(home, pipeline, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Narrator() as narrator:
        walk(pipeline, home, narrator)


def run_of(outcome: str, code: int | None = None, reason: str = "", **states: str) -> Run:
    steps = [StepState(name, state) for name, state in (states or {"train": "ran"}).items()]
    began, ended = "2026-01-01T10:00:00.000+00:00", "2026-01-01T10:03:05.000+00:00"
    return Run(
        id="20260101-100000-abcd",
        pipeline="life",
        config="my configs/phantom.yaml",
        config_digest="",
        pid=1,
        started_at=began,
        steps=steps,
        ended_at=ended,
        outcome=outcome,
        exit_code=code,
        reason=reason,
    )


def told(run: Run) -> list[str]:
    """The summary as a person reads it, spaces folded."""
    return [" ".join(line.plain.split()) for line in summary(run, 300).split()]


def test_a_run_that_is_done_says_how_long_it_took_and_what_comes_next(home) -> None:
    run = run_of("done", 0, ingest="reused", train="ran")
    run.steps[1].values = {"model_version": "finding:1"}
    assert told(run) == [
        "done (1 ran, 1 reused, 3 min 05 s; run 20260101-100000-abcd)",
        "next: lightbox lineage finding:1 where it came from, and who allowed it",
        "lightbox watch 'my configs/phantom.yaml' judge what its endpoint captured",
    ]


def test_what_was_measured_and_judged_is_told(home) -> None:
    run = run_of("done", 0, evaluate="ran", gate="reused", monitor_drift="ran", train="ran")
    run.step("evaluate").values = {"auroc": "0.957 (0.924 to 0.976)", "images": 284, "patients": 96}
    run.step("gate").values = {"passed": True, "reason": "pass: 96 patients (needed 80)"}
    run.step("monitor_drift").values = {
        "verdict": "insufficient",
        "reason": "insufficient: 35 requests count, 50 are needed",
    }
    assert told(run)[1:] == [
        "result: AUROC 0.957 (0.924 to 0.976) on 284 test images of 96 patients; gate: pass",
        "drift: insufficient: 35 requests count, 50 are needed",
        "next: the same command again judges, once as many requests have come in",
    ]


def test_a_command_is_told_once_and_with_what_was_set(home) -> None:
    run = run_of("waiting for approval", 4, "nobody did: lightbox approve finding:1 --reason …")
    run.steps[0].values = {"model_version": "finding:1"}
    assert told(run)[0].startswith("waiting for approval: nobody did (1 ran")
    assert sum("lightbox approve" in line for line in told(run)) == 1
    run.outcome, run.exit_code, run.overrides = "done", 0, ["training.seed=3", "gating.rules=[]"]
    watch = "lightbox watch 'my configs/phantom.yaml' --set training.seed=3 --set 'gating.rules=[]'"
    assert any(watch in line for line in told(run))


def test_a_narrow_screen_breaks_no_word_and_no_path(home) -> None:
    why = "fail: auroc 0.3926 is below 0.85; " * 5
    run = run_of("refused", 3, why.strip(), train="ran")
    run.steps[0].values = {"model_version": "finding:1"}
    page = home.runs / run.id / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("")
    lines = summary(run, 60).plain.splitlines()
    assert f"  report: {page}" in lines
    assert all(len(line) <= 60 for line in lines if str(page) not in line)
    assert " ".join(" ".join(lines).split()).startswith(f"refused: {why.strip()} (1 ran")
    assert lines[-2:] == [
        "  next:   lightbox lineage finding:1",
        "            where it came from, and who allowed it",
    ]


def test_brackets_of_a_reason_are_not_taken_for_markup(home) -> None:
    assert told(run_of("refused", 3, "auroc in [red]"))[0].startswith("refused: auroc in [red]")


NEXT = [
    (
        "waiting for approval",
        4,
        'lightbox approve finding:1 --reason "…" then the same run again releases it',
    ),
    ("rolled back", 5, "lightbox endpoint status"),
    ("refused", 3, "lightbox lineage finding:1"),
    ("failed", 1, "the same command again goes on from gate, once the cause is mended"),
    ("interrupted", 130, "the same command again goes on from gate"),
]


@pytest.mark.parametrize(("outcome", "code", "command"), NEXT)
def test_the_next_command_hangs_on_the_ending(home, outcome, code, command) -> None:
    run = run_of(outcome, code, train="ran", gate="failed" if code in (1, 130) else "ran")
    run.steps[0].values = {"model_version": "finding:1"}
    assert told(run)[1].startswith(f"next: {command}")


def test_a_retraining_that_was_asked_for_is_the_next_command(home) -> None:
    run = run_of("done", 0, retrain="ran")
    run.steps[0].values = {"requested": True}
    assert told(run)[1].startswith("next: lightbox run 'my configs/phantom.yaml'")


def test_a_run_that_did_nothing_says_how_to_learn_why(home) -> None:
    run = run_of("done", 0, train="reused")
    assert told(run)[1].startswith(f"next: lightbox explain {run.id}")


def test_what_there_is_to_look_at_is_named(home) -> None:
    run = run_of("failed", 1, "no", train="failed")
    folder = home.runs / run.id
    for name in ("report.html", "logs/train.log", "failed/train/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")
    assert told(run)[1:4] == [
        f"report: {folder}/report.html",
        f"left behind: {folder}/failed",
        f"log: {folder}/logs/train.log",
    ]
